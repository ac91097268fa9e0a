"""How often a small arm beside a large control is called different when it is not.

    python benchmarks/calibration.py [--quick] [--seeds N] [--json FILE]

Both arms have the same distribution; two-sided tests at 5 %, so that better and worse should be 2.5 % each.
Revenue has 3 % payers who spend lognormal(3, 1.5); the cap is the payers' 90 % quantile, known beforehand.
The first rows are textbook formulas in numpy; those of blackopt are the effect that is told (``effects``,
each arm with its own variance) and that with one variance for both (``pooled``), as guardrails have it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np

from blackopt.metrics.kinds import kind

Array: TypeAlias = np.ndarray[Any, Any]
Columns: TypeAlias = dict[str, Array]

RUNS = 4_000
PAYERS = 0.03
CAP = math.exp(3.0 + 1.5 * NormalDist().inv_cdf(0.9))
RETAINED = 0.08
Z = NormalDist().inv_cdf(0.975)

REVENUE_ARMS = ((20_000, 20_000), (20_000, 2_000), (20_000, 500))
RETENTION_ARMS = (20_000, 300)
WAYS = ("Welch raw", "Welch, cap p90", "pooled raw", "pooled + cap p90", "pooled log1p")


def welch(t: Columns, c: Columns) -> Array:
    """z of the difference with each arm's own variance."""
    se = np.sqrt(variance(t) / t["n"] + variance(c) / c["n"])
    return np.divide(t["sum"] / t["n"] - c["sum"] / c["n"], se, out=np.zeros_like(se), where=se > 0)


def pooled(t: Columns, c: Columns) -> Array:
    """z of the difference with Student's variance of both."""
    joint = (variance(t) * (t["n"] - 1) + variance(c) * (c["n"] - 1)) / (t["n"] + c["n"] - 2)
    se = np.sqrt(joint * (1 / t["n"] + 1 / c["n"]))
    return np.divide(t["sum"] / t["n"] - c["sum"] / c["n"], se, out=np.zeros_like(se), where=se > 0)


def variance(s: Columns) -> Array:
    found: Array = np.maximum(s["sum_sq"] - s["sum"] ** 2 / s["n"], 0) / (s["n"] - 1)
    return found


def ours(t: Columns, c: Columns, name: str = "mean", *, joint: bool) -> Array:
    """z of blackopt's difference; pairs without any spread have no effect and are never called different."""
    some = np.flatnonzero((t["sum"] > 0) | (c["sum"] > 0))
    found = kind(name).effects(
        {key: column[some] for key, column in t.items()},
        {key: column[some] for key, column in c.items()},
        relative=False,
        pooled=joint,
    )
    z = np.zeros(len(t["n"]))
    z[some] = found.value / found.se
    return z


def revenue(rng: np.random.Generator, n: int, runs: int) -> dict[str, Columns]:
    """Sums of so many arms of n units: of what they paid, of it under the cap, of its logarithm."""
    payers = rng.binomial(n, PAYERS, runs)
    paid = rng.lognormal(3.0, 1.5, int(payers.sum()))
    starts = np.concatenate([[0], np.cumsum(payers)])
    found = {}
    for name, y in (("raw", paid), ("cap", np.minimum(paid, CAP)), ("log", np.log1p(paid))):
        totals, squares = (np.concatenate([[0.0], np.cumsum(v)]) for v in (y, y * y))
        found[name] = {
            "n": np.full(runs, float(n)), "sum": np.diff(totals[starts]), "sum_sq": np.diff(squares[starts])
        }  # fmt: skip
    return found


def tails(z: Array) -> Array:
    """Per cent called better, and called worse."""
    return 100 * np.array([(z > Z).mean(), (z < -Z).mean()])


def revenue_rows(rng: np.random.Generator, arms: tuple[int, int], runs: int) -> dict[str, Array]:
    c, t = (revenue(rng, n, runs) for n in arms)
    found = {
        WAYS[0]: welch(t["raw"], c["raw"]), WAYS[1]: welch(t["cap"], c["cap"]),
        WAYS[2]: pooled(t["raw"], c["raw"]), WAYS[3]: pooled(t["cap"], c["cap"]),
        WAYS[4]: pooled(t["log"], c["log"]),
    }  # fmt: skip
    for way, joint in (("effects", False), ("pooled", True)):
        found[f"blackopt {way} raw"] = ours(t["raw"], c["raw"], joint=joint)
        found[f"blackopt {way} cap"] = ours(t["cap"], c["cap"], joint=joint)
    return {name: tails(z) for name, z in found.items()}


def retention_rows(rng: np.random.Generator, runs: int) -> dict[str, Array]:
    c, t = (
        {"n": np.full(runs, float(n)), "sum": rng.binomial(n, RETAINED, runs).astype(float)}
        for n in RETENTION_ARMS
    )
    p_t, p_c = t["sum"] / t["n"], c["sum"] / c["n"]
    p = (t["sum"] + c["sum"]) / (t["n"] + c["n"])
    return {
        "unpooled": tails((p_t - p_c) / np.sqrt(p_t * (1 - p_t) / t["n"] + p_c * (1 - p_c) / c["n"])),
        "pooled": tails((p_t - p_c) / np.sqrt(p * (1 - p) * (1 / t["n"] + 1 / c["n"]))),
        "blackopt effects": tails(ours(t, c, "retention", joint=False)),
        "blackopt pooled": tails(ours(t, c, "retention", joint=True)),
    }


def mean_of(found: list[dict[str, Array]]) -> dict[str, list[float]]:
    return {name: np.mean([run[name] for run in found], axis=0).tolist() for name in found[0]}


def measure(seeds: int, runs: int) -> dict[str, Any]:
    start = time.perf_counter()
    rows = {
        f"{c // 1000}k/{t // 1000}k" if t >= 1_000 else f"{c // 1000}k/{t}": mean_of(
            [revenue_rows(np.random.default_rng([seed, c, t]), (c, t), runs) for seed in range(seeds)]
        )
        for c, t in REVENUE_ARMS
    }
    kept = mean_of([retention_rows(np.random.default_rng([seed, 8]), 10 * runs) for seed in range(seeds)])
    return {
        "seeds": seeds, "runs": seeds * runs, "error": 100 * math.sqrt(0.025 * 0.975 / (seeds * runs)),
        "revenue": rows, "retention 20k/300": kept, "seconds": time.perf_counter() - start,
    }  # fmt: skip


def show(found: dict[str, Any]) -> str:
    names = list(found["revenue"])
    lines = [
        f"false better / worse in per cent; target 2.5 / 2.5, known to ±{found['error']:.2f}",
        f"({found['runs']:,} experiments each, {found['seconds']:.0f} s)",
        "",
        f"{'revenue, control/candidate':<28}" + "".join(f"{name:>14}" for name in names),
    ]
    for way in found["revenue"][names[0]]:
        cells = [found["revenue"][name][way] for name in names]
        lines.append(f"{way:<28}" + "".join(f"{better:>7.1f} /{worse:>5.1f}" for better, worse in cells))
    lines += ["", f"{'retention 8 %':<28}{'20k/300':>14}"]
    lines += [
        f"{way:<28}{better:>7.1f} /{worse:>5.1f}"
        for way, (better, worse) in found["retention 20k/300"].items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="False alarms of small arms beside a large control.")
    parser.add_argument("--quick", action="store_true", help="fewer experiments")
    parser.add_argument("--seeds", type=int, default=None, help="blocks of 4,000 experiments (5; quick: 1)")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here, too")
    options = parser.parse_args()
    found = measure(options.seeds or (1 if options.quick else 5), RUNS)
    sys.stdout.write(show(found) + "\n")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
