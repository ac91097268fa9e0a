"""What `blackopt plan` forecasts against what simulated campaigns then do.

    python benchmarks/forecast.py [--quick] [--seeds N] [--json FILE]

Each campaign is planned, and then rehearsed by the real loop once for each seed, each time with another
truth and other units. Printed for each figure: the forecast, the mean of what was simulated, its standard
error, and their ratio. What follows from sampling alone (standard errors, power, days) must agree, and the
command exits with 1 where it does not. What also follows from the shape of the truth (the signal, the windows
needed) is forecast for a slope, and is printed with its ratio for whoever plans.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from blackopt.campaign import CampaignSpec, from_mapping
from blackopt.campaign.units import UNITS_US
from blackopt.ledger import Ledger
from blackopt.metrics import power
from blackopt.rehearsal.assumptions import Wishes, world
from blackopt.rehearsal.landscape import Landscape
from blackopt.rehearsal.outcome import Rehearsal
from blackopt.rehearsal.run import rehearse
from blackopt.rehearsal.world import World
from blackopt.runner.assembly import Parts
from blackopt.runner.plan import Baseline, Plan, Search, plan
from blackopt.types import Role, Status

DAY_US = UNITS_US["d"]
UNITS, RATE, IMPROVE = 400_000.0, 0.08, 0.04
GRACE = 3.5
"""Standard errors of what is simulated by which a forecast may miss it, beside :data:`ROUNDING`."""

ROUNDING = 0.03
"""Part of a forecast that is given away by its formulas: normal tails, a delta method, whole polls."""


def campaign(base: Path, *, arms: int, days: int, trials: int) -> CampaignSpec:
    return from_mapping(
        {
            "version": 1,
            "name": "forecast",
            "policy": {
                "use": "parameters",
                "space": {name: {"float": [0, 1], "start": 0.3} for name in "abcd"},
            },
            "optimizer": {"use": "openai-es", "population": 16, "sigma": 0.15, "seed": 1},
            "push": {"use": "http", "url": "http://127.0.0.1:1/nobody"},
            "measure": {
                "use": "sql",
                "url": "sqlite:///nothing.db",
                "metrics": {"visit": {"kind": "proportion", "query": "none.sql", "window": "7d"}},
            },
            "objective": {"maximize": "visit", "relative_to": "control"},
            "traffic": {"unit": "user", "share": "100%", "control": "20%", "arms": arms},
            "budget": {"trials": trials, "max_in_flight": 8 * arms, "confirm": 2},
            "schedule": {"window": f"{days}d", "poll": "6h", "deadline": "30d"},
        },
        base=base,
    )


@dataclass(frozen=True)
class Told:
    """What one rehearsal's ledger holds of one trial, beside the truth."""

    role: str
    value: float
    se: float
    true: float


@dataclass(frozen=True)
class Case:
    """One campaign, its forecast, and what its rehearsals did."""

    arms: int
    days: int
    forecast: Plan
    rehearsals: list[Rehearsal]
    told: list[list[Told]]


@dataclass(frozen=True)
class Row:
    """One figure. ``exact``: it follows from sampling alone."""

    case: str
    figure: str
    forecast: float
    simulated: float
    error: float
    exact: bool

    @property
    def ratio(self) -> float:
        return self.simulated / self.forecast if self.forecast else math.nan

    @property
    def off(self) -> bool:
        return abs(self.simulated - self.forecast) > GRACE * self.error + ROUNDING * abs(self.forecast)


def simulate(arms: int, days: int, trials: int, seeds: Sequence[int]) -> Case:
    rehearsals, told = [], []
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        spec = campaign(base, arms=arms, days=days, trials=trials)
        assumed = world(spec, {"visit": Baseline(RATE)}, {}, UNITS, Wishes(IMPROVE, drift=0.02, faults=0.0))
        for seed in seeds:
            folder = base / str(seed)
            folder.mkdir()
            rehearsals.append(rehearse(spec, assumed, seed=seed, folder=folder, until_us=1000 * DAY_US))
            told.append(ledger(spec, assumed, seed, folder))
        # The spread that candidates really have, so that only the formulas are compared, not a guess of it.
        spread = float(np.mean([np.std([t.true for t in run if t.role == Role.SEARCH]) for run in told]))
        search = Search(16, 2, spread)
        found = plan(spec, {"visit": Baseline(RATE)}, UNITS, improve=IMPROVE / 2, search=search)
    return Case(arms, days, found, rehearsals, told)


def ledger(spec: CampaignSpec, assumed: World, seed: int, folder: Path) -> list[Told]:
    with Parts(spec) as parts, Ledger.open(folder / f"{spec.name}.db", read_only=True) as book:
        truth = Landscape(parts.policy, improve=assumed.improve, harms={}, wander=0.0, seed=seed, start_us=0)
        found = []
        for tell in book.tells():
            if tell.status is Status.OK and tell.value is not None and tell.se is not None:
                vector = parts.policy.parse(parts.policy.render(book.trial(tell.trial).vector))
                found.append(Told(tell.role, tell.value, tell.se, truth.effect(vector, 0)))
        return found


def rows(case: Case) -> list[Row]:
    own, name = case.forecast.own, f"{case.arms} arms, {case.days}d"

    def row(figure: str, forecast: float | None, values: Sequence[float], *, exact: bool = True) -> Row:
        error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
        return Row(name, figure, float(forecast or 0.0), float(np.mean(values)), error, exact)

    searched = [[t for t in run if t.role == Role.SEARCH] for run in case.told]
    fresh = [[t for t in run if t.role == Role.CONFIRM] for run in case.told]
    # Noise is what was measured less what is true. Arms share a control, so a whole run is one sample.
    noise = [math.sqrt(float(np.mean([(t.value - t.true) ** 2 for t in run]))) for run in searched]
    z975, at = 1.959964, own.detectable
    seen = [float(np.mean([abs(t.value - t.true + at) > z975 * t.se for t in run])) for run in searched]
    confirmed = [confirmation(run, IMPROVE / 2) for run in fresh]
    half = [windows_until(one, case.days, IMPROVE / 2) for one in case.rehearsals]
    reached = [w for w in half if w is not None]
    chance = own.confirm_power or 0.0
    proof = replace(
        row("power of the confirmation", chance, confirmed),
        error=math.sqrt(chance * (1.0 - chance) / len(confirmed)),  # of so many yes and no
    )
    found = [
        row("standard error as told", own.se, [float(np.mean([t.se for t in run])) for run in searched]),
        row("standard error as it is", own.se, noise),
        row("power at what one window sees", power.POWER, seen),
        row("days in the calendar", own.takes / DAY_US, [one.days for one in case.rehearsals]),
        proof,
        row("signal over noise of the search", own.signal, signal(searched), exact=False),
    ]
    if len(reached) == len(half):
        found.append(row("windows to half of what is possible", own.windows_needed, reached, exact=False))
    elif reached:
        said = f"windows to half of it ({len(reached)}/{len(half)} got there)"
        found.append(row(said, own.windows_needed, reached, exact=False))
    return found


def confirmation(run: Sequence[Told], effect: float) -> float:
    """Whether the confirmations together would prove the effect, had the recommendation exactly that."""
    weights = [1.0 / t.se**2 for t in run]
    mean = sum(w * (t.value - t.true + effect) for w, t in zip(weights, run, strict=True)) / sum(weights)
    return float(abs(mean) * math.sqrt(sum(weights)) > 1.959964)


def windows_until(one: Rehearsal, days: int, effect: float) -> float | None:
    """Windows until the recommendation is truly worth so much, less the time that the metric matures."""
    when = next((p.day for p in one.points if p.true >= effect), None)
    return None if when is None else max(1.0, round((when - 7.0) / days))


def signal(searched: Sequence[Sequence[Told]]) -> list[float]:
    """ρ√N of each run, ρ the correlation of what was measured with what is true."""
    return [
        float(np.corrcoef([t.value for t in run], [t.true for t in run])[0, 1]) * math.sqrt(len(run))
        for run in searched
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="few rehearsals, in half a minute")
    parser.add_argument("--seeds", type=int, default=0, help="rehearsals of each campaign")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    seeds = range(1, (options.seeds or (5 if options.quick else 40)) + 1)
    cases = [(16, 1, 96)] if options.quick else [(16, 1, 320), (8, 1, 320), (16, 2, 320)]
    print(f"forecast against {len(seeds)} rehearsals of each campaign\n")
    print(f"{'campaign':<14}{'figure':<46}{'forecast':>10}{'simulated':>11}{'± SE':>9}{'ratio':>7}")
    table: list[Row] = []
    for arms, days, trials in cases:
        for row in rows(simulate(arms, days, trials, seeds)):
            table.append(row)
            note = "" if not row.off else " off" if row.exact else " as forecast for a slope"
            print(
                f"{row.case:<14}{row.figure:<46}{row.forecast:>10.4g}{row.simulated:>11.4g}{row.error:>9.2g}"
                f"{row.ratio:>7.2f}{note}"
            )
    if options.json is not None:
        text = json.dumps([asdict(row) | {"ratio": row.ratio} for row in table], indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    failed = [f"{row.case}: {row.figure}" for row in table if row.exact and row.off]
    if failed:
        print(f"off: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
