"""Process 2 of 3: the shop. Serves visitors, logs who was shown what, and what they bought hours later.

    python sample.py --directory run --seed 7 [--port 0]

prints its address when it is ready. It may be killed at any moment: started again, it goes on.

    GET  /clock                      {"now_us": 1704067200000000}
    POST /clock {"until_us": ...}    live until then; the same answer
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from online_app.shop import Shop

LARGEST_BODY = 1_000


def make_server(shop: Shop, port: int = 0) -> ThreadingHTTPServer:
    """The HTTP server on 127.0.0.1 (port 0: any free one); the caller runs and closes it."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 60.0

        def do_GET(self) -> None:
            self._answer(200 if self.path == "/clock" else 404)

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != "/clock" or not length.isdecimal() or int(length) > LARGEST_BODY:
                self._answer(400)
                return
            try:
                until_us = json.loads(self.rfile.read(int(length)))["until_us"]
            except (ValueError, TypeError, KeyError):
                until_us = None
            if not isinstance(until_us, int) or isinstance(until_us, bool):
                self._answer(400)
                return
            shop.advance(until_us)
            self._answer(200)

        def _answer(self, status: int) -> None:
            body = json.dumps({"now_us": shop.now_us} if status == 200 else {"error": "see --help"}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a run makes hundreds of requests."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, required=True, help="what initialize.py made")
    parser.add_argument("--seed", type=int, default=7, help="of visitors and coins")
    parser.add_argument("--visitors", type=int, default=1_800, help="in an hour")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    arguments = parser.parse_args()
    if not (arguments.directory / "log.db").exists():
        parser.error(f"{arguments.directory} has no log.db: python initialize.py makes it")
    shop = Shop(arguments.directory, seed=arguments.seed, visitors=arguments.visitors)
    with make_server(shop, arguments.port) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
