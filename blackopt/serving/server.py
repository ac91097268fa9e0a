"""A small HTTP server for modules that have none; the others call ``handle`` from a route of their own."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from blackopt.errors import UsageError
from blackopt.serving.answers import Answer
from blackopt.serving.orders import MAX_BODY
from blackopt.types import Outcome

SOCKET_TIMEOUT_S = 10.0
"""A connection that says nothing for this long is closed."""

_log = logging.getLogger("blackopt.serving")


class Module(Protocol):
    """What the server needs of :class:`blackopt.serving.Arms`."""

    @property
    def signed(self) -> bool:
        """Whether orders have to be signed."""
        ...

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Answer one request."""
        ...


def make_server(module: Module, host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """A bound server (port 0: any free one); the caller runs ``serve_forever`` and closes it.

    Raises:
        UsageError: orders are unsigned and the address is not this machine's own.
        OSError: the address cannot be bound.
    """
    if not module.signed and not _loopback(host):
        raise UsageError(f"host: others can reach {host!r}, and orders are unsigned; pass secrets to Arms")

    class Handler(_Handler):
        """Bound to the module."""

        arms = module

    return ThreadingHTTPServer((host, port), Handler)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Handler(BaseHTTPRequestHandler):
    """One connection; HTTP/1.0 on purpose: a request, an answer, the end."""

    arms: Module
    timeout = SOCKET_TIMEOUT_S
    server_version = "blackopt"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._reject(411, "malformed: Content-Length is required")
        elif len(length) > 9 or int(length) > MAX_BODY:
            self._reject(413, f"malformed: body of {length[:20]} bytes, at most {MAX_BODY}")
        else:
            body = self.rfile.read(int(length))
            if len(body) < int(length):
                self.close_connection = True  # the sender hung up in the middle of its order
            else:
                self._answer(body)

    def _answer(self, body: bytes) -> None:
        self._send(*self.arms.handle(self.command, self.path, dict(self.headers.items()), body))

    def _reject(self, status: int, detail: str) -> None:
        self._send(status, Answer.of(status, Outcome.REFUSED, detail).body)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
        _log.debug("%s %s", self.address_string(), format % args)
