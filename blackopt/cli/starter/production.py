"""A fake production to try a campaign on: visitors come, see an offer, buy or complain. Put yours there.

What a real module in Python does is the same three lines: give orders to ``arms.handle``, ask ``arms.assign``
what to serve, and log (campaign, window, arm, unit, time) whenever the answer names an arm.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

from blackopt.serving import Arms, make_server, within
from blackopt.types import Artifact

HERE = Path(__file__).resolve().parent
CAMPAIGN = "first-campaign"
INCUMBENT = Artifact(json.dumps({"price": 4.2, "size": 2, "colour": "grey"}).encode())
VISITORS_PER_TURN = 300
TURN_S = 0.1

SCHEMA = """
CREATE TABLE IF NOT EXISTS exposure(
  campaign TEXT, window INTEGER, arm TEXT, unit TEXT,
  first_us INTEGER, bought_us INTEGER, complained INTEGER);
CREATE INDEX IF NOT EXISTS exposure_arm ON exposure(campaign, window, arm, first_us);
CREATE TABLE IF NOT EXISTS watermark(written_until_us INTEGER);
INSERT INTO watermark SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM watermark);
"""


def chance_to_buy(offer: dict[str, Any]) -> float:
    """The truth that blackopt does not know: best at price 2.6, size 6, green."""
    taste = {"grey": 0.0, "green": 0.06, "red": 0.02}[offer["colour"]]
    return float(0.30 - 0.03 * (offer["price"] - 2.6) ** 2 - 0.004 * (offer["size"] - 6) ** 2 + taste)


def chance_to_complain(offer: dict[str, Any]) -> float:
    """Large red banners annoy."""
    return float(0.01 + 0.004 * max(0, offer["size"] - 7) + (0.01 if offer["colour"] == "red" else 0.0))


def main() -> None:
    """Serve orders at http://127.0.0.1:8801/blackopt, and visitors for ever."""
    arms = Arms(
        accept=within({"price": (1.0, 5.0), "size": (1, 9), "colour": {"grey", "green", "red"}}),
        incumbent=INCUMBENT,
        secrets=[(HERE / "secret.txt").read_text().strip()],
        load=lambda artifact: json.loads(artifact.body),
        state=HERE / "production.state",
    )
    try:
        server = make_server(arms, port=8801)
    except OSError as error:
        sys.exit(
            f"production: port 8801 cannot be used: {error.strerror}. `blackopt init --port` takes another"
        )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("production: orders at http://127.0.0.1:8801/blackopt, events in events.db; Ctrl-C ends it")
    with sqlite3.connect(HERE / "events.db") as log:
        log.executescript(SCHEMA)
        chance = random.Random(time.time_ns())
        visitor = 0
        while True:
            began = time.monotonic()
            rows = []
            now_us = time.time_ns() // 1000
            for _ in range(VISITORS_PER_TURN):
                visitor += 1
                unit = f"{now_us}-{visitor}"
                given = arms.assign(CAMPAIGN, unit)
                if given.arm is not None:
                    bought = now_us + 500_000 if chance.random() < chance_to_buy(given.value) else None
                    complained = chance.random() < chance_to_complain(given.value)
                    rows.append((CAMPAIGN, given.window, given.arm, unit, now_us, bought, complained))
            log.executemany("INSERT INTO exposure VALUES(?, ?, ?, ?, ?, ?, ?)", rows)
            log.execute("UPDATE watermark SET written_until_us = ?", (now_us,))
            log.commit()
            time.sleep(max(0.0, TURN_S - (time.monotonic() - began)))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
