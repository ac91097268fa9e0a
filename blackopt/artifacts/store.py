"""Artifacts, each under the hash of its bytes, in a directory or at a URL.

    objects/1a/1a0d...      the bytes
    pins/1a0d.../<holder>   an empty file: somebody needs them
    labels/<label>          the hash of what the label stands for

What is pinned or labelled is never collected; a delta pins its base. Pins are written first, then the bytes,
the label last; what goes is deleted before its pin on a base. So whatever is interrupted leaves bytes or pins
too many, which the next collection removes, and never a label or a pin of bytes that were there and are gone.

In a directory locks keep writers apart, however many there are. At a URL there are none: one process at a
time may put, pin, label and collect, which is the driver, who holds the campaign's lock. Any number may read.
A collection looks for pins just before each deletion, which makes a second writer less harmful, not harmless.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blackopt.artifacts.bucket import Bucket
from blackopt.artifacts.directory import Directory
from blackopt.errors import ArtifactError, UsageError

_HASH = re.compile(r"[0-9a-f]{64}")
_HOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # has room for the name of a campaign and a number


class Place(Protocol):
    """What a store needs of where it is kept: :class:`Directory` or :class:`Bucket`, which say how."""

    def where(self, path: str) -> str:
        """A path in full, for messages."""
        ...

    def read(self, path: str) -> bytes:
        """The bytes there, or FileNotFoundError."""
        ...

    def size(self, path: str) -> int | None:
        """How many there are; None where nothing is."""
        ...

    def list(self, folder: str) -> dict[str, int]:
        """The paths below a folder in order, with their sizes."""
        ...

    def write(self, path: str, body: bytes) -> None:
        """Replace what is there, wholly or not at all, and for good when this returns."""
        ...

    def keep(self, path: str, body: bytes) -> None:
        """The same where a path never has other bytes than these: done where they are there."""
        ...

    def delete(self, path: str) -> None:
        """Nothing is there, for good; it may have been so before."""
        ...

    def tidy(self) -> None:
        """Remove what killed processes left half written."""
        ...

    def locked(self, *, alone: bool) -> AbstractContextManager[None]:
        """Keep collections away, or everybody, as far as the place can."""
        ...


def located(store: str, base: Path) -> str:
    """Where the store is that a file in ``base`` names: a URL as it is, all else is a path from there."""
    return store if "://" in store else str(base / store)


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed: how many artifacts, and their bytes."""

    artifacts: int
    bytes: int


class Store:
    """Artifacts that processes share.

    Args:
        where: a directory, made if it is not there, or a URL that fsspec opens, such as
            ``s3://bucket/prefix``, whose methods raise what :mod:`blackopt.artifacts.bucket` raises as well:
            RetriableError where it does not answer, ConfigurationError where it refuses.

    Raises:
        ConfigurationError: a URL that cannot be opened here.
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        if isinstance(where, str):
            where = where.removeprefix("file://")  # which fsspec opens as well, without our locks
        url = isinstance(where, str) and "://" in where
        self._place: Place = Bucket(str(where)) if url else Directory(where)

    def put(
        self, body: bytes, *, holder: str | None = None, label: str | None = None, base: str | None = None
    ) -> str:
        """Keep these bytes for a holder, under a label, or both; they are there for good when this returns.

        Args:
            body: of an artifact.
            holder: who needs it, e.g. ``"t17"``: see :meth:`pin`.
            label: what it is called from now on: see :meth:`label`.
            base: the artifact that these bytes are a delta against: it stays for as long as they do.

        Returns:
            Their sha256, in hex.

        Raises:
            UsageError: neither holder nor label, one of them is no name, or ``base`` no hash.
            ArtifactError: the base is not there.
            OSError: the disk refused; nothing appears under the hash.
        """
        if holder is None and label is None:
            raise UsageError("store: expected a holder or a label: what nobody needs is not kept")
        if holder is not None:
            _check_holder(holder)
        if label is not None:
            _label_path(label)
        name = hashlib.sha256(body).hexdigest()
        with self._place.locked(alone=False):
            # Pins first: whatever is interrupted here leaves a pin without bytes, which collect removes.
            if base is not None:
                self._pin(base, name)
            if holder is not None:
                self._write_pin(name, holder)
            self._place.keep(_path(name), body)
            if label is not None:
                self._write_label(label, name)
        return name

    def get(self, name: str) -> bytes:
        """The bytes of that sha256.

        Raises:
            UsageError: ``name`` is no hash.
            ArtifactError: they are not there, or no longer what they were.
        """
        path = _path(name)
        try:
            body = self._place.read(path)
        except FileNotFoundError as error:
            raise self._missing(name) from error
        found = hashlib.sha256(body).hexdigest()
        if found != name:
            raise ArtifactError(
                "an artifact is no longer what was stored",
                where=self._place.where(path),
                why=f"its {len(body)} bytes have the sha256 {found}: the disk, or somebody, changed them",
                safe="nothing was made of it, and every other artifact is as it was",
                next_step="check the disk; remove it there, and put the artifact again",
            )
        return body

    def __contains__(self, name: str) -> bool:
        return self._place.size(_path(name)) is not None

    def __iter__(self) -> Iterator[str]:
        """The hashes of all artifacts, in order."""
        return iter(sorted(self._sizes()))

    def pin(self, name: str, holder: str) -> None:
        """Keep an artifact until the same holder unpins it. A second pin of one holder changes nothing.

        Args:
            name: its sha256.
            holder: up to 128 letters, digits, dots, dashes and underscores; no sha256, which means a delta.

        Raises:
            UsageError: ``name`` is no hash, or ``holder`` no such name.
            ArtifactError: there is no such artifact.
        """
        _check_holder(holder)
        with self._place.locked(alone=False):
            self._pin(name, holder)

    def unpin(self, name: str, holder: str) -> None:
        """The holder does not need it any more. That it never did is no error: a killed process asks twice.

        Raises:
            UsageError: ``name`` is no hash, or ``holder`` no name.
        """
        _check_holder(holder)
        with self._place.locked(alone=False):
            self._place.delete(_pin_path(name, holder))

    def holders(self, name: str) -> list[str]:
        """Who pins an artifact, in order; a delta against it by its sha256."""
        return [_last(path) for path in self._place.list(_pins_of(name))]

    def label(self, label: str, name: str) -> None:
        """Call an artifact by a name that says what it is for; it stays for as long as it is called so.

        A label stands for one artifact. Given another, it moves: a reader sees the old one or the new one.

        Args:
            label: up to 200 letters, digits, dots, dashes and underscores.
            name: the artifact's sha256.

        Raises:
            UsageError: ``name`` is no hash, or ``label`` no such name.
            ArtifactError: there is no such artifact.
        """
        with self._place.locked(alone=False):
            if name not in self:
                raise self._missing(name)
            self._write_label(label, name)

    def unlabel(self, label: str) -> None:
        """Nothing is called so any more. That nothing ever was is no error.

        Raises:
            UsageError: ``label`` is no such name.
        """
        with self._place.locked(alone=False):
            self._place.delete(_label_path(label))

    def resolve(self, label: str) -> str | None:
        """The sha256 of what is called so; None where nothing is, or where saying it was cut off.

        Raises:
            UsageError: ``label`` is no such name.
        """
        try:
            name = self._place.read(_label_path(label)).decode("ascii", "replace")
        except FileNotFoundError:
            return None
        return name if _HASH.fullmatch(name) else None

    def labels(self) -> dict[str, str]:
        """All labels in order, each with the sha256 of what it stands for."""
        found = ((_last(path), self.resolve(_last(path))) for path in self._place.list("labels"))
        return {label: name for label, name in found if name is not None}

    def collect(self, keep: Iterable[str] = ()) -> Collected:
        """Remove every artifact that nobody pins or labels, and what killed processes left half written.

        A delta that goes unpins its base, which goes with it where that was the last pin.

        Args:
            keep: hashes of artifacts to leave although nobody pins or labels them.

        Raises:
            UsageError: one of ``keep`` is no hash.
        """
        kept = {_last(_path(name)) for name in keep}
        removed = size = 0
        with self._place.locked(alone=True):
            kept |= set(self.labels().values())
            present, more = self._sizes(), True
            while more:
                self._drop_pins_of_the_absent(present)
                more = False
                for name in list(present):
                    if name not in kept and not self.holders(name):
                        self._place.delete(_path(name))
                        removed, size, more = removed + 1, size + present.pop(name), True
            self._place.tidy()
        return Collected(removed, size)

    def _sizes(self) -> dict[str, int]:
        """All artifacts, with their bytes."""
        return {_last(path): size for path, size in self._place.list("objects").items()}

    def _drop_pins_of_the_absent(self, present: Mapping[str, int]) -> None:
        """Pins by deltas that are gone, and pins of artifacts that never came to be."""
        for pin in self._place.list("pins"):
            name, _, holder = pin.removeprefix("pins/").partition("/")
            if name not in present or (_HASH.fullmatch(holder) and holder not in present):
                self._place.delete(pin)

    def _pin(self, name: str, holder: str) -> None:
        if name not in self:
            raise self._missing(name)
        self._write_pin(name, holder)

    def _write_pin(self, name: str, holder: str) -> None:
        self._place.keep(_pin_path(name, holder), b"")

    def _write_label(self, label: str, name: str) -> None:
        self._place.write(_label_path(label), name.encode())

    def _missing(self, name: str) -> ArtifactError:
        return ArtifactError(
            "an artifact is not in the store",
            where=self._place.where(_path(name)),
            why="it was never put there, or nobody pinned or labelled it when the store was collected",
            safe="nothing was changed",
            next_step="put it again; pin or label what is still needed",
        )


def _path(name: str) -> str:
    if not _HASH.fullmatch(name):
        raise UsageError(f"store: expected a sha256 in lower-case hex, got {name!r}")
    return f"objects/{name[:2]}/{name}"


def _pins_of(name: str) -> str:
    return f"pins/{_last(_path(name))}"


def _pin_path(name: str, holder: str) -> str:
    return f"{_pins_of(name)}/{holder}"


def _label_path(label: str) -> str:
    if not _LABEL.fullmatch(label):
        raise UsageError(
            f"store: a label is up to 200 letters, digits, dots, dashes and underscores, got {label!r}"
        )
    return f"labels/{label}"


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _check_holder(holder: str) -> None:
    if not _HOLDER.fullmatch(holder) or _HASH.fullmatch(holder):
        raise UsageError(
            "store: a holder is up to 128 letters, digits, dots, dashes and underscores, and no sha256; "
            f"got {holder!r}"
        )
