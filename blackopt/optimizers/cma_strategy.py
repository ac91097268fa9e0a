"""Strategies of Hansen's library ``cma``, built from explicit arrays and numbers, and read back into them.

The library keeps much of its state in passing. Here it is named: what is drawn from (:class:`Distribution`),
and what its termination criteria look back on (:class:`History`). A strategy that is built from these, asked,
told once and read again walks the path of one that lives on; hence nothing is lost by a dump. Building costs
several times what an update does: the library evaluates its options.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blackopt.types import State, Vector

Covariance = Literal["full", "diagonal", "vkd"]

_LEAST_SPREAD = 1e-9  # standard deviation that rounding does not swallow, where no criterion ends a run
_UNLIKE = 1e8  # ratio of the coordinates' variances in C from which S carries them, as in the library


@cache
def library() -> Any:
    """The ``cma`` package, imported on first use: it takes a second, which naming this optimizer must not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when matplotlib, which it uses for its plots, is not there
        import cma
        import cma.boundary_handler
        import cma.restricted_gaussian_sampler
        import cma.transformations
    return cma


@cache
def _vkd_sampler() -> Any:
    """The library's VkD sampler without its mirrored pair, which would need the first two of a generation to
    be drawn together; the step size is left to the path length (CSA) as elsewhere."""

    class Sampler(library().restricted_gaussian_sampler.GaussVkDSampler):  # type: ignore[misc]
        @property
        def flg_injection(self) -> bool:
            return False

        @flg_injection.setter
        def flg_injection(self, _: bool) -> None:
            pass

    return Sampler


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """What a strategy is built with.

    Attributes:
        covariance: ``full``; ``diagonal``, sep-CMA-ES of Ros and Hansen (PPSN 2008); ``vkd``, the
            restricted D (I + V V^T) D of Akimoto and Hansen (GECCO 2016, PPSN 2016).
        active: whether bad candidates shrink the covariance (Jastrebski and Arnold, CEC 2006).
        ends: whether a run is to end; if not, no spread falls below 1e-9.
        max_std: (n,) largest standard deviations.
        randn: ``(rows, n) -> (rows, n)`` standard normal noise.
    """

    covariance: Covariance
    active: bool
    ends: bool
    max_std: Vector
    randn: Callable[[int, int], NDArray[np.float64]]

    def fresh(self, mean: Vector, sigma: float, population: int | None, **limits: float) -> Any:
        """A strategy at (n,) ``mean``, quiet, with our noise for randomness.

        Args:
            mean: in the library's unbounded coordinates.
            sigma: standard deviation in every coordinate.
            population: of a generation; None takes the library's 4 + 3 ln n.
            limits: options of its termination criteria, such as ``maxiter``.
        """
        options: dict[str, Any] = {
            "randn": self.randn,
            "seed": np.nan,  # "do nothing": it would seed numpy's global generator
            "AdaptSigma": library().sigma_adaptation.CMAAdaptSigmaCSA,
            "CMA_mirrors": 0,  # pairs would need a whole generation at once
            "conditioncov_alleviate": False,  # changes coordinates in passing
            "updatecovwait": 0,  # C is decomposed at every update, so B and D always belong to it
            "minstd": 0.0 if self.ends else _LEAST_SPREAD,
            # the library cannot limit the spread of a single coordinate: its scaling refuses to be set
            "maxstd": self.max_std if self.max_std.size > 1 else None,
            "verbose": -10,
            "verb_log": 0,
            "CMA_active": self.active and self.covariance != "vkd",
            **limits,
        }
        if population is not None:
            options["popsize"] = population
        if self.covariance == "diagonal":
            options["CMA_diagonal"] = True
        if self.covariance == "vkd":
            one_by_one = {"randn": lambda n: self.randn(1, n)[0]}
            options |= {"CMA_sampler": _vkd_sampler(), "CMA_sampler_options": one_by_one}
        with warnings.catch_warnings():  # it installs warning filters of its own
            return library().CMAEvolutionStrategy(np.asarray(mean), sigma, options)


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """The search distribution N(mean, (sigma S)^2 C) and its evolution paths, in unbounded coordinates.

    Attributes:
        mean: (n,) m.
        sigma: step size.
        scaling: (n,) diagonal of S: holds standard deviations within limits; with a diagonal covariance, the
            standard deviations themselves.
        path_sigma: (n,) p_sigma.
        path_c: (n,) p_c.
        count: updates made.
        model: of C. Full: (n, n) ``C``, its eigenvectors ``B`` as columns, and (n,) ``D``, square roots of
            its eigenvalues. Diagonal: (n,) ``D``. VkD: the numbers of the library's sampler.
    """

    mean: Vector
    sigma: float
    scaling: Vector
    path_sigma: Vector
    path_c: Vector
    count: int
    model: State

    @classmethod
    def read(cls, es: Any, settings: Settings) -> Distribution:
        """What a strategy has become, copied.

        Where runs do not end, the common factor of S goes into sigma, so that neither drifts away; nor does
        S from C, where the least spread holds a coordinate that C would shrink for ever.
        """
        if settings.covariance == "full" and not settings.ends:
            _balance(es)
        scaling = np.ones(es.N) * es.sigma_vec.scaling
        common = 1.0 if settings.ends else float(np.exp(np.mean(np.log(scaling))))
        return cls(
            mean=np.array(es.mean),
            sigma=float(es.sigma) * common,
            scaling=scaling / common,
            path_sigma=np.array(es.adapt_sigma.ps),
            path_c=np.array(es.pc),
            count=int(es.countiter),
            model=_read_model(es.sm, settings.covariance),
        )

    def restore(self, es: Any, settings: Settings) -> None:
        """Make a fresh strategy this one, inside an iteration: it can be asked and told."""
        es.ask(1)  # opens the iteration; what it drew is not used
        es.mean, es.sigma, es.countiter = self.mean.copy(), self.sigma, self.count
        es.mean_old = es.mean  # it is copied once more, for nothing that we use
        es.sigma_vec = library().transformations.DiagonalDecoding(self.scaling)
        es.adapt_sigma.ps, es.pc = self.path_sigma.copy(), self.path_c.copy()
        _restore_model(es.sm, self.model, settings.covariance)
        if settings.covariance == "vkd":
            es.sm.sigma_fac = self.sigma  # its rank adapts while the step size, which is not its own, rests

    def shaped(self, spread: NDArray[np.float64]) -> Distribution:
        """With the covariance A A^T, for (n, n) A that is not singular; its sigma is |det A|^(1/n)."""
        sigma = float(np.exp(np.linalg.slogdet(spread)[1] / len(spread)))
        covariance = spread @ spread.T / sigma**2
        values, axes = np.linalg.eigh(covariance)
        return replace(self, sigma=sigma, model={"C": covariance, "B": axes, "D": np.sqrt(values)})

    def dump(self) -> State:
        """By attribute."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _balance(es: Any) -> None:
    """Let S carry variances that have grown too unlike for C; what is drawn from stays the same."""
    variances = es.sm.variances
    if np.max(variances) > _UNLIKE * np.min(variances):
        factors = es.sm.to_correlation_matrix()
        es.sigma_vec *= factors
        es.pc /= factors


def _read_model(sm: Any, covariance: Covariance) -> State:
    if covariance == "full":
        sm.update_now()
        return {"C": np.array(sm.C), "B": np.array(sm.B), "D": np.array(sm.D)}
    if covariance == "diagonal":
        return {"D": np.sqrt(sm.variances)}
    left_out = ("randn", "U", "sigma_fac", "_parameters")
    return {name: _plain(value) for name, value in vars(sm).items() if name not in left_out}


def _restore_model(sm: Any, model: Mapping[str, Any], covariance: Covariance) -> None:
    if covariance == "diagonal":
        sm.standard_deviations = model["D"].copy()
        return
    averages = library().restricted_gaussian_sampler.ExponentialMovingAverage
    for name, value in model.items():
        if isinstance(value, dict):
            average = averages(value["decay"], 1)
            _restore_model(average, value, "full")
            setattr(sm, name, average)
        else:
            setattr(sm, name, value.copy() if isinstance(value, np.ndarray) else value)


def _plain(value: Any) -> Any:
    """A number or array, copied; of a moving average, its attributes."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float):
        return value
    return {name: _plain(inner) for name, inner in vars(value).items()}


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What the library's termination criteria look back on (``cma.CMAEvolutionStrategy.stop``).

    Attributes:
        best: smallest loss so far, and ``best_at`` the evaluation it came from.
        evaluations: told so far.
        recent: best losses of the latest updates.
        bests, medians: of every fifth update, the latest first.
        first_median, least_median: of the losses of an update.
        flat: updates in a row with equal losses.
        still: (n,) mean that the later ones are compared with; ``still_at`` and ``still_count`` updates.
    """

    best: float
    best_at: int
    evaluations: int
    recent: Vector
    bests: Vector
    medians: Vector
    first_median: float
    least_median: float
    flat: int
    still: Vector
    still_at: int
    still_count: int

    @classmethod
    def read(cls, es: Any) -> History:
        """What a strategy remembers, copied; it has been told at least once."""
        fit, stagnation = es.fit, es._stoptolxstagnation  # noqa: SLF001  (it has no public name)
        return cls(
            best=float(es.best.f),
            best_at=int(es.best.evals),
            evaluations=int(es.countevals),
            recent=np.array(fit.hist, dtype=np.float64),
            bests=np.array(fit.histbest, dtype=np.float64),
            medians=np.array(fit.histmedian, dtype=np.float64),
            first_median=float(fit.median0),
            least_median=float(fit.median_min),
            flat=int(fit.flatfit_iterations),
            still=np.array(stagnation.x, dtype=np.float64),
            still_at=int(stagnation.count_x),
            still_count=int(stagnation.count),
        )

    def restore(self, es: Any) -> None:
        """Make a strategy remember this."""
        fit, stagnation = es.fit, es._stoptolxstagnation  # noqa: SLF001
        es.best.f, es.best.evals, es.countevals = self.best, self.best_at, self.evaluations
        fit.hist = self.recent.tolist()
        fit.histbest, fit.histmedian = self.bests.tolist(), self.medians.tolist()
        fit.median0, fit.median_min = self.first_median, self.least_median
        fit.flatfit_iterations = self.flat
        stagnation.x, stagnation.count_x, stagnation.count = (
            self.still.copy(),
            self.still_at,
            self.still_count,
        )

    def dump(self) -> State:
        """By attribute."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
