"""What it costs to turn raw events into readings: SQLite, DuckDB and pandas on the same log.

    python benchmarks/readings.py [--quick] [--seeds N] [--json FILE]

A log of a million events of 100,000 units in 32 arms (quick: a tenth) becomes sufficient statistics per arm
and exposure day. ``groupby`` is a plain pandas merge and groupby of the same log that checks, deduplicates
and censors nothing; what pandas needs to load the log does not count. The files are written before, without
an index. Seconds are the processor's: each of the four works in one thread, so they are what a clock shows on
a machine that has a core to spare. The limit is 5 s for a million events.
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from blackopt.types import Query, Reading
from blackopt_connectors.events import EventsMetricOptions, EventsOptions, EventsSource, frames

LIMIT_S = 5.0
EVENTS, ARMS = 1_000_000, 32
DAY = 86_400_000_000
START = 19_800 * DAY
ZONE = "Europe/Berlin"
METRICS: dict[str, dict[str, Any]] = {
    "retention": {"kind": "retention", "day": 7, "event": "open", "window": 8 * DAY},
    "proportion": {"kind": "proportion", "event": "buy", "window": 14 * DAY},
    "revenue": {"kind": "revenue", "cap": 200, "event": "buy", "value": "cents", "window": 14 * DAY},
    "mean, cuped": {
        "kind": "mean", "event": "buy", "value": "cents", "window": 14 * DAY, "cuped": True,
        "covariate": {"event": "buy", "value": "cents", "before": "7d"},
    },
}  # fmt: skip


def log(seed: int, events: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Exposures over a day and events from a week before to three weeks after; one in fifty comes twice."""
    rng = np.random.default_rng(seed)
    units = events // 10
    arms = np.array(["control", *(f"t{i}" for i in range(1, ARMS))])
    shown = pd.DataFrame({
        "unit": [f"customer-{i}" for i in range(units)], "time": START + rng.integers(0, DAY, units),
        "arm": arms[rng.integers(0, ARMS, units)], "window": 1, "campaign": "bench",
    })  # fmt: skip
    first = events - events // 50
    done = pd.DataFrame({
        "unit": shown["unit"].to_numpy()[rng.integers(0, units, first)],
        "time": START + rng.integers(-7 * DAY, 21 * DAY, first),
        "name": np.array(["open", "open", "open", "buy"])[rng.integers(0, 4, first)],
        "cents": rng.integers(1, 300, first),
    })  # fmt: skip
    return shown, pd.concat([done, done.iloc[: events - first]], ignore_index=True)


def write(base: Path, shown: pd.DataFrame, done: pd.DataFrame) -> None:
    light = sqlite3.connect(base / "log.sqlite")
    shown.to_sql("exposures", light, index=False)
    done.to_sql("events", light, index=False)
    light.close()
    heavy = duckdb.connect(str(base / "log.duckdb"))
    for name, table in (("exposures", shown), ("events", done)):
        heavy.register("frame", table)
        heavy.execute(f"CREATE TABLE {name} AS SELECT * FROM frame")
    heavy.close()


def groupby(shown: pd.DataFrame, done: pd.DataFrame, metric: EventsMetricOptions) -> object:
    """What a person writes in a notebook."""
    events = done[done["name"] == metric.event]
    joined = events.merge(shown, on="unit", suffixes=("", "_shown"))
    joined = joined[joined["time"].between(joined["time_shown"], joined["time_shown"] + metric.window)]
    totals = joined.groupby("unit").agg(y=("cents", "sum"), k=("cents", "size"))
    units = shown.join(totals, on="unit").fillna({"y": 0, "k": 0})
    squares = units.assign(square=units["y"] ** 2, any=units["k"] > 0)
    return squares.groupby("arm")[["y", "square", "any"]].sum()


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def one(seed: int, events: int) -> dict[str, dict[str, float]]:
    """Seconds by metric and by what computes it; all three give the same sums."""
    shown, done = log(seed, events)
    metrics = {name: EventsMetricOptions.model_validate(metric) for name, metric in METRICS.items()}
    arms = ("control", *(f"t{i}" for i in range(1, ARMS)))
    found: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as folder:
        write(Path(folder), shown, done)
        for name, metric in metrics.items():
            query = Query("bench", 1, arms, START, START + DAY, START + 40 * DAY, (name,))
            totals: dict[str, float] = {}

            def read(
                scheme: str, query: Query = query, totals: dict[str, float] = totals, folder: str = folder
            ) -> None:
                url = EventsOptions(url=f"{scheme}:///log.{scheme}", timezone=ZONE, watermark="now")
                source = EventsSource(url, metrics, base=Path(folder))
                items = [item for item in source.read(query) if isinstance(item, Reading)]
                totals[scheme] = sum(item.stats["sum"] for item in items)

            def in_memory(query: Query = query, totals: dict[str, float] = totals) -> None:
                table = frames.readings(shown, done, query, metrics, timezone=ZONE, watermark="now")
                totals["pandas"] = float(table["sum"].sum())

            found[name] = {
                "sqlite_s": seconds(partial(read, "sqlite")),
                "duckdb_s": seconds(partial(read, "duckdb")),
                "pandas_s": seconds(in_memory),
                "groupby_s": seconds(partial(groupby, shown, done, metric)),
            }
            assert len(set(totals.values())) == 1, (name, totals)
    return found


def measure(seeds: int, events: int) -> dict[str, Any]:
    runs = [one(seed, events) for seed in range(seeds)]
    medians = {
        name: {key: statistics.median(run[name][key] for run in runs) for key in runs[0][name]}
        for name in METRICS
    }
    slowest = max(max(row["sqlite_s"], row["duckdb_s"]) for row in medians.values())
    return {
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version, "duckdb": duckdb.__version__, "pandas": pd.__version__,
        "events": events, "arms": ARMS, "seeds": seeds, "metrics": medians, "slowest_s": slowest,
        "limit_s": LIMIT_S, "times_limit": slowest / LIMIT_S,
    }  # fmt: skip


def show(found: dict[str, Any]) -> str:
    lines = [
        f"{found['platform']}, SQLite {found['sqlite']}, DuckDB {found['duckdb']}, pandas {found['pandas']}",
        (
            f"seconds (million rows a second) for {found['events']:,} events of {found['arms']} arms, "
            f"medians of {found['seeds']} seeds"
        ),
        "",
        f"{'':<13}{'SQLite':>14}{'DuckDB':>14}{'pandas':>14}{'groupby':>14}",
    ]
    for name, row in found["metrics"].items():
        cells = (f"{value:.2f} ({found['events'] / value / 1e6:.1f})" for value in row.values())
        lines.append(f"{name:<13}" + "".join(f"{cell:>14}" for cell in cells))
    lines += ["", f"slowest of SQLite and DuckDB {found['slowest_s']:.2f} s; the limit for a million is 5 s"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What raw events cost to become readings, beside pandas.")
    parser.add_argument("--quick", action="store_true", help="100,000 events, one seed")
    parser.add_argument("--seeds", type=int, default=None, help="logs (3; quick: 1)")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here, too")
    options = parser.parse_args()
    found = measure(options.seeds or (1 if options.quick else 3), EVENTS // 10 if options.quick else EVENTS)
    sys.stdout.write(show(found) + "\n")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
