"""What estimating costs: ten thousand arms from their sums, beside the bare formula in numpy in the same run.

    python benchmarks/metrics.py [--quick] [--seeds N] [--json FILE]

``numpy`` is the textbook formula without a single check. ``effects`` compares every arm with one control.
``one by one`` is the exact path, in fractions, which decides what a trial is told; its time is of as many
arms, extrapolated from fewer.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from blackopt.metrics.kinds import Kind, kind

ARMS = 10_000
UNITS = 400
TARGET_S = 0.1

Array: TypeAlias = np.ndarray[Any, Any]
Columns: TypeAlias = dict[str, Array]


def sums(seed: int) -> Columns:
    """Every column of ten thousand arms, each of four hundred units drawn from a pool of them."""
    rng = np.random.default_rng(seed)
    keen = rng.gamma(4.0, 0.25, UNITS * 4)
    unit = {"num": rng.gamma(2.0, keen), "den": 1.0 + rng.poisson(3 * keen)}
    unit |= {"cov": rng.gamma(2.0, keen), "cov_den": 1.0 + rng.poisson(3 * keen)}
    picked = rng.integers(0, UNITS * 4, (ARMS, UNITS))
    found = {"n": np.full(ARMS, float(UNITS)), "q": np.full(ARMS, 2.0)}
    names = list(unit)
    for i, a in enumerate(names):
        column = "sum" if a == "num" else f"{a}_sum"
        found[column] = unit[a][picked].sum(axis=1)
        found[f"{column}_sq"] = (unit[a] ** 2)[picked].sum(axis=1)
        for b in names[i + 1 :]:
            found[f"{a}_{b}"] = (unit[a] * unit[b])[picked].sum(axis=1)
    found["q_lower"], found["q_upper"] = 2.0 - rng.random(ARMS), 2.0 + rng.random(ARMS)
    found["raw_sum"], found["raw_sum_sq"] = found["sum"], found["sum_sq"]
    return found


def plain_proportion(c: Columns) -> tuple[Array, Array]:
    p = c["sum"] / c["n"]
    return p, np.sqrt(p * (1 - p) / c["n"])


def plain_mean(c: Columns) -> tuple[Array, Array]:
    mean = c["sum"] / c["n"]
    return mean, np.sqrt((c["sum_sq"] - c["sum"] * mean) / (c["n"] - 1) / c["n"])


def plain_ratio(c: Columns) -> tuple[Array, Array]:
    n, m, d = c["n"], c["sum"] / c["n"], c["den_sum"] / c["n"]
    ratio = m / d
    v_m, v_d = (c["sum_sq"] - n * m * m) / (n - 1), (c["den_sum_sq"] - n * d * d) / (n - 1)
    c_md = (c["num_den"] - n * m * d) / (n - 1)
    return ratio, np.sqrt((v_m - 2 * ratio * c_md + ratio * ratio * v_d) / (d * d) / n)


def plain_quantile(c: Columns) -> tuple[Array, Array]:
    return c["q"], (c["q_upper"] - c["q_lower"]) / (2 * 1.959963984540054)


CASES: dict[str, tuple[Kind, Callable[[Columns], tuple[Array, Array]]]] = {
    "proportion": (kind("proportion"), plain_proportion),
    "mean": (kind("mean"), plain_mean),
    "revenue": (kind("revenue", cap=1e6), plain_mean),
    "ratio": (kind("ratio"), plain_ratio),
    "quantile": (kind("quantile", quantile=0.9), plain_quantile),
    "mean, cuped": (kind("mean", cuped=True), plain_mean),
    "ratio, cuped": (kind("ratio", cuped=True), plain_ratio),
}


def seconds(call: Callable[[], object]) -> float:
    """The best of three, so that another process's turn is not ours."""
    found = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def measure(seeds: int, alone: int) -> dict[str, Any]:
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for seed in range(seeds):
        columns = sums(seed)
        binary = {**columns, "sum": np.floor(columns["n"] * 0.1 + np.arange(ARMS) % 7)}
        for name, (own, plain) in CASES.items():
            table = binary if name == "proportion" else columns
            control = {key: column[:1] for key, column in table.items()}
            singles = [{key: float(table[key][i]) for key in own.required} for i in range(alone)]

            def numpy(plain: Callable[[Columns], object] = plain, table: Columns = table) -> object:
                return plain(table)

            def estimates(own: Kind = own, table: Columns = table) -> object:
                return own.estimates(table)

            def effects(own: Kind = own, table: Columns = table, control: Columns = control) -> object:
                return own.effects(table, control, relative=True)

            def one_by_one(own: Kind = own, singles: list[dict[str, float]] = singles) -> object:
                return [own.estimate(stats) for stats in singles]

            value, se = plain(table)
            found = own.estimates(table)
            assert np.allclose(found.value, value, rtol=1e-9)
            assert np.allclose(found.se, se, rtol=1e-6)
            rows[name].append({
                "numpy_s": seconds(numpy), "estimates_s": seconds(estimates), "effects_s": seconds(effects),
                "one_by_one_s": seconds(one_by_one) * ARMS / alone,
            })  # fmt: skip
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in rows.items()
    }
    for row in medians.values():
        row["times_numpy"] = row["estimates_s"] / row["numpy_s"]
    return {
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "numpy": np.__version__, "arms": ARMS, "seeds": seeds, "kinds": medians,
        "slowest_s": max(max(row["estimates_s"], row["effects_s"]) for row in medians.values()),
        "target_s": TARGET_S,
    }  # fmt: skip


def show(found: dict[str, Any]) -> str:
    lines = [
        f"{found['platform']}, numpy {found['numpy']}",
        f"milliseconds for {found['arms']:,} arms, medians of {found['seeds']} seeds",
        "",
        f"{'':<14}{'numpy':>9}{'estimates':>11}{'times numpy':>13}{'effects':>9}{'one by one':>12}",
    ]
    lines += [
        f"{name:<14}{1e3 * row['numpy_s']:>9.3f}{1e3 * row['estimates_s']:>11.3f}{row['times_numpy']:>12.1f}x"
        f"{1e3 * row['effects_s']:>9.2f}{1e3 * row['one_by_one_s']:>12.0f}"
        for name, row in found["kinds"].items()
    ]
    slowest = 1e3 * found["slowest_s"]
    lines += ["", f"slowest {slowest:.1f} ms; the target is {1e3 * found['target_s']:.0f} ms"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What estimating ten thousand arms costs, beside numpy.")
    parser.add_argument("--quick", action="store_true", help="fewer seeds")
    parser.add_argument("--seeds", type=int, default=None, help="how often each is measured (5; quick: 2)")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here, too")
    options = parser.parse_args()
    found = measure(options.seeds or (2 if options.quick else 5), 200 if options.quick else 1_000)
    sys.stdout.write(show(found) + "\n")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
