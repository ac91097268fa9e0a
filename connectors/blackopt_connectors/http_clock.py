"""A clock behind HTTP: simulations and rehearsals share one time between processes.

``GET url`` answers ``{"now_us": 1700000000000000}``. ``POST url`` with ``{"until_us": t}`` moves the time
towards ``t`` (or waits for it) and answers the same; it is repeated until ``t`` is reached.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, IPvAnyNetwork

from blackopt.errors import RetriableError, UsageError
from blackopt.protocols import PluginOptions
from blackopt_connectors._options import Seconds
from blackopt_connectors._transport import Lost, NotSent, Transport, check_url
from blackopt_connectors._wire import parse_json

PAUSE_S = 0.05
"""Between two requests of a wait when the time stood still."""


class HttpClockOptions(PluginOptions):
    """Options of the clock ``http``."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(check_url)] = Field(
        repr=False, description="where the time is asked for"
    )
    timeout: Seconds = Field(15.0, description="for one request; a wait may take many")
    networks: tuple[IPvAnyNetwork, ...] = Field(
        (), description="private networks that may be reached, as CIDR"
    )


class HttpClock:
    """A :class:`blackopt.protocols.Clock` that another process keeps."""

    Options: ClassVar[type[PluginOptions]] = HttpClockOptions

    def __init__(self, options: PluginOptions, *, sleep: Callable[[float], None] = time.sleep) -> None:
        if not isinstance(options, HttpClockOptions):
            raise UsageError(f"options: expected HttpClockOptions, got {type(options).__name__}")
        self._transport = Transport(
            options.url,
            connect_timeout_s=options.timeout,
            timeout_s=options.timeout,
            networks=options.networks,
        )
        self._sleep = sleep

    def now_us(self) -> int:
        """Microseconds UTC.

        Raises:
            RetriableError: the clock cannot be reached, or its answer is unreadable.
        """
        return self._ask("GET", b"")

    def wait_until(self, until_us: int) -> None:
        """Return at or after ``until_us``.

        Raises:
            RetriableError: the clock cannot be reached, or its answer is unreadable.
        """
        body = json.dumps({"until_us": until_us}).encode()
        before_us: int | None = None
        while (now_us := self._ask("POST", body)) < until_us:
            if now_us == before_us:
                self._sleep(PAUSE_S)
            before_us = now_us

    def _ask(self, method: str, body: bytes) -> int:
        where = self._transport.shown()
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            answer = self._transport.send(method, "", body, headers)
        except (NotSent, Lost) as error:
            raise RetriableError(
                "the clock does not answer", where=where, why=str(error), safe="nothing was done"
            ) from None
        try:
            if answer.status != 200:
                raise ValueError(f"HTTP {answer.status}")
            parsed = parse_json(answer.body)
            now_us = parsed.get("now_us") if isinstance(parsed, dict) else None
            if isinstance(now_us, bool) or not isinstance(now_us, int):
                raise ValueError("expected an object with the whole number `now_us`")
        except ValueError as error:
            why = self._transport.scrub(str(error))
            raise RetriableError(
                "the clock's answer is unreadable", where=where, why=why, safe="nothing was done"
            ) from None
        return now_us
