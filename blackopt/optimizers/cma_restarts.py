"""Which run of CMA-ES comes next: IPOP and BIPOP.

IPOP doubles the population at every restart (Auger and Hansen, "A restart CMA evolution strategy with
increasing population size", CEC 2005). BIPOP gives half of the budget to small populations with small spreads
in between (Hansen, "Benchmarking a BI-population CMA-ES on the BBOB-2009 function testbed", GECCO 2009). Both
as ``cma.fmin2`` does them: the limits of the first run stay in force, but for the length of a small run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

from blackopt import noise
from blackopt.types import State

Restarts = Literal["none", "ipop", "bipop"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run, and what the choice of the next one needs to know of those before it.

    Attributes:
        number: from 0.
        small: whether its budget counts as one of small populations; the first one's does.
        population: results for each update; None leaves it to the library.
        sigma: initial step size.
        longest: updates that it may make; None leaves it to the library.
        small_runs: those that did not double the population, the first left out.
        small_budget, large_budget: results used by runs of either kind.
    """

    number: int
    small: bool
    population: int | None
    sigma: float
    longest: float | None = None
    small_runs: int = 0
    small_budget: int = 0
    large_budget: int = 0

    def dump(self) -> State:
        """By attribute."""
        return asdict(self)


def following(run: Run, first: Run, used: int, restarts: Restarts, seed: int) -> Run:
    """The run after ``run``, which used ``used`` results; ``first`` knows its population and length."""
    assert first.population is not None
    assert first.longest is not None
    done = replace(
        run,
        number=run.number + 1,
        small_budget=run.small_budget + used * run.small,
        large_budget=run.large_budget + used * (not run.small),
    )
    if restarts == "bipop" and done.small_budget < max(1, done.large_budget):
        small_runs = done.small_runs + 1
        u = noise.uniform(seed, "cma-es/bipop", done.number, 2)
        largest = 2 ** (done.number - small_runs)
        # Hansen 2009: sigma 10^(-2 U), lambda = lambda_0 (lambda_large / lambda_0)^(U^2), rounded down
        population = int(first.population * largest ** float(u[1] ** 2))
        return replace(
            done,
            small=True,
            small_runs=small_runs,
            sigma=first.sigma * 0.01 ** float(u[0]),
            population=population,
            longest=min(first.longest, 0.5 * done.large_budget / population),
        )
    return replace(
        done,
        small=False,
        sigma=first.sigma,
        population=first.population * 2 ** (done.number - done.small_runs),
        longest=first.longest,
    )
