"""Runs the campaign on the real calls, once a seed, and prints it beside what it must be compared with.

python run.py --data PATH --seeds 5
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from calls_app import baselines, data, offline
from calls_app.data import Calls
from calls_app.dialler import DAY_US, DAYS, START_US
from calls_app.rehearsal import DELAY

HERE = Path(__file__).parent
CALLS = 6592
QUICK_TRIALS = 64


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: subscriptions of each run among 6,592 calls."""

    name: str
    knows: str
    totals: tuple[int, ...]
    reference: int | None = None

    @property
    def mean(self) -> float:
        """Over the runs."""
        return statistics.mean(self.totals)

    def __str__(self) -> str:
        spread = f" ± {statistics.stdev(self.totals):.0f}" if len(self.totals) > 1 else ""
        reference = "" if self.reference is None else str(self.reference)
        result = f"{self.mean:7.0f}{spread:<7}{self.mean / CALLS:6.3f}{reference:>11}"
        return f"{self.name:<22}{self.knows:<40}{result}"


def baseline_rows(calls: Calls) -> list[Row]:
    """The rows that need no campaign."""
    wait = f"{DELAY} days late"

    def row(name: str, knows: str, per_block: Any, reference: str = "") -> Row:
        return Row(name, knows, (round(float(per_block.sum())),), baselines.REFERENCE.get(reference))

    return [
        row("random", "nothing", baselines.random(calls), "random"),
        row("frozen", "the warm-up", baselines.frozen(calls), "frozen"),
        row("frozen, as served", "the warm-up; inputs clipped", baselines.frozen_policy(calls)),
        row("refit, past", "everybody's outcome, at once", baselines.refit(calls), "refit, past"),
        row("refit, last 4", "everybody's outcome, at once", baselines.refit(calls, last=4), "refit, last 4"),
        row("refit, past", f"everybody's outcome, {wait}", baselines.refit(calls, delay=DELAY)),
        row("refit, called", f"its own calls' outcomes, {wait}", baselines.refit_called(calls, delay=DELAY)),
        row("oracle", "the future", baselines.oracle(calls), "oracle"),
    ]


@contextmanager
def dialler(path: Path, folder: Path, secret: str) -> Iterator[str]:
    """The production process, with its files in ``folder``; gives its address and ends it."""
    command = [
        sys.executable,
        "-m",
        "calls_app.dialler",
        "--data",
        str(path.resolve()),
        "--folder",
        str(folder),
    ]
    environment = os.environ | {"DIALLER_SECRET": secret}
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE
    ) as process:
        try:
            assert process.stdout is not None
            if not (url := process.stdout.readline().strip()):
                raise SystemExit("the dialler did not start; its message is above")
            yield url
        finally:
            process.terminate()


def prepare(folder: Path, url: str, seed: int, trials: int | None) -> Path:
    """``campaign.yaml`` and its queries in ``folder``, for a dialler at ``url``."""
    campaign = yaml.safe_load((HERE / "campaign.yaml").read_text())
    campaign["optimizer"]["seed"] = seed
    campaign["push"]["url"] = f"{url}/blackopt"
    campaign["clock"]["url"] = f"{url}/clock"
    if trials is not None:
        campaign["budget"]["trials"] = trials
    shutil.copytree(HERE / "queries", folder / "queries")
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(campaign, sort_keys=False))
    return path


def run_campaign(path: Path, seed: int, trials: int | None) -> int:
    """Subscriptions of the 32 days that a campaign drives, arms, control and everybody else together."""
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="calls-") as name, dialler(path, Path(name), secret) as url:
        campaign = prepare(Path(name), url, seed, trials)
        blackopt = Path(sys.executable).with_name("blackopt")
        environment = os.environ | {"DIALLER_SECRET": secret}
        subprocess.run(
            [blackopt, "run", campaign, "--quiet"], check=True, env=environment, stdout=subprocess.DEVNULL
        )
        # What is left of the 32 days once the budget is spent is dialled by the incumbent.
        end_us = START_US + (DAYS + DELAY + 1) * DAY_US
        requests.post(f"{url}/clock", json={"until_us": end_us}, timeout=60).raise_for_status()
        with closing(sqlite3.connect(Path(name) / "events.db")) as log:
            made, subscribed = log.execute("SELECT count(*), sum(subscribed) FROM outcomes").fetchone()
    if made != CALLS:
        raise SystemExit(f"the dialler made {made} calls, expected {CALLS}")
    return int(subscribed)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="csv, csv.xz, zip, or a folder with one of them"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="runs of the campaign; 0 for the baselines alone"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument("--quick", action="store_true", help=f"one run, with {QUICK_TRIALS} trials only")
    arguments = parser.parse_args()
    calls = data.load(arguments.data)
    rows = baseline_rows(calls)
    seeds = 1 if arguments.quick else arguments.seeds
    trials = QUICK_TRIALS if arguments.quick else None
    totals = tuple(run_campaign(arguments.data, seed, trials) for seed in range(1, seeds + 1))
    if totals:
        tuned = tuple(int(offline.retuned(calls, seed=s, delay=DELAY).sum()) for s in range(1, seeds + 1))
        rows.insert(-1, Row("blackopt, on the log", f"everybody's outcome, {DELAY} days late", tuned))
        rows.insert(-1, Row("blackopt, live", f"its own calls' outcomes, {DELAY} days late", totals))
    print(f"{'':<22}{'knows':<40}{'subscriptions':>14}{'a call':>6}{'reference':>11}")
    for row in rows:
        print(row)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
