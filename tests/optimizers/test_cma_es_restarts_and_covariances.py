"""CMA-ES with restarts, a diagonal or restricted covariance, or a passive one: the library's own paths."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt import noise
from blackopt.optimizers.cma_es import CMAES, CMAESOptions
from blackopt.optimizers.cma_restarts import Run, following
from blackopt.optimizers.cma_strategy import Settings, library
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance, fingerprint, through_json
from blackopt.types import Evaluation, Status, Vector


class TestCMAESWithIPOPConformance(OptimizerConformance):
    optimizer = CMAES
    options: ClassVar[dict[str, Any]] = {"restarts": "ipop"}


class TestCMAESWithBIPOPAndADiagonalCovarianceConformance(OptimizerConformance):
    optimizer = CMAES
    options: ClassVar[dict[str, Any]] = {"restarts": "bipop", "covariance": "diagonal"}


class TestDiagonalCMAESConformance(OptimizerConformance):
    optimizer = CMAES
    options: ClassVar[dict[str, Any]] = {"covariance": "diagonal", "population": 12}


class TestVkDCMAESConformance(OptimizerConformance):
    optimizer = CMAES
    options: ClassVar[dict[str, Any]] = {"covariance": "vkd"}


class TestPassiveCMAESConformance(OptimizerConformance):
    optimizer = CMAES
    options: ClassVar[dict[str, Any]] = {"active": False}


def make(n: int = 3, **options: Any) -> CMAES:
    space = Space.from_spec({"w": {"weights": n}})
    return CMAES(space, np.zeros(n), CMAESOptions(seed=9, sigma=0.5, **options))


def ellipsoid(x: Vector) -> float:
    return float(np.sum(10.0 ** np.arange(x.size) * (x - 1) ** 2))


def rastrigin(x: Vector) -> float:
    return float(np.sum((x - 1) ** 2 + 2 - 2 * np.cos(2 * np.pi * (x - 1))))


def turn(es: CMAES, loss: Any = ellipsoid) -> None:
    """One generation, in order."""
    es.tell([Evaluation(c.number, loss(c.vector)) for c in es.ask(es.population)])


def counted() -> Any:
    """The library's ``randn`` from the noise of candidates 0, 1, 2, ..."""
    drawn = iter(range(100_000))

    def randn(rows: int, n: int) -> Vector:
        return np.stack([noise.normal(9, "cma-es", next(drawn), n) for _ in range(rows)])

    return randn


@pytest.mark.parametrize("restarts", ["ipop", "bipop"])
def test_results_in_order_walk_the_path_of_fmin_through_its_restarts(
    restarts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every point of every run, so runs end when the library says so."""
    mine, asked = make(2, restarts=restarts), []

    def recorded(x: Vector) -> float:
        asked.append(np.array(x))
        return rastrigin(x)

    def draws() -> Iterator[float]:
        for run in range(1, 100):
            if restarts == "bipop" and run != 1:
                yield from noise.uniform(9, "cma-es/bipop", run, 2).tolist()

    numbers = draws()
    monkeypatch.setattr(np.random, "uniform", lambda: next(numbers))
    options = {"randn": counted(), "seed": np.nan, "verbose": -10, "verb_log": 0, "updatecovwait": 0,
               "conditioncov_alleviate": False, "CMA_mirrors": 0, "minstd": 0, "eval_final_mean": False,
               "AdaptSigma": library().sigma_adaptation.CMAAdaptSigmaCSA}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = restarts == "bipop"
        library().fmin2(recorded, np.zeros(2), 0.5, options, restarts=1 + small, bipop=small)
    populations: list[tuple[int, int]] = []
    n = 0
    while n < len(asked):
        x = [c.vector for c in mine.ask(mine.population)]
        if not populations or populations[-1][0] != mine.runs:
            populations.append((mine.runs, mine.population))
        np.testing.assert_allclose(x, asked[n : n + len(x)], rtol=1e-9, atol=1e-9)
        mine.tell([Evaluation(n + i, rastrigin(point)) for i, point in enumerate(x)])
        n += len(x)
    assert n == len(asked)
    assert mine.runs == len(populations) + 1  # it, too, has ended the last of them
    assert len(populations) >= 2


@pytest.mark.parametrize("covariance", ["full", "diagonal", "vkd"])
@pytest.mark.parametrize("active", [True, False])
def test_whole_generations_in_order_are_the_library_undisturbed(covariance: Any, active: bool) -> None:
    """Rebuilt at every update from numbers, it walks the path of a strategy that lives on."""
    mine = make(6, covariance=covariance, active=active)
    settings = Settings(covariance, active, ends=False, max_std=np.full(6, np.inf), randn=counted())
    reference = settings.fresh(np.zeros(6), 0.5, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            x = reference.ask()
            np.testing.assert_allclose([c.vector for c in mine.ask(len(x))], x, rtol=1e-6, atol=1e-9)
            reference.tell(x, [ellipsoid(point) for point in x])
            if covariance == "vkd":
                reference.sm.sigma_fac = reference.sigma
            first = reference.countiter * len(x) - len(x)
            mine.tell([Evaluation(first + i, ellipsoid(point)) for i, point in enumerate(x)])
    np.testing.assert_allclose(mine.recommend(), reference.mean, rtol=1e-6)
    assert ellipsoid(mine.recommend()) < 0.1 * ellipsoid(np.zeros(6))


def test_vkd_finds_its_rank_and_survives_a_dump_with_it() -> None:
    """A long valley off the axes: one direction more than a diagonal has; and continued bit for bit."""

    def valley(x: Vector) -> float:
        return float(1e4 * (x @ x) - (1e4 - 1) * np.sum(x - 1) ** 2 / x.size)

    es = make(6, covariance="vkd")
    for _ in range(150):
        turn(es, valley)
    assert es.dump()["memory"]["distribution"]["model"]["k"] >= 1
    again = CMAES.load(es.space, es.options, through_json(es.dump()))
    for one in (es, again):
        for _ in range(20):
            turn(one, valley)
    assert fingerprint(es.dump()) == fingerprint(again.dump())


def test_a_passive_covariance_ignores_how_bad_the_worst_are() -> None:
    models = [make(active=active) for active in (True, False)]
    for es in models:
        for _ in range(5):
            turn(es)
    a, b = (es.dump()["memory"]["distribution"]["model"]["C"] for es in models)
    assert not np.allclose(a, b)


def test_a_restart_in_the_middle_is_resumed_exactly() -> None:
    es = make(2, restarts="ipop")
    while es.runs < 2:
        turn(es, rastrigin)
    turn(es, rastrigin)
    again = CMAES.load(es.space, es.options, through_json(es.dump()))
    for one in (es, again):
        while one.runs < 3:
            turn(one, rastrigin)
    assert fingerprint(es.dump()) == fingerprint(again.dump())


def test_what_comes_from_an_ended_run_does_not_enter_the_next() -> None:
    es = make(2, restarts="ipop")
    while es.runs < 2:
        late = es.ask(3)
        turn(es, rastrigin)
    before = es.recommend()
    es.tell([Evaluation(c.number, -1e9) for c in late])
    assert es.dump()["memory"]["pool"]["loss"].size == 0
    np.testing.assert_array_equal(es.recommend(), before)


def test_the_recommendation_is_of_the_best_run() -> None:
    """The first run ends beside the optimum of its basin; a new one has to beat it before it is believed."""
    es = make(2, restarts="ipop")
    while es.runs < 2:
        turn(es, rastrigin)
    best = es.recommend()
    turn(es, rastrigin)
    np.testing.assert_array_equal(es.recommend(), best)
    while es.runs < 5:
        turn(es, rastrigin)
    assert rastrigin(es.recommend()) <= rastrigin(best) + 1e-9


def test_generations_that_are_all_infeasible_are_skipped_with_restarts_too() -> None:
    es = make(restarts="ipop")
    for _ in range(5):
        es.tell([Evaluation(c.number, None, status=Status.INFEASIBLE) for c in es.ask(es.population)])
    assert es.ask(1)[0].version == 0


def test_equal_losses_end_a_run() -> None:
    """As in the library (``tolfun``): where nothing can be told apart, somewhere else may be better."""
    es = make(restarts="ipop")
    turn(es, lambda _: 1.0)
    assert (es.runs, es.population) == (2, 14)


def test_runs_follow_the_papers() -> None:
    first = Run(0, small=True, population=6, sigma=0.5, longest=100.0)
    runs = [first]
    for used in (600, 1200, 400, 300, 600):
        runs.append(following(runs[-1], first, used, "bipop", seed=1))
    # BIPOP: a large run whenever the small ones have used as much as the large ones
    assert [run.small for run in runs] == [True, False, True, True, False, True]
    assert [run.population for run in runs if not run.small] == [12, 24]
    for run, largest in ((runs[2], 12), (runs[3], 12), (runs[5], 24)):
        assert run.population is not None
        assert run.longest is not None
        assert 6 <= run.population <= largest
        assert 0.005 <= run.sigma <= 0.5
        assert run.longest <= 0.5 * run.large_budget / run.population
    doubled = following(following(first, first, 10, "ipop", 1), first, 10, "ipop", 1)
    assert (doubled.population, doubled.sigma, doubled.longest) == (24, 0.5, 100.0)


@pytest.mark.parametrize("options", [{"covariance": "sparse"}, {"restarts": "jade"}, {"restarts": 3}])
def test_impossible_variants_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CMAESOptions.model_validate(options)
