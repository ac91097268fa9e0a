"""Quality without noise: the 24 functions of the BBOB suite, beside other libraries' optimizers.

    python benchmarks/bbob.py [--quick] [--dimensions D ...] [--budgets K ...] [--functions F ...] [--first I]
                              [--seeds N] [--only NAME ...] [--jobs N] [--json FILE]

The suite is that of the package ``cocoex``: Hansen, Finck, Ros and Auger, "Real-parameter black-box
optimization benchmarking 2009: noiseless functions definitions" (INRIA RR-6829). A seed is an instance of
each function, and draws the start, uniformly from [-4, 4]^d; the domain is [-5, 5]^d, which all are told as
[0, 1]^d, and sigma is 2 for all that take one. One evaluation is in flight; twins are asked together. A
budget of K is K d evaluations, which those that plan with it are told.

A target is a precision f - f_opt, one of 51 from 1e2 down to 1e-8, evenly in the logarithm, as in Hansen,
Auger, Brockhoff, Tusar and Tusar, "COCO: performance assessment" (arXiv 1605.03560). The score is the area
under the empirical distribution of runtimes over the logarithm of evaluations, from d of them to the budget
of K d, as a part of what reaching all targets within d would give:

    mean over problems and targets of  1 - log(max(t, d) / d) / log K,  or 0 where the target is not reached

with t the evaluation that reached it. What is reached is what was evaluated, not what is recommended: there
is no noise. Restarts are not simulated: a run counts as it is, also where Optuna's CMA-ES ends it by drawing
NaN once it has converged. The standard error of a score is over the instances' means; that of a difference is
over problems, of which both had the same. ``relay``, which ``auto`` chooses here, was developed on instances
1 to 3. Exits with 1 if ``cma-es`` and ``cma`` differ, without restarts or with BIPOP's, by more than both
three standard errors and 0.02.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import noise_peers
from benchmarks.noise_problems import Configuration, Problem, Vector
from benchmarks.results import LIBRARIES, Table, write
from blackopt import plugins
from blackopt.types import Evaluation

TARGETS = np.logspace(2, -8, 51)
FUNCTIONS = range(1, 25)
GROUPS = {
    "separable": range(1, 6),
    "moderate": range(6, 10),
    "ill-conditioned": range(10, 15),
    "multi-modal": range(15, 20),
    "weak structure": range(20, 25),
}
SAME = ("cma-es", "cma"), ("cma-es bipop", "cma bipop")
LARGEST_DIFFERENCE = 0.02
NOTE = (
    "One evaluation in flight. Standard errors are over the instances' means, and those of differences over "
    "the problems. What takes too long is left out where it does: a difference compares only what both ran."
)


class Function(Problem):
    """A function of the suite on [0, 1]^d, as the peers know problems."""

    def __init__(self, function: int, dimension: int, instance: int, budget: int) -> None:
        import cocoex

        self.configuration = Configuration("bbob", dimension, 0.0, 1, 1.0, "floats", budget)
        self.seed = instance
        self.unit, self.bounds = 0.2, (0.0, 1.0)
        self.whole = np.zeros(dimension, dtype=np.bool_)
        self.start = np.random.default_rng([function, dimension, instance]).uniform(0.1, 0.9, dimension)
        self._function = cocoex.BareProblem("bbob", function, dimension, instance)
        self.optimal = float(self._function.best_value())

    def value(self, x: Vector) -> float:
        """f at (d,) coordinates."""
        return float(self._function(10.0 * x - 5.0))


class Run(noise_peers.Trace):
    """One run: the values that it is told, and when it reached which target.

    Attributes:
        reached: (51,) evaluation that reached each target; infinite where none did.
    """

    problem: Function

    def __init__(self, problem: Function) -> None:
        super().__init__(problem, problem.seed)
        self.reached: NDArray[np.float64] = np.full(len(TARGETS), math.inf)
        self._next = 0  # target

    def measure(self, x: Vector) -> tuple[float, float | None]:
        """A value; it has no standard error.

        Raises:
            Spent: the budget is.
        """
        if self._count == self.problem.configuration.budget:
            raise noise_peers.Spent
        self._count += 1
        value = self.problem.value(np.asarray(x))
        while self._next < len(TARGETS) and value - self.problem.optimal <= TARGETS[self._next]:
            self.reached[self._next] = self._count
            self._next += 1
        return value, None

    def score(self) -> float:
        """The area under the distribution of runtimes, in [0, 1]."""
        d = self.problem.configuration.n
        width = math.log(self.problem.configuration.budget / d)
        return float(np.mean(np.maximum(0.0, 1.0 - np.log(np.maximum(self.reached, d) / d) / width)))


def ours(use: str, **options: object) -> Callable[[Run], None]:
    """One of blackopt's, twins asked together."""

    def run(trace: Run) -> None:
        plugin, problem = plugins.find("optimizers", use), trace.problem
        told = (
            {"trials": problem.configuration.budget, "parallel": 1, "noise": "none"} if use == "auto" else {}
        )
        given = plugin.Options(sigma=problem.sigma, seed=trace.seed, **told, **options)
        optimizer = plugin(problem.space, problem.start, given)
        while True:
            asked = optimizer.ask(optimizer.group)
            optimizer.tell([Evaluation(c.number, trace.measure(c.vector)[0]) for c in asked])

    return run


def cma(*, bipop: bool) -> Callable[[Run], None]:
    """Hansen's library by its own loop; without restarts it ends when it thinks it is done."""

    def run(trace: Run) -> None:
        import cma as library

        options = {"seed": trace.seed, "bounds": [0, 1], "verbose": -9, "verb_log": 0}
        restarts = {"restarts": 100, "bipop": True} if bipop else {}
        library.fmin2(
            lambda x: trace.measure(x)[0], trace.problem.start, trace.problem.sigma, options, **restarts
        )

    return run


def cmaes(trace: Run) -> None:
    """``cmaes`` at its defaults; it ends when it thinks it is done."""
    from cmaes import CMA

    problem = trace.problem
    bounds = np.tile(problem.bounds, (problem.configuration.n, 1))
    es = CMA(problem.start, problem.sigma, bounds=bounds, seed=trace.seed)
    while not es.should_stop():
        asked = [es.ask() for _ in range(es.population_size)]
        es.tell([(x, trace.measure(x)[0]) for x in asked])


OURS: dict[str, Callable[[Run], None]] = {
    "auto": ours("auto"),
    "cma-es": ours("cma-es"),
    "cma-es bipop": ours("cma-es", restarts="bipop"),
    "surrogate": ours("surrogate"),
}
PEERS: dict[str, Callable[[Run], None]] = {
    "cma": cma(bipop=False),
    "cma bipop": cma(bipop=True),
    "cmaes": cmaes,
    "cmaes lr_adapt": noise_peers.cmaes,
    "NGOpt": noise_peers.nevergrad("NGOpt"),
    "Optuna CMA-ES": noise_peers.optuna("CMA-ES"),
    "Optuna TPE": noise_peers.optuna("TPE"),
    "scipy DE": noise_peers.differential_evolution,
    "chance": noise_peers.chance,
}
LONGEST = {"NGOpt": 500, "surrogate": 40_000, "Optuna CMA-ES": 10_000, "Optuna TPE": 2_000}
"""Evaluations times dimension beyond which one is left out for the time that it takes."""


DRAWS_NAN = "Optuna CMA-ES", "`nan` is invalid value."
"""Who may draw NaN once it has converged, and what it says then: its run ends."""


@dataclass(frozen=True)
class Job:
    """One run to make."""

    name: str
    function: int
    dimension: int
    factor: int
    instance: int

    @property
    def too_long(self) -> bool:
        return self.factor * self.dimension**2 > LONGEST.get(self.name, math.inf)

    def run(self) -> float:
        """Its score."""
        trace = Run(Function(self.function, self.dimension, self.instance, self.factor * self.dimension))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                {**OURS, **PEERS}[self.name](trace)
            except noise_peers.Spent:
                pass
            except ValueError as error:
                if (self.name, str(error)) != DRAWS_NAN:
                    raise
        return trace.score()


def scores(jobs: list[Job], processes: int) -> Iterator[tuple[Job, float]]:
    """Of all runs, in processes of their own."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from zip(jobs, pool.map(Job.run, jobs, chunksize=4), strict=True)


@dataclass(frozen=True)
class Row:
    """One optimizer in one dimension with one budget.

    Attributes:
        score: mean over functions and instances; ``se`` its standard error.
        groups: mean by group of functions.
        functions: mean by function.
    """

    name: str
    dimension: int
    factor: int
    score: float
    se: float | None
    groups: dict[str, float]
    functions: dict[int, float]


def table(found: dict[Job, float]) -> list[Row]:
    """A row for each optimizer, dimension and budget, the best first."""
    cells: dict[tuple[int, int, str], list[tuple[Job, float]]] = defaultdict(list)
    for job, score in found.items():
        cells[job.dimension, job.factor, job.name].append((job, score))
    rows = []
    for (dimension, factor, name), runs in cells.items():
        scores = list(by_instance(runs).values())
        functions: dict[int, list[float]] = defaultdict(list)
        for job, score in runs:
            functions[job.function].append(score)
        means = {f: _mean(values) for f, values in functions.items()}
        groups = {g: [means[f] for f in members if f in means] for g, members in GROUPS.items()}
        by_group = {g: _mean(values) for g, values in groups.items() if values}
        rows.append(Row(name, dimension, factor, _mean(scores), _error(scores), by_group, means))
    return sorted(rows, key=lambda row: (row.factor, row.dimension, -row.score))


def by_instance(runs: list[tuple[Job, float]]) -> dict[int, float]:
    """Mean score over the functions, for each instance."""
    return {i: _mean([s for job, s in runs if job.instance == i]) for i in {job.instance for job, _ in runs}}


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _error(values: list[float]) -> float | None:
    """Standard error of the mean; None for a single value."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """Of two optimizers' scores, over the problems that both had.

    Attributes:
        mean: ours less theirs; ``se`` its standard error, over problems.
    """

    ours: str
    theirs: str
    factor: int
    mean: float
    se: float | None

    @property
    def too_large(self) -> bool:
        return abs(self.mean) > max(LARGEST_DIFFERENCE, 3 * (self.se or 0.0))


def difference(found: dict[Job, float], ours: str, theirs: str, factor: int) -> Difference | None:
    """Of two optimizers at one budget; None if they share no problem."""
    pairs = [
        score - found[replace(job, name=theirs)]
        for job, score in found.items()
        if job.name == ours and job.factor == factor and replace(job, name=theirs) in found
    ]
    if not pairs:
        return None
    return Difference(ours, theirs, factor, _mean(pairs), _error(pairs))


def compared(found: dict[Job, float]) -> list[Difference]:
    """``cma-es`` with ``cma``, and ``auto`` with every peer, where both ran."""
    pairs = [*SAME, *(("auto", peer) for peer in PEERS)]
    factors = sorted({job.factor for job in found})
    differences = [difference(found, *pair, factor) for factor in factors for pair in pairs]
    return [d for d in differences if d is not None]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="six functions in two dimensions, one instance")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 5, 10], metavar="D")
    parser.add_argument("--budgets", type=int, nargs="+", default=[100], metavar="K", help="K d evaluations")
    parser.add_argument("--functions", type=int, nargs="+", default=list(FUNCTIONS), metavar="F")
    parser.add_argument("--first", type=int, default=1, metavar="I", help="the first instance")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="instances of each function")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these optimizers only")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # before a worker imports numpy
    if options.quick:
        options.dimensions, options.functions, options.seeds = [2], [1, 3, 6, 10, 15, 21], 1
    names = [name for name in (*OURS, *PEERS) if not options.only or name in options.only]
    jobs = [
        Job(name, function, dimension, factor, instance)
        for factor in options.budgets
        for dimension in options.dimensions
        for name in names
        for function in options.functions
        for instance in range(options.first, options.first + options.seeds)
    ]
    found = dict(scores([job for job in jobs if not job.too_long], options.jobs))
    rows, differences = table(found), compared(found)
    show(rows, differences)
    if options.json is not None:
        keep(options.json, rows, differences, range(options.first, options.first + options.seeds))
    same = [d for d in differences if (d.ours, d.theirs) in SAME]
    return int(any(d.too_large for d in same))


def keep(path: Path, rows: list[Row], differences: list[Difference], instances: range) -> None:
    """Write what is printed, in the format of all benchmarks."""
    measured = Table(
        title="Area under the distribution of runtimes to 51 targets, in [0, 1]",
        columns=["evaluations", "d", "optimizer", "score", "standard error", *GROUPS],
        rows=[
            [f"{row.factor} d", str(row.dimension), row.name, row.score, row.se]
            + [row.groups.get(group) for group in GROUPS]
            for row in rows
        ],
    )
    paired = Table(
        title="Differences of scores, over the problems that both had",
        columns=["evaluations", "ours", "less", "difference", "standard error"],
        rows=[[f"{d.factor} d", d.ours, d.theirs, d.mean, d.se] for d in differences],
        note=NOTE,
    )
    data = {"functions": [asdict(row) for row in rows]}
    write(
        path,
        title(rows),
        [measured, paired],
        seeds=f"instances {instances[0]} to {instances[-1]}",
        lost=lost(rows, differences),
        data=data,
        libraries=(*LIBRARIES, "coco-experiment"),
    )


def title(rows: list[Row]) -> str:
    """What was measured, as a heading."""
    dimensions, factors = (
        ", ".join(f"{k:,}" for k in sorted(each))
        for each in ({row.dimension for row in rows}, {row.factor for row in rows})
    )
    return f"Quality without noise: BBOB, {dimensions} dimensions, {factors} evaluations for each"


def lost(rows: list[Row], differences: list[Difference]) -> list[str]:
    """Whoever of ours is below a peer: over all, dimension by dimension, and group by group."""
    over_all = [
        f"`{d.ours}` is below {d.theirs} by {-d.mean:.3f} at {d.factor} d evaluations."
        for d in differences
        if d.mean < 0
    ]
    return over_all + below(rows) + behind(rows)


def behind(rows: list[Row]) -> list[str]:
    """Groups of functions in which ``auto`` is below the peer that is best there, dimension by dimension."""
    found = []
    for mine in (row for row in rows if row.name == "auto"):
        peers = [
            row
            for row in rows
            if row.name in PEERS and (row.dimension, row.factor) == (mine.dimension, mine.factor)
        ]
        for group, score in mine.groups.items():
            best, name = max(((row.groups[group], row.name) for row in peers), default=(score, ""))
            if best > score:
                found.append(f"{group} in {mine.dimension} dimensions ({name}, {best - score:.3f})")
    return [f"`auto` is below the best peer on some groups: {'; '.join(found)}."] if found else []


def below(rows: list[Row]) -> list[str]:
    """Where ``auto`` is below a peer, dimension by dimension."""
    mine = {(row.dimension, row.factor): row.score for row in rows if row.name == "auto"}
    return [
        f"`auto` is below {row.name} by {row.score - mine[row.dimension, row.factor]:.3f} in {row.dimension} "
        f"dimensions at {row.factor} d evaluations."
        for row in rows
        if row.name in PEERS and row.score > mine.get((row.dimension, row.factor), math.inf)
    ]


def show(rows: list[Row], differences: list[Difference]) -> None:
    """Print both tables."""
    print(
        f"{'evaluations':<13}{'d':>3}  {'optimizer':<16}{'score':>7}  {'+-':<6}"
        + "".join(f"{g:>16}" for g in GROUPS)
    )
    for row in rows:
        error = "" if row.se is None else f"{row.se:.3f}"
        groups = "".join(f"{row.groups[g]:>16.3f}" if g in row.groups else f"{'':>16}" for g in GROUPS)
        print(
            f"{f'{row.factor} d':<13}{row.dimension:>3}  {row.name:<16}{row.score:>7.3f}  {error:<6}{groups}"
        )
    print("\ndifference of scores, over the problems that both had")
    for d in differences:
        error = "" if d.se is None else f"+- {d.se:.3f}"
        print(f"{f'{d.factor} d':<9}{d.ours:>13} - {d.theirs:<14}{d.mean:>+8.3f} {error}")


if __name__ == "__main__":
    sys.exit(main())
