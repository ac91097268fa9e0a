"""``blackopt plan``: what a campaign can find out, how well and by when, before any traffic is spent."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import typer

from blackopt.campaign import CampaignSpec
from blackopt.campaign.units import UNITS_US, format_duration
from blackopt.cli.assumed import Control, Said, control, fraction, offline, percent
from blackopt.cli.output import Output, as_json, as_list, as_table, say
from blackopt.errors import ConfigurationError
from blackopt.metrics import power
from blackopt.rehearsal.history import Past
from blackopt.rehearsal.plan_picture import write_plan
from blackopt.runner.assembly import Parts
from blackopt.runner.plan import LEAST_SIGNAL, Choice, Plan, Search, require_traffic
from blackopt.runner.plan import plan as forecast
from blackopt.runner.promotion_cost import Promotion
from blackopt.sdk import Campaign

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def plan(
    path: Path,
    said: Said,
    *,
    improve: str | None,
    spread: str | None,
    plot: Path | None,
    output: Output,
    force: bool,
) -> None:
    """Forecast and print; nothing is contacted but, with --since, the source, for the control's past.

    Raises:
        ConfigurationError: an option is impossible, or the campaign cannot learn and ``force`` is not set.
        HistoryError: the past cannot be used.
    """
    spec = offline(path) if said.span is None else Campaign.load(path).spec
    require_traffic(spec)
    known = control(spec, said)
    wanted = fraction("--improve", improve)
    search = _search(spec, wanted, fraction("--spread", spread))
    found = forecast(spec, known.baselines, known.units_per_day, improve=wanted, search=search)
    if output is Output.JSON:
        as_json(asdict(found) | {"past": {name: _past(one) for name, one in known.pasts.items()}})
    else:
        _show_past(known)
        _show(found, spec)
    if plot is not None:
        write_plan(spec, found, plot)
        say(f"picture: {plot}")
    for warning in found.warnings:
        say(f"warning: {warning}")
    if not found.hopeless:
        return
    if force:
        say(f"warning: {found.hopeless}")
        return
    raise ConfigurationError(
        "this campaign cannot learn",
        where=str(path),
        why=found.hopeless,
        safe="nothing was spent",
        next_step="more traffic, longer windows, more trials; --spread if you know it; or --force",
    )


def _past(one: Past) -> dict[str, object]:
    return {
        "days": one.days,
        "units_per_day": one.units_per_day,
        "mean": one.baseline.mean,
        "sd": one.baseline.sd,
        "correlation": one.baseline.correlation,
        "weekdays": list(one.weekdays),
        "drift": one.drift,
        "overdispersion": one.overdispersion,
    }


def _show_past(known: Control) -> None:
    if not known.pasts:
        return
    as_table(
        ["read of the control", "days", "units/day", "mean", "sd", "CUPED leaves", "drift", "overdispersion"],
        [
            [
                name,
                one.days,
                round(one.units_per_day),
                one.baseline.mean,
                one.baseline.sd,
                None if one.baseline.correlation is None else percent(1.0 - one.baseline.correlation**2),
                percent(one.drift),
                round(one.overdispersion, 2),
            ]
            for name, one in known.pasts.items()
        ],
    )
    week = next(iter(known.pasts.values())).weekdays
    shown = [f"{day} {100 * factor:.0f} %" for day, factor in zip(DAYS, week, strict=True)]
    typer.echo(f"week: {', '.join(shown)}\n")


def _search(spec: CampaignSpec, improve: float | None, spread: float | None) -> Search:
    with Parts(spec) as parts:
        space, start = parts.policy.space, parts.policy.start()
        group = parts.learner().optimizer.group
    options = spec.optimizer.options
    sigma = getattr(options, "sigma", None)
    if spread is None and improve is not None and sigma is not None:
        reach = float(np.linalg.norm(np.maximum(start - space.lower, space.upper - start)))
        # Weights without bounds have no furthest corner: then it takes a person to say how candidates differ.
        spread = power.slope_spread(improve, sigma, reach) if math.isfinite(reach) else None
    arms = spec.traffic.arms if spec.traffic is not None else 1
    return Search(getattr(options, "population", None) or arms, group, spread)


def _show(found: Plan, spec: CampaignSpec) -> None:
    own = found.own
    as_table(
        ["metric", "baseline", "units/arm", "control", "SE of the effect", "one window sees"],
        [
            [
                m.metric,
                m.baseline,
                round(m.arm_units),
                round(m.control_units),
                percent(m.se),
                percent(m.detectable),
            ]
            for m in found.metrics
        ],
    )
    typer.echo("")
    facts: dict[str, object] = {
        "arms": f"{own.arms}, {found.windows} windows of {format_duration(own.window)} in the budget",
        "control": f"{found.control:.1%} of the traffic; least variance at {found.best_control:.1%}",
        "takes": f"{_days(own.takes)} days, from the first window to the last tell",
    }
    if found.improve is not None:
        facts["hoped for"] = f"{percent(found.improve)} of {spec.objective.metric}"
    if found.spread is not None:
        facts["candidates differ by"] = f"{percent(found.spread)} (standard deviation of their true effects)"
    if own.told != own.se:
        facts["told"] = f"with a standard error of {percent(own.told)}, from the surrogate"
    if own.signal is not None:
        facts["signal over noise"] = f"{own.generation_signal:.2f} an update, {own.signal:.2f} the search"
        facts["needed"] = f"{LEAST_SIGNAL} the search"
    if own.windows_needed is not None:
        facts["expected to take"] = f"{own.windows_needed} windows to {percent(found.improve)}"
    if own.confirm_power is not None:
        facts["confirmation"] = f"finds it with a probability of {own.confirm_power:.0%}"
    if found.promotion is not None:
        facts["promotion"] = _promotion(found.promotion)
    as_list(facts)
    typer.echo("")
    as_table(
        [
            "arms",
            "window",
            "units/arm",
            "SE",
            "one window sees",
            "signal",
            "windows needed",
            "confirmed",
            "days",
        ],
        [_row(choice) for choice in found.table],
    )


def _promotion(after: Promotion) -> str:
    looks = f"{after.looks} look{'s' if after.looks > 1 else ''}"
    proof = ""
    if after.power is not None and after.expected_looks is not None:
        proof = f", a proof with {after.power:.0%} after {after.expected_looks:.1f} on average"
    return (
        f"{looks}{proof}; {_days(after.tested)} days of test at most, then {_days(after.ramp)} of ramp "
        f"and {_days(after.holdback)} of holdback"
    )


def _row(choice: Choice) -> list[object]:
    return [
        choice.arms,
        format_duration(choice.window),
        round(choice.arm_units),
        percent(choice.se),
        percent(choice.detectable),
        None if choice.signal is None else round(choice.signal, 2),
        choice.windows_needed,
        None if choice.confirm_power is None else f"{100 * choice.confirm_power:.0f} %",
        _days(choice.takes),
    ]


def _days(us: int) -> float:
    return round(us / UNITS_US["d"], 1)
