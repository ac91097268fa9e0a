"""The source over raw events on real SQLite and DuckDB files: what counts, what does not, what is said."""

from __future__ import annotations

import csv
import lzma
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pytest
from pydantic import ValidationError

from blackopt.campaign import load
from blackopt.errors import ConfigurationError, DiagnosticsError, RetriableError
from blackopt.testing.sources import EXPECTED, SourceConformance
from blackopt.types import NoReading, Query, Reading
from blackopt_connectors.csv import CsvOptions, CsvSource
from blackopt_connectors.events import EventsMetricOptions, EventsOptions, EventsSource, frames
from blackopt_connectors.events.zones import DAY_US, day_start, stretches
from blackopt_connectors.sql import SqlMetricOptions, SqlOptions, SqlSource

HOUR = DAY_US // 24
T0 = 19_800 * DAY_US
DATA = Path(os.environ.get("BLACKOPT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "bank_marketing"

Rows = Iterable[tuple[Any, ...]]


def make(base: Path, exposures: Rows, events: Rows, *, time: str = "BIGINT", unit: str = "VARCHAR") -> Path:
    """A SQLite and a DuckDB file of the same rows: (unit, time, arm) and (unit, time, name, amount)."""
    for connection in (sqlite3.connect(base / "log.sqlite"), duckdb.connect(str(base / "log.duckdb"))):
        kinds = f"unit {unit}, time {time}"
        connection.execute(f'CREATE TABLE exposures({kinds}, arm VARCHAR, "window" BIGINT, campaign VARCHAR)')
        connection.execute(f"CREATE TABLE events({kinds}, name VARCHAR, amount BIGINT)")
        for row in exposures:
            connection.execute("INSERT INTO exposures VALUES(?, ?, ?, 2, 'conformance')", row)
        for row in events:
            connection.execute("INSERT INTO events VALUES(?, ?, ?, ?)", row)
        connection.commit()
        connection.close()
    return base


@pytest.fixture(params=["sqlite", "duckdb"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def source_of(base: Path, scheme: str, metric: dict[str, Any], **options: Any) -> EventsSource:
    options = {"url": f"{scheme}:///log.{scheme}", "watermark": "now", **options}
    own = EventsMetricOptions.model_validate(metric)
    return EventsSource(EventsOptions.model_validate(options), {"visits": own}, base=base)


def query_of(start: int = T0, length: int = DAY_US, as_of: int = T0 + 40 * DAY_US) -> Query:
    return Query("conformance", 2, ("control", "t1"), start, start + length, as_of, ("visits",))


def read(source: EventsSource, query: Query) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Statistics by arm, all days together, and what could not be counted."""
    items, found = list(source.read(query)), dict[str, dict[str, float]]()
    for item in items:
        if isinstance(item, Reading):
            own = found.setdefault(item.arm, {})
            for name, value in item.stats.items():
                own[name] = own.get(name, 0.0) + value
    return found, [item.cause for item in items if isinstance(item, NoReading)]


BOUGHT = {"kind": "proportion", "event": "buy", "window": DAY_US}
SPENT = {"kind": "mean", "event": "buy", "value": "amount", "window": DAY_US}


class TestConformance(SourceConformance):
    @pytest.fixture
    def source(self, tmp_path: Path, scheme: str) -> EventsSource:
        # In Kolkata, 20:00 UTC is the next day.
        shown = [
            (f"{arm}-{cohort}-{i}", 10 * DAY_US + (20 * HOUR if cohort == "1970-01-12" else 0) + i, arm)
            for (arm, cohort), stats in EXPECTED.items()
            for i in range(int(stats["n"]))
        ]
        done = [
            (f"{arm}-{cohort}-{i}", 11 * DAY_US, "buy", 1)
            for (arm, cohort), stats in EXPECTED.items()
            for i in range(int(stats["sum"]))
        ]
        make(tmp_path, shown, done)
        metric = {"kind": "proportion", "event": "buy", "window": 2 * DAY_US}
        return source_of(tmp_path, scheme, metric, timezone="Asia/Kolkata")


# -- what counts -------------------------------------------------------------------------------------------


def test_a_unit_counts_when_its_own_window_and_lag_have_passed(tmp_path: Path, scheme: str) -> None:
    make(tmp_path, [("a", T0, "t1"), ("b", T0 + HOUR, "t1")], [("a", T0 + 1, "buy", 1)])
    source = source_of(tmp_path, scheme, BOUGHT | {"lag": HOUR, "bake": HOUR})
    ready = T0 + DAY_US + 2 * HOUR
    for as_of, n in ((ready - 1, 0), (ready, 1), (ready + HOUR - 1, 1), (ready + HOUR, 2)):
        assert read(source, query_of(as_of=as_of))[0]["t1"]["n"] == n


def test_events_count_from_the_first_exposure_to_the_end_of_the_window(tmp_path: Path, scheme: str) -> None:
    times = {"early": T0 - 1, "first": T0, "last": T0 + DAY_US - 1, "late": T0 + DAY_US}
    shown = [(unit, T0 + again, "t1") for unit in times for again in (0, HOUR, HOUR)]
    make(tmp_path, shown, [(unit, time, "buy", 1) for unit, time in times.items()])
    assert read(source_of(tmp_path, scheme, BOUGHT), query_of())[0]["t1"] == {"n": 4, "sum": 2}


def test_whoever_saw_two_arms_counts_in_none_and_is_reported(tmp_path: Path, scheme: str) -> None:
    shown = [("a", T0, "t1"), ("b", T0, "t1"), ("b", T0 + 1, "control"), ("c", T0, "control"), ("", T0, "t1")]
    make(tmp_path, [*shown, (None, T0, "t1"), ("d", None, "t1"), ("e", -5, "t1"), ("f", T0, None)], [])
    found, said = read(source_of(tmp_path, scheme, BOUGHT), query_of())
    assert {arm: stats["n"] for arm, stats in found.items()} == {"control": 1, "t1": 1}
    assert said == [
        "1 units in exposures saw two arms and count in none",
        "5 rows of exposures have no usable unit, arm or time",
    ]


def test_an_arm_that_the_window_does_not_have_is_reported(tmp_path: Path, scheme: str) -> None:
    make(tmp_path, [("a", T0, "t1"), ("b", T0, "t7")], [])
    found, said = read(source_of(tmp_path, scheme, BOUGHT), query_of())
    assert {arm: stats["n"] for arm, stats in found.items()} == {"control": 0, "t1": 1}
    [line] = said
    assert line.endswith("the window has no arm t7; its units are left out")


def test_the_same_unit_counts_in_each_window_by_itself(tmp_path: Path, scheme: str) -> None:
    make(tmp_path, [("a", T0, "t1")], [("a", T0 + 5, "buy", 1)])
    for connection in (
        sqlite3.connect(tmp_path / "log.sqlite"),
        duckdb.connect(str(tmp_path / "log.duckdb")),
    ):
        connection.execute(f"INSERT INTO exposures VALUES('a', {T0 + DAY_US}, 'control', 3, 'conformance')")
        connection.commit()
        connection.close()
    source = source_of(tmp_path, scheme, BOUGHT)
    assert read(source, query_of())[0]["t1"] == {"n": 1, "sum": 1}
    later = replace(query_of(start=T0 + DAY_US), window=3)
    assert read(source, later)[0] == {"control": {"n": 1, "sum": 0}, "t1": {"n": 0, "sum": 0}}


def test_duplicates_count_once(tmp_path: Path, scheme: str) -> None:
    rows = [
        ("a", T0 + 1, "buy", 3),
        ("a", T0 + 1, "buy", 3),
        ("a", T0 + 1, "buy", 4),
        ("a", T0 + 2, "buy", 3),
    ]
    make(tmp_path, [("a", T0, "t1"), ("a", T0, "t1")], rows)
    found = read(source_of(tmp_path, scheme, SPENT), query_of())[0]
    assert found["t1"] == {"n": 1, "sum": 10, "sum_sq": 100, "events": 1}


def test_an_amount_that_is_missing_is_reported(tmp_path: Path, scheme: str) -> None:
    make(tmp_path, [("a", T0, "t1")], [("a", T0 + 1, "buy", None), ("a", T0 + 2, "buy", 5)])
    found, said = read(source_of(tmp_path, scheme, SPENT), query_of())
    assert found["t1"]["sum"] == 5
    assert said == ["visits: 1 events in events have no number to add up"]


def test_a_covariate_ends_strictly_before_the_first_exposure(tmp_path: Path, scheme: str) -> None:
    rows = [("a", T0 - DAY_US - 1, "buy", 1), ("a", T0 - DAY_US, "buy", 10), ("a", T0 - 1, "buy", 100)]
    make(tmp_path, [("a", T0, "t1")], [*rows, ("a", T0, "buy", 1000)])
    before = {"cuped": True, "covariate": {"event": "buy", "value": "amount", "before": "1d"}}
    stats = read(source_of(tmp_path, scheme, SPENT | before), query_of())[0]["t1"]
    assert (stats["sum"], stats["cov_sum"], stats["num_cov"]) == (1000, 110, 110_000)


def test_reading_the_past_again_gives_what_was_known_then(tmp_path: Path, scheme: str) -> None:
    make(tmp_path, [("a", T0, "t1")], [("a", T0 + 1, "buy", T0 + 3 * DAY_US)])  # amount: when it arrived
    source = source_of(tmp_path, scheme, BOUGHT, events={"received": "amount"})
    for day, expected in ((2, 0), (3, 1)):
        assert read(source, query_of(as_of=T0 + day * DAY_US))[0]["t1"] == {"n": 1, "sum": expected}


def test_a_log_that_stopped_is_a_watermark_that_stands_still(tmp_path: Path, scheme: str) -> None:
    make(tmp_path, [("a", T0, "t1")], [("x", T0 + DAY_US - 1, "open", 1), ("x", T0 + 90 * DAY_US, "open", 1)])
    for watermark, n, known in (("log", 0, T0 + DAY_US - 1), ("now", 1, T0 + 40 * DAY_US)):
        source = source_of(tmp_path, scheme, BOUGHT, watermark=watermark)
        readings = [item for item in source.read(query_of()) if isinstance(item, Reading)]
        assert {item.as_of_us for item in readings} == {known}
        assert sum(item.stats["n"] for item in readings) == n


def test_empty_tables_are_a_watermark_of_nothing(tmp_path: Path, scheme: str) -> None:
    make(tmp_path, [], [])
    source = source_of(tmp_path, scheme, BOUGHT, watermark="log")
    assert source.check().endswith("1 metrics from events")
    readings = list(source.read(query_of()))
    assert readings == [Reading("visits", 2, arm, "", 0, {"n": 0.0, "sum": 0.0}) for arm in ("control", "t1")]


# -- days --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "hours"),
    [("2024-03-30", 23), ("2024-10-26", 25), ("2024-05-01", 24)],
    ids=["clocks forward", "clocks back", "plain"],
)
def test_day_1_is_the_next_calendar_day_however_long_it_is(
    tmp_path: Path, scheme: str, shown: str, hours: int
) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    day = datetime.fromisoformat(shown).replace(tzinfo=berlin)
    at = int((day + timedelta(hours=12)).timestamp()) * 1_000_000
    start = int((day + timedelta(days=1)).timestamp()) * 1_000_000
    times = {
        "before": start - 1,
        "start": start,
        "end": start + hours * HOUR - 1,
        "after": start + hours * HOUR,
    }
    make(tmp_path, [(unit, at, "t1") for unit in times], [(unit, t, "open", 1) for unit, t in times.items()])
    metric = {"kind": "retention", "day": 1, "event": "open", "window": 2 * DAY_US}
    query = query_of(start=at - HOUR, as_of=at + 9 * DAY_US)
    source = source_of(tmp_path, scheme, metric, timezone="Europe/Berlin")
    assert read(source, query)[0]["t1"] == {"n": 4, "sum": 2}
    [reading] = [r for r in source.read(query) if isinstance(r, Reading) and r.stats["n"]]
    assert reading.cohort == shown
    rolling = source_of(tmp_path, scheme, metric | {"rolling": True}, timezone="Europe/Berlin")
    assert read(rolling, query)[0]["t1"]["sum"] == sum(
        at + DAY_US <= t < at + 2 * DAY_US for t in times.values()
    )


def test_stretches_tile_the_days_of_every_zone() -> None:
    for name in ("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Asia/Tehran"):
        zone, first = ZoneInfo(name), 14_000
        rows = stretches(zone, first * DAY_US, (first + 2000) * DAY_US)
        for row, after in pairwise(rows):
            assert (after.first_day, after.start_us) == (row.last_day + 1, row.end_us)
        for row in rows:
            assert day_start(row.first_day, zone) == row.start_us


@pytest.mark.parametrize("unit", ["ms", "s", "iso"])
def test_times_are_read_as_they_are_stored(tmp_path: Path, scheme: str, unit: str) -> None:
    def stored(us: int) -> object:
        if unit == "iso":
            local = datetime.fromtimestamp(us / 1e6, UTC).astimezone(ZoneInfo("Europe/Berlin"))
            return local.isoformat(timespec="milliseconds")
        return us // (1000 if unit == "ms" else 1_000_000)

    second = 1_000_000
    times = {"early": T0 - second, "first": T0, "last": T0 + DAY_US - second, "late": T0 + DAY_US}
    make(
        tmp_path,
        [(name, stored(T0), "t1") for name in times],
        [(name, stored(time), "buy", 1) for name, time in times.items()],
        time="VARCHAR" if unit == "iso" else "BIGINT",
    )
    source = source_of(tmp_path, scheme, BOUGHT, time_unit=unit)
    assert read(source, query_of())[0]["t1"] == {"n": 4, "sum": 2}


# -- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"events": {"table": "clicks"}}, "there is no table 'clicks'"),
        ({"events": {"name": "kind"}}, "table events has no column 'kind'"),
        ({"exposures": {"unit": "customer"}}, "table exposures has no column 'customer'"),
        ({"time_unit": "iso"}, "column 'time' of events holds"),
    ],
)
def test_a_wrong_name_or_type_says_what_there_is(
    tmp_path: Path, scheme: str, options: dict[str, Any], expected: str
) -> None:
    make(tmp_path, [("a", T0, "t1")], [("a", T0, "buy", 1)])
    source = source_of(tmp_path, scheme, BOUGHT, **options)
    with pytest.raises(ConfigurationError, match=expected) as caught:
        source.check()
    assert "events" in caught.value.why or "unit, time" in caught.value.why or "expected" in caught.value.why
    with pytest.raises(ConfigurationError, match=expected):
        list(source.read(query_of()))


def test_units_of_two_types_would_never_meet(tmp_path: Path) -> None:
    make(tmp_path, [("a", T0, "t1")], [("a", T0, "buy", 1)])
    with sqlite3.connect(tmp_path / "log.sqlite") as connection:
        connection.execute("DROP TABLE exposures")
        connection.execute('CREATE TABLE exposures(unit INT, time INT, arm, "window", campaign)')
        connection.execute("INSERT INTO exposures VALUES(7, 9, 't1', 2, 'conformance')")
    connection.close()
    with pytest.raises(ConfigurationError, match="units are integer in exposures and text in events"):
        source_of(tmp_path, "sqlite", BOUGHT).check()


def test_a_file_that_is_not_there_may_come(tmp_path: Path, scheme: str) -> None:
    with pytest.raises(RetriableError, match="cannot be read now") as caught:
        list(source_of(tmp_path, scheme, BOUGHT).read(query_of()))
    assert caught.value.why == "there is no such file"


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"kind": "value"}, "no metric of kind value"),
        ({"kind": "mean"}, "a mean needs `event`"),
        ({"kind": "ratio", "event": "buy"}, "a ratio takes no `event`"),
        ({"kind": "mean", "event": "buy", "cuped": True}, "needs a `covariate`"),
        ({"kind": "mean", "event": "b", "covariate": {"event": "b", "before": "7d"}}, "needs a `covariate`"),
        (SPENT | {"cuped": True, "covariate": {"event": "buy", "before": "-1d"}}, "duration"),
        ({"kind": "mean", "event": "buy", "rolling": True}, "`rolling` belongs to a retention"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(metric: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EventsMetricOptions.model_validate(metric)


# -- the same elsewhere ------------------------------------------------------------------------------------

CAMPAIGN = """
version: 1
name: conformance
policy: {use: parameters, space: {x: {float: [0, 1], start: 0.5}}}
optimizer: {use: random}
push: {use: file, directory: arms}
measure:
  use: events
  url: sqlite:///log.sqlite
  watermark: now
  timezone: Europe/Berlin
  metrics:
    visits: {kind: retention, day: 1, event: open, window: 2d, lag: 1h%s}
objective: {maximize: visits}
traffic: {unit: customer, share: 50%%, control: 20%%, arms: 1}
budget: {trials: 4}
schedule: {window: 1d}
"""


def test_a_campaign_tells_the_source_what_the_core_knows(tmp_path: Path) -> None:
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN % "")
    measure = load(tmp_path / "campaign.yaml").measure
    assert measure is not None
    metric = measure.metrics["visits"].options
    assert isinstance(metric, EventsMetricOptions)
    assert (metric.kind, metric.day, metric.window, metric.lag) == ("retention", 1, 2 * DAY_US, HOUR)
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN % ", value: amount")
    with pytest.raises(DiagnosticsError, match="a retention takes no `value`"):
        load(tmp_path / "campaign.yaml")


def test_the_printed_query_gives_use_sql_the_same_readings(tmp_path: Path) -> None:
    shown = [(f"u{i}", T0 + i * HOUR, "t1" if i % 2 else "control") for i in range(24)]
    make(tmp_path, shown, [(f"u{i}", T0 + (i * 3 + 9) * HOUR, "open", 1) for i in range(24)])
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN % "")
    command = [sys.executable, "-m", "blackopt_connectors.events", "campaign.yaml"]
    done = subprocess.run([*command, "visits"], cwd=tmp_path, capture_output=True, text=True, check=True)
    (tmp_path / "visits.sql").write_text(done.stdout)
    sql = SqlSource(
        SqlOptions(url="sqlite:///log.sqlite"),
        {"visits": SqlMetricOptions(query=Path("visits.sql"))},
        base=tmp_path,
    )
    measure = load(tmp_path / "campaign.yaml").measure
    assert measure is not None
    own = EventsSource(measure.options, {"visits": measure.metrics["visits"].options}, base=tmp_path)

    def plain(items: Iterable[Reading | NoReading]) -> list[tuple[object, ...]]:
        return [(r.arm, r.cohort, r.as_of_us, dict(r.stats)) for r in items if isinstance(r, Reading)]

    found = plain(sql.read(query_of()))
    assert found == plain(own.read(query_of()))
    assert len({cohort for _, cohort, _, _ in found}) == 2
    wrong = subprocess.run([*command, "nothing"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (wrong.returncode, "there is no metric 'nothing'" in wrong.stderr) == (2, True)


def test_frames_write_what_use_csv_reads(tmp_path: Path) -> None:
    shown = pd.DataFrame({
        "unit": ["a", "b"], "time": pd.to_datetime([T0, T0 + 1], unit="us"), "arm": ["control", "t1"],
        "window": 2, "campaign": "conformance",
    })  # fmt: skip
    done = pd.DataFrame({"unit": ["a"], "time": [pd.Timestamp(T0 + 5, unit="us")], "name": "buy"})
    table = frames.readings(shown, done, query_of(), {"visits": BOUGHT}, watermark="now")
    frames.write_csv(table, tmp_path / "readings.csv")
    source = CsvSource(
        CsvOptions(path=Path("readings.csv")), {"visits": CsvSource.MetricOptions()}, base=tmp_path
    )
    found = {item.arm: dict(item.stats) for item in source.read(query_of()) if isinstance(item, Reading)}
    assert found == {"control": {"n": 1.0, "sum": 1.0}, "t1": {"n": 1.0, "sum": 0.0}}


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_folder_of_files_is_read_through_duckdb(tmp_path: Path, kind: str) -> None:
    make(tmp_path, [("a", T0, "t1"), ("b", T0, "t1")], [("a", T0 + 1, "buy", 1)])
    connection = duckdb.connect(str(tmp_path / "log.duckdb"))
    for table in ("exposures", "events"):
        connection.execute(f"COPY {table} TO '{tmp_path / table}.{kind}'")
    connection.close()
    options = {
        "url": f"{kind}:///.",
        "exposures": {"table": f"exposures.{kind}"},
        "events": {"table": f"events.{kind}"},
    }
    source = source_of(tmp_path, "duckdb", BOUGHT, **options)
    assert read(source, query_of())[0]["t1"] == {"n": 2, "sum": 1}


# -- real data ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not DATA.exists(),
    reason=f"the UCI bank marketing data are not in {DATA}; BLACKOPT_DATA names another place",
)
def test_real_calls_become_the_published_rate(tmp_path: Path, scheme: str) -> None:
    """Each call is a unit, its channel the arm, a subscription an event: 4,640 of 41,188, 11.265 %."""
    with lzma.open(DATA / "bank-additional-full.csv.xz", "rt", encoding="utf-8") as file:
        calls = list(csv.DictReader(file, delimiter=";"))
    shown = pd.DataFrame({
        "unit": [f"call-{i}" for i in range(len(calls))],
        "time": T0 + pd.Series(range(len(calls))) * 2_000_000,
        "arm": ["control" if call["contact"] == "telephone" else "t1" for call in calls],
        "window": 2, "campaign": "conformance",
    })  # fmt: skip
    done = shown.loc[[call["y"] == "yes" for call in calls], ["unit", "time"]].assign(name="buy", amount=1)
    light, heavy = sqlite3.connect(tmp_path / "log.sqlite"), duckdb.connect(str(tmp_path / "log.duckdb"))
    for name, table in (("exposures", shown), ("events", done)):
        table.to_sql(name, light, index=False)
        heavy.register("frame", table)
        heavy.execute(f"CREATE TABLE {name} AS SELECT * FROM frame")
    light.close()
    heavy.close()
    found, said = read(source_of(tmp_path, scheme, BOUGHT), query_of())
    assert said == []
    n, total = (sum(stats[key] for stats in found.values()) for key in ("n", "sum"))
    assert (n, total, round(100 * total / n, 3)) == (41_188, 4_640, 11.265)
    for arm, contact in (("control", "telephone"), ("t1", "cellular")):
        own = [call["y"] for call in calls if call["contact"] == contact]
        assert found[arm] == {"n": len(own), "sum": own.count("yes")}
