"""Where a fitted quadratic says to go, and how far it can be believed: steps within bounds and within a trust
region (Conn, Gould and Toint, "Trust-region methods", 2000, chapter 7), and the spread of what is tried next.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from blackopt.types import Vector

Matrix = NDArray[np.float64]

RADII = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
"""Radii of the steps that are compared, in units of sqrt(n) standard deviations of the search."""

_BISECTIONS = 60


def multipliers(gradient: Vector, hessian: Matrix, radii: Vector) -> Vector:
    """(k,) Lagrange multipliers mu of argmin g'z + z'Hz/2 subject to |z| <= radius, for k radii.

    |z(mu)| = |(H + mu I)^-1 g| falls with mu beyond max(0, -lambda_min), so bisection in log(mu - that) finds
    the radius; where the minimum lies inside, mu comes out as good as zero.
    """
    values, axes = np.linalg.eigh(hessian)
    g = (axes.T @ gradient) ** 2
    scale = float(np.abs(values).max()) + math.sqrt(float(g.sum())) / float(radii.min()) + 1e-300
    least = max(0.0, -float(values[0])) + 1e-9 * scale
    low, high = np.full(len(radii), math.log(1e-12 * scale)), np.full(len(radii), math.log(2 * scale))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        mu = least + np.exp(middle)
        long = (g / (values + mu[:, None]) ** 2).sum(axis=1) > radii**2
        low, high = np.where(long, middle, low), np.where(long, high, middle)
    found: Vector = least + np.exp(high)
    return found


def step_in_box(gradient: Vector, hessian: Matrix, lower: Vector, upper: Vector) -> Vector:
    """(n,) argmin g'd + d'Hd/2 with lower <= d <= upper, for a positive definite H and a box around 0.

    By active sets: what would leave the box is held at its bound and the rest solved for again; then what the
    slope draws back inside is let go (Nocedal and Wright, "Numerical optimization", 2006, section 16.5, with
    several constraints at a time). Should it go in circles, the best point so far is taken.
    """
    n = len(gradient)
    best, least = np.zeros(n), 0.0
    step, held = np.zeros(n), np.zeros(n, dtype=np.bool_)
    for _ in range(4 * n):
        free = ~held
        if free.any():
            side = gradient[free] + hessian[np.ix_(free, held)] @ step[held]
            step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], side)
        out = (step < lower) | (step > upper)
        step = np.clip(step, lower, upper)
        slope = gradient + hessian @ step
        value = float((gradient + slope) @ step) / 2
        if value < least:
            best, least = step.copy(), value
        if out.any():
            held |= out
            continue
        inward = held & np.where(step <= lower, slope < 0, slope > 0)
        if not inward.any():
            break
        held &= ~inward
    return best


def steps(
    gradient: Vector, hessian: Matrix, scale: Matrix, lower: Vector, upper: Vector, radii: Vector
) -> Matrix:
    """(k + 1, n) whitened steps z: none, and the best within each of k radii and within the bounds.

    Args:
        gradient: (n,) of the whitened quadratic.
        hessian: (n, n) of it.
        scale: (n, n) A of d = A z.
        lower: (n,) of d, <= 0.
        upper: (n,) of d, >= 0.
        radii: (k,) > 0.
    """
    n = len(gradient)
    inverse = np.linalg.inv(scale)
    found = [np.zeros(n)]
    for mu in multipliers(gradient, hessian, radii):
        curved = hessian + mu * np.eye(n)
        z = -np.linalg.solve(curved, gradient)
        d = scale @ z
        if np.any((d < lower) | (d > upper)):
            # the same problem in coordinates whose bounds are a box
            d = step_in_box(inverse.T @ gradient, inverse.T @ curved @ inverse, lower, upper)
            z = inverse @ np.clip(d, lower, upper)
        found.append(z)
    return np.array(found)


def reflected(x: Vector, lower: Vector, upper: Vector) -> Vector:
    """(n,) x folded back at each bound it crosses, as often as it takes.

    Clipping would heap candidates up on the bounds, where a regression learns nothing of the inside.
    """
    width = upper - lower
    bounded = np.isfinite(width)
    span = np.where(bounded, width, 1.0)
    beyond = np.mod(np.where(bounded, x - np.where(bounded, lower, 0.0), 0.0), 2 * span)
    folded = np.where(bounded, lower, 0.0) + np.minimum(beyond, 2 * span - beyond)
    inside = (x >= lower) & (x <= upper)
    back: Vector = np.where(inside | ~bounded, np.clip(x, lower, upper), folded)
    return back


def rounder(axes: Matrix, values: Vector) -> Matrix:
    """(n, n) factor of determinant 1 that lengthens flat axes and shortens steep ones, by little at a time.

    Args:
        axes: (n, n) eigenvectors of the Hessian, in columns.
        values: (n,) its eigenvalues.
    """
    largest = float(np.abs(values).max())
    if largest == 0.0:
        return np.eye(len(values))
    logs = -np.log(np.maximum(values, 1e-3 * largest))
    logs = np.clip(logs - logs.mean(), -math.log(3), math.log(3)) * 0.15
    rounded: Matrix = (axes * np.exp(logs - logs.mean())) @ axes.T
    return rounded
