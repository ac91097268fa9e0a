"""Results that come late, out of order, or never: how many are used, and what waiting for them costs.

    python benchmarks/delay.py [--quick] [--seeds N] [--first SEED] [--json FILE]

W workers each try a candidate, and take the next one when its result has come. A result takes a time of 1
(FIFO: the workers start one after the other), or a log-normal time with sigma 1 and mean 1; 5 % never come.
Their workers are free again at the 99 % quantile, and nothing is told. The problems are those of
``noise_problems.py`` in ten bounded parameters: a sphere, a rotated ellipsoid, a bent ridge and a retention
with binomial noise from arms of unequal size, optimum and rotation by seed; the noise of a result is a tenth
of what the start loses.

**Effect.** In the second half of a run, some results are replaced by one that is better than all so far by
their range, and by one that is as much worse. The process forks, and both forks go on with the same
noise and delays, until their candidates differ by a thousandth of the candidates' present spread: then the
result had an effect. If they have not after W + 2 generations of told results, and neither have the
recommendations, it had none. The same for all, whatever the algorithm does inside.

**Evaluations to the target.** Results that came or were lost, until the recommendation's loss without noise
is 10 % (3 %) of what the start loses. ERT: evaluations of all runs over the number of runs that arrived; its
geometric mean over the problems. ``>`` marks means with a problem where no run arrived; that one counts as if
one had arrived at the end.

**The synchronous run.** A generation is asked, and the next one when all of it has come; lost ones count as
the worst of theirs at the 99 % quantile. The population is the default, or as many as there are workers,
whichever is the better for its optimizer. Optimizers without generations have batches of 16.

Settings of blackopt's optimizers, and what late results count for, were chosen on seeds 0 to 9.
"""

from __future__ import annotations

import argparse
import heapq
import math
import os
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports numpy
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.delay_systems import OURS, PEERS, System, make
from benchmarks.noise_problems import Configuration, Problem, Vector
from benchmarks.results import Table, write

Delay = Literal["FIFO", "log-normal"]

WORKERS = (1, 4, 8, 16, 32, 64)
MANY = 16  # workers, where all problems run and time is measured
SHAPES = ("sphere", "quadratic", "ridge", "retention")
FEW = ("quadratic", "retention")
N, BUDGET, NOISE = 10, 800, 0.1
LOST = 0.05
TIMEOUT = {"FIFO": 1.0, "log-normal": math.exp(-0.5 + 2.3263)}
TARGETS = (0.1, 0.03)
EVERY = 5  # results between two looks at the recommendation
VISIBLE = 1e-3  # of the spread of candidates: less is no effect
ALLOWED = 0.05  # results without effect
PROBES, PROBED = 10, 400  # results whose effect is measured, in a run of so many


class Asked(NamedTuple):
    """A candidate in flight."""

    at: float
    number: int
    handle: Any
    vector: Vector
    lost: bool


class World:
    """What does not depend on the optimizer: noise, delays and losses by the candidate's index."""

    def __init__(self, problem: Problem, seed: int, delay: Delay) -> None:
        self.problem, self.seed, self.delay = problem, seed, delay
        rng = np.random.default_rng([seed, 7])
        count = 4 * problem.configuration.budget
        times = np.ones(count) if delay == "FIFO" else rng.lognormal(-0.5, 1.0, count)
        self.lost = rng.random(count) < LOST
        self.times = np.where(self.lost, TIMEOUT[delay], times)

    def measure(self, index: int, x: Vector) -> tuple[float, float | None]:
        """A loss, and its standard error where it has one."""
        return self.problem.measure(x, 0.0, np.random.default_rng([self.seed, 8, index]))

    def regret(self, x: Vector) -> float:
        """Without noise, as a part of what the start loses."""
        return self.problem.truth(np.clip(x, *self.problem.bounds), 0.0) / self.problem.signal


class Flight:
    """One optimizer with W workers."""

    def __init__(self, system: System, world: World, workers: int) -> None:
        self.system, self.world = system, world
        self.finished, self.told, self.now, self._index = 0, 0, 0.0, 0
        self._flying: list[Asked] = []
        self.losses: list[float] = []
        self.recent: list[Vector] = []  # the latest candidates
        for worker in range(workers):
            self.ask(worker / workers if world.delay == "FIFO" else 0.0)

    def ask(self, now: float) -> Vector:
        """A free worker takes the next candidate."""
        handle, x = self.system.ask()
        index, self._index = self._index, self._index + 1
        done = now + float(self.world.times[index])
        heapq.heappush(self._flying, Asked(done, index, handle, x, bool(self.world.lost[index])))
        self.recent = [*self.recent, x][-2 * self.system.batch :]
        return x

    @property
    def next_is_lost(self) -> bool:
        """Whether what ends next is a candidate that never reports."""
        return self._flying[0].lost

    def step(self, instead: float | None = None) -> Vector:
        """What ends next is told, and its worker takes a candidate: this one.

        Args:
            instead: the loss that is told instead of the measured one.
        """
        ended = heapq.heappop(self._flying)
        self.now, self.finished = ended.at, self.finished + 1
        if not ended.lost:
            loss, se = self.world.measure(ended.number, ended.vector)
            self.losses.append(loss)
            self.told += 1
            self.system.tell(ended.handle, loss if instead is None else instead, se)
        return self.ask(self.now)


# ---------------------------------------------------------------------- effect


def had_effect(flight: Flight, workers: int) -> bool:
    """Whether it matters what the next result is; the flight itself is not touched."""
    best, worst = min(flight.losses), max(flight.losses)
    tells = workers + 2 * flight.system.batch
    n = flight.world.problem.configuration.n
    spread = float(np.linalg.norm(np.std(flight.recent, axis=0)))
    forks = [_fork(flight, loss, tells) for loss in (2 * best - worst, 2 * worst - best)]
    try:
        for _ in range(tells + 1):
            one, other = (struct.unpack(f"{n}d", points.read(8 * n)) for _, points in forks)
            if math.dist(one, other) > VISIBLE * spread:
                return True
        return False
    finally:
        for pid, points in forks:
            points.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _fork(flight: Flight, loss: float, tells: int) -> tuple[int, BinaryIO]:
    """A process in which the next result has this loss, and the (n,) candidates that it asks afterwards, as
    float64, with the recommendation at the end."""
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        return pid, os.fdopen(reading, "rb")
    try:
        for left in range(tells, -1, -1):
            x = flight.step(loss if left == tells else None) if left else flight.system.recommend()
            os.write(writing, np.asarray(x, dtype=np.float64).tobytes())
    except BaseException:  # noqa: BLE001  (nothing of the parent's may run twice)
        traceback.print_exc()
    os._exit(0)


# ---------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        workers: W; 0 for a synchronous run on ``MANY``.
        probes: results whose effect is measured; 0 where the target is.
        population: of a synchronous run, where not the default.
    """

    system: str
    shape: str
    seed: int
    workers: int
    delay: Delay
    probes: int = 0
    population: int | None = None
    budget: int = BUDGET


@dataclass(frozen=True)
class Arrival:
    """When a run reached a target, or, where it did not, what it had spent.

    Attributes:
        time: in mean delays.
        kind_time: of a synchronous run, if its lost results were known at once.
    """

    reached: bool
    evaluations: int
    time: float
    kind_time: float


def execute(job: Job) -> tuple[Job, list[bool] | dict[float, Arrival], float]:
    """Effects or arrivals, and the seconds it took."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem = Problem(
            Configuration(job.shape, N, NOISE, job.workers, 1.0, "floats", job.budget), job.seed
        )
        world = World(problem, job.seed, job.delay)
        system = make(job.system, problem, job.seed, job.workers or 1, job.population)
        if job.probes:
            return job, _effects(Flight(system, world, job.workers), job), time.perf_counter() - began
        found = _late(system, world, job) if job.workers else _synchronous(system, world, job)
        return job, found, time.perf_counter() - began


def _effects(flight: Flight, job: Job) -> list[bool]:
    at = set(np.linspace(job.budget // 2, job.budget - 1, job.probes).astype(int).tolist())
    found = []
    while flight.told < job.budget:
        if flight.told in at and not flight.next_is_lost:
            at.remove(flight.told)
            found.append(had_effect(flight, job.workers))
        flight.step()
    return found


class _Watch:
    """Looks at the recommendation until all targets are reached."""

    def __init__(self, system: System, world: World) -> None:
        self._system, self._world = system, world
        self.found: dict[float, Arrival] = {}

    def look(self, evaluations: int, now: float, kind: float) -> bool:
        """Whether there is nothing left to look for."""
        regret = self._world.regret(self._system.recommend())
        for target in TARGETS:
            if regret <= target and target not in self.found:
                self.found[target] = Arrival(True, evaluations, now, kind)
        return len(self.found) == len(TARGETS)

    def all(self, evaluations: int, now: float, kind: float) -> dict[float, Arrival]:
        """An arrival for each target, censored where it was not reached."""
        return {target: self.found.get(target, Arrival(False, evaluations, now, kind)) for target in TARGETS}


def _late(system: System, world: World, job: Job) -> dict[float, Arrival]:
    flight, watch = Flight(system, world, job.workers), _Watch(system, world)
    while flight.finished < job.budget:
        flight.step()
        if flight.finished % EVERY == 0 and watch.look(flight.finished, flight.now, flight.now):
            break
    return watch.all(flight.finished, flight.now, flight.now)


def _synchronous(system: System, world: World, job: Job) -> dict[float, Arrival]:
    watch, spent, now, kind = _Watch(system, world), 0, 0.0, 0.0
    while spent < job.budget:
        generation = [system.ask() for _ in range(system.batch)]
        indices = range(spent, spent + len(generation))
        results = [world.measure(i, x) for i, (_, x) in zip(indices, generation, strict=True)]
        late = world.times > TIMEOUT[job.delay]
        came = [not (world.lost[i] or late[i]) for i in indices]
        worst = max((loss for (loss, _), ok in zip(results, came, strict=True) if ok), default=0.0)
        for (handle, _), (loss, se), ok in zip(generation, results, came, strict=True):
            system.tell(handle, loss if ok else worst, se)
        times = np.minimum(world.times[spent : spent + len(generation)], TIMEOUT[job.delay])
        now += makespan(times, MANY)
        kind += makespan(times[came], MANY)
        spent += len(generation)
        if watch.look(spent, now, kind):
            break
    return watch.all(spent, now, kind)


def makespan(times: Vector, workers: int) -> float:
    """When the last of some tasks is done, each taken by the first worker that is free."""
    free = [0.0] * workers
    for duration in times:
        heapq.heappush(free, heapq.heappop(free) + float(duration))
    return max(free)


# ---------------------------------------------------------------------- what it says


class Ert(NamedTuple):
    """An expected running time over problems; ``least`` if it is only a lower bound."""

    value: float
    least: bool

    def __str__(self) -> str:
        return f"{'>' * self.least}{self.value:.3g}"


def ert(arrivals: dict[str, list[Arrival]], spent: str) -> Ert:
    """Geometric mean over problems of: ``spent`` in all runs / runs that arrived."""
    logs, least = [], False
    for runs in arrivals.values():
        reached = sum(run.reached for run in runs)
        least |= reached == 0
        logs.append(math.log(sum(float(getattr(run, spent)) for run in runs) / max(reached, 1)))
    return Ert(math.exp(sum(logs) / len(logs)), least)


def spread(arrivals: dict[str, list[Arrival]]) -> float:
    """Standard deviation of log evaluations over the seeds, within problems, as a factor."""
    logs = [[math.log(run.evaluations) for run in runs] for runs in arrivals.values()]
    freedom = sum(len(values) - 1 for values in logs)
    squares = sum(float(np.var(values)) * len(values) for values in logs)
    return math.exp(math.sqrt(squares / max(freedom, 1)))


def jobs(systems: Sequence[str], workers: Sequence[int], seeds: range, *, quick: bool) -> list[Job]:
    """All runs."""
    found = []
    for system in systems:
        for w in workers:
            for delay in ("FIFO", "log-normal") if w > 1 else ("log-normal",):
                shapes = SHAPES if w == MANY and not quick else FEW
                found += [Job(system, shape, seed, w, delay) for shape in shapes for seed in seeds]
                found += [
                    Job(
                        system,
                        "quadratic",
                        seed,
                        w,
                        delay,
                        PROBES // (1 + quick),
                        budget=PROBED // (1 + quick),
                    )
                    for seed in seeds[:2]
                ]
        for population in (None, MANY):
            found += [
                Job(system, shape, seed, 0, "log-normal", population=population)
                for shape in (FEW if quick else SHAPES)
                for seed in seeds
            ]
    return found


class Found:
    """What all runs found."""

    def __init__(self) -> None:
        self.effects: dict[tuple[str, int, Delay], list[bool]] = defaultdict(list)
        self._arrivals: dict[tuple[str, int, Delay, int | None, str], dict[float, list[Arrival]]] = {}
        self.seconds: dict[str, float] = defaultdict(float)

    def add(self, job: Job, result: list[bool] | dict[float, Arrival], seconds: float) -> None:
        """Take a run in."""
        self.seconds[job.system] += seconds
        if isinstance(result, list):
            self.effects[job.system, job.workers, job.delay] += result
            return
        key = (job.system, job.workers, job.delay, job.population, job.shape)
        for target, arrival in result.items():
            self._arrivals.setdefault(key, defaultdict(list))[target].append(arrival)

    def arrivals(
        self,
        system: str,
        workers: int,
        delay: Delay,
        target: float,
        population: int | None = None,
        shapes: tuple[str, ...] = SHAPES,
    ) -> dict[str, list[Arrival]]:
        """Runs by problem."""
        keys = {shape: (system, workers, delay, population, shape) for shape in shapes}
        return {shape: self._arrivals[key][target] for shape, key in keys.items() if key in self._arrivals}

    def synchronous(self, system: str, target: float, spent: str, shapes: tuple[str, ...] = SHAPES) -> Ert:
        """The better of the two populations."""
        both = (self.arrivals(system, 0, "log-normal", target, p, shapes) for p in (None, MANY))
        return min(ert(runs, spent) for runs in both)

    def unused(self, system: str, workers: int, delay: Delay) -> float:
        """Share of told results without effect."""
        effects = self.effects[system, workers, delay]
        return 1 - sum(effects) / len(effects)


def tables(found: Found, systems: list[str], workers: tuple[int, ...]) -> list[Table]:
    """What is printed and shown."""
    cells: list[tuple[int, Delay]] = [(w, "FIFO") for w in workers if w > 1]
    cells += [(w, "log-normal") for w in workers]
    heads = [f"{delay} {w}" for w, delay in cells]
    first = found.effects[systems[0], workers[-1], "log-normal"]
    effect = [[s, *(f"{1 - found.unused(s, w, d):.0%}" for w, d in cells)] for s in systems]
    late = []
    for s in systems:
        reference = found.synchronous(s, TARGETS[0], "evaluations", FEW)
        ratios = []
        for w, d in cells:
            value = ert(found.arrivals(s, w, d, TARGETS[0], shapes=FEW), "evaluations")
            ratios.append(f"{'>' * value.least}{value.value / reference.value:.2f}")
        late.append([s, str(reference), *ratios])
    return [
        Table(
            title="Told results that had an effect, by delay and workers",
            columns=["optimizer", *heads],
            rows=effect,
            note=f"Of {len(first)} results in each cell, on the ellipsoid.",
        ),
        Table(
            title=f"Evaluations to {TARGETS[0]:.0%} of the start's regret, over those of the synchronous run",
            columns=["optimizer", "synchronous", *heads],
            rows=late,
            note=f"ERT on {' and '.join(FEW)}; the synchronous one is the better of two populations.",
        ),
        Table(
            title=f"{MANY} workers, log-normal delays",
            columns=[
                "optimizer",
                *(f"evaluations to {target:.0%}" for target in TARGETS),
                "spread",
                f"arrived at {TARGETS[0]:.0%}, {TARGETS[1]:.0%}",
                "time",
                "synchronous",
                "speed-up",
                "lost known at once",
            ],
            rows=[_at_many(found, s) for s in systems],
            note="ERT over all problems. `spread`: standard deviation over the seeds, as a factor. Times to "
            f"{TARGETS[0]:.0%}, in mean delays; the last column is the speed-up if the synchronous run, and "
            "it alone, knew at once what is lost.",
        ),
    ]


def _at_many(found: Found, system: str) -> list[str | float | None]:
    runs = [found.arrivals(system, MANY, "log-normal", target) for target in TARGETS]
    everything = [[run for shape in by_shape.values() for run in shape] for by_shape in runs]
    mine, barrier = ert(runs[0], "time"), found.synchronous(system, TARGETS[0], "time")
    kind = found.synchronous(system, TARGETS[0], "kind_time")
    return [
        system,
        *(str(ert(by_shape, "evaluations")) for by_shape in runs),
        f"x/{spread(runs[0]):.1f}",
        ", ".join(f"{sum(run.reached for run in some)}/{len(some)}" for some in everything),
        str(mine),
        str(barrier),
        f"{barrier.value / mine.value:.1f}",
        f"{kind.value / mine.value:.1f}",
    ]


def losses(found: Found, systems: list[str], workers: tuple[int, ...]) -> list[str]:
    """What missed its target."""
    said = []
    ours, most = [s for s in systems if s in OURS], workers[-1]
    for s in ours:
        worst = max(found.unused(s, most, delay) for delay in ("FIFO", "log-normal"))
        if worst > ALLOWED:
            said.append(f"`{s}` leaves {worst:.0%} of the results unused with {most} in flight.")
        time_ = ert(found.arrivals(s, MANY, "log-normal", TARGETS[0]), "time")
        faster = found.synchronous(s, TARGETS[0], "time").value / time_.value
        if faster < 2:
            said.append(f"`{s}` is {faster:.1f} times as fast as its synchronous run, not 2.")
    for target in TARGETS:
        cost = {s: ert(found.arrivals(s, MANY, "log-normal", target), "evaluations").value for s in systems}
        best = min((s for s in systems if s in PEERS), key=cost.__getitem__, default=None)
        worse = [s for s in ours if best and cost[s] > cost[best]]
        if best and worse:
            said.append(
                f"To {target:.0%} with {MANY} in flight and log-normal delays, more evaluations than the "
                f"best peer ({best}, {cost[best]:.0f}): "
                + ", ".join(f"`{s}` {cost[s]:.0f}" for s in worse)
                + "."
            )
    return said


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three optimizers, 1 and 16 workers, one seed")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument(
        "--first", type=int, default=0, metavar="SEED", help="the seeds are this and the next"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these optimizers only")
    parser.add_argument("--workers", nargs="+", type=int, default=WORKERS, metavar="W", help="these only")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables there too")
    options = parser.parse_args()
    seeds = range(options.first, options.first + (1 if options.quick else options.seeds))
    workers = (1, MANY) if options.quick else tuple(sorted({MANY, *options.workers}))
    known = ("cma-es-lra", "openai-es", "cma, naive") if options.quick else (*OURS, *PEERS)
    systems = [name for name in known if not options.only or name in options.only]
    if not systems:
        parser.error(f"--only: choose from {', '.join(known)}")
    todo = jobs(systems, workers, seeds, quick=options.quick)
    found, began = Found(), time.perf_counter()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for count, done in enumerate(pool.map(execute, todo), 1):
            found.add(*done)
            if count % 100 == 0:
                print(f"{count} of {len(todo)} runs", file=sys.stderr)
    shown, lost = tables(found, systems, workers), losses(found, systems, workers)
    for table in shown:
        print(f"\n{table.title}\n")
        lines = [table.columns, *([str(cell) for cell in row] for row in table.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for name, *cells in lines:
            print("  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]))
    print("\n" + "\n".join(lost))
    slowest = max(found.seconds, key=found.seconds.__getitem__)
    print(
        f"\n{time.perf_counter() - began:.0f} s; {slowest} took {found.seconds[slowest]:.0f} s of its process"
    )
    if options.json is not None:
        text = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
        write(options.json, "Late results", shown, seeds=text, lost=lost)
    return 0


if __name__ == "__main__":
    sys.exit(main())
