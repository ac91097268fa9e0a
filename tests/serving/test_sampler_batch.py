"""Many requests in one call: equal to perturbing them one by one, whatever the shapes, kinds and blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blackopt.artifacts import Centre, Keyed, Kind
from blackopt.artifacts.table import BLOCK
from blackopt.errors import UsageError
from blackopt.serving.batch import KeyedMlp

Floats = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Request:
    centre: Centre
    candidate: Keyed | None


def network(widths: Sequence[int], lead: int, seed: int, still: Sequence[str], *, last: bool) -> Centre:
    """Tensors of a network after ``lead`` numbers of something else; biases beside their weights, or last."""
    shapes: dict[str, tuple[int, ...]] = {"lead": (lead,)}
    pairs = list(pairwise(widths))
    for i, (inputs, outputs) in enumerate(pairs):
        shapes[f"w{i}"] = (outputs, inputs)
        if not last:
            shapes[f"b{i}"] = (outputs,)
    shapes |= {f"b{i}": (outputs,) for i, (_, outputs) in enumerate(pairs)}
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    values = np.random.default_rng(seed).standard_normal(size) * 0.3
    return Centre("feed", seed, seed, shapes, values.astype(np.float32), still)


def one_by_one(request: Request, x: Floats, layers: int, activation: str) -> NDArray[np.float64]:
    values = request.centre.values.copy()
    if request.candidate is not None:
        request.centre.perturb(request.candidate, values)
    tensors = request.centre.tensors(values)
    h = x.astype(np.float64)
    for i in range(layers):
        h = tensors[f"w{i}"].astype(np.float64) @ h + tensors[f"b{i}"]
        if i < layers - 1:
            h = np.tanh(h) if activation == "tanh" else np.maximum(h, 0.0)
    return h


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    lead=st.sampled_from([0, 1, 7, BLOCK - 300, BLOCK - 1, BLOCK, 3 * BLOCK - 11]),
    kind=st.sampled_from(list(Kind)),
    activation=st.sampled_from(["tanh", "relu"]),
    last=st.booleans(),
)
def test_equal_to_one_by_one(
    data: st.DataObject, widths: list[int], lead: int, kind: Kind, activation: str, last: bool
) -> None:
    layers = len(widths) - 1
    names = ["lead", *(f"{letter}{i}" for i in range(layers) for letter in "wb")]
    still = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=3))
    centres = [network(widths, lead, seed, still, last=last) for seed in (1, 2)]
    requests = []
    for _ in range(data.draw(st.integers(1, 12))):
        centre = data.draw(st.sampled_from(centres))
        key, sign = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([1, -1]))
        candidate = Keyed(centre.version, key, sign, data.draw(st.sampled_from([0.01, 0.5])), kind)
        requests.append(Request(centre, data.draw(st.sampled_from([candidate, candidate, None]))))
    x = np.random.default_rng(0).standard_normal((len(requests), widths[0]), dtype=np.float32)
    mlp = KeyedMlp([(f"w{i}", f"b{i}") for i in range(layers)], activation=activation)
    got = mlp.act(x, requests)
    right = np.array([one_by_one(r, row, layers, activation) for r, row in zip(requests, x, strict=True)])
    assert got.dtype == np.float32
    scale = 1.0 + np.abs(right).max()
    np.testing.assert_allclose(got, right, rtol=0, atol=2e-5 * scale)


def test_large_layers_cross_blocks_of_the_table() -> None:
    widths = [150, 170, 130]
    centre = network(widths, 5, 1, (), last=False)
    requests = [Request(centre, Keyed(1, i // 2, 1 - 2 * (i % 2), 0.1, Kind.TABLE)) for i in range(30)]
    assert centre.noisy > 2 * BLOCK
    x = np.random.default_rng(0).standard_normal((30, 150), dtype=np.float32)
    got = KeyedMlp([("w0", "b0"), ("w1", "b1")]).act(x, requests)
    right = np.array([one_by_one(r, row, 2, "tanh") for r, row in zip(requests, x, strict=True)])
    np.testing.assert_allclose(got, right, rtol=0, atol=2e-5 * np.abs(right).max())
    assert len(np.unique(got[:, 0])) == 30


def test_impossible_calls() -> None:
    centre = network([3, 2], 0, 1, (), last=False)
    mlp, each = KeyedMlp([("w0", "b0")]), [Request(centre, None)]
    with pytest.raises(UsageError, match="at least one pair"):
        KeyedMlp([])
    with pytest.raises(UsageError, match="activation: expected"):
        KeyedMlp([("w0", "b0")], activation="gelu")
    for features in (np.zeros((2, 3)), np.zeros(3)):
        with pytest.raises(UsageError, match="features: expected"):
            mlp.act(features, each)
    with pytest.raises(UsageError, match="features: expected"):
        mlp.act(np.zeros((0, 3)), [])
    with pytest.raises(UsageError, match="4-wide"):
        mlp.act(np.zeros((1, 4)), each)
    with pytest.raises(UsageError, match="no tensor 'w9'"):
        KeyedMlp([("w9", "b0")]).act(np.zeros((1, 3)), each)
