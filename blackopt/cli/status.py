"""``blackopt status``: where the campaign stands."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from blackopt.cli.main import Output
from blackopt.cli.output import as_json, as_list
from blackopt.ledger.lock import holder
from blackopt.ledger.rows import TrialState
from blackopt.runner.assembly import open_ledger
from blackopt.runner.budget import Left
from blackopt.sdk import Campaign


def status(path: Path, output: Output) -> None:
    """Read the ledger and print; never waits for the driver."""
    spec = Campaign.load(path).spec
    with open_ledger(spec, read_only=True) as ledger:
        counts = ledger.counts()
        data: dict[str, object] = {
            "campaign": spec.name,
            "ledger": str(spec.ledger),
            "mode": str(ledger.campaign.mode),
            "driven by": holder(spec.ledger) or "nobody",
            "budget": f"{spec.budget.trials - Left.of(ledger, spec.budget).search} of {spec.budget.trials} trials asked",
            "windows": len(ledger.windows()),
        }
        data |= {state.lower(): counts[state] for state in TrialState}
        data |= {key.replace(".", " "): n for key, n in counts.items() if key.startswith("told.") and n}
        data["started"] = f"{datetime.fromtimestamp(ledger.campaign.created_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if output is Output.JSON:
        as_json(data)
    else:
        as_list(data)
