"""What one generation costs as models grow: seconds and memory, beside what the machine could do at best.

    python benchmarks/scale.py [--quick] [--seeds N] [--cores N] [--smallest N] [--largest N]
                               [--json FILE]

A generation is ``ask(population)`` and ``tell`` of as many random losses; the model is n weights in float32.
Every row is a fresh process on the same number of cores (one, unless ``--cores`` says more). Its first
generations warm it up and are not counted; seconds are medians of the N after them, ``spread`` is the
slowest by the fastest. The peak is of resident memory in the first generations, above what imports took.
``vectors`` is that peak, less the table of noise, in float32 vectors of n numbers; from 10^6 numbers on,
below which it says nothing. Nothing is dumped, which would take a copy of the state.

``x memory`` divides a generation by the bandwidth of one core: a saxpy of BLAS for each of its directions
where these are vectors in memory, as they are to a library that keeps them. The two are measured in turn in
one process; of the generations the fastest is taken, and of the single directions the median, which what else
runs on the machine disturbs least. Twins are one direction; ``pgpe`` and ``snes`` need two sums of each. Sums
of a table take one core, however many there are, and scipy (``pip install 'blackopt[fast]'``); without it,
twice the passes. ``x fold`` divides it by what a plain fold of the population takes: a saxpy for each
candidate, twins or not, over stretches of a table of noise, block by block, in a process of its own.
What the machine does at best stands below: ``memory`` once more, and that fold as ``cache``.

evosax is compiled before it is timed; evotorch evaluates within its step, to random losses. Both keep the
whole population; where that would take a quarter of the free memory they are not run. They are no
dependencies: ``pip install --group peers`` brings evosax, ``pip install evotorch`` a PyTorch of gigabytes,
too. Exits with 1 if one of ``openai-es``, ``ars``, ``pgpe`` and ``snes`` holds four vectors or more at 10^6
numbers or beyond.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy.linalg.blas import saxpy

from benchmarks.results import Table, write
from blackopt import plugins
from blackopt.artifacts import table as tables
from blackopt.blocks import WeightsBlock
from blackopt.optimizers.keyed import TABLE_FROM
from blackopt.space import Space
from blackopt.types import Evaluation

SIZES = tuple(10**i for i in range(3, 10))
QUICK = (100_000, 1_000_000)
WARMING = 3  # generations: the second and third still compile something in evosax
POPULATIONS = (16, 64, 256)
OURS = ("openai-es", "openai-es signs", "ars", "pgpe", "snes", "deep-ga")
SAME = {
    "evosax Open_ES": "openai-es",
    "evosax PGPE": "pgpe",
    "evosax SNES": "snes",
    "evotorch PGPE": "pgpe",
    "evotorch SNES": "snes",
}
"""Which of ours is the same algorithm as a peer."""
PEERS = tuple(SAME)
SUMS = {"pgpe": 1.0, "snes": 2.0, "ars": 0.5, "openai-es": 0.5, "openai-es signs": 0.5}
"""Directions that are summed in a generation, by population: twins are one, squares are another sum."""
LIMITS = ("copy", "normal", "memory", "cache")
GOAL = 1.3  # times the bandwidth
MOST = 4.0  # vectors
NO_CACHE = 1 << 26  # numbers that no cache holds
TELLING_FROM = 1_000_000  # numbers, below which memory is what the interpreter happens to take


@dataclass(frozen=True)
class Row:
    parameters: int
    population: int
    what: str
    ask_s: float | None = None
    tell_s: float | None = None
    spread: float | None = None
    peak_mb: float | None = None
    vectors: float | None = None
    by_memory: float | None = None
    by_fold: float | None = None
    note: str = ""


# ---------------------------------------------------------------------- one process, one row


def resident(field: str) -> float:
    """Bytes, of the line of that name in the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024.0 * float(next(line.split()[1] for line in lines if line.startswith(field)))


def generations(
    ask: Callable[[], Any], tell: Callable[[Any], object], n: int, count: int
) -> dict[str, float]:
    """Seconds of ``count`` asks and tells, and of a direction from memory before each; the peak of the first
    generations, which are not counted, in bytes."""
    before, seconds = _reset(), []
    for _ in range(WARMING):
        tell(ask())
    peak = resident("VmHWM") - before
    stream = streaming(n)
    directions = stream()
    for _ in range(count):
        directions += stream()
        start = time.perf_counter()
        drawn = ask()
        middle = time.perf_counter()
        tell(drawn)
        seconds.append((middle - start, time.perf_counter() - middle))
        del drawn
    both = [asked + told for asked, told in seconds]
    ask, tell_ = (statistics.median(each) for each in zip(*seconds, strict=True))
    found = {"ask": ask, "tell": tell_, "fastest": min(both), "direction": statistics.median(directions)}
    return {**found, "spread": max(both) / min(both), "peak": peak}


def ours(what: str, n: int, population: int, count: int) -> dict[str, float]:
    """Seconds and bytes of one of blackopt's optimizers."""
    use, *signs = what.split()
    given: dict[str, Any] = {"precision": "float32", "seed": 1}
    given |= {"directions": population // 2} if use == "ars" else {"population": population}
    given |= {"noise": "signs"} if signs else {}
    found = plugins.find("optimizers", use)
    losses = np.random.default_rng(0)
    before = resident("VmRSS")
    search = found(Space([WeightsBlock("w", n)]), np.zeros(n, np.float32), found.Options(**given))

    def tell(candidates: Any) -> None:
        values = losses.standard_normal(population)
        search.tell([Evaluation(c.number, float(v)) for c, v in zip(candidates, values, strict=True)])

    made = resident("VmRSS") - before
    took = generations(lambda: search.ask(population), tell, n, count)
    took["peak"] += made
    drawn = n >= TABLE_FROM and not signs and use in SUMS  # deep-ga draws where a vector is read
    table = 4 * (tables.LENGTH + tables.BLOCK) * (1 + (use in {"pgpe", "snes"})) if drawn else 0
    return took | {"vectors": (took["peak"] - table) / (4 * n)}


def theirs(what: str, n: int, population: int, count: int) -> dict[str, float]:
    """The same of a peer."""
    library, search = what.split()
    make = evosax if library == "evosax" else evotorch
    importlib.import_module(f"{library}.algorithms")  # whose memory is not counted
    before = resident("VmRSS")
    ask, tell = make(search, n, population)
    made = resident("VmRSS") - before
    took = generations(ask, tell, n, count)
    took["peak"] += made
    return took | {"vectors": took["peak"] / (4 * n)}


def evosax(what: str, n: int, population: int) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Ask and tell, compiled by the generations that are not counted."""
    jax = importlib.import_module("jax")
    zeros = jax.numpy.zeros(n)
    algorithms = importlib.import_module("evosax.algorithms")
    search = getattr(algorithms, what)(population_size=population, solution=zeros)
    key, params = jax.random.key(0), search.default_params
    state = [search.init(key, zeros, params)]
    losses = jax.random.normal(key, (population,))

    def ask() -> Any:
        drawn, state[0] = jax.block_until_ready(search.ask(key, state[0], params))
        return drawn

    def tell(drawn: Any) -> None:
        state[0] = jax.block_until_ready(search.tell(key, drawn, losses, state[0], params))[0]

    return ask, tell


def evotorch(what: str, n: int, population: int) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Its step is told all at once: asking is nothing."""
    torch = importlib.import_module("torch")
    library = importlib.import_module("evotorch")
    algorithms = importlib.import_module("evotorch.algorithms")
    importlib.import_module("logging").getLogger("evotorch").setLevel("WARNING")

    def losses(candidates: Any) -> Any:
        return torch.randn(len(candidates))

    problem = library.Problem(
        "min", losses, solution_length=n, initial_bounds=(0, 0), dtype=torch.float32, vectorized=True
    )
    if what == "PGPE":
        rates = {"center_learning_rate": 0.1, "stdev_learning_rate": 0.1, "optimizer": "clipup"}
        search = algorithms.PGPE(problem, popsize=population, stdev_init=0.1, **rates)
    else:
        search = algorithms.SNES(problem, popsize=population, stdev_init=0.1)
    return lambda: None, lambda _: search.step()


def limits(n: int, population: int, count: int) -> dict[str, float]:
    """Seconds of what no generation can do without: see the module."""
    rng = np.random.default_rng(0)
    whole, out, room = tables.table(1), np.zeros(n, np.float32), np.zeros(n, np.float32)
    block = min(n, tables.BLOCK)
    starts = rng.integers(0, tables.LENGTH - block, (-(-n // block), population)).tolist()

    def fold() -> None:
        for at, row in zip(range(0, n, block), starts, strict=True):
            size = min(block, n - at)
            total = out[at : at + size]
            for start in row:
                saxpy(whole[start : start + size], total, size, 0.01)

    def normal() -> None:
        for at in range(0, n, block):
            rng.standard_normal(dtype=np.float32, out=room[at : min(n, at + block)])

    works = {"copy": lambda: np.copyto(room, out), "normal": normal, "cache": fold}
    found = {}
    for name, work in works.items():
        work()  # its pages are there before it is timed
        found[name] = min(timed(work) for _ in range(count))
    stream = streaming(n)
    directions = [seconds for _ in range(1 + count) for seconds in stream()]
    return {**found, "memory": statistics.median(directions) * population}


def streaming(n: int) -> Callable[[], list[float]]:
    """Seconds of a saxpy for each of some directions of n numbers, too many for a cache."""
    room, out = np.ones((max(1, NO_CACHE // n), n), np.float32), np.zeros(n, np.float32)
    return lambda: [timed(partial(saxpy, direction, out, n, 0.01)) for direction in room]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _reset() -> float:
    """Forget the peak so far; bytes that are resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident("VmRSS")


# ---------------------------------------------------------------------- all of them


def fresh(kind: str, what: str, n: int, population: int, count: int, cores: int) -> dict[str, float] | str:
    """What a process of its own measured, or why it did not."""
    alone = cores if kind == "theirs" else 1  # ours shares no sum among threads of a BLAS
    threads = {name: str(alone) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.scale",
            "--row",
            json.dumps([kind, what, n, population, count, cores]),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, **threads, "JAX_PLATFORMS": "cpu"},
    )
    if ended.returncode:
        return (ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"])[-1][:60]
    found: dict[str, float] = json.loads(ended.stdout)
    return found


def measured(
    n: int, population: int, count: int, cores: int, peers: Sequence[str], fold: float
) -> Iterator[Row]:
    """The rows of one size and population, a plain fold of which takes that many seconds."""
    for what in OURS:
        yield row(n, population, what, fresh("ours", what, n, population, count, cores), fold)
    for what in peers:
        if importlib.util.find_spec(what.split()[0]) is None:
            yield Row(n, population, what, note="not installed")
        elif 12 * n * population > psutil.virtual_memory().available / 4:  # drawn, scaled and told
            yield Row(n, population, what, note=f"{12e-9 * n * population:,.0f} GB")
        else:
            yield row(n, population, what, fresh("theirs", what, n, population, count, cores), fold)


def row(n: int, population: int, what: str, took: dict[str, float] | str, fold: float) -> Row:
    if isinstance(took, str):
        return Row(n, population, what, note=took)
    best = took["direction"] * population * SUMS.get(what, 0.0) if n >= TABLE_FROM else 0.0
    return Row(
        n,
        population,
        what,
        ask_s=took["ask"],
        tell_s=took["tell"],
        spread=took["spread"],
        peak_mb=took["peak"] / 1e6,
        vectors=took["vectors"] if n >= TELLING_FROM else None,
        by_memory=took["fastest"] / best if best else None,
        by_fold=took["fastest"] / fold if n >= TABLE_FROM and (best or what in PEERS) else None,
    )


HEAD = (*"parameters population optimizer".split(), "ask s", "tell s", "spread", "peak MB", "vectors",
        "x memory", "x fold", "")  # fmt: skip


def cells(one: Row) -> list[str]:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [
        f"{one.parameters:,}",
        str(one.population),
        one.what,
        shown(one.ask_s, ".2g"),
        shown(one.tell_s, ".3g"),
        shown(one.spread, ".2f"),
        shown(one.peak_mb, ",.0f"),
        shown(one.vectors, ".2f"),
        shown(one.by_memory, ".2f"),
        shown(one.by_fold, ".2f"),
        one.note,
    ]


def line(texts: list[str]) -> str:
    widths = (14, 11, 17, 9, 9, 7, 9, 8, 9, 7, 1)
    return "".join(
        text.ljust(width) if i in (2, 10) else text.rjust(width) + "  " * (i in (1, 9))
        for i, (text, width) in enumerate(zip(texts, widths, strict=True))
    ).rstrip()


def child(given: str) -> None:
    """Measure one row, on the first cores that this process may use."""
    kind, what, n, population, count, cores = json.loads(given)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if kind == "limits":
        found = limits(n, population, count)
    else:
        found = (ours if kind == "ours" else theirs)(what, n, population, count)
    print(json.dumps(found))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="up to a million numbers, smallest population")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="generations that are counted")
    parser.add_argument("--cores", type=int, default=1, metavar="N", help="that all of them may use")
    parser.add_argument("--smallest", type=int, default=0, metavar="N", help="size of the smallest model")
    parser.add_argument(
        "--largest", type=int, default=SIZES[-1], metavar="N", help="size of the largest model"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        child(options.row)
        return 0
    peers = PEERS[:1] if options.quick else PEERS
    rows: list[Row] = []
    machine: list[list[Any]] = []
    print(f"{options.cores} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n{line(list(HEAD))}")
    for n in QUICK if options.quick else SIZES:
        if n < options.smallest:
            continue
        if n > options.largest or 24 * n > psutil.virtual_memory().available:
            print(f"{n:>14,}  left out: above --largest, or six vectors would not fit in memory")
            continue
        for population in POPULATIONS[:1] if options.quick else POPULATIONS:
            least = fresh("limits", "", n, population, options.seeds, 1)
            if isinstance(least, str):
                raise RuntimeError(f"the limits of {n:,} numbers could not be measured: {least}")
            for one in measured(n, population, options.seeds, options.cores, peers, least["cache"]):
                rows.append(one)
                print(line(cells(one)), flush=True)
            machine.append([f"{n:,}", population, *(least[name] for name in LIMITS)])
    print(f"\n{'on one core':>14}{'directions':>12}" + "".join(f"{name + ' s':>10}" for name in LIMITS))
    for size, directions, *seconds in machine:
        print(f"{size:>14}{directions:>12}" + "".join(f"{value:>10.3g}" for value in seconds))
    missed, heavy = [*slower(rows), *overtaken(rows)], heavier(rows)
    if options.json is not None:
        save(options.json, options.seeds, rows, machine, [*missed, *heavy])
    print("", *missed, *heavy, sep="\n")
    return 1 if heavy else 0


def save(path: Path, seeds: int, rows: list[Row], machine: list[list[Any]], missed: list[str]) -> None:
    """In the format that documents are written from."""
    columns = ["parameters", "directions", *(f"{name} s" for name in LIMITS)]
    write(
        path,
        "Large models",
        [
            Table(
                title="One generation", columns=[*HEAD[:-1], "note"], rows=[list(cells(one)) for one in rows]
            ),
            Table(title="What the machine does at best, on one core", columns=columns, rows=machine),
        ],
        seeds=f"{seeds} generations each",
        lost=[
            "`pgpe` sums the gradient twice beyond 2^18 numbers, first for its length: that spares a vector.",
            *missed,
        ],
        data=[asdict(one) for one in rows],
        libraries=("blackopt", "numpy", "scipy", "evosax", "jax", "evotorch", "torch"),
    )


def slower(rows: list[Row]) -> list[str]:
    """What `openai-es` misses of the goal, at the sizes where it stands."""
    told = [r for r in rows if r.what == "openai-es" and r.parameters >= TELLING_FROM and r.by_memory]
    missed = [
        f"{row.by_memory:.1f} at {row.parameters:,} numbers and a population of {row.population}"
        for row in told
        if row.by_memory is not None and row.by_memory > GOAL
    ]
    if not missed:
        return []
    what = f"`openai-es` misses {GOAL} times the bandwidth of one core, twins counted once"
    why = "The fewer directions there are, the more the new centre's own passes and Python weigh."
    return [f"{what}: {', '.join(missed)}. {why}"]


def overtaken(rows: list[Row]) -> list[str]:
    """Where a peer's generation takes less time than that of the same algorithm here."""
    took = {
        (r.what, r.parameters, r.population): r.ask_s + r.tell_s
        for r in rows
        if r.ask_s is not None and r.tell_s is not None
    }
    found = []
    for peer, mine in SAME.items():
        slow = [
            (took[mine, n, population] / seconds, n, population)
            for (what, n, population), seconds in took.items()
            if what == peer and (mine, n, population) in took and seconds < took[mine, n, population]
        ]
        if slow:
            ratio, n, population = max(slow)
            largest = max(n for _, n, _ in slow)
            found.append(
                f"`{mine}` takes longer than {peer} up to {largest:,} numbers: {ratio:.1f} times as long at "
                f"{n:,} and a population of {population}."
            )
    return found


def heavier(rows: list[Row]) -> list[str]:
    """Who holds more than models that are nearly as large as the memory allow."""
    return [
        f"`{row.what}` holds {row.vectors:.1f} vectors of {row.parameters:,} numbers "
        f"with a population of {row.population}."
        for row in rows
        if row.what in SUMS and row.vectors is not None and row.vectors >= MOST
    ]


if __name__ == "__main__":
    sys.exit(main())
