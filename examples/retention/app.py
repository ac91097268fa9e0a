"""The simulated consumer app as a process: its module, its clock and its health, over HTTP on 127.0.0.1.

    python examples/retention/app.py --directory runs/app --seed 7 [--port 0] [--users 24000]

prints ``{"address": "http://127.0.0.1:PORT", ...}`` when it is ready, and ends on SIGTERM or SIGINT. Orders
must be signed with the secret in the environment variable APP_SECRET, where it is set. Everything is kept in
``DIRECTORY/app.db``; started again on the same directory, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from retention_app.pipeline import INCUMBENT, parse
from retention_app.world import PUSH_PREFIX, World

MAX_BODY = 1 << 20


class Server(ThreadingHTTPServer):
    """Threads answer requests; the world lets one in at a time."""

    daemon_threads = True

    def __init__(self, port: int, world: World) -> None:
        self.world = world
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody who was killed does not read the answer."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError | ConnectionResetError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Routes: /clock, /health, /serves/CAMPAIGN/UNIT, and what blackopt's module answers below /blackopt."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Time, health, what is live, and what somebody would be served now."""
        world = self.server.world
        if self.path == "/clock":
            self._json(200, {"now_us": world.now_us})
        elif self.path == "/health":
            self._json(200, world.health())
        elif (question := self.path.split("/"))[1] == "serves" and len(question) == 4:
            self._json(200, world.serves(*question[2:]))
        elif self.path.startswith(f"{PUSH_PREFIX}/"):
            self._answer(*world.handle("GET", self.path, dict(self.headers.items()), b""))
        else:
            self._json(404, {"error": f"no such path: {self.path}"})

    def do_POST(self) -> None:
        """Orders, and waiting for a time."""
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            error = f"expected a body with its length, at most {MAX_BODY} bytes"
            self._json(413 if length else 411, {"error": error})
            return
        raw = self.rfile.read(int(length))
        if self.path == "/clock":
            self._advance(raw)
        elif self.path.startswith(f"{PUSH_PREFIX}/"):
            self._answer(*self.server.world.handle("POST", self.path, dict(self.headers.items()), raw))
        else:
            self._json(404, {"error": f"no such path: {self.path}"})

    def _advance(self, raw: bytes) -> None:
        try:
            until_us = json.loads(raw)["until_us"]
        except (ValueError, TypeError, KeyError):
            until_us = None
        if not isinstance(until_us, int) or isinstance(until_us, bool):
            self._json(400, {"error": 'expected {"until_us": microseconds since 1970}'})
            return
        self._json(200, {"now_us": self.server.world.advance(until_us)})

    def _json(self, status: int, document: object) -> None:
        self._answer(status, json.dumps(document).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Requests are in the table ``orders``; the terminal stays quiet."""


def main() -> int:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, required=True, help="where app.db is or will be")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=7, help="of users and coins; the landscape has none")
    parser.add_argument("--incumbent", type=Path, help="artifact that production serves; default: INCUMBENT")
    parser.add_argument("--users", type=int, default=20_000, help="new users on an average day")
    arguments = parser.parse_args()
    secret = os.environ.get("APP_SECRET")
    secrets = (secret,) if secret else ()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    try:
        incumbent = parse(arguments.incumbent.read_bytes()) if arguments.incumbent else INCUMBENT
        world = World(
            arguments.directory,
            seed=arguments.seed,
            users=arguments.users,
            secrets=secrets,
            incumbent=incumbent,
        )
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Server(arguments.port, world) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        print(json.dumps({"address": address, "pid": os.getpid(), "database": str(world.path)}), flush=True)
        stop.wait()
        server.shutdown()
    world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
