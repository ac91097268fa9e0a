"""The task of examples/online: to wait for late outcomes, or not to, and what a late one is worth.

    python benchmarks/online.py [--quick] [--seeds 10] [--json FILE]
    python benchmarks/online.py --tune           # how SETTINGS were chosen, on seeds from 1,000 on

Its visitors, network and purchases, in one process. Every hour has the same number of visitors for everybody,
and the same visitors for the same seed. An outcome counts for twelve hours, so a window's results are known
twelve hours after its end.

Synchronous: the next window opens when the last one's results are known; in between nobody explores.
Asynchronous: window follows window, and each is told when it is known, when the centre has long moved on.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import Table, write
from blackopt.optimizers.openai_es import OpenAIES, OpenAIESOptions
from blackopt.space import Space
from blackopt.types import Evaluation

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "online"
if str(EXAMPLE) not in sys.path:
    sys.path.insert(0, str(EXAMPLE))

from online_app import world  # noqa: E402
from online_app.world import Floats, Visitors  # noqa: E402

VISITORS = 2_000  # an hour
CONTROL = 0.1
ARMS = 128  # a window: 64 directions
HOURS = 240
TARGETS = (0.50, 0.55, 0.58)
SHOWN = (24, 48, 96, 144, 192, 240)


class Form(NamedTuple):
    """How late results take part."""

    name: str
    late: Literal["weights", "shift", "discard"]
    waits: bool = False


class Setting(NamedTuple):
    """Hours of a window, the search radius, and the step in units of its square."""

    window_h: int
    sigma: float
    rate: float


SYNCHRONOUS = Form("synchronous", "weights", waits=True)
FORMS = (
    SYNCHRONOUS,
    Form("asynchronous, weights", "weights"),
    Form("asynchronous, shift", "shift"),
    Form("asynchronous, discard", "discard"),
)

CAREFUL = Form("asynchronous, shift, half the step", "shift")
"""As examples/online/campaign.yaml has it: nothing but the step holds back a search that counts all fully."""

SETTINGS = {
    "synchronous": Setting(12, 0.2, 16),
    "asynchronous, weights": Setting(1, 0.2, 16),
    "asynchronous, shift": Setting(1, 0.2, 8),
    CAREFUL.name: Setting(1, 0.2, 4),
    "asynchronous, discard": Setting(4, 0.2, 16),
}
"""The fastest to the middle target of the grid below, or within an hour of it, on other seeds than the shown
ones: ``--tune``; and the careful one."""

COMMON = {form.name: Setting(4, 0.2, 2) for form in FORMS}
"""The same for everybody: the step that `openai-es` takes where none is written."""

GRID = {
    form.name: [
        Setting(*setting)
        for setting in itertools.product((4, 12, 24) if form.waits else (1, 4), (0.2, 0.4), (4, 8, 16, 32))
    ]
    for form in FORMS
}
TUNED_ON = (1_000, 1_001, 1_002)


class Job(NamedTuple):
    """One run."""

    form: Form
    setting: Setting
    seed: int
    hours: int


class Curve(NamedTuple):
    """True values of the centre: ``values[i]`` holds from hour ``hours[i]`` on."""

    hours: list[int]
    values: list[float]

    def at(self, hour: float) -> float:
        """The value at an hour."""
        return self.values[np.searchsorted(self.hours, hour, side="right") - 1]

    def reached(self, target: float) -> float:
        """The first hour at the target; infinity where there is none."""
        return next((h for h, v in zip(self.hours, self.values, strict=True) if v >= target), math.inf)


def simulate(job: Job) -> Curve:
    """A run in virtual time."""
    form, setting, seed, hours = job
    start = np.concatenate([tensor.ravel() for tensor in world.incumbent().values()]).astype(np.float64)
    options = OpenAIESOptions(
        population=ARMS,
        sigma=setting.sigma,
        learning_rate=setting.rate * setting.sigma**2,
        late=form.late,
        noise="table",  # the faster one of the two
        seed=seed,
    )
    search = OpenAIES(Space.from_spec({"w": {"weights": world.WEIGHTS}}), start, options)
    in_flight: deque[tuple[int, list[Evaluation]]] = deque()  # when it is known, and what
    curve = Curve([0], [world.value(tensors(start))])
    opens = 0
    for hour in range(hours + 1):
        while in_flight and in_flight[0][0] <= hour:
            search.tell(in_flight.popleft()[1])
            curve.hours.append(hour)
            curve.values.append(world.value(tensors(search.recommend())))
        if hour >= opens and not (form.waits and in_flight):
            opens = hour + setting.window_h
            candidates = search.ask(ARMS)
            vectors = np.stack([*(each.vector for each in candidates), search.recommend()])
            effects = window(vectors, seed, range(hour, opens))
            told = [Evaluation(c.number, -float(e)) for c, e in zip(candidates, effects, strict=True)]
            in_flight.append((opens + world.WITHIN_H, told))
    return curve


def window(vectors: Floats, seed: int, hours: Iterable[int]) -> Floats:
    """(k,) shares of buyers in k arms beyond that of the control, which is the last row of (k + 1, n)."""
    arms, each = len(vectors) - 1, int(VISITORS * (1 - CONTROL)) // (len(vectors) - 1)
    shares = []
    for hour in hours:
        visitors = world.draw_visitors(np.random.default_rng([seed, hour]), VISITORS)
        cut = arms * each
        found = bought(vectors[:-1], visitors, slice(0, cut), (arms, each), hour).mean(axis=1)
        beside = bought(vectors[-1:], visitors, slice(cut, VISITORS), (1, VISITORS - cut), hour).mean()
        shares.append(found - beside)
    effects: Floats = np.mean(shares, axis=0)
    return effects


def bought(
    vectors: Floats, visitors: Visitors, who: slice, shape: tuple[int, int], hour: float
) -> NDArray[np.bool_]:
    """(arms, n) who bought in time, of the visitors of each arm."""
    x = visitors.x[who].reshape(*shape, -1)
    shown = np.argmax(world.scores(tensors(vectors), x), axis=-1)
    buys = visitors.coin[who].reshape(shape) < world.purchase(x, shown, hour)
    in_time: NDArray[np.bool_] = buys & (visitors.delay_h[who].reshape(shape) <= world.WITHIN_H)
    return in_time


def tensors(vectors: Floats) -> dict[str, Floats]:
    """The network's tensors of (..., n) vectors."""
    found, at = {}, 0
    for name, shape in world.SHAPES.items():
        size = math.prod(shape)
        found[name] = vectors[..., at : at + size].reshape(*vectors.shape[:-1], *shape)
        at += size
    return found


# ---------------------------------------------------------------------- what it says


def run(jobs: Sequence[Job], processes: int) -> dict[tuple[Form, Setting], list[Curve]]:
    """All curves, by form and setting, in the order of the seeds."""
    found: dict[tuple[Form, Setting], list[Curve]] = defaultdict(list)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for count, (job, curve) in enumerate(zip(jobs, pool.map(simulate, jobs), strict=True), 1):
            found[job.form, job.setting].append(curve)
            if count % 20 == 0:
                print(f"{count} of {len(jobs)} runs", file=sys.stderr)
    return found


def tune(hours: int, processes: int) -> Table:
    """The whole grid, and the fastest of each form first."""
    jobs = [
        Job(form, setting, seed, hours) for form in FORMS for setting in GRID[form.name] for seed in TUNED_ON
    ]
    found = run(jobs, processes)
    rows = []
    for form in FORMS:
        ranked = sorted(GRID[form.name], key=lambda s, form=form: _speed(found[form, s], hours))  # type: ignore[misc]
        for setting in ranked[:4]:
            hour, value = _speed(found[form, setting], hours)
            rows.append([form.name, *map(str, setting), f"{hour:.0f}", f"{-value:.3f}"])
    return Table(
        title="Settings, the four best of each form",
        columns=["form", "window, h", "sigma", "rate", f"hours to {TARGETS[1]:.0%}", "value at the end"],
        rows=[list(row) for row in rows],
        note=f"Means over seeds {TUNED_ON[0]} to {TUNED_ON[-1]}; to arrive never counts as {hours} hours.",
    )


def _speed(curves: Sequence[Curve], hours: int) -> tuple[float, float]:
    reached = np.mean([min(curve.reached(TARGETS[1]), hours) for curve in curves])
    return float(reached), -float(np.mean([curve.values[-1] for curve in curves]))


def hours_to(found: dict[str, list[Curve]], settings: dict[str, Setting], title: str, note: str) -> Table:
    """Hours to the targets, with the spread over the seeds."""
    rows = []
    for name, curves in found.items():
        reached = [_reached(curves, target) for target in TARGETS]
        rows.append([name, *map(str, settings[name]), *reached])
    heads = [f"hours to {target:.0%}" for target in TARGETS]
    return Table(
        title=title,
        columns=["", "window, h", "sigma", "rate", *heads],
        rows=[list(row) for row in rows],
        note=note,
    )


def _reached(curves: Sequence[Curve], target: float) -> str:
    hours = [curve.reached(target) for curve in curves]
    arrived = sum(hour < math.inf for hour in hours)
    if arrived == len(hours):
        return f"{np.median(hours):.0f} ({min(hours):.0f} to {max(hours):.0f})"
    median = f"{np.median(hours):.0f}, " if 2 * arrived > len(hours) else ""
    return f"{median}{arrived} of {len(hours)} arrived"


def learning(found: dict[str, list[Curve]], hours: int, title: str) -> Table:
    """The curves."""
    shown = [hour for hour in SHOWN if hour <= hours]
    rows = [
        [
            name,
            *(
                f"{np.mean(at):.3f} ± {np.std(at):.3f}"
                for at in ([curve.at(hour) for curve in curves] for hour in shown)
            ),
        ]
        for name, curves in found.items()
    ]
    return Table(
        title=title,
        columns=["", *(f"{hour} h" for hour in shown)],
        rows=[list(row) for row in rows],
        note="True share of buyers of the centre, mean and standard deviation over the seeds. It begins at "
        f"{world.value(world.incumbent()):.3f}; no network can have more than {world.best():.3f}.",
    )


def losses(found: dict[str, list[Curve]], hours: int) -> list[str]:
    """Where the synchronous form is as good, or better."""
    said = []
    waiting = found[SYNCHRONOUS.name]
    for target in TARGETS:
        reference = np.median([curve.reached(target) for curve in waiting])
        slower = {
            name: median
            for name, curves in found.items()
            if curves is not waiting
            and not (median := np.median([curve.reached(target) for curve in curves])) < reference
        }
        if slower:
            names = ", ".join(f"`{name}` {_hours(float(median))}" for name, median in slower.items())
            said.append(
                f"To {target:.0%}, each with its best settings, not faster than the synchronous form "
                f"({_hours(float(reference))}): {names}."
            )
    last = np.mean([curve.at(hours) for curve in waiting])
    for name, curves in found.items():
        never = sum(curve.reached(TARGETS[0]) == math.inf for curve in curves)
        if never:
            said.append(f"`{name}` never comes to {TARGETS[0]:.0%} in {never} of {len(curves)} runs.")
    behind = [name for name, curves in found.items() if np.mean([c.at(hours) for c in curves]) < last]
    if behind:
        said.append(
            f"After {hours} hours the synchronous form is ahead of "
            + ", ".join(f"`{name}`" for name in behind)
            + f": settings that are the fastest to {TARGETS[1]:.0%} are not the best ones to stay with."
        )
    return said


def _hours(median: float) -> str:
    return "never" if median == math.inf else f"{median:.0f} h"


def show(table: Table) -> None:
    """Print a table."""
    print(f"\n{table.title}\n")
    lines = [table.columns, *([str(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *cells in lines:
        print("  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]))
    print(f"\n{table.note}")


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed and four days")
    parser.add_argument("--seeds", type=int, default=10, metavar="N")
    parser.add_argument("--tune", action="store_true", help="show how the settings were chosen, and end")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables there too")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes to come
    seeds, hours = range(1 if options.quick else options.seeds), 96 if options.quick else HOURS
    began = time.perf_counter()
    if options.tune:
        show(tune(hours, options.processes))
        return 0
    jobs = {
        Job(form, settings[form.name], seed, hours): None
        for forms, settings in (((*FORMS, CAREFUL), SETTINGS), (FORMS, COMMON))
        for form in forms
        for seed in seeds
    }
    found = run(list(jobs), options.processes)
    own = {form.name: found[form, SETTINGS[form.name]] for form in (*FORMS, CAREFUL)}
    common = {form.name: found[form, COMMON[form.name]] for form in FORMS}
    spread = "Median over the seeds, and the range. Rates are in units of sigma squared."
    tables = [
        hours_to(own, SETTINGS, "Each with its own best settings", spread),
        learning(own, hours, "Learning curves, each with its own best settings"),
        hours_to(
            common,
            COMMON,
            "All with the same settings, and the step that is taken where none is written",
            spread,
        ),
        learning(common, hours, "Learning curves, all with the same settings"),
    ]
    lost = losses(own, hours)
    for table in tables:
        show(table)
    print("\n" + "\n".join(lost))
    print(f"\n{time.perf_counter() - began:.0f} s")
    if options.json is not None:
        text = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
        write(options.json, "Learning from late outcomes", tables, seeds=text, lost=lost)
    return 0


if __name__ == "__main__":
    sys.exit(main())
