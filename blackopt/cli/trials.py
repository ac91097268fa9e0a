"""``blackopt trials``: every trial and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from blackopt.artifacts import Keyed
from blackopt.campaign import CampaignSpec
from blackopt.cli.output import Output, as_json, as_table
from blackopt.ledger import Ledger
from blackopt.ledger.rows import TrialRow
from blackopt.runner.assembly import Parts, open_ledger
from blackopt.runner.budget import trials_asked
from blackopt.runner.judge import Judge
from blackopt.runner.restated import Known, calibrated, calibration, known
from blackopt.runner.wording import per_cent
from blackopt.sdk import Campaign
from blackopt.types import Estimate, Status

PARAMETERS_SHOWN = 8
"""With more parameters than this a table would not fit a screen; JSON has them all."""


def trials(path: Path, output: Output, last: int) -> None:
    """Read the ledger and print."""
    spec = Campaign.load(path).spec
    with Parts(spec) as parts, open_ledger(spec, read_only=True) as ledger:
        rows = _rows(parts, ledger, last)
        surrogate = None if output is Output.JSON else _surrogate(spec, ledger)
    if output is Output.JSON:
        as_json(rows)
        return
    _show(spec, rows)
    if surrogate is not None:
        typer.echo(surrogate)


def _rows(parts: Parts, ledger: Ledger, last: int) -> list[dict[str, Any]]:
    first = max(0, trials_asked(ledger.counts()) - last)
    told = {row.trial: row for row in ledger.tells() if row.trial >= first}
    trials = ledger.trials(first=first)
    beside = known(Judge(parts.spec), ledger, trials, told.values()) if parts.spec.measure is not None else {}
    rows = []
    for trial in trials:
        tell, more = told.get(trial.number), beside.get(trial.number, Known())
        rows.append(
            {
                "trial": trial.number,
                "role": str(trial.role),
                "window": trial.window,
                "state": str(trial.state).lower(),
                "status": str(tell.status) if tell else None,
                "value": tell.value if tell else None,
                "se": tell.se if tell else None,
                "so_far": _estimate(more.so_far),
                "now": _estimate(more.now),
                "matured": _estimate(more.matured),
                "cause": trial.cause,
                "params": _key(trial) if trial.keyed else parts.policy.space.decode(trial.vector),
            }
        )
    return rows


def _key(trial: TrialRow) -> dict[str, object]:
    """A candidate of a large model: which noise, around which version, which way and how far."""
    key = Keyed.decode(trial.body)
    return {"version": key.version, "key": key.key, "sign": key.sign, "sigma": key.sigma}


def _estimate(found: Estimate | None) -> dict[str, float | None] | None:
    return None if found is None else {"value": found.value, "se": found.se}


def _surrogate(spec: CampaignSpec, ledger: Ledger) -> str | None:
    """How good the surrogate has been so far, from all trials; None without one."""
    if spec.objective.surrogate is None:
        return None
    judge, trials = Judge(spec), ledger.trials()
    return calibrated(judge, calibration(judge, trials, known(judge, ledger, trials, ledger.tells())))


def _show(spec: CampaignSpec, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table without empty columns: how each ended, or where it is."""
    objective = spec.objective
    lift = objective.relative_to is not None and objective.effect == "relative"
    columns: dict[str, list[object]] = {
        "trial": [f"t{row['trial']}" for row in rows],
        "role": [row["role"] for row in rows],
        "window": [row["window"] for row in rows],
        "state": [row["status"] or row["state"] for row in rows],
        objective.metric + (" vs control" if objective.relative_to is not None else ""): [
            _told(row, lift=lift) for row in rows
        ],
        "± se": [_value(_part(row, "se"), lift=lift, sign=False) for row in rows],
        "now": [_value(_inner(row["now"]), lift=lift, sign=True) for row in rows],
        "matured": [_value(_inner(row["matured"]), lift=lift, sign=True) for row in rows],
    }
    names = list(rows[0]["params"]) if rows else []
    if len(names) <= PARAMETERS_SHOWN:
        columns |= {name: [row["params"].get(name) for row in rows] for name in names}
    columns["cause"] = [None if row["status"] == Status.OK else row["cause"] or None for row in rows]
    kept = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    as_table(list(kept), list(zip(*kept.values(), strict=True)))


def _told(row: Mapping[str, Any], *, lift: bool) -> str | float | None:
    """What was told; of a trial that is not, what it would be told from what is known today."""
    shown = _value(_part(row, "value"), lift=lift, sign=True)
    if row["so_far"] is None:
        return shown
    return f"{shown if isinstance(shown, str) else f'{shown:.6g}'} (so far)"


def _part(row: Mapping[str, Any], key: str) -> float | None:
    found: float | None = row[key] if row["so_far"] is None else row["so_far"][key]
    return found


def _inner(found: Mapping[str, float] | None) -> float | None:
    return None if found is None else found["value"]


def _value(value: float | None, *, lift: bool, sign: bool) -> str | float | None:
    return per_cent(value, sign=sign) if lift and value is not None else value
