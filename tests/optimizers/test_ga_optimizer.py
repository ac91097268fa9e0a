"""The genetic algorithm: the conformance suite, and who breeds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt.optimizers.ga import GA, GAOptions
from blackopt.optimizers.genes import Genes
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance, sphere
from blackopt.types import Evaluation, Status


class TestGAConformance(OptimizerConformance):
    optimizer = GA


class TestGAWithUniformCrossoverConformance(OptimizerConformance):
    optimizer = GA
    options: ClassVar[dict[str, Any]] = {
        "crossover": "uniform",
        "population": 12,
        "tournament": 3,
        "elites": 2,
    }


class TestGenerationalGAConformance(OptimizerConformance):
    optimizer = GA
    options: ClassVar[dict[str, Any]] = {"mode": "generational", "population": 16, "elites": 1}


def floats(n: int) -> Space:
    return Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(n)})


def population(ga: GA) -> list[float]:
    losses: list[float] = ga.dump()["memory"]["population"]["loss"].tolist()
    return losses


def test_the_oldest_dies_however_lucky_it_was() -> None:
    ga = GA(floats(2), np.full(2, 0.5), GAOptions(population=4, tournament=2))
    for loss in (-1000.0, 5.0, 4.0, 3.0, 2.0):
        ga.tell([Evaluation(ga.ask(1)[0].number, loss)])
    assert population(ga) == [5.0, 4.0, 3.0, 2.0]


def test_elites_do_not_age() -> None:
    ga = GA(floats(2), np.full(2, 0.5), GAOptions(population=4, tournament=2, elites=1))
    for loss in (-1000.0, 5.0, 4.0, 3.0, 2.0):
        ga.tell([Evaluation(ga.ask(1)[0].number, loss)])
    assert population(ga) == [-1000.0, 4.0, 3.0, 2.0]


def test_the_infeasible_does_not_breed() -> None:
    ga = GA(floats(2), np.full(2, 0.5), GAOptions(population=4, tournament=2))
    ga.tell([Evaluation(c.number, None, status=Status.INFEASIBLE) for c in ga.ask(10)])
    assert population(ga) == []


def test_the_first_candidate_is_the_incumbent() -> None:
    start = np.array([0.3, 0.6])
    np.testing.assert_array_equal(GA(floats(2), start, GAOptions()).ask(1)[0].vector, start)


def test_the_recommendation_is_the_start_until_the_population_is_full_and_then_a_centre() -> None:
    ga = GA(floats(2), np.full(2, 0.5), GAOptions(population=4, tournament=2))
    candidates = ga.ask(4)
    ga.tell([Evaluation(c.number, float(c.number)) for c in candidates[:3]])
    np.testing.assert_array_equal(ga.recommend(), [0.5, 0.5])
    ga.tell([Evaluation(3, 3.0)])
    # mu = 2: weights ln 2.5 - ln 1 and ln 2.5 - ln 2
    w = np.log([2.5, 1.25])
    expected = (w[0] * candidates[0].vector + w[1] * candidates[1].vector) / w.sum()
    np.testing.assert_allclose(ga.recommend(), expected, rtol=1e-12)


def test_it_finds_a_choice_and_an_integer() -> None:
    space = Space.from_spec(
        {"mode": {"choice": ["a", "b", "c"]}, "k": {"int": [1, 6]}, "x": {"float": [0, 1]}}
    )
    ga = GA(space, space.start(), GAOptions(seed=3))
    for _ in range(40):
        batch = ga.ask(10)
        values = [space.decode(c.vector) for c in batch]
        losses = [
            (v["mode"] != "c") + abs(float(str(v["k"])) - 5) + (float(str(v["x"])) - 0.2) ** 2 for v in values
        ]
        ga.tell([Evaluation(c.number, loss) for c, loss in zip(batch, losses, strict=True)])
    found = space.decode(ga.recommend())
    assert (found["mode"], found["k"]) == ("c", 5)


def test_a_generation_replaces_the_last_one_but_for_its_elites() -> None:
    ga = GA(floats(2), np.full(2, 0.5), GAOptions(mode="generational", population=4, tournament=2, elites=1))
    first = [8.0, 1.0, 7.0, 6.0]
    ga.tell([Evaluation(c.number, loss) for c, loss in zip(ga.ask(4), first, strict=True)])
    assert population(ga) == [1.0, 6.0, 7.0, 8.0]
    batch = ga.ask(4)
    assert {c.version for c in batch} == {1}
    ga.tell([Evaluation(c.number, 5.0 - i) for i, c in enumerate(batch[:3])])
    assert population(ga) == [1.0, 6.0, 7.0, 8.0]
    ga.tell([Evaluation(batch[3].number, 9.0)])
    assert population(ga) == [1.0, 3.0, 4.0, 5.0]


def test_late_results_take_part_in_the_generation_that_is_open() -> None:
    ga = GA(floats(2), np.full(2, 0.5), GAOptions(mode="generational", population=4, tournament=2))
    late = ga.ask(2)
    ga.tell([Evaluation(c.number, 5.0) for c in ga.ask(4)])
    ga.tell([Evaluation(c.number, 1.0) for c in late] + [Evaluation(c.number, 2.0) for c in ga.ask(2)])
    assert population(ga) == [1.0, 1.0, 2.0, 2.0]


MIXED = Space.from_spec(
    {"x": {"float": [0, 1]}, "k": {"int": [1, 6]}, "n": {"int": [1, 1000], "log": True},
     "mode": {"choice": ["a", "b", "c"]}, "w": {"weights": 2}}
)  # fmt: skip


def test_genes_are_coordinates_integers_and_whole_choices() -> None:
    genes = Genes(MIXED)
    assert genes.count == 6
    np.testing.assert_array_equal(genes.of, [0, 1, 2, 3, 3, 3, 6, 7])


def test_each_kind_of_gene_mutates_in_its_own_way() -> None:
    genes, start = Genes(MIXED), MIXED.start()
    hit, steps, u = np.ones(8, dtype=np.bool_), np.full(8, 0.01), np.full(8, 0.9)
    before, after = MIXED.decode(start), MIXED.decode(genes.mutated(start, hit, steps, u))
    assert after["x"] == pytest.approx(0.51)
    assert (before["k"], after["k"]) == (4, 5)  # a step too short for the next integer goes there
    assert int(str(after["n"])) > int(str(before["n"]))
    assert after["mode"] == "c"
    assert after["w"] == pytest.approx([0.01, 0.01])
    unhit = genes.mutated(start, ~hit, steps, u)
    np.testing.assert_array_equal(unhit, start)


@pytest.mark.parametrize(("k", "step", "expected"), [(6, 0.01, 5), (1, -0.01, 2), (6, 0.9, 5), (3, -0.9, 1)])
def test_an_integer_at_its_bound_mutates_back_inside(k: int, step: float, expected: int) -> None:
    space = Space.from_spec({"k": {"int": [1, 6]}})
    at = space.encode({"k": k})
    child = Genes(space).mutated(at, np.ones(1, dtype=np.bool_), np.array([step]), np.array([0.5]))
    assert space.decode(child) == {"k": expected}


def test_a_child_has_each_choice_from_one_parent() -> None:
    space = Space.from_spec({"mode": {"choice": ["a", "b", "c", "d"]}, "x": {"float": [0, 1]}})
    ga = GA(space, space.start(), GAOptions(population=4, tournament=2, mutation=1e-9))
    first, second = space.encode({"mode": "b", "x": 0.1}), space.encode({"mode": "d", "x": 0.2})
    children = [space.decode(np.clip(ga._cross(first, second, i), 0, 1))["mode"] for i in range(40)]
    assert set(children) == {"b", "d"}


def test_a_result_of_any_age_breeds() -> None:
    ga = GA(floats(2), np.full(2, 0.5), GAOptions(population=4, tournament=2))
    (late,) = ga.ask(1)
    for _ in range(3):
        ga.tell([Evaluation(c.number, sphere(c.vector)) for c in ga.ask(10)])
    ga.tell([Evaluation(late.number, -1.0)])
    assert population(ga)[-1] == -1.0


@pytest.mark.parametrize(
    "options",
    [{"elites": 30}, {"tournament": 31}, {"mutation": 0}, {"crossover": "two-point"}, {"mode": "eternal"}],
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GAOptions.model_validate(options)
