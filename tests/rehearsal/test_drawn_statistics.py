"""Drawn sums are sums that units could have, with the moments they were drawn from."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from blackopt.metrics.kinds import kind
from blackopt.rehearsal.levels import draw, stated
from blackopt.rehearsal.production import slices
from blackopt.rehearsal.world import DAY_US, Drift
from blackopt.runner.plan import Baseline

KINDS: list[tuple[Any, Baseline]] = [
    (kind("proportion"), Baseline(0.2)),
    (kind("retention"), Baseline(0.4)),
    (kind("mean"), Baseline(12.0, 30.0)),
    (kind("mean", cuped=True), Baseline(12.0, 30.0, 0.6)),
    (kind("revenue", cap=500.0), Baseline(12.0, 30.0)),
    (kind("ratio"), Baseline(0.3, 0.8)),
    (kind("ratio", cuped=True), Baseline(0.3, 0.8, 0.5)),
    (kind("quantile", quantile=0.9), Baseline(250.0, 400.0)),
    (kind("value"), Baseline(3.0, 2.0)),
]


@pytest.mark.parametrize(("own", "baseline"), KINDS, ids=lambda v: getattr(v, "name", ""))
def test_every_kind_takes_what_is_drawn(own: Any, baseline: Baseline) -> None:
    rng, level = np.random.default_rng(1), stated(own, baseline)
    for n in (0, 1, 2, 3, 40, 5_000):
        stats = draw(own, level, n, 1.1, rng)
        assert own.validate(stats) is None
        assert own.units(stats) == n


@pytest.mark.parametrize(("own", "baseline"), KINDS, ids=lambda v: getattr(v, "name", ""))
def test_estimates_scatter_as_their_standard_errors_say(own: Any, baseline: Baseline) -> None:
    rng, level = np.random.default_rng(2), stated(own, baseline)
    found = [own.estimate(draw(own, level, 2_000, 1.5, rng)) for _ in range(600)]
    z = [(e.value - 1.5 * baseline.mean) / e.se for e in found]
    assert abs(float(np.mean(z))) < 4.5 / 600**0.5
    assert float(np.std(z)) == pytest.approx(1.0, abs=0.13)


def test_a_covariate_explains_as_much_as_was_stated() -> None:
    own, rng = kind("mean", cuped=True), np.random.default_rng(3)
    level = stated(own, Baseline(12.0, 30.0, 0.6))
    one, two = (draw(own, level, 100_000, 1.0, rng) for _ in range(2))
    plain = kind("mean").effect(one, two, relative=True).se
    assert plain is not None
    assert own.effect(one, two, relative=True).se == pytest.approx(plain * 0.8, rel=0.02)


def test_drift_is_stationary_common_and_the_same_again() -> None:
    one, two = (Drift({"visit": 0.05}, seed=4) for _ in range(2))
    days = [one.factor("visit", day) for day in range(1, 3_000)]
    assert days == [two.factor("visit", day) for day in range(1, 3_000)]
    assert float(np.std(np.log(days))) == pytest.approx(0.05, rel=0.15)
    assert one.factor("other", 7) == 1.0


def test_slices_cover_a_window_and_end_with_its_days() -> None:
    start_us, end_us = 5 * DAY_US // 8, 5 * DAY_US // 8 + 3 * DAY_US
    found = list(slices(start_us, end_us))
    assert (found[0][0], found[-1][1]) == (start_us, end_us)
    assert all(a[1] == b[0] for a, b in pairwise(found))
    assert all(a // DAY_US == (b - 1) // DAY_US for a, b in found)
