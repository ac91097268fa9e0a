"""The same readings from pandas data frames, for notebooks: one meaning, whatever holds the rows.

    from blackopt_connectors.events import frames
    d7 = {"kind": "retention", "day": 7, "event": "open"}
    table = frames.readings(exposures, events, query, {"d7": d7})
    frames.write_csv(table, "readings.csv")        # for `use: csv`

Needs pandas (``pip install "blackopt[pandas]"``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from os import PathLike
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from blackopt.errors import UsageError
from blackopt.types import Query
from blackopt_connectors.events.options import (
    Covariate,
    Events,
    EventsMetricOptions,
    Exposures,
    Part,
    TimeUnit,
)
from blackopt_connectors.events.statistics import empty, statistics
from blackopt_connectors.events.text import EARLIEST_US, Z
from blackopt_connectors.events.zones import DAY_US, stretches

_FACTOR = {"us": 1, "ms": 1_000, "s": 1_000_000}
_KEYS = ["metric", "arm", "window", "cohort", "as_of"]


def readings(  # what a campaign says in one section
    exposures: pd.DataFrame,
    events: pd.DataFrame,
    query: Query,
    metrics: Mapping[str, EventsMetricOptions | Mapping[str, Any]],
    *,
    exposure_columns: Exposures | None = None,
    event_columns: Events | None = None,
    timezone: str = "UTC",
    time_unit: TimeUnit = "us",
    watermark: Literal["log", "now"] | int = "log",
) -> pd.DataFrame:
    """Sufficient statistics per metric, arm and exposure day.

    Args:
        exposures: a row for each time that a unit was served an arm.
        events: a row for each thing that a unit did.
        query: campaign, window, arms, times and names of metrics.
        metrics: what each is, with the keys that a campaign has (times in microseconds).
        exposure_columns, event_columns: what the columns are called, where they are not the defaults.
        timezone: where calendar days are counted.
        time_unit: how numbers and texts hold times; columns of pandas' own times need none.
        watermark: up to when events are complete: ``log``, ``now``, or microseconds UTC.

    Returns:
        A row for each reading: metric, arm, window, cohort, as_of, and the statistics that any metric needs.

    Raises:
        UsageError: a column or a metric is missing.
    """
    shown_columns, event_columns = exposure_columns or Exposures(), event_columns or Events()
    wanted = {name: _metric(name, metrics) for name in query.metrics}
    log = _events(events, event_columns, time_unit, query.as_of_us)
    known_us = _known(log, watermark, query.as_of_us, received=event_columns.received is not None)
    rows = []
    for name, metric in wanted.items():
        columns = metric.exposures or shown_columns
        days = _Days(
            timezone, query.start_us, query.end_us + metric.delay_us + ((metric.day or 0) + 2) * DAY_US
        )
        units = _exposed(exposures, columns, time_unit, query, days)
        units = _spans(_started(units, log, metric, known_us), metric, days, known_us)
        parts = {part: _once(log, units, of, metric, event_columns) for part, of in metric.parts.items()}
        found = (
            _quantile(metric, units, parts["num"])
            if metric.kind == "quantile"
            else _sums(metric, units, parts)
        )
        for arm in query.arms:
            own = [row for row in found if row["arm"] == arm] or [{"arm": arm, "cohort": "", **empty(metric)}]
            rows += [{"metric": name, "window": query.window, "as_of": known_us, **row} for row in own]
    names = dict.fromkeys(column for metric in wanted.values() for column in statistics(metric))
    return pd.DataFrame(rows, columns=[*_KEYS, *names])


def write_csv(table: pd.DataFrame, path: str | PathLike[str]) -> None:
    """Write readings as ``use: csv`` reads them: one file for all metrics, an empty cell is no value."""
    table.to_csv(path, index=False, lineterminator="\n")


class _Days:
    """Calendar days of a zone, for arrays of times."""

    def __init__(self, timezone: str, first_us: int, last_us: int) -> None:
        rows = stretches(ZoneInfo(timezone), first_us, last_us)
        self._starts = np.array([row.start_us for row in rows])
        self._firsts = np.array([row.first_day for row in rows])
        self._lasts = np.array([row.last_day for row in rows])
        self._offsets = np.array([row.offset_us for row in rows])

    def of(self, times: pd.Series[int]) -> pd.Series[int]:
        at = np.searchsorted(self._starts, times.to_numpy(), side="right") - 1
        days = (times.to_numpy() + self._offsets[at]) // DAY_US
        return pd.Series(np.minimum(days, self._lasts[at]), index=times.index)

    def start(self, days: pd.Series[int]) -> pd.Series[int]:
        at = np.searchsorted(self._firsts, days.to_numpy(), side="right") - 1
        return days * DAY_US - self._offsets[at]


def _metric(name: str, metrics: Mapping[str, EventsMetricOptions | Mapping[str, Any]]) -> EventsMetricOptions:
    if name not in metrics:
        raise UsageError(f"query.metrics: expected names among {sorted(metrics)}, got {name!r}")
    metric = metrics[name]
    return metric if isinstance(metric, EventsMetricOptions) else EventsMetricOptions.model_validate(metric)


def _column(table: pd.DataFrame, name: str, of: str) -> pd.Series[Any]:
    if name not in table.columns:
        raise UsageError(f"{of}: expected a column {name!r}, got {', '.join(map(str, table.columns))}")
    return table[name]


def _times(column: pd.Series[Any], unit: TimeUnit) -> pd.Series[Any]:
    """Microseconds UTC, as nullable integers."""
    if unit == "iso" or isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        found = pd.to_datetime(column, utc=True, errors="coerce", format="ISO8601")
        whole = found.dt.as_unit("us").astype("int64").astype("Int64")
        return whole.mask(found.isna())
    numbers = pd.to_numeric(column, errors="coerce")
    if unit == "s":
        numbers = (numbers * _FACTOR["s"]).round()
        return numbers.astype("Int64")
    return numbers.mask(numbers % 1 != 0).astype("Int64") * _FACTOR[unit]


def _events(events: pd.DataFrame, columns: Events, unit: TimeUnit, as_of_us: int) -> pd.DataFrame:
    """Events that were known then, beside all of their own columns."""
    log = events.assign(
        __unit=_column(events, columns.unit, "events"),
        __name=_column(events, columns.name, "events"),
        __t=_times(_column(events, columns.time, "events"), unit),
    )
    arrived = log["__t"]
    if columns.received is not None:
        arrived = _times(_column(events, columns.received, "events"), unit)
        log = log[(arrived <= as_of_us).fillna(value=False)]
    return log.assign(__arrived=arrived.loc[log.index])


def _known(
    log: pd.DataFrame, watermark: Literal["log", "now"] | int, as_of_us: int, *, received: bool
) -> int:
    if watermark == "now":
        return as_of_us
    if watermark != "log":
        return min(watermark, as_of_us)
    arrived = log["__arrived"] if received else log.loc[(log["__t"] <= as_of_us).fillna(value=False), "__t"]
    return int(arrived.max()) if len(arrived.dropna()) else 0


def _exposed(
    exposures: pd.DataFrame, columns: Exposures, unit: TimeUnit, query: Query, days: _Days
) -> pd.DataFrame:
    """Units with one arm: their first exposure and its day."""
    table = pd.DataFrame({
        "unit": _column(exposures, columns.unit, "exposures"),
        "arm": _column(exposures, columns.arm, "exposures") if columns.arm else "control",
        "t": _times(_column(exposures, columns.time, "exposures"), unit),
    })  # fmt: skip
    fits = table["t"].between(max(query.start_us, EARLIEST_US), query.end_us - 1) & (
        table["t"] <= query.as_of_us
    )
    for column, value in ((columns.campaign, query.campaign), (columns.window, query.window)):
        if column:
            fits &= _column(exposures, column, "exposures") == value
    if columns.received:
        fits &= _times(_column(exposures, columns.received, "exposures"), unit) <= query.as_of_us
    fits = fits.fillna(value=False).astype(bool) & table["unit"].notna() & table["arm"].notna()
    table = table[fits & (table["unit"] != "") & (table["arm"] != "")].astype({"t": "int64"})
    units = table.groupby("unit", sort=False).agg(t=("t", "min"), arm=("arm", "min"), other=("arm", "max"))
    units = units[units["arm"] == units["other"]].reset_index()
    return units.assign(shown=units["t"], cohort=days.of(units["t"]))[["unit", "arm", "shown", "cohort", "t"]]


def _started(
    units: pd.DataFrame, log: pd.DataFrame, metric: EventsMetricOptions, known_us: int
) -> pd.DataFrame:
    """Complete units; their window starts at the exposure or at their own event."""
    units = units[units["shown"] <= known_us - metric.delay_us]
    if metric.anchor is None:
        return units
    found = _joined(units, log, metric.anchor.event)
    found = found[(found["__t"] >= found["shown"]) & (found["__t"] < found["shown"] + metric.anchor.within)]
    first = found.groupby("unit")["__t"].min().astype("int64")
    return units[units["unit"].isin(first.index)].assign(
        t=lambda table: table["unit"].map(first).astype("int64")
    )


def _spans(units: pd.DataFrame, metric: EventsMetricOptions, days: _Days, known_us: int) -> pd.DataFrame:
    if metric.kind != "retention" or metric.day is None:
        return units.assign(start=units["t"], end=units["t"] + metric.window)
    first = 1 if metric.within else metric.day
    if metric.rolling:
        return units.assign(start=units["t"] + first * DAY_US, end=units["t"] + (metric.day + 1) * DAY_US)
    day = days.of(units["t"])
    start = units["t"] if metric.day == 0 else days.start(day + first)
    found = units.assign(start=start, end=days.start(day + metric.day + 1))
    return found[found["end"] <= known_us - metric.bake - metric.lag]


def _joined(units: pd.DataFrame, log: pd.DataFrame, event: str) -> pd.DataFrame:
    named = log[(log["__name"] == event).fillna(value=False).astype(bool) & log["__t"].notna()]
    return units.merge(
        named.astype({"__t": "int64"}), left_on="unit", right_on="__unit", suffixes=("", "_of_event")
    )


def _once(
    log: pd.DataFrame, units: pd.DataFrame, part: Part, metric: EventsMetricOptions, columns: Events
) -> pd.DataFrame:
    """Each event of the part once, with its unit, arm and value."""
    found = _joined(units, log, part.event)
    if isinstance(part, Covariate):
        before = round(part.before * 1_000_000)
        found = found[(found["__t"] >= found["shown"] - before) & (found["__t"] < found["shown"])]
    else:
        found = found[(found["__t"] >= found["start"]) & (found["__t"] < found["end"])]
    if metric.kind in ("proportion", "retention"):
        return found[["unit", "arm"]].drop_duplicates().assign(v=1)
    value = pd.Series(1, index=found.index)
    if part.value is not None:
        value = pd.to_numeric(_column(found, part.value, "events"), errors="coerce")
        value = value.where(value.abs() < 1e308)
    found = found.assign(v=value)
    if columns.id is None:
        return found.drop_duplicates(["unit", "__t", "v"])[["unit", "arm", "v"]]
    own = _column(found, columns.id, "events")
    nameless = found[own.isna()].drop_duplicates(["unit", "__t", "v"])
    named = found[own.notna()].sort_values("v", kind="stable").drop_duplicates(["unit", columns.id])
    return pd.concat([named, nameless])[["unit", "arm", "v"]]


def _sums(
    metric: EventsMetricOptions, units: pd.DataFrame, parts: Mapping[str, pd.DataFrame]
) -> list[dict[str, Any]]:
    table = units.set_index("unit")[["arm", "cohort"]]
    for name, events in parts.items():
        table[name] = events.groupby("unit")["v"].sum().reindex(table.index).fillna(0)
    table["happened"] = table.index.isin(parts["num"]["unit"])
    if metric.kind in ("proportion", "retention"):
        columns = {"sum": table["happened"]}
    else:
        columns = _products(metric, table) | {"events": table["happened"]}
    sums = pd.DataFrame({"arm": table["arm"], "cohort": table["cohort"], "n": 1} | columns)
    found = sums.groupby(["arm", "cohort"]).sum().reset_index()
    iso = pd.to_datetime(found["cohort"], unit="D").dt.strftime("%Y-%m-%d")
    rows: list[dict[str, Any]] = found.assign(cohort=iso).to_dict("records")  # type: ignore[assignment]
    return [
        {key: value if isinstance(value, str) else float(value) for key, value in row.items()} for row in rows
    ]


def _products(metric: EventsMetricOptions, table: pd.DataFrame) -> dict[str, pd.Series[Any]]:
    found: dict[str, pd.Series[Any]] = {}
    values = {name: table[name] for name in metric.parts}
    if metric.cap is not None:
        found = {"raw_sum": values["num"], "raw_sum_sq": values["num"] ** 2}
        values["num"] = values["num"].clip(upper=metric.cap)
    if metric.kind == "ratio" and metric.cuped:
        values["cov_den"] = pd.Series(1, index=table.index)
    for name, value in values.items():
        total = "sum" if name == "num" else f"{name}_sum"
        found |= {total: value, f"{total}_sq": value**2}
    return found | {f"{a}_{b}": values[a] * values[b] for a, b in combinations(values, 2)}


def _quantile(metric: EventsMetricOptions, units: pd.DataFrame, events: pd.DataFrame) -> list[dict[str, Any]]:
    level, rows = metric.quantile or 0.5, []
    known = events[events["v"].notna() & events["unit"].isin(units["unit"])]
    for arm, own in known.groupby("arm"):
        values, n = np.sort(own["v"].to_numpy()), len(own)
        half = Z * math.sqrt(n * (level * (1 - level)))
        low, high = max(math.floor(n * level - half), 1), min(math.floor(n * level + half) + 1, n)
        q = values[math.floor(n * level + 0.999999) - 1]
        row = {"n": n, "q": q, "q_lower": values[low - 1], "q_upper": values[high - 1]}
        row["cluster"] = _cluster(own.assign(inside=own["v"] <= q))
        rows.append({"arm": arm, "cohort": ""} | {key: float(value) for key, value in row.items()})
    return rows


def _cluster(events: pd.DataFrame) -> float:
    """Variance of the units' mean indicators over that of independent events (Deng et al. 2018, §4)."""
    units = events.groupby("unit")["inside"].agg(["sum", "size"]).astype("float64")
    m, d, k = units["sum"], units["size"], len(units)
    mm, dd = m.sum(), d.sum()
    above = k * ((m * m).sum() * dd * dd - 2 * mm * dd * (m * d).sum() + mm * mm * (d * d).sum())
    return above / ((k - 1) * dd * mm * (dd - mm)) if k > 1 and mm < dd and above > 0 else 1.0
