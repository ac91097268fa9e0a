"""Artifacts in a directory, each under the hash of its bytes.

    objects/1a/1a0d...      the bytes
    pins/1a0d.../<holder>   an empty file: somebody needs them
    labels/<label>          the hash of what the label stands for
    partial/                files that are being written
    lock                    held shared by who adds, alone by who collects

A file appears under its name when it is whole and on the disk (written beside, fsync, rename, fsync of the
directory), so a process may be killed anywhere. The lock is the kernel's and goes with the process that held
it; the directory belongs on a local disk. What is pinned or labelled is never collected; a delta pins its
base.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blackopt.errors import ArtifactError, UsageError

_HASH = re.compile(r"[0-9a-f]{64}")
_HOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # has room for the name of a campaign and a number


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed: how many artifacts, and their bytes."""

    artifacts: int
    bytes: int


class Store:
    """A directory of artifacts, shared by any number of processes of one machine.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._objects, self._pins, self._labels, self._partial = (
            self._folder / name for name in ("objects", "pins", "labels", "partial")
        )
        for path in (self._objects, self._pins, self._labels, self._partial):
            path.mkdir(parents=True, exist_ok=True)
        (self._folder / "lock").touch()
        _sync(self._folder)

    def put(
        self, body: bytes, *, holder: str | None = None, label: str | None = None, base: str | None = None
    ) -> str:
        """Keep these bytes for a holder, under a label, or both; they are on the disk when this returns.

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
            self._label_path(label)
        name = hashlib.sha256(body).hexdigest()
        with self._locked(fcntl.LOCK_SH):
            # Pins first: whatever is interrupted here leaves a pin without bytes, which collect removes.
            if base is not None:
                self._pin(base, name)
            if holder is not None:
                self._write_pin(name, holder)
            path = self._path(name)
            if not _is_whole(path, body):
                path.parent.mkdir(exist_ok=True)
                self._write(path, body)
            # Also where another process wrote it, which may not have come as far as this.
            _sync(path.parent)
            _sync(self._objects)
            if label is not None:
                self._write_label(label, name)
        return name

    def get(self, name: str) -> bytes:
        """The bytes of that sha256.

        Raises:
            UsageError: ``name`` is no hash.
            ArtifactError: they are not there, or no longer what they were.
        """
        path = self._path(name)
        try:
            body = path.read_bytes()
        except FileNotFoundError as error:
            raise self._missing(name) from error
        found = hashlib.sha256(body).hexdigest()
        if found != name:
            raise ArtifactError(
                "an artifact is no longer what was stored",
                where=str(path),
                why=f"its {len(body)} bytes have the sha256 {found}: the disk, or somebody, changed them",
                safe="nothing was made of it, and every other artifact is as it was",
                next_step="check the disk; putting the artifact again replaces the file",
            )
        return body

    def __contains__(self, name: str) -> bool:
        return self._path(name).is_file()

    def __iter__(self) -> Iterator[str]:
        """The hashes of all artifacts, in order."""
        return iter(sorted(path.name for path in self._objects.glob("*/*")))

    def pin(self, name: str, holder: str) -> None:
        """Keep an artifact until the same holder unpins it. A second pin of one holder changes nothing.

        Args:
            name: its sha256.
            holder: up to 128 letters, digits, dots, dashes and underscores; no sha256, which means a delta.

        Raises:
            UsageError: ``name`` is no hash, or ``holder`` no such name.
            ArtifactError: there is no such artifact.
        """
        with self._locked(fcntl.LOCK_SH):
            _check_holder(holder)
            self._pin(name, holder)

    def unpin(self, name: str, holder: str) -> None:
        """The holder does not need it any more. That it never did is no error: a killed process asks twice.

        Raises:
            UsageError: ``name`` is no hash, or ``holder`` no name.
        """
        _check_holder(holder)
        with self._locked(fcntl.LOCK_SH):
            folder = self._pin_folder(name)
            (folder / holder).unlink(missing_ok=True)
            if folder.is_dir():
                _sync(folder)

    def holders(self, name: str) -> list[str]:
        """Who pins an artifact, in order; a delta against it by its sha256."""
        folder = self._pin_folder(name)
        try:
            return sorted(path.name for path in folder.iterdir())
        except FileNotFoundError:
            return []

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
        with self._locked(fcntl.LOCK_SH):
            if name not in self:
                raise self._missing(name)
            self._write_label(label, name)

    def unlabel(self, label: str) -> None:
        """Nothing is called so any more. That nothing ever was is no error.

        Raises:
            UsageError: ``label`` is no such name.
        """
        with self._locked(fcntl.LOCK_SH):
            self._label_path(label).unlink(missing_ok=True)
            _sync(self._labels)

    def resolve(self, label: str) -> str | None:
        """The sha256 of what is called so; None where nothing is.

        Raises:
            UsageError: ``label`` is no such name.
        """
        try:
            return self._label_path(label).read_text(encoding="ascii")
        except FileNotFoundError:
            return None

    def labels(self) -> dict[str, str]:
        """All labels in order, each with the sha256 of what it stands for."""
        found = ((path.name, self.resolve(path.name)) for path in sorted(self._labels.iterdir()))
        return {label: name for label, name in found if name is not None}

    def collect(self, keep: Iterable[str] = ()) -> Collected:
        """Remove every artifact that nobody pins or labels, and what killed processes left half written.

        A delta that goes unpins its base, which goes with it where that was the last pin.

        Args:
            keep: hashes of artifacts to leave although nobody pins or labels them.

        Raises:
            UsageError: one of ``keep`` is no hash.
        """
        kept = {self._path(name).name for name in keep}
        removed = size = 0
        with self._locked(fcntl.LOCK_EX):
            for path in self._partial.iterdir():
                path.unlink()
            kept |= set(self.labels().values())
            present = {path.name: path for path in self._objects.glob("*/*")}
            while True:
                self._drop_pins_of_the_absent(present)
                unneeded = [name for name in present if name not in kept and not self.holders(name)]
                if not unneeded:
                    return Collected(removed, size)
                for name in unneeded:
                    path = present.pop(name)
                    removed, size = removed + 1, size + path.stat().st_size
                    path.unlink()
                    # On the disk before the pin on its base goes.
                    _sync(path.parent)

    def _drop_pins_of_the_absent(self, present: Iterable[str]) -> None:
        """Pins by deltas that are gone, and pins of artifacts that never came to be."""
        there = set(present)
        for folder in self._pins.iterdir():
            for pin in folder.iterdir():
                if folder.name not in there or (_HASH.fullmatch(pin.name) and pin.name not in there):
                    pin.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()

    def _pin(self, name: str, holder: str) -> None:
        if name not in self:
            raise self._missing(name)
        self._write_pin(name, holder)

    def _write_pin(self, name: str, holder: str) -> None:
        folder = self._pin_folder(name)
        folder.mkdir(exist_ok=True)
        (folder / holder).touch()
        _sync(folder)
        _sync(self._pins)

    def _write_label(self, label: str, name: str) -> None:
        self._write(self._label_path(label), name.encode())
        _sync(self._labels)

    def _write(self, path: Path, body: bytes) -> None:
        descriptor, beside = tempfile.mkstemp(dir=self._partial)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - Path.open takes no descriptor
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).replace(path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise

    def _path(self, name: str) -> Path:
        if not _HASH.fullmatch(name):
            raise UsageError(f"store: expected a sha256 in lower-case hex, got {name!r}")
        return self._objects / name[:2] / name

    def _label_path(self, label: str) -> Path:
        if not _LABEL.fullmatch(label):
            raise UsageError(
                f"store: a label is up to 200 letters, digits, dots, dashes and underscores, got {label!r}"
            )
        return self._labels / label

    def _pin_folder(self, name: str) -> Path:
        return self._pins / self._path(name).name

    def _missing(self, name: str) -> ArtifactError:
        return ArtifactError(
            "an artifact is not in the store",
            where=str(self._path(name)),
            why="it was never put there, or nobody pinned or labelled it when the store was collected",
            safe="nothing was changed",
            next_step="put it again; pin or label what is still needed",
        )

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with (self._folder / "lock").open("rb") as file:
            fcntl.flock(file, how)  # given back when the file is closed, or the process is gone
            yield


def _check_holder(holder: str) -> None:
    if not _HOLDER.fullmatch(holder) or _HASH.fullmatch(holder):
        raise UsageError(
            "store: a holder is up to 128 letters, digits, dots, dashes and underscores, and no sha256; "
            f"got {holder!r}"
        )


def _is_whole(path: Path, body: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(body) and path.read_bytes() == body


def _sync(folder: Path) -> None:
    """What was made, renamed or removed in it is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
