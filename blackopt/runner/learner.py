"""The optimizer as the ledger knows it: a fold of asks and tells in their recorded order.

Resuming is: newest snapshot, then every ask and every tell that came after it, interleaved as they were. Each
replayed candidate is compared with the recorded one. Where they differ (another numpy, another processor) the
recorded vector is what production saw, so it is what the optimizer is told about. Of candidates by key the
key is compared, and of each version the centre.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from blackopt.ledger import Driver, Ledger, dump_state, load_state
from blackopt.ledger.rows import NewTell, NewTrial, TellRow, TrialRow
from blackopt.protocols import Believing, Optimizer, OptimizerOptions
from blackopt.runner.centres import Centres, vector_sha
from blackopt.space import Space
from blackopt.types import Belief, Candidate, Evaluation, KeyedCandidate, Role, State, Status, Vector

SNAPSHOT_EVERY = 500
"""Tells between two snapshots: replaying this many takes well under a second for every optimizer."""

MakeOptimizer = Callable[[State | None], Optimizer]


def optimizer_maker(
    cls: type[Optimizer], space: Space, start: Vector, options: OptimizerOptions
) -> MakeOptimizer:
    """A function that builds the optimizer anew (None) or from a state."""

    def make(state: State | None) -> Optimizer:
        return cls(space, start, options) if state is None else cls.load(space, options, state)

    return make


class Learner:
    """An optimizer that is restored from a ledger and follows it.

    Attributes:
        optimizer: the live object.
        version: of the optimizer's arithmetic; snapshots of another are ignored.
        applied: sequence number of the last tell it was given.
        asked: how many candidates it has drawn.
        diverged: trials whose replayed candidate differs from the recorded one.
        moved: versions whose replayed centre differs from the one that keys in traffic are relative to.

    Args:
        make: builds the optimizer.
        maximize: its losses are the negative of what is told.
        centres: of a campaign whose candidates are keys.
    """

    def __init__(self, make: MakeOptimizer, *, maximize: bool, centres: Centres | None = None) -> None:
        self._make, self._sign, self.centres = make, -1.0 if maximize else 1.0, centres
        self.optimizer = make(None)
        self.version = self.optimizer.version
        self.applied = 0
        self.asked = 0
        self.diverged: list[int] = []
        self.moved: list[int] = []
        self._recorded: dict[int, TrialRow] = {}
        self._published: dict[int, str] = {}
        self._snapshot_at = 0

    def restore(self, ledger: Ledger) -> None:
        """Bring the optimizer to the state that the ledger's asks and tells imply."""
        snapshot = ledger.newest_snapshot(self.version)
        if snapshot is not None:
            self.optimizer = self._make(load_state(snapshot.state))
            self.applied, self.asked, self._snapshot_at = snapshot.tell_seq, snapshot.asked, snapshot.tell_seq
        self._published = {row.version: row.vector_sha for row in ledger.centres()}
        tells = iter(ledger.tells(after=self.applied))
        trials = [
            t for t in ledger.trials(role=Role.SEARCH, first=self.asked) if (t.candidate or 0) >= self.asked
        ]
        for trial in trials:
            self._apply_until(trial.told_before, tells)
            self._replay(trial)
        self.apply(tells)

    def ask(self, n: int, first_number: int) -> list[NewTrial]:
        """Draw n candidates as trials to be written, from ``first_number`` on; not yet in the ledger."""
        candidates = self.optimizer.ask(n)
        self.asked += n
        return [self._trial(candidate, first_number + i) for i, candidate in enumerate(candidates)]

    def confirmations(self, n: int, first_number: int) -> list[NewTrial]:
        """The recommendation as n trials that measure it again; their tells never reach the optimizer."""
        vector = self.recommend()
        return [
            NewTrial(first_number + i, None, Role.CONFIRM, self.applied, self.applied, vector)
            for i in range(n)
        ]

    def apply(self, tells: Iterable[TellRow]) -> None:
        """Tell the optimizer what the ledger has committed; only the next sequence number is ever accepted.

        Raises:
            RuntimeError: a gap; the ledger's triggers make it impossible.
        """
        evaluations: list[Evaluation] = []
        for tell in tells:
            if tell.seq != self.applied + 1:
                raise RuntimeError(f"tell {tell.seq} follows {self.applied}")
            self.applied = tell.seq
            if tell.role is Role.SEARCH:
                evaluations.append(self._evaluation(tell))
        if evaluations:
            self.optimizer.tell(evaluations)

    def commit(self, driver: Driver, tells: Sequence[NewTell], now_us: int) -> list[TellRow]:
        """Write tells, and only then learn from them; now and then store a snapshot.

        There is no snapshot while a diverged trial is open: its vector lives beside the optimizer's state.
        """
        rows = driver.tell(tells, at_us=now_us)
        self.apply(rows)
        if self.applied - self._snapshot_at >= SNAPSHOT_EVERY and not self._recorded:
            self.snapshot(driver)
        return rows

    def snapshot(self, driver: Driver) -> None:
        """Store the state, so that resuming need not replay what led to it."""
        state = dump_state(self.optimizer.dump())
        driver.snapshot(tell_seq=self.applied, asked=self.asked, optimizer_version=self.version, state=state)
        self._snapshot_at = self.applied

    def recommend(self) -> Vector:
        """(n,) the centre that the optimizer believes in."""
        return self.optimizer.recommend()

    def belief(self) -> Belief | None:
        """What the optimizer thinks that is worth, where it has an opinion."""
        return self.optimizer.belief() if isinstance(self.optimizer, Believing) else None

    def _trial(self, candidate: Candidate, number: int) -> NewTrial:
        return NewTrial(
            number=number,
            candidate=candidate.number,
            role=Role.SEARCH,
            version=candidate.version,
            told_before=self.applied,
            vector=None if self.centres else candidate.vector,
            key=self._key(candidate) if self.centres else None,
        )

    @staticmethod
    def _key(candidate: Candidate) -> bytes:
        if not isinstance(candidate, KeyedCandidate):
            raise TypeError(f"candidate {candidate.number} is no key, and an earlier one was")
        return candidate.key

    def _apply_until(self, seq: int, tells: Iterator[TellRow]) -> None:
        batch: list[TellRow] = []
        while self.applied + len(batch) < seq:
            batch.append(next(tells))
        self.apply(batch)

    def _replay(self, trial: TrialRow) -> None:
        [candidate] = self.optimizer.ask(1)
        self.asked += 1
        if trial.keyed:
            same = self._key(candidate) == trial.body
            published = self._published.pop(candidate.version, None)
            if published not in (None, vector_sha(self.recommend())):
                self.moved.append(candidate.version)
        else:
            same = vector_sha(candidate.vector) == trial.vector_sha
        if not same:
            self.diverged.append(trial.number)
            self._recorded[candidate.number] = trial

    def _evaluation(self, tell: TellRow) -> Evaluation:
        if tell.candidate is None:
            raise RuntimeError(f"search trial {tell.trial} has no candidate")
        recorded, vector = self._recorded.pop(tell.candidate, None), None
        if recorded is not None:
            vector = recorded.vector if self.centres is None else self.centres.vector(recorded.body)
            if vector is None:  # nobody can say any more what was tried
                return Evaluation(tell.candidate, None, status=Status.VOID)
        if tell.status is not Status.OK or tell.value is None:
            return Evaluation(tell.candidate, None, status=tell.status, vector=vector)
        return Evaluation(tell.candidate, self._sign * tell.value, se=tell.se, vector=vector)
