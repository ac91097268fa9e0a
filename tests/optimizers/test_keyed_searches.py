"""Searches whose candidates are keys: what is kept, the options that they share, and the conformance suite
with each kind of noise and with few centres."""

from __future__ import annotations

import tracemalloc
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt import plugins
from blackopt.artifacts.fold import fold_squares
from blackopt.artifacts.portable import Kind
from blackopt.blocks import WeightsBlock
from blackopt.errors import UsageError
from blackopt.optimizers.ars import ARS
from blackopt.optimizers.gaussian import PART
from blackopt.optimizers.keyed import TABLE_FROM, KeyedOptions
from blackopt.optimizers.openai_es import OpenAIES
from blackopt.optimizers.pgpe import PGPE
from blackopt.optimizers.snes import SNES
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance, fingerprint, sphere, through_json
from blackopt.types import Evaluation, KeyedCandidate

KEYED = ("openai-es", "ars", "pgpe", "snes", "deep-ga")


class TestOpenAIESWithSignsConformance(OptimizerConformance):
    optimizer = OpenAIES
    options: ClassVar[dict[str, Any]] = {"noise": "signs"}

    def test_ask_never_waits_for_a_tell(self) -> None:
        """In more than three coordinates, which have only eight combinations of signs."""
        candidates = self.make(self.floats(30)).ask(300)
        assert len({c.vector.tobytes() for c in candidates}) == 300


class TestSNESWithATableConformance(OptimizerConformance):
    optimizer = SNES
    options: ClassVar[dict[str, Any]] = {"noise": "table"}


class TestARSWithFewCentresConformance(OptimizerConformance):
    optimizer = ARS
    options: ClassVar[dict[str, Any]] = {"retain": 4}


class TestPGPEWithFewCentresConformance(OptimizerConformance):
    optimizer = PGPE
    options: ClassVar[dict[str, Any]] = {"retain": 4}


def make(use: str, n: int, **options: Any) -> Any:
    found = plugins.find("optimizers", use)
    return found(Space([WeightsBlock("w", n)]), np.zeros(n), found.Options(**options))


def turn(search: Any, candidates: Any) -> None:
    search.tell([Evaluation(c.number, sphere(c.vector.astype(np.float64))) for c in candidates])


@pytest.mark.parametrize("use", KEYED)
def test_float32_goes_on_bit_for_bit_from_the_middle_of_a_generation(use: str) -> None:
    """With results in flight, one of them moved; and float32 it stays."""
    search = make(use, 5, precision="float32", seed=3)
    flying = search.ask(30)
    turn(search, flying[:20])
    search.tell([Evaluation(flying[20].number, 1.0, vector=np.full(5, 0.25))])
    again = type(search).load(search.space, search._options, through_json(search.dump()))
    for one in (search, again):
        turn(one, flying[21:])
        turn(one, one.ask(50))
    assert fingerprint(again.dump()) == fingerprint(search.dump())
    assert search.recommend().dtype == search.ask(1)[0].vector.dtype == np.float32
    assert np.any(search.recommend() != 0)


@pytest.mark.parametrize("use", ["openai-es", "ars", "pgpe", "snes"])
def test_float32_takes_the_path_of_float64(use: str) -> None:
    """But for rounding, late results and a changing spread included."""
    paths = []
    for precision in ("float64", "float32"):
        search = make(use, 6, precision=precision, seed=2)
        flying: list[Any] = []
        for number in range(200):
            flying += search.ask(12 - len(flying))
            search.tell([Evaluation(c.number, float(np.sin(c.number))) for c in [flying.pop(number % 7)]])
        paths.append(search.recommend())
    np.testing.assert_allclose(paths[1], paths[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("use", KEYED)
def test_candidates_in_flight_take_no_memory_of_the_models_size(use: str) -> None:
    """A thousand of them, of 8 MB each."""
    search = make(use, 1_000_000, precision="float32")
    tracemalloc.start()
    candidates = search.ask(1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(candidates) == 1000
    assert peak < 4_000_000


@pytest.mark.parametrize(
    ("use", "given", "vectors"),
    [
        ("openai-es", {}, 2),
        ("openai-es", {"step": "clipup"}, 3),
        ("openai-es", {"step": "adam"}, 4),
        ("ars", {}, 2),
        ("snes", {}, 2),
        ("pgpe", {}, 3),
    ],
)
@pytest.mark.parametrize("population", [16, 64])
def test_an_update_holds_as_many_vectors_as_it_has_equations(
    use: str, given: dict[str, Any], vectors: int, population: int
) -> None:
    """The old centre and the new one, or a spread and one of both, and what the rule remembers, whatever the
    population."""
    n = 1_000_000
    size = {"directions": population // 2} if use == "ars" else {"population": population}
    fold_squares(0, [0], [1.0], np.zeros(1), kind=Kind.TABLE)  # both tables are there
    tracemalloc.start()
    search = make(use, n, precision="float32", noise="table", **given, **size)
    tracemalloc.reset_peak()
    for _ in range(2):
        search.tell([Evaluation(c.number, float(c.number)) for c in search.ask(population)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4.0 * n * (vectors + 0.6) + 500_000


@pytest.mark.parametrize("use", ["snes", "pgpe"])
def test_a_large_update_is_the_same_in_place_of_the_present_centre_and_beside_it(use: str) -> None:
    """Over several parts, with a foreign result among the others."""
    n = 2 * PART + 5_000
    found = []
    for in_flight in (0, 1):  # what is in flight needs its centre: the next one goes beside it
        search = make(use, n, precision="float32", population=4)
        candidates = search.ask(4 + in_flight)
        vectors = [c.vector for c in candidates]
        told = [
            Evaluation(c.number, float(v[:1000].sum())) for c, v in zip(candidates[:4], vectors, strict=False)
        ]
        told[3] = Evaluation(told[3].number, told[3].loss, vector=np.full(n, 0.01, np.float32))
        search.tell(told)
        np.testing.assert_array_equal(search.ask(1)[0].version, 1)
        if in_flight:
            np.testing.assert_array_equal(candidates[4].vector, vectors[4])
        else:
            with pytest.raises(UsageError, match=r"candidate 0 can no longer be drawn: .* centre 0"):
                _ = candidates[0].vector
        state = search.dump()["memory"]
        found.append(
            [search.recommend(), state["cohorts"]["scale"][-1], state.get("rule", {}).get("velocity")]
        )
    for beside, over in zip(*found, strict=True):
        np.testing.assert_array_equal(beside, over)
    assert len(np.unique(found[0][1])) > 1000


def test_a_candidate_is_a_key_where_nothing_else_is_to_know() -> None:
    """One sigma for all and no bounds: elsewhere it is no key, though it is made when it is read."""
    bounded = Space.from_spec({"x": {"float": [0, 1]}, "y": {"float": [0, 1]}})
    es = plugins.find("optimizers", "openai-es")
    kinds = {
        "es": type(make("openai-es", 3).ask(1)[0]).__name__,
        "ars": type(make("ars", 3).ask(1)[0]).__name__,
        "pgpe": type(make("pgpe", 3).ask(1)[0]).__name__,
        "bounded": type(es(bounded, bounded.start(), es.Options()).ask(1)[0]).__name__,
    }
    assert kinds["es"] == kinds["ars"] == KeyedCandidate.__name__
    assert kinds["pgpe"] == kinds["bounded"] == "LazyCandidate"


def test_noise_comes_from_a_table_where_drawing_it_would_take_longest() -> None:
    assert KeyedOptions().kind(TABLE_FROM - 1) is Kind.NORMAL
    assert KeyedOptions().kind(TABLE_FROM) is Kind.TABLE
    assert KeyedOptions(noise="normal").kind(TABLE_FROM) is Kind.NORMAL
    assert KeyedOptions(noise="signs").kind(3) is Kind.SIGN


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_a_centre_that_is_no_longer_finite_is_an_error(wrong: float) -> None:
    search = make("openai-es", 3)
    with pytest.raises(UsageError, match="OpenAIES: a centre or candidate is no longer finite"):
        search._inside(np.array([0.0, wrong, 0.0]))


def test_a_space_of_a_billion_weights_takes_no_memory() -> None:
    tracemalloc.start()
    block = WeightsBlock("w", 10**9)
    space = Space([block])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert space.lower.shape == space.upper.shape == space.discrete.shape == (10**9,)
    assert not space.bounded
    assert (block.coordinates[-1], len(block.coordinates)) == ("w[999999999]", 10**9)
    assert list(block.coordinates[1:3]) == ["w[1]", "w[2]"]


@pytest.mark.parametrize(
    ("use", "options", "message"),
    [
        ("openai-es", {"seed": -1}, "greater than or equal to 0"),
        ("ars", {"seed": 1 << 64}, "less than 18446744073709551616"),
        ("deep-ga", {"noise": "uniform"}, "'normal', 'table' or 'signs'"),
        ("snes", {"precision": "float16"}, "'float64' or 'float32'"),
        ("xnes", {"precision": "float32"}, "'float64'"),
        ("openai-es", {"retain": 0}, "greater than or equal to 1"),
        ("pgpe", {"noise": "signs"}, "signs cannot teach a spread: set sigma_rate: 0"),
        ("snes", {"noise": "signs"}, "signs cannot teach a spread"),
    ],
)
def test_impossible_options_of_keyed_searches_are_refused(
    use: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        plugins.find("optimizers", use).Options(**options)


def test_signs_are_welcome_where_the_spread_stays() -> None:
    search = make("pgpe", 3, noise="signs", sigma_rate=0.0)
    np.testing.assert_allclose(np.abs(search.ask(1)[0].vector), 0.15)
