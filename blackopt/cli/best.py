"""``blackopt best``: the recommendation and what it is worth, in business words; its artifact as a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import typer

from blackopt.cli.output import Output, as_json, as_table, say
from blackopt.errors import ConfigurationError
from blackopt.ledger.backup import publish
from blackopt.runner.results import Evidence, Results
from blackopt.runner.standing import as_data as as_json_data
from blackopt.runner.wording import headline
from blackopt.sdk import Campaign


def best(path: Path, output: Output, out: Path | None, *, force: bool) -> None:
    """Read the ledger and print; with ``out`` write what the policy makes of the recommendation.

    Raises:
        ConfigurationError: there is a file ``out``, and no ``force``.
        OSError: it cannot be written; what was there is as it was.
    """
    campaign = Campaign.load(path)
    if out is not None and out.exists() and not force:
        raise ConfigurationError(
            "the artifact would overwrite a file",
            where=str(out),
            safe="nothing was written",
            next_step="name a file that does not exist yet, or add --force",
        )
    found = campaign.results()
    if out is not None:
        artifact = campaign.render(found.recommendation)
        _write(artifact.body, out)
        say(f"artifact: {out} ({artifact.media_type}, {len(artifact.body)} bytes, sha256 {artifact.sha256})")
    show(campaign, found, output)


def _write(body: bytes, to: Path) -> None:
    """Whole and on the disk, or not at all."""
    part = to.with_name(f"{to.name}.{os.getpid()}.part")
    try:
        part.write_bytes(body)
        publish(part, to)
    finally:
        part.unlink(missing_ok=True)


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
