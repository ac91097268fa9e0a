"""``blackopt report``: the campaign as one HTML file."""

from __future__ import annotations

from pathlib import Path

import typer

from blackopt.report import write_report
from blackopt.runner.assembly import Parts, open_ledger
from blackopt.sdk import Campaign


def report(path: Path, to: Path | None) -> None:
    """Write it and print its path."""
    spec = Campaign.load(path).spec
    to = to or spec.ledger.with_suffix(".html")
    with Parts(spec) as parts, open_ledger(spec, read_only=True) as ledger:
        write_report(parts, ledger, to)
    typer.echo(str(to))
