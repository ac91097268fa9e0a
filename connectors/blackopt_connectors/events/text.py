"""The query of a metric, as text: from exposures and events to sufficient statistics.

The text is one SELECT with a column for each statistic, one row for each arm and exposure day. It binds
campaign, window, window_start, window_end and as_of, so the same text that is run here can be printed, kept
in a file, edited, and run by ``use: sql``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from statistics import NormalDist
from zoneinfo import ZoneInfo

from blackopt_connectors.events.dialects import Dialect, literal
from blackopt_connectors.events.options import EventsMetricOptions, EventsOptions, Exposures, Part, Watermark
from blackopt_connectors.events.zones import DAY_US, stretches

Z = NormalDist().inv_cdf(0.975)
"""An interval of 95 %, as the kind ``quantile`` reads its ranks."""

EARLIEST_US = DAY_US
"""Before 1970-01-02 no time is believed: zeros, and seconds that were taken for microseconds."""


class QueryText:
    """Builds the text of queries over one pair of tables.

    Args:
        options: where the tables are, and what their columns are called.
        dialect: the database that runs it.
        first_us, last_us: exposures whose days the text can name, in microseconds UTC.
    """

    def __init__(self, options: EventsOptions, dialect: Dialect, first_us: int, last_us: int) -> None:
        self.options, self.dialect = options, dialect
        self._range = (first_us, last_us)

    def metric(self, metric: EventsMetricOptions, *, unusable: bool = False) -> str:
        """The statistics of a metric.

        Args:
            metric: what is measured.
            unusable: a further column with the number of events whose value is no number.
        """
        exposures = metric.exposures or self.options.exposures
        tables = [
            ("known(as_of)", False, self._known()),
            ("raw_exposures", False, self._exposures(exposures)),
            ("shown", True, self._shown()),
            ("zone(first_day, last_day, offset_us, start_us, end_us)", True, self._zone(metric)),
            *self._units(metric),
            ("log", False, self._log(metric)),
        ]
        if metric.kind == "quantile":
            tables += list(self._ranked(metric))
            last = self._quantile(unusable=unusable)
        else:
            tables.append(("per_unit", False, self._per_unit(metric)))
            last = self._sums(metric, unusable=unusable)
        return f"WITH\n{_listed(tables)}\n{last}\n"

    def facts(self, exposures: Exposures) -> str:
        """One row: up to when everything is known, units that saw two arms, exposures that are unusable."""
        tables = [
            ("known(as_of)", False, self._known()),
            ("raw_exposures", False, self._exposures(exposures)),
            ("shown", True, self._shown()),
        ]
        d = self.dialect
        usable = f"{d.filled('unit')} AND {d.filled('arm')} AND t >= {EARLIEST_US}"
        return (
            f"WITH\n{_listed(tables)}\nSELECT\n  (SELECT as_of FROM known) AS as_of,\n"
            "  (SELECT COUNT(*) FROM shown WHERE arm <> other_arm) AS crossed,\n"
            f"  (SELECT COUNT(*) FROM raw_exposures WHERE ({usable}) IS NOT TRUE) AS unusable\n"
        )

    def _known(self) -> str:
        as_of, watermark, events = self._bound("as_of"), self.options.watermark, self.options.events
        if watermark == "now":
            return f"SELECT {as_of}"
        if isinstance(watermark, Watermark):
            table, column = watermark.table, watermark.time
        else:
            table, column = events.table, events.received or events.time
        time = self._time(column)
        found = f"SELECT MAX({time}) AS t FROM {self.dialect.table(table)}"
        if not isinstance(watermark, Watermark):
            found += f" WHERE {time} <= {as_of}"
        least = f"CASE WHEN t < {as_of} THEN t WHEN t IS NULL THEN 0 ELSE {as_of} END"
        return f"SELECT {least}\n    FROM ({found}) AS mark"

    def _exposures(self, exposures: Exposures) -> str:
        d = self.dialect
        arm = d.column(exposures.arm) if exposures.arm else literal("control")
        where = [
            f"{d.column(column)} = {self._bound(variable)}"
            for column, variable in ((exposures.campaign, "campaign"), (exposures.window, "window"))
            if column
        ]
        if exposures.received:
            where.append(f"{self._time(exposures.received)} <= {self._bound('as_of')}")
        return (
            f"SELECT {d.column(exposures.unit)} AS unit, {arm} AS arm, {self._time(exposures.time)} AS t\n"
            f"    FROM {d.table(exposures.table)}" + (f"\n    WHERE {' AND '.join(where)}" if where else "")
        )

    def _shown(self) -> str:
        d = self.dialect
        return (
            "-- a unit's first exposure in the window decides; whoever saw two arms counts in none\n"
            "    SELECT unit, MIN(t) AS t, MIN(arm) AS arm, MAX(arm) AS other_arm\n    FROM raw_exposures\n"
            f"    WHERE t >= {self._bound('window_start')} AND t < {self._bound('window_end')}"
            f" AND t <= {self._bound('as_of')} AND t >= {EARLIEST_US}\n"
            f"      AND {d.filled('unit')} AND {d.filled('arm')}\n    GROUP BY unit"
        )

    def _zone(self, metric: EventsMetricOptions) -> str:
        first_us, last_us = self._range
        longest = metric.delay_us + ((metric.day or 0) + 2) * DAY_US
        rows = stretches(ZoneInfo(self.options.timezone), first_us, last_us + longest)
        texts = [f"({r.first_day}, {r.last_day}, {r.offset_us}, {r.start_us}, {r.end_us})" for r in rows]
        return f"-- calendar days of {self.options.timezone}\n    VALUES\n      " + ",\n      ".join(texts)

    def _units(self, metric: EventsMetricOptions) -> Iterator[tuple[str, bool, str]]:
        d = self.dialect
        day = d.least(f"(t + offset_us) {d.division} {DAY_US}", "last_day")
        complete = f"arm = other_arm AND t <= (SELECT as_of FROM known) - {metric.delay_us}"
        yield (
            "exposed",
            True,
            (
                "-- only units whose whole window has passed\n"
                f"    SELECT unit, arm, t AS shown_us, {day} AS cohort_day, t AS t\n    FROM shown"
                " JOIN zone ON t >= start_us AND t < end_us\n"
                f"    WHERE {complete}"
            ),
        )
        source = "exposed"
        if metric.anchor is not None:
            source = "started"
            event, within = literal(metric.anchor.event), metric.anchor.within
            yield (
                "started",
                True,
                (
                    "-- the window starts at the unit's own event; units without it have no metric\n"
                    "    SELECT u.unit AS unit, u.arm AS arm, u.shown_us AS shown_us,\n"
                    "      u.cohort_day AS cohort_day, MIN(e.t) AS t\n"
                    f"    FROM exposed AS u JOIN ({self._events(event, None)}) AS e ON e.unit = u.unit\n"
                    f"    WHERE e.t >= u.shown_us AND e.t < u.shown_us + {within}\n"
                    "    GROUP BY u.unit, u.arm, u.shown_us, u.cohort_day"
                ),
            )
        yield "units", True, self._spans(metric, source)

    def _spans(self, metric: EventsMetricOptions, source: str) -> str:
        head = "SELECT u.unit AS unit, u.arm AS arm, u.shown_us AS shown_us, u.cohort_day AS cohort_day"
        if metric.kind != "retention" or metric.day is None:
            return f"{head},\n      u.t AS from_us, u.t + {metric.window} AS until_us\n    FROM {source} AS u"
        first = 1 if metric.within else metric.day
        if metric.rolling:
            span = f"u.t + {first * DAY_US} AS from_us, u.t + {(metric.day + 1) * DAY_US} AS until_us"
            return f"{head},\n      {span}\n    FROM {source} AS u"
        d = self.dialect
        day = d.least(f"(u.t + z.offset_us) {d.division} {DAY_US}", "z.last_day")
        start = f"(d.day + {first}) * {DAY_US} - a.offset_us"
        if metric.day == 0:  # of the first day, what is left of it
            start = "d.t"
        end = f"(d.day + {metric.day + 1}) * {DAY_US} - b.offset_us"
        return (
            f"{head.replace('u.', 'd.')},\n      {start} AS from_us, {end} AS until_us\n"
            f"    FROM (SELECT u.unit, u.arm, u.shown_us, u.cohort_day, u.t, {day} AS day\n"
            f"      FROM {source} AS u JOIN zone AS z ON u.t >= z.start_us AND u.t < z.end_us) AS d\n"
            f"    JOIN zone AS a ON d.day + {first} >= a.first_day AND d.day + {first} <= a.last_day\n"
            f"    JOIN zone AS b ON d.day + {metric.day + 1} >= b.first_day"
            f" AND d.day + {metric.day + 1} <= b.last_day\n"
            f"    WHERE {end} <= (SELECT as_of FROM known) - {metric.bake + metric.lag}"
        )

    def _events(self, name: str, value: str | None, *, identity: bool = False) -> str:
        d, events = self.dialect, self.options.events
        columns = [f"{d.column(events.unit)} AS unit", f"{self._time(events.time)} AS t"]
        if value is not None:
            columns.append(f"{d.number(d.column(value))} AS v")
        if identity and events.id is not None:
            columns.append(f"{d.column(events.id)} AS id")
        where = [f"{d.column(events.name)} = {name}"]
        if events.received is not None:
            where.append(f"{self._time(events.received)} <= {self._bound('as_of')}")
        return f"SELECT {', '.join(columns)} FROM {d.table(events.table)} WHERE {' AND '.join(where)}"

    def _log(self, metric: EventsMetricOptions) -> str:
        """Every event that is asked for, once, beside the part it belongs to."""
        return "\n    UNION ALL\n    ".join(
            self._once(name, part, metric) for name, part in metric.parts.items()
        )

    def _once(self, name: str, part: Part, metric: EventsMetricOptions) -> str:
        before = getattr(part, "before", None)
        if before is not None:
            span = f"e.t >= u.shown_us - {round(before * 1_000_000)} AND e.t < u.shown_us"
        else:
            span = "e.t >= u.from_us AND e.t < u.until_us"
        events = self._events(literal(part.event), part.value, identity=True)
        join = f"FROM units AS u JOIN ({events}) AS e ON e.unit = u.unit\n      WHERE {span}"
        head = f"SELECT {literal(name)} AS part, unit, arm, cohort_day, v FROM"
        own = "u.unit AS unit, u.arm AS arm, u.cohort_day AS cohort_day"
        if metric.kind in ("proportion", "retention"):
            return f"{head} (SELECT DISTINCT {own}, 1 AS v {join}) AS once"
        value = "e.v" if part.value is not None else "1"
        if self.options.events.id is None:
            return f"{head} (SELECT DISTINCT {own}, e.t AS t, {value} AS v {join}) AS once"
        # Rows without an id are told apart by their content, like all rows of a table without that column.
        keys = "CASE WHEN e.id IS NULL THEN e.t END"
        keys += f", CASE WHEN e.id IS NULL THEN {value} END" if part.value is not None else ""
        return (
            f"{head} (SELECT {own}, MIN({value}) AS v {join}\n"
            f"      GROUP BY u.unit, u.arm, u.cohort_day, e.id, {keys}) AS once"
        )

    def _per_unit(self, metric: EventsMetricOptions) -> str:
        # One pass over units and their events together: a join of the two would need an index on its result.
        columns = ["MIN(arm) AS arm", "MIN(cohort_day) AS cohort_day"]
        columns += [
            f"COALESCE(SUM(CASE WHEN part = {literal(name)} THEN v END), 0) AS {name}"
            for name in metric.parts
        ]
        columns.append("MAX(CASE WHEN part = 'num' THEN 1 ELSE 0 END) AS happened")
        columns.append("SUM(CASE WHEN part <> '' AND v IS NULL THEN 1 ELSE 0 END) AS unusable")
        listed = ",\n      ".join(columns)
        return (
            f"SELECT\n      {listed}\n    FROM (\n"
            "      SELECT '' AS part, unit, arm, cohort_day, NULL AS v FROM units\n"
            "      UNION ALL SELECT part, unit, arm, cohort_day, v FROM log\n    ) AS rows_of_units\n"
            "    GROUP BY unit"
        )

    def _sums(self, metric: EventsMetricOptions, *, unusable: bool) -> str:
        columns = ["COUNT(*) AS n", *_statistics(metric, self.dialect)]
        if unusable:
            columns.append("SUM(unusable) AS unusable")
        listed = ",\n  ".join(columns)
        return (
            f"SELECT\n  arm, {self.dialect.date('cohort_day')} AS cohort,\n  {listed},\n"
            "  (SELECT as_of FROM known) AS as_of\nFROM per_unit\nGROUP BY arm, cohort_day\n"
            "ORDER BY arm, cohort_day"
        )

    def _ranked(self, metric: EventsMetricOptions) -> Iterator[tuple[str, bool, str]]:
        """Values in order within their arm, and the ranks that the kind ``quantile`` needs."""
        d, level = self.dialect, metric.quantile or 0.5
        mean, half = f"n * {_real(level)}", f"{_real(Z)} * sqrt(n * {_real(level * (1 - level))})"
        low, high = d.floor(f"{mean} - {half}"), d.floor(f"{mean} + {half}")
        yield (
            "ranked", True,
            ("SELECT arm, unit, v, ROW_NUMBER() OVER (PARTITION BY arm ORDER BY v) AS place\n"
            "    FROM log WHERE v IS NOT NULL"),
        )  # fmt: skip
        middle = d.floor(f"{mean} + 0.999999e0")
        yield (
            "ranks", True,
            (f"SELECT arm, n, {middle} AS middle,\n"
            f"      CASE WHEN {mean} - {half} < 1 THEN 1 ELSE {low} END AS low,\n"
            f"      {d.least(f'{high} + 1', 'n')} AS high\n"
            "    FROM (SELECT arm, COUNT(*) AS n FROM ranked GROUP BY arm) AS counted"),
        )  # fmt: skip
        yield (
            "picked", True,
            ("SELECT c.arm AS arm, c.n AS n, MIN(CASE WHEN place = middle THEN v END) AS q,\n"
            "      MIN(CASE WHEN place = low THEN v END) AS q_lower,"
            " MIN(CASE WHEN place = high THEN v END) AS q_upper\n"
            "    FROM ranked AS r JOIN ranks AS c ON c.arm = r.arm GROUP BY c.arm, c.n"),
        )  # fmt: skip
        yield (
            "inside", False,
            ("SELECT r.arm AS arm, r.unit AS unit, COUNT(*) AS d,\n"
            "      SUM(CASE WHEN v <= q THEN 1 ELSE 0 END) AS m\n"
            "    FROM ranked AS r JOIN picked AS p ON p.arm = r.arm GROUP BY r.arm, r.unit"),
        )  # fmt: skip
        yield (
            "clustered", False,
            ("-- the variance of units' mean indicators over that of independent events\n"
            "    -- (Deng, Knoblich & Lu, KDD 2018, section 4)\n"
            "    SELECT arm, COUNT(*) AS k, SUM(m) AS mm, SUM(d) AS dd,\n"
            "      SUM(m * m) AS m2, SUM(m * d) AS md, SUM(d * d) AS d2 FROM inside GROUP BY arm"),
        )  # fmt: skip
        yield "unread", False, (
            "SELECT arm, COUNT(*) AS unusable FROM log WHERE v IS NULL GROUP BY arm"
        )  # fmt: skip

    def _quantile(self, *, unusable: bool) -> str:
        above = "1e0 * k * (1e0 * m2 * dd * dd - 2e0 * mm * dd * md + 1e0 * mm * mm * d2)"
        below = "(1e0 * (k - 1) * dd * mm * (dd - mm))"
        return (
            "SELECT\n  p.arm AS arm, n, q, q_lower, q_upper,\n"
            f"  CASE WHEN k > 1 AND mm < dd AND {above} > 0 THEN {above} / {below} ELSE 1 END AS cluster,\n"
            + ("  COALESCE(unusable, 0) AS unusable,\n" if unusable else "")
            + "  (SELECT as_of FROM known) AS as_of\nFROM picked AS p JOIN clustered AS c ON c.arm = p.arm\n"
            "LEFT JOIN unread ON unread.arm = p.arm\nORDER BY p.arm"
        )

    def _bound(self, name: str) -> str:
        return self.dialect.variable(name)

    def _time(self, column: str) -> str:
        return self.dialect.time(self.dialect.column(column), self.options.time_unit)


def _statistics(metric: EventsMetricOptions, dialect: Dialect) -> Iterator[str]:
    if metric.kind in ("proportion", "retention"):
        yield "SUM(happened) AS sum"
        return
    num = "num"
    if metric.kind == "revenue":
        num = dialect.least("num", _real(metric.cap or 0))
        yield "SUM(num) AS raw_sum"
        yield "SUM(num * num) AS raw_sum_sq"
    parts = {"num": num} | {name: name for name in metric.parts if name != "num"}
    if metric.kind == "ratio" and "cov" in parts:
        parts["cov_den"] = "1"
    for name, expression in parts.items():
        total = "sum" if name == "num" else f"{name}_sum"
        yield f"SUM({expression}) AS {total}"
        yield f"SUM({expression} * {expression}) AS {total}_sq"
    for (a, first), (b, second) in combinations(parts.items(), 2):
        yield f"SUM({first} * {second}) AS {a}_{b}"
    yield "SUM(happened) AS events"


def _real(number: float) -> str:
    """A float64 constant: without an exponent DuckDB takes it for a decimal, and computes otherwise."""
    text = repr(float(number))
    return text if "e" in text else f"{text}e0"


def _listed(tables: list[tuple[str, bool, str]]) -> str:
    return ",\n".join(
        f"  {name} AS {'MATERIALIZED ' if kept else ''}(\n    {text}\n  )" for name, kept, text in tables
    )
