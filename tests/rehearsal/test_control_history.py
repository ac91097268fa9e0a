"""The control's past from a real database: what it was and how it moved, or the row that cannot be."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from blackopt.errors import ConfigurationError
from blackopt.rehearsal.history import (
    ConstantHistory,
    EmptyHistory,
    HistoryError,
    ImmatureDay,
    ImpossibleDay,
    MissingDay,
    NoDay,
    Past,
    RepeatedDay,
    read_history,
)
from blackopt.runner.assembly import Parts

SINCE, UNTIL = date(2026, 1, 5), date(2026, 2, 2)
NOW_US = round(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1e6)
HISTORY = {"query": "past.sql"}
VISIT = {"visit": {"kind": "proportion", "query": "unused.sql", "window": "2d", "history": HISTORY}}


def days(n: int = 28) -> list[str]:
    return [str(SINCE + timedelta(days=i)) for i in range(n)]


def visits(units: int = 10_000, rate: float = 0.2) -> list[list[object]]:
    """Rows (cohort, n, sum, as_of) of four weeks; the weekend has half the units."""
    rng = np.random.default_rng(3)
    rows: list[list[object]] = []
    for i, day in enumerate(days()):
        n = units // 2 if i % 7 >= 5 else units
        rows.append([day, n, int(rng.binomial(n, rate)), NOW_US])
    return rows


COLUMNS = ("cohort", "n", "sum", "as_of")


@pytest.fixture
def read(make_spec: Any, past_db: Any) -> Any:
    def once(
        rows: list[list[object]], columns: tuple[str, ...] = COLUMNS, metrics: Any = None, **span: Any
    ) -> dict[str, Past]:
        past_db(columns, rows)
        spec = make_spec(measure={"metrics": metrics or VISIT})
        with Parts(spec) as parts:
            return read_history(
                parts, span.get("since", SINCE), span.get("until", UNTIL), now_us=span.get("now_us", NOW_US)
            )

    return once


def counted(rows: list[list[object]], column: int) -> float:
    return float(np.sum(np.array([row[column] for row in rows], dtype=float)))


def test_a_past_says_level_units_and_weekdays(read: Any) -> None:
    rows = visits()
    [(name, past)] = read(rows).items()
    assert name == "visit"
    assert past.days == 28
    assert past.units_per_day == pytest.approx(10_000 * 6 / 7)
    assert past.baseline.mean == pytest.approx(counted(rows, 2) / counted(rows, 1))
    assert past.baseline.sd is None
    assert past.weekdays == pytest.approx([7 / 6] * 5 + [7 / 12] * 2)
    assert past.drift < 0.015  # nothing moves but chance: 0.8 % to 1.1 % a day
    assert 0.4 < past.overdispersion < 1.9


def test_drift_is_what_sampling_does_not_explain(read: Any) -> None:
    rng = np.random.default_rng(5)
    rows = [
        [day, 1_000_000, int(rng.binomial(1_000_000, 0.2 * (1 + 0.05 * rng.standard_normal()))), NOW_US]
        for day in days()
    ]
    past = read(rows)["visit"]
    assert past.drift == pytest.approx(0.05, rel=0.35)
    assert past.overdispersion > 20


def test_a_covariate_leaves_the_variance_that_it_does_not_explain(read: Any) -> None:
    rng = np.random.default_rng(6)
    rows: list[list[object]] = []
    for day in days():
        x = rng.gamma(2.0, 5.0, 3_000)
        y = 3.0 + 0.8 * x + rng.normal(0.0, 4.0, 3_000)
        sums = [float(v) for v in (y.sum(), y @ y, x.sum(), x @ x, x @ y)]
        rows.append([day, 3_000, *sums, NOW_US])
    columns = ("cohort", "n", "sum", "sum_sq", "cov_sum", "cov_sum_sq", "num_cov", "as_of")
    spent = {"kind": "mean", "query": "unused.sql", "window": "1d", "cuped": True, "history": HISTORY}
    past = read(rows, columns, {"spent": spent})["spent"]
    sd = math.hypot(0.8 * 5.0 * math.sqrt(2.0), 4.0)
    assert past.baseline.mean == pytest.approx(11.0, rel=0.01)
    assert past.baseline.sd == pytest.approx(sd, rel=0.02)
    assert past.baseline.correlation == pytest.approx(0.8 * 5.0 * math.sqrt(2.0) / sd, rel=0.02)
    assert past.level.covariance[0, 1] == pytest.approx(0.8 * 50.0, rel=0.05)


def altered(row: int, **changes: object) -> list[list[object]]:
    rows = visits()
    for name, value in changes.items():
        rows[row][COLUMNS.index(name)] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ([], EmptyHistory, "no row from 2026-01-05 to 2026-02-01"),
        (altered(4, cohort="2026-01-05"), RepeatedDay, "row 5, and past.sql:1, row 1"),
        (altered(2, cohort="Wednesday"), NoDay, "'Wednesday'"),
        (altered(2, cohort="2025-01-01"), NoDay, "row 3"),
        (altered(3, sum=99_999), ImpossibleDay, "not between 0 and n"),
        (altered(3, sum="many"), ImpossibleDay, "row 4"),
        (altered(3, n=-1), ImpossibleDay, "row 4"),
        (altered(6, as_of=0), ImmatureDay, "2026-01-11"),
        ([row for row in visits() if row[0] != "2026-01-09"], MissingDay, "2026-01-09"),
        (altered(4, n=0, sum=0), MissingDay, "2026-01-09"),
        ([[day, 100, 0, NOW_US] for day in days()], ConstantHistory, "all 2800 units have 0"),
    ],
)
def test_a_row_that_cannot_be_is_named(
    rows: list[list[object]], error: type[HistoryError], says: str, read: Any
) -> None:
    with pytest.raises(error) as raised:
        read(rows)
    assert says in str(raised.value)
    assert "past.sql:1" in raised.value.where
    assert raised.value.safe
    assert raised.value.next_step


def test_a_negative_variance_is_named(read: Any) -> None:
    spent = {"kind": "mean", "query": "unused.sql", "window": "1d", "history": HISTORY}
    rows: list[list[object]] = [[day, 100, 1000.0, 11_000.0, NOW_US] for day in days()]
    rows[9][3] = 9_000.0
    with pytest.raises(ImpossibleDay, match="2026-01-14") as raised:
        read(rows, ("cohort", "n", "sum", "sum_sq", "as_of"), {"spent": spent})
    assert "row 10" in raised.value.where
    assert "less than" in raised.value.why


def test_wrong_columns_are_named(read: Any) -> None:
    with pytest.raises(ConfigurationError, match="unknown column 'visitors'") as raised:
        read([[day, 5] for day in days()], ("cohort", "visitors"))
    assert "past.sql:1" in raised.value.where


def test_a_span_shorter_than_a_week_and_a_campaign_without_history_are_refused(read: Any) -> None:
    with pytest.raises(ConfigurationError, match="6 days are too few"):
        read(visits(), until=SINCE + timedelta(days=6))
    with pytest.raises(ConfigurationError, match="no metric says how its past is read"):
        read(visits(), metrics={"visit": {"kind": "proportion", "query": "unused.sql"}})
