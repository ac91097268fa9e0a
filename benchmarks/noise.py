"""Noisy, late, few: what the recommended point is worth, against other libraries' optimizers.

    python benchmarks/noise.py [--quick] [--set dev|held-back] [--seeds N] [--cells N] [--json FILE]

Quadratics, plateaus, bent ridges, retention with binomial noise from arms of unequal size, heavy-tailed
revenue and a drifting optimum; 5 to 50 parameters, unbounded, bounded or partly integers; 100 to 2,000
evaluations, 1 to 64 in flight; noise from a tenth of the signal to ten times it; sigma right or wrong by ten.
A configuration belongs to the development or to the held-back set by a hash of its name.

Regret is the loss of the recommendation without noise, as a part of what the start loses. A cell is a
configuration at one number of evaluations; its ratio is the geometric mean regret over the seeds, over that
of the peer that turns out best in this cell. Peers run at their defaults, with the same sigma; where there
are no bounds, those that need some get five sigma on either side of the start.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

TIED = 1.15
LEAST = 1e-4  # regret below which nobody would see a difference
QUICK = 3


def one(job: tuple[str, Any, int]) -> tuple[str, str, int, dict[int, float]]:
    """One optimizer on one configuration with one seed."""
    from benchmarks.noise_peers import run
    from benchmarks.noise_problems import Problem

    name, configuration, seed = job
    return name, configuration.name, seed, run(name, Problem(configuration, seed), seed)


def chosen(options: argparse.Namespace) -> list[Any]:
    """The configurations to run."""
    from dataclasses import replace

    from benchmarks.noise_problems import configurations

    held_back = options.set == "held-back"
    found = [c for c in configurations() if c.held_back == held_back]
    if options.quick:
        small = [c for c in found if c.n <= 10]
        return [replace(c, budget=100) for c in small[:QUICK]]
    return found[: options.cells or None]


def geometric(values: list[float]) -> float:
    """Mean, of regrets that are counted as LEAST where they are less."""
    return math.exp(sum(math.log(max(value, LEAST)) for value in values) / len(values))


def spread(values: list[float]) -> float:
    """Standard deviation of log regret over the seeds, as a factor."""
    logs = [math.log(max(value, LEAST)) for value in values]
    mean = sum(logs) / len(logs)
    return math.exp(math.sqrt(sum((x - mean) ** 2 for x in logs) / max(1, len(logs) - 1)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three small configurations, 100 evaluations")
    parser.add_argument("--set", choices=["dev", "held-back"], default="dev")
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    parser.add_argument("--cells", type=int, default=0, metavar="N", help="the first N configurations only")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these optimizers only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before a worker imports numpy
    seeds = 1 if options.quick else max(1, options.seeds)
    from benchmarks.noise_peers import OURS, PEERS, SLOW

    names = [name for name in (*OURS, *PEERS) if not options.only or name in options.only]
    jobs = [
        (name, configuration, seed)
        for configuration in chosen(options)
        for seed in range(seeds)
        for name in names
        if configuration.n * configuration.budget <= SLOW.get(name, math.inf)
    ]
    regrets: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name, configuration, _, found in pool.map(one, jobs):
            for budget, regret in found.items():
                regrets[configuration, budget][name].append(regret)
    rows = table(regrets)
    by_class(rows, {configuration.name: configuration for _, configuration, _ in jobs})
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def table(regrets: dict[tuple[str, int], dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Print the comparison, and give its cells back."""
    from benchmarks.noise_peers import OURS, PEERS

    rows: list[dict[str, Any]] = []
    for (configuration, budget), by_name in regrets.items():
        means = {name: geometric(values) for name, values in by_name.items()}
        peers = {name: value for name, value in means.items() if name in PEERS}
        best = min(peers, key=peers.__getitem__, default=None)
        rows.append(
            {
                "configuration": configuration,
                "evaluations": budget,
                "regret": means,
                "spread": {name: spread(values) for name, values in by_name.items()},
                "seeds": by_name,
                "best peer": best,
            }
        )
        least = f"{peers[best]:.3g} {best}" if best else ""
        own = (
            f"{means['surrogate']:>9.3g} x/{spread(by_name['surrogate']):.1f}" if "surrogate" in means else ""
        )
        print(f"{configuration:<66}{budget:>5} {own}  {least}")
    print(f"\n{'optimizer':<20}{'regret / best peer':>20}{'tied or better':>16}{'worst':>8}{'regret':>9}")
    for name in (*OURS, *PEERS):
        shared = [row for row in rows if name in row["regret"]]
        if not shared:
            continue
        mean = geometric([row["regret"][name] for row in shared])
        against = [
            row["regret"][name] / row["regret"][row["best peer"]]
            for row in shared
            if row["best peer"] is not None
        ]
        if against:
            tied = sum(ratio <= TIED for ratio in against) / len(against)
            print(
                f"{name:<20}{math.exp(sum(map(math.log, against)) / len(against)):>20.2f}{tied:>16.0%}"
                f"{max(against):>8.1f}{mean:>9.3g}"
            )
        else:
            print(f"{name:<20}{'':>44}{mean:>9.3g}")
    return rows


def by_class(rows: list[dict[str, Any]], configurations: dict[str, Any]) -> None:
    """Print the surrogate's ratios, by what the configurations have in common."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if "surrogate" not in row["regret"] or row["best peer"] is None:
            continue
        c = configurations[row["configuration"]]
        ratio = row["regret"]["surrogate"] / row["regret"][row["best peer"]]
        for label in (
            f"shape {c.shape}",
            f"parameters {c.n:>2}",
            f"noise {c.noise:>4g}",
            f"in flight {c.in_flight:>2}",
            f"sigma x{c.misset:g}",
            f"kind {c.kind}",
            f"evaluations {row['evaluations']:>4}",
        ):
            ratios[label].append(ratio)
    print(f"\n{'surrogate':<20}{'cells':>8}{'regret / best peer':>20}{'tied or better':>16}{'worst':>8}")
    for label, values in sorted(ratios.items()):
        mean, tied = math.exp(sum(map(math.log, values)) / len(values)), sum(v <= TIED for v in values)
        print(f"{label:<20}{len(values):>8}{mean:>20.2f}{tied / len(values):>16.0%}{max(values):>8.1f}")


if __name__ == "__main__":
    sys.exit(main())
