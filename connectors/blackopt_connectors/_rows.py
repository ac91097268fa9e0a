"""From a row of names and values to a reading: what SQL and CSV have in common.

A value that is no number does not hide the rest: it travels on as a text that says where it stood, and the
ledger rejects that one reading with an event. So nothing is lost and nothing is swallowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from blackopt.errors import WrongColumns
from blackopt.types import Reading

STATS = (
    *("n", "sum", "sum_sq", "value", "se", "events", "raw_sum", "raw_sum_sq"),
    *("q", "q_lower", "q_upper", "cluster"),
    *("den_sum", "den_sum_sq", "num_den"),
    *("cov_sum", "cov_sum_sq", "num_cov"),
    *("cov_den_sum", "cov_den_sum_sq", "num_cov_den", "den_cov", "den_cov_den", "cov_cov_den"),
)
"""Statistics that a column may hold; which of them a metric needs is its kind's."""

WITNESSES = ("cov_after",)
"""Columns beside the statistics that say whether these may be used: ``cov_after`` counts the units whose
covariate looks past their exposure."""


@dataclass(frozen=True, slots=True)
class PlacedReading(Reading):
    """A reading that says where it came from: a file and line, and the row where that is another thing."""

    where: str = ""


def check_columns(
    columns: Sequence[str],
    extra: Sequence[str],
    required: Sequence[str],
    whose: str,
    line: Callable[[str], str],
) -> None:
    """Compare the columns that came with those that may.

    Args:
        columns: names that came.
        extra: names that may come beside statistics.
        required: names that must come.
        whose: what returned them, for people: ``the query of sold``.
        line: where a column is named, as ``file:line``; of ``""``, where they all are.

    Raises:
        WrongColumns: unknown, repeated or missing columns, or none with a statistic.
    """
    known = (*STATS, *WITNESSES, *extra)
    wrong = [name for name in columns if name not in known]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    problems = [f"unknown column {name!r}" for name in wrong]
    problems += [f"column {name!r} twice" for name in twice]
    problems += [f"no column {name!r}" for name in required if name not in columns]
    if not any(name in STATS for name in columns):
        problems.append("no column with a statistic")
    if problems:
        raise WrongColumns(
            f"{whose} has wrong columns: {'; '.join(problems)}",
            where=line((wrong or twice or [""])[0]),
            why=f"expected some of {', '.join(known)}; got {', '.join(columns) or 'none'}",
            safe="no reading was taken from it",
            next_step="name the columns so (in SQL with AS), then run `blackopt check`",
        )


def reading(
    metric: str, window: int, arm: str, cohort: str, as_of_us: int, stats: Mapping[str, object], where: str
) -> PlacedReading:
    """A reading whose statistics are floats where they are numbers, and else texts that name the place."""
    values = {name: _value(value, f"{where}, column {name}") for name, value in stats.items()}
    return PlacedReading(metric, window, arm, cohort, as_of_us, cast("Mapping[str, float]", values), where)


def _value(value: object, where: str) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return f"{str(value)[:80]!r} at {where}"
