"""``blackopt status``: where the campaign stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from blackopt.campaign import CampaignSpec
from blackopt.cli.output import Output, as_json, as_list, iso, plural, utc
from blackopt.ledger import Ledger
from blackopt.ledger.lock import holder
from blackopt.ledger.rows import TrialState, WindowRow
from blackopt.runner.assembly import open_ledger
from blackopt.runner.budget import Left, trials_asked
from blackopt.runner.standing import as_data, standing
from blackopt.sdk import Campaign
from blackopt.types import Role, Status


def status(path: Path, output: Output) -> None:
    """Read the ledger and print; never waits for the driver."""
    spec = Campaign.load(path).spec
    with open_ledger(spec, read_only=True) as ledger:
        if output is Output.JSON:
            as_json(_for_programs(spec, ledger))
        else:
            as_list(_for_people(spec, ledger))


def _for_programs(spec: CampaignSpec, ledger: Ledger) -> Mapping[str, object]:
    counts, windows, driver = ledger.counts(), ledger.windows(), holder(spec.ledger)
    return {
        "campaign": spec.name,
        "mode": str(ledger.campaign.mode),
        "driven_by": str(driver) if driver else None,
        "budget": {role: {"of": of, "asked": of - left} for role, of, left in _budget(spec, ledger)},
        "trials": {str(state).lower(): counts[state] for state in TrialState},
        "told": {str(ended): counts[f"told.{ended}"] for ended in Status},
        "window": {
            "number": windows[-1].number,
            "role": str(windows[-1].role),
            "end": iso(windows[-1].end_us),
        }
        if windows
        else None,
        "promotion": as_data(found) if (found := standing(spec, ledger)) else None,
        "started": iso(ledger.campaign.created_us),
        "last_event": iso(_last_event_us(ledger)),
        "ledger": str(ledger.path),
    }


def _for_people(spec: CampaignSpec, ledger: Ledger) -> Mapping[str, object]:
    counts, windows = ledger.counts(), ledger.windows()
    data: dict[str, object] = {
        "campaign": f"{spec.name} ({spec.mode})",
        "mode": str(ledger.campaign.mode),
        "driven by": holder(spec.ledger) or "nobody",
    }
    for role, of, left in _budget(spec, ledger):
        data[role] = f"{of - left} of {plural(of, 'trial')} asked"
    in_flight = trials_asked(counts) - counts[TrialState.TOLD]
    data["in flight"] = _breakdown(
        in_flight, {str(s).lower(): counts[s] for s in TrialState if s is not TrialState.TOLD}
    )
    data["told"] = _breakdown(counts[TrialState.TOLD], {str(s): counts[f"told.{s}"] for s in Status})
    if windows:
        data["window"] = _window(windows[-1])
    if found := standing(spec, ledger):
        data["promotion"] = f"{found.number}: {found.text}"
    data["started"] = utc(ledger.campaign.created_us)
    data["last event"] = utc(_last_event_us(ledger))
    data["ledger"] = str(ledger.path)
    return data


def _budget(spec: CampaignSpec, ledger: Ledger) -> list[tuple[str, int, int]]:
    """(role, trials of the budget, trials left), for the search and, if there are any, the confirmations."""
    left = Left.of(ledger, spec.budget)
    parts = [
        (str(Role.SEARCH), spec.budget.trials, left.search),
        (str(Role.CONFIRM), spec.budget.confirm, left.confirm),
    ]
    return [part for part in parts if part[1]]


def _breakdown(total: int, parts: Mapping[str, int]) -> str:
    named = ", ".join(f"{n} {name}" for name, n in parts.items() if n)
    return f"{total} ({named})" if named else str(total)


def _window(window: WindowRow) -> str:
    return f"{window.number} ({window.role}), {utc(window.start_us)} to {utc(window.end_us)}"


def _last_event_us(ledger: Ledger) -> int:
    [row] = ledger.db.query("SELECT max(at_us) AS at_us FROM event")
    return int(row["at_us"])
