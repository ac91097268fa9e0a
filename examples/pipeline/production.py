"""Production as a process: ten modules, an event log, and HTTP on 127.0.0.1 for orders and for the time.

    python production.py --directory run --scorer scorer.onnx --seed 7 [--port 0]

prints its address when it is ready. Orders must be signed with the secret in FEED_SECRET.

    POST /blackopt/push, /blackopt/withdraw, /blackopt/adopt    orders, for module 4
    GET  /blackopt/live              what is served
    GET  /clock                      {"now_us": 1704067200000000}
    POST /clock {"until_us": ...}    live until then, a day at most; the same answer
"""

from __future__ import annotations

import argparse
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from blackopt.types import Artifact
from feed_app.production import Production

LARGEST_BODY = 1 << 21


def make_server(production: Production, port: int = 0) -> ThreadingHTTPServer:
    """The HTTP server on 127.0.0.1 (port 0: any free one); the caller runs and closes it."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 30.0

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > LARGEST_BODY:
                self._send(411 if not length else 413, b"{}")
            else:
                self._answer(self.rfile.read(int(length)))

        def _answer(self, body: bytes) -> None:
            if self.path == "/clock":
                self._send(*clock(production, self.command, body))
            elif self.path.startswith("/blackopt/"):
                self._send(*production.handle(self.command, self.path, dict(self.headers.items()), body))
            else:
                self._send(404, b"{}")

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a run makes hundreds of requests."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def clock(production: Production, method: str, body: bytes) -> tuple[int, bytes]:
    """Answer GET or POST /clock."""
    if method == "POST":
        try:
            until_us = json.loads(body)["until_us"]
        except (ValueError, TypeError, KeyError):
            until_us = None
        if not isinstance(until_us, int) or isinstance(until_us, bool):
            return 400, b'{"error": "expected {\\"until_us\\": whole number}"}'
        production.advance(until_us)
    return 200, json.dumps({"now_us": production.now_us}).encode()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, required=True, help="for events.db")
    parser.add_argument("--scorer", type=Path, required=True, help="the ONNX model to serve")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--seed", type=int, default=7, help="of people and coins")
    parser.add_argument("--people", type=int, default=10_000, help="who open the feed on a day")
    arguments = parser.parse_args()
    if not (secret := os.environ.get("FEED_SECRET")):
        parser.error("set FEED_SECRET to the secret that orders are signed with")
    arguments.directory.mkdir(parents=True, exist_ok=True)
    if (log := arguments.directory / "events.db").exists():
        parser.error(f"{log} is there already: this simulation starts anew each time; name another directory")
    production = Production(
        arguments.directory,
        Artifact(arguments.scorer.read_bytes()),
        seed=arguments.seed,
        people=arguments.people,
        secrets=(secret,),
    )
    with make_server(production, arguments.port) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
