"""What `use: auto` chooses, against everything else it could have chosen.

    python benchmarks/auto.py [--quick] [--seeds N] [--json FILE]

The problems of `noise_problems.py`, at sizes, budgets and noises on either side of where the rules of
`blackopt/optimizers/auto.py` change their mind. Regret is the loss of the recommendation without noise, as a
part of what the start loses: its geometric mean over shapes and seeds, beside that of each of the others at
its default options. Where the ratio to the best of them is above 1, the table could do better.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

SHAPES = ("quadratic", "plateau", "ridge")
IN_FLIGHT = 16
OTHERS: dict[str, dict[str, Any]] = {
    "surrogate": {},
    "cma-es": {},
    "cma-es diagonal": {"covariance": "diagonal"},
    "openai-es": {},
    "snes": {},
    "pgpe": {},
}
SLOW = {"surrogate": 100, "cma-es": 200}
"""Coordinates beyond which one is left out."""

Cell = tuple[int, str, str, int]
"""Coordinates, their kind, noise, evaluations."""

NOISES = {"none": 0.0, "some": 0.3, "strong": 3.0}  # standard deviations, in what the start loses
CELLS: tuple[Cell, ...] = (
    (10, "floats", "some", 300),
    (10, "floats", "strong", 1000),
    (50, "floats", "some", 600),
    (50, "floats", "strong", 600),
    (60, "floats", "none", 600),
    (60, "floats", "some", 600),
    (100, "floats", "some", 600),
    (20, "floats", "some", 4000),
    (20, "weights", "none", 600),
    (20, "weights", "some", 600),
    (20, "weights", "strong", 600),
    (60, "weights", "none", 2000),
    (60, "weights", "some", 1000),
    (150, "weights", "none", 2000),
    (150, "weights", "some", 1000),
    (150, "weights", "strong", 1000),
)

QUICK: tuple[Cell, ...] = (
    (5, "floats", "some", 100),
    (60, "weights", "some", 200),
    (60, "weights", "none", 200),
)


def regret(use: str, options: dict[str, Any], cell: Cell, shape: str, seed: int) -> float:
    """Of one optimizer on one problem, after all evaluations."""
    from benchmarks.noise_peers import Spent, Trace, in_flight
    from benchmarks.noise_problems import Configuration, Problem
    from blackopt import plugins
    from blackopt.types import Evaluation

    n, kind, noise, budget = cell
    problem = Problem(Configuration(shape, n, NOISES[noise], IN_FLIGHT, 1.0, kind, budget), seed)
    plugin = plugins.find("optimizers", use)
    given = plugin.Options(sigma=problem.sigma, seed=seed, **options)
    optimizer = plugin(problem.space, problem.start, given)
    try:
        in_flight(
            Trace(problem, seed),
            lambda: optimizer.ask(1)[0],
            lambda c, loss, se: optimizer.tell([Evaluation(c.number, loss, se=se)]),
            lambda c: c.vector,
        )
    except Spent:
        return problem.truth(optimizer.recommend(), 1.0) / problem.signal
    raise AssertionError("stopped before the budget was spent")


def compared(cell: Cell, seeds: int) -> dict[str, Any]:
    """One row: what was chosen, and everybody's regret."""
    from benchmarks.noise import geometric
    from benchmarks.noise_problems import Configuration, Problem
    from blackopt.optimizers.auto import AutoOptions, Task, chosen

    n, kind, noise, budget = cell
    told: dict[str, Any] = {"trials": budget, "parallel": IN_FLIGHT, "noise": noise}
    space = Problem(Configuration("ridge", n, 1.0, 1, 1.0, kind, budget), 0).space
    task = Task.of(space, AutoOptions(**told))
    rule = chosen(task)
    runs = {"auto": ("auto", told)} | {
        name: (name.split()[0], options) for name, options in OTHERS.items() if n <= SLOW.get(name, n)
    }
    found = {
        name: geometric([regret(use, given, cell, shape, seed) for shape in SHAPES for seed in range(seeds)])
        for name, (use, given) in runs.items()
    }
    best = min((name for name in found if name != "auto"), key=found.__getitem__)
    options = dict(rule.options(task))
    choice = rule.use + (f" {options}" if options else "")
    return {
        "coordinates": n, "kind": kind, "noise": noise, "evaluations": budget, "choice": choice,
        "regret": found, "best other": best, "ratio": found["auto"] / found[best],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three small problems, 200 evaluations")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before anything imports numpy
    seeds = 1 if options.quick else max(1, options.seeds)
    rows = []
    print(
        f"{'n':>4} {'kind':<8}{'noise':<7}{'trials':>6}  {'auto chooses':<34}{'regret':>8}  "
        f"{'best other':<24} ratio"
    )
    for cell in QUICK if options.quick else CELLS:
        row = compared(cell, seeds)
        rows.append(row)
        best = f"{row['regret'][row['best other']]:.3g} {row['best other']}"
        print(
            f"{cell[0]:>4} {cell[1]:<8}{cell[2]:<7}{cell[3]:>6}  {row['choice']:<34}"
            f"{row['regret']['auto']:>8.3g}  {best:<24}{row['ratio']:>6.2f}",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
