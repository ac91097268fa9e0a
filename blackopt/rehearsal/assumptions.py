"""From what is stated or was read of the control to the production that a rehearsal simulates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from blackopt.campaign import CampaignSpec, GuardrailSpec
from blackopt.errors import ConfigurationError
from blackopt.metrics.guardrails import Side, parse_bound
from blackopt.rehearsal.history import Past
from blackopt.rehearsal.levels import stated
from blackopt.rehearsal.world import EVEN, World
from blackopt.runner.judge import Judge
from blackopt.runner.plan import COUNTED, Baseline

TWICE = 2.0
"""Where it is worst, a candidate goes so many times as far as its guardrail allows."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What nobody can read anywhere, and a person must say.

    Attributes:
        improve: the most that can be won, as a fraction of the objective.
        drift: standard deviation of a metric between days, relative, where its past does not say.
        wander: part of the way to another optimum that this one goes in a week.
        faults: probability of a fault in each order, poll and reading.
    """

    improve: float
    drift: float = 0.02
    wander: float = 0.0
    faults: float = 0.02


def needed(spec: CampaignSpec) -> list[str]:
    """Names of the metrics that decide anything, the objective first."""
    surrogate = spec.objective.surrogate
    names = [spec.objective.metric, *([surrogate.metric] if surrogate else [])]
    return list(dict.fromkeys([*names, *(g.metric for g in spec.guardrails)]))


def world(
    spec: CampaignSpec,
    baselines: Mapping[str, Baseline],
    pasts: Mapping[str, Past],
    units_per_day: float,
    wishes: Wishes,
) -> World:
    """The production that fits what is known.

    Args:
        spec: of a campaign in production.
        baselines: stated, for metrics without a past; a stated one wins.
        pasts: as read.
        units_per_day: that arrive in all.
        wishes: what is assumed beside.

    Raises:
        ConfigurationError: a metric that decides something has neither; every one is named.
    """
    names = needed(spec)
    missing = [name for name in names if name not in baselines and name not in pasts]
    if missing:
        kinds = Judge(spec).kinds
        given = [f"{n}={'RATE' if kinds[n].name in COUNTED else 'MEAN:SD'}" for n in missing]
        raise ConfigurationError(
            f"nothing says what {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} today",
            where="--baseline",
            why="a rehearsal simulates the objective, its surrogate and every guarded metric",
            safe="nothing was contacted",
            next_step="add " + " ".join(f"--baseline {one}" for one in given) + "; or `history` and --since",
        )
    kinds = Judge(spec).kinds
    objective = pasts.get(spec.objective.metric)
    levels = {n: stated(kinds[n], baselines[n]) if n in baselines else pasts[n].level for n in names}
    return World(
        levels=levels,
        units_per_day=units_per_day,
        weekdays=EVEN if objective is None else objective.weekdays,
        drift={n: pasts[n].drift if n in pasts else wishes.drift for n in names},
        improve=wishes.improve,
        harms=_harms(spec, {n: float(level.mean[0]) for n, level in levels.items()}),
        wander=wishes.wander,
        faults=wishes.faults,
    )


def _harms(spec: CampaignSpec, means: Mapping[str, float]) -> dict[str, float]:
    """Relative change of each guarded metric where it is worst; the objective has its own truth."""
    harms: dict[str, float] = {}
    taken = {spec.objective.metric, *([spec.objective.surrogate.metric] if spec.objective.surrogate else [])}
    for guardrail in spec.guardrails:
        if guardrail.metric not in taken:
            worst = TWICE * _margin(guardrail, means[guardrail.metric])
            harms[guardrail.metric] = max(harms.get(guardrail.metric, worst), worst, key=abs)
    return harms


def _margin(guardrail: GuardrailSpec, mean: float) -> float:
    """How far the bound is from today, relative to it, with the sign of harm."""
    bound = parse_bound(at_most=guardrail.at_most, at_least=guardrail.at_least)
    factor = bound.number if bound.relative else (bound.number / mean if mean else math.inf)
    margin = factor - 1.0
    harmful = margin > 0.0 if bound.side is Side.AT_MOST else margin < 0.0
    if not harmful or not math.isfinite(margin):
        raise ConfigurationError(
            f"the guardrail on {guardrail.metric} is crossed by what production serves today",
            where="guardrails",
            why=f"{bound} against {mean:g}, so it would withdraw every candidate",
            safe="nothing was contacted",
            next_step="mend the bound, or the --baseline",
        )
    return max(margin, -1.0 / TWICE)
