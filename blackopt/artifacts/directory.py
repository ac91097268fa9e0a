"""A directory of a local disk as the place of a store.

A file appears under its name when it is whole and on the disk (written beside, fsync, rename, fsync of the
folders above), so a process may be killed anywhere. The lock is the kernel's and goes with the process that
held it. Network file systems promise less of both.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Directory:
    """A place whose paths are files, shared by any number of processes of one machine.

    Args:
        folder: made if it is not there; ``partial`` in it has the files that are being written, ``lock`` is
            held shared by who adds and alone by who collects.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._root = Path(folder)
        self._partial, self._lock = self._root / "partial", self._root / "lock"
        self._partial.mkdir(parents=True, exist_ok=True)
        self._lock.touch()
        _sync(self._root)

    def where(self, path: str) -> str:
        """The file, for messages."""
        return str(self._root / path)

    def read(self, path: str) -> bytes:
        """The bytes there.

        Raises:
            FileNotFoundError: nothing is.
        """
        return (self._root / path).read_bytes()

    def size(self, path: str) -> int | None:
        """How many bytes are there; None where nothing is."""
        file = self._root / path
        return file.stat().st_size if file.is_file() else None

    def list(self, folder: str) -> dict[str, int]:
        """The paths below a folder in order, with their sizes; none where it is not there."""
        found = _files(self._root / folder)
        return dict(sorted((file.relative_to(self._root).as_posix(), size) for file, size in found))

    def write(self, path: str, body: bytes) -> None:
        """Replace what is there; afterwards it is on the disk.

        Raises:
            OSError: the disk refused; what was there is there.
        """
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=self._partial)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - Path.open takes no descriptor
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).replace(target)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
        self._sync_above(target)

    def keep(self, path: str, body: bytes) -> None:
        """Write what is always these bytes; nothing is written where they are there."""
        target = self._root / path
        if self.size(path) == len(body) and target.read_bytes() == body:
            self._sync_above(target)  # whoever wrote it may not have come as far as this
        else:
            self.write(path, body)

    def delete(self, path: str) -> None:
        """Nothing is there, and that is on the disk."""
        target = self._root / path
        target.unlink(missing_ok=True)
        if target.parent.is_dir():
            _sync(target.parent)

    def tidy(self) -> None:
        """Remove what killed processes left, and folders that are empty; for who is alone."""
        for file in self._partial.iterdir():
            file.unlink()
        for folder in self._root.glob("*/*/"):
            if not any(folder.iterdir()):
                folder.rmdir()

    @contextmanager
    def locked(self, *, alone: bool) -> Iterator[None]:
        """Wait until nobody is alone here, or until nobody else is here at all."""
        with self._lock.open("rb") as file:
            # Given back when the file is closed, or the process is gone.
            fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield

    def _sync_above(self, target: Path) -> None:
        folder = target
        while folder != self._root:
            folder = folder.parent
            _sync(folder)


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """The files below a folder, with their sizes; what goes in the meantime is left out."""
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir():
            yield from _files(Path(entry.path))
            continue
        try:
            yield Path(entry.path), entry.stat().st_size
        except FileNotFoundError:
            continue


def _sync(folder: Path) -> None:
    """What was made, renamed or removed in it is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
