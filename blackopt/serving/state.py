"""What a module remembers of orders, for ever: the reason why a repeated or outdated order does no harm.

The memory is durable state, not a cache of keys with a time to live: a campaign lasts for weeks, and an order
may come back at any time. Of arms it says what was ordered, not what is served: after a restart, the
incumbent. Of an adopted incumbent it has the bytes: it is served again after a restart, sender or not.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Self

from blackopt.errors import ConfigurationError
from blackopt.serving import strict_json
from blackopt.types import Adopt, Artifact, Placement, Push, Slice

FORMAT = 2
_READS = (1, FORMAT)  # 1 is from before incumbents were adopted


@dataclass(frozen=True, slots=True)
class Applied:
    """What a trial was pushed with: a repeat has to be equal."""

    sha256: str
    placement: Placement | None

    @classmethod
    def of(cls, order: Push) -> Self:
        """The record of an order."""
        return cls(order.artifact.sha256, order.placement)


@dataclass(frozen=True, slots=True)
class Adopted:
    """The incumbent that a campaign adopted last."""

    number: int
    artifact: Artifact

    @classmethod
    def of(cls, order: Adopt) -> Self:
        """The record of an order."""
        return cls(order.number, order.artifact)


@dataclass(frozen=True, slots=True)
class Memory:
    """One campaign's orders.

    Attributes:
        epoch: the highest seen in any authentic order; lower ones are fenced.
        window: the highest that an arm was applied in; earlier ones are over.
        applied: by trial, until it is withdrawn.
        withdrawn: trials that must never be served again, pushed before or not.
        adopted: the incumbent; None for the module's own.
    """

    epoch: int = 0
    window: int = 0
    applied: Mapping[int, Applied] = field(default_factory=dict)
    withdrawn: frozenset[int] = frozenset()
    adopted: Adopted | None = None

    def at_epoch(self, epoch: int) -> Memory:
        """With the epoch raised; itself if there is nothing to raise."""
        return self if epoch <= self.epoch else replace(self, epoch=epoch)

    def with_applied(self, order: Push) -> Memory:
        """With the push remembered; itself if it already is."""
        if order.trial in self.applied:
            return self
        window = self.window if order.placement is None else max(self.window, order.placement.window)
        return replace(self, window=window, applied={**self.applied, order.trial: Applied.of(order)})

    def with_withdrawn(self, trial: int) -> Memory:
        """With the withdrawal remembered; itself if it already is."""
        if trial in self.withdrawn:
            return self
        rest = {number: record for number, record in self.applied.items() if number != trial}
        return replace(self, applied=rest, withdrawn=self.withdrawn | {trial})

    def with_adopted(self, adopted: Adopted) -> Memory:
        """With the adoption remembered; itself if it already is."""
        return self if adopted == self.adopted else replace(self, adopted=adopted)


class StateFile:
    """The memory on disk: replaced as a whole, durable before the order is answered, used by one process.

    Args:
        path: of the JSON file; its directory must exist. A lock file is kept beside it.

    Raises:
        ConfigurationError: another process uses it, or its directory does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = os.getpid()
        self._lock = self._acquire()

    def load(self) -> dict[str, Memory]:
        """What was saved; empty if nothing was yet.

        Raises:
            ConfigurationError: the file is damaged, or of a later version. The lock is released.
        """
        try:
            return _decode(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.close()
            raise ConfigurationError(
                "the module's memory of orders cannot be read",
                where=str(self._path),
                why=f"{type(error).__name__}: {error}",
                safe="nothing is served but the incumbent, and the file is left as it is",
                next_step="restore the file, or stop the campaign and move it away: its fences and adopted "
                "incumbents are lost",
            ) from error

    def save(self, memories: Mapping[str, Memory]) -> None:
        """Replace the file: write beside it, fsync, rename, fsync the directory.

        Raises:
            OSError: it could not be made durable. The old file, or the new one, is there whole.
        """
        if os.getpid() != self._pid:
            raise OSError(
                f"{self._path} was opened by process {self._pid}; open one after the fork, in one process"
            )
        beside = self._path.with_name(self._path.name + ".tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(beside, flags, 0o600), "wb") as file:  # noqa: PTH123 - flags that Path.open does not take
            file.write(_encode(memories))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Let another process use it."""
        self._lock.close()

    def _acquire(self) -> IO[bytes]:
        where = self._path.with_name(self._path.name + ".lock")
        try:
            lock = where.open("ab")
        except OSError as error:
            raise ConfigurationError(
                "the module's state file cannot be opened",
                where=str(self._path),
                why=str(error),
                safe="nothing was changed",
                next_step="create its directory, writable by the module",
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise ConfigurationError(
                "the module's state file is in use",
                where=str(self._path),
                why="another process holds its lock; two would overwrite each other's fences",
                safe="nothing was changed",
                next_step="receive orders in one process, or give each its own file and address",
            ) from error
        return lock


def _encode(memories: Mapping[str, Memory]) -> bytes:
    campaigns = {
        name: {
            "epoch": memory.epoch,
            "window": memory.window,
            "applied": {
                str(trial): {"sha256": record.sha256, "placement": _placement_out(record.placement)}
                for trial, record in sorted(memory.applied.items())
            },
            "withdrawn": sorted(memory.withdrawn),
            "adopted": _adopted_out(memory.adopted),
        }
        for name, memory in sorted(memories.items())
    }
    return json.dumps({"format": FORMAT, "campaigns": campaigns}).encode() + b"\n"


def _decode(raw: bytes) -> dict[str, Memory]:
    # Shapes are checked by use: whatever does not fit raises, and load() reports it.
    document = strict_json.parse(raw)
    if not isinstance(document, dict):
        raise TypeError(f"expected an object, got {type(document).__name__}")
    version = document["format"]
    if version not in _READS:
        raise ValueError(f"format {version!r}; this version reads {_READS}")
    before = {"adopted": None} if version == 1 else {}
    return {name: _memory_in({**before, **entry}) for name, entry in document["campaigns"].items()}


def _memory_in(entry: Mapping[str, object]) -> Memory:
    epoch, window, applied, withdrawn = (entry[k] for k in ("epoch", "window", "applied", "withdrawn"))
    if not isinstance(applied, dict) or not isinstance(withdrawn, list):
        raise TypeError("applied must be an object and withdrawn a list")
    return Memory(
        epoch=_whole(epoch),
        window=_whole(window),
        applied={
            int(trial): Applied(str(record["sha256"]), _placement_in(record["placement"]))
            for trial, record in applied.items()
        },
        withdrawn=frozenset(_whole(trial) for trial in withdrawn),
        adopted=_adopted_in(entry["adopted"]),
    )


def _adopted_out(adopted: Adopted | None) -> dict[str, object] | None:
    if adopted is None:
        return None
    artifact = adopted.artifact
    return {
        "number": adopted.number,
        "media_type": artifact.media_type,
        "sha256": artifact.sha256,
        "body": base64.b64encode(artifact.body).decode(),
    }


def _adopted_in(value: object) -> Adopted | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise TypeError(f"adopted: expected an object, got {type(value).__name__}")
    artifact = Artifact(base64.b64decode(value["body"], validate=True), str(value["media_type"]))
    if artifact.sha256 != value["sha256"]:
        raise ValueError(f"adopted: the artifact's sha256 is {artifact.sha256}, not {value['sha256']!r}")
    return Adopted(_whole(value["number"]), artifact)


def _placement_out(placement: Placement | None) -> dict[str, object] | None:
    if placement is None:
        return None
    return {
        "window": placement.window,
        "salt": placement.salt,
        "slice": [placement.slice.lower, placement.slice.upper],
        "control": [placement.control.lower, placement.control.upper],
    }


def _placement_in(value: Mapping[str, object] | None) -> Placement | None:
    if value is None:
        return None
    return Placement(
        _whole(value["window"]), str(value["salt"]), _slice_in(value["slice"]), _slice_in(value["control"])
    )


def _slice_in(value: object) -> Slice:
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError(f"expected [lower, upper], got {value!r}")
    return Slice(_whole(value[0]), _whole(value[1]))


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {value!r}")
    return value
