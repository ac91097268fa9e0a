"""Centres: what is published comes back to the bit, noise is counted through the tensors that take it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackopt.artifacts import Base, Keyed, Kind, Store, draw, safetensors
from blackopt.artifacts.centre import ORDER, Centre, label
from blackopt.errors import ArtifactError, UsageError

SHAPES = {"w": (3, 4), "b": (3,), "a": (2, 3), "scale": (), "none": (0, 5)}
SIZE = 12 + 3 + 6 + 1


def centre(version: int = 7, still: tuple[str, ...] = ()) -> Centre:
    values = np.random.default_rng(3).standard_normal(SIZE)
    return Centre("feed", version, 11, SHAPES, values.astype(np.float32), still)


def test_what_is_published_comes_back_to_the_bit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sent = centre(still=("b", "scale"))
    name = sent.publish(store)
    assert sent.publish(store) == name
    assert store.labels() == {"feed.v7": name}
    got = Centre.load(store, "feed", 7)
    assert (got.campaign, got.version, got.seed) == ("feed", 7, 11)
    assert list(got.shapes.items()) == list(SHAPES.items())
    assert set(got.still) == {"b", "scale"}
    assert got.values.tobytes() == sent.values.tobytes()
    assert got.runs == sent.runs
    store.collect()
    assert Base.load(store.get(name)).tensors["w"].shape == (3, 4), (
        "a centre is a base of deltas like any other"
    )


@given(still=st.sets(st.sampled_from(sorted(SHAPES))), kind=st.sampled_from([Kind.NORMAL, Kind.SIGN]))
def test_noise_is_counted_through_the_tensors_that_take_it(still: set[str], kind: Kind) -> None:
    given = centre(still=tuple(still))
    candidate = Keyed(7, 99, -1, 0.25, kind)
    out = given.values.copy()
    made = given.tensors(given.perturb(candidate, out))
    noisy = [name for name in SHAPES if name not in still]
    noise = draw(11, 99, given.noisy, kind=kind)
    at = 0
    for name, before in given.tensors().items():
        expected = before.astype(np.float64)
        if name in noisy:
            expected = expected - 0.25 * noise[at : at + before.size].reshape(before.shape)
            at += before.size
        np.testing.assert_array_equal(made[name], expected.astype(np.float32))
    assert at == given.noisy == sum(run.last - run.first for run in given.runs)


def test_numbers_that_take_no_noise_are_not_written() -> None:
    given = centre(still=("b",))
    out = np.full(SIZE, 5.0, np.float32)
    given.perturb(Keyed(7, 1, 1, 0.1), out)
    assert (given.tensors(out)["b"] == 5.0).all()
    assert (given.tensors(out)["w"] != 5.0).all()
    assert [(run.first, run.last, run.offset) for run in given.runs] == [(0, 12, 0), (15, 22, 12)]


def test_values_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        centre().tensors()["w"][0, 0] = 1.0


def test_a_candidate_of_another_version_is_refused() -> None:
    with pytest.raises(UsageError, match="of version 6, this is 7"):
        centre().perturb(Keyed(6, 1, 1, 0.1), np.empty(SIZE, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": -1}, "version must be"),
        ({"version": 1 << 48}, "version must be"),
        ({"seed": 1 << 64}, "seed must be"),
        ({"values": np.zeros(SIZE - 1)}, "expected .22,. finite"),
        ({"values": np.full(SIZE, np.nan)}, "finite"),
        ({"values": np.full(SIZE, 1e300)}, "finite"),
        ({"still": ("w", "x")}, "still names x"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_impossible_centres(change: dict[str, object], message: str) -> None:
    arguments = {
        "campaign": "c",
        "version": 0,
        "seed": 0,
        "shapes": SHAPES,
        "values": np.zeros(SIZE),
        **change,
    }
    with pytest.raises(UsageError, match=message):
        Centre(**arguments)  # type: ignore[arg-type]


def test_one_that_is_not_there_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    centre(6).publish(store)
    with pytest.raises(ArtifactError, match="not in the store") as caught:
        Centre.load(store, "feed", 7)
    assert caught.value.where == "feed.v7"


def test_a_label_that_stands_for_something_else_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.label(label("feed", 8), centre(7).publish(store))
    with pytest.raises(ArtifactError, match="not the centre") as caught:
        Centre.load(store, "feed", 8)
    assert "feed.v7" in caught.value.why


def test_files_that_are_no_centre_are_said() -> None:
    tensors = centre().tensors()
    wide = {**tensors, "w": tensors["w"].astype(np.float64)}
    for body in (
        safetensors.write(tensors),
        safetensors.write(tensors, {ORDER: "[]"}),
        safetensors.write(wide, {ORDER: '["w"]', "blackopt.still": "[]"}),
        safetensors.write({}, {ORDER: "3", "blackopt.still": "[]"}),
    ):
        with pytest.raises(ArtifactError, match="not the centre"):
            Centre.read(body)
