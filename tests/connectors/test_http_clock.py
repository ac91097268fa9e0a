"""The clock of another process."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from blackopt.errors import ConfigurationError, RetriableError
from blackopt.protocols import Clock
from blackopt_connectors.http_clock import HttpClock, HttpClockOptions


def test_the_time_is_asked_for(server: Any) -> None:
    server.then(server.answer(200, {"now_us": 1_700_000_000_000_000}))
    clock = HttpClock(HttpClockOptions(url=server.url))
    assert isinstance(clock, Clock)
    assert clock.now_us() == 1_700_000_000_000_000
    assert server.received[0].method == "GET"
    assert server.received[0].path == "/blackopt"


def test_waiting_is_repeated_until_the_time_is_reached(server: Any) -> None:
    for now_us in (10, 10, 60, 100):
        server.then(server.answer(200, {"now_us": now_us}))
    pauses: list[float] = []
    HttpClock(HttpClockOptions(url=server.url), sleep=pauses.append).wait_until(100)
    assert [json.loads(request.body) for request in server.received] == [{"until_us": 100}] * 4
    assert len(pauses) == 1  # only where the time stood still


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"now_us": 1.5}', b'{"now_us": true}', b'{"now_us": "1"}']
)
def test_f36_an_unreadable_time_is_retriable(server: Any, body: bytes) -> None:
    server.then(server.answer(200, body))
    with pytest.raises(RetriableError, match="unreadable"):
        HttpClock(HttpClockOptions(url=server.url)).now_us()


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_bad_status_is_retriable(server: Any, status: int) -> None:
    server.then(server.answer(status, {"now_us": 5}))
    with pytest.raises(RetriableError):
        HttpClock(HttpClockOptions(url=server.url)).wait_until(100)


def test_a_clock_that_is_away_is_retriable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(RetriableError, match="does not answer"):
        HttpClock(HttpClockOptions(url=f"http://127.0.0.1:{port}/")).now_us()


def test_f68_a_clock_is_no_way_to_metadata() -> None:
    with pytest.raises(ConfigurationError, match="blocked"):
        HttpClock(HttpClockOptions(url="http://169.254.169.254/latest/")).now_us()
