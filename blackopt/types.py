"""The values that travel between the parts: frozen, small, without behaviour.

Times are integer microseconds since 1970-01-01 UTC and end in ``_us``; durations in seconds end in ``_s``.
Vectors are one-dimensional float64 arrays in the coordinates of a :class:`blackopt.space.Space`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float64]
"""Shape (n,): one point of the space, in the optimizer's coordinates."""

State: TypeAlias = dict[str, Any]
"""An optimizer's whole memory: str keys to None, bool, int, float, str, ndarray, lists, dicts of these."""

CONTROL = "control"
"""The arm that serves the incumbent in every window."""


class Status(StrEnum):
    """How a trial ended; exactly one per trial, written by its tell."""

    OK = "ok"  # a value was measured
    FAILED = "failed"  # it ran, and gave no usable value
    INFEASIBLE = "infeasible"  # a guardrail withdrew it: worse than anything that was let to finish
    EXPIRED = "expired"  # its metric never matured before the deadline
    VOID = "void"  # it was never tried


class Role(StrEnum):
    """Why a trial exists."""

    SEARCH = "search"  # asked by the optimizer, told to it
    # None of the others is ever told to it.
    CONFIRM = "confirm"  # the recommendation, measured again on fresh units
    TEST = "test"  # a look of a promotion: the recommendation against the incumbent on fresh units
    RAMP = "ramp"  # the proven recommendation on a growing share
    HOLDBACK = "holdback"  # the former incumbent on a small share after the promotion


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """What ``ask`` returns.

    Attributes:
        number: 0-based, gapless, the order in which the optimizer drew it.
        version: number of the centre it was drawn around (how many updates the optimizer had made).
        vector: (n,) the point to try, inside the bounds of the space.
    """

    number: int
    version: int
    vector: Vector


class LazyCandidate(Candidate):
    """A candidate whose vector is made anew whenever it is read, and is kept nowhere.

    Args:
        number, version: as of :class:`Candidate`.
        make: makes the (n,) vector; not called before ``vector`` is read.
    """

    __slots__ = ("_make",)
    _make: Callable[[], Vector]

    def __init__(self, number: int, version: int, make: Callable[[], Vector]) -> None:
        object.__setattr__(self, "number", number)
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "_make", make)

    @property
    def vector(self) -> Vector:
        """(n,) a new array; who reads it twice computes it twice."""
        return self._make()


class KeyedCandidate(LazyCandidate):
    """A candidate that is its centre + sign * sigma * noise, exactly: 24 bytes stand for it.

    Attributes:
        key: as of :mod:`blackopt.artifacts.keyed`: version, key, sign, sigma and kind of noise. Who has the
            centre of that version rebuilds ``vector`` from it to the last bit. The centre is what the
            optimizer recommends while the version is its latest.
    """

    __slots__ = ("key",)
    key: bytes

    def __init__(self, number: int, version: int, make: Callable[[], Vector], key: bytes) -> None:
        super().__init__(number, version, make)
        object.__setattr__(self, "key", key)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What ``tell`` receives. Losses are minimised; the sign of a maximised metric is flipped at the edge.

    Attributes:
        number: of the candidate.
        loss: the measured loss; None unless ``status`` is ``ok``. NaN and infinities count as failed.
        se: standard error of the loss, in its units; None where it is unknown.
        weight: relative trust, > 0.
        status: ``infeasible`` counts as worse than every finite loss; ``failed``, ``expired`` and ``void``
            carry no information.
        vector: (n,) what was really tried, where it is not what ``ask`` drew (a replay on other hardware, for
            example).
    """

    number: int
    loss: float | None
    se: float | None = None
    weight: float = 1.0
    status: Status = Status.OK
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """What production runs: bytes, their media type, and their hash."""

    body: bytes
    media_type: str = "application/json"

    @property
    def sha256(self) -> str:
        """Hex digest of the body: the artifact's name everywhere."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of the traffic of one window, as cut by :mod:`blackopt.traffic`.

    A unit belongs to it when ``lower <= bucket(campaign, salt, unit) < upper``; bounds are in millionths of
    all units.
    """

    lower: int
    upper: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and when an arm is served: its window, its slice, and the control's slice of the same window."""

    window: int
    salt: str
    slice: Slice
    control: Slice


@dataclass(frozen=True, slots=True)
class Push:
    """Order to serve one candidate. Repeating it with the same key changes nothing but renews the lease.

    Attributes:
        key: idempotency key, sha256 hex of (campaign uuid, trial, kind).
        campaign: name of the campaign (the first part of what is hashed to assign a unit).
        trial: number of the trial.
        arm: the arm's name, ``t<trial>``.
        epoch: fencing token; a receiver refuses an epoch lower than the highest it has seen for this
            campaign.
        ttl_s: the receiver stops serving the arm by itself this many seconds after the order, unless it is
            renewed.
        artifact: what to serve.
        placement: which traffic; None for an evaluation.
    """

    key: str
    campaign: str
    trial: int
    arm: str
    epoch: int
    ttl_s: float
    artifact: Artifact
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Order to stop serving one candidate. Withdrawing what is not live succeeds."""

    key: str
    campaign: str
    trial: int
    arm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Order that the incumbent of one campaign is this artifact, from now on and until another is adopted.

    No lease: it outlives the campaign and its driver.

    Attributes:
        key: idempotency key, sha256 hex of (campaign uuid, number, kind).
        campaign: name of the campaign whose units get the artifact wherever they are in no arm.
        number: 1-based, the order in which the campaign adopts; a receiver refuses one lower than the highest
            it has adopted, and the highest with another artifact.
        epoch: fencing token, as of :class:`Push`.
        artifact: what to serve.
    """

    key: str
    campaign: str
    number: int
    epoch: int
    artifact: Artifact


class Outcome(StrEnum):
    """What a target said of an order."""

    APPLIED = "applied"
    REPEATED = "repeated"  # it already had this key; the lease, where there is one, is renewed
    REFUSED = "refused"  # definitely not applied: the module will not serve this


@dataclass(frozen=True, slots=True)
class Receipt:
    """A target's answer. An unknown outcome raises :class:`blackopt.errors.OutcomeUnknown` instead."""

    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Live:
    """One arm that production says it serves now."""

    campaign: str
    trial: int
    arm: str
    epoch: int
    sha256: str
    expires_in_s: float


@dataclass(frozen=True, slots=True)
class Query:
    """What a source is asked for: every metric of some arms of one window, as of one time.

    Attributes:
        campaign: name.
        window: number of the window (0 for evaluations).
        arms: names, the control first where there is one.
        start_us, end_us: the window in which units are exposed; end exclusive.
        as_of_us: pretend that nothing later is known. The source may know less, never more.
        metrics: names declared under ``measure.metrics``.
    """

    campaign: str
    window: int
    arms: tuple[str, ...]
    start_us: int
    end_us: int
    as_of_us: int
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric of one arm and cohort as of one time, as sufficient statistics; later ones never replace it.

    Attributes:
        metric: declared name.
        window: number of the window that the arm was served in.
        arm: name.
        cohort: the exposure day (ISO date), or "" where the source does not split by day.
        as_of_us: the source's own watermark: everything up to here is in the statistics.
        stats: what the metric's kind needs, e.g. ``{"n": 310, "sum": 57, "sum_sq": 57}``; finite floats.
    """

    metric: str
    window: int
    arm: str
    cohort: str
    as_of_us: int
    stats: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class NoReading:
    """A source's word that an arm will never have a reading (an evaluation raised, a job was lost)."""

    window: int
    arm: str
    cause: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its standard error (None where unknown), from ``n`` units."""

    value: float
    se: float | None
    n: float


@dataclass(frozen=True, slots=True)
class Belief:
    """What an optimizer thinks its recommendation is worth.

    Attributes:
        improvement: by how much its loss is below that of the start, in units of the loss; negative where
            what recommends it and what judges it differ; 0, with a standard error of 0, where the start
            itself is recommended. ``n`` is the number of results behind it.
        probability: that the recommendation is no worse than the start.
    """

    improvement: Estimate
    probability: float
