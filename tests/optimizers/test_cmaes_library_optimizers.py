"""The algorithms of ``cmaes``: the conformance suite, and the library's own paths."""

from __future__ import annotations

from typing import Any

import cmaes
import numpy as np
import pytest
from pydantic import ValidationError

from blackopt import plugins
from blackopt.errors import UsageError
from blackopt.optimizers.cat_cma import CatCMA
from blackopt.optimizers.cmaes_search import CmaesOptions, CmaesSearch, Keyed
from blackopt.optimizers.cmaes_variants import LRACMAES, MarginCMAES, SepCMAES
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance, fingerprint, noisy_script, through_json
from blackopt.types import Evaluation, Status, Vector

ALL: list[type[CmaesSearch]] = [LRACMAES, SepCMAES, MarginCMAES, CatCMA]
MIXED = Space.from_spec(
    {
        "x": {"float": [0, 1], "start": 0.3},
        "k": {"int": [1, 6]},
        "mode": {"choice": ["a", "b", "c"], "start": "b"},
        "y": {"float": [0, 1]},
        "on": {"choice": [True, False]},
    }
)


class TestLRACMAESConformance(OptimizerConformance):
    optimizer = LRACMAES


class TestSepCMAESConformance(OptimizerConformance):
    optimizer = SepCMAES


class TestMarginCMAESConformance(OptimizerConformance):
    optimizer = MarginCMAES


class TestCatCMAConformance(OptimizerConformance):
    optimizer = CatCMA


def floats(n: int = 4) -> Space:
    return Space.from_spec({f"x{i}": {"float": [0, 1], "start": 0.3} for i in range(n)})


def make(cls: type[CmaesSearch], space: Space | None = None, **options: Any) -> CmaesSearch:
    space = space or floats()
    return cls(space, space.start(), cls.Options(**{"seed": 5, "sigma": 0.2, **options}))


def bowl(x: Vector) -> float:
    return float(np.sum(3.0 ** np.arange(x.size) * (x - 0.6) ** 2))


def turn(search: CmaesSearch, loss: Any = bowl) -> None:
    """One generation, in order."""
    search.tell([Evaluation(c.number, loss(c.vector)) for c in search.ask(search.population)])


def directly(cls: type[CmaesSearch]) -> Any:
    """The library, used as its manual says, on four floats."""
    mean, bounds = np.full(4, 0.3), np.tile([0.0, 1.0], (4, 1))
    if cls is LRACMAES:
        return cmaes.CMA(mean=mean, sigma=0.2, bounds=bounds, lr_adapt=True)
    if cls is SepCMAES:
        return cmaes.SepCMA(mean=mean, sigma=0.2, bounds=bounds)
    if cls is MarginCMAES:
        return cmaes.CMAwM(mean=mean, sigma=0.2, bounds=bounds, steps=np.zeros(4))
    return cmaes.CatCMAwM(x_space=bounds.tolist(), mean=mean, sigma=0.2, cov=np.eye(4))


@pytest.mark.parametrize("cls", ALL)
def test_whole_generations_in_order_are_the_library_undisturbed(cls: type[CmaesSearch]) -> None:
    """Although it is dumped and loaded after every generation."""
    search, reference = make(cls), directly(cls)
    keyed = Keyed(5, cls.stream)
    getattr(reference, "_cma", reference)._rng = keyed
    number = 0
    for _ in range(40):
        told = []
        for candidate in search.ask(search.population):
            keyed.begin(number)
            number += 1
            drawn = reference.ask()
            point = drawn[0] if cls is MarginCMAES else drawn.x if cls is CatCMA else drawn
            np.testing.assert_array_equal(candidate.vector, point)
            told.append((drawn[1] if cls is MarginCMAES else drawn, bowl(point)))
        search.tell([Evaluation(number - len(told) + i, loss) for i, (_, loss) in enumerate(told)])
        reference.tell(list(told))
        search = cls.load(search.space, search.options, through_json(search.dump()))
    assert bowl(search.recommend()) < 0.05 * bowl(np.full(4, 0.3))


def test_integers_with_a_margin_are_the_librarys() -> None:
    space = Space.from_spec({"x": {"float": [0, 1]}, "k": {"int": [1, 5]}, "m": {"int": [1, 9]}})
    search = make(MarginCMAES, space)
    bounds = np.array([[0.0, 1.0], [0.1, 0.9], [0.5 / 9, 1 - 0.5 / 9]])
    steps = np.array([0.0, 1 / 5, 1 / 9])
    reference = cmaes.CMAwM(mean=space.start(), sigma=0.2, bounds=bounds, steps=steps)
    reference._cma._rng = keyed = Keyed(5, MarginCMAES.stream)
    number = 0
    for _ in range(30):
        told, batch = [], search.ask(search.population)
        for candidate in batch:
            keyed.begin(number)
            number += 1
            evaluated, drawn = reference.ask()
            np.testing.assert_array_equal(candidate.vector, evaluated)
            told.append((drawn, bowl(evaluated)))
        reference.tell(list(told))
        search.tell([Evaluation(c.number, loss) for c, (_, loss) in zip(batch, told, strict=True)])
        search = MarginCMAES.load(space, search.options, through_json(search.dump()))
    np.testing.assert_array_equal(search.recommend(), space.clip(reference.mean))


def test_mixed_spaces_are_the_librarys() -> None:
    search = make(CatCMA, MIXED)
    bins = [(k + 0.5) / 6 for k in range(6)]
    mean = np.array([0.3, 0.5, MIXED.encode(MIXED.decode(MIXED.start()))[1]])
    reference = cmaes.CatCMAwM(
        x_space=[[0, 1], [0, 1]], z_space=[bins], c_space=[3, 2], mean=mean, sigma=0.2, cov=np.eye(3)
    )
    reference._rng = keyed = Keyed(5, CatCMA.stream)
    number = 0
    for _ in range(30):
        told, batch = [], search.ask(search.population)
        for candidate in batch:
            keyed.begin(number)
            number += 1
            drawn = reference.ask()
            value = MIXED.decode(candidate.vector)
            assert (value["mode"], value["on"]) == (
                "abc"[int(np.argmax(drawn.c[0]))],
                [True, False][int(np.argmax(drawn.c[1]))],
            )
            np.testing.assert_array_equal(candidate.vector[[0, 5, 1]], [*drawn.x, *drawn.z])
            told.append((drawn, mixed_loss(candidate.vector)))
        losses = [loss for _, loss in told]
        reference.tell(list(told))
        search.tell([Evaluation(c.number, loss) for c, loss in zip(batch, losses, strict=True)])
        search = CatCMA.load(MIXED, search.options, through_json(search.dump()))
    np.testing.assert_array_equal(search.recommend()[[0, 5]], np.clip(reference._mean[:2], 0, 1))


def mixed_loss(x: Vector) -> float:
    value = MIXED.decode(x)
    wrong = (value["mode"] != "c") + (value["on"] is True)
    return wrong + abs(float(str(value["k"])) - 5) + float((x[0] - 0.2) ** 2 + (x[5] - 0.9) ** 2)


@pytest.mark.parametrize("cls", [MarginCMAES, CatCMA])
def test_a_mixed_optimum_is_found(cls: type[CmaesSearch]) -> None:
    search = make(cls, MIXED, population=12)
    for _ in range(60):
        turn(search, mixed_loss)
    found = MIXED.decode(search.recommend())
    assert (found["mode"], found["k"], found["on"]) == ("c", 5, False)
    assert abs(float(str(found["x"])) - 0.2) < 0.05


@pytest.mark.parametrize("cls", ALL)
def test_memory_names_everything_that_changes(cls: type[CmaesSearch]) -> None:
    """An attribute that a new release of the library adds, and that it changes, must not be lost."""
    space = MIXED if cls in (MarginCMAES, CatCMA) else floats()
    search = make(cls, space)
    first = vars(getattr(search._built(space.start()), "_cma", search._built(space.start())))
    for _ in range(12):
        turn(search)
    now = vars(getattr(search._strategy, "_cma", search._strategy))
    named = {name.rpartition(".")[2] for name in cls.memory}
    # what only its termination criteria look at, and the generator
    for name in sorted(set(now) - named - {"_funhist_values", "_rng"}):
        assert repr(now[name]) == repr(first[name]), name
    # and a population of only choices or only reals lacks some
    assert set(search._remembered()) <= set(cls.memory)


@pytest.mark.parametrize("cls", ALL)
def test_a_late_result_from_far_away_moves_the_mean_by_no_more_than_a_draw_could(
    cls: type[CmaesSearch],
) -> None:
    search = make(cls)
    late = search.ask(2)
    for _ in range(40):
        turn(search)
    before = search.recommend()
    rest = search.ask(search.population - 2)
    gaussian = search._gaussian()
    assert gaussian is not None
    scale = np.array(gaussian[1])
    search.tell(
        [*(Evaluation(c.number, -1.0) for c in late), *(Evaluation(c.number, bowl(c.vector)) for c in rest)]
    )
    step = search.recommend() - before
    z = np.linalg.solve(scale, step) if scale.ndim == 2 else step / scale
    assert 0 < np.linalg.norm(z) <= 4**0.5 + 2 * 4 / 6 + 1e-9


@pytest.mark.parametrize("cls", ALL)
def test_it_stays_sound_long_after_it_has_converged(cls: type[CmaesSearch]) -> None:
    search = make(cls, floats(2))
    for _ in range(400):
        turn(search)
    np.testing.assert_allclose(search.recommend(), 0.6, atol=0.05)


@pytest.mark.parametrize("cls", ALL)
def test_a_constant_loss_changes_nothing(cls: type[CmaesSearch]) -> None:
    search = make(cls)
    before = search.recommend()
    for _ in range(5):
        turn(search, lambda _: 1.0)
    np.testing.assert_array_equal(search.recommend(), before)
    assert search.ask(1)[0].version == 0


def test_learning_rates_fall_where_losses_are_mostly_noise() -> None:
    search, script = make(LRACMAES, floats(3), population=8), noisy_script(5.0)
    for _ in range(60):
        search.tell([script(c) for c in search.ask(8)])
    assert search.dump()["memory"]["strategy"]["_eta_mean"] < 0.5


def test_a_space_of_choices_alone_is_searched() -> None:
    space = Space.from_spec({"a": {"choice": ["p", "q", "r"]}, "b": {"choice": [1, 2]}})
    search = make(CatCMA, space)
    np.testing.assert_array_equal(search.recommend(), space.start())
    for _ in range(30):
        turn(search, lambda x: float(space.decode(x) != {"a": "r", "b": 2}))
    assert space.decode(search.recommend()) == {"a": "r", "b": 2}
    again = CatCMA.load(space, search.options, through_json(search.dump()))
    assert fingerprint(again.dump()) == fingerprint(search.dump())


def test_equal_losses_in_the_first_generation_leave_a_unit_for_bounds() -> None:
    """A quarter above and a quarter below are equal, and yet somebody was best."""
    search = make(CatCMA, population=8)
    for _ in range(6):
        turn(search, lambda x: float(x[0] > 0.45))
    assert np.all(np.isfinite(search.recommend()))
    assert search.recommend()[0] < 0.3


def test_an_integer_of_many_values_is_searched_as_real() -> None:
    space = Space.from_spec({"k": {"int": [1, 1_000_000]}, "x": {"float": [0, 1]}})
    search = make(CatCMA, space)
    for _ in range(30):
        turn(search, lambda x: float((x[0] - 0.7) ** 2 + (x[1] - 0.2) ** 2))
    assert abs(float(str(space.decode(search.recommend())["k"])) - 7e5) < 5e4


def test_infeasible_candidates_rank_last() -> None:
    search = make(CatCMA)
    for _ in range(10):
        batch = search.ask(search.population)
        search.tell(
            [
                Evaluation(c.number, None, status=Status.INFEASIBLE) if c.vector[0] > 0.3
                else Evaluation(c.number, bowl(c.vector))
                for c in batch
            ]
        )  # fmt: skip
    assert search.recommend()[0] < 0.35


def test_one_parameter_is_refused_where_the_library_takes_none() -> None:
    with pytest.raises(UsageError, match="at least 2 coordinates, got 1"):
        make(SepCMAES, floats(1))
    turn(make(CatCMA, floats(1)))


@pytest.mark.parametrize("name", ["cma-es-lra", "sep-cma-es", "cma-es-margin", "cat-cma"])
def test_each_is_found_by_name(name: str) -> None:
    assert plugins.find("optimizers", name) in ALL


@pytest.mark.parametrize("options", [{"population": 3}, {"sigma": 0}, {"lr_adapt": True}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CmaesOptions.model_validate(options)
