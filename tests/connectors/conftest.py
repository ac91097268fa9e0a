"""Real servers on 127.0.0.1: one whose answers a test scripts byte by byte, and the production module."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from blackopt.serving import Arms, Refused
from blackopt.serving.server import make_server
from blackopt.types import Artifact


@dataclass
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Reply = Callable[[socket.socket, Received], None]


@dataclass
class ScriptedServer:
    """Answers connection number i with script[i], and records what it was sent."""

    script: deque[Reply] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)
    context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}/blackopt"

    def then(self, *replies: Reply) -> None:
        self.script.extend(replies)

    def stop(self) -> None:
        self.stopping.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(10.0)
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            with connection:
                request = _receive(connection)
                self.received.append(request)
                self.script.popleft()(connection, request)

    # -- replies

    def answer(self, status: int, body: object = b"", **headers: str) -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(raw)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        data = "\r\n".join([*lines, "", ""]).encode() + raw
        return lambda connection, _: connection.sendall(data)

    def raw(self, data: bytes) -> Reply:
        return lambda connection, _: connection.sendall(data)

    def drop(self) -> Reply:
        return lambda connection, _: None

    def endless(self, start: bytes, chunk: bytes, pause_s: float = 0.0) -> Reply:
        """``start``, then ``chunk`` again and again until the other side has gone."""

        def reply(connection: socket.socket, _: Received) -> None:
            connection.sendall(start)
            while not self.stopping.wait(pause_s):
                connection.sendall(chunk)

        return reply

    def silence(self) -> Reply:
        """Nothing, until the other side has gone."""

        def reply(connection: socket.socket, _: Received) -> None:
            connection.recv(1)

        return reply


def _receive(connection: socket.socket) -> Received:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            raise OSError("the client went away")
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    method, path, _ = first.split(" ")
    return Received(method, path, headers, body)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    running = ScriptedServer()
    yield running
    running.stop()


@dataclass
class Certificates:
    good: ssl.SSLContext
    expired: ssl.SSLContext
    good_pem: Path
    expired_pem: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl program makes the certificates of these tests")
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    new = [openssl, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    new += ["-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=localhost"]
    subprocess.run(new, cwd=folder, check=True, capture_output=True)
    contexts = []
    for name, days in (("good.pem", "2"), ("expired.pem", "-1")):
        sign = [openssl, "x509", "-req", "-in", "request.pem", "-signkey", "key.pem", "-days", days]
        sign += ["-extfile", "names", "-out", name]
        subprocess.run(sign, cwd=folder, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / name, folder / "key.pem")
        contexts.append(context)
    return Certificates(contexts[0], contexts[1], folder / "good.pem", folder / "expired.pem")


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[Callable[[ssl.SSLContext], ScriptedServer]]:
    running: list[ScriptedServer] = []

    def start(context: ssl.SSLContext) -> ScriptedServer:
        running.append(ScriptedServer(context=context))
        return running[-1]

    yield start
    for one in running:
        one.stop()


SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgbG9uZw=="


UNACCEPTABLE = Artifact(b'{"price":9}')


class ProductionModule:
    """The module that the project ships, over real HTTP, with signatures and a memory."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.start()

    def start(self) -> None:
        self.arms: Arms[Artifact] = Arms(
            accept=self.accept, incumbent=Artifact(b"{}"), secrets=[SECRET], state=self.state
        )
        self.http = make_server(self.arms)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/blackopt"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()
        self.arms.close()

    @staticmethod
    def accept(artifact: Artifact) -> None:
        if artifact == UNACCEPTABLE:
            raise Refused("the price is outside its bounds")


@pytest.fixture
def module(tmp_path: Path) -> Iterator[ProductionModule]:
    running = ProductionModule(tmp_path / "module.json")
    yield running
    running.stop()


@pytest.fixture
def unacceptable_artifact() -> Artifact:
    """What the module refuses."""
    return UNACCEPTABLE


@pytest.fixture
def module_secret() -> str:
    return SECRET
