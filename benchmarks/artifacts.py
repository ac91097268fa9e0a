"""What a candidate of a large model takes to send: bytes, error and seconds, beside copying it in memory.

    python benchmarks/artifacts.py [--quick] [--seeds N] [--json FILE]

The model is one float32 tensor of normal numbers. The candidate differs from its base by a keyed perturbation
of two fifths of their deviation; for ``sparse`` by new values in one number of a hundred. ``of full`` is the
size by that of the uncompressed file of the whole model, ``error`` the root mean square of what is wrong in
the rebuilt candidate by that of the change. Seconds are medians over the seeds; ``copies`` divides them by
those of a copy of the model in memory in the same run. zlib is left out beyond a million numbers,
where it would take most of the run. Exits with 1 if what must be exact is not, or an error is larger than
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

from blackopt.artifacts.compression import Codec, compress, expand
from blackopt.artifacts.delta import Base, apply, float16, full, int8, sparse
from blackopt.artifacts.keyed import Keyed, perturb
from blackopt.artifacts.portable import Kind
from blackopt.types import Artifact

Floats = NDArray[np.float32]
T = TypeVar("T")

QUICK = (10_000, 100_000, 1_000_000)
WHOLE = (*QUICK, 10_000_000, 100_000_000)
ZLIB_UP_TO = 1_000_000
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
    for parameters in QUICK if options.quick else WHOLE:
        repeated = [list(measure(parameters, seed)) for seed in range(max(1, options.seeds))]
        rows += [medians(list(same)) for same in zip(*repeated, strict=True)]
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}\n")
    show(rows)
    if options.json is not None:
        text = json.dumps([asdict(row) for row in rows], indent=2)
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
