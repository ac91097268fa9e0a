"""The arms that a production module serves: orders come in, assignments come out."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

from blackopt.errors import UsageError
from blackopt.serving import server
from blackopt.serving.answers import UNAVAILABLE, Answer, Refused, Rejected
from blackopt.serving.checking import checked
from blackopt.serving.kill import KillFile
from blackopt.serving.live import Assignment, Incumbent, LiveArm, View
from blackopt.serving.orders import (
    MAX_BODY,
    PROTOCOL,
    malformed,
    parse_adopt,
    parse_push,
    parse_withdraw,
)
from blackopt.serving.placing import check_placement
from blackopt.serving.signature import Verifier
from blackopt.serving.state import Adopted, Applied, Memory, StateFile
from blackopt.types import Adopt, Artifact, Outcome, Push, Withdraw

T = TypeVar("T")

WEEK_S = 7 * 86_400.0
_KILLED = "killed: the module's kill file is present"
_METHODS = {"push": "POST", "withdraw": "POST", "adopt": "POST", "live": "GET"}

_log = logging.getLogger("blackopt.serving")


def uptime() -> float:
    """Seconds that only move forward, and count while the machine is suspended where the system can tell."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Arms(Generic[T]):
    """What a production module embeds: it takes orders over HTTP and says what to serve to each unit.

    Every arm is leased: unless its push is repeated, it ends by itself, and its units get the incumbent: the
    one that their campaign has adopted, or else the module's own. An adopted one stays until the next.
    Orders may come from any thread; :meth:`assign` takes no lock. One process owns a ``state`` file.

    Args:
        accept: the module's own last check, e.g. :func:`within`; raises :class:`Refused` for what it will not
            serve. Anything else that it raises refuses the artifact as well.
        incumbent: what is served to everyone outside an arm, where their campaign has adopted no other.
        secrets: that orders are signed with, the current and, during a rotation, the previous one. Empty:
            unsigned orders are taken from anyone who can reach the module.
        load: makes of an artifact what the module works with, once per order and before it takes effect.
        state: file that keeps what was ordered over restarts; without it, a restart forgets fences and what
            was adopted.
        max_share: part of all units, in (0, 1], that the arms of one campaign may have together, without the
            control.
        max_ttl_s: the longest lease, in seconds, that an order may ask for.
        kill_file: while this file exists, everything is ``incumbent``, also where another was adopted; looked
            up at most once a second.
        clock: seconds, never going back; for leases.
        wall: seconds since 1970, UTC; for the timestamps of signatures, and for nothing else.

    Raises:
        UsageError: an argument is impossible.
        ConfigurationError: the state file is damaged, or used by another process.
    """

    @overload
    def __init__(
        self: Arms[Artifact],
        *,
        accept: Callable[[Artifact], object],
        incumbent: Artifact,
        secrets: Iterable[str],
        load: None = None,
        state: Path | None = None,
        max_share: float = 1.0,
        max_ttl_s: float = WEEK_S,
        kill_file: Path | None = None,
        clock: Callable[[], float] = uptime,
        wall: Callable[[], float] = time.time,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        accept: Callable[[Artifact], object],
        incumbent: Artifact,
        secrets: Iterable[str],
        load: Callable[[Artifact], T],
        state: Path | None = None,
        max_share: float = 1.0,
        max_ttl_s: float = WEEK_S,
        kill_file: Path | None = None,
        clock: Callable[[], float] = uptime,
        wall: Callable[[], float] = time.time,
    ) -> None: ...

    def __init__(
        self,
        *,
        accept: Callable[[Artifact], object],
        incumbent: Artifact,
        secrets: Iterable[str],
        load: Callable[[Artifact], Any] | None = None,
        state: Path | None = None,
        max_share: float = 1.0,
        max_ttl_s: float = WEEK_S,
        kill_file: Path | None = None,
        clock: Callable[[], float] = uptime,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(secrets, str):
            raise UsageError("secrets: expected a list of secrets, got one string")
        if not 0 < max_share <= 1:
            raise UsageError(f"max_share: expected a part of all units in (0, 1], got {max_share!r}")
        if not max_ttl_s > 0:
            raise UsageError(f"max_ttl_s: expected seconds > 0, got {max_ttl_s!r}")
        self._accept: Callable[[Artifact], object] = accept
        self._load = cast("Callable[[Artifact], T]", _itself if load is None else load)
        self._verifier = Verifier(secrets, wall)
        self._max_share, self._max_ttl_s = max_share, max_ttl_s
        self._killed = KillFile(kill_file).present
        self._clock = clock
        configured: Assignment[T] = Assignment(None, 0, incumbent, self._load(incumbent))
        self._lock = threading.Lock()
        self._state = StateFile(state) if state is not None else None
        self._memories: dict[str, Memory] = self._state.load() if self._state is not None else {}
        self._durable = self._memories
        self._view: View[T] = View.of(configured, self._readopted(), {})

    # -- what the module calls for every request

    def assign(self, campaign: str, unit: str) -> Assignment[T]:
        """What to serve to one unit (a user, a session, whatever the campaign randomises), now.

        Log an exposure (campaign, window, arm, unit, time) when the result is served and its arm is not None.
        A unit without an id (an empty one, or one that UTF-8 cannot hold) is in no arm.

        Raises:
            UsageError: the unit is not a string.
        """
        # Checked even where no arm is live: a mistake must not surface on the day of the first push.
        if not isinstance(unit, str):
            raise UsageError(f"unit: expected a string, got {type(unit).__name__}")
        # One read of the view: the arms, the control and the incumbent of one moment.
        now, view = self._clock(), self._view
        return view.configured if self._killed(now) else view.assign(campaign, unit, now)

    def incumbent(self, campaign: str) -> Assignment[T]:
        """What everyone outside the campaign's arms gets, for modules that split no traffic."""
        view = self._view
        return view.configured if self._killed(self._clock()) else view.incumbent(campaign)

    def arm(self, campaign: str, name: str) -> Assignment[T] | None:
        """A live arm by name, for modules that split no traffic; None if it is not live."""
        now = self._clock()
        if self._killed(now):
            return None
        for arm in self._view.arms.values():
            if arm.order.campaign == campaign and arm.order.arm == name and now < arm.expires:
                return arm.assignment
        return None

    # -- what the module's server calls for every order

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Answer one HTTP request of the wire protocol (docs/protocol.md).

        Args:
            method: ``GET`` or ``POST``.
            path: whose last segment is ``push``, ``withdraw``, ``adopt`` or ``live``; the rest is the
                module's own.
            headers: by name, in any case.
            body: raw, as received: the signature covers its bytes.

        Returns:
            A status and a JSON body, to be sent as ``application/json``.
        """
        try:
            answer = self._route(method, path, {name.lower(): value for name, value in headers.items()}, body)
        except Rejected as rejected:
            answer = rejected.answer
            _log.warning("%r %r: %d %s", method, path, answer.status, rejected)
        return answer.status, answer.body

    @property
    def signed(self) -> bool:
        """Whether orders have to be signed."""
        return self._verifier.active

    def serve(self, port: int, host: str = "127.0.0.1") -> None:
        """Answer orders on a port of its own until interrupted; :func:`make_server` is for a thread."""
        with server.make_server(self, host, port) as running:
            running.serve_forever()

    def close(self) -> None:
        """Release the state file for another process. The arms are served on until their leases end."""
        if self._state is not None:
            self._state.close()

    # -- orders

    def _route(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        verb = path.partition("?")[0].rstrip("/").rpartition("/")[2]
        expected = _METHODS.get(verb)
        if expected is None:
            raise Rejected(404, f"malformed: no {verb!r} here; there are {', '.join(_METHODS)}")
        if method.upper() != expected:
            raise Rejected(405, f"malformed: {verb} takes {expected}, got {method}")
        if len(body) > MAX_BODY:
            raise Rejected(413, f"malformed: body of {len(body)} bytes, at most {MAX_BODY}")
        self._verifier.check(headers, body)
        if verb == "live":
            return self._live()
        # A browser cannot send this type to another site unasked, as it can send a form or text.
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise malformed(f"content-type: expected application/json, got {headers.get('content-type')!r}")
        key = headers.get("idempotency-key", "")
        match verb:
            case "push":
                return self._push(parse_push(body, key))
            case "withdraw":
                return self._withdraw(parse_withdraw(body, key))
            case _:
                return self._adopt(parse_adopt(body, key))

    def _push(self, order: Push) -> Answer:
        # Checking and loading may be slow, and must not hold up a withdrawal: they are done outside the lock.
        ready = self._prepare(order)
        with self._lock:
            now = self._clock()
            memory = self._fence(order)
            try:
                assignment = self._permit(order, memory, ready, now)
            except Rejected:
                self._remember(order.campaign, memory)
                raise
            outcome = Outcome.REPEATED if order.trial in memory.applied else Outcome.APPLIED
            self._remember(order.campaign, memory.with_applied(order))
            arms = self._view.beside(order, now)
            arms[order.campaign, order.trial] = LiveArm(order, now + order.ttl_s, assignment)
            self._view = self._view.with_arms(arms)
        return Answer.of(200, outcome)

    def _withdraw(self, order: Withdraw) -> Answer:
        with self._lock:
            memory = self._fence(order)
            outcome = Outcome.APPLIED if order.trial in memory.applied else Outcome.REPEATED
            arms = self._view.unlapsed(self._clock())
            arms.pop((order.campaign, order.trial), None)
            # Stopping is safe, so it comes first: it holds even where it cannot be written down.
            self._view = self._view.with_arms(arms)
            self._memories = self._with(order.campaign, memory.with_withdrawn(order.trial))
            self._save(self._memories)
        return Answer.of(200, outcome)

    def _adopt(self, order: Adopt) -> Answer:
        ready = self._prepare_incumbent(order.campaign, order.artifact)  # outside the lock, as for a push
        with self._lock:
            memory = self._fence(order)
            try:
                incumbent = self._permit_adoption(order, memory, ready)
            except Rejected:
                self._remember(order.campaign, memory)
                raise
            adopted = Adopted.of(order)
            outcome = Outcome.REPEATED if adopted == memory.adopted else Outcome.APPLIED
            self._remember(order.campaign, memory.with_adopted(adopted))
            self._view = self._view.with_incumbent(order.campaign, Incumbent(adopted, incumbent))
        return Answer.of(200, outcome)

    def _live(self) -> Answer:
        now, view = self._clock(), self._view
        listing = view.listing(now, _KILLED if self._killed(now) else "")
        return Answer(200, json.dumps({"protocol": PROTOCOL, **listing}).encode())

    # -- the rules, in the order in which docs/protocol.md gives them

    def _fence(self, order: Push | Withdraw | Adopt) -> Memory:
        """The campaign's memory with the order's epoch; refuses an epoch that is over."""
        memory = self._memories.get(order.campaign, Memory())
        if order.epoch < memory.epoch:
            raise Rejected(409, f"fenced: epoch {order.epoch} is over; {memory.epoch} has been seen")
        return memory.at_epoch(order.epoch)

    def _permit(
        self, order: Push, memory: Memory, ready: Assignment[T] | Refused, now: float
    ) -> Assignment[T]:
        """Refuse a push for every reason but the fence; return what is to be served."""
        if order.trial in memory.withdrawn:
            raise Rejected(422, f"withdrawn: trial {order.trial} was withdrawn, and is not served again")
        before = memory.applied.get(order.trial)
        if before is not None and before != Applied.of(order):
            what = "artifact" if before.sha256 != order.artifact.sha256 else "placement"
            raise Rejected(422, f"conflict: trial {order.trial} was pushed with another {what}")
        if self._killed(now):
            raise Rejected(503, _KILLED, outcome=UNAVAILABLE)
        if order.ttl_s > self._max_ttl_s:
            raise Rejected(422, f"lease: ttl_s is {order.ttl_s!r}; at most {self._max_ttl_s!r} here")
        if isinstance(ready, Refused):
            raise Rejected(422, f"bounds: {ready.reason}")
        if order.placement is not None:
            live = [arm.order for arm in self._view.beside(order, now).values()]
            check_placement(order, order.placement, memory, live, self._max_share)
        return ready

    def _permit_adoption(self, order: Adopt, memory: Memory, ready: Assignment[T] | Refused) -> Assignment[T]:
        """Refuse an adoption for every reason but the fence; return what is to be the incumbent."""
        before = memory.adopted
        if before is not None and order.number < before.number:
            raise Rejected(422, f"stale: number {order.number} is over; {before.number} has been adopted")
        if before is not None and order.number == before.number and order.artifact != before.artifact:
            raise Rejected(422, f"conflict: number {order.number} was adopted with another artifact")
        if self._killed(self._clock()):
            raise Rejected(503, _KILLED, outcome=UNAVAILABLE)
        if isinstance(ready, Refused):
            raise Rejected(422, f"bounds: {ready.reason}")
        return ready

    def _prepare(self, order: Push) -> Assignment[T] | Refused:
        """What the order asks to serve, checked and loaded once; or why not."""
        window = 0 if order.placement is None else order.placement.window
        arm = self._view.arms.get((order.campaign, order.trial))
        if arm is not None and arm.order.artifact == order.artifact:
            return replace(arm.assignment, window=window)
        return self._check(order.campaign, Assignment(order.arm, window, order.artifact, None))

    def _prepare_incumbent(self, campaign: str, artifact: Artifact) -> Assignment[T] | Refused:
        """The incumbent that an artifact makes, checked and loaded once; or why not."""
        before = self._view.adopted.get(campaign)
        if (
            before is not None
            and before.adopted.artifact == artifact
            and not isinstance(before.ready, Refused)
        ):
            return before.ready
        return self._check(campaign, Assignment(None, 0, artifact, None))

    def _check(self, campaign: str, wanted: Assignment[None]) -> Assignment[T] | Refused:
        return checked(campaign, wanted, self._accept, self._load)

    def _readopted(self) -> dict[str, Incumbent[T]]:
        """The adopted incumbents after a restart; one that the module refuses now does not stop the start."""
        incumbents: dict[str, Incumbent[T]] = {}
        for campaign, memory in self._memories.items():
            adopted = memory.adopted
            if adopted is None:
                continue
            ready = self._check(campaign, Assignment(None, 0, adopted.artifact, None))
            incumbents[campaign] = Incumbent(adopted, ready)
            if isinstance(ready, Refused):
                said = "campaign %s: adopted incumbent %d is not served, the configured one is: %s"
                _log.error(said, campaign, adopted.number, ready.reason)
        return incumbents

    # -- memory

    def _remember(self, campaign: str, memory: Memory) -> None:
        """Make the memory durable and then ours; a memory that cannot be written changes nothing."""
        memories = self._with(campaign, memory)
        self._save(memories)
        self._memories = memories

    def _with(self, campaign: str, memory: Memory) -> dict[str, Memory]:
        """All memories with this one; the same object if nothing is new: a renewal writes nothing."""
        if self._memories.get(campaign) is memory:
            return self._memories
        return {**self._memories, campaign: memory}

    def _save(self, memories: dict[str, Memory]) -> None:
        if self._state is None or memories is self._durable:
            return
        try:
            self._state.save(memories)
        except OSError as error:
            raise Rejected(503, f"state: it cannot be written: {error}", outcome=UNAVAILABLE) from error
        self._durable = memories


def _itself(artifact: Artifact) -> Artifact:
    return artifact
