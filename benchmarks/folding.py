"""A window of exploration by request: from a million logged outcomes to the next centre.

    python benchmarks/folding.py [--quick] [--seeds N] [--json FILE] [--dir FOLDER]

A real campaign (``explore``, ``use: file``, ``use: sql``, openai-es, noise from the table) in one process and
virtual time. A window of 1,000 arms opens over a model of a million numbers; its exposure log is filled with
a million units, each with the arm that served it and one outcome; the turn after the window's maturity reads,
aggregates per arm by the campaign's own SQL, tells, moves the centre, and opens the next window. Filling the
log is the module's work, and is not counted. What is counted is compared with 60 seconds, and the peak of the
process's memory with one gigabyte beside the vectors that the optimizer must hold (the centre of each version
in flight, and one update).
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "2")

import numpy as np  # noqa: E402 - after the number of threads

from benchmarks import results  # noqa: E402
from blackopt.artifacts import Keyed, Store  # noqa: E402
from blackopt.artifacts.centre import Centre  # noqa: E402
from blackopt.campaign import from_mapping  # noqa: E402
from blackopt.ledger.sqlite import sqlite3  # noqa: E402
from blackopt.runner.assembly import Parts, drive  # noqa: E402
from blackopt.runner.notices import silent  # noqa: E402
from blackopt.testing.clock import FakeClock  # noqa: E402

SIZE, DIRECTIONS, OUTCOMES = 1_000_000, 500, 1_000_000
QUICK = (100_000, 100, 100_000)
CONTROL = 0.03
LIMIT_S, LIMIT_BYTES = 60.0, 1 << 30
QUERY = """
SELECT arm, count(*) AS n, sum(outcome) AS sum, sum(outcome * outcome) AS sum_sq
FROM exposure WHERE campaign = :campaign AND window = :window GROUP BY arm
"""
DAY_US = 86_400_000_000


def campaign(folder: Path, size: int, directions: int, seed: int) -> Any:
    (folder / "outcome.sql").write_text(QUERY)
    (folder / "arms").mkdir()
    document = {
        "version": 1,
        "name": "feed",
        "policy": {"use": "parameters", "space": {"w": {"weights": size}}},
        "optimizer": {
            "use": "openai-es",
            "seed": seed,
            "sigma": 0.02,
            "noise": "table",
            "precision": "float32",
        },
        "explore": {"unit": "request", "directions": directions},
        "push": {"use": "file", "directory": "arms"},
        "measure": {
            "use": "sql",
            "url": "sqlite:///log.db",
            "metrics": {"reward": {"kind": "mean", "query": "outcome.sql", "window": "1h"}},
        },
        "objective": {"maximize": "reward", "relative_to": "control"},
        "traffic": {"unit": "request", "share": "100%", "control": f"{100 * CONTROL:g}%"},
        "budget": {"trials": 4 * directions},
        "schedule": {"window": "1d", "poll": "12h", "lease": "2d"},
    }
    return from_mapping(document, base=folder)


def log_outcomes(folder: Path, trials: Any, outcomes: int, seed: int) -> None:
    """What modules would have logged of one window: arms differ by a hundredth, units by a third."""
    chance = np.random.default_rng(seed)
    arms = [trial.arm for trial in trials] + ["control"]
    worth = np.append(chance.normal(0.0, 0.01, len(trials)), 0.0)
    shares = np.append(np.full(len(trials), (1.0 - CONTROL) / len(trials)), CONTROL)
    served = chance.choice(len(arms), size=outcomes, p=shares)
    values = worth[served] + chance.normal(1.0, 0.3, outcomes)
    rows = (
        (f"u{i}", "feed", 1, arms[a], v)
        for i, (a, v) in enumerate(zip(served.tolist(), values.tolist(), strict=True))
    )
    with sqlite3.connect(folder / "log.db") as log:
        log.execute("DELETE FROM exposure")
        log.executemany("INSERT INTO exposure VALUES(?, ?, ?, ?, ?)", rows)
        log.execute("CREATE INDEX IF NOT EXISTS place ON exposure(campaign, window, arm, outcome)")
    log.close()


class Clocked:
    """Seconds that calls of a method took, under a name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def of(self, name: str, part: Any, method: str) -> None:
        inner: Callable[..., Any] = getattr(part, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - started

        setattr(part, method, timed)


def measure(folder: Path, seed: int, size: int, directions: int, outcomes: int) -> dict[str, float]:
    """Seconds of each part of one window, and bytes."""
    with sqlite3.connect(folder / "log.db") as log:
        log.execute("CREATE TABLE exposure(unit TEXT, campaign TEXT, window INTEGER, arm TEXT, outcome REAL)")
    log.close()
    spec, clock, clocked = campaign(folder, size, directions, seed), FakeClock(), Clocked()
    with Parts(spec, clock=clock) as parts, drive(parts, silent) as runner:
        runner.start()
        lane: Any = runner.lane
        for name, part, method in (
            ("read and aggregate", lane, "_poll"),
            ("guardrails", lane, "_guard"),
            ("close and withdraw", lane.outbox, "withdraw"),
            ("values and their errors", lane.judge, "verdicts"),
            ("tell: ledger and centre", lane.learner, "commit"),
            ("collect old centres", lane, "_collect"),
            ("ask, publish, write", lane, "_open"),
            ("intend and push", lane.outbox, "push"),
        ):
            clocked.of(name, part, method)
        started = time.perf_counter()
        runner.turn()
        first_s = time.perf_counter() - started
        before = lane.learner.recommend()
        log_outcomes(folder, lane.ledger.trials(), outcomes, seed)
        clock.wait_until(clock.now_us() + DAY_US + DAY_US // 12)
        clocked.seconds.clear()
        started = time.perf_counter()
        runner.turn()
        total = time.perf_counter() - started
        told = lane.ledger.tells()
        if len(told) != 2 * directions or np.array_equal(before, lane.learner.recommend()):
            raise RuntimeError(f"{len(told)} of {2 * directions} arms were told, {told[-1:]}")
        check_candidate(folder, lane.ledger.trials()[-1])
        snapshot = time.perf_counter()
        lane.learner.snapshot(runner.driver)
        clocked.seconds["snapshot (every 500 tells)"] += time.perf_counter() - snapshot
    found = dict(clocked.seconds)
    found["all of the turn"] = total
    found["(the first turn: open and push)"] = first_s
    found["peak bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    # float32: two centres, the one asked around and the one moved to, and the published file.
    found["vector bytes"] = 3.0 * 4 * size
    found["ledger bytes"] = float((folder / "feed.db").stat().st_size)
    return found


def check_candidate(folder: Path, trial: Any) -> None:
    """A module can rebuild the newest candidate."""
    key = Keyed.decode(trial.body)
    centre = Centre.load(Store(folder / "centres"), "feed", key.version)
    made = centre.perturb(key, centre.values.copy())
    if not 0.5 * key.sigma < np.std(made - centre.values) < 2.0 * key.sigma:
        raise RuntimeError("the candidate is not its centre and noise")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--dir", type=Path, help="where the files are made; the system's temporary folder otherwise"
    )
    given = parser.parse_args()
    size, directions, outcomes = QUICK if given.quick else (SIZE, DIRECTIONS, OUTCOMES)
    runs = []
    for seed in range(1 if given.quick else given.seeds):
        with tempfile.TemporaryDirectory(dir=given.dir) as folder:
            runs.append(measure(Path(folder), seed, size, directions, outcomes))
    print(f"{outcomes:,} outcomes, {2 * directions:,} arms, {size:,} parameters")
    print(f"median [least, most] of {len(runs)} seeds")
    rows = []
    for name in runs[0]:
        values = [run[name] for run in runs]
        low, middle, high = min(values), statistics.median(values), max(values)
        rows.append([name, middle, low, high])
        shown = [
            f"{v / 2**20:.0f} MiB" if name.endswith("bytes") else f"{v:.2f} s" for v in (middle, low, high)
        ]
        print(f"  {name:<32} {shown[0]:>10}  [{shown[1]}, {shown[2]}]")
    worst = max(run["all of the turn"] for run in runs)
    beside = max(run["peak bytes"] - run["vector bytes"] for run in runs)
    used = f"{beside / 2**20:.0f} of {LIMIT_BYTES / 2**20:.0f} MiB beside the vectors"
    print(f"  {worst:.1f} of {LIMIT_S:.0f} s, {used}")
    if given.json is not None:
        table = results.Table(title="One window", columns=["part", "median", "least", "most"], rows=rows)
        results.write(
            given.json, title="Folding a window of exploration", tables=[table], seeds=f"0 to {len(runs) - 1}"
        )
    if worst > LIMIT_S or beside > LIMIT_BYTES:
        sys.exit("over the limits")


if __name__ == "__main__":
    main()
