"""Noise from a table: how it is distributed and shared, that it may be longer than the table, and float32."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from scipy import stats

from blackopt.artifacts.keyed import Keyed, perturb
from blackopt.artifacts.normal import normals
from blackopt.artifacts.portable import Kind, chunks, draw
from blackopt.artifacts.table import BITS, BLOCK, LENGTH, places, short, table
from blackopt.artifacts.words import words
from blackopt.errors import UsageError


def drawn(seed: int, key: int, n: int, **options: Any) -> Any:
    return draw(seed, key, n, kind=Kind.TABLE, dtype=np.float32, **options)


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_the_table_is_normal(seed: int) -> None:
    z = table(seed)[:LENGTH].astype(np.float64)
    # Four standard errors of the moments of a normal sample: 1, sqrt(2), sqrt(96) by sqrt(n).
    assert abs(z.mean()) < 4 / np.sqrt(LENGTH)
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / LENGTH)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / LENGTH)
    assert stats.kstest(z[:400_000], "norm").pvalue > 1e-3
    for lag in (1, 2, 8, BLOCK, LENGTH // 2):
        assert abs((z[lag:] * z[:-lag]).mean()) < 4.5 / np.sqrt(LENGTH - lag)


@pytest.mark.parametrize(
    ("number", "rounded"),
    [
        (1 + 2.0**-12, 1.0),  # as near to 1 + 2^-11: the last bit of 1 is even
        (1 + 3 * 2.0**-12, 1 + 2.0**-10),
        (1 + 2.0**-12 + 2.0**-52, 1 + 2.0**-11),
        (1 + 3 * 2.0**-12 - 2.0**-52, 1 + 2.0**-11),
        (2 - 2.0**-12, 2.0),
        (2 - 2.0**-11, 2 - 2.0**-11),
        (0.0, 0.0),
    ],
)
def test_twelve_bits_are_the_nearest_and_even_where_two_are(number: float, rounded: float) -> None:
    for scale in (1.0, -1.0, 2.0**-31, 2.0**90):
        assert short(np.array([scale * number])).tolist() == [scale * rounded]


def test_rounding_to_twelve_bits_changes_nothing_that_matters() -> None:
    before = normals(words(7, 0, Kind.TABLE, 0, 50_000, stream=1))
    after = short(before.copy())
    change = after - before
    assert np.abs(change / before).max() <= 2.0**-BITS
    assert abs(change.mean()) < 4 * change.std() / np.sqrt(len(change))
    assert abs((after**2).mean() / (before**2).mean() - 1) < 1e-6
    assert np.corrcoef(change, before)[0, 1] == pytest.approx(0, abs=4 / np.sqrt(len(change)))
    np.testing.assert_array_equal(table(7)[: len(after)], after)


def test_tables_of_seeds_have_nothing_in_common_with_each_other_and_with_keys() -> None:
    n = 200_000
    rows: list[Any] = [
        table(0)[:n],
        table(1)[:n],
        draw(0, 0, n),
        drawn(0, 0, n),
        draw(0, 0, n, kind=Kind.SIGN),
    ]
    others = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert np.abs(others).max() < 4.5 / np.sqrt(n)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("n", [3 * BLOCK, LENGTH // 4, LENGTH + LENGTH // 2])
def test_directions_shorter_and_longer_than_the_table_are_independent(n: int, seed: int) -> None:
    rows = [drawn(seed, key, n) for key in range(6)]
    for row in rows:
        # Blocks share numbers once the direction is longer than the table: half as much again is allowed.
        assert abs(float(row.mean(dtype=np.float64))) < 6 / np.sqrt(n)
        assert abs(float((row.astype(np.float64) ** 2).mean()) - 1) < 6 * np.sqrt(2 / min(n, LENGTH))
    norms = [float(np.linalg.norm(row)) for row in rows]
    cosines = [float(rows[i] @ rows[j]) / norms[i] / norms[j] for i in range(len(rows)) for j in range(i)]
    assert max(map(abs, cosines)) < 4.5 / np.sqrt(n)


def test_cosines_of_many_directions_scatter_as_those_of_independent_ones() -> None:
    n = 4 * BLOCK
    rows = np.array([drawn(3, key, n) for key in range(60)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)] * np.sqrt(n)
    assert cosines.std() == pytest.approx(1, abs=0.1)
    assert stats.kstest(cosines, "norm").pvalue > 1e-3


def test_no_stretch_of_a_direction_that_is_longer_than_the_table_repeats_another() -> None:
    """A table that is used from its beginning again would give a correlation of 1 at its own length."""
    row = drawn(5, 1, LENGTH + 8 * BLOCK)
    for lag in (LENGTH, LENGTH - BLOCK, BLOCK):
        shared = np.corrcoef(row[: 8 * BLOCK], row[lag : lag + 8 * BLOCK])[0, 1]
        assert abs(shared) < 5 / np.sqrt(8 * BLOCK)


def test_places_cover_the_table_and_signs_are_even() -> None:
    starts, signs = places(7, 1, 0, 40_000)
    assert stats.kstest(starts / LENGTH, "uniform").pvalue > 1e-3
    assert abs(np.mean(signs)) < 4 / np.sqrt(40_000)
    assert set(signs.tolist()) == {-1, 1}
    some = places(7, 1, 9_999, 3)
    np.testing.assert_array_equal(some[0], starts[9_999:10_002])
    np.testing.assert_array_equal(some[1], signs[9_999:10_002])
    of_many = places(7, [0, 1], 9_999, 3)
    np.testing.assert_array_equal(of_many[0][:, 1], some[0])
    np.testing.assert_array_equal(of_many[1][:, 1], some[1])


def test_a_block_that_ends_behind_the_table_continues_at_its_beginning() -> None:
    starts, signs = places(7, 1, 0, 4_000)
    block = int(np.argmax(starts > LENGTH - BLOCK // 2))
    assert starts[block] > LENGTH - BLOCK // 2
    place = (starts[block] + np.arange(BLOCK)) % LENGTH
    np.testing.assert_array_equal(
        drawn(7, 1, BLOCK, offset=block * BLOCK), table(7)[:LENGTH][place] * signs[block]
    )


def test_parts_may_be_changed_without_harm_to_the_table() -> None:
    before = drawn(7, 1, 100)
    for _, part in chunks(7, 1, 100, kind=Kind.TABLE):
        part[...] = 0
    np.testing.assert_array_equal(drawn(7, 1, 100), before)
    with pytest.raises(ValueError, match="read-only"):
        table(7)[0] = 0


def test_threads_share_one_table_and_few_are_kept() -> None:
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(table, [101] * 8))
    assert all(one is tables[0] for one in tables)
    tracemalloc.start()
    for seed in range(200, 206):
        table(seed)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4.5 * tables[0].nbytes
    np.testing.assert_array_equal(table(101), tables[0])


def test_a_restarted_process_repeats_no_perturbation_of_another_key() -> None:
    """A sampler that starts anew and draws on must not come upon what an earlier one has drawn."""
    script = (
        "import hashlib, sys\n"
        "from blackopt.artifacts.portable import Kind, draw\n"
        "for key in map(int, sys.argv[1:]):\n"
        "    print(key, hashlib.sha256(draw(7, key, 50_000, kind=Kind.TABLE).tobytes()).hexdigest())\n"
    )
    found: dict[str, set[str]] = {}
    for keys in (("0", "1", "2"), ("2", "3", "4")):
        run = subprocess.run(
            [sys.executable, "-c", script, *keys], capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stderr
        for line in run.stdout.splitlines():
            key, digest = line.split()
            found.setdefault(key, set()).add(digest)
    assert [len(digests) for digests in found.values()] == [1] * 5
    assert len(set().union(*found.values())) == 5


@pytest.mark.parametrize("offset", [0, 5, BLOCK - 1, 7 * BLOCK + 3])
@pytest.mark.parametrize("n", [1, 100, BLOCK, 4 * BLOCK, 9 * BLOCK + 17])
def test_float32_takes_float32_throughout(n: int, offset: int) -> None:
    centre = np.random.default_rng(n).standard_normal(n, dtype=np.float32)
    candidate = Keyed(0, 5, -1, 0.3, Kind.TABLE)
    noise = drawn(7, 5, n, offset=offset)
    expected = noise * np.float32(-0.3) + centre
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(perturb(centre, candidate, 7, offset=offset), expected)
    wide = perturb(centre.astype(np.float64), candidate, 7, offset=offset)
    np.testing.assert_array_equal(wide, noise.astype(np.float64) * -0.3 + centre)
    assert perturb(centre, candidate, 7, offset=offset, out=centre) is centre
    np.testing.assert_array_equal(centre, expected)


def test_memory_of_a_perturbation_is_a_few_blocks() -> None:
    centre = np.zeros(3_000_000, np.float32)
    table(7)
    for out in (centre, np.empty_like(centre)):
        tracemalloc.start()
        perturb(centre, Keyed(0, 1, 1, 0.5, Kind.TABLE), 7, out=out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 600_000


@pytest.mark.parametrize("place", [0, 70_000, 99_999])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_centre_that_is_not_finite_is_refused(place: int, wrong: float) -> None:
    centre = np.zeros(100_000, np.float32)
    centre[place] = wrong
    with pytest.raises(UsageError, match="not finite in float32"):
        perturb(centre, Keyed(0, 1, 1, 0.5, Kind.TABLE), 7)


def test_steps_that_overflow_are_refused_and_large_numbers_are_not() -> None:
    with pytest.raises(UsageError, match="not finite in float32"):
        perturb(np.zeros(100, np.float32), Keyed(0, 1, 1, 1e39, Kind.TABLE), 7)
    with pytest.raises(UsageError, match="not finite in float32"):
        perturb(np.full(100, 3.4e38, np.float32), Keyed(0, 1, 1, 1e38, Kind.TABLE), 7)
    large = np.full(100, 3e38, np.float32)  # their sum is too large, none of them is
    np.testing.assert_array_equal(perturb(large, Keyed(0, 1, 1, 0.5, Kind.TABLE), 7), large)
