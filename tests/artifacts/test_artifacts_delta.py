"""Deltas: what comes back, how far off it may be, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blackopt.artifacts import safetensors
from blackopt.artifacts.delta import BASE, BLOCK, FORMAT, SHAPES, Base, apply, float16, full, int8, sparse
from blackopt.errors import ArtifactError, UsageError
from blackopt.types import Artifact

Model = dict[str, NDArray[Any]]
Encode = Callable[[Model, Base], Artifact]
LOSSY: list[Encode] = [float16, int8]
EVERY: list[Encode] = [sparse, *LOSSY]
SIZES = st.sampled_from([0, 1, 7, 64, 65, 1_000, 65_536, 70_001])


def model(seed: int, size: int, dtype: str = "f4") -> Model:
    rng = np.random.default_rng(seed)
    return {
        "head/weights": rng.normal(size=(size, 1)).astype(dtype),
        "bias": rng.normal(size=5).astype("f8"),
        "steps": np.array([1, 2, 3]),
    }


def moved(old: Model, seed: int, step: float, share: float = 1.0) -> Model:
    rng = np.random.default_rng(seed)

    def move(tensor: NDArray[Any]) -> NDArray[Any]:
        change = step * rng.normal(size=tensor.shape) * (rng.random(tensor.shape) < share)
        return (tensor + change).astype(tensor.dtype)

    return {name: move(tensor) if tensor.dtype.kind == "f" else tensor for name, tensor in old.items()}


def equal(one: Model, other: Model) -> bool:
    return one.keys() == other.keys() and all(
        (one[name].dtype, one[name].shape, one[name].tobytes())
        == (other[name].dtype, other[name].shape, other[name].tobytes())
        for name in one
    )


@settings(deadline=None)
@given(SIZES, st.sampled_from(["f2", "f4", "f8"]), st.floats(0, 1), st.integers(0, 99))
def test_sparse_is_exact(size: int, dtype: str, share: float, seed: int) -> None:
    old = model(seed, size, dtype)
    base = Base.load(full(old).body)
    new = moved(old, seed + 1, 0.1, share)
    new["steps"] = np.array([1, 5, 3])
    new["bias"][:2] = -0.0
    assert equal(apply(sparse(new, base).body, base), new)


def test_a_share_of_the_changes_is_the_largest() -> None:
    old: Model = {"a": np.zeros(1_000, np.float32), "b": np.zeros(1_000)}
    base = Base.load(full(old).body)
    new = moved(old, 1, 1.0)
    made = apply(sparse(new, base, share=0.1).body, base)
    before, after = (np.concatenate([m["a"], m["b"]]) for m in (new, made))
    kept = after != 0
    assert kept.sum() == 200
    np.testing.assert_array_equal(after[kept], before[kept])
    assert np.abs(before[kept]).min() >= np.abs(before[~kept]).max()
    # Equal changes: the first are taken.
    ties = sparse({"a": np.ones(1_000, np.float32), "b": np.ones(1_000)}, base, share=0.25)
    assert apply(ties.body, base)["a"].sum() == 500
    for share in (0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="share must be"):
            sparse(new, base, share=share)


@pytest.mark.parametrize("step", [1e-30, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("size", [1, 70_001])
def test_float16_is_off_by_a_2048th_of_each_change(step: float, size: int) -> None:
    old = {"a": np.zeros(size), "b": np.ones(3)}
    base = Base.load(full(old).body)
    new = {"a": step * np.random.default_rng(1).normal(size=size), "b": np.ones(3)}
    made = apply(float16(new, base).body, base)
    off = np.abs(made["a"] - new["a"])
    # Below the smallest normal number of the scaled range, it is off by a part of the largest change.
    assert (off <= np.maximum(np.abs(new["a"]) * 2.0**-11, np.abs(new["a"]).max() * 2.0**-38)).all()
    assert made["b"] is base.tensors["b"]


@pytest.mark.parametrize("block", [8, 64, 65_536])
@pytest.mark.parametrize("size", [1, 64, 70_001])
def test_int8_is_off_by_half_a_step_of_its_block(block: int, size: int) -> None:
    old = {"a": np.zeros(size)}
    base = Base.load(full(old).body)
    new = {"a": np.random.default_rng(1).standard_cauchy(size)}
    new["a"][size // 2 :] *= 1e-6
    made = apply(int8(new, base, block=block).body, base)["a"]
    starts = np.arange(0, size, block)
    largest = np.repeat(np.maximum.reduceat(np.abs(new["a"]), starts), block)[:size]
    assert (np.abs(made - new["a"]) <= largest / 254 * (1 + 1e-5)).all()


@pytest.mark.parametrize("encode", EVERY)
def test_what_did_not_change_takes_no_room(encode: Encode) -> None:
    old = model(1, 10_000)
    base = Base.load(full(old).body)
    new = {**old, "bias": old["bias"] + 0.1}
    artifact = encode(new, base)
    assert len(artifact.body) < 500
    assert apply(artifact.body, base)["head/weights"] is base.tensors["head/weights"]
    assert equal(apply(encode(old, base).body, base), old)


@pytest.mark.parametrize("encode", EVERY)
def test_the_header_names_format_base_and_shapes(encode: Encode) -> None:
    old = model(1, 10)
    base = Base.load(full(old).body)
    assert base.sha256 == hashlib.sha256(full(old).body).hexdigest()
    _, texts = safetensors.read(encode(moved(old, 2, 0.1), base).body)
    assert texts[FORMAT] == f"{encode.__name__}/1"
    assert texts[BASE] == base.sha256
    assert json.loads(texts[SHAPES]) == {"head/weights": [10, 1], "bias": [5]}


@pytest.mark.parametrize("encode", EVERY)
def test_another_base_is_refused(encode: Encode) -> None:
    old = model(1, 10)
    body = encode(moved(old, 2, 0.1), Base.load(full(old).body)).body
    other = Base.load(full(model(2, 10)).body)
    with pytest.raises(ArtifactError, match=f"(?s)belongs to the base .* and this is {other.sha256}"):
        apply(body, other)
    with pytest.raises(ArtifactError, match="not a whole model"):
        Base.load(body)
    with pytest.raises(ArtifactError, match="its format is 'full/1'"):
        apply(full(old).body, other)


@pytest.mark.parametrize("encode", EVERY)
def test_candidates_that_do_not_fit_are_refused(encode: Encode) -> None:
    old = model(1, 10)
    base = Base.load(full(old).body)
    wrong: list[tuple[Model, str]] = [
        ({"bias": old["bias"]}, "head/weights, steps"),
        ({**old, "bias": np.zeros(6)}, r"'bias' is float64 \(5,\) in the base, got float64 \(6,\)"),
        ({**old, "bias": np.zeros(5, np.float32)}, "got float32"),
        ({**old, "bias": np.array([0, 1, np.nan, 3, 4])}, "'bias' has a number that is not finite"),
    ]
    for candidate, message in wrong:
        with pytest.raises(UsageError, match=message):
            encode(candidate, base)


@pytest.mark.parametrize("encode", LOSSY)
def test_what_only_a_whole_model_or_a_sparse_delta_can_say(encode: Encode) -> None:
    old = model(1, 10)
    base = Base.load(full(old).body)
    with pytest.raises(UsageError, match="only a sparse delta"):
        encode({**old, "steps": np.array([1, 2, 4])}, base)
    for huge in (1e39, 1.7e308):
        with pytest.raises(UsageError, match="beyond float32"):
            encode({**old, "bias": old["bias"] * 0 - huge}, base)
    near = Base.load(full({"a": np.full(3, 1.7e308)}).body)
    with pytest.raises(UsageError, match="beyond float32"):
        encode({"a": np.full(3, -1.7e308)}, near)


@pytest.mark.parametrize("block", [0, 4, 100, 131_072])
def test_impossible_blocks(block: int) -> None:
    base = Base.load(full({"a": np.zeros(3)}).body)
    with pytest.raises(UsageError, match="power of two"):
        int8({"a": np.ones(3)}, base, block=block)


def test_numbers_that_are_not_finite_are_refused_in_whole_models() -> None:
    with pytest.raises(UsageError, match="'a' has a number that is not finite"):
        full({"a": np.array([np.inf])})
    with pytest.raises(ArtifactError, match="'a' has a number that is not finite"):
        Base.load(safetensors.write({"a": np.array([np.nan], np.float16)}))


OLD: Model = {"a": np.zeros(100, np.float32), "n": np.arange(3)}
U1 = np.uint8


def tampered(form: str, parts: Model, shapes: Any = None, **texts: str) -> bytes:
    """A file that says it is a delta against OLD."""
    metadata = {
        FORMAT: f"{form}/1",
        BASE: Base.load(full(OLD).body).sha256,
        SHAPES: json.dumps({"a": [100]} if shapes is None else shapes),
        BLOCK: "64",
        **texts,
    }
    return safetensors.write(parts, metadata)


def halves(value: float = 1.0, n: int = 100) -> NDArray[Any]:
    return np.full(n, value, np.float16)


ONE = np.ones(1, np.float32)
BYTES = np.ones(100, np.int8)
SINGLE = np.ones(2, np.float32)


@pytest.mark.parametrize(
    "body",
    [
        tampered("float16", {"values/a": halves(), "scales/a": ONE}, {"a": [10, 10]}),
        tampered("float16", {"values/a": halves(), "scales/a": ONE}, {"a": [100], "b": [1]}),
        tampered("float16", {"values/a": halves(), "scales/a": ONE}, [1]),
        tampered("float16", {"values/a": halves(), "scales/a": ONE, "values/n": ONE}),
        tampered("float16", {"values/a": halves()}),
        tampered("float16", {"values/a": halves(n=99), "scales/a": ONE}),
        tampered("float16", {"values/a": halves(np.nan), "scales/a": ONE}),
        tampered("float16", {"values/a": halves(), "scales/a": ONE * np.float32(np.inf)}),
        tampered("float16", {"values/a": halves(6e4), "scales/a": ONE * np.float32(1e38)}),
        tampered("float16", {"values/a": halves(), "scales/a": -ONE}),
        tampered("float16", {"values/n": halves(n=3), "scales/n": ONE}, {"n": [3]}),
        tampered("float16", {"values/a": BYTES, "scales/a": ONE}),
        tampered("int8", {"values/a": BYTES, "scales/a": ONE}),
        tampered("int8", {"values/a": 2 * BYTES, "scales/a": SINGLE * np.float32(3e38)}),
        tampered("int8", {"values/a": BYTES, "scales/a": SINGLE}, **{BLOCK: "63"}),
        tampered("int8", {"values/a": BYTES, "scales/a": SINGLE}, **{BLOCK: " 64"}),
        tampered("int8", {"values/a": BYTES, "scales/a": SINGLE}, **{BLOCK: "-64"}),
        tampered("sparse", {"gaps/a": np.array([99, 1], U1), "values/a": SINGLE}),
        tampered("sparse", {"gaps/a": np.array([5, 0], U1), "values/a": SINGLE}),
        tampered("sparse", {"gaps/a": np.array([2**63, 2**63], np.uint64), "values/a": SINGLE}),
        tampered("sparse", {"gaps/a": np.array([2**63, 2**63 + 7], np.uint64), "values/a": SINGLE}),
        tampered("sparse", {"gaps/a": np.array([5, 1], np.int8), "values/a": SINGLE}),
        tampered("sparse", {"gaps/a": np.array([], U1), "values/a": np.array([], np.float32)}),
        tampered("sparse", {"gaps/a": np.array([5, 1], U1), "values/a": ONE}),
        tampered("sparse", {"gaps/a": np.array([5, 1], U1), "values/a": np.ones(2)}),
        tampered("sparse", {"gaps/a": np.array([5, 1], U1), "values/a": SINGLE * np.float32(np.nan)}),
        tampered("sparse", {"gaps/a": np.array([[5, 1]], U1), "values/a": SINGLE.reshape(1, 2)}),
        tampered("zip", {"values/a": halves(), "scales/a": ONE}),
        tampered("sparse", {}, **{SHAPES: "{"}),
    ],
)
def test_what_does_not_fit_its_base_is_refused(body: bytes) -> None:
    base = Base.load(full(OLD).body)
    with pytest.raises(ArtifactError, match="cannot be used here") as raised:
        apply(body, base)
    assert raised.value.why


def test_the_tampered_files_are_wrong_for_their_one_reason() -> None:
    base = Base.load(full(OLD).body)
    for body in (
        tampered("float16", {"values/a": halves(), "scales/a": ONE}),
        tampered("int8", {"values/a": BYTES, "scales/a": SINGLE}),
    ):
        np.testing.assert_array_equal(apply(body, base)["a"], np.ones(100, np.float32))
    made = apply(tampered("sparse", {"gaps/a": np.array([5, 94], U1), "values/a": SINGLE}), base)
    assert np.flatnonzero(made["a"]).tolist() == [5, 99]


@settings(deadline=None)
@given(st.data(), st.sampled_from(EVERY))
def test_a_delta_that_is_cut_or_changed_is_refused_or_finite(data: st.DataObject, encode: Encode) -> None:
    base = Base.load(full(OLD).body)
    body = encode(moved(OLD, 3, 1.0), base).body
    with pytest.raises(ArtifactError):
        apply(body[: data.draw(st.integers(0, len(body) - 1))], base)
    place = data.draw(st.integers(0, len(body) - 1))
    changed = body[:place] + bytes([data.draw(st.integers(0, 255))]) + body[place + 1 :]
    try:
        made = apply(changed, base)
    except ArtifactError:
        return
    assert np.isfinite(made["a"]).all()
    assert made["a"].shape == (100,)
