"""What is known beside what was told: restated values, and how good the surrogate was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from blackopt.ledger.rows import TellRow
from blackopt.report.tables import Column, details, table
from blackopt.runner.restated import Known
from blackopt.types import Estimate

Show = Callable[[Estimate], str]
"""An estimate for people, as HTML."""


def restated(tells: Sequence[TellRow], beside: Mapping[int, Known], show: Show) -> str:
    """A section with each told value that today's readings would make another; "" where there is none."""
    rows = []
    for tell in tells:
        now = beside.get(tell.trial, Known()).now
        if now is not None and tell.value is not None:
            rows.append([f"t{tell.trial}", show(Estimate(tell.value, tell.se, 0.0)), show(now)])
    if not rows:
        return ""
    columns = [Column("trial"), Column("told", number=True), Column("now", number=True)]
    return (
        "<h2>Restated metrics</h2><p class='sub'>The source has changed what it says of these since "
        "they were told. What was told stands: the search has built on it.</p>"
        + details(f"{len(rows)} restated", table(columns, rows), is_open=len(rows) <= 20)
    )


def surrogate(line: str | None, tells: Sequence[TellRow], beside: Mapping[int, Known], show: Show) -> str:
    """A section on how good the surrogate was, with the trials that matured since; "" without one.

    Args:
        line: what was declared, and what has shown since.
        tells: in their order.
        beside: what is known of each trial.
        show: writes an effect.
    """
    if line is None:
        return ""
    rows = []
    for tell in tells:
        matured = beside.get(tell.trial, Known()).matured
        if matured is not None and tell.value is not None:
            rows.append([f"t{tell.trial}", show(Estimate(tell.value, tell.se, 0.0)), show(matured)])
    columns = [Column("trial"), Column("told from it", number=True), Column("matured", number=True)]
    found = details(f"{len(rows)} matured since", table(columns, rows), is_open=False) if rows else ""
    words = "It ranks the candidates of the search; it promotes none."
    return f"<h2>Surrogate</h2><p>{escape(line)}</p><p class='sub'>{words}</p>{found}"
