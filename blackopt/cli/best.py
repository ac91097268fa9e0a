"""``blackopt best``: the recommendation and what it is worth, in business words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import typer

from blackopt.cli.output import Output, as_json, as_table
from blackopt.runner.results import Evidence, Results
from blackopt.runner.standing import as_data as as_json_data
from blackopt.runner.wording import headline
from blackopt.sdk import Campaign


def best(path: Path, output: Output) -> None:
    """Read the ledger and print."""
    campaign = Campaign.load(path)
    show(campaign, campaign.results(), output)


def show(campaign: Campaign, found: Results, output: Output) -> None:
    """Print results that are at hand."""
    if output is Output.JSON:
        as_json(as_data(found))
        return
    typer.echo(headline(found))
    typer.echo("")
    before = "start" if campaign.spec.push is None else "incumbent"
    as_table(
        ["parameter", before, "recommended"],
        [[n, found.incumbent[n], v] for n, v in found.parameters.items()],
    )


def as_data(found: Results) -> Mapping[str, object]:
    """Results as JSON-able data."""
    estimate = found.estimate
    return {
        "campaign": found.name,
        "mode": str(found.mode),
        "metric": found.metric,
        "direction": "maximize" if found.maximize else "minimize",
        "relative_to_control": found.relative,
        "evidence": str(found.evidence),
        "proven": found.proven,
        "value": estimate.value if estimate else None,
        "se": estimate.se if estimate else None,
        "interval_95": list(found.interval) if found.interval else None,
        "treatment": found.treatment.value if found.treatment else None,
        "control": found.control.value if found.control else None,
        "parameters": dict(found.parameters),
        "incumbent": dict(found.incumbent),
        "vector": found.recommendation.tolist(),
        "fresh": found.evidence is Evidence.FRESH,
        "foretold_by": found.foretold or None,
        "promotion": as_json_data(found.promotion) if found.promotion else None,
    }
