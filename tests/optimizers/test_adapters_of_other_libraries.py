"""Nevergrad and Optuna behind the contract: the conformance suite, the libraries' own paths, exact resume."""

from __future__ import annotations

import random
import warnings
from importlib import util
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt import noise, plugins
from blackopt.errors import ConfigurationError
from blackopt.optimizers.nevergrad import Nevergrad, NevergradOptions
from blackopt.optimizers.nevergrad import library as nevergrad
from blackopt.optimizers.optuna import Optuna, OptunaOptions
from blackopt.optimizers.optuna import library as optuna
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance, fingerprint, noisy_script, through_json
from blackopt.types import Evaluation, Status, Vector

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    nevergrad()
    optuna()

EVERY_KIND = Space.from_spec(
    {
        "x": {"float": [-5, 5], "start": 1.0},
        "k": {"int": [1, 6]},
        "j": {"int": [1, 100], "log": True, "start": 10},
        "mode": {"choice": ["a", "b", "c"]},
        "mix": {"simplex": 3},
        "w": {"weights": 2},
    }
)


class ReplayedConformance(OptimizerConformance):
    """The whole suite, except that a log grows by one line for every candidate."""

    def test_a_dump_does_not_grow_with_what_was_told(self) -> None:
        """It does: by the same amount for the same number of candidates."""
        optimizer, script = self.make(), noisy_script()
        sizes = [len(fingerprint(optimizer.dump()))]
        for _ in range(3):
            self.run(optimizer, 60, 1, script)
            sizes.append(len(fingerprint(optimizer.dump())))
        growth = np.diff(sizes)
        assert np.all(growth < 60 * 200)
        assert np.ptp(growth[1:]) < 100


class TestTBPSAOfNevergradConformance(ReplayedConformance):
    optimizer = Nevergrad
    budget = 200
    options: ClassVar[dict[str, Any]] = {"name": "TBPSA", "recommendation": "own", "budget": 200}


class TestDEOfNevergradConformance(ReplayedConformance):
    optimizer = Nevergrad
    budget = 200
    options: ClassVar[dict[str, Any]] = {"name": "DE", "workers": 8}


class TestTPEOfOptunaConformance(ReplayedConformance):
    optimizer = Optuna
    budget = 120


class TestCMAESOfOptunaConformance(ReplayedConformance):
    optimizer = Optuna
    budget = 200
    options: ClassVar[dict[str, Any]] = {
        "sampler": "CmaEsSampler",
        "settings": {"n_startup_trials": 5, "lr_adapt": True},
    }


def bowl(x: Vector) -> float:
    return float(np.sum((x - 0.6) ** 2))


def floats(n: int = 3) -> Space:
    return Space.from_spec({f"x{i}": {"float": [0, 1], "start": 0.3} for i in range(n)})


def of_nevergrad(space: Space | None = None, **options: Any) -> Nevergrad:
    space = space or floats()
    return Nevergrad(space, space.start(), NevergradOptions(seed=4, **options))


def of_optuna(space: Space | None = None, **options: Any) -> Optuna:
    space = space or floats()
    return Optuna(space, space.start(), OptunaOptions(seed=4, **options))


@pytest.mark.parametrize("name", ["TBPSA", "OnePlusOne", "TwoPointsDE"])
def test_in_order_nevergrad_walks_its_own_path(name: str) -> None:
    mine, ng = of_nevergrad(name=name), nevergrad()
    parameters = ng.p.Dict(x=ng.p.Array(init=[0.3, 0.3, 0.3], lower=0, upper=1))
    seed = int(noise.integers(4, "nevergrad", 0, 1, 1 << 32)[0])
    parameters.random_state = np.random.RandomState(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = ng.optimizers.registry[name](parametrization=parameters)
        for _ in range(40):
            [candidate] = mine.ask(1)
            theirs = reference.ask()
            x = theirs.value["x"]
            np.testing.assert_array_equal(candidate.vector, x)
            reference.tell(theirs, bowl(x))
            mine.tell([Evaluation(candidate.number, bowl(x))])


def test_in_order_optuna_walks_its_own_path() -> None:
    mine, op = of_optuna(), optuna()
    seed = int(noise.integers(4, "optuna", 0, 1, 1 << 32)[0])
    study = op.create_study(sampler=op.samplers.TPESampler(seed=seed))
    study.enqueue_trial({f"x{i}": 0.3 for i in range(3)})
    distributions = {f"x{i}": op.distributions.FloatDistribution(0, 1) for i in range(3)}
    for _ in range(30):
        [candidate] = mine.ask(1)
        trial = study.ask(distributions)
        np.testing.assert_array_equal(candidate.vector, list(trial.params.values()))
        study.tell(trial.number, bowl(candidate.vector))
        mine.tell([Evaluation(candidate.number, bowl(candidate.vector))])


@pytest.mark.parametrize("make", [of_nevergrad, of_optuna])
def test_every_kind_of_block_is_understood_both_ways(make: Any) -> None:
    search = make(EVERY_KIND)
    batch = search.ask(20)
    values = [EVERY_KIND.decode(c.vector) for c in batch]
    assert len({value["mode"] for value in values}) == 3
    assert len({value["k"] for value in values}) >= 3
    search.tell([Evaluation(c.number, bowl(c.vector), vector=EVERY_KIND.start()) for c in batch])
    search.tell([Evaluation(c.number, bowl(c.vector)) for c in search.ask(20)])
    again = type(search).load(EVERY_KIND, search.options, through_json(search.dump()))
    assert [c.vector.tobytes() for c in again.ask(5)] == [c.vector.tobytes() for c in search.ask(5)]


def test_the_first_candidate_of_optuna_is_the_incumbent() -> None:
    space = EVERY_KIND
    [first] = of_optuna(space).ask(1)
    assert space.decode(first.vector) == space.decode(space.start())


def test_weights_are_searched_about_the_start() -> None:
    space = Space.from_spec({"w": {"weights": 2, "start": [4.0, -2.0]}})
    x = np.stack([c.vector for c in of_optuna(space, sigma=0.5).ask(100)])
    assert np.all(np.abs(x - [4.0, -2.0]) <= 2.5)
    y = np.stack([c.vector for c in of_nevergrad(space, sigma=0.1).ask(40)])
    assert np.all(np.abs(y - [4.0, -2.0]) < 2.0)


@pytest.mark.parametrize("make", [of_nevergrad, of_optuna])
def test_the_infeasible_waits_for_a_loss_and_is_worse_than_it(make: Any) -> None:
    search = make()
    a, b, c = search.ask(3)
    search.tell([Evaluation(a.number, None, status=Status.INFEASIBLE)])
    assert len(search._waiting) == 1
    search.tell([Evaluation(b.number, 5.0), Evaluation(c.number, None, status=Status.INFEASIBLE)])
    assert search._waiting == []
    if isinstance(search, Optuna):
        assert [t.value for t in search._study.trials] == [6.0, 5.0, 6.0]


def test_failures_are_failed_trials_of_optuna() -> None:
    search = of_optuna()
    a, b = search.ask(2)
    search.tell([Evaluation(a.number, None, status=Status.FAILED), Evaluation(b.number, 1.0)])
    assert [t.state.name for t in search._study.trials] == ["FAIL", "COMPLETE"]


def test_the_process_keeps_its_own_chance_and_its_own_verbosity() -> None:
    random.seed(1)
    before = random.getstate(), optuna().logging.get_verbosity()
    for search in (of_nevergrad(), of_optuna()):
        search.tell([Evaluation(c.number, bowl(c.vector)) for c in search.ask(10)])
    assert (random.getstate(), optuna().logging.get_verbosity()) == before


def test_the_librarys_own_recommendation_may_be_asked_for() -> None:
    own = of_nevergrad(name="RandomSearch", recommendation="own")
    batch = own.ask(20)
    own.tell([Evaluation(c.number, bowl(c.vector)) for c in batch])
    best = min(batch, key=lambda c: bowl(c.vector))
    np.testing.assert_array_equal(own.recommend(), best.vector)  # the luckiest, as documented


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (of_nevergrad, {"name": "TBPSE"}, "did you mean.*TBPSA"),
        (of_nevergrad, {"name": "?"}, "list them with"),
        (of_optuna, {"sampler": "TPE"}, "one of .*TPESampler"),
        (of_optuna, {"sampler": "BaseSampler"}, "no sampler called"),
        (of_optuna, {"settings": {"speed": 3}}, "correct `optimizer.settings`"),
        pytest.param(
            of_optuna,
            {"sampler": "GPSampler"},
            "needs torch",
            marks=pytest.mark.skipif(util.find_spec("torch") is not None, reason="torch is there"),
        ),
    ],
)
def test_what_the_library_does_not_have_is_refused_with_a_hint(
    make: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(**options)


def test_a_sampler_that_cannot_draw_in_this_space_says_so() -> None:
    search = of_optuna(sampler="BruteForceSampler")
    with pytest.raises(ConfigurationError, match="draws nothing"):
        search.ask(2)


@pytest.mark.parametrize(
    ("options", "given"),
    [(NevergradOptions, {"budget": 0}), (NevergradOptions, {"workers": 0}), (OptunaOptions, {"sigma": -1}),
     (OptunaOptions, {"recommendation": "own"})],
)  # fmt: skip
def test_impossible_options_are_refused(options: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options.model_validate(given)


@pytest.mark.parametrize(("name", "cls"), [("nevergrad", Nevergrad), ("optuna", Optuna)])
def test_each_is_found_by_name(name: str, cls: type) -> None:
    assert plugins.find("optimizers", name) is cls
