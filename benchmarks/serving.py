"""What serving a perturbation to each unit costs a request, beside what the machine allows.

    python benchmarks/serving.py [--quick] [--seeds N] [--json FILE]

Assignment: microseconds of single calls in a window of 512 arms and a control, timer included (its own cost
is the first row). Switching: from the candidate of one arm to that of another, in milliseconds of processor
time. A switch moves 12 bytes for each number (centre, noise, result), as ``numpy.add`` does. Its
limits are timed in turn with it: ``memory``, an addition of as many numbers that no cache has, and ``add``,
one of the same centre and noise, which a cache may have. Batch: an MLP of 10^5 numbers, 256 requests in a
call, processor time as well; ``extra`` is the most memory that a call took at once, in models. Each seed is a
run of everything; medians over the seeds are shown, and the range of those that decide. Exits with 1 if a
batch is not what its requests are one by one. Everything runs in one thread, as a request does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import Table, write
from blackopt.artifacts import Centre, Keyed, Kind, Store
from blackopt.artifacts.table import LENGTH, table
from blackopt.serving import ArmFiles, CallableLog, KeyedMlp, Models, Perturbed, Sampler
from blackopt.traffic import allocate
from blackopt.types import Placement, Push
from blackopt_connectors.file import FileOptions, FileTarget

Floats = NDArray[np.float32]

SIGMA = 0.02
REQUESTS = 256
WIDTHS = (64, 256, 256, 64)
ASSIGN_P50_US, ASSIGN_P99_US, SWITCH_BY_MEMORY = 5.0, 20.0, 1.5
"""What serving is held to."""


class Calls(NamedTuple):
    """Microseconds of single calls."""

    what: str
    p50: float
    p99: float


class Switch(NamedTuple):
    """Seconds of one switch, and of the limits in the same run."""

    numbers: int
    kind: str
    switch_s: float
    memory_s: float
    add_s: float


class Batch(NamedTuple):
    """Processor seconds of one batch."""

    what: str
    batch_s: float
    extra: float  # memory at its peak, in models


class Network:
    def __init__(self, tensors: Mapping[str, Floats]) -> None:
        self.tensors = tensors

    def act(self, x: Floats) -> Floats:
        h = x
        for layer in range(len(WIDTHS) - 1):
            h = self.tensors[f"w{layer}"] @ h + self.tensors[f"b{layer}"]
            if layer < len(WIDTHS) - 2:
                h = np.tanh(h)
        return h


class Flat:
    def __init__(self, tensors: Mapping[str, Floats]) -> None:
        self.tensors = tensors


def sampler_of(
    folder: Path, centre: Centre, make: Callable[[Mapping[str, Floats]], Any], *, arms: int, kind: Kind
) -> tuple[Sampler[Any], ArmFiles[Any]]:
    """A module that reads a directory in which a window of twins was pushed."""
    centre.publish(Store(folder / "centres"))
    (folder / "arms").mkdir(exist_ok=True)
    target = FileTarget(FileOptions(directory=folder / "arms"), base=folder)
    control, slices = allocate(1_000_000, 100_000, arms)
    for trial, part in enumerate(slices):
        candidate = Keyed(centre.version, trial // 2, 1 - 2 * (trial % 2), SIGMA, kind)
        placement = Placement(1, "s.1", part, control)
        order = Push(f"k{trial}", "feed", trial, f"t{trial}", 1, 86_400.0, candidate.encode(), placement)
        target.push(order)
    models = Models(folder / "centres", "feed", make, incumbent=centre.tensors())
    files = ArmFiles(
        folder / "arms",
        "feed",
        accept=models.accept,
        incumbent=models.incumbent,
        load=models.load,
        every_s=None,
    )
    log = CallableLog(lambda _: None, spill=folder / "spill", size=1_000_000)
    return Sampler(files, models, log=log), files


def percentiles(what: str, action: Callable[[str], object], units: Sequence[str]) -> Calls:
    """Each call by itself, after a hundred that are not timed."""
    for unit in units[:100]:
        action(unit)
    taken = []
    clock = time.perf_counter_ns
    for unit in units:
        began = clock()
        action(unit)
        taken.append(clock() - began)
    p50, p99 = np.percentile(taken, [50, 99]) / 1_000
    return Calls(what, float(p50), float(p99))


def assignment(folder: Path, calls: int, seed: int) -> list[Calls]:
    """Of a window with 512 arms, of which one is kept as numbers."""
    centre = Centre("feed", 1, seed, {"w": (100,)}, np.zeros(100, np.float32))
    sampler, files = sampler_of(folder, centre, Flat, arms=512, kind=Kind.TABLE)
    units = [f"user {seed} {number}" for number in range(calls)]
    by_arm = {sampler.perturb(unit).arm: unit for unit in units[:5_000]}
    of_control, of_arm = by_arm["control"], by_arm["t0"]

    def served(unit: str) -> None:
        with sampler.perturb(unit):
            pass

    def logged(unit: str) -> None:
        with sampler.perturb(unit) as p:
            p.log(clicked=True)

    found = [
        percentiles("nothing: the timer", lambda _: None, units),
        percentiles("assign", lambda unit: files.assign("feed", unit), units),
        percentiles("perturb, the control", served, [of_control] * calls),
        percentiles("perturb, a candidate that is there", served, [of_arm] * calls),
        percentiles("perturb and log an outcome", logged, [of_arm] * calls),
    ]
    sampler.close()
    return found


class Memory:
    """Additions of numbers that no cache has: each goes on where the last one ended."""

    def __init__(self) -> None:
        self._arrays = [np.ones(1 << 26, np.float32) for _ in range(3)]  # 256 MB each
        self._at = 0

    def add(self, numbers: int) -> None:
        if self._at + numbers > len(self._arrays[0]):
            self._at = 0
        one, two, three = (array[self._at : self._at + numbers] for array in self._arrays)
        np.add(one, two, three)
        self._at += numbers


def switching(folder: Path, numbers: int, kind: Kind, switches: int, *, seed: int, memory: Memory) -> Switch:
    """Between two arms, in turn with an addition of the same size."""
    rng = np.random.default_rng(seed)
    centre = Centre("feed", 1, seed, {"w": (numbers,)}, rng.standard_normal(numbers, dtype=np.float32))
    sampler, _ = sampler_of(folder, centre, Flat, arms=2, kind=kind)
    by_arm = {sampler.perturb(f"user {number}").arm: f"user {number}" for number in range(200)}
    room, noise = np.empty(numbers, np.float32), table(seed)
    if numbers > LENGTH:
        noise = np.concatenate([noise] * (numbers // LENGTH + 1))
    taken: dict[str, list[float]] = {"switch": [], "memory": [], "add": []}
    for turn in range(switches + 2):
        start = int(rng.integers(0, len(noise) - numbers + 1))

        def switch(arm: str = f"t{turn % 2}") -> None:
            with sampler.perturb(by_arm[arm]):
                pass

        def add(begin: int = start) -> None:
            np.add(centre.values, noise[begin : begin + numbers], room)

        for name, action in (("switch", switch), ("memory", partial(memory.add, numbers)), ("add", add)):
            began = time.thread_time()
            action()
            taken[name].append(time.thread_time() - began)
    sampler.close()
    # The first two make the buffer, and touch its pages.
    switch_s, memory_s, add_s = (statistics.median(times[2:]) for times in taken.values())
    return Switch(numbers, kind.name.lower(), switch_s, memory_s, add_s)


def batches(folder: Path, rounds: int, seed: int) -> tuple[list[Batch], int, float]:
    """256 requests in a call; the model's size; how far a batch is from its requests one by one."""
    pairs = list(pairwise(WIDTHS))
    shapes: dict[str, tuple[int, ...]] = {
        f"w{i}": (outputs, inputs) for i, (inputs, outputs) in enumerate(pairs)
    }
    shapes |= {f"b{i}": (outputs,) for i, (_, outputs) in enumerate(pairs)}
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    rng = np.random.default_rng(seed)
    values = 0.05 * rng.standard_normal(size, dtype=np.float32)
    centre = Centre("feed", 1, seed, shapes, values)
    sampler, _ = sampler_of(folder, centre, Network, arms=2 * REQUESTS, kind=Kind.TABLE)
    by_key: dict[int, Perturbed[Any]] = {}
    for number in range(20_000):
        p = sampler.perturb(f"user {number}")
        if p.key is not None:
            by_key.setdefault(p.key, p)
    different = list(by_key.values())[:REQUESTS]
    assert len(different) == REQUESTS
    control = next(p for p in map(sampler.perturb, map(str, range(1_000))) if p.arm == "control")
    x = rng.standard_normal((REQUESTS, WIDTHS[0]), dtype=np.float32)
    network = KeyedMlp([(f"w{i}", f"b{i}") for i in range(len(pairs))])

    def one_by_one() -> Floats:
        made = []
        for p, row in zip(different, x, strict=True):
            with p:
                made.append(p.act(row))
        return np.array(made)

    ways: dict[str, Callable[[], Floats]] = {
        "no noise": lambda: network.act(x, [control] * REQUESTS),
        "256 keys in one call": lambda: network.act(x, different),
        "256 keys one by one": one_by_one,
    }
    read = np.empty(size, np.float32)
    starts = rng.integers(0, LENGTH - size, REQUESTS).tolist()

    def only_read() -> Floats:
        for start in starts:
            np.maximum.reduce(table(seed)[start : start + size])
        return read

    ways["only reading 256 models"] = only_read
    taken: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Floats] = {}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = time.thread_time()
            found[name] = way()
            taken[name].append(time.thread_time() - began)
    extra = {}
    for name, way in ways.items():
        tracemalloc.start()
        way()
        extra[name] = tracemalloc.get_traced_memory()[1] / (4 * size)
        tracemalloc.stop()
    sampler.close()
    right = found["256 keys one by one"]
    off = float(np.abs(found["256 keys in one call"] - right).max() / np.abs(right).max())
    return (
        [Batch(name, statistics.median(times[1:]), extra[name]) for name, times in taken.items()],
        size,
        off,
    )


LIMITS: tuple[Callable[[Switch], float], ...] = (lambda row: row.memory_s, lambda row: row.add_s)


def spread(values: Sequence[float], form: str) -> str:
    """The median, and the range where there is one."""
    shown = format(statistics.median(values), form)
    return shown if len(values) < 2 else f"{shown} ({min(values):{form}} to {max(values):{form}})"


def tables(
    calls: Sequence[Sequence[Calls]],
    switches: Sequence[Sequence[Switch]],
    batches_: Sequence[Sequence[Batch]],
    size: int,
) -> list[Table]:
    """What is printed, and kept."""
    first = Table(
        title="Assignment, µs a call",
        columns=["call", "p50", "p99"],
        rows=[
            [same[0].what, spread([row.p50 for row in same], ".2f"), spread([row.p99 for row in same], ".2f")]
            for same in zip(*calls, strict=True)
        ],
    )
    rows: list[list[str | float | None]] = []
    for same in zip(*switches, strict=True):
        median = [statistics.median(times) * 1e3 for times in zip(*(row[2:] for row in same), strict=True)]
        ratios = [spread([row.switch_s / limit(row) for row in same], ".2f") for limit in LIMITS]
        rows.append([f"{same[0].numbers:,}", same[0].kind, *(f"{ms:.3f}" for ms in median), *ratios])
    second = Table(
        title="Switching from one candidate to another, ms",
        columns=["numbers", "noise", "switch", "memory", "add", "by memory", "by add"],
        rows=rows,
    )
    third = Table(
        title=f"256 requests of an MLP of {size:,} numbers",
        columns=["way", "ms", "requests/s", "by no noise", "extra"],
        rows=[
            [
                same[0].what,
                f"{statistics.median(row.batch_s for row in same) * 1e3:.2f}",
                f"{REQUESTS / statistics.median(row.batch_s for row in same):,.0f}",
                spread(
                    [row.batch_s / run[0].batch_s for row, run in zip(same, batches_, strict=True)], ".1f"
                ),
                f"{statistics.median(row.extra for row in same):.2f}",
            ]
            for same in zip(*batches_, strict=True)
        ],
    )
    return [first, second, third]


def show(found: Table) -> None:
    print(f"\n{found.title}\n")
    cells = [found.columns, *([str(cell) for cell in row] for row in found.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]))


def missed(calls: Sequence[Sequence[Calls]], switches: Sequence[Sequence[Switch]]) -> list[str]:
    """What serving is held to, where it was not reached in this run."""
    assign = [run[1] for run in calls]
    p50, p99 = statistics.median(c.p50 for c in assign), statistics.median(c.p99 for c in assign)
    found = []
    if p50 > ASSIGN_P50_US:
        found.append(f"assignment: p50 is {p50:.1f} µs, and was to be below {ASSIGN_P50_US}")
    if p99 > ASSIGN_P99_US:
        found.append(f"assignment: p99 is {p99:.1f} µs, and was to be below {ASSIGN_P99_US}")
    for same in zip(*switches, strict=True):
        ratio = statistics.median(row.switch_s / row.memory_s for row in same)
        if ratio > SWITCH_BY_MEMORY:
            what = f"{same[0].numbers:,} numbers of kind {same[0].kind}"
            found.append(f"switching {what}: {ratio:.2f} times the memory; {SWITCH_BY_MEMORY} is the aim")
    return found


def switches_of(numbers: int, kind: Kind) -> int:
    """Enough of them for a median."""
    return max(9, min(101, 100_000_000 // numbers)) if kind is Kind.TABLE else 9


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer calls, models of up to a million numbers")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of everything; 3, or 1 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # numpy has read it by now
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
    seeds = max(1, options.seeds or (1 if options.quick else 3))
    calls: list[list[Calls]] = []
    switches: list[list[Switch]] = []
    batches_: list[list[Batch]] = []
    worst, size = 0.0, 0
    lengths = (100_000, 1_000_000) if options.quick else (100_000, 1_000_000, 10_000_000)
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as place:
            folders = (Path(place) / str(number) for number in range(99))

            def fresh(folders: Iterator[Path] = folders) -> Path:
                folder = next(folders)
                folder.mkdir()
                return folder

            calls.append(assignment(fresh(), 20_000 if options.quick else 100_000, seed))
            memory = Memory()
            switches.append(
                [
                    switching(fresh(), numbers, kind, switches_of(numbers, kind), seed=seed, memory=memory)
                    for numbers in lengths
                    for kind in (Kind.TABLE, Kind.SIGN, Kind.NORMAL)
                ]
            )
            found, size, off = batches(fresh(), 9 if options.quick else 31, seed)
            batches_.append(found)
            worst = max(worst, off)
    shown = tables(calls, switches, batches_, size)
    for each in shown:
        show(each)
    print(f"\na batch differs from its requests one by one by {worst:.1e} of the largest output")
    lost = missed(calls, switches)
    for line in lost:
        print(f"not reached: {line}")
    if options.json is not None:
        title = "Serving a perturbation to each unit"
        write(options.json, title, shown, seeds=f"0 to {seeds - 1}", lost=lost)
    return 1 if worst > 1e-5 else 0


if __name__ == "__main__":
    sys.exit(main())
