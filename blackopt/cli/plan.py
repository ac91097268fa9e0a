"""``blackopt plan``: what a campaign can find out, how well and by when, before any traffic is spent."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import typer

from blackopt.campaign import CampaignSpec
from blackopt.campaign.units import UNITS_US, format_duration
from blackopt.cli.output import Output, as_json, as_list, as_table, say
from blackopt.errors import ConfigurationError
from blackopt.metrics import power
from blackopt.runner.assembly import Parts
from blackopt.runner.plan import LEAST_SIGNAL, Baseline, Choice, Plan, Search
from blackopt.runner.plan import plan as forecast
from blackopt.sdk import Campaign

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?)\s*(%?)\s*", re.ASCII)


def plan(
    path: Path,
    *,
    baselines: Sequence[str],
    units: float,
    improve: str | None,
    spread: str | None,
    output: Output,
    force: bool,
) -> None:
    """Forecast and print; nothing is contacted.

    Raises:
        ConfigurationError: an option is impossible, or the campaign cannot learn and ``force`` is not set.
    """
    spec = Campaign.load(path).spec
    if not (math.isfinite(units) and units > 0.0):
        raise _wrong("--units", f"{units:g} units a day are none", "such as --units 20000")
    wanted = _fraction("--improve", improve)
    search = _search(spec, wanted, _fraction("--spread", spread))
    found = forecast(spec, dict(map(_baseline, baselines)), units, improve=wanted, search=search)
    if output is Output.JSON:
        as_json(asdict(found))
    else:
        _show(found, spec)
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
                _percent(m.se),
                _percent(m.detectable),
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
        facts["hoped for"] = f"{_percent(found.improve)} of {spec.objective.metric}"
    if found.spread is not None:
        facts["candidates differ by"] = f"{_percent(found.spread)} (standard deviation of their true effects)"
    if own.signal is not None:
        facts["signal over noise"] = f"{own.generation_signal:.2f} an update, {own.signal:.2f} the search"
        facts["needed"] = f"{LEAST_SIGNAL} the search"
    if own.windows_needed is not None:
        facts["expected to take"] = f"{own.windows_needed} windows to {_percent(found.improve)}"
    if own.confirm_power is not None:
        facts["confirmation"] = f"finds it with a probability of {own.confirm_power:.0%}"
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


def _row(choice: Choice) -> list[object]:
    return [
        choice.arms,
        format_duration(choice.window),
        round(choice.arm_units),
        _percent(choice.se),
        _percent(choice.detectable),
        None if choice.signal is None else round(choice.signal, 2),
        choice.windows_needed,
        None if choice.confirm_power is None else f"{100 * choice.confirm_power:.0f} %",
        _days(choice.takes),
    ]


def _baseline(text: str) -> tuple[str, Baseline]:
    """``METRIC=RATE`` or ``METRIC=MEAN:SD``."""
    name, _, numbers = text.partition("=")
    mean, colon, sd = numbers.partition(":")
    found = Baseline(_number(mean), _number(sd) if colon else None)
    if not name or math.isnan(found.mean) or (found.sd is not None and not found.sd >= 0.0):
        raise _wrong("--baseline", f"{text!r} is no baseline", "such as visit_14d=8% or revenue=12.5:40")
    return name, found


def _fraction(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    value = _number(text)
    if not 0.0 < value <= 1.0:
        raise _wrong(option, f"{text!r} is not between 0 and 100%", f"such as {option} 3%")
    return value


def _number(text: str) -> float:
    """``8%`` or ``0.08``; NaN for anything else."""
    found = _NUMBER.fullmatch(text)
    return float(found[1]) / (100.0 if found[2] else 1.0) if found else math.nan


def _wrong(option: str, what: str, next_step: str) -> ConfigurationError:
    return ConfigurationError(what, where=option, safe="nothing was spent", next_step=next_step)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100.0 * fraction:.3g} %"


def _days(us: int) -> float:
    return round(us / UNITS_US["d"], 1)
