"""Promotions: how often noise is promoted, what is found, and what guardrails and harm come to.

    python benchmarks/promotion.py [--quick] [--seeds N] [--json FILE]

**Noise.** In each campaign every candidate is exactly as good as the incumbent. ``openai-es`` is told lifts
of a retention of 20 % that are binomial noise; beside it, somebody keeps the best of the same trials. What
either recommends is tested by ``blackopt.metrics.promotion.decide`` on fresh units, and whatever is promoted
is a false promotion. On the same data: promoting because the search's best looks significant, and peeking at
a growing sample with a fixed threshold.

**A real effect**, of the size that the fixed horizon finds in 80 % of the cases: how many are promoted, with
how much of the traffic, how far off the estimates are, and how often their intervals hold the truth.

**Guardrails.** The objective is much better; complaints (2 %) are as they were, exactly at the margin of 10 %
(or at the limit of 2.2 %), or worse.

**Harm** as large as that effect.

Exits with 1 if anything false is promoted more often than its level allows, beyond what chance explains
(binomial 99 % intervals are printed).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import binomtest

from blackopt import Optimizer
from blackopt.metrics.effects import Estimates
from blackopt.metrics.guardrails import parse_bound
from blackopt.metrics.kinds import kind
from blackopt.metrics.promotion import (
    Decision,
    Guardrail,
    GuardrailLook,
    Look,
    Plan,
    Ruling,
    decide,
    unbiased,
)
from blackopt.types import Estimate

Array: TypeAlias = np.ndarray[Any, Any]

ALPHA, ALPHA_GUARD, POWER = 0.025, 0.05, 0.80
RETAINED, COMPLAINTS, MARGIN = 0.20, 0.02, 1.10
PLANS = (1, 3, 5)
BLOCKS, BLOCK = 15, 4_000  # of units an arm, in all; each plan's looks are some of them together
POPULATION, GENERATIONS, SMALL = 8, 4, 1_000  # the search: candidates a generation, units a candidate
WIDTH = 72  # of what a row is about
NORMAL = NormalDist()
RETENTION = kind("retention")
# The lift that a test of all the units finds with that power: delta method, equal rates.
PLANNED = (NORMAL.inv_cdf(1 - ALPHA) + NORMAL.inv_cdf(POWER)) * math.sqrt(
    2 * (1 - RETAINED) / (RETAINED * BLOCKS * BLOCK)
)


@dataclass(frozen=True)
class Share:
    """How often something happened, with its exact binomial 99 % interval; ``allowed``: its level, if any."""

    what: str
    happened: int
    of: int
    allowed: float | None = None

    @property
    def share(self) -> float:
        return self.happened / self.of

    @property
    def interval(self) -> tuple[float, float]:
        found = binomtest(self.happened, self.of).proportion_ci(0.99, method="exact")
        return float(found.low), float(found.high)

    @property
    def beyond(self) -> bool:
        return self.allowed is not None and self.interval[0] > self.allowed

    def __str__(self) -> str:
        low, high = self.interval
        level = "" if self.allowed is None else f"{self.allowed:>10.1%}"
        return f"{self.what:<{WIDTH}}{self.share:>8.2%}   {low:>6.2%} to {high:>6.2%}{level}"


def plan(looks: int, *guardrails: Guardrail) -> Plan:
    return Plan(looks=looks, alpha=ALPHA, guardrails=guardrails)


def named(looks: int) -> str:
    return "fixed horizon" if looks == 1 else f"O'Brien-Fleming, {looks} looks"


def counts(rng: np.random.Generator, campaigns: int, rate: float) -> Array:
    """Events of one arm: shape (campaigns, BLOCKS)."""
    return rng.binomial(BLOCK, rate, (campaigns, BLOCKS)).astype(np.float64)


def looked(blocks: Array, looks: int) -> Array:
    """Sums of each look's blocks: shape (campaigns, looks)."""
    together: Array = blocks.reshape(len(blocks), looks, -1).sum(axis=2)
    return together


def lifts(treatment: Array, control: Array, units: float) -> Estimates:
    """The lift of each pair of counts, flattened."""
    arms = [{"n": np.full(a.size, units), "sum": a.ravel()} for a in (treatment, control)]
    return RETENTION.effects(arms[0], arms[1], relative=True)


def effects(treatment: Array, control: Array, looks: int) -> list[list[Estimate]]:
    """The effects of each campaign's looks."""
    found = lifts(looked(treatment, looks), looked(control, looks), BLOCK * BLOCKS / looks)
    flat = [
        Estimate(float(v), float(s), float(n)) for v, s, n in zip(found.value, found.se, found.n, strict=True)
    ]
    return [flat[i : i + looks] for i in range(0, len(flat), looks)]


def run(chosen: Plan, looks: Sequence[Look]) -> Decision:
    """One promotion, look by look, as it would be run."""
    for k in range(1, len(looks) + 1):
        decision = decide(chosen, looks[:k])
        if decision.outcome is not Ruling.GO_ON:
            break
    return decision


def promotions(treatment: Array, control: Array, looks: int) -> list[Decision]:
    """The promotion of each campaign, without guardrails."""
    return [run(plan(looks), [Look(e, {}) for e in es]) for es in effects(treatment, control, looks)]


def promoted(decisions: Sequence[Decision]) -> int:
    return sum(one.outcome is Ruling.PROMOTE for one in decisions)


# -- noise ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Searched:
    """What a search on noise ends with.

    Attributes:
        recommendation: the optimizer's centre.
        best: the candidate with the best value, which is ``best_lift``, and that over its standard error.
    """

    recommendation: dict[str, object]
    best: dict[str, object]
    best_lift: float
    best_z: float


def truth(_point: dict[str, object]) -> float:
    """The true retention at any point at all: there is nothing to be found."""
    return RETAINED


def search(rng: np.random.Generator, seed: int) -> Searched:
    """One campaign of ``openai-es``: each generation beside a control of its own."""
    optimizer = Optimizer(
        {"x": {"float": [-1, 1]}, "y": {"float": [-1, 1]}},
        "openai-es",
        population=POPULATION,
        seed=seed,
    )
    best: dict[str, object] = {}
    best_lift = best_z = -math.inf
    for _ in range(GENERATIONS):
        proposals = optimizer.ask(POPULATION)
        sums = rng.binomial(SMALL, [truth(p.params) for p in proposals]).astype(np.float64)
        control = np.full(POPULATION, float(rng.binomial(SMALL, RETAINED)))
        found = lifts(sums, control, SMALL)
        for proposal, lift, se in zip(proposals, found.value.tolist(), found.se.tolist(), strict=True):
            optimizer.tell(proposal.number, -lift, se=se)
            if lift > best_lift:
                best, best_lift, best_z = proposal.params, lift, lift / se
    return Searched(optimizer.recommend(), best, best_lift, best_z)


def noise(campaigns: int, seed: int) -> tuple[list[Share], float]:
    """False promotions by rule, and the mean lift that the search's best seemed to have."""
    rng = np.random.default_rng([seed, 1])
    found = [search(rng, seed * campaigns + i) for i in range(campaigns)]
    rows = []
    for who, points in (
        ("openai-es", [one.recommendation for one in found]),
        (f"best of {POPULATION * GENERATIONS}", [one.best for one in found]),
    ):
        rates = np.array([truth(point) for point in points])
        treatment = rng.binomial(BLOCK, rates[:, None], (campaigns, BLOCKS)).astype(np.float64)
        control = counts(rng, campaigns, RETAINED)
        rows += [
            Share(f"{who}: {named(k)}", promoted(promotions(treatment, control, k)), campaigns, ALPHA)
            for k in PLANS
        ]
        rows += peeks(who, treatment, control)
    looks_good = sum(one.best_z > NORMAL.inv_cdf(1 - ALPHA) for one in found)
    rows.append(Share("the search's own best at z > 1.96, without a test", looks_good, campaigns))
    return rows, math.fsum(one.best_lift for one in found) / campaigns


def peeks(who: str, treatment: Array, control: Array) -> list[Share]:
    """Naive rules: promote as soon as the z of all data so far exceeds a fixed number."""
    rows = []
    for looks in (5, BLOCKS):
        sums = [np.cumsum(looked(arm, looks), axis=1) for arm in (treatment, control)]
        units = np.arange(1, looks + 1) * (BLOCK * BLOCKS / looks)
        rates = [s / units for s in sums]
        se = np.sqrt(sum(r * (1 - r) for r in rates) / units)
        z = (rates[0] - rates[1]) / se
        for level in (1.960, 1.645):
            happened = int((z > level).any(axis=1).sum())
            rows.append(Share(f"{who}: naive, z > {level:.3f} at each of {looks} looks", happened, len(z)))
    return rows


# -- a real effect, and harm ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """Promotions where the recommendation has a true effect.

    Attributes:
        traffic: mean part of the planned looks that was used.
        pooled, median: medians of the estimates at the end, ordinary and median-unbiased, over the truth;
            None where they were not asked for.
        naive, repeated: shares of the intervals at the end that hold the truth.
    """

    plan: str
    campaigns: int
    promoted: int
    traffic: float
    pooled: float | None
    median: float | None
    naive: float
    repeated: float


def real(looks: int, lift: float, campaigns: int, estimated: int, seed: int) -> Found:
    """Recommendations with this true lift; the estimates of the first few are corrected."""
    rng = np.random.default_rng([seed, 2])  # the same data for every plan
    treatment, control = counts(rng, campaigns, RETAINED * (1 + lift)), counts(rng, campaigns, RETAINED)
    decisions = promotions(treatment, control, looks)
    seen = effects(treatment, control, looks)[:estimated]
    pooled = median = None
    if estimated:
        pooled = float(np.median([d.effect.value for d in decisions[:estimated]])) / lift
        ends = zip(seen, decisions, strict=False)
        medians = [unbiased(plan(looks), [Look(e, {}) for e in es[: d.looks]]) for es, d in ends]
        median = float(np.median(medians)) / lift
    held = [(d.naive[0] <= lift <= d.naive[1], d.interval[0] <= lift <= d.interval[1]) for d in decisions]
    return Found(
        named(looks),
        campaigns,
        promoted(decisions),
        math.fsum(d.looks for d in decisions) / campaigns / looks,
        pooled,
        median,
        sum(n for n, _ in held) / campaigns,
        sum(r for _, r in held) / campaigns,
    )


# -- guardrails -------------------------------------------------------------------------------------------


def guarded(looks: int, bound: str | float, ratio: float, campaigns: int, seed: int) -> Share:
    """Recommendations that are much better, and whose complaints are so many times the control's."""
    rng = np.random.default_rng([seed, 3])
    rule = Guardrail("complaints", parse_bound(at_most=bound), alpha=ALPHA_GUARD, percent=True)
    arms = [looked(counts(rng, campaigns, COMPLAINTS * times), looks).tolist() for times in (ratio, 1.0)]
    units, proportion = BLOCK * BLOCKS / looks, kind("proportion")
    better = Estimate(1.0, 0.01, 2 * units)
    happened = 0
    for pairs in zip(*arms, strict=True):
        seen = [
            GuardrailLook(
                proportion.estimate({"n": units, "sum": mine}),
                proportion.estimate({"n": units, "sum": theirs}),
                events=(mine, theirs),
            )
            for mine, theirs in zip(*pairs, strict=True)
        ]
        decision = run(plan(looks, rule), [Look(better, {"complaints": one}) for one in seen])
        happened += decision.outcome is Ruling.PROMOTE
    what = f"{'at most ' + str(rule.bound):<24}truly {ratio:.2f} * control, {named(looks)}"
    return Share(what, happened, campaigns, ALPHA_GUARD if ratio >= MARGIN else None)


# -- tables -----------------------------------------------------------------------------------------------


def together(repeats: Sequence[Sequence[Share]]) -> list[Share]:
    """The same rows of several seeds as one."""
    return [
        Share(rows[0].what, sum(r.happened for r in rows), sum(r.of for r in rows), rows[0].allowed)
        for rows in zip(*repeats, strict=True)
    ]


def mean_found(rows: Sequence[Found]) -> Found:
    """The same row of several seeds as one."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return math.fsum(known) / len(known) if known else None

    return Found(
        rows[0].plan,
        sum(r.campaigns for r in rows),
        sum(r.promoted for r in rows),
        math.fsum(r.traffic for r in rows) / len(rows),
        mean([r.pooled for r in rows]),
        mean([r.median for r in rows]),
        math.fsum(r.naive for r in rows) / len(rows),
        math.fsum(r.repeated for r in rows) / len(rows),
    )


def show(title: str, rows: Sequence[Share]) -> None:
    print(f"\n{title}\n\n{'':<{WIDTH}}{'promoted':>8}   {'99 % interval':>16}{'allowed':>10}")
    for row in rows:
        print(row)


def show_found(title: str, rows: Sequence[Found]) -> None:
    print(f"\n{title}\n\n{'plan':<28}{'promoted':>10}{'traffic':>10}", end="")
    print(f"{'estimate':>10}{'corrected':>11}{'naive CI':>10}{'repeated CI':>13}")
    for r in rows:
        print(f"{r.plan:<28}{r.promoted / r.campaigns:>10.2%}{r.traffic:>10.0%}", end="")
        print(f"{_part(r.pooled):>10}{_part(r.median):>11}{r.naive:>10.1%}{r.repeated:>13.1%}")


def _part(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="200 campaigns in place of 5,000")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="repetitions, counted together")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    campaigns, estimated = (200, 40) if options.quick else (5_000, 1_000)
    seeds = range(max(1, options.seeds))

    noises = [noise(campaigns, seed) for seed in seeds]
    null = together([rows for rows, _ in noises])
    seemed = math.fsum(lift for _, lift in noises) / len(noises)
    power = [mean_found([real(k, PLANNED, campaigns, estimated, s) for s in seeds]) for k in PLANS]
    harm = [mean_found([real(k, -PLANNED, campaigns, 0, s) for s in seeds]) for k in PLANS]
    cases = [
        (bound, ratio, k)
        for bound in (f"{MARGIN:g} * control", MARGIN * COMPLAINTS)
        for ratio in (1.0, MARGIN, 1.2)
        for k in PLANS
    ]
    guard = together([[guarded(k, bound, ratio, campaigns, s) for bound, ratio, k in cases] for s in seeds])
    harmed = [Share(f"harm: {row.plan}", row.promoted, row.campaigns, ALPHA) for row in harm]

    total = len(seeds) * campaigns
    print(
        f"{total:,} campaigns; tests of {BLOCKS * BLOCK:,} units an arm in all, one-sided level {ALPHA:.1%}"
    )
    show("Noise: every candidate is as good as the incumbent", null)
    print(
        f"\nthe best of {POPULATION * GENERATIONS} trials seemed to have a lift of {seemed:+.1%}; it has none"
    )
    show_found(f"A real lift of {PLANNED:+.2%}", power)
    show("Guardrails: complaints of 2 %, and a much better objective", guard)
    show_found(f"Harm: a lift of {-PLANNED:+.2%}", harm)
    print(
        "\ntraffic: of the planned looks; estimates: median over the truth; CI: intervals that hold the truth"
    )
    if options.json is not None:
        tables: dict[str, Sequence[Share | Found]] = {
            "noise": null,
            "power": power,
            "guardrails": guard,
            "harm": harm,
        }
        text = json.dumps({name: [asdict(row) for row in rows] for name, rows in tables.items()}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    failed = [row.what for row in [*null, *guard, *harmed] if row.beyond]
    if failed:
        print(f"promoted too often: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
