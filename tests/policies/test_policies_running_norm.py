"""Statistics of features that move along with a search: joined, stored, and resumed bit for bit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blackopt import noise
from blackopt.errors import UsageError
from blackopt.optimizers.ars import ARS, ARSOptions
from blackopt.serving.mlp import Mlp, RunningNorm
from blackopt.space import Space
from blackopt.types import Evaluation

Vector = NDArray[np.float64]

UNITS = np.array([1e3, 1.0, 1e-2])
OFFSETS = np.array([5e3, 0.0, 1.0])
MEANING = np.array([1.0, -1.0, 1.0])


@given(st.lists(st.integers(0, 4), min_size=2, max_size=5), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_statistics_gathered_apart_are_joined_as_if_seen_together(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.normal(size=(size, 3)) * UNITS + OFFSETS for size in [*sizes, 2]]
    joined, together = RunningNorm(3), RunningNorm(3)
    for batch in batches:
        one = RunningNorm(3)
        one.update(batch)
        joined.merge(one)
    together.update(np.concatenate(batches))
    assert joined.count == together.count
    for mine, theirs in zip(joined.normalizer(), together.normalizer(), strict=True):
        assert np.allclose(mine, theirs, rtol=1e-9)


def test_merging_leaves_the_other_as_it_was_and_refuses_another_width() -> None:
    ours, theirs = RunningNorm(2), RunningNorm(2)
    theirs.update([[1.0, 2.0], [3.0, 4.0]])
    before = theirs.dump()
    ours.merge(theirs)
    ours.update([9.0, 9.0])
    assert theirs.dump() == before
    with pytest.raises(UsageError, match="expected features of width 2, got 3"):
        ours.merge(RunningNorm(3))


def test_what_was_dumped_goes_on_exactly_after_a_way_through_json() -> None:
    norm = RunningNorm(3)
    norm.update(np.random.default_rng(0).normal(size=(7, 3)) * UNITS)
    again = RunningNorm.load(json.loads(json.dumps(norm.dump())))
    for one in (norm, again):
        one.update([0.1, 0.2, 0.3])
    assert again.dump() == norm.dump()
    assert RunningNorm.load(RunningNorm(1).dump()).count == 0


@pytest.mark.parametrize(
    "change",
    [
        {"count": -1},
        {"count": 1.5},
        {"mean": [0.0]},
        {"mean": []},
        {"squares": [-1.0, 0.0]},
        {"squares": [float("nan"), 0.0]},
        {"squares": "no"},
        {"squares": None},
    ],
)
def test_a_damaged_state_is_refused(change: dict[str, Any]) -> None:
    norm = RunningNorm(2)
    norm.update([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(UsageError, match="state: expected"):
        RunningNorm.load({**norm.dump(), **change})


class Search:
    """ARS whose policy normalises what it sees: V2 of Mania, Guy and Recht (2018).

    An episode is ten cases, and its loss the squared error of what the policy makes of them.
    """

    def __init__(self, *, normalise: bool) -> None:
        self.normalise = normalise
        self.space = Space.from_spec({"weights": {"weights": 3}})
        self.options = ARSOptions(directions=4, top=2, sigma=0.1, learning_rate=0.1, seed=5)
        self.optimizer = ARS(self.space, self.space.start(), self.options)
        self.norm = RunningNorm(3)
        self.artifacts: list[bytes] = []

    def network(self, vector: Vector) -> Mlp:
        moments = self.norm.normalizer() if self.normalise and self.norm.count else None
        return Mlp([vector.reshape(1, 3)], [[0.0]], normalizer=moments)

    def loss(self, network: Mlp, number: int) -> tuple[float, Vector]:
        hidden = noise.normal(9, "cases", number // 2, 30).reshape(10, 3)
        seen = hidden * UNITS + OFFSETS
        return float(np.mean((network.act(seen)[:, 0] - hidden @ MEANING) ** 2)), seen

    def update(self) -> None:
        """One update of ARS. The statistics move between updates only: the eight see the same ones."""
        told, gathered = [], RunningNorm(3)
        for candidate in self.optimizer.ask(8):
            artifact = self.network(candidate.vector).artifact()
            self.artifacts.append(artifact.body)
            loss, seen = self.loss(Mlp.load(artifact), candidate.number)
            gathered.update(seen)
            told.append(Evaluation(candidate.number, loss))
        self.norm.merge(gathered)
        self.optimizer.tell(told)

    def killed(self) -> None:
        """Go on from what was stored, as another process would."""
        state, seen = self.optimizer.dump(), json.dumps(self.norm.dump())
        self.optimizer = ARS.load(self.space, self.options, state)
        self.norm = RunningNorm.load(json.loads(seen))

    def final(self) -> float:
        network = self.network(self.optimizer.recommend())
        return float(np.mean([self.loss(network, number)[0] for number in range(1000, 1100, 2)]))


def test_a_search_with_a_running_normalizer_resumes_to_the_same_artifacts() -> None:
    whole, killed = Search(normalise=True), Search(normalise=True)
    for _ in range(6):
        whole.update()
        killed.update()
        killed.killed()
    assert killed.artifacts == whole.artifacts
    assert np.array_equal(killed.optimizer.recommend(), whole.optimizer.recommend())
    normalizers = [json.loads(body)["normalizer"] for body in whole.artifacts]
    assert normalizers[0] is None
    assert all(normalizers[8] == same for same in normalizers[8:16])
    assert normalizers[16] != normalizers[8]


def test_normalising_finds_what_units_hide_from_the_same_search() -> None:
    losses = []
    for normalise in (False, True):
        search = Search(normalise=normalise)
        for _ in range(60):
            search.update()
        losses.append(search.final())
    assert losses[1] < 0.5 < losses[0], losses


def test_the_loop_of_the_page_runs_as_it_is_written() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "optimizers.md").read_text(encoding="utf-8")
    section = page.partition("### A normalizer that moves along\n")[2]
    block = re.search(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert block is not None
    exec(compile(block.group(1), "docs/optimizers.md", "exec"), {})  # it ends with an assertion
