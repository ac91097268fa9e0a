"""LightGBM's example of learning to rank: 251 queries with 3,773 documents, fetched, checked and read.

Documents have 301 columns, as LightGBM counts them (0 to 300), and a grade from 0 (useless) to 4. The columns
are anonymous, values lie in [0, 1], and many of the columns are zero in every document. Nothing is known of
where the rows come from; the repository they are in has the MIT licence.

    python -m ranking_app.data --download FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests
from numpy.typing import NDArray

HOME = (
    "https://raw.githubusercontent.com/microsoft/LightGBM/"
    "bae0b7ba953341a32b2a9c5c5c437a1b976f576f/examples/lambdarank"
)
SHA256 = {
    "rank.train": "a0c7201c89120879c14a5059e091f441cbf2a29b8aaef363885ccb1a530448df",
    "rank.train.query": "40cb5fef637229311cd30fab13cb7fb633b023e86a87ff04ec55db420143d6af",
    "rank.test": "3b1219ce117a0a36d2f76c02de7e7831c1d79af0d40f5195c03178bbe26c824b",
    "rank.test.query": "36dca82ba3bf99201bac3987b00a8fbf6fe5f563e9fa6d0da90e783710a32df4",
}
LARGEST_BYTES = 16 * 1024 * 1024
"""Nothing larger is unpacked or fetched: the largest file has 2.5 MB."""

COLUMNS = 301
GRADES = 5

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class DataError(Exception):
    """The data are missing, damaged, or not the files that this example is about."""


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """Documents, query after query.

    Attributes:
        features: (documents, 301).
        grades: (documents,) 0 to 4.
        sizes: (queries,) documents of each.
    """

    features: Floats
    grades: Ints
    sizes: Ints

    def __len__(self) -> int:
        return len(self.sizes)

    def part(self, numbers: Ints) -> Queries:
        """Some of the queries, by number, in that order."""
        starts = np.cumsum(self.sizes) - self.sizes
        rows = np.concatenate([np.arange(starts[q], starts[q] + self.sizes[q]) for q in numbers])
        return Queries(self.features[rows], self.grades[rows], self.sizes[numbers])


def load(folder: Path, *names: str, sha256: dict[str, str] | None = None) -> Queries:
    """Read files of documents, one after the other.

    Args:
        folder: holds the files, plain or as ``.xz``.
        names: ``rank.train``, ``rank.test``; both if left out.
        sha256: what the files must have, by name; those of LightGBM's example if left out.

    Raises:
        DataError: nothing there, damaged, or another file.
    """
    expected = SHA256 if sha256 is None else sha256
    features, grades, sizes = [], [], []
    for name in names or ("rank.train", "rank.test"):
        x, y = _documents(_checked(folder, name, expected), name)
        per_query = _checked(folder, f"{name}.query", expected).split()
        n = np.array([int(size) for size in per_query], dtype=np.int64)
        if n.sum() != len(y):
            raise DataError(f"{name}: {len(y)} documents, and {name}.query counts {n.sum()}")
        features.append(x)
        grades.append(y)
        sizes.append(n)
    return Queries(np.concatenate(features), np.concatenate(grades), np.concatenate(sizes))


def _documents(body: bytes, name: str) -> tuple[Floats, Ints]:
    """Lines of ``grade column:value column:value ...``; what is not named is zero."""
    lines = body.decode().splitlines()
    features, grades = np.zeros((len(lines), COLUMNS)), np.zeros(len(lines), dtype=np.int64)
    for row, line in enumerate(lines):
        try:
            grade, *values = line.split()
            grades[row] = int(grade)
            for value in values:
                column, _, number = value.partition(":")
                features[row, int(column)] = float(number)
        except (ValueError, IndexError) as error:
            raise DataError(f"{name}, line {row + 1}: {error}") from error
        if not 0 <= grades[row] < GRADES:
            raise DataError(f"{name}, line {row + 1}: a grade is 0 to {GRADES - 1}, got {grade}")
    return features, grades


def _checked(folder: Path, name: str, sha256: dict[str, str]) -> bytes:
    plain, packed = folder / name, folder / f"{name}.xz"
    if not plain.is_file() and not packed.is_file():
        raise DataError(f"{plain}: no such file; `python -m ranking_app.data --download FOLDER` gets it")
    try:
        if plain.is_file():
            body = plain.read_bytes()
        else:
            with lzma.open(packed) as unpacked:
                body = unpacked.read(LARGEST_BYTES + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(f"{packed}: damaged: {error}") from error
    _check(body, name, sha256[name], str(folder))
    return body


def _check(body: bytes, name: str, expected: str, where: str) -> None:
    found = hashlib.sha256(body).hexdigest()
    if found != expected:
        raise DataError(f"{where}: the sha256 of {name} is {found}, expected {expected}")


def download(
    folder: Path, *, home: str = HOME, sha256: dict[str, str] | None = None, timeout_s: float = 60.0
) -> Path:
    """Fetch the files from their home, check them, and keep them in ``folder``.

    Raises:
        DataError: unreachable, refused, or another file; ``folder`` is then as it was.
    """
    bodies = {}
    for name, expected in (SHA256 if sha256 is None else sha256).items():
        try:
            with requests.get(f"{home}/{name}", timeout=timeout_s, stream=True) as answer:
                answer.raise_for_status()
                bodies[name] = answer.raw.read(LARGEST_BYTES + 1, decode_content=True)
        except requests.RequestException as error:
            raise DataError(f"{home}/{name}: {error}") from error
        _check(bodies[name], name, expected, home)
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in bodies.items():
        part = folder / f"{name}.part"
        part.write_bytes(body)
        part.replace(folder / name)
    return folder


def main() -> None:
    """Command line: download."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--download", type=Path, metavar="FOLDER", required=True, help="where to keep the files"
    )
    try:
        print(download(parser.parse_args().download))
    except DataError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
