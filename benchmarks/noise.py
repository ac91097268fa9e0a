"""Noisy, late, few: what the recommended point is worth, against other libraries' optimizers.

    python benchmarks/noise.py [--quick] [--set dev|held-back|later] [--cells N] [--skip N] [--seeds N]
                               [--match TEXT ...] [--only NAME ...] [--jobs N] [--json FILE]

Quadratics, plateaus, bent ridges, retention with binomial noise from arms of unequal size, heavy-tailed
revenue and a drifting optimum; 5 to 50 parameters, unbounded, bounded or partly integers; 100 to 2,000
evaluations, 1 to 64 in flight; noise from a tenth of the signal to ten times it; sigma right or wrong by ten.
A configuration belongs to the development or to the held-back set by a hash of its name; the set ``later``
was drawn when the held-back one had been looked at in full.

Regret is the loss of the recommendation without noise, as a part of what the start loses. A cell is a
configuration at one number of evaluations; its ratio is the geometric mean regret over the seeds, over that
of the peer that turns out best in this cell. Peers run at their defaults, with the same sigma; where there
are no bounds, those that need some get five sigma on either side of the start.

With ``--json``, every run is kept in the file as soon as it ends, and runs that the file has are not made
again: a benchmark that was interrupted goes on, and one with more seeds makes those only. Runs of blackopt's
optimizers are kept by their version, so a new version is measured anew beside the peers that are there.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.results import Table, write

TITLE = "Noise"
OWN = "auto"  # whom the classes are shown for
CELLS = "Regret, cell by cell; the spread is a factor"
CLASSES = f"`{OWN}` by class"
TIED, WORSE = 1.15, 1.5
LEAST = 1e-4  # regret below which nobody would see a difference
QUICK = 3
MIDDLE = 20  # parameters, up to which more is expected
STATED = 1.96  # standard errors of an interval that holds 95 %

Run = dict[str, Any]
"""One optimizer on one configuration with one seed: ``optimizer``, ``version`` (of ours), ``configuration``,
``seed``, and by evaluations ``regret`` and, of those that state one, ``belief``."""

Job = tuple[str, Any, int]
"""An optimizer, a configuration, a seed."""


def one(job: Job) -> Run:
    """Run it."""
    from benchmarks.noise_peers import run, version
    from benchmarks.noise_problems import Problem

    name, configuration, seed = job
    found = run(name, Problem(configuration, seed), seed)
    by_text = {key: {str(b): value for b, value in by.items()} for key, by in found.items()}
    said = {"optimizer": name, "version": version(name), "configuration": configuration.name, "seed": seed}
    return said | by_text


def chosen(options: argparse.Namespace) -> list[Any]:
    """The configurations to run."""
    from dataclasses import replace

    from benchmarks.noise_problems import configurations

    found = configurations(options.set)
    if options.quick:
        small = [c for c in found if c.n <= 10]
        return [replace(c, budget=100) for c in small[:QUICK]]
    last = options.skip + options.cells if options.cells else None
    return [c for c in found[options.skip : last] if all(part in f"{c.name} " for part in options.match)]


def collected(jobs: Sequence[Job], processes: int, file: Path | None) -> list[Run]:
    """The runs of all jobs, of which those that the file has are not made again."""
    from benchmarks.noise_peers import stands_for, version
    from benchmarks.noise_problems import Problem

    kept: list[Run] = []
    if file is not None and file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))["data"]["runs"]
    have = {key_of(run): run for run in kept}
    same = {(name, c): stands_for(name, Problem(c, 0)) for name, c, _ in jobs}
    keys = {job: (same[job[:2]], version(same[job[:2]]), job[1].name, job[2]) for job in jobs}
    missing = {key: (key[0], *job[1:]) for job, key in keys.items() if key not in have}
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(one, job) for job in missing.values()]):
            found = done.result()
            have[key_of(found)] = found
            if file is not None:
                save(file, [], list(have.values()))
    runs = [have[key] | {"optimizer": job[0]} for job, key in keys.items()]
    if file is not None:
        save(file, tables(runs, {c.name: c for _, c, _ in jobs}), list(have.values()))
    return runs


def key_of(run: Run) -> tuple[str, str, str, int]:
    """What makes a run the same as another."""
    return run["optimizer"], run["version"], run["configuration"], run["seed"]


def save(file: Path, found: Sequence[Table], runs: Sequence[Run]) -> None:
    """Replace the file as a whole: one that is cut off would lose every run."""
    fresh = file.with_name(f"{file.name}.new")
    count = 1 + max(run["seed"] for run in runs)
    kept = [table for table in found if table.title != CELLS]  # a page has no room for every cell
    write(fresh, TITLE, kept, seeds=f"0 to {count - 1}", lost=lost(kept), data={"runs": list(runs)})
    fresh.replace(file)


def lost(found: Sequence[Table]) -> list[str]:
    """The classes in which the best peer was better on average."""
    return [
        f"{row[0]}: {row[2]} of the regret of the best peer in hindsight, tied or better in {row[3]}, "
        f"in the worst cell {row[5]}."
        for table in found
        if table.title == CLASSES
        for row in table.rows
        if float(str(row[2])) > 1
    ]


def geometric(values: Sequence[float]) -> float:
    """Mean, of regrets that are counted as LEAST where they are less."""
    return math.exp(sum(math.log(max(value, LEAST)) for value in values) / len(values))


def spread(values: Sequence[float]) -> float:
    """Standard deviation of log regret over the seeds, as a factor."""
    logs = [math.log(max(value, LEAST)) for value in values]
    mean = sum(logs) / len(logs)
    return math.exp(math.sqrt(sum((x - mean) ** 2 for x in logs) / max(1, len(logs) - 1)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three small configurations, 100 evaluations")
    parser.add_argument("--set", choices=["dev", "held-back", "later"], default="dev")
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    parser.add_argument("--cells", type=int, default=0, metavar="N", help="the first N configurations only")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="but without the first N of the set")
    parser.add_argument("--match", nargs="+", default=[], metavar="TEXT", help="whose name has all of these")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these optimizers only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep runs there, and make only the others")
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before a worker imports numpy
    seeds = 1 if options.quick else max(1, options.seeds)
    from benchmarks.noise_peers import OURS, PEERS, SLOW

    names = [name for name in (*OURS, *PEERS) if not options.only or name in options.only]
    jobs = [
        (name, configuration, seed)
        for seed in range(seeds)
        for configuration in chosen(options)
        for name in names
        if configuration.n * configuration.budget <= SLOW.get(name, math.inf)
    ]
    runs = collected(jobs, options.jobs, options.json)
    for table in tables(runs, {c.name: c for _, c, _ in jobs}):
        show(table)
    return 0


def show(table: Table) -> None:
    """Print it."""
    shown = [[shown_as(cell) for cell in row] for row in table.rows]
    widths = [max(len(row[j]) for row in (table.columns, *shown)) for j in range(len(table.columns))]
    print(f"\n{table.title}\n")
    for row in (table.columns, *shown):
        print(
            f"{row[0]:<{widths[0]}}"
            + "".join(f"  {c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))
        )


def shown_as(cell: str | float | None) -> str:
    """One cell."""
    return "" if cell is None else cell if isinstance(cell, str) else f"{cell:.3g}"


Cell = tuple[str, str]
"""A configuration and a number of evaluations, as text."""


def tables(runs: Sequence[Run], known: dict[str, Any]) -> list[Table]:
    """Everything that is shown; ``known`` are the configurations by name."""
    regrets: dict[Cell, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for budget, regret in run["regret"].items():
            regrets[run["configuration"], budget][run["optimizer"]].append(regret)
    return [cells(regrets), overall(regrets), by_class(regrets, known), calibration(runs, known)]


def best_peer(by_name: dict[str, list[float]]) -> tuple[float, str] | None:
    """Regret and name of the peer that turned out best; None where none ran."""
    from benchmarks.noise_peers import PEERS

    peers = [(geometric(values), name) for name, values in by_name.items() if name in PEERS]
    return min(peers, default=None)


def against_best(regrets: dict[Cell, dict[str, list[float]]], name: str) -> dict[Cell, float]:
    """Ratios of one optimizer, cell by cell."""
    found = {}
    for cell, by_name in regrets.items():
        best = best_peer(by_name)
        if best is not None and name in by_name:
            found[cell] = max(geometric(by_name[name]), LEAST) / max(best[0], LEAST)
    return found


def summary(ratios: Iterable[float]) -> list[str | float | None]:
    """Number, mean, share of those tied or better, number of those clearly worse, the worst."""
    values = list(ratios)
    tied = sum(ratio <= TIED for ratio in values) / len(values)
    worse = sum(ratio > WORSE for ratio in values)
    return [str(len(values)), f"{geometric(values):.2f}", f"{tied:.0%}", str(worse), f"{max(values):.1f}"]


COLUMNS = ["cells", "regret / best peer", "tied or better", "above 1.5", "worst cell"]


def cells(regrets: dict[Cell, dict[str, list[float]]]) -> Table:
    """Every cell."""
    rows: list[list[str | float | None]] = []
    for (configuration, budget), by_name in regrets.items():
        best, own = best_peer(by_name), by_name.get(OWN)
        ours = [geometric(own), f"{spread(own):.1f}"] if own else [None, None]
        rows.append([configuration, budget, *ours, *(best or [None, None])])
    columns = ["configuration", "evaluations", OWN, "spread over the seeds", "best peer", "which"]
    return Table(title=CELLS, columns=columns, rows=rows)


def overall(regrets: dict[Cell, dict[str, list[float]]]) -> Table:
    """Every optimizer."""
    from benchmarks.noise_peers import OURS, PEERS

    found = {name: against_best(regrets, name) for name in (*OURS, *PEERS)}
    rows = [[name, *summary(ratios.values())] for name, ratios in found.items() if ratios]
    return Table(title="All optimizers", columns=["optimizer", *COLUMNS], rows=rows)


def by_class(regrets: dict[Cell, dict[str, list[float]]], known: dict[str, Any]) -> Table:
    """Ratios of ``auto``, by what configurations have in common."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for (configuration, budget), ratio in against_best(regrets, OWN).items():
        c = known[configuration]
        for label in (
            f"shape {c.shape}",
            f"parameters {c.n:>2}",
            "parameters, up to 20" if c.n <= MIDDLE else "parameters, 21 to 50",
            f"noise {c.noise:>4g}",
            f"in flight {c.in_flight:>2}",
            f"sigma x{c.misset:g}",
            f"kind {c.kind}",
            f"evaluations {budget:>4}",
        ):
            ratios[label].append(ratio)
    rows = [[label, *summary(values)] for label, values in sorted(ratios.items())]
    return Table(title=CLASSES, columns=["class", *COLUMNS], rows=rows)


def calibration(runs: Sequence[Run], known: dict[str, Any]) -> Table:
    """Whether what ``auto`` says of its recommendation is so."""
    beliefs: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    stayed: dict[str, int] = defaultdict(int)
    for run in runs:
        if run["optimizer"] != OWN:
            continue
        c = known[run["configuration"]]
        for budget in run["regret"]:
            for label in ("all", f"parameters {c.n:>2}", f"noise {c.noise:>4g}", f"shape {c.shape}"):
                if budget in run.get("belief", {}):
                    beliefs[label].append(tuple(run["belief"][budget]))
                else:
                    stayed[label] += 1
    rows: list[list[str | float | None]] = []
    for label in sorted({*beliefs, *stayed}):
        found = beliefs[label]
        inside = sum(abs(better - gain) <= STATED * se for gain, se, better in found)
        worse = sum(better < 0 for _, _, better in found)
        made = len(found) + stayed[label]
        share = f"{inside / len(found):.0%}" if found else None
        rows.append([label, str(made), str(stayed[label]), share, f"{worse / made:.1%}"])
    return Table(
        title=f"What `{OWN}` says of its recommendation",
        columns=[
            "class",
            "recommendations",
            "of which the start",
            "in the 95 % interval",
            "worse than the start",
        ],
        rows=rows,
    )


if __name__ == "__main__":
    sys.exit(main())
