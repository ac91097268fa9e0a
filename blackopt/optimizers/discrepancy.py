"""What a fitted quadratic leaves out at two points: where the search began, and what it recommends.

A quadratic may fit every result and be wrong there. In many coordinates nearly all candidates lie about one
standard deviation from the centre that they were drawn around, and hardly any close to it. So how far the
loss falls towards the middle is extrapolated: too far on a bent ridge, not far enough in the hollow of a
plateau, and the residuals of the results, which lie further out, do not tell. Besides, a fit that follows the
noise is too low at the very point that is recommended for being low.

So each of the two points gets a discrepancy of its own (Kennedy and O'Hagan, "Bayesian calibration of
computer models", Journal of the Royal Statistical Society B 63, 2001), told by the results close to it:

    y = quadratic + d_0 k(z, z_0) + d_1 k(z, z_1) + noise,    k(z, z') = exp(-|z - z'|^2 / (2 n l^2))

with d_0, d_1 ~ N(0, tau^2), independent. Where nothing was measured, tau is the error of the model; where
much was, the difference comes out as it was measured, whatever the quadratic says.
"""

from __future__ import annotations

import math

import numpy as np

from blackopt.optimizers.quadratic import Regression
from blackopt.types import Vector

_LENGTH = 0.3  # l, in standard deviations of the search: next to no candidate is that close to its centre


def corrected(
    regression: Regression, first: Vector, other: Vector, difference: float, rough: float
) -> tuple[float, float]:
    """By how much the loss at one point exceeds that at another, and the standard deviation that the
    discrepancies add to the quadratic's own.

    With K the covariance of the losses by the quadratic and its noise, and B the (N, 2) values of k, the
    discrepancies have the posterior precision P = I / tau^2 + B'K^-1 B and the mean P^-1 B'K^-1 y. What they
    add to the difference is e'd, with e that of k less what the quadratic would have made of B.

    Args:
        regression: of the results.
        first: (n,) in whitened coordinates.
        other: (n,).
        difference: the same by the quadratic alone.
        rough: tau >= 0, in units of ``regression.data.y``.
    """
    points = np.array([first, other])
    apart = np.array([((regression.data.z - point) ** 2).mean(axis=1) for point in points]).T
    close = np.exp(-apart / (2 * _LENGTH**2))
    absorbed = regression.coefficients(close)
    left = (close - regression.phi @ absorbed) / regression.v[:, None]  # K^-1 B
    features = regression.at(points)
    quadratic = (features[0] - features[1]) @ absorbed[: features.shape[1]]
    alike = math.exp(-float(((first - other) ** 2).mean()) / (2 * _LENGTH**2))
    effect = np.array([1 - alike, alike - 1]) - quadratic
    tau2 = rough**2 / regression.s2  # the posterior's matrices are in units of s2
    covariance = tau2 * np.linalg.inv(np.eye(2) + tau2 * (close.T @ left))
    mean = float(effect @ covariance @ (left.T @ regression.y))
    variance = regression.s2 * float(effect @ covariance @ effect)
    return difference + mean, math.sqrt(max(variance, 0.0))
