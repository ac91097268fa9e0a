"""The protocol over real sockets, and a real process that is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blackopt.errors import UsageError
from blackopt.serving import Arms, make_server, sign
from blackopt.types import Artifact

SECRET = "whsec_dGhlIHNlY3JldCBvZiB0aGUgc2VydmVyIHRlc3Rz"


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    raw = b"" if body is None else json.dumps(body).encode()
    at = int(time.time())
    headers = {
        "webhook-id": "k",
        "webhook-timestamp": str(at),
        "webhook-signature": sign(SECRET, "k", at, raw),
    }
    if body is not None:
        headers["Content-Type"] = "application/json"
    url = f"http://127.0.0.1:{port}/blackopt{path}"
    request = urllib.request.Request(url, raw if body is not None else None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.headers["Content-Type"] == "application/json"
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def raw_exchange(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def port(bench: Any) -> Iterator[int]:
    arms = bench.start(secrets=[SECRET], wall=time.time)
    with make_server(arms) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_round_trip(bench: Any, bodies: Any, port: int) -> None:
    push_body, withdraw_body = bodies
    assert ask(port, "POST", "/push", push_body()) == (200, {"outcome": "applied", "detail": ""})
    assert ask(port, "POST", "/push", push_body()) == (200, {"outcome": "repeated", "detail": ""})
    status, answer = ask(port, "GET", "/live")
    assert (status, answer["protocol"]) == (200, 1)
    assert answer["live"] == [
        {
            "campaign": "email-offer",
            "trial": 1,
            "arm": "t1",
            "epoch": 1,
            "sha256": Artifact(b'{"price":1.5}').sha256,
            "expires_in_s": 900.0,
        }
    ]
    assert "t1" in bench.served()
    assert ask(port, "POST", "/push", push_body(epoch=0))[0] == 409
    assert ask(port, "POST", "/push", push_body(trial=2, text='{"price":9}'))[0] == 422
    assert ask(port, "POST", "/withdraw", withdraw_body()) == (200, {"outcome": "applied", "detail": ""})
    assert ask(port, "GET", "/live")[1]["live"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/push", 405), ("POST", "/live", 405), ("GET", "/", 404), ("POST", "/x", 404)],
)
def test_other_paths_and_methods(port: int, method: str, path: str, status: int) -> None:
    assert ask(port, method, path, {} if method == "POST" else None)[0] == status


def test_unsigned_requests_are_refused(port: int) -> None:
    assert raw_exchange(port, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.0 401 ")


@pytest.mark.parametrize(
    ("length", "status"),
    [(b"99999999999999999999", 413), (b"16777217", 413), (b"-1", 411), (b"x", 411), (None, 411)],
)
def test_the_size_is_decided_before_the_body_is_read(port: int, length: bytes | None, status: int) -> None:
    header = b"" if length is None else b"Content-Length: " + length + b"\r\n"
    reply = raw_exchange(port, b"POST /push HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")
    assert reply.startswith(b"HTTP/1.0 %d " % status)


def test_a_module_with_a_server_of_its_own_is_protected_too(bench: Any) -> None:
    assert bench.post("/push", b" " * (16 * 1024 * 1024 + 1))[0] == 413
    assert bench.post("/push", b"{}", {"Content-Type": "text/plain"})[0] == 400
    assert bench.post("/push", b"{}", {})[0] == 400
    assert bench.post("/push", b"[" * 100_000)[0] == 400
    assert bench.post("/push", b'{"protocol":1,"protocol":1}')[0] == 400
    assert bench.post("/push", b"\xff")[0] == 400


def test_f03_request_sent_reply_lost(bench: Any, bodies: Any, port: int) -> None:
    raw, at = json.dumps(bodies[0]()).encode(), int(time.time())
    head = (
        f"POST /push HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
        f"webhook-id: k\r\nwebhook-timestamp: {at}\r\nwebhook-signature: {sign(SECRET, 'k', at, raw)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode() + raw)
        connection.recv(1)  # it was applied; the rest of the answer is never read
    assert ask(port, "POST", "/push", bodies[0]())[1]["outcome"] == "repeated"
    assert bench.loaded.count(b'{"price":1.5}') == 1


def test_f03_an_order_cut_off_in_the_middle_is_not_applied(bench: Any, bodies: Any, port: int) -> None:
    raw = json.dumps(bodies[0]()).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw[:-9]
        )
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert ask(port, "GET", "/live")[1]["live"] == []


def test_unsigned_orders_are_taken_on_this_machine_only() -> None:
    unsigned = Arms(accept=lambda _: None, incumbent=Artifact(b"{}"), secrets=[])
    for host in ("0.0.0.0", "10.1.2.3", "module.example", ""):
        with pytest.raises(UsageError, match="secrets"):
            make_server(unsigned, host)
    with make_server(unsigned, "localhost") as server:
        assert server.server_port > 0


MODULE = """
import sys
from pathlib import Path
from blackopt.serving import Arms, make_server, within
from blackopt.types import Artifact
arms = Arms(accept=within({"price": (0.5, 2.0)}), incumbent=Artifact(b'{"price":1.0}'), secrets=[sys.argv[2]],
            state=Path(sys.argv[1]))
server = make_server(arms)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Child:
    """A module in a process of its own."""

    def __init__(self, state: Path) -> None:
        command = [sys.executable, "-c", MODULE, str(state), SECRET]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=10)


def test_f39_a_module_killed_and_started_again_serves_the_incumbent_and_still_fences(
    tmp_path: Path, bodies: Any
) -> None:
    push_body, withdraw_body = bodies
    child = Child(tmp_path / "arms.json")
    try:
        assert ask(child.port, "POST", "/push", push_body(epoch=5))[1]["outcome"] == "applied"
        assert ask(child.port, "POST", "/push", push_body(trial=2, epoch=5))[1]["outcome"] == "applied"
        assert (
            ask(child.port, "POST", "/withdraw", withdraw_body(trial=2, epoch=5))[1]["outcome"] == "applied"
        )
    finally:
        child.kill()
    child = Child(tmp_path / "arms.json")  # the lock died with its holder
    try:
        assert ask(child.port, "GET", "/live")[1]["live"] == []
        assert ask(child.port, "POST", "/push", push_body(epoch=4))[0] == 409
        assert ask(child.port, "POST", "/push", push_body(trial=2, epoch=5))[0] == 422
        assert ask(child.port, "POST", "/push", push_body(epoch=5))[1]["outcome"] == "repeated"
        assert [arm["trial"] for arm in ask(child.port, "GET", "/live")[1]["live"]] == [1]
    finally:
        child.kill()


def test_f39_a_module_killed_and_started_again_serves_what_was_adopted(tmp_path: Path, adoption: Any) -> None:
    child = Child(tmp_path / "arms.json")
    try:
        assert ask(child.port, "POST", "/adopt", adoption(epoch=5))[1]["outcome"] == "applied"
        assert ask(child.port, "POST", "/adopt", adoption(number=2, epoch=5))[1]["outcome"] == "applied"
        before = ask(child.port, "GET", "/live")[1]["incumbents"]
    finally:
        child.kill()
    child = Child(tmp_path / "arms.json")
    try:
        assert ask(child.port, "GET", "/live")[1]["incumbents"] == before
        assert [(entry["number"], entry["served"]) for entry in before] == [(2, True)]
        assert ask(child.port, "POST", "/adopt", adoption(number=3, epoch=4))[0] == 409
        assert ask(child.port, "POST", "/adopt", adoption(number=1, epoch=5))[0] == 422
        assert ask(child.port, "POST", "/adopt", adoption(number=2, epoch=5))[1]["outcome"] == "repeated"
    finally:
        child.kill()


def test_adoptions_are_signed_like_every_order(bench: Any, adoption: Any, port: int) -> None:
    assert ask(port, "GET", "/adopt")[0] == 405
    raw = json.dumps(adoption()).encode()
    status, _ = bench.arms.handle("POST", "/adopt", {"content-type": "application/json"}, raw)
    assert status == 401
    assert bench.price() == 1.0
    assert ask(port, "POST", "/adopt", adoption()) == (200, {"outcome": "applied", "detail": ""})
    assert bench.price() == 1.25
