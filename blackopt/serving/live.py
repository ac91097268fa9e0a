"""What the module serves now, as an immutable snapshot that readers take without a lock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, Self, TypeVar

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
        value: what the module's ``load`` made of the artifact, once per push; the artifact itself without.
    """

    arm: str | None
    window: int
    artifact: Artifact
    value: T


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
        first = placed[0][0]
        return cls(
            placement=first,
            lowers=tuple(placement.slice.lower for placement, _ in placed),
            arms=tuple(arm for _, arm in placed),
            control=Assignment(CONTROL, first.window, incumbent.artifact, incumbent.value),
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
class View(Generic[T]):
    """All arms by (campaign, trial), and the placed ones by campaign."""

    arms: Mapping[tuple[str, int], LiveArm[T]]
    windows: Mapping[str, LiveWindow[T]]

    @classmethod
    def of(cls, arms: Mapping[tuple[str, int], LiveArm[T]], incumbent: Assignment[T]) -> Self:
        """The snapshot of these arms."""
        windows: dict[str, LiveWindow[T]] = {}
        for campaign in {campaign for campaign, _ in arms}:
            window = LiveWindow.of((arm for key, arm in arms.items() if key[0] == campaign), incumbent)
            if window is not None:
                windows[campaign] = window
        return cls(MappingProxyType(dict(arms)), MappingProxyType(windows))

    def unlapsed(self, now: float) -> dict[tuple[str, int], LiveArm[T]]:
        """A copy of the arms whose leases still run."""
        return {key: arm for key, arm in self.arms.items() if now < arm.expires}
