"""SQLite, DuckDB and pandas say the same as a slow, plain reference, on logs as messy as real ones."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackopt.types import Query, Reading
from blackopt_connectors.events import EventsMetricOptions, EventsOptions, EventsSource, frames
from blackopt_connectors.events.options import Covariate, Events, Exposures

HOUR = 3_600_000_000
DAY = 24 * HOUR

# Clocks went forward in Berlin on 2024-03-31, and back on 2024-10-27; in New York on 03-10 and 11-03.
STARTS = {
    "spring": datetime(2024, 3, 29, 21, tzinfo=UTC),
    "autumn": datetime(2024, 10, 25, 21, tzinfo=UTC),
    "america": datetime(2024, 11, 1, 3, tzinfo=UTC),
}
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "America/St_Johns")
ARMS = ("control", "t1", "t2")


@dataclass(frozen=True)
class Exposure:
    unit: str | None
    time: int | None
    arm: str | None
    window: int
    campaign: str


@dataclass(frozen=True)
class Event:
    unit: str | None
    time: int | None
    name: str
    amount: float | None
    received: int | None
    id: str | None


METRICS: dict[str, dict[str, Any]] = {
    "bought": {"kind": "proportion", "event": "buy", "window": 30 * HOUR, "lag": HOUR},
    "day1": {"kind": "retention", "day": 1, "event": "open", "window": 2 * DAY},
    "day0": {"kind": "retention", "day": 0, "event": "open", "window": DAY},
    "within": {
        "kind": "retention",
        "day": 3,
        "within": True,
        "event": "open",
        "window": 4 * DAY,
        "bake": HOUR,
    },
    "rolling": {"kind": "retention", "day": 2, "rolling": True, "event": "open", "window": 3 * DAY},
    "rolling3": {
        "kind": "retention",
        "day": 3,
        "within": True,
        "rolling": True,
        "event": "open",
        "window": 4 * DAY,
    },
    "opens": {"kind": "mean", "event": "open", "window": 2 * DAY, "lag": HOUR},
    "spend": {
        "kind": "mean",
        "event": "buy",
        "value": "amount",
        "window": 3 * DAY,
        "cuped": True,
        "covariate": {"event": "open", "before": "36h"},
    },
    "revenue": {
        "kind": "revenue",
        "cap": 5.0,
        "event": "buy",
        "value": "amount",
        "window": 2 * DAY,
        "bake": DAY,
    },
    "share": {
        "kind": "ratio",
        "numerator": {"event": "buy", "value": "amount"},
        "denominator": {"event": "open"},
        "window": 2 * DAY,
        "cuped": True,
        "covariate": {"event": "buy", "value": "amount", "before": "2d"},
    },
    "p90": {"kind": "quantile", "quantile": 0.9, "event": "buy", "value": "amount", "window": 3 * DAY},
    "after": {
        "kind": "mean",
        "event": "buy",
        "value": "amount",
        "window": DAY,
        "anchor": {"event": "open", "within": DAY},
    },
    "day1_after": {
        "kind": "retention",
        "day": 1,
        "event": "buy",
        "window": 2 * DAY,
        "anchor": {"event": "open", "within": DAY},
    },
}


# -- the reference: one unit at a time, one event at a time, days from the calendar ------------------------


def day_of(time: int, zone: ZoneInfo) -> date:
    """The local date; where clocks go back over a midnight, the day that has begun goes on."""
    day = datetime.fromtimestamp(time // 1_000_000, UTC).astimezone(zone).date()
    return day + timedelta(days=1) if time >= start_of(day + timedelta(days=1), zone) else day


def start_of(day: date, zone: ZoneInfo) -> int:
    local = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(local.timestamp()) * 1_000_000


def reference(
    exposures: Iterable[Exposure],
    events: Iterable[Event],
    query: Query,
    metrics: dict[str, EventsMetricOptions],
    zone: ZoneInfo,
    watermark: str,
    *,
    by_id: bool,
) -> dict[tuple[str, str, str], dict[str, float]]:
    log = [e for e in events if e.received is not None and e.received <= query.as_of_us]
    known = query.as_of_us if watermark == "now" else max((e.received or 0 for e in log), default=0)
    seen: dict[str, list[Exposure]] = defaultdict(list)
    for x in exposures:
        if (x.campaign, x.window) != (query.campaign, query.window) or x.time is None:
            continue
        if x.unit and x.arm and query.start_us <= x.time < min(query.end_us, query.as_of_us + 1):
            seen[x.unit].append(x)
    units = {
        unit: (rows[0].arm or "", min(x.time or 0 for x in rows))
        for unit, rows in seen.items()
        if len({x.arm for x in rows}) == 1 and rows[0].arm in query.arms
    }
    done: dict[str, list[Event]] = defaultdict(list)
    for e in log:
        if e.unit and e.time is not None:
            done[e.unit].append(e)
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for name, m in metrics.items():
        groups: dict[tuple[str, str], list[dict[str, list[float | None]]]] = defaultdict(list)
        for unit, (arm, shown) in units.items():
            if shown + m.delay_us > known:
                continue
            parts = unit_of(shown, done[unit], m, zone, known, by_id=by_id)
            if parts is not None:
                cohort = "" if m.kind == "quantile" else day_of(shown, zone).isoformat()
                groups[arm, cohort].append(parts)
        for (arm, cohort), rows in groups.items():
            stats = quantile(m, rows) if m.kind == "quantile" else sums(m, rows)
            if stats:
                found[name, arm, cohort] = stats
    return found


def unit_of(
    shown: int, log: list[Event], m: EventsMetricOptions, zone: ZoneInfo, known: int, *, by_id: bool
) -> dict[str, list[float | None]] | None:
    """The values of the unit's events, by part; None where it does not count."""
    at = shown
    if m.anchor is not None:
        starts = [e.time or 0 for e in log if e.name == m.anchor.event]
        starts = [t for t in starts if shown <= t < shown + m.anchor.within]
        if not starts:
            return None
        at = min(starts)
    start, end = at, at + m.window
    if m.kind == "retention" and m.day is not None:
        first = 1 if m.within else m.day
        if m.rolling:
            start, end = at + first * DAY, at + (m.day + 1) * DAY
        else:
            day = day_of(at, zone)
            start = max(at, start_of(day + timedelta(days=first), zone))
            end = start_of(day + timedelta(days=m.day + 1), zone)
            if end + m.bake + m.lag > known:
                return None
    found = {}
    for name, part in m.parts.items():
        a, b = (shown - round(part.before * 1e6), shown) if isinstance(part, Covariate) else (start, end)
        once: dict[Any, float | None] = {}
        for e in log:
            if e.name == part.event and a <= (e.time or 0) < b:
                value = e.amount if part.value else 1.0
                key = e.id if by_id and e.id is not None else (e.time, value)
                if key not in once or once[key] is None or (value is not None and value < (once[key] or 0)):
                    once[key] = value
        found[name] = list(once.values())
    return found


def sums(m: EventsMetricOptions, rows: list[dict[str, list[float | None]]]) -> dict[str, float]:
    stats: dict[str, float] = defaultdict(float)
    for parts in rows:
        stats["n"] += 1
        happened = float(bool(parts["num"]))
        if m.kind in ("proportion", "retention"):
            stats["sum"] += happened
            continue
        values = {name: sum(v for v in events if v is not None) for name, events in parts.items()}
        if m.cap is not None:
            stats["raw_sum"] += values["num"]
            stats["raw_sum_sq"] += values["num"] ** 2
            values["num"] = min(values["num"], m.cap)
        if m.kind == "ratio":
            values["cov_den"] = 1.0
        for name, value in values.items():
            total = "sum" if name == "num" else f"{name}_sum"
            stats[total] += value
            stats[f"{total}_sq"] += value**2
        for a, b in combinations(values, 2):
            stats[f"{a}_{b}"] += values[a] * values[b]
        stats["events"] += happened
    return dict(stats)


def quantile(m: EventsMetricOptions, rows: list[dict[str, list[float | None]]]) -> dict[str, float]:
    level = m.quantile or 0.0
    units = [[v for v in parts["num"] if v is not None] for parts in rows]
    units = [values for values in units if values]
    values = sorted(v for unit in units for v in unit)
    n = len(values)
    if not n:
        return {}
    half = NormalDist().inv_cdf(0.975) * math.sqrt(n * level * (1 - level))
    q = values[math.ceil(n * level - 1e-9) - 1]
    low, high = max(math.floor(n * level - half), 1), min(math.floor(n * level + half) + 1, n)
    inside, sizes = [sum(v <= q for v in unit) for unit in units], [len(unit) for unit in units]
    p, k = sum(inside) / n, len(units)
    cluster = 1.0
    if k > 1 and 0 < p < 1:
        between = sum((i - p * s) ** 2 for i, s in zip(inside, sizes, strict=True)) * k / (k - 1) / n**2
        cluster = between / (p * (1 - p) / n) if between > 1e-12 else 1.0
    return {"n": n, "q": q, "q_lower": values[low - 1], "q_upper": values[high - 1], "cluster": cluster}


# -- the three under test ----------------------------------------------------------------------------------


def write(base: Path, exposures: list[Exposure], events: list[Event]) -> None:
    shown = [(x.unit, x.time, x.arm, x.window, x.campaign) for x in exposures]
    log = [(e.unit, e.time, e.name, e.amount, e.received, e.id) for e in events]
    light, heavy = sqlite3.connect(base / "log.sqlite"), duckdb.connect(str(base / "log.duckdb"))
    for connection in (light, heavy):
        connection.execute(
            "CREATE TABLE exposures"
            '(unit VARCHAR, time BIGINT, arm VARCHAR, "window" BIGINT, campaign VARCHAR)'
        )
        connection.execute(
            "CREATE TABLE events"
            "(unit VARCHAR, time BIGINT, name VARCHAR, amount DOUBLE, received BIGINT, id VARCHAR)"
        )
        if shown:
            connection.executemany("INSERT INTO exposures VALUES(?, ?, ?, ?, ?)", shown)
        if log:
            connection.executemany("INSERT INTO events VALUES(?, ?, ?, ?, ?, ?)", log)
        connection.commit()
        connection.close()


def from_source(
    base: Path, scheme: str, query: Query, metrics: dict[str, EventsMetricOptions], **options: Any
) -> dict[tuple[str, str, str], dict[str, float]]:
    url = f"{scheme}:///log.{scheme}"
    source = EventsSource(EventsOptions.model_validate({"url": url, **options}), metrics, base=base)
    readings = [item for item in source.read(query) if isinstance(item, Reading)]
    found = {(r.metric, r.arm, r.cohort): dict(r.stats) for r in readings if r.stats["n"]}
    assert {(r.metric, r.arm) for r in readings} == {(name, arm) for name in metrics for arm in query.arms}
    return found


def from_frames(
    exposures: list[Exposure],
    events: list[Event],
    query: Query,
    metrics: dict[str, EventsMetricOptions],
    **options: Any,
) -> dict[tuple[str, str, str], dict[str, float]]:
    shown = pd.DataFrame(exposures, columns=["unit", "time", "arm", "window", "campaign"])
    log = pd.DataFrame(events, columns=["unit", "time", "name", "amount", "received", "id"])
    table = frames.readings(shown, log, query, metrics, **options)
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    return {
        (row["metric"], row["arm"], row["cohort"]): {
            key: value
            for key, value in row.items()
            if key not in ("metric", "arm", "window", "cohort", "as_of") and not math.isnan(value)
        }
        for row in rows
        if row["n"]
    }


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Exposure], list[Event], Query]:
    start = int(draw(st.sampled_from(sorted(STARTS.values()))).timestamp()) * 1_000_000
    length = draw(st.sampled_from((7 * HOUR, DAY, 3 * DAY)))
    # Whole hours, half hours, and one microsecond around them: ties and edges are common.
    moment = st.builds(
        lambda hours, off: start + hours * HOUR // 2 + off,
        st.integers(-120, 24 * 2 * 9),
        st.sampled_from((-1, 0, 0, 1)),
    )
    unit = st.sampled_from(("u1", "u2", "u3", "u4", "u5", "u6", "", None))
    within = st.builds(
        lambda part, off: start + part * length // 16 + off,
        st.integers(-1, 16),
        st.sampled_from((-1, 0, 0, 1)),
    )
    exposure = st.builds(
        Exposure, unit, st.one_of(within, within, within, st.none()),
        st.sampled_from((*ARMS, "control", "stray", "", None)), st.sampled_from((2, 2, 2, 3)),
        st.sampled_from(("c", "c", "c", "other")),
    )  # fmt: skip
    steady = [  # one arm a unit, or hardly anybody would count
        Exposure(f"u{i}", draw(within), draw(st.sampled_from(ARMS)), 2, "c") for i in range(1, 7)
    ]
    shown = draw(st.permutations([*steady[: draw(st.integers(0, 6))], *draw(st.lists(exposure, max_size=3))]))
    event = st.builds(
        lambda unit, time, name, amount, late, own: Event(
            unit, time, name, amount, None if late is None or time is None else time + late, own
        ),
        unit, st.one_of(moment, moment, moment, st.none()), st.sampled_from(("open", "buy", "o'pen")),
        st.one_of(st.integers(0, 9).map(float), st.none()),
        st.one_of(st.sampled_from((0, 0, HOUR, 3 * DAY)), st.none()),
        st.one_of(st.none(), st.sampled_from(("a", "b", "c"))),
    )  # fmt: skip
    log = draw(st.lists(event, max_size=40))
    repeated = draw(st.lists(st.sampled_from(log), max_size=6)) if log else []
    as_of = start + length + draw(st.integers(-1, 9)) * DAY + draw(st.sampled_from((-1, 0, 1)))
    query = Query("c", 2, ARMS, start, start + length, as_of, tuple(METRICS))
    return list(shown), [*log, *repeated], query


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(
    log=logs(),
    names=st.sets(st.sampled_from(sorted(METRICS)), min_size=4, max_size=5),
    zone=st.sampled_from(ZONES),
    watermark=st.sampled_from(("log", "now")),
    by_id=st.booleans(),
)
def test_all_four_agree_on_messy_logs(
    log: tuple[list[Exposure], list[Event], Query], names: set[str], zone: str, watermark: str, by_id: bool
) -> None:
    exposures, events, query = log
    metrics = {name: EventsMetricOptions.model_validate(METRICS[name]) for name in sorted(names)}
    query = replace(query, metrics=tuple(metrics))
    columns = Events(received="received", id="id" if by_id else None)
    expected = reference(exposures, events, query, metrics, ZoneInfo(zone), watermark, by_id=by_id)
    options = {"timezone": zone, "watermark": watermark}
    with TemporaryDirectory() as folder:
        write(Path(folder), exposures, events)
        for scheme in ("sqlite", "duckdb"):
            assert from_source(Path(folder), scheme, query, metrics, events=columns, **options) == same(
                expected
            ), scheme
    assert from_frames(exposures, events, query, metrics, event_columns=columns, **options) == same(expected)


def same(expected: dict[tuple[str, str, str], dict[str, float]]) -> dict[tuple[str, str, str], Any]:
    """Sums to the last digit; only the factor of a cluster is a quotient that rounds."""
    return {
        key: {
            name: pytest.approx(value, rel=1e-9) if name == "cluster" else value
            for name, value in stats.items()
        }
        for key, stats in expected.items()
    }


def test_it_is_not_vacuous(tmp_path: Path) -> None:
    start = int(STARTS["spring"].timestamp()) * 1_000_000
    exposures = [Exposure(f"u{i}", start + i * HOUR, ARMS[i % 3], 2, "c") for i in range(48)]
    events = [
        Event(f"u{i}", start + (i + 7 * j) * HOUR, ("open", "buy")[j % 2], float(i % 7), start, f"{i}-{j}")
        for i in range(48)
        for j in range(-6, 20)
    ]
    query = Query("c", 2, ARMS, start, start + 2 * DAY, start + 30 * DAY, tuple(METRICS))
    metrics = {name: EventsMetricOptions.model_validate(metric) for name, metric in METRICS.items()}
    expected = reference(exposures, events, query, metrics, ZoneInfo("Europe/Berlin"), "now", by_id=False)
    assert {name for name, _, _ in expected} == set(METRICS)
    assert all(
        any(s.get("sum", s.get("q", 0)) for (m, _, _), s in expected.items() if m == name) for name in METRICS
    )
    assert len({cohort for name, _, cohort in expected if name == "bought"}) >= 3
    write(tmp_path, exposures, events)
    columns = Events(received="received")
    for scheme in ("sqlite", "duckdb"):
        found = from_source(
            tmp_path, scheme, query, metrics, events=columns, timezone="Europe/Berlin", watermark="now"
        )
        assert found == same(expected)
    half = replace(query, as_of_us=start + 3 * DAY)
    early = from_frames(
        exposures, events, half, metrics, event_columns=columns, timezone="Europe/Berlin", watermark="now",
        exposure_columns=Exposures(),
    )  # fmt: skip
    assert early == same(
        reference(exposures, events, half, metrics, ZoneInfo("Europe/Berlin"), "now", by_id=False)
    )
    assert sum(s["n"] for (m, _, _), s in early.items() if m == "bought") < 48
