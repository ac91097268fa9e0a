"""Conformance suite for optimizers: subclass :class:`OptimizerConformance` in a test file, and pytest finds
the rest.

    from blackopt.testing.optimizers import OptimizerConformance

    class TestMine(OptimizerConformance):
        optimizer = Mine
        options = {"population": 8}

It holds an optimizer to :class:`blackopt.protocols.Optimizer`: any order, any subset, any age; nothing
applied by a refused call; a dump that continues bit for bit; no randomness but its own; and some progress at
the end of it.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from blackopt import noise
from blackopt.artifacts.keyed import Keyed, perturb
from blackopt.errors import AlreadyTold, UnknownCandidate, UsageError
from blackopt.protocols import Optimizer
from blackopt.space import Space
from blackopt.types import Candidate, Evaluation, KeyedCandidate, State, Status, Vector

Script = Callable[[Candidate], Evaluation]


def through_json(state: State) -> State:
    """The state after a round trip through JSON text, arrays as base64 of their npy bytes.

    Raises:
        TypeError: something in it is not a None, bool, int, float, str, numeric array, list, or dict with str
            keys.
    """
    restored: State = _decode(json.loads(json.dumps(_encode(state), sort_keys=True)))
    return restored


def fingerprint(state: State) -> str:
    """Text that is equal for two states exactly when they are bit for bit the same."""
    return json.dumps(_encode(state), sort_keys=True)


def _encode(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise TypeError(f"a state's keys must be str, got {list(value)}")
        return {key: _encode(item) for key, item in value.items()}
    if kind is list:
        return [_encode(item) for item in value]
    if kind is np.ndarray:
        if value.dtype.kind not in "biuf":
            raise TypeError(f"a state's arrays must be numeric, got dtype {value.dtype}")
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(value), allow_pickle=False)
        return {"npy": base64.b64encode(buffer.getvalue()).decode()}
    if value is None or kind in (bool, int, float, str):
        return value
    raise TypeError(f"a state may not hold a {kind.__module__}.{kind.__qualname__}")


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"npy"}:
            return np.load(io.BytesIO(base64.b64decode(value["npy"])), allow_pickle=False)
        return {key: _decode(item) for key, item in value.items()}
    return [_decode(item) for item in value] if isinstance(value, list) else value


def sphere(vector: Vector) -> float:
    """Squared distance from 0.7 in every coordinate."""
    return float(np.sum((vector - 0.7) ** 2))


def noisy_script(sd: float = 0.05) -> Script:
    """Evaluations of the sphere with keyed noise, every tenth of them without a value."""

    def evaluate(candidate: Candidate) -> Evaluation:
        number = candidate.number
        if number % 10 == 3:
            status = (Status.FAILED, Status.INFEASIBLE, Status.EXPIRED, Status.VOID)[number // 10 % 4]
            return Evaluation(number, None, status=status)
        error = float(noise.normal(0, "conformance", number, 1)[0])
        return Evaluation(number, sphere(candidate.vector) + sd * error, se=sd, weight=1.0 + number % 3)

    return evaluate


class OptimizerConformance:
    """Tests for one optimizer. Override ``optimizer``, and what else it needs.

    Attributes:
        optimizer: the class under test.
        options: its options, without the seed.
        budget: evaluations for the tests of progress.
        remaining: share of the start's loss that may remain after them.
    """

    optimizer: ClassVar[type[Optimizer]]
    options: ClassVar[Mapping[str, Any]] = {}
    budget: ClassVar[int] = 320
    remaining: ClassVar[float] = 0.5

    # ------------------------------------------------------------------ what the tests are made of

    def make(self, space: Space | None = None, start: Vector | None = None, *, seed: int = 1) -> Optimizer:
        """A new optimizer; by default on three floats from their middle."""
        space = space or self.floats()
        start = space.start() if start is None else start
        return self.optimizer(space, start, self.optimizer.Options(seed=seed, **self.options))

    def reload(self, optimizer: Optimizer) -> Optimizer:
        """Another one, from its dump as text."""
        options = self.optimizer.Options(**{**self.options, "seed": 1})
        return self.optimizer.load(optimizer.space, options, through_json(optimizer.dump()))

    @staticmethod
    def floats(n: int = 3) -> Space:
        """n bounded coordinates."""
        return Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(n)})

    @staticmethod
    def weights(n: int = 3) -> Space:
        """n unbounded coordinates."""
        return Space.from_spec({"w": {"weights": n}})

    @staticmethod
    def mixed() -> Space:
        """Every kind of coordinate: bounded and not, discrete and not."""
        return Space.from_spec(
            {
                "x": {"float": [-5, 5]},
                "k": {"int": [1, 6]},
                "mode": {"choice": ["a", "b", "c"]},
                "w": {"weights": 3},
            }
        )

    @staticmethod
    def shuffled(items: Iterable[Any], key: int) -> list[Any]:
        """The items in an order that depends on the key alone."""
        items = list(items)
        order = np.argsort(noise.uniform(0, "conformance/order", key, len(items)))
        return [items[i] for i in order]

    def run(
        self, optimizer: Optimizer, budget: int, in_flight: int, script: Script, *, lost: int = 0
    ) -> None:
        """Keep candidates in flight and tell them back in random order; every ``lost``-th is never told."""
        flying: list[Candidate] = []
        for turn in range(budget):
            flying += optimizer.ask(in_flight - len(flying))
            candidate = flying.pop(int(noise.integers(0, "conformance/flight", turn, 1, len(flying))[0]))
            if not lost or candidate.number % lost:
                optimizer.tell([script(candidate)])

    # ------------------------------------------------------------------ contract and numbering

    def test_it_satisfies_the_protocol(self) -> None:
        """Attributes and methods of the protocol are there."""
        optimizer = self.make()
        assert isinstance(optimizer, Optimizer)
        assert isinstance(optimizer.version, str)
        assert optimizer.version
        assert optimizer.group >= 1

    def test_candidates_are_numbered_without_gaps_whoever_asks_for_how_many(self) -> None:
        """Numbers and vectors do not depend on how the asking is cut up."""
        at_once, one_by_one = self.make(), self.make()
        many = at_once.ask(12)
        single = [one_by_one.ask(1)[0] for _ in range(12)]
        assert [c.number for c in many] == [c.number for c in single] == list(range(12))
        for a, b in zip(many, single, strict=True):
            assert a.vector.tobytes() == b.vector.tobytes()
        assert at_once.ask(0) == []

    def test_ask_never_waits_for_a_tell(self) -> None:
        """Hundreds of candidates can be in flight, and they differ."""
        candidates = self.make().ask(300)
        assert len({c.vector.tobytes() for c in candidates}) > 200

    def test_the_version_never_falls(self) -> None:
        """The centre's version counts updates."""
        optimizer, script = self.make(), noisy_script()
        versions = []
        for _ in range(100):
            (candidate,) = optimizer.ask(1)
            versions.append(candidate.version)
            optimizer.tell([script(candidate)])
        assert versions[0] == 0
        assert versions == sorted(versions)

    def test_everything_stays_inside_the_bounds(self) -> None:
        """Candidates and recommendations, even where the optimum lies outside; float64, of the right
        shape."""
        space = self.mixed()
        optimizer = self.make(space)
        for _ in range(30):
            batch = optimizer.ask(8)
            for vector in [*(c.vector for c in batch), optimizer.recommend()]:
                assert vector.dtype == np.float64
                assert vector.shape == (space.size,)
                assert np.all(np.isfinite(vector))
                assert np.all((vector >= space.lower) & (vector <= space.upper))
            optimizer.tell([Evaluation(c.number, float(np.sum((c.vector - 3.0) ** 2))) for c in batch])

    def test_a_start_of_another_shape_or_outside_is_refused(self) -> None:
        """With a UsageError."""
        for start in (np.zeros(2), np.array([0.5, np.nan, 0.5]), np.array([0.5, 1.5, 0.5])):
            with pytest.raises(UsageError):
                self.make(start=start)

    def test_a_key_rebuilds_its_candidate(self) -> None:
        """Bit for bit, from the centre that is recommended when it is asked, however late; where nothing has
        bounds, and where candidates are keys at all."""
        optimizer, script = self.make(self.weights()), noisy_script()
        flying: list[tuple[Candidate, Vector]] = []
        for _ in range(20):
            centre = optimizer.recommend()
            flying += [(candidate, centre) for candidate in optimizer.ask(6)]
            optimizer.tell([script(candidate) for candidate, _ in flying[:-4]])
            for candidate, centre in flying:
                if isinstance(candidate, KeyedCandidate):
                    keyed = Keyed.decode(candidate.key)
                    assert keyed.version == candidate.version
                    assert perturb(centre, keyed, 1).tobytes() == candidate.vector.tobytes()
            flying = flying[-4:]

    def test_a_vector_may_be_read_at_any_time(self) -> None:
        """Before the candidate is told and after, when the centre has long moved on."""
        for space in (self.mixed(), self.weights()):
            optimizer, script = self.make(space), noisy_script()
            candidates = optimizer.ask(4)
            before = [c.vector.tobytes() for c in candidates]
            optimizer.tell([script(c) for c in candidates])
            self.run(optimizer, 60, 1, script)
            assert [c.vector.tobytes() for c in candidates] == before

    # ------------------------------------------------------------------ telling

    def test_what_was_never_asked_is_refused(self) -> None:
        """And nothing of the call is applied."""
        self._refused(UnknownCandidate, lambda c: [Evaluation(c[0].number, 1.0), Evaluation(10_000, 1.0)])
        self._refused(UnknownCandidate, lambda c: [Evaluation(c[0].number, 1.0), Evaluation(-1, 1.0)])

    def test_what_was_told_before_is_refused(self) -> None:
        """In another call or in the same one; and nothing of the call is applied."""
        self._refused(AlreadyTold, lambda c: [Evaluation(c[0].number, 1.0), Evaluation(0, 1.0)])
        self._refused(AlreadyTold, lambda c: [Evaluation(c[0].number, 1.0), Evaluation(c[0].number, 1.0)])

    def test_impossible_numbers_are_refused(self) -> None:
        """Standard errors, weights, vectors, a missing loss; and nothing of the call is applied."""
        bad: list[dict[str, Any]] = [{"se": -0.1}, {"se": float("nan")}, {"se": float("inf")}, {"loss": None}]
        bad += [{"weight": w} for w in (0.0, -1.0, float("nan"), float("inf"))]
        bad += [{"vector": np.zeros(2)}, {"vector": np.full(3, np.nan)}]
        for keywords in bad:

            def call(
                candidates: Sequence[Candidate], keywords: dict[str, Any] = keywords
            ) -> list[Evaluation]:
                return [
                    Evaluation(candidates[0].number, 1.0),
                    Evaluation(**{"number": candidates[1].number, "loss": 1.0, **keywords}),
                ]

            self._refused(UsageError, call)

    def _refused(
        self, error: type[Exception], call: Callable[[Sequence[Candidate]], list[Evaluation]]
    ) -> None:
        """The call raises and changes nothing, and the same candidates can still be told."""
        optimizer = self.make()
        first, *rest = optimizer.ask(4)
        optimizer.tell([Evaluation(first.number, 1.0)])
        before = fingerprint(optimizer.dump())
        with pytest.raises(error):
            optimizer.tell(call(rest))
        assert fingerprint(optimizer.dump()) == before
        optimizer.tell([Evaluation(c.number, 1.0) for c in rest])

    def test_a_batch_equals_its_members_one_by_one(self) -> None:
        """Bit for bit, across updates."""
        batch, single, script = self.make(), self.make(), noisy_script()
        for turn in range(4):
            evaluations = self.shuffled([script(c) for c in batch.ask(50)], turn)
            single.ask(50)
            batch.tell(evaluations)
            for evaluation in evaluations:
                single.tell([evaluation])
            assert fingerprint(batch.dump()) == fingerprint(single.dump())

    def test_failures_say_nothing(self) -> None:
        """Failed, expired, void, NaN and infinite losses never move the recommendation, however many there
        are."""
        optimizer = self.make()
        before = optimizer.recommend()
        none: list[dict[str, Any]] = [
            *({"loss": None, "status": status} for status in (Status.FAILED, Status.EXPIRED, Status.VOID)),
            *({"loss": value} for value in (float("nan"), float("inf"), float("-inf"))),
        ]
        for _ in range(30):
            batch = optimizer.ask(len(none))
            optimizer.tell([Evaluation(number=c.number, **how) for c, how in zip(batch, none, strict=True)])

        assert optimizer.recommend().tobytes() == before.tobytes()

    def test_infeasible_is_worse_than_everything(self) -> None:
        """Where half of the space is infeasible and the rest is equal, the recommendation moves to the
        rest."""
        optimizer = self.make()
        for _ in range(self.budget // 8):
            batch = optimizer.ask(8)
            optimizer.tell(
                [
                    Evaluation(c.number, None, status=Status.INFEASIBLE)
                    if c.vector[0] > 0.5
                    else Evaluation(c.number, 1e6 + 1e-3 * float(c.vector[1]))
                    for c in batch
                ]
            )
        assert optimizer.recommend()[0] < 0.5

    def test_what_was_really_tried_may_differ_from_what_was_drawn(self) -> None:
        """An evaluation's own vector changes what is learnt."""
        drawn, moved = self.make(), self.make()
        for _ in range(40):
            for optimizer, by in ((drawn, 0.0), (moved, 0.05)):
                batch = optimizer.ask(4)
                optimizer.tell(
                    [
                        # by different amounts: a slope may well be blind to a shift of all of them
                        Evaluation(
                            c.number, sphere(c.vector), vector=self._shifted(c.vector, by * (c.number % 3))
                        )
                        for c in batch
                    ]
                )
        assert drawn.recommend().tobytes() != moved.recommend().tobytes()

    @staticmethod
    def _shifted(vector: Vector, by: float) -> Vector:
        return np.clip(vector + by * np.array([1.0, 0.0, 0.0]), 0.0, 1.0)

    # ------------------------------------------------------------------ memory

    def test_a_dump_continues_bit_for_bit(self) -> None:
        """At any moment, with candidates in flight: k steps after load equal k steps."""
        script = noisy_script()
        for space in (self.floats(), self.mixed()):
            for before in (0, 5, 37, 71):
                optimizer = self.make(space)
                flying = optimizer.ask(6)
                for turn in range(before):
                    flying += optimizer.ask(1)
                    optimizer.tell([script(flying.pop(turn % 5))])
                again = self.reload(optimizer)
                assert fingerprint(again.dump()) == fingerprint(optimizer.dump())
                for one in (optimizer, again):
                    left = list(flying)
                    for turn in range(45):
                        left += one.ask(1)
                        one.tell([script(left.pop(turn % 6))])
                assert fingerprint(again.dump()) == fingerprint(optimizer.dump())
                assert again.recommend().tobytes() == optimizer.recommend().tobytes()

    def test_a_loaded_one_still_refuses_what_was_told(self) -> None:
        """What is known about old candidates is part of the dump."""
        optimizer = self.make()
        optimizer.tell([Evaluation(c.number, 1.0) for c in optimizer.ask(3)])
        with pytest.raises(AlreadyTold):
            self.reload(optimizer).tell([Evaluation(1, 1.0)])

    def test_a_dump_of_another_version_is_refused(self) -> None:
        """The same tells would give other candidates."""
        optimizer = self.make()
        state = {**optimizer.dump(), "version": "another"}
        with pytest.raises(UsageError):
            self.optimizer.load(optimizer.space, self.optimizer.Options(seed=1, **self.options), state)

    def test_nothing_is_shared_with_the_outside(self) -> None:
        """Overwriting what was handed out changes nothing inside."""
        optimizer, script = self.make(), noisy_script()
        optimizer.tell([script(c) for c in optimizer.ask(40)])
        candidates = optimizer.ask(3)
        before = fingerprint(optimizer.dump())
        for handed_out in (
            optimizer.recommend(),
            *(c.vector for c in candidates),
            *_arrays(optimizer.dump()),
        ):
            handed_out.fill(0)
        assert fingerprint(optimizer.dump()) == before

    def test_a_dump_does_not_grow_with_what_was_told(self) -> None:
        """It is a state, not a history."""
        optimizer, script = self.make(), noisy_script()
        sizes = []
        for _ in range(3):
            self.run(optimizer, self.budget, 1, script)
            sizes.append(len(fingerprint(optimizer.dump())))
        assert sizes[2] < 1.3 * sizes[1] + 1000

    # ------------------------------------------------------------------ randomness

    def test_the_seed_decides(self) -> None:
        """The same seed gives the same run, another one another."""
        dumps = []
        for seed in (1, 1, 2):
            optimizer = self.make(seed=seed)
            self.run(optimizer, 60, 5, noisy_script())
            dumps.append(np.array([c.vector for c in optimizer.ask(5)]).tobytes())
        assert dumps[0] == dumps[1] != dumps[2]

    def test_global_random_state_is_neither_read_nor_written(self) -> None:
        """numpy's global generator is the caller's."""
        np.random.seed(1)  # noqa: NPY002  (the state under test)
        before = np.random.get_state(legacy=False)  # noqa: NPY002
        first = self.make()
        self.run(first, 60, 5, noisy_script())
        after = np.random.get_state(legacy=False)  # noqa: NPY002
        assert _plain(before) == _plain(after)
        np.random.seed(2)  # noqa: NPY002
        second = self.make()
        self.run(second, 60, 5, noisy_script())
        assert fingerprint(first.dump()) == fingerprint(second.dump())

    # ------------------------------------------------------------------ progress

    def test_it_minimises(self) -> None:
        """Results one after the other, with noise and failures."""
        self._progress(in_flight=2)

    def test_it_minimises_what_comes_late_out_of_order_and_in_part(self) -> None:
        """Results of any age in any order, one in seven never."""
        self._progress(in_flight=16, lost=7)

    def _progress(self, in_flight: int, lost: int = 0) -> None:
        losses = []
        for seed in (1, 2, 3):
            optimizer = self.make(seed=seed)
            losses.append(0.0)
            self.run(optimizer, self.budget, in_flight, noisy_script(), lost=lost)
            losses[-1] = sphere(optimizer.recommend())
        assert float(np.median(losses)) < self.remaining * sphere(self.floats().start())


def _arrays(state: Any) -> list[np.ndarray[Any, Any]]:
    """Every array of a state."""
    if isinstance(state, np.ndarray):
        return [state]
    items = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [array for item in items for array in _arrays(item)]


def _plain(state: Any) -> str:
    """A generator's state as text."""
    return json.dumps(state, default=lambda array: array.tolist(), sort_keys=True)
