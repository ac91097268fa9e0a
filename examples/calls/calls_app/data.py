"""The UCI bank marketing calls: fetched, checked, encoded and cut into blocks in date order.

41,188 telephone calls of a Portuguese bank, May 2008 to November 2010, each with its outcome: did the
customer subscribe a deposit? Moro, Cortez and Rita (2014), doi:10.1016/j.dss.2014.03.001; UCI data set 222.

    python -m calls_app.data --download FOLDER
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import lzma
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests
from numpy.typing import NDArray

HOME = "https://archive.ics.uci.edu/static/public/222/bank+marketing.zip"
FILE = "bank-additional-full.csv"
SHA256 = "74adfc578bf77a7ff4bb1ba4a9f8709d9e3c6907342959c2c8416847e0afb4d8"
LARGEST_BYTES = 64 * 1024 * 1024
"""Nothing larger is unpacked: the file has 5.8 MB."""

BLOCKS, WARM_UP = 40, 8
CALL_SHARE = 0.2

Floats = NDArray[np.float64]

# The levels are the data dictionary's, so the layout depends on no row. The first of each is the reference.
CATEGORIES = {
    "job": (
        "admin. blue-collar entrepreneur housemaid management retired self-employed services student"
        " technician unemployed unknown"
    ).split(),
    "marital": "divorced married single unknown".split(),
    "education": (
        "basic.4y basic.6y basic.9y high.school illiterate professional.course university.degree unknown"
    ).split(),
    "default": "no unknown yes".split(),
    "housing": "no unknown yes".split(),
    "loan": "no unknown yes".split(),
    "contact": "cellular telephone".split(),
    "day_of_week": "fri mon thu tue wed".split(),
    "poutcome": "failure nonexistent success".split(),
}
# `pdays` is 999 for "never called before"; in units of 999 days it is a flag with a little detail.
NUMBERS = {
    "age": 1.0,
    "campaign": 1.0,
    "pdays": 999.0,
    "previous": 1.0,
    "emp.var.rate": 1.0,
    "cons.price.idx": 1.0,
    "cons.conf.idx": 1.0,
    "euribor3m": 1.0,
    "nr.employed": 1.0,
}
DROPPED = {
    "duration": "known only after the call: it leaks the outcome",
    "month": "most months come after the warm-up, and the economic indicators carry the season",
}
FEATURES = (
    *(f"{column}={level}" for column, levels in CATEGORIES.items() for level in levels[1:]),
    *NUMBERS,
)
"""43 inputs; with the bias a linear policy has 44 parameters."""

CLIP = 4.0
"""Warm-up standard deviations that a policy's input may reach: beyond, one indicator would decide alone."""


class DataError(Exception):
    """The data are missing, damaged, or not the file that this example is about."""


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """The encoded calls, in date order.

    Attributes:
        raw: (41188, 43) dummies and numbers in the units of :data:`NUMBERS`, not standardised.
        inputs: (41188, 43) ``raw`` standardised with the warm-up's mean and standard deviation and clipped to
            :data:`CLIP`; a column that is constant in the warm-up keeps its unit. What the policies see.
        subscribed: (41188,) whether the customer said yes.
        blocks: 40 arrays of row numbers, 1,029 or 1,030 each.
    """

    raw: Floats
    inputs: Floats
    subscribed: NDArray[np.bool_]
    blocks: tuple[NDArray[np.intp], ...]

    @property
    def warm_up(self) -> NDArray[np.intp]:
        """Row numbers of the first 8 blocks, whose outcomes everybody knows at the start."""
        return np.concatenate(self.blocks[:WARM_UP])


def load(path: Path, *, sha256: str | None = SHA256) -> Calls:
    """Read and encode the calls.

    Args:
        path: the csv, the csv.xz, a zip (UCI's zip in a zip as well), or a folder that holds one of them.
        sha256: what the csv must have; None takes any file with the same columns.

    Raises:
        DataError: nothing there, damaged, another file, or a value outside the data dictionary.
    """
    body = read_csv(path)
    found = hashlib.sha256(body).hexdigest()
    if sha256 is not None and found != sha256:
        raise DataError(f"{path}: the sha256 of {FILE} is {found}, expected {sha256}")
    rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig")), delimiter=";"))
    raw = encode(rows)
    blocks = tuple(np.array_split(np.arange(len(rows)), BLOCKS))
    return Calls(
        raw=raw,
        inputs=standardised(raw, np.concatenate(blocks[:WARM_UP])),
        subscribed=np.array([row["y"] == "yes" for row in rows]),
        blocks=blocks,
    )


def encode(rows: list[dict[str, str]]) -> Floats:
    """(rows, 43): one column a level but the first, then the numbers; :data:`DROPPED` is never read.

    Raises:
        DataError: a column is missing, or a value is outside the data dictionary.
    """
    columns: list[Floats] = []
    try:
        for column, levels in CATEGORIES.items():
            place = {level: number for number, level in enumerate(levels)}
            codes = np.array([place[row[column]] for row in rows])
            columns += [(codes == number).astype(float) for number in range(1, len(levels))]
        for column, unit in NUMBERS.items():
            columns.append(np.array([float(row[column]) for row in rows]) / unit)
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{FILE}: column {column}: missing, or not in the data dictionary: {error}"
        ) from error
    return np.stack(columns, axis=1)


def standardised(raw: Floats, rows: NDArray[np.intp]) -> Floats:
    """``raw`` in standard deviations of ``rows`` (constant columns as they are), clipped to :data:`CLIP`."""
    scale = raw[rows].std(axis=0)
    z = (raw - raw[rows].mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    clipped: Floats = np.clip(z, -CLIP, CLIP)
    return clipped


def read_csv(path: Path) -> bytes:
    """The csv's bytes, out of whatever holds it.

    Raises:
        DataError: nothing there, or it cannot be unpacked.
    """
    if path.is_dir():
        holders = [path / FILE, path / f"{FILE}.xz", *sorted(path.glob("*.zip"))]
        path = next((holder for holder in holders if holder.is_file()), path / FILE)
    if not path.is_file():
        raise DataError(f"{path}: no such file; `python -m calls_app.data --download FOLDER` gets it")
    try:
        return unpack(path.read_bytes())
    except (lzma.LZMAError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path}: damaged: {error}") from error


def unpack(body: bytes) -> bytes:
    """The csv inside plain bytes, xz, or zip in zip.

    Raises:
        DataError: a zip without the csv, or contents larger than :data:`LARGEST_BYTES`.
    """
    if body.startswith(b"\xfd7zXZ\x00"):
        with lzma.open(io.BytesIO(body)) as packed:
            return _limited(packed.read(LARGEST_BYTES + 1))
    if not body.startswith(b"PK\x03\x04"):
        return _limited(body)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        names = archive.namelist()
        wanted = [name for name in names if name.rsplit("/", 1)[-1] == FILE]
        wanted += [name for name in names if name.rsplit("/", 1)[-1] == "bank-additional.zip"]
        if not wanted:
            raise DataError(f"the zip holds no {FILE}, only {', '.join(names[:5])}")
        with archive.open(wanted[0]) as inner:
            return unpack(_limited(inner.read(LARGEST_BYTES + 1)))


def _limited(body: bytes) -> bytes:
    if len(body) > LARGEST_BYTES:
        raise DataError(f"unpacks to more than {LARGEST_BYTES} bytes: not {FILE}")
    return body


def download(folder: Path, *, url: str = HOME, sha256: str = SHA256, timeout_s: float = 60.0) -> Path:
    """Fetch the data from their home, check them, and keep the csv in ``folder``.

    Raises:
        DataError: unreachable, refused, damaged, or another file; ``folder`` is then as it was.
    """
    try:
        with requests.get(url, timeout=timeout_s, stream=True) as answer:
            answer.raise_for_status()
            packed = answer.raw.read(LARGEST_BYTES + 1, decode_content=True)
    except requests.RequestException as error:
        raise DataError(f"{url}: {error}") from error
    try:
        body = unpack(_limited(packed))
    except zipfile.BadZipFile as error:
        raise DataError(f"{url}: damaged: {error}") from error
    found = hashlib.sha256(body).hexdigest()
    if found != sha256:
        raise DataError(f"{url}: the sha256 of {FILE} is {found}, expected {sha256}; nothing was kept")
    folder.mkdir(parents=True, exist_ok=True)
    whole, part = folder / FILE, folder / f"{FILE}.part"
    part.write_bytes(body)
    part.replace(whole)
    return whole


def main() -> None:
    """Command line: download, or say what a file holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--download", type=Path, metavar="FOLDER", required=True, help="where to keep the csv"
    )
    arguments = parser.parse_args()
    print(download(arguments.download))


if __name__ == "__main__":
    main()
