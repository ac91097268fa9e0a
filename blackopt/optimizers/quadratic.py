"""A quadratic regression over all results, old and far ones included, whose priors are set by the evidence.

In whitened coordinates z (0 is the centre, 1 a standard deviation of the search) the loss is modelled as

    y = t0 + w [ b'z + h |z|^2 / sqrt(n) + sum_j e_jj z_j^2 + sqrt(2) sum_{j<k} e_jk z_j z_k + h0 r / R^2 ]
        + sum_k phi_k(age) (g_k0 + w g_k'z) + noise,        w = 1 / (1 + rho^2 / c^2),  rho^2 = |z|^2 / n

with r the squared distance from the anchor (where the search began, in units of its first spread), less that
of the centre. The anchored bowl says that the optimum is about R first spreads away. The envelope w lets
losses level off with the distance: a rate cannot fall below zero, and far from every optimum all candidates
look alike. Without it, what is flat outside would bend the fit inside. Slope and curvature at the centre are
those of the quadratic, which remains as c grows. The age functions
phi_k(a) = sqrt(2) sin(w_k a) / w_k, w_k = (k - 1/2) pi, are the leading terms of the Karhunen-Loeve
expansion of Brownian motion that is zero now (Loeve, "Probability theory II", section 37): the optimum may
drift, the curvature is shared. Noise has variance s^2 v with

    v = precision * (1 + kappa^2 rho^6),

whose second part is what a quadratic leaves out, a term of third order: far results count less, and the
evidence says how much less. Coefficients have independent zero-mean Gaussian priors, their variances in units
of s^2; those variances, kappa, c, h0 and R maximise the evidence (MacKay, "Bayesian interpolation", Neural
Computation 4, 1992): :mod:`blackopt.optimizers.evidence`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from blackopt.types import Vector

Matrix = NDArray[np.float64]

_FLAT = 1e6  # prior variance of t0: no opinion
_LEAST = 0.02  # of Var y: keeps the noise variance above zero where the fit is perfect
_ROUNDING = 1e-12
_NONE = -25.0  # logarithm of a prior variance that lets nothing through
_LOOSE = 3.0  # standard deviation of the hyper-priors, in logarithms
_SOME = 0.45  # of log c, below its median; above it every value is as likely
_TIGHT = 0.3  # of log h0
_FAR = 1.0  # of log R
DRIFT_FROM = 60
"""Results, before drift can be told from noise."""
SPAN = 6
"""Prior median of c, in R first spreads."""


@dataclass(frozen=True, slots=True)
class Hyper:
    """Logarithms of what the evidence sets.

    Attributes:
        linear: prior variance of each b_j (h1).
        quadratic: of each e_jk (h2).
        isotropic: of h (h3).
        drift: of each g_kj (h4).
        anchor: h0, in units of the loss.
        misfit: kappa.
        span: c.
        reach: R, >= 1.
    """

    linear: float
    quadratic: float
    isotropic: float
    drift: float
    anchor: float
    misfit: float
    span: float
    reach: float = 0.0

    @classmethod
    def initial(cls, n: int) -> Hyper:
        """Where a search over n coordinates begins; ``anchor`` still has to be set."""
        return cls(
            math.log(1 / n), math.log(0.3 / n**2), math.log(1 / n), -5.0, 0.0, math.log(0.1), math.log(SPAN)
        )

    def floored(self, n: int, floors: Floors) -> Hyper:
        """With variances that are not smaller than the floors.

        Centre and axes are chosen by the fit, so the evidence, which is not told so, would shrink slopes and
        curvatures to nothing and the search would stand still.
        """
        return replace(
            self,
            linear=max(self.linear, math.log(floors.linear / n)),
            quadratic=max(self.quadratic, math.log(floors.quadratic / n**2)),
            isotropic=max(self.isotropic, math.log(floors.linear / n)),
        )

    @property
    def bowl(self) -> float:
        """h0 / R^2, by which squared first spreads from the anchor are multiplied."""
        return math.exp(self.anchor - 2 * self.reach)

    def reaching(self, reach: float) -> Hyper:
        """The same beliefs of slopes, with the optimum as far away as log R says."""
        return replace(self, reach=reach, anchor=self.anchor + reach - self.reach)

    def rescaled(self, factor: float) -> Hyper:
        """The same beliefs in coordinates whose unit is ``factor`` times as long."""
        step = math.log(factor)
        return replace(
            self,
            linear=self.linear + 2 * step,
            quadratic=self.quadratic + 4 * step,
            isotropic=self.isotropic + 4 * step,
            drift=self.drift + 2 * step,
            misfit=self.misfit + 3 * step,
            span=self.span - step,
        )


@dataclass(frozen=True, slots=True)
class Floors:
    """Smallest prior variances: of slopes and isotropic curvature times n, of other curvature times n^2."""

    linear: float
    quadratic: float


@dataclass(frozen=True, eq=False)
class Data:
    """Results in whitened coordinates, in the order they were told.

    Attributes:
        z: (N, n).
        y: (N,) losses, finite.
        base: (N,) relative noise variances, mean about 1.
        r: (N,) squared distances from the anchor in first spreads, less that of the centre.
        centre: log of h0's prior median for R = 1; it is proportional to R, for slopes are what they are.
        span: log of c's, likewise.
    """

    z: Matrix
    y: Vector
    base: Vector
    r: Vector
    centre: float
    span: float

    @cached_property
    def size(self) -> tuple[int, int]:
        """(N, n)."""
        rows, n = self.z.shape
        return int(rows), int(n)

    @cached_property
    def far(self) -> Vector:
        """(N,) rho^6."""
        cubed: Vector = ((self.z**2).mean(axis=1)) ** 3
        return cubed

    @cached_property
    def phi(self) -> Matrix:
        """(N, p) features."""
        rows, n = self.size
        age = np.arange(rows - 1, -1, -1) / rows
        w = (np.arange(1, self.levels + 1) - 0.5) * math.pi
        waves = math.sqrt(2) * np.sin(np.outer(age, w)) / w
        still = features(self.z)
        moving = (waves[:, :, None] * still[:, None, : n + 1]).reshape(rows, -1)
        return np.hstack([still, moving])

    @cached_property
    def group(self) -> NDArray[np.intp]:
        """(p,) which prior variance belongs to a feature: flat, linear, quadratic, isotropic, drift."""
        n, p = self.size[1], self.phi.shape[1]
        quadratic = n * (n + 1) // 2
        sizes = [1, n, 1, quadratic]
        return np.repeat([0, 1, 3, 2, 4], [*sizes, p - sum(sizes)])

    @cached_property
    def levels(self) -> int:
        """Number of the drift's age functions, whose products with 1 level off nowhere."""
        return 0 if self.size[0] < DRIFT_FROM else 4 if self.size[1] <= 20 else 3

    @cached_property
    def fades(self) -> NDArray[np.bool_]:
        """(p,) which features the envelope holds down: all that are not constant in z."""
        n, p = self.size[1], self.phi.shape[1]
        fades = np.ones(p, dtype=np.bool_)
        fades[0] = False
        fades[p - self.levels * (n + 1) :: n + 1] = False
        return fades

    @cached_property
    def grams(self) -> list[tuple[bool, int, Matrix]]:
        """(N, N) inner products of the features, group by group; those that fade, and those that do not."""
        found = []
        for fades, group in product((False, True), range(5)):
            part = self.phi[:, (self.group == group) & (self.fades == fades)]
            if part.size:
                found.append((fades, group, part @ part.T))
        return found

    def envelope(self, hyper: Hyper) -> Vector:
        """(N,) w."""
        return envelope(self.z, hyper)

    @cached_property
    def slack(self) -> float:
        """The least noise that a perfect fit leaves, as a sum of squares."""
        return _LEAST * float(np.var(self.y)) + 1e-300

    def variance(self, hyper: Hyper) -> Vector:
        """(N,) v."""
        v: Vector = self.base * (1 + math.exp(2 * hyper.misfit) * self.far)
        return v

    def prior(self, hyper: Hyper) -> Vector:
        """(p,) prior variances in units of s^2."""
        logs = [math.log(_FLAT), hyper.linear, hyper.quadratic, hyper.isotropic, hyper.drift]
        variances: Vector = np.exp(np.array(logs))[self.group]
        return variances

    def target(self, hyper: Hyper) -> Vector:
        """(N,) losses less the anchored bowl, about 0."""
        bowl = self.envelope(hyper) * self.r
        target: Vector = self.y - np.median(self.y) - hyper.bowl * (bowl - bowl.mean())
        return target


def features(z: Matrix) -> Matrix:
    """(k, 1 + n + 1 + n(n+1)/2) features of k points that do not age: 1, z, |z|^2/sqrt(n), z_j^2, and
    sqrt(2) z_j z_k."""
    k, n = z.shape
    above = np.triu_indices(n, 1)
    return np.hstack(
        [
            np.ones((k, 1)),
            z,
            (z**2).sum(axis=1, keepdims=True) / math.sqrt(n),
            z**2,
            math.sqrt(2) * z[:, above[0]] * z[:, above[1]],
        ]
    )


def envelope(z: Matrix, hyper: Hyper) -> Vector:
    """(k,) w at k points."""
    w: Vector = 1 / (1 + math.exp(-2 * hyper.span) * (z**2).mean(axis=1))
    return w


class Regression:
    """The posterior for one set of hyper-parameters, by the smaller of two equal linear systems.

    With p features and N results, precision A = Phi' V^-1 Phi + D^-1 (p, p) or covariance
    K = Phi D Phi' + V (N, N), where D is the prior's and V the noise's diagonal.

    Attributes:
        hyper: the hyper-parameters.
        s2: noise variance, its scale integrated in.
        evidence: log p(y | hyper) p(hyper), up to a constant.
    """

    def __init__(self, data: Data, hyper: Hyper, gram: Matrix | None = None) -> None:
        self.data, self.hyper = data, hyper
        self.v, self.d, self.y = data.variance(hyper), data.prior(hyper), data.target(hyper)
        self.w = data.envelope(hyper)
        rows = len(self.y)
        self.dual = rows <= len(self.d)
        self.gram: Matrix | None = gram
        if self.dual:
            weights = [_FLAT, *np.exp([hyper.linear, hyper.quadratic, hyper.isotropic, hyper.drift])]
            both = np.outer(self.w, self.w)
            self.system: Matrix = np.diag(self.v)
            for fades, group, part in data.grams:
                self.system += weights[group] * (both * part if fades else part)
            square, half_log = self._dual()
        else:
            if gram is None:
                scaled = self.phi / np.sqrt(self.v)[:, None]
                gram = np.array(scaled.T @ scaled, dtype=np.float64)
            self.gram = gram
            self.system = self.gram + np.diag(1 / self.d)
            square, half_log = self._primal()
        self.s2 = (square + data.slack) / (rows + _LEAST)
        self.evidence = -rows / 2 * math.log(self.s2) - half_log + _prior(data, hyper)

    def log_odds(self) -> float:
        """Logarithm of the evidence for this fit over that for losses that no candidate changes, without the
        hyper-priors."""
        flat = replace(self.hyper, linear=_NONE, quadratic=_NONE, isotropic=_NONE, anchor=_NONE)
        none = Regression(self.data, flat, self.gram)
        mine, other = (fit.evidence - _prior(self.data, fit.hyper) for fit in (self, none))
        return mine - other

    def _dual(self) -> tuple[float, float]:
        """y'K^-1 y and half the log determinant of K, from one Cholesky factor of K bordered with y."""
        bound = 2 * float(self.y @ (self.y / self.v)) + 1e-300  # K > V, so this exceeds y'K^-1 y
        last, half_log = _bordered(self.system, self.y, bound)
        return max(0.0, bound - last), half_log

    def _primal(self) -> tuple[float, float]:
        """The same from A: y'K^-1 y = y'V^-1 y - q'q (Woodbury)."""
        scaled = self.y / self.v
        slack = self.data.slack
        last, half_log = _bordered(self.system, self.phi.T @ scaled, float(self.y @ scaled) + slack)
        half_log += 0.5 * float(np.log(self.d).sum() + np.log(self.v).sum())
        return max(0.0, last - slack), half_log

    @cached_property
    def phi(self) -> Matrix:
        """(N, p) features under the envelope."""
        phi: Matrix = np.where(self.data.fades, self.w[:, None], 1.0) * self.data.phi
        return phi

    @cached_property
    def theta(self) -> Vector:
        """(p,) posterior mean of the coefficients."""
        return self.coefficients(self.y)

    def coefficients(self, y: Matrix) -> Matrix:
        """(p,) or (p, k) posterior mean of the coefficients, had the target been y, (N,) or (N, k)."""
        phi = self.phi
        if self.dual:
            mean: Matrix = (self.d * (phi.T @ np.linalg.solve(self.system, y)).T).T
        else:
            mean = np.array(np.linalg.solve(self.system, phi.T @ (y.T / self.v).T), dtype=np.float64)
        return mean

    @cached_property
    def residuals(self) -> Vector:
        """(N,) standardised by the relative variances alone."""
        left: Vector = (self.y - self.phi @ self.theta) / np.sqrt(self.v)
        return left

    def gradient_and_hessian(self) -> tuple[Vector, Matrix]:
        """(n,) and (n, n), at z = 0 and now, without the anchored bowl."""
        n = self.data.size[1]
        theta = self.theta
        hessian = np.zeros((n, n))
        hessian[np.triu_indices(n, 1)] = theta[2 * n + 2 : 2 * n + 2 + n * (n - 1) // 2] / math.sqrt(2)
        hessian += hessian.T + np.diag(theta[n + 2 : 2 * n + 2] + theta[n + 1] / math.sqrt(n))
        return theta[1 : n + 1].copy(), 2 * hessian

    def at(self, z: Matrix) -> Matrix:
        """(k, 1 + n + 1 + n(n+1)/2) features of points that do not age, under the envelope."""
        found = features(z)
        found[:, 1:] *= envelope(z, self.hyper)[:, None]
        return found

    def deviations(self, z: Matrix, other: Vector) -> Vector:
        """(k,) posterior standard deviations of the loss at k points less that at another, now."""
        delta = self.at(z) - self.at(other[None, :])
        width = delta.shape[1]  # what ages is zero now
        if self.dual:
            across = (self.phi[:, :width] * self.d[:width]) @ delta.T
            variance = (delta**2) @ self.d[:width] - (across * np.linalg.solve(self.system, across)).sum(
                axis=0
            )
        else:
            padded = np.zeros((len(self.d), len(delta)))
            padded[:width] = delta.T
            variance = (padded * np.linalg.solve(self.system, padded)).sum(axis=0)
        sd: Vector = np.sqrt(self.s2 * np.maximum(variance, 0.0))
        return sd


def _bordered(system: Matrix, side: Vector, corner: float) -> tuple[float, float]:
    """``corner - side' system^-1 side`` and half the log determinant of a positive definite system.

    Results whose distances differ by powers of ten make it badly scaled, so it is factored with a diagonal of
    ones, and with as much added to that as rounding may have taken away.
    """
    n = len(side)
    size = np.sqrt(np.append(np.diag(system), corner))
    whole = np.empty((n + 1, n + 1))
    whole[:n, :n], whole[n, :n], whole[:n, n], whole[n, n] = system, side, side, corner
    whole /= size[:, None] * size[None, :]
    whole[np.diag_indices(n + 1)] += _ROUNDING
    diagonal = np.diag(np.linalg.cholesky(whole)) * size
    left = float(diagonal[n]) ** 2 - _ROUNDING * corner
    return max(left, 0.0), float(np.log(diagonal[:n]).sum())


def _prior(data: Data, hyper: Hyper) -> float:
    """Log density of the hyper-priors, up to a constant."""
    usual = Hyper.initial(data.size[1])
    loose = [
        (hyper.linear, usual.linear),
        (hyper.quadratic, usual.quadratic),
        (hyper.isotropic, usual.isotropic),
        (hyper.drift, -4.0),
        (hyper.misfit, usual.misfit),
    ]
    # that losses level off needs proof; that they do not, none
    level = min(hyper.span - data.span - hyper.reach, 0.0)
    bowl = hyper.anchor - data.centre - hyper.reach
    squares = sum(((value - centre) / _LOOSE) ** 2 for value, centre in loose)
    squares += (level / _SOME) ** 2 + (bowl / _TIGHT) ** 2 + (hyper.reach / _FAR) ** 2
    return -0.5 * squares
