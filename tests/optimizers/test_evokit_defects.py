"""What goes wrong in EvoKit (of PaddlePaddle's PARL, as of 2020): a test for each defect."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any

import numpy as np
import pytest

from blackopt import plugins
from blackopt.artifacts.keyed import Keyed, perturb
from blackopt.artifacts.table import LENGTH
from blackopt.blocks import WeightsBlock
from blackopt.errors import UnknownCandidate
from blackopt.optimizers.shaping import centred_ranks, utilities
from blackopt.optimizers.steps import Adam
from blackopt.space import Space
from blackopt.testing.optimizers import fingerprint, sphere, through_json
from blackopt.types import Evaluation, KeyedCandidate, Status

KEYED = ("openai-es", "ars", "pgpe", "snes", "deep-ga")
GAUSSIAN = KEYED[:-1]


def make(use: str, n: int = 3, **options: Any) -> Any:
    found = plugins.find("optimizers", use)
    return found(Space([WeightsBlock("w", n)]), np.zeros(n), found.Options(**options))


def again(search: Any) -> Any:
    """The same in another process, as good as: from the text of its dump."""
    return type(search).load(search.space, search._options, through_json(search.dump()))


def generation(search: Any, count: int = 16) -> None:
    search.tell([Evaluation(c.number, sphere(c.vector)) for c in search.ask(count)])


def test_a_process_for_each_update_does_not_restart_adam() -> None:
    """There: the moments are not saved, so Adam is at its first step for ever and follows the sign alone."""
    options: dict[str, Any] = {"step": "adam", "population": 4, "seed": 18}
    running, restarted = make("openai-es", **options), make("openai-es", **options)
    forgetful = make("openai-es", **options)
    for _ in range(6):
        restarted = again(restarted)
        forgetful._rule = Adam(3, forgetful._rule.rate)
        for search in (running, restarted, forgetful):
            generation(search, 4)
    np.testing.assert_array_equal(restarted.recommend(), running.recommend())
    assert not np.allclose(forgetful.recommend(), running.recommend())  # the defect could be seen


@pytest.mark.parametrize("use", KEYED)
def test_a_restarted_sampler_goes_on_and_repeats_nothing(use: str) -> None:
    """There: the seed is set anew when a model is loaded: each process repeats the first."""
    search, seen = make(use, seed=18), set()
    for _ in range(5):
        search = again(search)
        seen |= {np.abs(c.vector).tobytes() for c in search.ask(8)[1:]}  # twins are equal but for the sign
    drawn = 7 if use in {"snes", "deep-ga"} else 4
    assert len(seen) == 5 * drawn


def test_adam_corrects_its_bias_by_steps_and_not_by_tensors() -> None:
    """There: a counter that each tensor's call raises: models of many tensors are corrected wrongly."""
    sizes = (5, 1, 12)
    found = plugins.find("optimizers", "openai-es")
    given = found.Options(step="adam", population=4, seed=3)
    tensors = Space([WeightsBlock(f"w{i}", size) for i, size in enumerate(sizes)])
    whole = Space([WeightsBlock("w", sum(sizes))])
    searches = [found(space, np.zeros(space.size), given) for space in (tensors, whole)]
    for _ in range(5):
        for search in searches:
            generation(search, 4)
    np.testing.assert_array_equal(searches[0].recommend(), searches[1].recommend())
    assert searches[0].dump()["memory"]["rule"]["count"] == 5


def test_a_model_may_be_longer_than_the_table_of_noise() -> None:
    """There: a cache of noise refuses every model that is as long as it is."""
    n = LENGTH + LENGTH // 2
    search = make("openai-es", n, population=2, precision="float32", noise="table")
    one, other = search.ask(2)
    vector = one.vector
    assert abs(np.corrcoef(vector[:100_000], vector[LENGTH : LENGTH + 100_000])[0, 1]) < 0.02
    search.tell([Evaluation(one.number, 1.0), Evaluation(other.number, 2.0)])
    assert float(search.recommend() @ vector) > 0


def test_a_key_means_the_same_numbers_everywhere() -> None:
    """There: keys seed a generator and a distribution that each C++ library defines for itself.

    The words and their transformation are fixed by docs/protocol/keyed.json; here another process agrees.
    """
    search = make("openai-es", 7, seed=2**64 - 1)
    candidate = search.ask(6)[5]
    code = (
        "import numpy as np; from blackopt.artifacts.keyed import Keyed, perturb; "
        f"k = Keyed.decode(bytes.fromhex('{candidate.key.hex()}')); "
        "print(perturb(np.zeros(7), k, 2**64 - 1).tobytes().hex())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == candidate.vector.tobytes().hex()


def test_directions_of_neighbouring_keys_do_not_overlap() -> None:
    """There: keys are places in one short cycle, and long perturbations are shifted copies of each other."""
    search = make("openai-es", 50_000, sigma=1.0)
    a, b = (c.vector for c in search.ask(4)[::2])
    assert np.intersect1d(a, b).size < 5
    assert max(abs(np.corrcoef(a[shift:], b[: len(b) - shift])[0, 1]) for shift in (0, 1, 2, 1000)) < 0.03


@pytest.mark.parametrize(
    "scores", [lambda losses: centred_ranks(losses), lambda losses: utilities(losses, losses)]
)
def test_ties_are_no_matter_of_arrival_and_one_result_is_no_division_by_zero(scores: Any) -> None:
    """There: of two equal rewards the first to come ranks lower, and a single one divides by zero."""
    losses = np.array([2.0, 1.0, 2.0, 1.0])
    found = scores(losses)
    assert found[0] == found[2]
    assert found[1] == found[3]
    np.testing.assert_array_equal(scores(losses[::-1]), found[::-1])
    np.testing.assert_array_equal(scores(np.array([7.0])), [0.0])


@pytest.mark.parametrize("use", GAUSSIAN)
def test_a_loss_that_is_no_number_does_not_spoil_an_update(use: str) -> None:
    """There: a NaN is ranked like a number, wherever the sort leaves it."""
    given: dict[str, Any] = {"directions": 4} if use == "ars" else {"population": 8}
    spoilt, failed = make(use, **given), make(use, **given)
    for search, loss, status in ((spoilt, float("nan"), Status.OK), (failed, None, Status.FAILED)):
        first, *rest = search.ask(8)
        search.tell([Evaluation(first.number, loss, status=status)])
        search.tell([Evaluation(c.number, sphere(c.vector)) for c in rest])
    assert np.all(np.isfinite(spoilt.recommend()))
    np.testing.assert_array_equal(spoilt.recommend(), failed.recommend())
    assert spoilt.ask(1)[0].version == 1


@pytest.mark.parametrize("use", GAUSSIAN)
def test_a_result_of_a_version_that_is_gone_spoils_no_update(use: str) -> None:
    """There: one sample that names a model which was removed makes the whole update fail.

    Here it counts as finished and says nothing, and the others of the same call are learnt from.
    """
    given: dict[str, Any] = {"directions": 4} if use == "ars" else {"population": 8}
    search = make(use, retain=2, seed=1, **given)
    stragglers = search.ask(2)
    for _ in range(4):
        generation(search, 8)
    version, before = search.ask(1)[0].version, search.recommend()
    batch = search.ask(9)
    batch = [c for c in batch if c.number >= 2 * (batch[0].number // 2 + 1)][:6]
    search.tell([Evaluation(c.number, -1e9) for c in stragglers])
    np.testing.assert_array_equal(search.recommend(), before)
    search = again(search)
    search.tell([Evaluation(c.number, sphere(c.vector)) for c in batch])
    others = search.ask(4)
    search.tell([Evaluation(c.number, sphere(c.vector)) for c in others])
    assert search.ask(1)[0].version > version
    assert np.linalg.norm(search.recommend()) < 1e3


@pytest.mark.parametrize("use", KEYED)
def test_a_result_that_was_never_asked_applies_nothing_and_names_itself(use: str) -> None:
    """There: the update returns false, and says neither which sample was at fault nor what was applied."""
    search = make(use)
    before = fingerprint((search.ask(2), search.dump())[1])
    with pytest.raises(UnknownCandidate, match="candidate 99 was never asked"):
        search.tell([Evaluation(0, 1.0), Evaluation(99, 1.0)])
    assert fingerprint(search.dump()) == before


@pytest.mark.parametrize("use", GAUSSIAN)
def test_centres_that_nothing_refers_to_are_let_go(use: str) -> None:
    """There: a buffer of the model's size is leaked for each retained model and update."""
    search, centres = make(use, seed=1), []
    for _ in range(30):
        centres.append(weakref.ref(search._now.centre))
        generation(search, 16 * search.population)
    gc.collect()
    assert search.ask(1)[0].version >= 30 * 15
    assert [centre for centre in centres if centre() is not None] == []


@pytest.mark.parametrize("use", GAUSSIAN)
def test_no_more_centres_are_kept_than_asked_for_however_many_results_are_out(use: str) -> None:
    """There: the bound on retained models does not bound the memory."""
    search = make(use, retain=3, **({"directions": 4} if use == "ars" else {"population": 8}))
    for _ in range(12):
        search.ask(2)  # never told
        generation(search, 8)
        assert len(search._cohorts) <= 3
    assert max(search._cohorts) == search._updates


def test_a_candidate_is_twenty_four_bytes_and_its_sampler_needs_no_more() -> None:
    """There: a clone of the agent is incomplete, and looks for its model under a wrong name."""
    search = make("ars", 1000, seed=5, directions=2)
    generation(search, 4)
    for candidate in search.ask(4):
        assert isinstance(candidate, KeyedCandidate)
        assert len(candidate.key) == 24
        rebuilt = perturb(search.recommend(), Keyed.decode(candidate.key), 5)
        np.testing.assert_array_equal(rebuilt, candidate.vector)
