"""What the module serves now, as an immutable snapshot that readers take without a lock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Generic, Self, TypeVar

from blackopt.errors import UsageError
from blackopt.serving.answers import Refused
from blackopt.serving.state import Adopted
from blackopt.traffic import bucket
from blackopt.types import CONTROL, Artifact, Placement, Push

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Assignment(Generic[T]):
    """What to serve to one unit.

    Attributes:
        arm: the arm's name or ``"control"``: log it with the exposure. None: the unit is in no experiment
            now; serve ``value``, and log nothing that could be taken for the control.
        window: number of the window, to be logged with the arm; 0 where ``arm`` is None.
        artifact: the bytes to serve; the incumbent's unless ``arm`` is a candidate's.
        value: what the module's ``load`` made of the artifact, once per order; the artifact itself without.
        beside: for the control, the value of an arm of its window; else None.
    """

    arm: str | None
    window: int
    artifact: Artifact
    value: T
    beside: T | None = None


@dataclass(frozen=True, slots=True)
class LiveArm(Generic[T]):
    """An accepted push with its lease: ``expires`` is in seconds of the module's own monotonic clock."""

    order: Push
    expires: float
    assignment: Assignment[T]


@dataclass(frozen=True, slots=True)
class LiveWindow(Generic[T]):
    """The placed arms of a campaign, ready for look-up: sorted by their slices' lower bounds."""

    placement: Placement  # of any of its arms: window, salt and control are the same for all
    lowers: tuple[int, ...]
    arms: tuple[LiveArm[T], ...]
    control: Assignment[T]
    expires: float  # when the last of its leases ends, and the control with it

    @classmethod
    def of(cls, arms: Iterable[LiveArm[T]], incumbent: Assignment[T]) -> Self | None:
        """The window that the arms make up; None if none of them is placed."""
        placed = [(arm.order.placement, arm) for arm in arms if arm.order.placement is not None]
        if not placed:
            return None
        placed.sort(key=lambda pair: pair[0].slice.lower)
        first, some = placed[0][0], placed[0][1].assignment
        return cls(
            placement=first,
            lowers=tuple(placement.slice.lower for placement, _ in placed),
            arms=tuple(arm for _, arm in placed),
            control=Assignment(CONTROL, first.window, incumbent.artifact, incumbent.value, some.value),
            expires=max(arm.expires for _, arm in placed),
        )

    def find(self, at: int, now: float) -> Assignment[T] | None:
        """The assignment of bucket ``at`` (millionths); None where nothing is served to it now."""
        index = bisect_right(self.lowers, at) - 1
        if index >= 0:
            arm = self.arms[index]
            placement = arm.order.placement
            if placement is not None and at < placement.slice.upper:
                # Lapsed: its units were exposed to a candidate, so they are not the control either.
                return arm.assignment if now < arm.expires else None
        control = self.placement.control
        return self.control if control.lower <= at < control.upper else None


@dataclass(frozen=True, slots=True)
class Incumbent(Generic[T]):
    """What a campaign has adopted, and what the module has made of it: something to serve, or a refusal."""

    adopted: Adopted
    ready: Assignment[T] | Refused


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """Everything that is served.

    Attributes:
        configured: the incumbent of the module's own code.
        adopted: the incumbents that were adopted in its place, by campaign.
        arms: all arms, by (campaign, trial).
        windows: the placed ones, by campaign.
    """

    configured: Assignment[T]
    adopted: Mapping[str, Incumbent[T]]
    arms: Mapping[tuple[str, int], LiveArm[T]]
    windows: Mapping[str, LiveWindow[T]]

    @classmethod
    def of(
        cls,
        configured: Assignment[T],
        adopted: Mapping[str, Incumbent[T]],
        arms: Mapping[tuple[str, int], LiveArm[T]],
    ) -> Self:
        """The snapshot of these incumbents and arms."""
        view = cls(configured, MappingProxyType(dict(adopted)), MappingProxyType(dict(arms)), {})
        windows: dict[str, LiveWindow[T]] = {}
        for campaign in {campaign for campaign, _ in arms}:
            of_campaign = (arm for key, arm in arms.items() if key[0] == campaign)
            window = LiveWindow.of(of_campaign, view.incumbent(campaign))
            if window is not None:
                windows[campaign] = window
        return replace(view, windows=MappingProxyType(windows))

    def with_arms(self, arms: Mapping[tuple[str, int], LiveArm[T]]) -> Self:
        """The snapshot with these arms in place of its own."""
        return self.of(self.configured, self.adopted, arms)

    def with_incumbent(self, campaign: str, incumbent: Incumbent[T]) -> Self:
        """The snapshot with another incumbent of one campaign, in its control too."""
        return self.of(self.configured, {**self.adopted, campaign: incumbent}, self.arms)

    def assign(self, campaign: str, unit: str, now: float) -> Assignment[T]:
        """What a unit is served; the incumbent where it has no id that the splitter takes."""
        window, incumbent = self.windows.get(campaign), self.incumbent(campaign)
        if window is None or now >= window.expires:
            return incumbent
        try:
            at = bucket(campaign, window.placement.salt, unit)
        except UsageError:
            return incumbent
        return window.find(at, now) or incumbent

    def incumbent(self, campaign: str) -> Assignment[T]:
        """What the units of a campaign get outside its arms and its control."""
        adopted = self.adopted.get(campaign)
        return self.configured if adopted is None or isinstance(adopted.ready, Refused) else adopted.ready

    def unlapsed(self, now: float) -> dict[tuple[str, int], LiveArm[T]]:
        """A copy of the arms whose leases still run."""
        return {key: arm for key, arm in self.arms.items() if now < arm.expires}

    def beside(self, order: Push, now: float) -> dict[tuple[str, int], LiveArm[T]]:
        """The unlapsed arms, without those of the campaign whose window ends when the order's begins."""
        arms = self.unlapsed(now)
        if order.placement is None:
            return arms
        window = order.placement.window

        def ends(arm: LiveArm[T]) -> bool:
            placement = arm.order.placement
            return (
                arm.order.campaign == order.campaign and placement is not None and placement.window < window
            )

        return {key: arm for key, arm in arms.items() if not ends(arm)}

    def listing(self, now: float, killed: str) -> dict[str, list[dict[str, object]]]:
        """The members ``live`` and ``incumbents`` of the answer to ``GET live``.

        Args:
            now: seconds of the module's clock.
            killed: why nothing of this is served; empty if it is.
        """
        arms = {} if killed else self.unlapsed(now)
        return {
            "live": [
                {
                    "campaign": campaign,
                    "trial": trial,
                    "arm": arm.order.arm,
                    "epoch": arm.order.epoch,
                    "sha256": arm.order.artifact.sha256,
                    "expires_in_s": arm.expires - now,
                }
                for (campaign, trial), arm in sorted(arms.items(), key=lambda item: item[0])
            ],
            "incumbents": [
                _listed(campaign, incumbent, killed) for campaign, incumbent in sorted(self.adopted.items())
            ],
        }


def _listed(campaign: str, incumbent: Incumbent[T], killed: str) -> dict[str, object]:
    refused = f"bounds: {incumbent.ready.reason}" if isinstance(incumbent.ready, Refused) else ""
    why = killed or refused
    return {
        "campaign": campaign,
        "number": incumbent.adopted.number,
        "sha256": incumbent.adopted.artifact.sha256,
        "served": not why,
        "detail": why,
    }
