"""What goes into the ledger and comes out of it: frozen rows, named as in the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from blackopt.errors import UsageError
from blackopt.ledger.canonical import vector_of
from blackopt.types import Reading, Role, Slice, Status, Vector


class TrialState(StrEnum):
    """The life of a trial; TOLD is the only end."""

    ASKED = "ASKED"
    PUSHING = "PUSHING"
    LIVE = "LIVE"
    WITHDRAWING = "WITHDRAWING"
    AWAITING = "AWAITING"
    TOLD = "TOLD"


class PushKind(StrEnum):
    """The two orders that reach production."""

    APPLY = "apply"
    WITHDRAW = "withdraw"


class PushState(StrEnum):
    """What is known of an order."""

    PENDING = "pending"  # intended; certainly not applied yet
    UNKNOWN = "unknown"  # sent, and not answered
    ACKED = "acked"
    REFUSED = "refused"
    LAPSED = "lapsed"  # a withdrawal that its own lease made true


class Disposition(StrEnum):
    """What became of a reading."""

    ACCEPTED = "accepted"
    LATE = "late"  # after its trial was told; kept, shown, never told again
    QUARANTINED = "quarantined"  # unknown arm or window


class Mode(StrEnum):
    """Whether the campaign may go on."""

    RUN = "run"
    PAUSED = "paused"  # a guardrail or a person stopped it
    STOPPED = "stopped"  # `blackopt stop`: everything withdrawn
    DONE = "done"


class PromotionState(StrEnum):
    """The life of a promotion; REFUSED and REVERTED leave production as it was, DONE as was recommended."""

    TESTING = "TESTING"  # the recommendation against the incumbent, on fresh units
    RAMPING = "RAMPING"  # proven: on a growing share of all units
    ADOPTING = "ADOPTING"  # production is told that it is the incumbent now
    HOLDING = "HOLDING"  # it is; the former incumbent is kept on a small share, to compare with
    DONE = "DONE"
    REFUSED = "REFUSED"  # not proven
    REVERTING = "REVERTING"  # by a person or a guardrail: everything of it is withdrawn
    REVERTED = "REVERTED"

    @property
    def open(self) -> bool:
        """Whether something is left to do."""
        return self not in (PromotionState.DONE, PromotionState.REFUSED, PromotionState.REVERTED)

    @property
    def adopted(self) -> bool:
        """Whether production serves the recommendation as its incumbent."""
        return self in (PromotionState.HOLDING, PromotionState.DONE)


@dataclass(frozen=True, slots=True)
class NewCampaign:
    """What a ledger is created for. ``config`` is the campaign as JSON, secrets still as references."""

    name: str
    config: str
    config_sha: str
    optimizer: str
    optimizer_version: str


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """The campaign that a ledger belongs to."""

    uuid: str
    name: str
    config: str
    config_sha: str
    optimizer: str
    optimizer_version: str
    mode: Mode
    created_us: int


@dataclass(frozen=True, slots=True)
class WindowRow:
    """One stretch of traffic: all its arms start and stop together. Numbered from 1."""

    number: int
    role: Role
    salt: str
    start_us: int
    end_us: int
    control: Slice


@dataclass(frozen=True, slots=True, eq=False)
class NewTrial:
    """A trial to be written by T1.

    Attributes:
        number: gapless in the campaign.
        candidate: the optimizer's number for it; None for a confirmation.
        version: of the centre it was drawn around.
        told_before: how many tells the optimizer had been given when it was asked; replay needs it.
        vector: (n,) float64; None where there is a key.
        window, slice: None for an evaluation or a manual trial.
        deadline_us: it is told as expired after this; None for no deadline.
        key: the 24 bytes of :class:`blackopt.artifacts.Keyed`, in place of the vector.
    """

    number: int
    candidate: int | None
    role: Role
    version: int
    told_before: int
    vector: Vector | None
    window: int | None = None
    slice: Slice | None = None
    deadline_us: int | None = None
    key: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrialRow:
    """A trial as it stands. ``arm`` is ``t<number>``.

    Attributes:
        body: what was asked: its vector, (n,) little-endian float64, or the 24 bytes of its key.
        keyed: which of the two.
        vector_sha: hex digest of ``body``.
    """

    number: int
    candidate: int | None
    role: Role
    version: int
    told_before: int
    body: bytes
    keyed: bool
    vector_sha: str
    window: int | None
    slice: Slice | None
    deadline_us: int | None
    state: TrialState
    cause: str
    asked_us: int
    live_us: int | None
    lease_until_us: int | None

    @property
    def arm(self) -> str:
        """The arm that serves it."""
        return f"t{self.number}"

    @property
    def vector(self) -> Vector:
        """(n,) a new array.

        Raises:
            UsageError: the ledger has its key alone; the numbers are relative to a centre.
        """
        if self.keyed:
            raise UsageError(f"trial {self.number}: it is known by its key, of version {self.version}")
        return vector_of(self.body)


@dataclass(frozen=True, slots=True)
class PushRow:
    """One order of the outbox."""

    trial: int
    kind: PushKind
    key: str
    epoch: int
    body_sha: str
    state: PushState
    attempts: int
    next_us: int


@dataclass(frozen=True, slots=True)
class CentreRow:
    """What the keys of one version are relative to.

    Attributes:
        version: how many updates the optimizer had made.
        vector_sha: hex digest of its (n,) float64 numbers, to be compared when they are computed again.
        artifact_sha: of the file in the store that modules load.
    """

    version: int
    vector_sha: str
    artifact_sha: str


@dataclass(frozen=True, slots=True, eq=False)
class PromotionRow:
    """One promotion as it stands.

    Attributes:
        number: gapless from 1.
        plan: what was declared when it started, JSON-able; later edits of the campaign do not reach it.
        first_trial: its trials have this number or a higher one, and the roles of a promotion.
        vector: (n,) the recommendation.
        vector_sha: hex digest of its bytes.
        cause: why it is where it is, one line for people.
    """

    number: int
    plan: Mapping[str, object]
    first_trial: int
    vector: Vector
    vector_sha: str
    started_us: int
    state: PromotionState
    cause: str


@dataclass(frozen=True, slots=True, eq=False)
class IncumbentRow:
    """One order that made a vector the incumbent, and its delivery.

    Attributes:
        number: gapless from 1; production obeys the highest it has seen.
        vector: (n,) what production falls back to from then on.
        artifact_sha: of what was sent.
        detail: of the last attempt.
    """

    number: int
    promotion: int
    vector: Vector
    vector_sha: str
    artifact_sha: str
    key: str
    epoch: int
    intended_us: int
    state: PushState
    attempts: int
    next_us: int
    detail: str


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """A stored reading."""

    id: int
    reading: Reading
    trial: int | None
    received_us: int
    disposition: Disposition


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a metric of a window is known: the source's own ``as_of`` and when it was last asked."""

    as_of_us: int
    polled_us: int


@dataclass(frozen=True, slots=True)
class NewTell:
    """A tell to be written by T6.

    Attributes:
        trial: number.
        status: how it ended.
        value: the objective in the user's own direction (an effect relative to control, or a value); None
        unless ok. se: its standard error, None where unknown.
        cause: one line for people.
        used: ids of the stored readings that the value was computed from.
        readings: readings that arrive together with the tell (evaluations, manual tells) and are stored with
            it.
    """

    trial: int
    status: Status
    value: float | None = None
    se: float | None = None
    cause: str = ""
    used: tuple[int, ...] = ()
    readings: tuple[Reading, ...] = ()


class TellRow(NamedTuple):
    """A told result; ``seq`` is gapless from 1. A named tuple, because it is made by the ten thousand."""

    seq: int
    trial: int
    candidate: int | None
    role: Role
    status: Status
    value: float | None
    se: float | None
    obs_sha: str
    at_us: int


@dataclass(frozen=True, slots=True)
class EventRow:
    """One link of the chain."""

    seq: int
    at_us: int
    epoch: int
    kind: str
    data: Mapping[str, object]
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A deletable cache of the optimizer's state after ``tell_seq`` tells and ``asked`` trials."""

    tell_seq: int
    asked: int
    optimizer_version: str
    state: bytes


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One try to deliver an order; ``n`` counts from 1 per trial and kind."""

    trial: int
    kind: PushKind
    n: int
    at_us: int
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One driver: who held the lease under which epoch, since when."""

    epoch: int
    pid: int
    host: str
    started_us: int


@dataclass(frozen=True, slots=True)
class ConflictRow:
    """A reading that contradicted a stored one of the same identity; the stored one was kept."""

    id: int
    source: str
    reading: Reading
    received_us: int


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A reading that no metric can be computed from; ``body`` is what came, as text."""

    id: int
    source: str
    metric: str
    window: str
    arm: str
    cohort: str
    reason: str
    body: str
    received_us: int


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the readings of one call; the counts add up to their number.

    ``duplicate`` also counts conflicts, quarantined and rejected readings that were noted before.
    """

    accepted: int = 0
    unchanged: int = 0
    late: int = 0
    duplicate: int = 0
    conflict: int = 0
    quarantined: int = 0
    rejected: int = 0

    def __add__(self, other: IngestReport) -> IngestReport:
        """The report of both calls together."""
        return IngestReport(
            self.accepted + other.accepted,
            self.unchanged + other.unchanged,
            self.late + other.late,
            self.duplicate + other.duplicate,
            self.conflict + other.conflict,
            self.quarantined + other.quarantined,
            self.rejected + other.rejected,
        )
