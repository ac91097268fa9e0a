"""``blackopt backup``: a copy of the ledger that is whole."""

from __future__ import annotations

from pathlib import Path

import typer

from blackopt.runner.assembly import open_ledger
from blackopt.sdk import Campaign


def backup(path: Path, to: Path) -> None:
    """Copy, check the copy, and print its path."""
    spec = Campaign.load(path).spec
    with open_ledger(spec, read_only=True) as ledger:
        ledger.backup(to)
    typer.echo(str(to))
