"""From a row of names and values to a reading: what SQL and CSV have in common.

A value that is no number does not hide the rest: it travels on as a text that says where it stood, and the
ledger rejects that one reading with an event. So nothing is lost and nothing is swallowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from blackopt.errors import ConfigurationError
from blackopt.types import Reading

STATS = (
    *("n", "sum", "sum_sq", "value", "se", "events", "raw_sum", "raw_sum_sq"),
    *("q", "q_lower", "q_upper", "cluster"),
    *("den_sum", "den_sum_sq", "num_den"),
    *("cov_sum", "cov_sum_sq", "num_cov"),
    *("cov_den_sum", "cov_den_sum_sq", "num_cov_den", "den_cov", "den_cov_den", "cov_cov_den"),
)
"""Statistics that a column may hold; which of them a metric needs is its kind's."""


def check_columns(columns: Sequence[str], extra: Sequence[str], required: Sequence[str], where: str) -> None:
    """Compare the columns that came with those that may.

    Raises:
        ConfigurationError: unknown, repeated or missing columns, or none with a statistic.
    """
    problems = [f"unknown column {name!r}" for name in columns if name not in STATS and name not in extra]
    problems += [
        f"column {name!r} twice" for name in sorted({name for name in columns if columns.count(name) > 1})
    ]
    problems += [f"no column {name!r}" for name in required if name not in columns]
    if not any(name in STATS for name in columns):
        problems.append("no column with a statistic")
    if problems:
        raise ConfigurationError(
            f"the columns are not those of a metric: {'; '.join(problems)}",
            where=where,
            why=f"expected {', '.join(STATS)}"
            + "".join(f", {name}" for name in extra)
            + f"; got {', '.join(columns) or 'none'}",
            safe="no reading was taken from it",
            next_step="name the columns so (in SQL with AS), then run `blackopt check`",
        )


def reading(
    metric: str, window: int, arm: str, cohort: str, as_of_us: int, stats: Mapping[str, object], where: str
) -> Reading:
    """A reading whose statistics are floats where they are numbers, and else texts that name the place."""
    values = {name: _value(value, f"{where}, column {name}") for name, value in stats.items()}
    return Reading(metric, window, arm, cohort, as_of_us, cast("Mapping[str, float]", values))


def _value(value: object, where: str) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return f"{str(value)[:80]!r} at {where}"
