"""What a candidate of a large model takes to send: bytes, error and seconds, beside copying it in memory.

    python benchmarks/artifacts.py [--quick] [--seeds N] [--json FILE]

The model is one float32 tensor of normal numbers. The candidate differs from its base by a keyed perturbation
of two fifths of their deviation; for ``sparse`` by new values in one number of a hundred. ``of full`` is the
size by that of the uncompressed file of the whole model, ``error`` the root mean square of what is wrong in
the rebuilt candidate by that of the change. Seconds are medians over the seeds; ``copies`` divides them by
those of a copy of the model in memory in the same run. zlib is left out beyond a million numbers,
where it would take most of the run.

The second table has what a search and a module do with keys: the sum of 128 weighted directions (population
256 in twins), and a candidate from a table, made in place. Beside them stands, in the same run, what the
machine takes for the least that this could be: 128 fused saxpy of BLAS over the same stretches of the same
table, block by block, or a copy and an addition of arrays. The fastest of a few repetitions counts; medians
over the seeds. Sums of normal numbers are left out beyond a million numbers, too.

The third table has what directions from a table look like: the averages of their mean times the root of n, of
their variance and kurtosis (0, 1, 3), then standard deviation, kurtosis and largest size of the cosines of
all pairs of 16 a seed, times the root of n (1, 3, and 3 to 4), where a table that is shared would show.

Exits with 1 if what must be exact is not, or an error is larger than
documented.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import saxpy

from blackopt.artifacts.compression import Codec, compress, expand
from blackopt.artifacts.delta import Base, apply, float16, full, int8, sparse
from blackopt.artifacts.fold import fold
from blackopt.artifacts.keyed import Keyed, perturb
from blackopt.artifacts.portable import Kind, draw
from blackopt.artifacts.table import BLOCK, LENGTH, places, table
from blackopt.types import Artifact

Floats = NDArray[np.float32]
T = TypeVar("T")

QUICK = (10_000, 100_000, 1_000_000)
WHOLE = (*QUICK, 10_000_000, 100_000_000)
ZLIB_UP_TO = 1_000_000
NORMALS_UP_TO = 1_000_000  # beyond, their sum would take most of the run
DIRECTIONS = 128
LOOKED_AT = 16
BEYOND_THE_TABLE = 2 * LENGTH
NAME = "weights"
LARGEST_ERROR = {"float16": 2.0**-11, "int8": 0.02}
"""By format, as in docs/artifacts.md; the others are exact."""


@dataclass(frozen=True)
class Row:
    parameters: int
    form: str
    bytes: int
    of_full: float
    error: float
    encode_s: float
    decode_s: float
    copy_s: float


@dataclass(frozen=True)
class Work:
    parameters: int
    what: str
    seconds: float
    limit: str
    limit_s: float


@dataclass(frozen=True)
class Look:
    parameters: int
    kind: str
    mean: float
    variance: float
    kurtosis: float
    cosine_deviation: float
    cosine_kurtosis: float
    largest_cosine: float


def timed(action: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def forms(base: Base, dense: Floats, thin: Floats) -> Iterator[tuple[str, Floats, Callable[[], Artifact]]]:
    """Name, candidate and encoder of each format that travels as a file."""
    yield "full", dense, lambda: full({NAME: dense})
    yield "float16", dense, lambda: float16({NAME: dense}, base)
    yield "int8", dense, lambda: int8({NAME: dense}, base)
    yield "sparse", thin, lambda: sparse({NAME: thin}, base)


def decoded(form: str, body: bytes, base: Base) -> Floats:
    tensors = Base.load(body).tensors if form == "full" else apply(body, base)
    found: Floats = tensors[NAME]
    return found


def measure(parameters: int, seed: int) -> Iterator[Row]:
    """A row for each format of one model."""
    rng = np.random.default_rng(seed)
    old = rng.standard_normal(parameters, dtype=np.float32) * np.float32(0.05)
    candidates = {kind: Keyed(0, seed, 1, 0.02, kind) for kind in Kind}
    dense = perturb(old, candidates[Kind.NORMAL], seed)
    thin = old.copy()
    places = np.sort(rng.integers(0, parameters, parameters // 100))
    thin[places] = dense[places]
    whole = full({NAME: old}).body
    base = Base.load(whole)
    room = np.empty_like(old)

    def row(form: str, new: Floats, made: Floats, size: int, encode_s: float, decode_s: float) -> Row:
        copy_s, _ = timed(lambda: np.copyto(room, old))
        change = float(np.sqrt(np.mean((new - old).astype(np.float64) ** 2)))
        wrong = float(np.sqrt(np.mean((made - new).astype(np.float64) ** 2)))
        ratio = size / len(whole)
        return Row(parameters, form, size, ratio, wrong / change, encode_s, decode_s, copy_s)

    np.copyto(room, old)  # its pages are there before the first copy is timed
    for form, new, encode in forms(base, dense, thin):
        encode_s, artifact = timed(encode)
        decode_s, made = timed(lambda form=form, body=artifact.body: decoded(form, body, base))  # type: ignore[misc]
        size = len(artifact.body)
        yield row(form, new, made, size, encode_s, decode_s)
        for codec in Codec:
            if codec is Codec.ZLIB and parameters > ZLIB_UP_TO:
                continue
            packed_s, packed = timed(lambda codec=codec, artifact=artifact: compress(artifact, codec))  # type: ignore[misc]
            expand_s, inside = timed(lambda packed=packed, size=size: expand(packed.body, most=size))  # type: ignore[misc]
            assert inside == artifact.body
            name = f"{form} {codec.name.lower()}"
            yield row(name, new, made, len(packed.body), encode_s + packed_s, decode_s + expand_s)
        del artifact, made
    for kind, candidate in candidates.items():
        new = dense if kind is Kind.NORMAL else perturb(old, candidate, seed)
        encode_s, artifact = timed(candidate.encode)
        decode_s, made = timed(
            lambda body=artifact.body: perturb(old, Keyed.decode(body), seed)  # type: ignore[misc]
        )
        yield row(f"key {kind.name.lower()}", new, made, len(artifact.body), encode_s, decode_s)


def work(parameters: int, seed: int) -> Iterator[Work]:
    """What keys are used for, beside what the machine takes for the least that it could be."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal(parameters, dtype=np.float32)
    made, other = np.ones_like(centre), np.ones_like(centre)
    weights, keys = rng.standard_normal(DIRECTIONS), np.arange(DIRECTIONS)
    source = table(seed)
    starts = [places(seed, key, 0, -(-parameters // BLOCK))[0].tolist() for key in keys.tolist()]

    def fused() -> None:
        for block, low in enumerate(range(0, parameters, BLOCK)):
            place = made[low : low + BLOCK]
            for weight, begins in zip(weights, starts, strict=True):
                saxpy(source[begins[block] :], place, len(place), weight)

    def copy_and_add() -> None:
        np.copyto(made, centre)
        np.add(centre, other, out=made)

    candidate = Keyed(0, seed, 1, 0.02, Kind.TABLE)
    few = max(1, min(50, 50_000_000 // parameters))
    made_s = fastest(lambda: perturb(centre, candidate, seed, out=made), few)
    yield Work(parameters, "candidate, table", made_s, "copy + add", fastest(copy_and_add, few))
    few = max(1, min(5, 5_000_000 // parameters))
    fused_s = fastest(fused, few)
    for kind in Kind:
        if kind is Kind.NORMAL and parameters > NORMALS_UP_TO:
            continue
        times = 1 if kind is Kind.NORMAL else few
        sum_s = fastest(lambda kind=kind: fold(seed, keys, weights, made, kind=kind), times)  # type: ignore[misc]
        yield Work(parameters, f"sum, {kind.name.lower()}", sum_s, "saxpy", fused_s)


def look(parameters: int, kind: Kind, seeds: int) -> Look:
    """How directions are distributed, and the angles between them, in units of independent normal ones."""
    means, variances, kurtoses, cosines = [], [], [], []
    for seed in range(seeds):
        rows = np.array(
            [draw(seed, key, parameters, kind=kind, dtype=np.float32) for key in range(LOOKED_AT)]
        )
        for row in rows:
            means.append(row.mean(dtype=np.float64) * np.sqrt(parameters))
            squares = np.square(row, dtype=np.float64)
            variances.append(squares.mean())
            kurtoses.append(np.square(squares).mean())
        sizes = np.linalg.norm(rows, axis=1)
        products = (rows @ rows.T / np.outer(sizes, sizes))[np.triu_indices(LOOKED_AT, 1)]
        cosines.append(products.astype(np.float64) * np.sqrt(parameters))
    pairs = np.concatenate(cosines)
    found = (np.mean(means), np.mean(variances), np.mean(kurtoses))
    scatter = (pairs.std(), (pairs**4).mean() / (pairs**2).mean() ** 2, np.abs(pairs).max())
    return Look(parameters, kind.name.lower(), *map(float, (*found, *scatter)))


def show_looks(looks: list[Look]) -> None:
    print(
        f"\n{'parameters':>11}  {'kind':<8}{'mean':>8}{'variance':>10}{'kurtosis':>10}{'cosines: sd':>13}",
        end="",
    )
    print(f"{'kurtosis':>10}{'largest':>9}")
    for one in looks:
        print(
            f"{one.parameters:>11,}  {one.kind:<8}{one.mean:>8.3f}{one.variance:>10.5f}{one.kurtosis:>10.4f}"
            f"{one.cosine_deviation:>13.3f}{one.cosine_kurtosis:>10.2f}{one.largest_cosine:>9.2f}"
        )


def fastest(action: Callable[[], object], times: int) -> float:
    return min(timed(action)[0] for _ in range(times))


def medians_of_work(rows: list[Work]) -> Work:
    """One row from the same row of each seed."""
    first = rows[0]
    seconds, limit_s = (
        statistics.median(getattr(row, key) for row in rows) for key in ("seconds", "limit_s")
    )
    return Work(first.parameters, first.what, seconds, first.limit, limit_s)


def show_work(rows: list[Work]) -> None:
    print(f"\n{'parameters':>11}  {'what':<18}{'seconds':>11}  {'limit':<12}{'seconds':>11}{'times':>8}")
    for row in rows:
        print(
            f"{row.parameters:>11,}  {row.what:<18}{row.seconds:>11.5f}  {row.limit:<12}{row.limit_s:>11.5f}"
            f"{row.seconds / row.limit_s:>8.1f}"
        )


def medians(rows: list[Row]) -> Row:
    """One row from the same row of each seed."""
    first = rows[0]
    middle = {
        key: statistics.median(getattr(row, key) for row in rows)
        for key in ("of_full", "error", "encode_s", "decode_s", "copy_s")
    }
    size = int(statistics.median(row.bytes for row in rows))
    return Row(first.parameters, first.form, size, **middle)


def show(rows: list[Row]) -> None:
    print(
        f"{'parameters':>11}  {'format':<14}{'bytes':>12}{'of full':>9}{'error':>10}{'encode s':>11}"
        f"{'copies':>8}{'decode s':>11}{'copies':>8}"
    )
    # One copy speed a size: a single copy of a small model is too short to time alone.
    copies = {n: statistics.median(row.copy_s for row in rows if row.parameters == n) for n in sizes_of(rows)}
    for row in rows:
        copy_s = copies[row.parameters]
        print(
            f"{row.parameters:>11,}  {row.form:<14}{row.bytes:>12,}{row.of_full:>9.1%}{row.error:>10.1e}"
            f"{row.encode_s:>11.5f}{row.encode_s / copy_s:>8.0f}"
            f"{row.decode_s:>11.5f}{row.decode_s / copy_s:>8.0f}"
        )
    print()
    for n, copy_s in copies.items():
        draw_s, _ = timed(lambda n=n: np.random.default_rng(0).standard_normal(n))  # type: ignore[misc]
        print(f"{n:>11,} float32 copied in {copy_s:.6f} s, {4e-9 * n / copy_s:.1f} GB/s; ", end="")
        print(f"as many normal numbers from numpy, which are not portable, in {draw_s:.5f} s")


def sizes_of(rows: list[Row]) -> list[int]:
    return sorted({row.parameters for row in rows})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="models of up to a million numbers")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="repetitions; medians are printed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    rows: list[Row] = []
    works: list[Work] = []
    for parameters in QUICK if options.quick else WHOLE:
        repeated = [list(measure(parameters, seed)) for seed in range(max(1, options.seeds))]
        rows += [medians(list(same)) for same in zip(*repeated, strict=True)]
        worked = [list(work(parameters, seed)) for seed in range(max(1, options.seeds))]
        works += [medians_of_work(list(same)) for same in zip(*worked, strict=True)]
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}\n")
    show(rows)
    show_work(works)
    lengths = QUICK[1:2] if options.quick else (*QUICK[1:], BEYOND_THE_TABLE)
    kinds = (Kind.NORMAL, Kind.TABLE)
    looks = [look(n, kind, max(1, options.seeds)) for n in lengths for kind in kinds]
    show_looks(looks)
    if options.json is not None:
        found = {
            "formats": [asdict(row) for row in rows],
            "work": [asdict(row) for row in works],
            "directions": [asdict(row) for row in looks],
        }
        text = json.dumps(found, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    wrong = [
        f"{row.form} of {row.parameters:,}"
        for row in rows
        if row.error > LARGEST_ERROR.get(row.form.split()[0], 0.0)
    ]
    if wrong:
        print(f"further off than documented: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
