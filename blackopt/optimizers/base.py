"""What every optimizer shares: numbering, candidates in flight, checked tells, dumps. The algorithms
themselves are pure.

A subclass implements four methods, and sees only checked input, one result at a time, so ``tell([a, b])`` is
``tell([a]); tell([b])`` by construction:

    _draw(number)    the vector of the next candidate, a function of (seed, the centre's version, number);
                     a search that can draw it again later overrides _candidate(number), too: nothing but
                     its version is then kept while it is in flight
    _learn(result)   one result, joined with its candidate; adds 1 to ``self._updates`` when the centre moves
    _memory()        what it remembers, beyond what is kept here
    _recall(memory)  the inverse of ``_memory``
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from blackopt.errors import AlreadyTold, UnknownCandidate, UsageError
from blackopt.protocols import OptimizerOptions
from blackopt.types import Candidate, Evaluation, State, Status, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_ON_BOUND = 1e-9  # a start this far outside is a bound that was scaled there and back

NOWHERE: Vector = np.zeros(0)
"""Stands for a vector that a candidate's number rebuilds."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One evaluation, checked and joined with its candidate.

    Attributes:
        number: of the candidate.
        version: of the centre it was drawn around.
        vector: (n,) what was tried; :data:`NOWHERE` where the search draws again what it drew.
        loss: finite; +inf where it was infeasible (worse than every finite loss); NaN where nothing was
            learnt.
        se: standard error of the loss, >= 0; None where unknown.
        weight: relative trust, > 0.
        moved: whether ``vector`` is the evaluation's own and not the one that was drawn.
    """

    number: int
    version: int
    vector: Vector
    loss: float
    se: float | None
    weight: float
    moved: bool

    @property
    def informative(self) -> bool:
        """Whether it says anything about its vector."""
        return not math.isnan(self.loss)

    def evaluation(self, number: int, vector: Vector | None) -> Evaluation:
        """To tell it on to another optimizer, whose candidate has this number, or tried this vector."""
        infeasible = math.isinf(self.loss)
        status = Status.INFEASIBLE if infeasible else Status.OK if self.informative else Status.VOID
        loss = self.loss if status is Status.OK else None
        return Evaluation(number, loss, se=self.se, weight=self.weight, status=status, vector=vector)


class BaseOptimizer(ABC):
    """Bookkeeping of :class:`blackopt.protocols.Optimizer`.

    Args:
        space: whose coordinates the vectors are in.
        start: (n,) the incumbent, inside the bounds.
        options: an instance of the class's ``Options``.

    Raises:
        UsageError: ``start`` has another shape, is not finite or lies outside; ``options`` are another
            optimizer's.
    """

    Options: ClassVar[type[OptimizerOptions]]
    version: ClassVar[str]
    group: int = 1

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        if not isinstance(options, self.Options):
            raise UsageError(
                f"{type(self).__name__}: options must be {self.Options.__name__}, "
                f"got {type(options).__name__}"
            )
        self.space = space
        self._options = options
        self._start = self._vector(start, "start")
        if space.bounded:
            inside = space.clip(self._start)
            if np.any(np.abs(inside - self._start) > _ON_BOUND):
                raise UsageError(
                    f"{type(self).__name__}: start lies outside the bounds of the space: {self._start}"
                )
            self._start = inside
        self._seed = options.seed
        self._asked = 0
        self._updates = 0
        self._pending: dict[int, int] = {}  # number -> version, of candidates in flight
        self._drawn: dict[int, Vector] = {}  # number -> vector, of those that are not drawn again

    # ------------------------------------------------------------------ the algorithm

    @abstractmethod
    def _draw(self, number: int) -> Vector:
        """(n,) candidate ``number``, drawn around the current centre."""

    @abstractmethod
    def _learn(self, result: Result) -> None:
        """Take one result in."""

    @abstractmethod
    def _memory(self) -> State:
        """What is remembered beyond the bookkeeping; may share arrays with the live object."""

    @abstractmethod
    def _recall(self, memory: State) -> None:
        """Remember what :meth:`_memory` gave; may keep the arrays."""

    @abstractmethod
    def recommend(self) -> Vector:
        """(n,) the centre it believes in, within bounds; never the luckiest sample."""

    # ------------------------------------------------------------------ ask and tell

    def ask(self, n: int) -> list[Candidate]:
        """Draw n candidates, numbered on from the last; never blocks, never waits for a tell.

        Raises:
            UsageError: ``n`` is negative.
        """
        if n < 0:
            raise UsageError(f"ask: n must be >= 0, got {n}")
        return [self._ask_one() for _ in range(n)]

    def _ask_one(self) -> Candidate:
        candidate = self._candidate(self._asked)
        self._pending[candidate.number] = candidate.version
        self._asked += 1
        return candidate

    def _candidate(self, number: int) -> Candidate:
        """Candidate ``number``, drawn now and kept until it is told."""
        vector = self.space.clip(self._draw(number))
        self._drawn[number] = vector
        return Candidate(number, self._updates, vector.copy())

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn: any order, any subset, any age, failures too.

        A loss beside another status than ``ok`` is not read.

        Raises:
            UnknownCandidate: a number that was never asked. Nothing of the call is applied.
            AlreadyTold: a number for the second time. Nothing of the call is applied.
            UsageError: an impossible loss, standard error, weight or vector. Nothing of the call is applied.
        """
        results: dict[int, Result] = {}
        for evaluation in evaluations:
            if evaluation.number in results:
                raise AlreadyTold(
                    f"tell: candidate {evaluation.number} comes twice in one call; nothing was applied"
                )
            results[evaluation.number] = self._check(evaluation)
        for number, result in results.items():
            del self._pending[number]
            self._drawn.pop(number, None)
            self._learn(result)

    def _check(self, told: Evaluation) -> Result:
        """Join an evaluation with its candidate, or raise."""
        who = f"tell: candidate {told.number}"
        if told.number not in self._pending:
            if 0 <= told.number < self._asked:
                raise AlreadyTold(f"{who} was told before; nothing of this call was applied")
            raise UnknownCandidate(
                f"{who} was never asked ({self._asked} were, from 0); nothing of this call was applied"
            )
        if told.status is Status.OK and told.loss is None:
            raise UsageError(f"{who} has status ok and no loss; nothing of this call was applied")
        if told.se is not None and not (math.isfinite(told.se) and told.se >= 0):
            raise UsageError(
                f"{who}: se must be finite and >= 0, got {told.se}; nothing of this call was applied"
            )
        if not (math.isfinite(told.weight) and told.weight > 0):
            raise UsageError(
                f"{who}: weight must be finite and > 0, got {told.weight}; nothing of this call was applied"
            )
        moved = told.vector is not None
        vector = self._drawn.get(told.number, NOWHERE)
        if told.vector is not None:
            vector = self._vector(told.vector, f"{who}: vector")
        version = self._pending[told.number]
        return Result(told.number, version, vector, _loss(told), told.se, float(told.weight), moved)

    @property
    def _dtype(self) -> type[Any]:
        """Of the vectors: float64, unless a subclass says otherwise."""
        return np.float64

    def _vector(self, values: Vector, what: str) -> Vector:
        """A private copy of a (n,) vector, or raise."""
        vector = np.array(values, dtype=self._dtype)
        if vector.shape != (self.space.size,):
            raise UsageError(f"{what} must have shape (n,) = ({self.space.size},), got {vector.shape}")
        if not np.all(np.isfinite(vector)):
            raise UsageError(f"{what} must be finite, got {vector}")
        return vector

    def _inside(self, vector: Vector) -> Vector:
        """(n,) the nearest point inside the bounds; ``vector`` itself where there are none.

        Raises:
            UsageError: it is not finite.
        """
        if self.space.bounded:
            return self.space.clip(vector).astype(self._dtype, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            finite = math.isfinite(np.einsum("i->", vector))  # one pass; a sum may also be too large
        if not (finite or (math.isfinite(vector.min()) and math.isfinite(vector.max()))):
            raise UsageError(f"{type(self).__name__}: a centre or candidate is no longer finite")
        return vector

    # ------------------------------------------------------------------ dump and load

    def dump(self) -> State:
        """Everything needed to go on bit for bit: arrays, numbers, strings. Shares nothing with the live
        object."""
        state: State = {
            "version": self.version,
            "options": self._options.model_dump(mode="json"),
            "start": self._origin(),
            "asked": self._asked,
            "updates": self._updates,
            "pending": {
                "number": np.array(list(self._pending), dtype=np.int64),
                "version": np.array(list(self._pending.values()), dtype=np.int64),
                "vector": stack(list(self._drawn.values()), self.space.size),
            },
            "memory": self._memory(),
        }
        return _copy(state)  # type: ignore[no-any-return]

    def _origin(self) -> Vector:
        """(n,) what :meth:`load` hands to the constructor: the start, where it is still known."""
        return self._start

    @classmethod
    def load(cls, space: Space, options: OptimizerOptions, state: State) -> Self:
        """Rebuild from :meth:`dump`; continues bit for bit.

        Raises:
            UsageError: the state is of another version of the algorithm, of other options, or of another
                space.
        """
        if state["options"] != options.model_dump(mode="json"):
            raise UsageError(
                f"{cls.__name__}.load: state was made with options {state['options']}, got {options}"
            )
        state = _copy(state)
        self = cls(space, state["start"], options)
        if state.get("version") != self.version:
            raise UsageError(
                f"{cls.__name__}.load: state has version {state.get('version')!r}, this is {self.version!r}"
            )
        self._asked, self._updates = state["asked"], state["updates"]
        pending = state["pending"]
        numbers = pending["number"].tolist()
        self._pending = dict(zip(numbers, pending["version"].tolist(), strict=True))
        if len(pending["vector"]):
            self._drawn = dict(zip(numbers, pending["vector"], strict=True))
        self._recall(state["memory"])
        return self


def stack(vectors: Sequence[Vector], n: int) -> NDArray[np.float64]:
    """(k, n) array of k vectors of one type; k may be 0, which makes it float64."""
    return np.array(vectors).reshape(len(vectors), n)


def dump_results(results: Sequence[Result], n: int) -> State:
    """Results as arrays, for :meth:`BaseOptimizer._memory`.

    A missing standard error is NaN, and a vector that is :data:`NOWHERE` has no row.
    """
    return {
        "number": np.array([r.number for r in results], dtype=np.int64),
        "version": np.array([r.version for r in results], dtype=np.int64),
        "vector": stack([r.vector for r in results if r.vector is not NOWHERE], n),
        "loss": np.array([r.loss for r in results], dtype=np.float64),
        "se": np.array([math.nan if r.se is None else r.se for r in results], dtype=np.float64),
        "weight": np.array([r.weight for r in results], dtype=np.float64),
        "moved": np.array([r.moved for r in results], dtype=np.bool_),
    }


def load_results(state: State) -> list[Result]:
    """The inverse of :func:`dump_results`."""
    columns = ("number", "version", "loss", "se", "weight", "moved")
    # searches that draw again keep vectors of the moved ones alone
    rows, every = iter(state["vector"]), len(state["vector"]) == len(state["number"])
    return [
        Result(
            int(number),
            int(version),
            next(rows) if every or moved else NOWHERE,
            float(loss),
            None if math.isnan(se) else float(se),
            float(weight),
            bool(moved),
        )
        for number, version, loss, se, weight, moved in zip(*(state[c] for c in columns), strict=True)
    ]


def _loss(told: Evaluation) -> float:
    """The loss, +inf if infeasible, NaN if it carries no information."""
    if told.status is Status.INFEASIBLE:
        return math.inf
    if told.status is not Status.OK or told.loss is None or not math.isfinite(told.loss):
        return math.nan
    return float(told.loss)


def _copy(value: Any) -> Any:
    """A deep copy of a state that shares no array with it."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value.copy() if isinstance(value, np.ndarray) else value
