"""The arms that a module serves, read from the directory that ``use: file`` writes.

    from blackopt.serving import ArmFiles, within

    check = within({"price": (1.0, 3.0)})
    arms = ArmFiles("arms", "email-offer", accept=check, incumbent=artifact, load=parse)
    given = arms.assign("email-offer", customer_id)  # serve given.value; log given.arm and given.window

``<directory>/<campaign>/<arm>.json`` is the body of a push, live until its modification time plus ``ttl_s``;
``<directory>/<campaign>/incumbent`` that of the last adoption. A thread looks once a second, so a request
never touches the disk. Who may write the directory decides what is served: give it to the driver alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from blackopt.errors import UsageError
from blackopt.serving.answers import Refused, Rejected
from blackopt.serving.arms import WEEK_S, uptime
from blackopt.serving.checking import checked
from blackopt.serving.kill import KillFile
from blackopt.serving.live import Assignment, Incumbent, LiveArm, View
from blackopt.serving.orders import NAME, malformed, parse_adopt, parse_push
from blackopt.serving.placing import check_placement
from blackopt.serving.state import Adopted, Memory
from blackopt.types import Artifact, Push

T = TypeVar("T")

_INCUMBENT, _SUFFIX = "incumbent", ".json"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_log = logging.getLogger("blackopt.serving")

Stamp = tuple[int, int, int]
"""Modification time in ns, size and inode: a file that is replaced has another."""


@dataclass(frozen=True, slots=True)
class _File(Generic[T]):
    """What was made of one file when it was last read."""

    stamp: Stamp
    digest: bytes
    arm: LiveArm[T] | None  # None: it is not served


class ArmFiles(Generic[T]):
    """A campaign's directory as a module sees it; units are assigned as by :class:`blackopt.serving.Arms`.

    Make one in each process that serves, after the fork: its thread does not survive one.

    Args:
        directory: what the campaign's ``use: file`` calls ``directory``.
        campaign: name; other campaigns' arms are not looked at.
        accept, incumbent, load: as of :class:`blackopt.serving.Arms`.
        max_share: part of all units, in (0, 1], that the arms may have together, without the control.
        max_ttl_s: the longest lease, in seconds, that an order may ask for.
        kill_file: while it exists, everything is ``incumbent``; looked up at most once a second.
        every_s: seconds between looks; None: only :meth:`refresh` looks.
        clocks: seconds that never go back, for leases; and those since 1970, for modification times.

    Raises:
        UsageError: an argument is impossible.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        campaign: str,
        *,
        accept: Callable[[Artifact], object],
        incumbent: Artifact,
        load: Callable[[Artifact], T],
        max_share: float = 1.0,
        max_ttl_s: float = WEEK_S,
        kill_file: Path | None = None,
        every_s: float | None = 1.0,
        clocks: tuple[Callable[[], float], Callable[[], float]] = (uptime, time.time),
    ) -> None:
        if not NAME.fullmatch(campaign):
            raise UsageError(
                f"campaign: expected letters, digits, dots, dashes, underscores; got {campaign!r}"
            )
        if not 0 < max_share <= 1:
            raise UsageError(f"max_share: expected a part of all units in (0, 1], got {max_share!r}")
        if every_s is not None and not every_s > 0:
            raise UsageError(f"every_s: expected seconds > 0, got {every_s!r}")
        self.campaign = campaign
        self._path = Path(directory) / campaign
        self._accept, self._load = accept, load
        self._max_share, self._max_ttl_s = max_share, max_ttl_s
        self._clock, self._wall = clocks
        self._killed = KillFile(kill_file).present
        self._lock = threading.Lock()
        self._files: dict[str, _File[T]] = {}
        self._refused: dict[str, str] = {}
        self._adopted_stamp: Stamp | None = None
        self._window = 0
        configured: Assignment[T] = Assignment(None, 0, incumbent, load(incumbent))
        self._view: View[T] = View.of(configured, {}, {})
        self._closed = threading.Event()
        self.refresh()
        if every_s is not None:
            arguments = (weakref.WeakMethod(self.refresh), self._closed, every_s)
            threading.Thread(target=_look, args=arguments, name="blackopt-arms", daemon=True).start()

    def assign(self, campaign: str, unit: str) -> Assignment[T]:
        """What to serve to one unit; see :meth:`blackopt.serving.Arms.assign`.

        Raises:
            UsageError: the unit is not a string.
        """
        if not isinstance(unit, str):
            raise UsageError(f"unit: expected a string, got {type(unit).__name__}")
        now, view = self._clock(), self._view
        return view.configured if self._killed(now) else view.assign(campaign, unit, now)

    @property
    def refused(self) -> Mapping[str, str]:
        """Files that are there and not served, each with the reason; a lease that ended is none."""
        return MappingProxyType(self._refused)

    def refresh(self) -> None:
        """Look now. What cannot be looked at leaves everything as it is, until the leases end."""
        with self._lock:
            try:
                found = self._scan()
            except FileNotFoundError:
                found = {}  # no order has come yet, or the campaign was cleared away
            except OSError as error:
                _log.warning("%s cannot be read (%s): serving on until the leases end", self._path, error)
                return
            changed = self._drop(found)
            for name, stamp in sorted(found.items()):
                if name == _INCUMBENT:
                    if stamp != self._adopted_stamp:
                        self._adopt(stamp)
                elif name not in self._files or self._files[name].stamp != stamp:
                    self._files[name] = self._read(name, stamp)
                    changed = True
            if changed:
                self._show()

    def close(self) -> None:
        """Look no more. The arms are served on until their leases end."""
        self._closed.set()

    def _scan(self) -> dict[str, Stamp]:
        found: dict[str, Stamp] = {}
        with os.scandir(self._path) as entries:
            for entry in entries:
                arm = entry.name.removesuffix(_SUFFIX)
                if entry.name != _INCUMBENT and (arm == entry.name or not NAME.fullmatch(arm)):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # withdrawn since it was listed
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[entry.name] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return found

    def _drop(self, found: Mapping[str, Stamp]) -> bool:
        gone = [name for name in self._files if name not in found]
        for name in gone:
            del self._files[name]
            self._refused.pop(name, None)
        return bool(gone)

    def _show(self) -> None:
        """Serve the arms of the last window; those of earlier ones have ended with its first push."""
        live: dict[tuple[str, int], LiveArm[T]] = {}
        placed = [file.arm.order.placement for file in self._files.values() if file.arm is not None]
        self._window = max([self._window, *(each.window for each in placed if each is not None)])
        for name, file in self._files.items():
            if file.arm is None:
                continue
            placement = file.arm.order.placement
            if placement is None or placement.window == self._window:
                live[self.campaign, file.arm.order.trial] = file.arm
            else:
                self._files[name] = replace(file, arm=None)  # what it was made of may be large
        self._view = self._view.with_arms(live)

    def _read(self, name: str, stamp: Stamp) -> _File[T]:
        """One file: what it orders, if the module will serve it."""
        before = self._files.get(name)
        body = self._bytes(name)
        digest = hashlib.sha256(body).digest()
        if before is not None and before.arm is not None and before.digest == digest:
            return _File(stamp, digest, replace(before.arm, expires=self._expires(before.arm.order, stamp)))
        self._refused.pop(name, None)
        try:
            order = parse_push(body, key=name)
            if (order.campaign, f"{order.arm}{_SUFFIX}") != (self.campaign, name):
                raise malformed(f"it is the push of {order.arm} of {order.campaign}")
            return _File(stamp, digest, self._permit(name, order, stamp))
        except (Rejected, Refused) as error:
            self._refused[name] = str(error)
            _log.warning("%s is not served: %s", self._path / name, error)
            return _File(stamp, digest, None)

    def _permit(self, name: str, order: Push, stamp: Stamp) -> LiveArm[T]:
        if order.ttl_s > self._max_ttl_s:
            raise Refused(f"lease: ttl_s is {order.ttl_s!r}; at most {self._max_ttl_s!r} here")
        now = self._clock()
        window = 0
        if order.placement is not None:
            window = order.placement.window
            others = [
                file.arm.order
                for other, file in self._files.items()
                if other != name
                and file.arm is not None
                and now < file.arm.expires
                and file.arm.order.placement is not None
                and file.arm.order.placement.window == window
            ]
            check_placement(order, order.placement, Memory(window=self._window), others, self._max_share)
        wanted = Assignment(order.arm, window, order.artifact, None)
        ready = checked(self.campaign, wanted, self._accept, self._load)
        if isinstance(ready, Refused):
            raise ready
        return LiveArm(order, self._expires(order, stamp), ready)

    def _expires(self, order: Push, stamp: Stamp) -> float:
        # A file from the future was written by another clock: its lease is no longer than what was ordered.
        return self._clock() + min(stamp[0] / 1e9 + order.ttl_s - self._wall(), order.ttl_s)

    def _adopt(self, stamp: Stamp) -> None:
        self._adopted_stamp = stamp
        self._refused.pop(_INCUMBENT, None)
        try:
            order = parse_adopt(self._bytes(_INCUMBENT), key=_INCUMBENT)
            if order.campaign != self.campaign:
                raise malformed(f"it is an adoption of {order.campaign}")
            before = self._view.adopted.get(self.campaign)
            if before is not None and order.number < before.adopted.number:
                raise Refused(
                    f"stale: number {order.number} is over; {before.adopted.number} has been adopted"
                )
            wanted: Assignment[Any] = Assignment(None, 0, order.artifact, None)
            ready = checked(self.campaign, wanted, self._accept, self._load)
            self._view = self._view.with_incumbent(self.campaign, Incumbent(Adopted.of(order), ready))
            if isinstance(ready, Refused):
                raise ready
        except (Rejected, Refused) as error:
            self._refused[_INCUMBENT] = str(error)
            _log.error("%s is not served: %s", self._path / _INCUMBENT, error)

    def _bytes(self, name: str) -> bytes:
        """A plain file's content; what was withdrawn in the meantime is no order."""
        try:
            with open(os.open(self._path / name, _FLAGS), "rb") as file:  # noqa: PTH123 - a descriptor
                return file.read()
        except OSError as error:
            _log.info("%s: %s", self._path / name, error)
            return b""


def _look(refresh: weakref.WeakMethod[Callable[[], None]], closed: threading.Event, every_s: float) -> None:
    """The thread: it does not keep the directory's reader alive, and ends with it."""
    while not closed.wait(every_s):
        look = refresh()
        if look is None:
            return
        look()
        del look
