"""Prints the query of a metric, for people who would rather own it.

    python -m blackopt_connectors.events campaign.yaml day7 > queries/day7.sql

``use: sql`` takes the query of a SQLite database as a file; that of DuckDB binds ``$name`` for ``:name``.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from blackopt import Campaign
from blackopt.errors import BlackoptError, ConfigurationError
from blackopt_connectors.events.options import EventsOptions
from blackopt_connectors.events.source import EventsSource

_FIRST, _LAST = 2015, 2050


def main() -> int:
    """Print one query; the exit status is that of ``blackopt``."""
    parser = argparse.ArgumentParser(
        prog="python -m blackopt_connectors.events",
        description="Print the query of a metric of `use: events`.",
    )
    parser.add_argument("campaign", help="the campaign file")
    parser.add_argument("metric", help="name under measure.metrics")
    parser.add_argument("--first", type=int, default=_FIRST, help=f"first year of exposures ({_FIRST})")
    parser.add_argument("--last", type=int, default=_LAST, help=f"last year of exposures ({_LAST})")
    asked = parser.parse_args()
    try:
        sys.stdout.write(_text(asked.campaign, asked.metric, asked.first, asked.last))
    except BlackoptError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _text(campaign: str, metric: str, first: int, last: int) -> str:
    spec = Campaign.load(campaign).spec
    if spec.measure is None or not isinstance(spec.measure.options, EventsOptions):
        raise ConfigurationError("the campaign does not measure with `use: events`", where=campaign)
    declared = spec.measure.metrics
    if metric not in declared:
        known = ", ".join(declared)
        raise ConfigurationError(
            f"there is no metric {metric!r}", where=f"{campaign}, measure.metrics", why=f"it has {known}"
        )
    source = EventsSource(
        spec.measure.options, {name: it.options for name, it in declared.items()}, base=spec.base
    )
    head = f"-- {metric}: from exposures and events to statistics per arm and exposure day.\n"
    days = [round(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000 for year in (first, last + 1)]
    return head + source.text(metric, first_us=days[0], last_us=days[1])


if __name__ == "__main__":
    sys.exit(main())
