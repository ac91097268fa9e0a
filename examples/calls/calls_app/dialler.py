"""Production: a dialler that calls the best fifth of every day's list, by whatever policy blackopt lends it.

It replays blocks 9 to 40 of the data, one block a day of *virtual* time, which moves only when told to. At
noon the day's list is split among the live arms; each of them scores its own customers and calls the best
20 %. What a customer decided is known two days later. Because every customer in the data was really called,
each arm's outcome is the one that history recorded, not an estimate.

    python -m calls_app.dialler --data PATH --folder FOLDER --port 8802

HTTP, on 127.0.0.1:

    POST /blackopt/push, /blackopt/withdraw, /blackopt/adopt    orders, signed with DIALLER_SECRET
    GET  /blackopt/live              what is served, signed as well
    GET  /clock                      {"now_us": 1262304000000000}
    POST /clock {"until_us": ...}    move the time there, dialling on the way; the same answer
"""

from __future__ import annotations

import argparse
import json
import os
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from blackopt.serving import Arms, Refused
from blackopt.types import Artifact
from calls_app import baselines, data
from calls_app.data import BLOCKS, FEATURES, WARM_UP, Calls, Floats
from calls_app.log import Call, EventLog, Exposure, Outcome

CAMPAIGN = "calls"
DAY_US = 86_400_000_000
START_US = 1_262_304_000_000_000
"""Midnight, 2010-01-01 UTC: the first virtual day."""

NOON_US = DAY_US // 2
MATURES_US = 2 * DAY_US
DAYS = BLOCKS - WARM_UP

WEIGHT_LIMIT = 10.0
"""No weight beyond this is served, whoever asks: inputs are within 4 standard deviations."""

LARGEST_BODY = 1_000_000


def weights_of(artifact: Artifact) -> Floats:
    """(43,) the weights of a linear policy with one output; its bias changes no order.

    Raises:
        Refused: not such a policy, or a weight that is not finite or beyond :data:`WEIGHT_LIMIT`.
    """
    try:
        policy = json.loads(artifact.body)
        weights = np.array(policy["weights"], dtype=np.float64)
        bias = np.array(policy["bias"], dtype=np.float64)
    except (ValueError, TypeError, KeyError) as error:
        raise Refused(f"not a linear policy: {type(error).__name__}: {error}") from error
    if weights.shape != (1, len(FEATURES)) or bias.shape != (1,):
        raise Refused(
            f"expected weights (1, {len(FEATURES)}) and bias (1,), got {weights.shape} and {bias.shape}"
        )
    if not np.abs(np.append(weights, bias)).max() <= WEIGHT_LIMIT:  # also false for NaN
        raise Refused(f"a weight is not finite, or beyond {WEIGHT_LIMIT:g}")
    row: Floats = weights[0]
    return row


def warm_up_policy(calls: Calls) -> Artifact:
    """The incumbent: the logistic model of the warm-up, as the linear policy's JSON."""
    weights, bias = baselines.logistic(calls.inputs[calls.warm_up], calls.subscribed[calls.warm_up])
    policy = {"weights": [weights.tolist()], "bias": [bias], "parameters": {}}
    return Artifact(json.dumps(policy, separators=(",", ":")).encode())


class Dialler:
    """The calls of 32 virtual days, and the log they leave. Started again, it goes on where its log ends.

    Args:
        calls: the customers and what they decided.
        incumbent: the policy of everybody who is in no candidate's arm.
        log: where the events go.
        secrets: that orders must be signed with.
        state: file in which fences and withdrawals survive a restart.
    """

    def __init__(
        self,
        calls: Calls,
        incumbent: Artifact,
        log: EventLog,
        *,
        secrets: list[str],
        state: Path | None = None,
    ) -> None:
        self._calls, self._log = calls, log
        self._now_us = log.now_us()
        self._lock = threading.Lock()
        self.arms: Arms[Floats] = Arms(
            accept=weights_of,
            load=weights_of,
            incumbent=incumbent,
            secrets=secrets,
            state=state,
            clock=lambda: self._now_us / 1e6,  # leases run in virtual time
        )

    @property
    def now_us(self) -> int:
        """Virtual time."""
        return self._now_us

    def advance(self, until_us: int) -> int:
        """Move the time to ``until_us`` (never back), through every noon on the way; return the time."""
        with self._lock:
            # The next noon after what the log holds: a day whose write failed is dialled again.
            day = (self._log.now_us() - START_US + NOON_US) // DAY_US
            while (noon_us := START_US + day * DAY_US + NOON_US) <= until_us:
                self._now_us = noon_us
                exposures, calls = self._dial(day) if day < DAYS else ([], [])
                self._log.write(noon_us, exposures, calls, self._reports(noon_us))
                day += 1
            if until_us > self._now_us:
                self._log.write(until_us)
                self._now_us = until_us
            return self._now_us

    def _dial(self, day: int) -> tuple[list[Exposure], list[Call]]:
        """Split the day's list among the live arms; each calls the best 20 % of its part."""
        parts: dict[tuple[str | None, int], list[int]] = defaultdict(list)
        weights: dict[tuple[str | None, int], Floats] = {}
        for row in self._calls.blocks[WARM_UP + day].tolist():
            assignment = self.arms.assign(CAMPAIGN, _unit(row))
            parts[assignment.arm, assignment.window].append(row)
            weights[assignment.arm, assignment.window] = assignment.value
        exposures: list[Exposure] = []
        calls: list[Call] = []
        counts = baselines.quotas([len(rows) for rows in parts.values()])
        for ((arm, window), rows), count in zip(parts.items(), counts, strict=True):
            if arm is not None:
                exposures += [(_unit(row), CAMPAIGN, window, arm, self._now_us) for row in rows]
            chosen = baselines.best(self._calls.inputs[rows] @ weights[arm, window], count)
            calls += [(_unit(rows[place]), CAMPAIGN, window, arm, self._now_us) for place in chosen]
        return exposures, calls

    def _reports(self, now_us: int) -> list[Outcome]:
        """The outcomes of the calls of two days ago."""
        called = self._log.called_between(now_us - MATURES_US, now_us - MATURES_US + 1)
        return [(unit, int(self._calls.subscribed[int(unit[1:])]), now_us) for unit in called]


def _unit(row: int) -> str:
    return f"c{row:05d}"


def make_server(dialler: Dialler, port: int = 0) -> ThreadingHTTPServer:
    """The dialler's HTTP server on 127.0.0.1 (port 0: any free one); the caller runs and closes it."""

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
                self._send(*clock(dialler, self.command, body))
            elif self.path.startswith("/blackopt/"):
                self._send(*dialler.arms.handle(self.command, self.path, dict(self.headers.items()), body))
            else:
                self._send(404, b"{}")

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a run makes thousands of requests."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def clock(dialler: Dialler, method: str, body: bytes) -> tuple[int, bytes]:
    """Answer GET or POST /clock."""
    if method == "POST":
        try:
            until_us = json.loads(body)["until_us"]
        except (ValueError, TypeError, KeyError):
            until_us = None
        if not isinstance(until_us, int) or isinstance(until_us, bool):
            return 400, b'{"error": "expected {\\"until_us\\": whole number}"}'
        dialler.advance(until_us)
    return 200, json.dumps({"now_us": dialler.now_us}).encode()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="csv, csv.xz, zip, or a folder with one of them"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="for incumbent.json, events.db and arms.json"
    )
    parser.add_argument("--port", type=int, default=8802, help="0 takes any free port")
    arguments = parser.parse_args()
    secret = os.environ.get("DIALLER_SECRET")
    if not secret:
        parser.error("set DIALLER_SECRET to the secret that orders are signed with")
    calls = data.load(arguments.data)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    incumbent = warm_up_policy(calls)
    (arguments.folder / "incumbent.json").write_bytes(incumbent.body)
    log = EventLog(arguments.folder / "events.db", START_US)
    dialler = Dialler(calls, incumbent, log, secrets=[secret], state=arguments.folder / "arms.json")
    with make_server(dialler, arguments.port) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
