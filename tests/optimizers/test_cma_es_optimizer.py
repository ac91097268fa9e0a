"""CMA-ES: the conformance suite, and late, partial and failed results."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt import noise
from blackopt.optimizers.cma_es import CMAES, CMAESOptions
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance, fingerprint, sphere
from blackopt.types import Candidate, Evaluation, Status, Vector

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import cma


class TestCMAESConformance(OptimizerConformance):
    optimizer = CMAES


class TestCMAESWithALargePopulationConformance(OptimizerConformance):
    optimizer = CMAES
    options: ClassVar[dict[str, Any]] = {"population": 16, "sigma": 0.15}


def make(n: int = 4, seed: int = 0, population: int | None = None) -> CMAES:
    options = CMAESOptions(seed=seed, sigma=0.5, population=population)
    return CMAES(Space.from_spec({"w": {"weights": n}}), np.zeros(n), options)


def ellipsoid(x: Vector) -> float:
    return float(np.sum(10.0 ** np.arange(x.size) * (x - 1) ** 2))


def told(candidates: list[Candidate]) -> list[Evaluation]:
    return [Evaluation(c.number, ellipsoid(c.vector)) for c in candidates]


def test_whole_generations_in_order_are_the_library_itself() -> None:
    """Rebuilt at every update from explicit arrays, it walks the path that the library walks undisturbed."""
    mine, drawn = make(seed=9), iter(range(10_000))

    def randn(rows: int, n: int) -> Vector:
        return np.stack([noise.normal(9, "cma-es", next(drawn), n) for _ in range(rows)])

    quiet = {"randn": randn, "seed": np.nan, "verbose": -10, "verb_log": 0, "updatecovwait": 0,
             "conditioncov_alleviate": False}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = cma.CMAEvolutionStrategy(np.zeros(4), 0.5, {**quiet, "CMA_mirrors": 0})
        for _ in range(40):
            x = reference.ask()
            candidates = mine.ask(mine.population)
            np.testing.assert_allclose([c.vector for c in candidates], x, rtol=1e-6, atol=1e-12)
            reference.tell(x, [ellipsoid(point) for point in x])
            mine.tell(told(candidates))
    np.testing.assert_allclose(mine.recommend(), reference.mean, rtol=1e-6)
    assert ellipsoid(mine.recommend()) < 1e-3 * ellipsoid(np.zeros(4))


def test_the_order_within_a_generation_does_not_matter() -> None:
    forward, backward = make(), make()
    for es in (forward, backward):
        batch = told(es.ask(es.population))
        es.tell(batch if es is forward else batch[::-1])
    assert fingerprint(forward.dump()) == fingerprint(backward.dump())


def test_failures_are_no_part_of_a_generation() -> None:
    es = make(population=6)
    es.tell([Evaluation(c.number, None, status=Status.FAILED) for c in es.ask(20)])
    es.tell(told(es.ask(5)))
    assert es.ask(1)[0].version == 0
    es.tell(told(es.ask(1)))
    assert es.ask(1)[0].version == 1


def test_a_late_result_from_far_away_is_used_and_does_not_blow_up_the_step_size() -> None:
    """It moves the mean; its step is shortened to what this distribution could have drawn."""
    es = make()
    late = es.ask(3)
    for _ in range(60):
        es.tell(told(es.ask(es.population)))
    before = es.dump()["memory"]["distribution"]
    rest = es.ask(es.population - 3)
    es.tell([*(Evaluation(c.number, -1.0) for c in late), *told(rest)])
    after = es.dump()["memory"]["distribution"]
    assert after["count"] == before["count"] + 1
    step = (
        np.linalg.solve(before["model"]["B"] * before["model"]["D"], after["mean"] - before["mean"])
        / before["sigma"]
    )
    assert 0.5 < np.linalg.norm(step) <= 4**0.5 + 2 * 4 / 6 + 1e-9
    assert after["sigma"] < 3 * before["sigma"]


def test_with_a_late_one_among_them_it_does_not_matter_who_drew_the_others() -> None:
    """Drawn before the state was loaded or after: their steps are checked alike. Two parameters draw long
    steps often."""
    living, loaded = make(2), make(2)
    flying = [es.ask(4) for es in (living, loaded)]
    for turn in range(120):
        loaded = CMAES.load(loaded.space, loaded._options, loaded.dump())
        for es, each in zip((living, loaded), flying, strict=True):
            es.tell(told([each.pop(turn * 3 % 4)]))
            each += es.ask(1)
    assert fingerprint(loaded.dump()) == fingerprint(living.dump())


def test_scales_and_infinities_do_not_matter_only_ranks() -> None:
    plain, scaled = make(), make()
    for es in (plain, scaled):
        for _ in range(10):
            batch = es.ask(es.population)
            losses = np.argsort(np.argsort([ellipsoid(c.vector) for c in batch]))
            worst = Evaluation(batch[0].number, None, status=Status.INFEASIBLE)
            if es is plain:
                losses = np.where(np.arange(len(batch)) == 0, 1000, losses)
                worst = Evaluation(batch[0].number, 1000.0)
            factor = 1.0 if es is plain else 1e200
            es.tell([worst, *(Evaluation(c.number, factor * float(v))
                              for c, v in zip(batch[1:], losses[1:], strict=True))])  # fmt: skip
    assert plain.recommend().tobytes() == scaled.recommend().tobytes()


def test_a_constant_loss_changes_nothing_but_the_pool() -> None:
    es = make()
    before = es.recommend()
    for _ in range(5):
        es.tell([Evaluation(c.number, 1.0) for c in es.ask(es.population)])
    assert es.recommend().tobytes() == before.tobytes()
    assert es.ask(1)[0].version == 0


def test_an_optimum_on_the_bound_is_reached() -> None:
    space = Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(3)})
    es = CMAES(space, space.start(), CMAESOptions())
    for _ in range(60):
        es.tell([Evaluation(c.number, float(np.sum(c.vector))) for c in es.ask(es.population)])
    assert np.all(es.recommend() < 0.01)


def test_one_parameter_is_enough() -> None:
    es = make(n=1, population=6)
    for _ in range(30):
        es.tell([Evaluation(c.number, sphere(c.vector)) for c in es.ask(6)])
    assert abs(es.recommend()[0] - 0.7) < 0.05


def test_it_stays_sound_long_after_it_has_converged() -> None:
    es = make(n=2)
    with np.errstate(all="raise", under="ignore"):
        for _ in range(300):
            es.tell(told(es.ask(es.population)))
    np.testing.assert_allclose(es.recommend(), 1.0, atol=1e-6)


def test_a_coordinate_held_at_the_least_spread_does_not_degenerate_the_covariance() -> None:
    """The steepest coordinate arrives first. Were C to shrink it for ever, against the limit, its variance
    would be rounded to below zero in the end, and the library raise."""
    space = Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(3)})
    es = CMAES(space, space.start(), CMAESOptions(seed=0))
    steep = np.array([1e6, 1.0, 1.0])
    for _ in range(200):
        asked = es.ask(es.population)
        es.tell([Evaluation(c.number, 40.0 + float(steep @ (c.vector - 0.3) ** 2)) for c in asked])
    variances = np.diag(es.dump()["memory"]["distribution"]["model"]["C"])
    assert variances.max() < 1e9 * variances.min()
    assert np.allclose(es.recommend(), 0.3, atol=1e-6)


def test_its_import_warns_of_nothing_and_prints_nothing() -> None:
    """The library warns where matplotlib is missing, which concerns nobody here."""
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import blackopt.optimizers.cma_es"],
        capture_output=True,
        text=True,
    )
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "options", [{"population": 3}, {"sigma": 0}, {"sigma": float("inf")}, {"popsize": 8}]
)
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        CMAESOptions.model_validate(options)
