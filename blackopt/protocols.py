"""The contracts of the plug-ins. Each is small enough that a fake of it fits a screen.

A plug-in is a class found by entry point. It carries a pydantic model ``Options`` (extra keys forbidden),
which ``campaign.yaml`` is validated against before the class is built. Conformance suites are in
:mod:`blackopt.testing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict

from blackopt.types import (
    Adopt,
    Artifact,
    Belief,
    Candidate,
    Evaluation,
    Live,
    NoReading,
    Push,
    Query,
    Reading,
    Receipt,
    State,
    Vector,
    Withdraw,
)

if TYPE_CHECKING:
    from blackopt.space import Space


class PluginOptions(BaseModel):
    """Base of every plug-in's options: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OptimizerOptions(PluginOptions):
    """What every optimizer understands."""

    seed: int = 0

    def asks(self) -> frozenset[str]:
        """What it wants to know of the campaign, and nobody has said: of ``trials`` (the budget) and
        ``parallel`` (candidates in flight at most), those that it has fields for and that are None.

        The core fills them in. From then on they are among what must not change while the campaign runs.
        """
        known = ("trials", "parallel")
        return frozenset(name for name in known if getattr(self, name, 0) is None)


@runtime_checkable
class Optimizer(Protocol):
    """An ask/tell algorithm: knows no clock, no file, no metric. Its whole memory is its :data:`State`.

    ``tell([a, b])`` equals ``tell([a]); tell([b])``, bit for bit: the state is a fold of evaluations in their
    order.
    """

    Options: ClassVar[type[OptimizerOptions]]
    version: ClassVar[str]
    """Changes whenever the same tells would give other candidates; snapshots of another are not used. An
    instance's may say more than its class's: what it is composed of."""

    space: Space
    group: int
    """Candidates that should share a window, e.g. 2 for antithetic twins: ask for multiples of it."""

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None: ...

    @classmethod
    def load(cls, space: Space, options: OptimizerOptions, state: State) -> Self:
        """Rebuild from :meth:`dump`; continues bit for bit."""
        ...

    def ask(self, n: int) -> list[Candidate]:
        """Draw n candidates, numbered on from the last; never blocks, never waits for a tell."""
        ...

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn: any order, any subset, any age, failures too.

        Raises:
            UnknownCandidate: a number that was never asked. Nothing of the call is applied.
            AlreadyTold: a number for the second time. Nothing of the call is applied.
            UsageError: a standard error or weight that is impossible. Nothing of the call is applied.
        """
        ...

    def recommend(self) -> Vector:
        """(n,) the centre it believes in, within bounds; never the luckiest sample."""
        ...

    def dump(self) -> State:
        """Arrays, numbers, strings; no pickle. Nothing in it is shared with the live object."""
        ...


@runtime_checkable
class Explained(Protocol):
    """An optimizer that has something to say about itself; ``blackopt check`` prints it."""

    reason: str
    """One line; empty where there is nothing to say."""


@runtime_checkable
class Believing(Protocol):
    """An optimizer that knows how well it knows what it recommends."""

    def belief(self) -> Belief | None:
        """Of what ``recommend`` returns now; None where it has no opinion."""
        ...


@runtime_checkable
class Policy(Protocol):
    """Turns a vector of its space into an artifact that production can run, and back."""

    Options: ClassVar[type[PluginOptions]]
    space: Space

    def __init__(self, options: PluginOptions, *, base: Path) -> None: ...

    def start(self) -> Vector:
        """(n,) the incumbent's parameters."""
        ...

    def render(self, vector: Vector) -> Artifact:
        """The artifact for a vector; the same vector gives the same bytes."""
        ...

    def parse(self, artifact: Artifact) -> Vector:
        """The vector of an artifact; ``render(parse(a)) == a``."""
        ...


@runtime_checkable
class Layered(Protocol):
    """A policy whose blocks are tensors of a model."""

    shapes: Mapping[str, tuple[int, ...]]
    """Of the tensors by the name of their block, whose numbers are one row after another. A block that is not
    among them is flat."""


@runtime_checkable
class Target(Protocol):
    """Pushes artifacts to production. Every order is idempotent by key and fenced by epoch.

    Errors: :class:`~blackopt.errors.RetriableError` if an order was certainly not applied and may be sent
    again, :class:`~blackopt.errors.OutcomeUnknown` if it may have been, a ``refused`` receipt if it never
    will be.
    """

    Options: ClassVar[type[PluginOptions]]

    def __init__(self, options: PluginOptions, *, base: Path) -> None: ...

    def check(self) -> str:
        """Test address and credentials without changing anything; one line that says what was reached."""
        ...

    def push(self, order: Push) -> Receipt:
        """Serve an arm, or go on serving it: the same key twice changes nothing."""
        ...

    def withdraw(self, order: Withdraw) -> Receipt:
        """Serve an arm no longer; harmless where it is not served."""
        ...

    def adopt(self, order: Adopt) -> Receipt:
        """Make an artifact the incumbent of a campaign: what its units get in the control and in no arm.

        Applied means that it is served and that a restart of production does not undo it, where production
        remembers anything. The highest number with the same artifact again is ``repeated``; with another it
        is refused as ``conflict: …``, a lower number as ``stale: …``, a lower epoch as ``fenced: …``.
        """
        ...

    def observe(self) -> list[Live]:
        """Which arms production says it serves now."""
        ...

    def incumbent(self, campaign: str) -> tuple[int, str] | None:
        """Number and sha256 of the adopted incumbent that production says it serves to a campaign now.

        None: it serves the one it was configured with, because nothing was adopted, because what was adopted
        is lost or cannot be loaded, or because it was told to keep its hands off.
        """
        ...

    def close(self) -> None:
        """Give back what it holds: connections, files, processes."""
        ...


@runtime_checkable
class Source(Protocol):
    """Polls metrics. Reading twice is harmless; readings may be fewer, later, again: they are recognised."""

    Options: ClassVar[type[PluginOptions]]
    MetricOptions: ClassVar[type[PluginOptions]]
    """What an entry of ``measure.metrics`` may say to this source beside the core's keys, such as a query.

    A field that is named as one of the core's keys (``kind``, ``window``, ``day``) is no key of its own: it
    is given what the core read there, durations in microseconds.
    """

    def __init__(
        self, options: PluginOptions, metrics: Mapping[str, PluginOptions], *, base: Path
    ) -> None: ...

    def check(self) -> str:
        """Test address, credentials and queries, changing nothing; one line that says what was reached."""
        ...

    def read(self, query: Query) -> Iterable[Reading | NoReading]:
        """Everything known for the query, lazily, in a stable order."""
        ...

    def close(self) -> None:
        """Give back what it holds: connections, files, processes."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Target and Source in one: push starts an evaluation, read collects what has finished.

    Nothing it does outlives it, so its orders need no lease and no withdrawal: what was started and not read
    is started again after a crash. Its readings have window 0 and kind ``value``: ``{"value": v}`` or
    ``{"value": v, "se": s}``.
    """

    Options: ClassVar[type[PluginOptions]]
    slots: int
    """How many evaluations run at once."""

    def __init__(self, options: PluginOptions, *, base: Path) -> None: ...

    def check(self) -> str:
        """Find what would be run without running it; one line that says what was found."""
        ...

    def push(self, order: Push) -> Receipt:
        """Start an evaluation, and return at once."""
        ...

    def read(self, query: Query) -> Iterable[Reading | NoReading]:
        """What has finished since the last read, waiting up to a second where nothing has."""
        ...

    def close(self) -> None:
        """Give back what it holds: connections, files, processes."""
        ...


@runtime_checkable
class Clock(Protocol):
    """Time is injected: the runner knows no other."""

    Options: ClassVar[type[PluginOptions]]

    def __init__(self, options: PluginOptions) -> None: ...

    def now_us(self) -> int:
        """Microseconds UTC."""
        ...

    def wait_until(self, until_us: int) -> None:
        """Return at or after ``until_us``, or earlier on an interrupt; a simulation moves its time there."""
        ...
