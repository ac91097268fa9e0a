"""Optimizers that ``noise.py`` compares, other libraries' at their default settings.

Each is a function of a :class:`Trace`: it measures until the budget is spent, and says what it recommends.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.noise_problems import Configuration, Problem, Vector
from blackopt import plugins
from blackopt.optimizers.auto import AutoOptions, Task, chosen
from blackopt.protocols import Believing
from blackopt.types import Belief, Evaluation


class Spent(Exception):
    """The budget is spent."""


class Trace:
    """What one run measures and recommends.

    Attributes:
        regrets: evaluations so far -> loss of the recommendation without noise, as a part of the signal.
        beliefs: likewise -> by how much the optimizer thinks its recommendation is better than the start, the
            standard error of that, and by how much it is, all as parts of the signal; of those that state it
            and recommend another point than the start.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem, self.seed = problem, seed
        self.rng = np.random.default_rng([seed, 1])
        self.regrets: dict[int, float] = {}
        self.beliefs: dict[int, tuple[float, float, float]] = {}
        self._count = 0
        self._suggest: Callable[[], Any] = lambda: problem.start
        self._believe: Callable[[], Belief | None] = lambda: None

    def suggest(
        self, recommendation: Callable[[], Any], belief: Callable[[], Belief | None] = lambda: None
    ) -> None:
        """From now on this gives (n,) the recommendation, and that what it is thought to be worth; they are
        called at checkpoints only."""
        self._suggest, self._believe = recommendation, belief

    def measure(self, x: Vector) -> tuple[float, float | None]:
        """A loss and its standard error, or None.

        Raises:
            Spent: the budget is.
        """
        budget = self.problem.configuration.budget
        if self._count in self.problem.configuration.checkpoints:
            best = np.asarray(self._suggest(), dtype=np.float64)
            if self.problem.configuration.kind != "weights":
                best = np.clip(best, 0.0, 1.0)
            progress = self._count / budget
            found, signal = self.problem.truth(best, progress), self.problem.signal
            self.regrets[self._count] = found / signal
            belief = self._believe()
            if belief is not None and belief.improvement.se:
                gain, se = belief.improvement.value, belief.improvement.se
                better = self.problem.truth(self.problem.start, progress) - found
                self.beliefs[self._count] = gain / signal, se / signal, better / signal
        if self._count == budget:
            raise Spent
        self._count += 1
        return self.problem.measure(np.asarray(x), self._count / budget, self.rng)


def in_flight(
    trace: Trace,
    ask: Callable[[], Any],
    tell: Callable[[Any, float, float | None], None],
    at: Callable[[Any], Vector],
) -> None:
    """Keep candidates in flight, and tell them as they arrive, in random order."""
    flying: list[Any] = []
    order = np.random.default_rng([trace.seed, 2])
    while True:
        while len(flying) < trace.problem.configuration.in_flight:
            flying.append(ask())
        one = flying.pop(int(order.integers(len(flying))))
        tell(one, *trace.measure(at(one)))


def ours(name: str) -> Callable[[Trace], None]:
    """One of blackopt's, with no option but sigma; ``auto`` is told what a campaign would tell it."""

    def run(trace: Trace) -> None:
        problem = trace.problem
        plugin = plugins.find("optimizers", name)
        options = told(problem.configuration) if name == "auto" else {}
        given = plugin.Options(sigma=problem.sigma, seed=trace.seed, **options)
        optimizer = plugin(problem.space, problem.start, given)
        trace.suggest(
            optimizer.recommend, optimizer.belief if isinstance(optimizer, Believing) else lambda: None
        )
        in_flight(
            trace,
            lambda: optimizer.ask(1)[0],
            lambda c, loss, se: optimizer.tell([Evaluation(c.number, loss, se=se)]),
            lambda c: c.vector,
        )

    return run


def told(configuration: Configuration) -> dict[str, Any]:
    """Options of ``auto``."""
    c = configuration
    return {"trials": c.budget, "parallel": c.in_flight, "noise": "some" if c.noise <= 1 else "strong"}


def stands_for(name: str, problem: Problem) -> str:
    """The optimizer whose run is the same as this one's: what ``auto`` chooses, where that is the surrogate,
    which has no options to be chosen."""
    if name != "auto":
        return name
    use = chosen(Task.of(problem.space, AutoOptions(**told(problem.configuration)))).use
    return use if use == "surrogate" else name


def cma(*, handler: bool) -> Callable[[Trace], None]:
    """Hansen's library, generation by generation whatever is in flight (to its advantage)."""

    def run(trace: Trace) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import cma as library

            problem = trace.problem
            bounds = [None, None] if problem.configuration.kind == "weights" else list(problem.bounds)
            options = {"seed": trace.seed + 1, "verbose": -9, "bounds": bounds, "verb_log": 0}
            es = library.CMAEvolutionStrategy(problem.start, problem.sigma, options)
            noise = library.NoiseHandler(problem.configuration.n) if handler else None
            trace.suggest(lambda: es.result.xfavorite)

            def loss(x: Vector) -> float:
                return trace.measure(x)[0]

            while True:
                if noise is None:
                    points = es.ask()
                    es.tell(points, [loss(x) for x in points])
                else:
                    points, losses = es.ask_and_eval(loss, evaluations=noise.evaluations)
                    es.tell(points, losses)
                    es.sigma *= noise(points, losses, loss, es.ask)

    return run


def cmaes(trace: Trace) -> None:
    """``cmaes`` with learning-rate adaptation, told generations of whatever has arrived."""
    from cmaes import CMA

    problem = trace.problem
    n = problem.configuration.n
    bounds = None if problem.configuration.kind == "weights" else np.tile(problem.bounds, (n, 1))
    es = CMA(problem.start, problem.sigma, bounds=bounds, seed=trace.seed, lr_adapt=True)
    trace.suggest(lambda: es.mean)
    arrived: list[tuple[Vector, float]] = []

    def tell(x: Vector, loss: float, se: float | None) -> None:
        del se
        arrived.append((x, loss))
        if len(arrived) == es.population_size:
            es.tell(arrived)
            arrived.clear()

    in_flight(trace, es.ask, tell, lambda x: x)


def nevergrad(name: str) -> Callable[[Trace], None]:
    """Nevergrad's, with its mutable sigma set."""

    def run(trace: Trace) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nevergrad as library
            from nevergrad.optimization import metamodel

            # it calls float on arrays of one number, which numpy no longer converts
            vars(metamodel)["float"] = lambda value: np.asarray(value).item()
            problem = trace.problem
            array = library.p.Array(init=problem.start)
            if problem.configuration.kind != "weights":
                array = array.set_bounds(*problem.bounds)
            array = array.set_mutation(sigma=problem.sigma)
            array.random_state.seed(trace.seed)
            es = library.optimizers.registry[name](
                array, budget=problem.configuration.budget, num_workers=problem.configuration.in_flight
            )
            trace.suggest(lambda: es.provide_recommendation().value)
            in_flight(trace, es.ask, lambda c, loss, _: es.tell(c, loss), lambda c: c.value)

    return run


def optuna(sampler: str) -> Callable[[Trace], None]:
    """Optuna's; it recommends its best trial."""

    def run(trace: Trace) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import optuna as library

            library.logging.set_verbosity(library.logging.ERROR)
            problem = trace.problem
            made = (
                library.samplers.TPESampler(seed=trace.seed)
                if sampler == "TPE"
                else library.samplers.CmaEsSampler(
                    x0={str(j): float(v) for j, v in enumerate(problem.start)},
                    sigma0=problem.sigma,
                    seed=trace.seed,
                )
            )
            study = library.create_study(sampler=made)
            names = [str(j) for j in range(problem.configuration.n)]
            trace.suggest(lambda: [study.best_params[j] for j in names])

            def ask() -> Any:
                trial = study.ask()
                return trial, np.array([trial.suggest_float(j, *problem.bounds) for j in names])

            def tell(asked: Any, loss: float, se: float | None) -> None:
                del se
                study.tell(asked[0], loss)

            in_flight(trace, ask, tell, lambda c: c[1])

    return run


def differential_evolution(trace: Trace) -> None:
    """scipy's, from the start, without its final descent; it recommends its best member."""
    from scipy.optimize import differential_evolution as library

    problem = trace.problem
    best, least = problem.start, math.inf

    def loss(x: Vector) -> float:
        nonlocal best, least
        value = trace.measure(x)[0]
        if value < least:
            best, least = x.copy(), value
        return value

    trace.suggest(lambda: best)
    bounds = [problem.bounds] * problem.configuration.n
    while True:  # again, should it stop early
        library(loss, bounds, x0=problem.start, maxiter=10_000, polish=False, tol=0.0, rng=trace.seed)


def chance(trace: Trace) -> None:
    """Uniform within the bounds; the best measurement is recommended."""
    problem = trace.problem
    best, least = problem.start, math.inf
    rng = np.random.default_rng([trace.seed, 3])
    trace.suggest(lambda: best)
    while True:
        x = rng.uniform(*problem.bounds, problem.configuration.n)
        value = trace.measure(x)[0]
        if value < least:
            best, least = x, value


OURS: dict[str, Callable[[Trace], None]] = {
    name: ours(name)
    for name in ("auto", "surrogate", "cma-es", "cma-es-lra", "openai-es", "pgpe", "snes", "xnes")
}
PEERS: dict[str, Callable[[Trace], None]] = {
    "cma": cma(handler=False),
    "cma NoiseHandler": cma(handler=True),
    "cmaes lr_adapt": cmaes,
    "TBPSA": nevergrad("TBPSA"),
    "NGOpt": nevergrad("NGOpt"),
    "Optuna TPE": optuna("TPE"),
    "Optuna CMA-ES": optuna("CMA-ES"),
    "scipy DE": differential_evolution,
    "chance": chance,
}
SLOW = {"Optuna TPE": 3_000, "Optuna CMA-ES": 20_000}
"""Evaluations times parameters beyond which a peer is left out: each takes it a millisecond."""


def version(name: str) -> str:
    """Of an optimizer of ours, which says when its results change; empty for a peer."""
    return plugins.find("optimizers", name).version if name in OURS else ""


def run(name: str, problem: Problem, seed: int) -> dict[str, dict[int, Any]]:
    """Regrets and beliefs of one optimizer on one problem, by evaluations; see :class:`Trace`."""
    trace = Trace(problem, seed)
    try:
        {**OURS, **PEERS}[name](trace)
    except Spent:
        return {"regret": trace.regrets} | ({"belief": trace.beliefs} if trace.beliefs else {})
    raise AssertionError(f"{name} stopped before its budget was spent")
