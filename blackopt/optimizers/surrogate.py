"""A Bayesian quadratic trust region: one regression over all results says where to look next, and what to
recommend.

There are no generations. Every few results, the quadratic of :mod:`blackopt.optimizers.quadratic` is fitted
to everything that was told; of the steps of :mod:`blackopt.optimizers.trust` the one with the lowest
posterior mean is recommended, and the one with the lowest mean plus half a standard deviation becomes the
centre of what is tried next. A late result is as good as a punctual one: it is one more row of a regression.

The spread is as wide as the quadratic holds or the noise asks: the third-order misfit is as large as the
noise at rho = kappa^(-1/3), and the expected loss of a candidate is held at about three standard deviations
of the noise. Results far from the centre are what tells slopes and curvatures from noise.

It is not wider than losses differ, either: where they level off with the distance, as the evidence tells, the
spread ends where a slope is seen best. Far results would say nothing there, and the search would wander. How
far from the start the optimum lies is told by the evidence, too: a first spread that is ten times too small
costs some results, not the search.

As long as it is not shown that losses depend on the candidate at all (the evidence for the fit exceeds that
for none), nobody knows whether the search has to look further or has looked too far: every other pair keeps
to the first spread, none goes further than ten of them, and a fit that explains less than nothing is begun
afresh.

Before anything but the start is recommended, this must be shown, and that the recommendation is better, with
a probability of five in six. Under strong noise the lowest point of a fitted quadratic is as lucky as a best
sample; its own standard deviation does not know that centre, axes and priors were chosen by the same luck.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blackopt import noise
from blackopt.blocks import ChoiceBlock, IntBlock, SimplexBlock
from blackopt.optimizers import discrepancy, tails, trust
from blackopt.optimizers.base import BaseOptimizer, Result, dump_results, load_results, stack
from blackopt.optimizers.evidence import tuned
from blackopt.optimizers.gaussian import limited
from blackopt.optimizers.quadratic import SPAN, Data, Floors, Hyper, Regression, envelope
from blackopt.optimizers.shaping import finite
from blackopt.protocols import OptimizerOptions
from blackopt.types import Belief, Estimate, State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

Matrix = NDArray[np.float64]

_CAUTION = 0.5  # posterior standard deviations that a step of the centre has to be better by,
_AWAY = 1.0  # that a centre away from the start has to be better than the start by,
_SURE = 1.0  # and honest ones that a recommendation has to be better by: five in six are
_ODDS = 2.0  # log odds from which losses depend on the candidate at all,
_LOST = -2.0  # and below which a fit is begun afresh
_BLIND = 10.0  # first spreads: candidates of a search that has seen nothing go no further
_HONEST = (
    2.0  # times the posterior standard deviation: centre, axes and priors were chosen by the same results
)
_ROUGH = 0.25  # of an improvement, by which it is wrong because losses are no quadratics
_UNSEEN = 1 / 3  # of improvement and depth, by which a quadratic is wrong where nothing was measured
_SLOWEST, _FASTEST = 0.75, 1.35  # factors of the spread at one fit
_CLOSER = 0.5  # the same where the model does not hold at all
_WIDEST = 3.0  # times the first spread, as far as that reaches
_EXPECTED = 3.0  # expected loss of a candidate, in standard deviations of the noise
_WITHIN = 1  # of the span
_FLAT = 0.5  # expected loss, likewise, below which the first spread was too small
_LEAST = 1e-3  # of the first spread, where equal losses no longer draw it in
_FLOORS = Floors(linear=0.3, quadratic=0.1)
_ENDS = 0.05, 20.0  # limits of relative noise variances: no result counts for more than twenty
_RUNGS = 1.0, 0.3, 1.0, 0.1  # of the spreads of pairs before the first fit
_CENTRES = 16  # of so many pairs, one measures the centre itself
_CLOSE = 0.15  # rho of a result that tells how good the centre is
_DIP = 3.0  # standard deviations by which the centre is surely better than the model says
_HALF_A_BIN = 0.5  # least standard deviation of an integer's coordinate
_OF_A_CHOICE = 0.2  # of a choice's coordinates, which lie half a unit apart
_FEWEST = 4  # residuals whose spread can be told


class SurrogateOptions(OptimizerOptions):
    """Options of ``surrogate``.

    Attributes:
        sigma: initial standard deviation, in the space's coordinates (bounded ones are scaled to [0, 1]).
        remember: how many of the latest results the regression is made from.
    """

    sigma: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    remember: int = Field(default=2000, ge=50)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What the last fit left behind.

    Attributes:
        centre: (n,) of the candidates.
        scale: (n, n) A: candidates are centre + A e, with e standard normal.
        best: (n,) the recommendation.
        hyper: hyper-parameters, for the whitened coordinates of ``scale`` and losses in units of ``noise``.
        noise: standard deviation of the noise; 0 before the first fit.
        fits: made so far.
        odds: log odds of the last one that losses depend on the candidate at all.
        gain: by how much the loss of ``best`` is thought to be below the start's; 0 where it is the start.
        doubt: its standard error.
    """

    centre: Vector
    scale: Matrix
    best: Vector
    hyper: Hyper
    noise: float
    fits: int
    odds: float = 0.0
    gain: float = 0.0
    doubt: float = 0.0

    @property
    def shown(self) -> bool:
        """Whether losses depend on the candidate at all."""
        return self.odds >= _ODDS

    def narrowed(self, factor: float, space: Space) -> Fitted:
        """With a spread this many times as wide."""
        return replace(self, scale=limited(factor * self.scale, space), hyper=self.hyper.rescaled(factor))


class Surrogate(BaseOptimizer):
    """``use: surrogate``. Its version counts the fits."""

    Options: ClassVar[type[OptimizerOptions]] = SurrogateOptions
    version: ClassVar[str] = "surrogate/4"
    group: int = 2

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, SurrogateOptions)
        self.options = options
        n = space.size
        first = limited(options.sigma * np.eye(n), space)
        self._first = np.diag(first)
        self._width = _volume(first)
        self._told: list[Result] = []  # informative ones; vectors are what they decode to
        self._since = 0  # informative results since the last fit
        self._now = Fitted(self._start, first, self._start, Hyper.initial(n), 0.0, 0)
        self._least = _least_deviations(space)
        self._block: tuple[int, Matrix] = (-1, np.zeros((0, 0)))

    @property
    def spread(self) -> Matrix:
        """(n, n) A: candidates are a centre + A e, with e standard normal."""
        return self._now.scale.copy()

    # ------------------------------------------------------------------ candidates

    def _draw(self, number: int) -> Vector:
        step = self._now.scale @ self._direction(number)
        deviations = np.linalg.norm(self._now.scale, axis=1)
        step *= np.maximum(1.0, self._least / deviations)  # a shorter step would seldom change an integer
        return trust.reflected(self._now.centre + step, self.space.lower, self.space.upper)

    def _direction(self, number: int) -> Vector:
        """(n,) standard normal; twins on opposite sides, and n pairs at a time orthogonal to one another.

        So candidates in flight together are spread evenly, however many there are (Choromanski, Rowland,
        Sindhwani, Turner and Weller, "Structured evolution with compact architectures for scalable policy
        optimization", ICML 2018).
        """
        n = self.space.size
        block, row = divmod(number // 2, n)
        if self._block[0] != block:
            normal = noise.normal(self._seed, "surrogate", block, n * n).reshape(n, n)
            orthogonal = np.linalg.qr(normal.T)[0].T
            self._block = block, orthogonal * np.linalg.norm(normal, axis=1, keepdims=True)
        direction = self._block[1][row] * self._rung(number // 2)
        signed: Vector = -direction if number % 2 else direction
        return signed

    def _rung(self, pair: int) -> float:
        """Of the spread: a few pairs are the centre itself, and before the first fit others are narrow, lest
        sigma be far too large; until something is shown, every other pair keeps to the first spread."""
        if pair % _CENTRES == 0:
            return 0.0
        if not self._now.fits:
            return _RUNGS[pair % len(_RUNGS)]
        if self._now.shown or pair % 2:
            return 1.0
        return min(1.0, self._width / _volume(self._now.scale))

    # ------------------------------------------------------------------ results

    def _learn(self, result: Result) -> None:
        if not result.informative:
            return
        self._told.append(replace(result, vector=self._canonical(result.vector)))
        del self._told[: -self.options.remember]
        self._since += 1
        n, rows = self.space.size, len(self._told)
        due = max(6, min(2 * n, 12)) if self._now.fits == 0 else max(4, n // 2, rows // 50)
        if self._since >= due:
            self._since = 0
            self._fit()

    def _canonical(self, vector: Vector) -> Vector:
        """(n,) the coordinates of what the vector decodes to, where many decode to the same."""
        vector = self.space.clip(vector)
        for block in self.space.blocks:
            if isinstance(block, IntBlock | ChoiceBlock | SimplexBlock):
                part = self.space.slices[block.name]
                vector[part] = block.encode(block.decode(vector[part]))
        return vector

    def _fit(self) -> None:
        """Fit the quadratic, and move."""
        losses = np.array([result.loss for result in self._told])
        known = np.isfinite(losses)
        if not known.any():
            return
        losses = finite(tails.fenced(losses))
        if np.ptp(losses) > 0:
            self._move(*self._regression(losses, known))
        elif _volume(self._now.scale) > _LEAST * self._width:  # nothing is left to lose so far out
            self._now = self._now.narrowed(_CLOSER, self.space)
        self._updates += 1

    def _regression(self, losses: Vector, known: NDArray[np.bool_]) -> tuple[Regression, float]:
        """The tuned regression, and the unit of its losses."""
        now, n = self._now, self.space.size
        x = stack([result.vector for result in self._told], n)
        unit = now.noise or float(losses.std())
        # The bowl alone has its minimum half a first spread from the start: h0 ~ slope * first / spread.
        narrower = math.log(self._width / _volume(now.scale))
        afresh = now.fits == 0 or now.odds < _LOST
        hyper = replace(Hyper.initial(n), span=math.log(SPAN) + narrower) if afresh else now.hyper
        centre = hyper.linear / 2 + narrower
        hyper = replace(hyper, anchor=centre) if afresh else hyper
        data = Data(
            z=np.array(np.linalg.solve(now.scale, (x - now.centre).T).T, dtype=np.float64),
            y=(losses - np.median(losses)) / unit,
            base=_relative_variances(self._told),
            r=self._from_start(x) - self._from_start(now.centre[None, :]),
            centre=centre,
            span=math.log(SPAN) + narrower,
        )
        data = _tamed(data, Regression(data, hyper), known)
        return tuned(data, hyper, now.fits, sure=now.shown), unit

    def _from_start(self, x: Matrix) -> Vector:
        """(k,) squared distances of k points from the start, in first spreads."""
        squared: Vector = (((x - self._start) / self._first) ** 2).sum(axis=1)
        return squared

    def _move(self, regression: Regression, unit: float) -> None:
        """The next centre, recommendation and spread."""
        now, n, space = self._now, self.space.size, self.space
        likely = regression.hyper  # which says how far losses are alike, and the optimum is
        odds = self._odds(regression)
        shown = odds >= _ODDS
        if (floored := likely.floored(n, _FLOORS)) != likely:
            regression = Regression(regression.data, floored, regression.gram)
        gradient, hessian = self._quadratic(regression)
        ahead, best = self._ahead_and_best(regression, gradient, hessian, shown=shown)
        s = math.sqrt(regression.s2)
        values, axes = np.linalg.eigh(hessian)
        seen = float(envelope(np.ones((1, n)), likely)[0])
        expected = seen * 0.5 * float(np.maximum(values, 0.0).sum()) / s
        alike = expected + seen * float(np.linalg.norm(gradient)) / s < _FLAT
        hyper = replace(likely, anchor=likely.anchor - math.log(s))
        dip = _dip(regression)
        if dip > _DIP:  # this fit knows nothing of the middle: what the last one said of it stands
            ahead, best, worth = now.centre, now.best, (now.gain, now.doubt)
        else:
            gain, doubt = self._worth(regression, gradient, hessian, best, depth=s * expected)
            worth = unit * gain, unit * doubt
        if dip > _DIP and _tried(regression.data):
            scale = now.narrowed(_CLOSER, space).scale
            hyper = replace(hyper.rescaled(_CLOSER), misfit=hyper.misfit)  # what lies far out does not fit
        else:
            rounder = trust.rounder(axes, values)
            scale = self._spread(regression, expected, rounder, alike=alike, shown=shown)
            hyper = hyper.rescaled(_volume(scale) / _volume(now.scale))
        self._now = Fitted(ahead, scale, best, hyper, unit * s, now.fits + 1, odds, *worth)

    def _odds(self, regression: Regression) -> float:
        """Log odds that losses depend on the candidate at all; an infeasible one shows it for sure."""
        return math.inf if any(r.loss == math.inf for r in self._told) else regression.log_odds()

    def _quadratic(self, regression: Regression) -> tuple[Vector, Matrix]:
        """(n,) and (n, n) gradient and Hessian at the centre in whitened coordinates, with the anchored
        bowl."""
        now = self._now
        gradient, hessian = regression.gradient_and_hessian()
        pull = 2 * regression.hyper.bowl / self._first**2
        gradient = gradient + now.scale.T @ (pull * (now.centre - self._start))
        return gradient, hessian + (now.scale.T * pull) @ now.scale

    def _ahead_and_best(
        self, regression: Regression, gradient: Vector, hessian: Matrix, *, shown: bool
    ) -> tuple[Vector, Vector]:
        """(n,) the next centre, and (n,) the recommendation; the start, where nothing is surely better."""
        now, n, space = self._now, self.space.size, self.space
        box = space.lower - now.centre, space.upper - now.centre
        z = trust.steps(gradient, hessian, now.scale, *box, math.sqrt(n) * np.array(trust.RADII))
        home = self._whitened(self._start)
        means = _losses(np.vstack([z, home]), regression, gradient, hessian)
        lowest = int(np.argmin(means[:-1]))
        cautious = means[:-1] + _CAUTION * regression.deviations(z, np.zeros(n))
        ahead, best = z[int(np.argmin(cautious))], z[lowest]
        doubt = float(regression.deviations(home[None, :], best)[0])
        gain = float(means[-1] - means[lowest])
        away = doubt > 0 and gain >= _AWAY * doubt
        centre = space.clip(now.centre + now.scale @ ahead) if away else self._start
        doubt = math.hypot(_HONEST * doubt, _ROUGH * gain)
        if not 0 < _SURE * doubt <= gain or not shown:
            return centre, self._start
        return centre, space.clip(now.centre + now.scale @ best)

    def _worth(
        self, regression: Regression, gradient: Vector, hessian: Matrix, best: Vector, *, depth: float
    ) -> tuple[float, float]:
        """By how much ``best`` is better than the start, and the standard error of that, in units of the
        regression's losses; ``depth`` is how far below an ordinary candidate the centre is thought to be.

        The rule of what is recommended takes the quadratic at its word; this asks the results close by, too.
        """
        if np.array_equal(best, self._start):
            return 0.0, 0.0
        home, there = self._whitened(self._start), self._whitened(best)
        losses = _losses(np.array([home, there]), regression, gradient, hessian)
        gain, doubt = float(losses[0] - losses[1]), float(regression.deviations(home[None, :], there)[0])
        unseen = _UNSEEN * math.hypot(gain, depth)
        corrected, beside = discrepancy.corrected(regression, home, there, gain, unseen)
        return corrected, math.hypot(_HONEST * doubt, _ROUGH * gain, beside)

    def _whitened(self, x: Vector) -> Vector:
        """(n,) the point in coordinates whose unit is a standard deviation of the search."""
        now = self._now
        return np.array(np.linalg.solve(now.scale, x - now.centre), dtype=np.float64)

    def _spread(
        self, regression: Regression, expected: float, rounder: Matrix, *, alike: bool, shown: bool
    ) -> Matrix:
        """(n, n) the next A; ``expected`` loss of a candidate, in standard deviations of the noise."""
        now, hyper = self._now, regression.hyper
        by_misfit = math.exp(-hyper.misfit / 3)
        by_span = _WITHIN * math.exp(hyper.span)
        by_loss = math.sqrt(_EXPECTED / expected) if expected > 0 else math.inf
        wanted = min(by_misfit, by_span, by_loss)
        first = self._width / _volume(now.scale)
        far = math.exp(hyper.reach) * first
        if alike:
            wanted = max(wanted, far)
        widest = _WIDEST * far if shown else min(_WIDEST * far, _BLIND * first)
        factor = min(max(min(wanted, widest), _SLOWEST), _FASTEST)
        return limited(factor * now.scale @ rounder, self.space)

    def recommend(self) -> Vector:
        """(n,) the minimum of the fitted quadratic, as far as it can be believed; the start before the first
        fit."""
        return self._now.best.copy()

    def belief(self) -> Belief:
        """Of the recommendation, by the posterior of the last fit: its standard deviation doubled, a quarter
        of the improvement for losses that are no quadratics, and what results close to the start and to the
        recommendation say that the quadratic does not (:mod:`blackopt.optimizers.discrepancy`).
        `benchmarks/noise.py` counts how often that holds.

        The improvement may be negative: the rule of what is recommended asks the quadratic alone.
        """
        now = self._now
        probability = 0.5 * math.erfc(-now.gain / (math.sqrt(2) * now.doubt)) if now.doubt > 0 else 1.0
        return Belief(Estimate(now.gain, now.doubt, len(self._told)), probability)

    # ------------------------------------------------------------------ memory

    def _memory(self) -> State:
        now = self._now
        return {
            "told": dump_results(self._told, self.space.size),
            "since": self._since,
            "centre": now.centre,
            "scale": now.scale,
            "best": now.best,
            "hyper": np.array(astuple(now.hyper)),
            "noise": now.noise,
            "fits": now.fits,
            "odds": now.odds,
            "gain": now.gain,
            "doubt": now.doubt,
        }

    def _recall(self, memory: State) -> None:
        self._told = load_results(memory["told"])
        self._since = memory["since"]
        hyper = Hyper(*(float(value) for value in memory["hyper"]))
        self._now = Fitted(
            memory["centre"],
            memory["scale"],
            memory["best"],
            hyper,
            memory["noise"],
            memory["fits"],
            memory["odds"],
            memory["gain"],
            memory["doubt"],
        )


def _volume(scale: Matrix) -> float:
    """|det A|^(1/n): the standard deviation of an equally large sphere."""
    return math.exp(float(np.linalg.slogdet(scale)[1]) / len(scale))


def _losses(z: Matrix, regression: Regression, gradient: Vector, hessian: Matrix) -> Vector:
    """(k,) what the quadratic says of k whitened points, less that of the centre."""
    means: Vector = z @ gradient + 0.5 * ((z @ hessian) * z).sum(axis=1)
    means *= envelope(z, regression.hyper)
    return means


def _relative_variances(told: list[Result]) -> Vector:
    """(N,) se^2 over its median, where standard errors are known, over the weight: 1 for an ordinary
    result."""
    weights = np.array([result.weight for result in told])
    se2 = np.array([math.nan if result.se is None else result.se**2 for result in told])
    known = np.isfinite(se2) & (se2 > 0)
    usual = float(np.median(se2[known])) if known.any() else 1.0
    relative = np.where(known, se2, usual) / usual * float(weights.mean()) / weights
    limited_ones: Vector = np.clip(relative, *_ENDS)
    return limited_ones


def _dip(regression: Regression) -> float:
    """By how many standard deviations results at the centre are better than the model says; 0 without such.

    Far out on a plateau everything looks alike, and a quadratic spans the hollow in its middle.
    """
    close = regression.data.far < _CLOSE**6
    if close.sum() < 2:
        return 0.0
    weights = 1 / regression.v[close]
    total = float((regression.residuals[close] * np.sqrt(weights)).sum())
    return -total / math.sqrt(regression.s2 * float(weights.sum()))


def _tried(data: Data) -> bool:
    """Whether results of the present spread have come back: those in flight are from an earlier one."""
    rho = data.far ** (1 / 6)
    return int(((rho > 0.5) & (rho < 2.0)).sum()) >= _FEWEST


def _tamed(data: Data, fit: Regression, known: NDArray[np.bool_]) -> Data:
    """The data with outliers held back; infeasible results, which are no outliers, are left alone."""
    residuals = fit.residuals
    near = known & (fit.v < 4 * data.base)  # further out a residual is the model's rather than the noise's
    if near.sum() < _FEWEST:
        return data
    if tails.heavy(data.y[near], residuals[near]):
        pseudo = data.y.copy()
        pseudo[known] += np.sqrt(fit.v[known]) * (tails.scores(residuals[known]) - residuals[known])
        return replace(data, y=pseudo)
    weights = np.where(known, tails.downweighted(residuals, tails.spread(residuals[near])), 1.0)
    return replace(data, base=data.base / weights)


def _least_deviations(space: Space) -> Vector:
    """(n,) standard deviations below which a discrete coordinate would hardly ever change its value."""
    least = np.zeros(space.size)
    for block in space.blocks:
        if isinstance(block, IntBlock):
            least[space.slices[block.name]] = _HALF_A_BIN / (block.hi - block.lo + 1)
        elif isinstance(block, ChoiceBlock):
            least[space.slices[block.name]] = _OF_A_CHOICE
    return least
