"""Guardrails that are looked at often: false alarms, power, and how soon harm is stopped.

    python benchmarks/sequential.py [--quick] [--seeds N] [--json FILE]

The first table simulates the z statistic of a one-sided test of harm at 5 %, looked at 14 times, with the
harm that a single test at the end would find in 80 % of the cases, and with strong harm (z = 8 at the
end). The second runs ``blackopt.metrics.guardrails.judge`` itself on candidates that are polled at random
times, late and in bursts: null candidates, whose withdrawal is a false stop, and harmful ones. Exits with
1 if blackopt's rule stops more null candidates than its level allows, or serves strong harm for more than
a quarter of the window.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from blackopt.metrics.guardrails import Outcome, judge, parse_bound
from blackopt.metrics.kinds import kind
from blackopt.metrics.sequential import Spending, bonferroni_bound, boundary, spending_bounds

ALPHA, POWER, LOOKS, UNITS = 0.05, 0.80, 14, 14_000
PARTS = np.arange(1, LOOKS + 1) / LOOKS
DRIFT = NormalDist().inv_cdf(1 - ALPHA) + NormalDist().inv_cdf(POWER)  # of z at the end
STRONG = 8.0
LARGEST_STOP = 0.25
SIZE, CONTROL, BLOCKS = (
    8_000,
    4,
    200,
)  # units of a candidate, times as many in the control, arriving in blocks


@dataclass(frozen=True)
class Row:
    """Shares of candidates, and the part of the horizon that strong harm was served for."""

    rule: str
    false_alarms: float
    power: float
    stop: float


def bounds() -> dict[str, NDArray[np.float64]]:
    """The bound on z at each look, by rule."""
    parts = PARTS.tolist()
    sequence = [boundary(part * UNITS, alpha=ALPHA, sharpest=UNITS / 4) for part in parts]
    return {
        "naive": np.full(LOOKS, NormalDist().inv_cdf(1 - ALPHA)),
        f"Bonferroni/{LOOKS}": np.full(LOOKS, bonferroni_bound(LOOKS, ALPHA)),
        "Pocock": np.array(spending_bounds(parts, alpha=ALPHA, rule=Spending.POCOCK)),
        "O'Brien-Fleming": np.array(spending_bounds(parts, alpha=ALPHA, rule=Spending.OBRIEN_FLEMING)),
        "confidence sequence": np.array(sequence),
    }


def stopping(paths: int, seed: int) -> list[Row]:
    """The first table."""
    steps = np.random.default_rng(seed).standard_normal((paths, LOOKS)) * np.sqrt(np.diff(PARTS, prepend=0.0))
    noise = np.cumsum(steps, axis=1)

    def crossed(drift: float, bound: NDArray[np.float64]) -> NDArray[np.bool_]:
        beyond: NDArray[np.bool_] = (noise + drift * PARTS) / np.sqrt(PARTS) > bound
        return beyond

    rows = []
    for name, bound in bounds().items():
        strong = crossed(STRONG, bound)
        first = np.where(strong.any(axis=1), PARTS[strong.argmax(axis=1)], 1.0)
        null, harm = (float(crossed(drift, bound).any(axis=1).mean()) for drift in (0.0, DRIFT))
        rows.append(Row(name, null, harm, float(first.mean())))
    return rows


@dataclass(frozen=True)
class Irregular:
    """What became of candidates that were polled at random times."""

    metric: str
    candidates: int
    false_stops: float
    strong_stopped: float
    strong_stop: float


Arm = Callable[[np.random.Generator, int, float], NDArray[np.float64]]
"""Events, sums and sums of squares of each block, given its units and the harm: shape (3, BLOCKS)."""


def complaints(rng: np.random.Generator, units: int, harm: float) -> NDArray[np.float64]:
    """Two per cent of the units complain; a harm of 1 doubles that."""
    count = rng.binomial(units, 0.02 * (1 + harm), BLOCKS).astype(np.float64)
    return np.array([count, count, count])


def revenue(rng: np.random.Generator, units: int, harm: float) -> NDArray[np.float64]:
    """Four per cent pay, lognormal(3, 1), at most 300; a harm of 1 leaves nobody paying."""
    payers = rng.binomial(units, 0.04 * (1 - harm), BLOCKS)
    block = np.repeat(np.arange(BLOCKS), payers)
    paid = np.minimum(rng.lognormal(3.0, 1.0, len(block)), 300.0)
    sums = [np.bincount(block, weights=power, minlength=BLOCKS) for power in (paid, paid**2)]
    return np.array([payers.astype(np.float64), *sums])


METRICS: list[tuple[str, str, Arm, dict[str, str], float]] = [
    ("complaints, 2 %", "proportion", complaints, {"at_most": "control"}, 1.0),
    ("revenue, 4 % payers", "mean", revenue, {"at_least": "control"}, 0.75),
]


def stopped_at(
    rng: np.random.Generator, kind_name: str, arm: Arm, bound: dict[str, str], harm: float
) -> float | None:
    """The part of its window after which one candidate was withdrawn; None if it was let to finish."""
    metric, limit = kind(kind_name), parse_bound(**bound)
    units = (SIZE // BLOCKS, SIZE * CONTROL // BLOCKS)
    sums = [np.cumsum(arm(rng, n, worse), axis=1) for n, worse in zip(units, (harm, 0.0), strict=True)]
    # Polls come in bursts and stay away, and what they bring is up to a tenth of the window old.
    bursts = [rng.beta(1, 2, rng.integers(2, 25)), rng.random(rng.integers(1, 25)), np.ones(1)]
    for poll in np.unique(np.concatenate(bursts)).tolist():
        k = BLOCKS if poll == 1.0 else int(max(0.0, poll - 0.1 * rng.random()) * BLOCKS)
        if k == 0:
            continue
        found = [arm_sums[:, k - 1] for arm_sums in sums]
        estimates = []
        for n, (_, total, squares) in zip(units, found, strict=True):
            stats = {"n": float(n * k), "sum": float(total), "sum_sq": float(squares)}
            estimates.append(metric.estimate({key: stats[key] for key in metric.required}))
        verdict = judge(
            limit,
            *estimates,
            alpha=ALPHA,
            expected_units=SIZE,
            min_units=100,
            min_events=10,
            events=(float(found[0][0]), float(found[1][0])),
        )
        if verdict.outcome is Outcome.BREACHED:
            return float(poll)
    return None


def irregular(
    name: str, kind_name: str, arm: Arm, bound: dict[str, str], harm: float, n: int, seed: int
) -> Irregular:
    """n null candidates exactly at the bound, the least favourable, and a twentieth as many that do harm."""
    rng = np.random.default_rng(seed)
    null = [stopped_at(rng, kind_name, arm, bound, 0.0) for _ in range(n)]
    strong = [stopped_at(rng, kind_name, arm, bound, harm) for _ in range(max(100, n // 20))]
    return Irregular(
        name,
        n,
        sum(at is not None for at in null) / n,
        sum(at is not None for at in strong) / len(strong),
        math.fsum(1.0 if at is None else at for at in strong) / len(strong),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the candidates")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="repetitions; means are printed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    seeds = range(max(1, options.seeds))
    repeated = [stopping(100_000 // scale, seed) for seed in seeds]
    table = [
        Row(
            rows[0].rule,
            *(float(np.mean([getattr(r, key) for r in rows])) for key in ("false_alarms", "power", "stop")),
        )
        for rows in zip(*repeated, strict=True)
    ]
    found = [irregular(*case, 10_000 // scale, seed) for seed in seeds for case in METRICS]

    print(f"{LOOKS} equal looks, one-sided level {ALPHA:.0%}, power {POWER:.0%} of a single test; in %\n")
    print(f"{'rule':<22}{'false alarms':>14}{'power':>8}{'stop':>8}")
    for row in table:
        print(f"{row.rule:<22}{100 * row.false_alarms:>14.1f}{100 * row.power:>8.0f}{row.stop:>8.2f}")
    print("\nstop: part of the horizon for which strong harm is served")
    print(f"\nblackopt's guardrail, units polled at random times, level {ALPHA:.0%}\n")
    print(f"{'metric':<22}{'candidates':>12}{'false stops':>14}{'strong harm stopped':>22}{'after':>8}")
    for one in found:
        print(
            f"{one.metric:<22}{one.candidates:>12}{one.false_stops:>14.2%}{one.strong_stopped:>22.1%}"
            f"{one.strong_stop:>8.2f}"
        )
    if options.json is not None:
        text = json.dumps(
            {"stopping": [asdict(r) for r in table], "irregular": [asdict(i) for i in found]}, indent=2
        )
        options.json.write_text(text + "\n", encoding="utf-8")
    # Three standard errors of grace for what is simulated.
    grace = 3.0 * math.sqrt(ALPHA * (1 - ALPHA) / (10_000 // scale))
    failed = [
        one.metric for one in found if one.false_stops > ALPHA + grace or one.strong_stop > LARGEST_STOP
    ]
    if failed:
        print(f"beyond the level, or too late: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
