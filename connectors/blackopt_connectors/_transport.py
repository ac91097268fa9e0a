"""One HTTP request and one answer, under limits that the other side cannot stretch.

The whole exchange has one deadline (a per-read timeout can be kept alive for ever by one byte a second), the
answer has a size limit, redirects are not followed, and neither proxies nor credentials come from the
environment. Errors tell apart what a sender must know: certainly not sent, or maybe arrived.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from blackopt_connectors._network import Network, resolve

ANSWER_LIMIT = 1 << 20
"""Bytes of an answer that are read; more is an error."""

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotSent(Exception):  # says what is known
    """No connection was made: the other side certainly saw nothing."""


class Lost(Exception):  # says what is known
    """The request may have arrived; no complete answer came back."""


def check_url(url: str) -> str:
    """Validate the url of an option.

    Raises:
        ValueError: not an http(s) url with a host. The text never shows the url, which may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("expected a url that starts with https:// or http://")
    if not parts.hostname:
        raise ValueError("the url has no host")
    if parts.fragment:
        raise ValueError("the url has a #fragment, which is never sent")
    if parts.port == 0:
        raise ValueError("port 0 is not a port")
    return url


class Transport:
    """Sends requests below one url.

    Args:
        url: http(s) url; user and password in it are sent as basic authentication and shown nowhere.
        connect_timeout_s: for the connection alone.
        timeout_s: for the whole exchange, from the connection to the last byte of the answer.
        headers: sent with every request; their values are shown nowhere.
        ca_file: certificates to trust instead of the public ones.
        networks: private networks that may be reached.
        secrets: further texts that no message may contain.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_s: float,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        ca_file: Path | None = None,
        networks: Sequence[Network] = (),
        secrets: Sequence[str] = (),
    ) -> None:
        parts = urlsplit(check_url(url))
        self._headers = dict(headers or {})
        host = parts.netloc.rpartition("@")[2]
        userinfo = parts.netloc.rpartition("@")[0]
        if userinfo:
            token = base64.b64encode(unquote(userinfo).encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        self._split = (parts.scheme, host, parts.path.rstrip("/"), parts.query)
        self._connect_timeout_s, self._timeout_s = connect_timeout_s, timeout_s
        self._verify: bool | str = str(ca_file) if ca_file else True
        self._networks = tuple(networks)
        hidden = [
            *secrets,
            *self._headers.values(),
            userinfo,
            unquote(userinfo),
            userinfo.partition(":")[2],
            parts.query,
        ]
        self._hidden = sorted({text for text in hidden if len(text) >= 4}, key=len, reverse=True)

    def shown(self, path: str = "") -> str:
        """The url without user, password and query: for messages."""
        scheme, host, base, _ = self._split
        return urlunsplit((scheme, host, base + path, "", ""))

    def scrub(self, text: str) -> str:
        """Text of the other side, made fit for a message: one printable line, no secret of ours in it."""
        for hidden in self._hidden:
            text = text.replace(hidden, "***")
        line = "".join(character if character.isprintable() else " " for character in text)
        return line if len(line) <= 300 else line[:300] + "…"

    def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send one request and read its answer.

        Raises:
            NotSent: no connection (refused, name unknown, certificate not trusted).
            Lost: sent, and timed out, dropped or answered beyond the limits.
            ConfigurationError: the address is blocked.
        """
        scheme, host, base, query = self._split
        url = urlunsplit((scheme, host, base + path, query, ""))
        fixed = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
        request = requests.Request(
            method, url, headers={**fixed, **self._headers, **headers}, data=body
        ).prepare()
        watch = _Watch(self._timeout_s)
        adapter = _Adapter(watch, self._networks)
        timer = threading.Timer(self._timeout_s, watch.expire)
        timer.daemon = True
        timer.start()
        try:
            return self._exchange(adapter, request, watch)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            cause = f"no answer within {self._timeout_s:g} s" if watch.expired else self.scrub(_cause(error))
        finally:
            timer.cancel()
            adapter.close()
            watch.close()
        # Raised outside of `except`, so that the library's text, which quotes the url, is not chained to it.
        raise (Lost if watch.connected else NotSent)(cause)

    def _exchange(self, adapter: HTTPAdapter, request: requests.PreparedRequest, watch: _Watch) -> Answer:
        timeout = (min(self._connect_timeout_s, self._timeout_s), self._timeout_s)
        # The adapter alone: a Session would add redirects, cookies, proxies and credentials of the
        # environment.
        response = adapter.send(request, stream=True, timeout=timeout, verify=self._verify)
        body = bytearray()
        while chunk := response.raw.read(_CHUNK, decode_content=False):
            body += chunk
            if len(body) > ANSWER_LIMIT:
                raise OSError(f"the answer is longer than {ANSWER_LIMIT} bytes")
        if watch.expired:  # a body without a length ends without an error when the watch closes the socket
            raise OSError("deadline")
        return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, bytes(body))


class _Watch:
    """The deadline of one exchange: shuts its socket down, whatever the other side is doing with it."""

    def __init__(self, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.expired = False
        self.connected = False

    def remaining_s(self) -> float:
        return self._deadline - time.monotonic()

    def hold(self, connection: socket.socket) -> None:
        # A duplicate: TLS takes the descriptor of the original over, and shutting down either ends both.
        with self._lock:
            self._socket = connection.dup()
            if self.expired:
                self._shutdown()

    def expire(self) -> None:
        with self._lock:
            self.expired = True
            self._shutdown()

    def close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _shutdown(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(
                OSError
            ):  # the other side was quicker: it is closed, which is what we want
                self._socket.shutdown(socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """An adapter whose connections go to checked addresses and report to a watch."""

    def __init__(self, watch: _Watch, networks: Sequence[Network]) -> None:
        self._watch, self._networks = watch, networks
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        watch, networks = self._watch, self._networks

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return _connect(self, watch, networks, encrypted=False)

            def connect(self) -> None:
                super().connect()
                watch.connected = True

        class Encrypted(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return _connect(self, watch, networks, encrypted=True)

            def connect(self) -> None:
                # with the handshake: a certificate that is not trusted means that nothing was sent
                super().connect()
                watch.connected = True

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class EncryptedPool(HTTPSConnectionPool):
            ConnectionCls = Encrypted

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}


def _connect(
    connection: HTTPConnection, watch: _Watch, networks: Sequence[Network], *, encrypted: bool
) -> socket.socket:
    """Connect to the first address that answers; name, SNI and Host header stay those of the url."""
    try:
        addresses = resolve(connection.host.strip("[]"), connection.port, networks, encrypted=encrypted)
    except OSError as error:
        raise NewConnectionError(connection, f"the name does not resolve: {error}") from error
    limit_s = (
        float(connection.timeout) if isinstance(connection.timeout, int | float) else watch.remaining_s()
    )
    problem: OSError = OSError("the name has no address")
    for family, address in addresses:
        candidate = socket.socket(family, socket.SOCK_STREAM)
        try:
            candidate.settimeout(max(0.001, min(limit_s, watch.remaining_s())))
            candidate.connect(address)
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            watch.hold(candidate)
        except OSError as error:
            candidate.close()
            problem = error
        else:
            return candidate
    if isinstance(problem, TimeoutError):
        raise ConnectTimeoutError(connection, f"no connection within {limit_s:g} s") from problem
    raise NewConnectionError(connection, f"no connection: {problem}") from problem


def _cause(error: BaseException) -> str:
    """The innermost cause in a few words; the outer texts of the library quote the whole url."""
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        reason = getattr(step, "reason", None)
        inner = next((part for part in (*step.args, reason) if isinstance(part, BaseException)), None)
        step = inner or step.__cause__ or step.__context__
    for step in reversed(chain):
        if isinstance(step, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {step.verify_message}"
        if isinstance(step, ConnectTimeoutError | NewConnectionError):
            return str(step.args[-1]).rpartition("): ")[2] or type(step).__name__
    last = chain[-1]
    text = (last.strerror or str(last)) if isinstance(last, OSError) else str(last)
    return f"{type(last).__name__}: {text}" if text else type(last).__name__
