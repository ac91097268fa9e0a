"""A production that fits in memory: target, source and outcomes, with every fault a test may ask for.

It is a fake only at the seams that :mod:`blackopt.protocols` defines. Its outcomes are a function of (arm,
window, artifact), so two runs that push the same candidates read the same numbers, whatever happened in
between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from blackopt.errors import OutcomeUnknown, RetriableError
from blackopt.protocols import Clock, PluginOptions
from blackopt.types import (
    CONTROL,
    Adopt,
    Artifact,
    Live,
    NoReading,
    Outcome,
    Push,
    Query,
    Reading,
    Receipt,
    Withdraw,
)

Rate = Callable[[bytes], float]
"""True success rate of an artifact's body, in (0, 1)."""


@dataclass
class FakeProduction:
    """Serves pushes and answers polls.

    Attributes:
        clock: virtual time.
        rate: true rate of an artifact; the control has ``control_rate``.
        units: units per arm and window, 0 makes a window empty; the control has as many times more as its
            slice is wider.
        lost: part of an arm's units whose exposure is never logged, by arm name.
        metrics: rate of each metric as a function of the objective's rate; default the identity.
        knows_until_us: the source's watermark; None for up to date.
        faults: what the next calls do instead of succeeding, one after the other, by method name.
        applied: how often each trial was applied for the first time (never more than once).
        adopted: the adopted incumbent, with its number; the control then has the rate of its body.
    """

    clock: Clock
    rate: Rate
    control_rate: float = 0.2
    units: int = 2_000
    metrics: Mapping[str, Callable[[float], float]] = field(
        default_factory=lambda: {"success": lambda rate: rate}
    )
    knows_until_us: int | None = None
    faults: dict[str, list[str]] = field(default_factory=dict)
    applied: dict[int, int] = field(default_factory=dict)
    renewed: int = 0
    live: dict[int, tuple[Push, int]] = field(default_factory=dict)
    bodies: dict[tuple[int, str], bytes] = field(default_factory=dict)
    withdrawn: set[int] = field(default_factory=set)
    epoch: int = 0
    extra: list[Reading | NoReading] = field(default_factory=list)
    lost: dict[str, float] = field(default_factory=dict)
    control_size: dict[int, float] = field(default_factory=dict)
    adopted: tuple[int, Artifact] | None = None
    control_bodies: dict[int, bytes | None] = field(default_factory=dict)

    Options: ClassVar[type[PluginOptions]] = PluginOptions
    MetricOptions: ClassVar[type[PluginOptions]] = PluginOptions

    # -- target ----------------------------------------------------------------------------------------------

    def check(self) -> str:
        """Always reachable."""
        return "in memory"

    def push(self, order: Push) -> Receipt:
        """Apply, or recognise; faults: down, lost (request), unanswered (applied, reply lost), refused."""
        fault = self._order("push")
        if fault == "refused":
            return Receipt(Outcome.REFUSED, "bounds: too bold")
        if order.epoch < self.epoch:
            return Receipt(Outcome.REFUSED, f"fenced: epoch {order.epoch} is below {self.epoch}")
        self.epoch = order.epoch
        if order.trial in self.withdrawn:
            return Receipt(Outcome.REFUSED, "withdrawn")
        first = order.trial not in self.applied
        self.applied[order.trial] = self.applied.get(order.trial, 0) + first
        self.renewed += not first
        self.live[order.trial] = (order, self.clock.now_us() + round(order.ttl_s * 1e6))
        if order.placement is not None:
            place = order.placement
            self.bodies[place.window, order.arm] = order.artifact.body
            width = place.slice.upper - place.slice.lower
            self.control_size[place.window] = (place.control.upper - place.control.lower) / width
            # One artifact a window: an adoption between two windows is what the loop makes of it.
            self.control_bodies.setdefault(
                place.window, None if self.adopted is None else self.adopted[1].body
            )
        if fault == "unanswered":
            raise OutcomeUnknown("no answer", why="the reply was lost")
        return Receipt(Outcome.APPLIED if first else Outcome.REPEATED)

    def withdraw(self, order: Withdraw) -> Receipt:
        """Stop serving; faults as for push."""
        fault = self._order("withdraw")
        if fault == "refused":
            return Receipt(Outcome.REFUSED, "malformed: not today")
        known = self.live.pop(order.trial, None) is not None
        self.withdrawn.add(order.trial)
        if fault == "unanswered":
            raise OutcomeUnknown("no answer", why="the reply was lost")
        return Receipt(Outcome.APPLIED if known else Outcome.REPEATED)

    def adopt(self, order: Adopt) -> Receipt:
        """Change the incumbent; faults as for push."""
        fault = self._order("adopt")
        if fault == "refused":
            return Receipt(Outcome.REFUSED, "bounds: too bold")
        if order.epoch < self.epoch:
            return Receipt(Outcome.REFUSED, f"fenced: epoch {order.epoch} is below {self.epoch}")
        self.epoch = order.epoch
        number, artifact = self.adopted or (0, None)
        if order.number < number:
            return Receipt(Outcome.REFUSED, f"stale: number {order.number} is below {number}")
        if order.number == number and order.artifact != artifact:
            return Receipt(Outcome.REFUSED, f"conflict: number {number} was adopted with another artifact")
        self.adopted = (order.number, order.artifact)
        if fault == "unanswered":
            raise OutcomeUnknown("no answer", why="the reply was lost")
        return Receipt(Outcome.REPEATED if order.number == number else Outcome.APPLIED)

    def observe(self) -> list[Live]:
        """What is live now and whose lease has not lapsed."""
        if self._fault("observe") == "down":
            raise RetriableError("the module is down")
        now_us = self.clock.now_us()
        return [
            Live(
                order.campaign,
                order.trial,
                order.arm,
                order.epoch,
                order.artifact.sha256,
                (until_us - now_us) / 1e6,
            )
            for order, until_us in self.live.values()
            if until_us > now_us
        ]

    def incumbent(self, campaign: str) -> tuple[int, str] | None:  # noqa: ARG002 - it serves one campaign
        """What was adopted last."""
        if self._fault("observe") == "down":
            raise RetriableError("the module is down")
        return None if self.adopted is None else (self.adopted[0], self.adopted[1].sha256)

    def restart(self) -> None:
        """The module restarts and has forgotten what is live; fence, refusals and incumbent are durable."""
        self.live.clear()

    # -- source ----------------------------------------------------------------------------------------------

    def read(self, query: Query) -> Iterator[Reading | NoReading]:
        """Readings of all arms that were ever served in the window, and whatever ``extra`` holds."""
        if self._fault("read") == "down":
            raise RetriableError("the event log is down")
        as_of_us = query.as_of_us if self.knows_until_us is None else min(query.as_of_us, self.knows_until_us)
        share = min(1.0, max(0.0, (as_of_us - query.start_us) / (query.end_us - query.start_us)))
        units = int(self.units * share)
        for metric in query.metrics:
            for arm in query.arms:
                body = self.bodies.get((query.window, arm))
                if arm != CONTROL and body is None:
                    continue
                served = self.control_bodies.get(query.window) if arm == CONTROL else body
                rate = self.metrics[metric](self.control_rate if served is None else self.rate(served))
                size = self.control_size.get(query.window, 0.0) if arm == CONTROL else 1.0
                n = round(units * size * (1.0 - self.lost.get(arm, 0.0)))
                total = round(n * rate + _noise(metric, query.window, arm) * (n * rate * (1 - rate)) ** 0.5)
                yield Reading(metric, query.window, arm, "", as_of_us, {"n": n, "sum": min(max(total, 0), n)})
        yield from self.extra

    def close(self) -> None:
        """Nothing to close."""

    def _order(self, method: str) -> str:
        """The fault of an order that arrives; one that does not arrive ends here."""
        fault = self._fault(method)
        if fault == "down":
            raise RetriableError("the module is down")
        if fault == "lost":
            raise OutcomeUnknown("no answer", why="the request was lost")
        return fault

    def _fault(self, method: str) -> str:
        waiting = self.faults.get(method)
        return waiting.pop(0) if waiting else ""


def _noise(*key: object) -> float:
    """A number in about [-1.7, 1.7] with variance 1, keyed, so that re-reading gives the same."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return (int.from_bytes(digest[:6], "big") / 2**48 - 0.5) * 12**0.5
