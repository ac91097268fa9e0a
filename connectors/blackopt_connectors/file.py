"""Pushes artifacts as files into a directory that production modules watch.

``<directory>/<campaign>/<arm>.json`` holds the body of the push (wire protocol v1). A module serves the file
while ``modification time + ttl_s`` is ahead, and the slices say which traffic.
``<directory>/<campaign>/incumbent`` holds the body of the last adoption, and has no lease. A file is whole or
absent, never half there.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from blackopt.errors import ConfigurationError, OutcomeUnknown, RetriableError, UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import Adopt, Artifact, Live, Outcome, Push, Receipt, Withdraw
from blackopt_connectors._wire import PROTOCOL, adopt_body, parse_json, push_body

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FENCE, _LOCK, _WITHDRAWN = ".fence", ".lock", ".withdrawn"  # no name of an arm starts with a dot
_INCUMBENT = "incumbent"  # no file of an arm is without .json
_PARENT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # may be a link: the operator chose it
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MISCONFIGURED = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS}


class FileOptions(PluginOptions):
    """Options of ``use: file``."""

    directory: Path = Field(
        description="existing directory that the modules watch, relative to the campaign file"
    )


class FileTarget:
    """A :class:`blackopt.protocols.Target` that is a directory.

    Args:
        options: see :class:`FileOptions`.
        base: directory of the campaign file.
        now: Unix time in seconds, to compare with modification times.
    """

    Options: ClassVar[type[PluginOptions]] = FileOptions

    def __init__(self, options: PluginOptions, *, base: Path, now: Callable[[], float] = time.time) -> None:
        if not isinstance(options, FileOptions):
            raise UsageError(f"options: expected FileOptions, got {type(options).__name__}")
        self.options, self._path, self._now = options, base / options.directory, now

    def check(self) -> str:
        """Look whether the directory is there and writable."""
        with self._errors(str(self.options.directory)):
            with _opened(self._path, _PARENT):
                pass
            if not os.access(self._path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return f"{self.options.directory}: writable, {len(self.observe())} arms live"

    def push(self, order: Push) -> Receipt:
        """Write the arm's file, or renew its lease.

        Raises:
            RetriableError: the file was not written.
            OutcomeUnknown: it was written, and the disk did not confirm it.
            ConfigurationError: the directory is missing or not writable.
        """
        bad = _bad_name(order.campaign, order.arm)
        if bad:
            return bad
        body, name = push_body(order), f"{order.arm}.json"
        with self._locked(order.campaign) as directory:
            refused = _fence(directory, order.epoch)
            if refused:
                return refused
            if _is_withdrawn(_withdrawn(directory), order.trial):
                return Receipt(Outcome.REFUSED, f"withdrawn: trial {order.trial} is not served again")
            there = _order(_read(directory, name))
            if there is not None and not _same(there, parse_json(body)):
                return Receipt(Outcome.REFUSED, f"conflict: {order.arm} was pushed with something else")
            _write(directory, name, body)
            return Receipt(Outcome.APPLIED if there is None else Outcome.REPEATED)

    def withdraw(self, order: Withdraw) -> Receipt:
        """Remove the arm's file; what is not there is withdrawn already. Errors as of :meth:`push`."""
        bad = _bad_name(order.campaign, order.arm)
        if bad:
            return bad
        with self._locked(order.campaign) as directory:
            refused = _fence(directory, order.epoch)
            if refused:
                return refused
            outcome = Outcome.APPLIED
            try:
                os.unlink(f"{order.arm}.json", dir_fd=directory)
            except FileNotFoundError:
                outcome = Outcome.REPEATED
            withdrawn = _withdrawn(directory)
            if not _is_withdrawn(withdrawn, order.trial):
                _write(directory, _WITHDRAWN, _ranges(withdrawn, order.trial).encode())  # syncs both
            elif outcome is Outcome.APPLIED:
                _sync(directory)
            return Receipt(outcome)

    def adopt(self, order: Adopt) -> Receipt:
        """Replace the campaign's incumbent file; errors as of :meth:`push`.

        Raises:
            RetriableError: also where the present file is no adoption; it is left as it is.
        """
        bad = _bad_name(order.campaign)
        if bad:
            return bad
        body = adopt_body(order)
        with self._locked(order.campaign) as directory:
            refused = _fence(directory, order.epoch)
            if refused:
                return refused
            number, artifact = self._adopted(directory, order.campaign) or (0, None)
            if order.number < number:
                return Receipt(
                    Outcome.REFUSED, f"stale: number {order.number} is over; {number} has been adopted"
                )
            if order.number == number:
                if order.artifact != artifact:
                    return Receipt(
                        Outcome.REFUSED, f"conflict: number {number} was adopted with another artifact"
                    )
                _sync(directory)  # the first time may have ended before the disk confirmed it
                return Receipt(Outcome.REPEATED)
            _write(directory, _INCUMBENT, body)
            return Receipt(Outcome.APPLIED)

    def observe(self) -> list[Live]:
        """Every file whose lease has not ended, by campaign and arm.

        Raises:
            RetriableError: a file cannot be read, or is no push.
            ConfigurationError: the directory is missing or not readable.
        """
        live: list[Live] = []
        with self._errors(str(self.options.directory)):
            for path in sorted(self._path.iterdir()):
                if not _NAME.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
                    continue
                names = sorted(entry.stem for entry in path.iterdir() if entry.suffix == ".json")
                with _opened(path) as directory:
                    found = [self._live(directory, path.name, arm) for arm in names if _NAME.fullmatch(arm)]
                live += [entry for entry in found if entry is not None]
        return live

    def incumbent(self, campaign: str) -> tuple[int, str] | None:
        """Number and sha256 of what the campaign's incumbent file holds; errors as of :meth:`observe`.

        A module that reads it may still refuse what it holds: it says so in its own log.
        """
        if not _NAME.fullmatch(campaign):
            return None
        with self._errors(str(self.options.directory / campaign)), contextlib.ExitStack() as stack:
            parent = stack.enter_context(_opened(self._path, _PARENT))
            try:
                directory = stack.enter_context(_opened(campaign, dir_fd=parent))
            except FileNotFoundError:
                return None
            adopted = self._adopted(directory, campaign)
        return None if adopted is None else (adopted[0], adopted[1].sha256)

    def close(self) -> None:
        """Nothing is kept open between orders."""

    def _adopted(self, directory: int, campaign: str) -> tuple[int, Artifact] | None:
        found = _read(directory, _INCUMBENT)
        if found is None:
            return None
        try:
            order = parse_json(found[0])
            if (order["protocol"], order["kind"], order["campaign"]) != (PROTOCOL, "adopt", campaign):
                raise ValueError("it is of another order, campaign or protocol")
            said, number = order["artifact"], int(order["number"])
            artifact = Artifact(base64.b64decode(said["body"], validate=True), said["media_type"])
            if artifact.sha256 != said["sha256"]:
                raise ValueError("the artifact is not what its sha256 says")
        except (ValueError, TypeError, KeyError) as error:
            raise RetriableError(
                "the incumbent file is no adoption",
                where=str(self.options.directory / campaign / _INCUMBENT),
                why=f"{type(error).__name__}: {error}",
                safe="it was left as it is",
                next_step="remove it if nothing of yours wrote it",
            ) from error
        return number, artifact

    def _live(self, directory: int, campaign: str, arm: str) -> Live | None:
        name = f"{arm}.json"
        found = _read(directory, name)
        if found is None:  # withdrawn since it was listed, or not a plain file
            return None
        body, written_s = found
        try:
            order = parse_json(body)
            if order["protocol"] != PROTOCOL or (order["campaign"], order["arm"]) != (campaign, arm):
                raise ValueError("it is the push of another arm or protocol")
            ttl_s, trial, epoch = float(order["ttl_s"]), int(order["trial"]), int(order["epoch"])
            sha256 = str(order["artifact"]["sha256"])
        except (ValueError, TypeError, KeyError) as error:
            raise RetriableError(
                "a file in the directory is no push",
                where=str(self.options.directory / campaign / name),
                why=f"{type(error).__name__}: {error}",
                safe="it was left as it is",
                next_step="remove it if nothing of yours wrote it",
            ) from error
        # A file from the future was written by another clock: its lease is still no longer than what was
        # ordered.
        left_s = min(written_s + ttl_s - self._now(), ttl_s)
        return Live(campaign, trial, arm, epoch, sha256, left_s) if left_s > 0 else None

    @contextlib.contextmanager
    def _locked(self, campaign: str) -> Iterator[int]:
        """The campaign's directory, held alone: comparing with the fence and writing must not interleave."""
        where = str(self.options.directory / campaign)
        with self._errors(where), _opened(self._path, _PARENT) as parent:
            with contextlib.suppress(FileExistsError):
                os.mkdir(campaign, 0o750, dir_fd=parent)
                _sync(parent)
            with _opened(campaign, dir_fd=parent) as directory, _alone(directory):
                yield directory

    @contextlib.contextmanager
    def _errors(self, where: str) -> Iterator[None]:
        try:
            yield
        except _NotConfirmedError as error:
            raise OutcomeUnknown(
                "the disk did not confirm the order",
                where=where,
                why=str(error),
                safe="repeating it is harmless",
            ) from error
        except OSError as error:
            text = error.strerror or str(error)
            if error.errno in _MISCONFIGURED:
                raise ConfigurationError(
                    "the directory of the file target cannot be used",
                    where=where,
                    why=text,
                    safe="nothing was changed",
                    next_step=f"make it a directory that this user may write: mkdir {self.options.directory}",
                ) from error
            raise RetriableError(
                "the order could not be written", where=where, why=text, safe="nothing was changed"
            ) from error


class _NotConfirmedError(Exception):
    """Renamed or removed, and the directory's fsync failed."""


def _bad_name(campaign: str, arm: str = "t0") -> Receipt | None:
    for what, name in (("campaign", campaign), ("arm", arm)):
        if not _NAME.fullmatch(name):
            return Receipt(
                Outcome.REFUSED,
                f"name: {what} {name[:40]!r} is not letters, digits, dots, dashes and underscores",
            )
    return None


def _fence(directory: int, epoch: int) -> Receipt | None:
    """Refuse an epoch below the highest; else remember it, before anything that it orders is done."""
    found = _read(directory, _FENCE)
    try:
        highest = int(found[0]) if found else 0
    except ValueError as error:
        raise OSError(errno.EIO, f"{_FENCE} holds something else than a number") from error
    if epoch < highest:
        return Receipt(Outcome.REFUSED, f"fenced: epoch {epoch} is over; {highest} has been seen")
    if epoch > highest:
        _write(directory, _FENCE, f"{epoch}\n".encode())
    return None


def _withdrawn(directory: int) -> list[range]:
    """Trials that are never served again: a push that was held up may arrive after its withdrawal.

    Written as ``0-1999``, since most of them are neighbours, in order.
    """
    found = _read(directory, _WITHDRAWN)
    try:
        return [_range(line) for line in found[0].decode().split()] if found else []
    except ValueError as error:
        raise OSError(errno.EIO, f"{_WITHDRAWN} holds something else than numbers") from error


def _is_withdrawn(withdrawn: list[range], trial: int) -> bool:
    return any(trial in part for part in withdrawn)


def _ranges(withdrawn: list[range], trial: int) -> str:
    """The text of these trials and one more."""
    joined: list[range] = []
    for part in sorted([*withdrawn, range(trial, trial + 1)], key=lambda part: part.start):
        if joined and joined[-1].stop == part.start:
            joined[-1] = range(joined[-1].start, part.stop)
        else:
            joined.append(part)
    return "".join(
        f"{part.start}-{part.stop - 1}\n" if len(part) > 1 else f"{part.start}\n" for part in joined
    )


def _range(line: str) -> range:
    first, _, last = line.partition("-")
    return range(int(first), int(last or first) + 1)


def _order(found: tuple[bytes, float] | None) -> Any:
    """The push that a file holds; None where there is no file, or one that no module could have served."""
    try:
        order: Any = parse_json(found[0]) if found else None
        return order if _same(order, order) else None
    except (ValueError, TypeError, KeyError):
        return None


def _same(one: Any, other: Any) -> bool:
    """Whether two pushes are of the same trial, artifact and placement."""
    keys = ("trial", "placement")
    return bool(
        all(one[key] == other[key] for key in keys)
        and one["artifact"]["sha256"] == other["artifact"]["sha256"]
    )


@contextlib.contextmanager
def _alone(directory: int) -> Iterator[None]:
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _opened(path: str | Path, flags: int = _DIRECTORY, dir_fd: int | None = None) -> Iterator[int]:
    directory = os.open(path, flags, dir_fd=dir_fd)
    try:
        yield directory
    finally:
        os.close(directory)


def _read(directory: int, name: str) -> tuple[bytes, float] | None:
    """Body and modification time of a plain file; None where there is none (a link counts as none)."""
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        return (file.read(), status.st_mtime) if stat.S_ISREG(status.st_mode) else None


def _write(directory: int, name: str, body: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the directory: whole or absent, also after a power failure."""
    temporary = f".{uuid.uuid4().hex}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o640, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    _sync(directory)


def _sync(directory: int) -> None:
    try:
        os.fsync(directory)
    except OSError as error:
        raise _NotConfirmedError(error.strerror or str(error)) from error
