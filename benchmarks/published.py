"""Published results, run again through ask and tell: CartPole, Swimmer, and a network fitted to sin.

    python benchmarks/published.py [--quick] [--only NAME ...] [--seeds N] [--jobs N] [--json FILE]

``sine`` is the acceptance test of EvoKit, in PaddlePaddle's PARL: a 1-10-5-1 network, of 81 parameters, is
fitted to sin on [-3, 9] with 10 perturbations an iteration, to a test loss below 0.05 within 1,000
iterations, with noise drawn anew and with noise from a table. Here the loss is the mean squared error, the
121 training points are evenly spaced, and the test points lie halfway between them.

``cartpole`` is gymnasium's CartPole-v1, by a linear policy and by a network of 8 hidden units, with ES, ARS
and PGPE, in whole generations and with 16 candidates in flight whose results come in random order. A
candidate plays one episode. What is recommended plays 100 episodes of other seeds. CartPole-v0 counted as
solved at a mean return of 195, v1 does at 475.

``swimmer`` is gymnasium's Swimmer-v5 on MuJoCo, by a linear policy and ARS (Mania, Guy and Recht, NeurIPS
2018) with one direction an update, V1, and V2, which normalises what the policy sees. After every 25 updates
the centre plays 2 episodes of other seeds, which do not count as used. The goal is a return of 325.
Published: 350.2 +- 18.8 by V1 after 2,000 episodes on Swimmer-v3, with alpha 0.02 and nu 0.01
(Stable-Baselines3, huggingface.co/sb3/ars-Swimmer-v3); 128 by OpenAI-ES after 1,390,000 steps, 1,390
episodes, on Swimmer-v1 (Salimans et al. 2017, table 3). Body, reward and length of an episode are the same in
all versions; the simulator and its random starts are not. Alpha and nu are theirs, 0.02 and 0.01.

Settings were chosen on seeds from 1,000 on, which are not among those reported: 0, 1, 2, ...
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import multiprocessing
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import LIBRARIES, Cell, Table, write
from blackopt import plugins
from blackopt.protocols import Optimizer
from blackopt.serving.mlp import Mlp, RunningNorm
from blackopt.space import Space
from blackopt.types import Candidate, Evaluation
from blackopt_policies.mlp import Mlp as MlpPolicy
from blackopt_policies.mlp import MlpOptions

Vector: TypeAlias = NDArray[np.float64]


def made(use: str, space: Space, start: Vector, seed: int, **options: object) -> Optimizer:
    """An optimizer by its name."""
    plugin = plugins.find("optimizers", use)
    optimizer: Optimizer = plugin(space, start, plugin.Options(seed=seed, **options))
    return optimizer


@dataclass(frozen=True)
class Job:
    """One run: a part of this benchmark, what of it, and a seed.

    Attributes:
        length: iterations (``sine``) or episodes.
    """

    part: str
    variant: tuple[str, ...]
    seed: int
    length: int

    def run(self) -> dict[str, Any]:
        """What came out, as JSON takes it."""
        return PARTS[self.part].run(*self.variant, seed=self.seed, length=self.length)


# ---------------------------------------------------------------------------------------------------- sine

PERTURBATIONS, GOAL = 10, 0.05
HIDDEN = [10, 5]
TRAINING = np.linspace(-3.0, 9.0, 121)
TEST = (TRAINING[1:] + TRAINING[:-1]) / 2
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "es": ("openai-es", {"sigma": 0.1, "step": "adam", "learning_rate": 0.1}),
    "pgpe": ("pgpe", {"sigma": 0.1}),
}


def sine(search: str, noise: str, *, seed: int, length: int) -> dict[str, Any]:
    """Iterations until the centre's test loss is below the goal; None where it never is."""
    policy = MlpPolicy(MlpOptions(inputs=1, hidden=HIDDEN, seed=seed), base=Path())
    use, options = FITS[search]
    es = made(use, policy.space, policy.start(), seed, population=PERTURBATIONS, noise=noise, **options)
    least = math.inf
    for iteration in range(1, length + 1):
        asked = es.ask(PERTURBATIONS)
        es.tell([Evaluation(c.number, squared_error(policy, c.vector, TRAINING)) for c in asked])
        loss = squared_error(policy, es.recommend(), TEST)
        least = min(least, loss)
        if loss < GOAL:
            return {"iterations": iteration, "loss": loss}
    return {"iterations": None, "loss": least}


def squared_error(policy: MlpPolicy, vector: Vector, x: Vector) -> float:
    """Mean squared error of a candidate's network at (k,) points."""
    network = Mlp.load(policy.render(vector))
    return float(np.mean((network.act(x[:, None])[:, 0] - np.sin(x)) ** 2))


# ------------------------------------------------------------------------------------- gymnasium's episodes


def episode(env: Any, act: Callable[[Vector], Any], seed: int) -> tuple[float, Vector]:
    """The return of one episode, and the (steps, inputs) observations that the policy saw."""
    seen, total, over = [], 0.0, False
    observation, _ = env.reset(seed=seed)
    while not over:
        seen.append(observation)
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        total, over = total + float(reward), terminated or truncated
    return total, np.array(seen)


def mean_return(env: Any, act: Callable[[Vector], Any], episodes: int) -> float:
    """Over episodes whose seeds no candidate had."""
    return float(np.mean([episode(env, act, 1_000_000 + i)[0] for i in range(episodes)]))


# ------------------------------------------------------------------------------------------------ cartpole

IN_FLIGHT, FINAL = 16, 100
POLICIES = {"linear": [], "mlp": [8]}
SEARCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "es": ("openai-es", {"population": 16, "sigma": 1.0}),
    "ars": ("ars", {"directions": 8, "sigma": 1.0}),
    "pgpe": ("pgpe", {"population": 16, "sigma": 1.0}),
}


def cartpole(policy: str, search: str, order: str, *, seed: int, length: int) -> dict[str, Any]:
    """Mean return of what is recommended after so many episodes."""
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    made_of = MlpPolicy(MlpOptions(inputs=4, hidden=POLICIES[policy], seed=seed), base=Path())
    use, options = SEARCHES[search]
    start = made_of.start() if POLICIES[policy] else np.zeros(made_of.space.size)
    optimizer = made(use, made_of.space, start, seed, **options)
    generation = 16 if order == "whole generations" else 1
    flying: list[Candidate] = []
    rng = np.random.default_rng(seed)

    def acting(vector: Vector) -> Callable[[Vector], int]:
        network = Mlp.load(made_of.render(vector))
        return lambda observation: int(network.act(observation)[0] > 0)

    for played in range(length):
        if len(flying) < IN_FLIGHT and (generation == 1 or not flying):
            flying += optimizer.ask(IN_FLIGHT - len(flying))
        candidate = flying.pop(0 if generation > 1 else int(rng.integers(len(flying))))
        reward, _ = episode(env, acting(candidate.vector), 10_000 * seed + played)
        optimizer.tell([Evaluation(candidate.number, -reward)])
    return {"return": mean_return(env, acting(optimizer.recommend()), FINAL)}


# ------------------------------------------------------------------------------------------------- swimmer

RETURN, EVERY, SHOWN = 325.0, 25, 2
ARS = {"directions": 1, "sigma": 0.01, "learning_rate": 0.02}


def swimmer(version: str, *, seed: int, length: int) -> dict[str, Any]:
    """Returns of the centre as it moves: episodes used so far, and the mean return."""
    import gymnasium

    env = gymnasium.make("Swimmer-v5")
    space = Space.from_spec({"weights": {"weights": 2 * 8}})
    ars = made("ars", space, space.start(), seed, **ARS)
    norm = RunningNorm(8)

    def network(vector: Vector) -> Mlp:
        moments = norm.normalizer() if version == "V2" and norm.count > 1 else None
        return Mlp([vector.reshape(2, 8)], [np.zeros(2)], normalizer=moments)

    curve: list[tuple[int, float]] = []
    for used in range(2, length + 1, 2):
        artifacts = [(c.number, network(c.vector).artifact()) for c in ars.ask(2)]
        played = [(number, *episode(env, Mlp.load(a).act, 10_000 * seed + used)) for number, a in artifacts]
        for _, _, seen in played:
            norm.update(seen)
        ars.tell([Evaluation(number, -reward) for number, reward, _ in played])
        if used % (2 * EVERY) == 0 or used == length:
            curve.append((used, mean_return(env, network(ars.recommend()).act, SHOWN)))
    return {"curve": curve}


# --------------------------------------------------------------------------------------------- what is shown


@dataclass(frozen=True)
class Part:
    """One of the three.

    Attributes:
        run: a variant with a seed.
        variants: its arguments.
        length: iterations or episodes; ``quick`` in the quick form.
        seeds: how many, unless the command line says.
        columns: of the table, after those of the variant.
        row: their cells, from the runs of a variant.
        goal: what a run is for, and whether it got there.
    """

    title: str
    run: Callable[..., dict[str, Any]]
    variants: list[tuple[str, ...]]
    names: tuple[str, ...]
    length: int
    quick: int
    seeds: int
    columns: tuple[str, ...]
    row: Callable[[list[dict[str, Any]]], list[Cell]]
    goal: tuple[str, Callable[[dict[str, Any]], bool]]


def fitted(runs: list[dict[str, Any]]) -> list[Cell]:
    """How many runs reached the goal, and the iterations that it took them."""
    reached = sorted(run["iterations"] for run in runs if run["iterations"] is not None)
    spread = (
        [str(reached[0]), f"{np.median(reached):.0f}", str(reached[-1])]
        if reached
        else ["never", "never", "never"]
    )
    return [f"{len(reached)} of {len(runs)}", *spread, max(run["loss"] for run in runs)]


def balanced(runs: list[dict[str, Any]]) -> list[Cell]:
    """How many runs count as solved, and the returns of what they recommend."""
    returns = np.array([run["return"] for run in runs])
    solved = [f"{np.sum(returns >= goal)} of {len(runs)}" for goal in (195, 475)]
    return [*solved, f"{returns.min():.0f}", f"{np.median(returns):.0f}", f"{returns.max():.0f}"]


def swum(runs: list[dict[str, Any]]) -> list[Cell]:
    """How many runs reached the goal, the episodes that it took them, and the best and last returns."""
    first = sorted(next((used for used, value in run["curve"] if value >= RETURN), math.inf) for run in runs)
    reached = [used for used in first if math.isfinite(used)]
    last = sorted(run["curve"][-1][1] for run in runs)
    best = sorted(max(value for _, value in run["curve"]) for run in runs)
    return [
        f"{len(reached)} of {len(runs)}",
        ", ".join(str(used) for used in reached) or "never",
        ", ".join(f"{value:.0f}" for value in best),
        ", ".join(f"{value:.0f}" for value in last),
    ]


PARTS = {
    "sine": Part(
        "A 1-10-5-1 network fitted to sin: iterations to a test loss below 0.05",
        sine,
        list(product(FITS, ("normal", "table"))),
        ("search", "noise"),
        1000, 60, 10,
        ("reached", "fewest", "median", "most", "largest loss"),
        fitted,
        ("a test loss below 0.05", lambda run: run["iterations"] is not None),
    ),
    "cartpole": Part(
        "CartPole-v1: mean return over 100 episodes of what is recommended after {length}",
        cartpole,
        list(product(POLICIES, SEARCHES, ("whole generations", "in flight"))),
        ("policy", "search", "results"),
        1920, 48, 5,
        ("at least 195", "at least 475", "least", "median", "largest"),
        balanced,
        ("a mean return of 475", lambda run: run["return"] >= 475),
    ),
    "swimmer": Part(
        "Swimmer-v5: episodes until the centre's return is 325",
        swimmer,
        [("V1",), ("V2",)],
        ("ars",),
        1000, 2, 3,
        ("reached", "episodes", "best return of each seed", "last"),
        swum,
        ("a return of 325", lambda run: max(value for _, value in run["curve"]) >= RETURN),
    ),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, and too short to get anywhere")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, metavar="N", help="of each part; 10, 5 and 3 without")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # before a worker imports numpy
    names = [name for name in options.only if available(name)]
    seeds = {name: 1 if options.quick else options.seeds or PARTS[name].seeds for name in names}
    lengths = {name: PARTS[name].quick if options.quick else PARTS[name].length for name in names}
    jobs = [
        Job(name, variant, seed, lengths[name])
        for name in names
        for variant in PARTS[name].variants
        for seed in range(seeds[name])
    ]
    found: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = defaultdict(list)
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for job, run in zip(jobs, pool.map(Job.run, jobs), strict=True):
            found[job.part, job.variant].append(run)
    tables = []
    for name in names:
        part = PARTS[name]
        rows = [[*variant, *part.row(found[name, variant])] for variant in part.variants]
        tables.append(
            Table(
                title=part.title.format(length=lengths[name]), columns=[*part.names, *part.columns], rows=rows
            )
        )
        show(tables[-1])
    if options.json is not None:
        write(
            options.json,
            "Published results, run again",
            tables,
            seeds=", ".join(f"{name} 0 to {last - 1}" for name, last in seeds.items()),
            lost=missed(found),
            libraries=(*LIBRARIES, "gymnasium", "mujoco"),
            data=[
                {"part": part, "variant": list(variant), "runs": runs}
                for (part, variant), runs in found.items()
            ],
        )
    return 0


def missed(found: Mapping[tuple[str, tuple[str, ...]], list[dict[str, Any]]]) -> list[str]:
    """Who did not get where it should, a sentence each."""
    sentences = []
    for (name, variant), runs in found.items():
        goal, reached = PARTS[name].goal
        short = sum(not reached(run) for run in runs)
        if short:
            sentences.append(f"{name}, {', '.join(variant)}: {short} of {len(runs)} seeds missed {goal}.")
    return sentences


def available(name: str) -> bool:
    """Whether what a part needs is installed; said where it is not."""
    if name == "swimmer" and importlib.util.find_spec("mujoco") is None:
        print("swimmer is left out: MuJoCo is not here (pip install 'gymnasium[mujoco]')", file=sys.stderr)
        return False
    return True


def show(table: Table) -> None:
    """Print a table."""
    lines = [
        table.columns,
        *([f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in table.rows),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    print(f"\n{table.title}\n")
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(),
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
