"""A production module in a process of its own: it perturbs its model for every unit, in virtual time.

    python perturbing_module.py FOLDER

Every two hours of virtual time some units come by. What each of them is worth is a function of the unit and
of the numbers that it was served, so two runs with the same candidates log the same.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from blackopt.serving import Sampler, SqliteLog

HOUR_US = 3_600_000_000
TICK_US, UNITS = 2 * HOUR_US, 60


class Numbers:
    """The model: nothing but its tensors."""

    def __init__(self, tensors: Any) -> None:
        self.tensors = tensors

    def act(self, best: dict[str, Any]) -> float:
        """How far it is from the best one, as a loss per number."""
        return float(np.mean([np.mean((self.tensors[name] - best[name]) ** 2) for name in best]))


class App:
    """The module and its clock."""

    def __init__(self, folder: Path) -> None:
        incumbent = dict(np.load(folder / "incumbent.npz"))
        self.best = dict(np.load(folder / "best.npz"))
        self.log = SqliteLog(folder / "log.db")
        self.sampler = Sampler.load(
            folder / "arms", campaign="feed", store=folder / "centres", model=Numbers,
            incumbent=incumbent, log=self.log, every_s=None,
        )  # fmt: skip
        self.now_us = 1_767_571_200_000_000
        self.lock = threading.Lock()

    def move(self, until_us: int) -> int:
        """Serve everybody who comes until then."""
        with self.lock:
            while self.now_us < until_us:
                tick = self.now_us // TICK_US
                if self.now_us % TICK_US == 0:
                    self.sampler.refresh()
                    for number in range(UNITS):
                        self.serve(f"{tick}-{number}")
                self.now_us = min(until_us, (tick + 1) * TICK_US)
            self.log.flush(60.0)
            return self.now_us

    def serve(self, unit: str) -> None:
        """One unit: its candidate, and what came of it."""
        own = int.from_bytes(hashlib.sha256(unit.encode()).digest()[:4], "big") / 2**32 - 0.5
        with self.sampler.perturb(unit) as p:
            worth = 0.05 * own - p.act(self.best)
            p.log(value=round(worth * 2**20) / 2**20)  # sums of these have no order


def main() -> None:
    """Serve until it is terminated; the first line of output is the port."""
    app = App(Path(sys.argv[1]))

    class Handler(BaseHTTPRequestHandler):
        """GET and POST of /clock."""

        def do_GET(self) -> None:
            with app.lock:
                self.answer(app.now_us)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(app.move(body["until_us"]))

        def answer(self, now_us: int) -> None:
            body = json.dumps({"now_us": now_us}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
