"""``blackopt trials``: every trial and how it ended."""

from __future__ import annotations

from pathlib import Path

from blackopt.cli.main import Output
from blackopt.cli.output import as_json, as_table
from blackopt.runner.assembly import Parts, open_ledger
from blackopt.runner.budget import trials_asked
from blackopt.sdk import Campaign


def trials(path: Path, output: Output, last: int) -> None:
    """Read the ledger and print."""
    spec = Campaign.load(path).spec
    with Parts(spec) as parts, open_ledger(spec, read_only=True) as ledger:
        first = max(0, trials_asked(ledger.counts()) - last)
        told = {row.trial: row for row in ledger.tells() if row.trial >= first}
        rows = []
        for trial in ledger.trials(first=first):
            tell = told.get(trial.number)
            rows.append(
                {
                    "trial": trial.number,
                    "role": str(trial.role),
                    "window": trial.window,
                    "state": str(trial.state),
                    "status": str(tell.status) if tell else None,
                    "value": tell.value if tell else None,
                    "se": tell.se if tell else None,
                    "cause": trial.cause,
                    "params": parts.policy.space.decode(trial.vector),
                }
            )
    if output is Output.JSON:
        as_json(rows)
        return
    columns = ["trial", "role", "window", "state", "status", "value", "se", "cause"]
    as_table(columns, [[row[name] for name in columns] for row in rows])
