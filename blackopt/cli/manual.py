"""``blackopt ask`` and ``blackopt tell``: experiments by hand."""

from __future__ import annotations

from pathlib import Path

import typer

from blackopt.cli.output import Output, as_json, as_table
from blackopt.errors import UsageError
from blackopt.sdk import Campaign


def ask(path: Path, n: int, output: Output) -> None:
    """Draw candidates and print them; they are in the ledger by then."""
    asked = Campaign.load(path).ask(n)
    if output is Output.JSON:
        as_json([{"trial": a.number, "params": dict(a.params)} for a in asked])
        return
    names = list(asked[0].params)
    as_table(["trial", *names], [[a.number, *(a.params[name] for name in names)] for a in asked])


def tell(path: Path, trial: int, value: float | None, se: float | None, failed: str) -> None:
    """Report one result."""
    if (value is None) == (not failed):
        raise UsageError("give either --value (and --se) or --failed REASON")
    Campaign.load(path).tell(trial, value, se=se, failed=failed)
    typer.echo(f"told trial {trial}", err=True)
