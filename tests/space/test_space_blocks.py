"""Spaces: what is decoded encodes back bit for bit, and every refusal."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from blackopt.blocks import FloatBlock, IntBlock
from blackopt.errors import UsageError
from blackopt.space import BlockSpec, Space

finite = st.floats(-1e12, 1e12, allow_nan=False)


@st.composite
def float_specs(draw: st.DrawFn) -> dict[str, Any]:
    log = draw(st.booleans())
    bound = st.floats(1e-9, 1e9) if log else finite
    lo, hi = sorted(draw(st.lists(bound, min_size=2, max_size=2, unique_by=math.log if log else float)))
    spec: dict[str, Any] = {"float": [lo, hi], "log": log}
    if draw(st.booleans()):
        spec["start"] = draw(st.floats(lo, hi))
    return spec


@st.composite
def int_specs(draw: st.DrawFn) -> dict[str, Any]:
    log = draw(st.booleans())
    lo = draw(st.integers(1, 10**6) if log else st.integers(-(10**9), 10**9))
    hi = lo + draw(st.integers(1, 10**9))
    return {"int": [lo, hi], "log": log, "start": draw(st.integers(lo, hi))}


@st.composite
def simplex_specs(draw: st.DrawFn) -> dict[str, Any]:
    k = draw(st.integers(2, 9))
    parts: object = k if draw(st.booleans()) else [f"part{i}" for i in range(k)]
    raw = draw(st.lists(st.floats(1e-3, 1.0), min_size=k, max_size=k))
    return {"simplex": parts, "start": [v / math.fsum(raw) for v in raw]}


@st.composite
def weight_specs(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 6))
    start = draw(st.lists(finite, min_size=count, max_size=count))
    return {"weights": count, "scale": draw(st.floats(1e-6, 1e6)), "start": start}


choice_specs = st.lists(
    st.one_of(st.integers(), st.text(max_size=3), st.booleans()), min_size=2, unique_by=str
).map(lambda options: {"choice": options, "start": options[-1]})
block_specs = st.one_of(float_specs(), int_specs(), simplex_specs(), weight_specs(), choice_specs)
space_specs = st.lists(block_specs, min_size=1, max_size=4).map(
    lambda specs: {f"b{i}": spec for i, spec in enumerate(specs)}
)


def point(space: Space, data: st.DataObject) -> np.ndarray[Any, Any]:
    """A point of the space, often on the bounds."""
    bounded = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, 5e-324]))
    return np.array([data.draw(bounded if low == 0.0 else finite) for low in space.lower])


@settings(max_examples=150, deadline=None)
@given(spec=space_specs, data=st.data())
def test_what_was_decoded_encodes_and_decodes_to_the_same_bits(
    spec: dict[str, Any], data: st.DataObject
) -> None:
    space = Space.from_spec(spec)
    values = space.decode(point(space, data))
    again = space.encode(values)
    assert space.contains(again)
    assert json.dumps(space.decode(again)) == json.dumps(values)


@settings(max_examples=150, deadline=None)
@given(spec=space_specs)
def test_the_start_survives_exactly(spec: dict[str, Any]) -> None:
    space = Space.from_spec(spec)
    start = space.decode(space.start())
    assert space.contains(space.start())
    assert np.array_equal(space.encode(start), space.start())
    for name, block in spec.items():
        if "start" not in block:
            continue
        value = start[name]
        if "simplex" in block:  # a start is normalised, so the last bit may differ from what was written
            shares = list(value.values()) if isinstance(value, dict) else value
            assert shares == pytest.approx(block["start"], abs=1e-15)
        else:
            assert value == block["start"]


@settings(max_examples=150, deadline=None)
@given(spec=space_specs, data=st.data())
def test_spec_rebuilds_the_same_space(spec: dict[str, Any], data: st.DataObject) -> None:
    space = Space.from_spec(spec)
    rebuilt = Space.from_spec(json.loads(json.dumps(space.spec())))
    assert rebuilt == space
    assert hash(rebuilt) == hash(space)
    vector = point(space, data)
    assert rebuilt.decode(vector) == space.decode(vector)
    assert np.array_equal(rebuilt.start(), space.start())


@settings(max_examples=300, deadline=None)
@given(spec=float_specs(), c=st.floats(0, 1))
def test_a_float_never_leaves_its_bounds(spec: dict[str, Any], c: float) -> None:
    lo, hi = spec["float"]
    block = FloatBlock("x", lo, hi, log=spec["log"], start=spec.get("start"))
    assert lo <= block.decode(np.array([c])) <= hi
    free = FloatBlock("x", lo, hi, log=spec["log"])  # a start next to a bound may share its coordinate
    assert [free.decode(np.array([end])) for end in (0.0, 1.0)] == [lo, hi]


@pytest.mark.parametrize("log", [False, True])
def test_the_bounds_of_a_float_are_reached_exactly(log: bool) -> None:
    block = FloatBlock("x", 1e-4, 0.3, log=log)
    assert [block.decode(np.array([c])) for c in (0.0, 1.0)] == [1e-4, 0.3]


def test_float_scales_are_the_documented_formulas() -> None:
    linear, log = FloatBlock("x", -2.0, 6.0), FloatBlock("y", 1e-4, 1.0, log=True)
    assert linear.decode(np.array([0.25])) == 0.0
    assert log.decode(np.array([0.25])) == pytest.approx(1e-3, rel=1e-14)
    assert linear.decode(linear.start()) == 2.0
    assert log.decode(log.start()) == pytest.approx(1e-2, rel=1e-14)


def test_integers_have_bins_of_equal_width() -> None:
    block = IntBlock("k", 1, 4)
    grid = [block.decode(np.array([c])) for c in (0.0, 0.2499, 0.25, 0.4999, 0.5, 0.7499, 0.75, 1.0)]
    assert grid == [1, 1, 2, 2, 3, 3, 4, 4]
    assert block.encode(2)[0] == 0.375


def test_log_integers_have_bins_of_their_log_width() -> None:
    block = IntBlock("k", 1, 64, log=True)
    drawn = [block.decode(np.array([c])) for c in np.linspace(0, 1, 100_001)]
    width = math.log(64.5) - math.log(0.5)
    for k in (1, 2, 10, 64):
        assert drawn.count(k) / len(drawn) == pytest.approx(
            (math.log(k + 0.5) - math.log(k - 0.5)) / width, abs=2e-5
        )


def test_an_integer_may_be_past_float64_precision() -> None:
    lo = 2**60
    block = IntBlock("id", lo, lo + 4)
    assert [block.decode(block.encode(lo + i)) for i in range(5)] == [lo + i for i in range(5)]
    with pytest.raises(UsageError, match="id: expected an integer"):
        block.encode(lo + 5)


def test_choices_are_an_argmax_with_ties_to_the_first_and_true_is_not_one() -> None:
    space = Space.from_spec({"mode": {"choice": [1, True, "1.0", 1.5], "start": True}})
    assert space.names == ("mode=1", "mode=True", "mode=1.0", "mode=1.5")
    assert space.decode(np.array([0.3, 0.3, 0.3, 0.3])) == {"mode": 1}
    assert space.decode(np.array([0.1, 0.9, 0.9, 0.2]))["mode"] is True
    assert space.decode(space.start())["mode"] is True
    assert space.start().tolist() == [0.25, 0.75, 0.25, 0.25]


def test_a_simplex_is_normalised_and_all_zero_means_equal() -> None:
    space = Space.from_spec({"mix": {"simplex": ["a", "b", "c", "d"]}})
    assert space.decode(np.zeros(4)) == {"mix": {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}}
    assert space.decode(np.array([0.3, 0.0, 0.9, 0.0])) == {"mix": {"a": 0.25, "b": 0.0, "c": 0.75, "d": 0.0}}
    assert np.array_equal(space.encode({"mix": [0.25, 0.0, 0.75, 0.0]}), [0.25, 0.0, 0.75, 0.0])
    tiny = space.decode(np.full(4, 5e-324))["mix"]
    assert tiny == {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}


def test_weights_are_scaled_and_unbounded() -> None:
    space = Space.from_spec({"w": {"weights": 2, "scale": 0.5, "start": [1, -3]}})
    assert space.start().tolist() == [2.0, -6.0]
    assert space.decode(np.array([1e9, -4.0])) == {"w": [5e8, -2.0]}
    assert space.lower.tolist() == [-math.inf] * 2
    with pytest.raises(UsageError, match="stay finite"):
        Space.from_spec({"w": {"weights": 1, "scale": 10}}).decode(np.array([1e308]))
    with pytest.raises(UsageError, match="stay finite"):
        Space.from_spec({"w": {"weights": 1, "scale": 0.1, "start": [1e308]}})


def mixed() -> Space:
    return Space.from_spec(
        {
            "lr": {"float": [1e-4, 1], "log": True, "start": 0.01},
            "k": {"int": [1, 20], "start": 5},
            "mode": {"choice": ["a", "b"]},
            "mix": {"simplex": ["news", "sport"]},
            "w": {"weights": 2},
        }
    )


def test_the_layout_is_flat_and_named() -> None:
    space = mixed()
    assert space.size == 8
    assert space.names == ("lr", "k", "mode=a", "mode=b", "mix[news]", "mix[sport]", "w[0]", "w[1]")
    assert space.slices["mix"] == slice(4, 6)
    assert space.discrete.tolist() == [False, True, True, True, False, False, False, False]
    assert space.lower.tolist() == [0.0] * 6 + [-math.inf] * 2
    assert space.upper.tolist() == [1.0] * 6 + [math.inf] * 2
    assert space.decode(space.start()) == {
        "lr": 0.01,
        "k": 5,
        "mode": "a",
        "mix": {"news": 0.5, "sport": 0.5},
        "w": [0.0, 0.0],
    }
    assert repr(space) == "Space(lr: float[1], k: int[1], mode: choice[2], mix: simplex[2], w: weights[2])"
    with pytest.raises(ValueError, match="read-only"):
        space.lower[0] = -1.0


def test_clip_and_contains() -> None:
    space = mixed()
    vector = space.start()
    vector[0], vector[1], vector[6] = -0.5, 1.5, 1e9
    clipped = space.clip(vector)
    assert not space.contains(vector)
    assert space.contains(clipped)
    assert (clipped[0], clipped[1], clipped[6]) == (0.0, 1.0, 1e9)
    assert vector[0] == -0.5
    vector[6] = math.nan
    assert not space.contains(vector)
    with pytest.raises(UsageError, match=r"not finite: w\[0\] = nan"):
        space.clip(vector)


def test_f78_a_vector_outside_the_bounds_is_not_decoded() -> None:
    space = mixed()
    vector = space.start()
    vector[0] = 1.0000001
    with pytest.raises(UsageError, match=r"outside the bounds: lr = 1\.0000001; clip"):
        space.decode(vector)


def test_shape_errors_say_what_was_expected_and_what_came() -> None:
    space = mixed()
    for call in (space.decode, space.clip, space.contains):
        with pytest.raises(
            UsageError, match=r"expected a vector of shape \(8,\) = \(space\.size,\), got shape \(2, 4\)"
        ):
            call(np.zeros((2, 4)))


def test_encode_names_what_is_missing_and_unknown() -> None:
    space = Space.from_spec({"a": {"int": [0, 3]}, "b": {"int": [0, 3]}})
    with pytest.raises(UsageError, match="a value for each of a, b; missing: b; unknown: c"):
        space.encode({"a": 1, "c": 2})


@pytest.mark.parametrize(
    ("block", "value", "message"),
    [
        ({"float": [0, 1]}, 1.5, r"x: expected a number in \[0.0, 1.0\], got 1.5"),
        ({"float": [0, 1]}, math.nan, "got nan"),
        ({"float": [0, 1]}, True, "got True"),
        ({"float": [0, 1]}, "0.5", "got '0.5'"),
        ({"int": [0, 9]}, 2.5, r"an integer in \[0, 9\], got 2.5"),
        ({"int": [0, 9]}, 10, "got 10"),
        ({"int": [0, 9]}, 10**400, "an integer"),
        ({"choice": ["a", "b"]}, "c", r"one of \['a', 'b'\], got 'c'"),
        ({"simplex": 2}, [0.5, 0.6], "2 shares of at least 0 that add up to 1"),
        ({"simplex": 2}, [1.5, -0.5], "2 shares"),
        ({"simplex": ["a", "b"]}, {"a": 1.0}, "shares for a, b"),
        ({"weights": 2}, [1.0], "2 finite numbers"),
        ({"weights": 2}, [1.0, math.inf], "2 finite numbers"),
    ],
)
def test_encode_refuses_what_a_block_cannot_hold(block: dict[str, Any], value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Space.from_spec({"x": block}).encode({"x": value})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "at least one block"),
        ({"1x": {"int": [0, 1]}}, "'1x' is no name"),
        ({"x": {}}, "x: expected exactly one of float, int, choice, simplex, weights, got none"),
        ({"x": {"float": [0, 1], "int": [0, 1]}}, "exactly one of .*, got float, int"),
        ({"x": {"float": None}}, "x: expected one of"),
        (
            {"x": {"float": [1, 0]}},
            r"x: the lower bound must be below the upper and both finite, got \[1.0, 0.0\]",
        ),
        ({"x": {"float": [0, math.inf]}}, "x.float.1: Input should be a finite number"),
        ({"x": {"float": [-1e308, 1e308]}}, "too wide for float64"),
        ({"x": {"float": [0, 1], "log": True}}, "a log scale needs a lower bound above 0"),
        ({"x": {"float": [1e-9, 1.0000000000000003e-9], "log": True}}, "too narrow for a log scale"),
        ({"x": {"float": [0, 1], "start": 2}}, r"x: expected a number in \[0.0, 1.0\], got 2"),
        ({"x": {"float": [0, True]}}, "x.float.1: expected a number, got a boolean"),
        ({"x": {"float": [0, 1], "scale": 2}}, "x: scale has no meaning for float; it takes log, start"),
        ({"x": {"float": [0, 1], "strat": 0}}, "x.strat: Extra inputs are not permitted"),
        ({"x": {"int": [0, 2**41]}}, "too wide; at most"),
        ({"x": {"int": [0, 2], "log": True}}, "a lower bound of at least 1"),
        ({"x": {"choice": ["a"]}}, "at least two options"),
        ({"x": {"choice": ["a", "a"]}}, "must differ"),
        ({"x": {"simplex": 1}}, "at least two parts"),
        ({"x": {"simplex": ["a", "a"]}}, "different names"),
        ({"x": {"weights": 0}}, "at least one weight"),
        ({"x": {"weights": 2, "scale": 0}}, "x.scale: Input should be greater than 0"),
        ({"x": {"weights": 2, "start": [1]}}, "2 finite numbers"),
        ({"x": {"int": [0, 1], "a": 1}, "y": {"int": [3, 1]}}, "x.a: .*; y: the lower bound"),
    ],
)
def test_from_spec_reports_every_problem_by_name(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Space.from_spec(spec)


def test_two_blocks_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two blocks of the space are called 'x'"):
        Space([IntBlock("x", 0, 1), IntBlock("x", 0, 1)])


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    space = Space.from_spec({"lr": {"float": ["1e-4", 1], "log": True, "start": "1e-2"}})
    assert space.decode(space.start()) == {"lr": 0.01}


def test_the_json_schema_asks_for_exactly_one_kind() -> None:
    schema = TypeAdapter(dict[str, BlockSpec]).json_schema()["$defs"]["BlockSpec"]
    assert {"float", "int", "choice", "simplex", "weights", "log", "scale", "start"} == set(
        schema["properties"]
    )
    assert {"required": ["float"]} in schema["oneOf"]
