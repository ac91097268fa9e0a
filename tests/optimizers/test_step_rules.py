"""Step rules, each against its equation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blackopt.optimizers.steps import SGD, Adam, ClipUp, Momentum, StepRule, blocks, norm
from blackopt.types import Vector

G = np.array([3.0, -4.0])


def test_sgd_is_the_rate_times_the_gradient() -> None:
    np.testing.assert_array_equal(SGD(0.5).step(G.copy()), [-1.5, 2.0])


def test_momentum_under_a_constant_gradient_is_a_geometric_series() -> None:
    rule = Momentum(2, rate=0.1, beta=0.9)
    steps = [rule.step(G.copy()) for _ in range(5)]
    for k, step in enumerate(steps, start=1):
        np.testing.assert_allclose(step, -0.1 * (1 - 0.9**k) * G, rtol=1e-12)


def test_adam_under_a_constant_gradient_steps_by_its_rate_from_the_first_step_on() -> None:
    rule = Adam(2, rate=0.01)
    for _ in range(20):
        np.testing.assert_allclose(rule.step(G.copy()), -0.01 * np.sign(G), rtol=1e-6)


def test_adam_follows_its_paper_on_a_changing_gradient() -> None:
    rule = Adam(1, rate=0.1, beta1=0.8, beta2=0.9, epsilon=1e-8)
    gradients = [1.0, -2.0, 0.5]
    for t in range(1, 4):
        m = sum(0.2 * 0.8 ** (t - i) * gradients[i - 1] for i in range(1, t + 1)) / (1 - 0.8**t)
        v = sum(0.1 * 0.9 ** (t - i) * gradients[i - 1] ** 2 for i in range(1, t + 1)) / (1 - 0.9**t)
        np.testing.assert_allclose(
            rule.step(np.array([gradients[t - 1]])), [-0.1 * m / (v**0.5 + 1e-8)], rtol=1e-12
        )


def test_adam_corrects_bias_once_a_step_and_not_once_a_block() -> None:
    """A coordinate's path does not depend on which other coordinates share the vector."""
    together, alone = Adam(2, rate=0.1), Adam(1, rate=0.1)
    for t in range(10):
        gradient = np.array([np.sin(t), np.cos(3 * t)])
        first = gradient[:1].copy()
        np.testing.assert_array_equal(together.step(gradient)[:1], alone.step(first))


def test_clipup_ignores_the_gradients_scale() -> None:
    small, large = ClipUp(2, 0.1, 1.0), ClipUp(2, 0.1, 1.0)
    for _ in range(5):
        np.testing.assert_allclose(small.step(1e-6 * G), large.step(1e6 * G), rtol=1e-12)


def test_clipup_takes_a_gradient_in_parts_and_moves_as_by_the_whole() -> None:
    n, rng = 150_000, np.random.default_rng(1)
    whole, parted = ClipUp(n, 0.1, 0.15), ClipUp(n, 0.1, 0.15)
    for _ in range(3):
        gradient = rng.standard_normal(n)
        parted.accelerate(gradient.copy().__getitem__, [*blocks(n)])
        np.testing.assert_array_equal(whole.step(gradient.copy()), -parted.velocity)


def test_clipup_accelerates_up_to_its_speed_limit() -> None:
    rule = ClipUp(2, rate=0.1, max_speed=0.25, momentum=0.9)
    lengths = [float(np.linalg.norm(rule.step(G.copy()))) for _ in range(10)]
    np.testing.assert_allclose(lengths[:2], [0.1, 0.19], rtol=1e-12)
    np.testing.assert_allclose(lengths[2:], 0.25, rtol=1e-12)
    np.testing.assert_allclose(rule.velocity, 0.25 * G / 5, rtol=1e-12)


def test_clipup_coasts_where_nothing_was_learnt() -> None:
    rule = ClipUp(2, rate=0.1, max_speed=1.0, momentum=0.5)
    rule.step(G.copy())
    np.testing.assert_allclose(rule.step(np.zeros(2)), -0.05 * G / 5, rtol=1e-12)


RULES = [
    lambda **dtype: SGD(0.1),
    lambda **dtype: Momentum(2, 0.1, 0.9, **dtype),
    lambda **dtype: Adam(2, 0.1, **dtype),
    lambda **dtype: ClipUp(2, 0.1, 0.2, **dtype),
]


@pytest.mark.parametrize("make", RULES, ids=["sgd", "momentum", "adam", "clipup"])
def test_a_step_takes_the_gradients_memory_and_type(make: Any) -> None:
    rule, narrow = make(), make(dtype=np.float32)
    for t in range(1, 5):
        gradient = np.array([t, -2.0 * t], np.float32)
        step = narrow.step(gradient)
        assert step is gradient
        assert all(state.dtype == np.float32 for state in narrow.dump().values() if np.ndim(state))
        np.testing.assert_allclose(step, rule.step(np.array([t, -2.0 * t])), rtol=1e-5)


def test_a_vector_of_many_blocks_steps_as_one_of_few() -> None:
    """The blocks of Adam are its own affair: a coordinate knows of no other."""
    n = 200_000
    long, short = Adam(n, 0.1), Adam(2, 0.1)
    for t in range(1, 4):
        gradient = np.sin(np.arange(n) + t)
        ends = gradient[[0, -1]]
        np.testing.assert_array_equal(long.step(gradient)[[0, -1]], short.step(ends))


def test_the_length_of_a_vector_is_summed_wide() -> None:
    """A million float32 of 1e-3 beside one of 1e3: added in float32, the small ones would be lost in part."""
    vector = np.full(1_000_000, 1e-3, np.float32)
    vector[0] = 1e3
    np.testing.assert_allclose(
        norm(vector), np.sqrt(1e6 + 999_999 * np.float64(np.float32(1e-3)) ** 2), rtol=1e-12
    )


@pytest.mark.parametrize(
    "make",
    [lambda: SGD(0.1), lambda: Momentum(2, 0.1, 0.9), lambda: Adam(2, 0.1), lambda: ClipUp(2, 0.1, 0.2)],
    ids=["sgd", "momentum", "adam", "clipup"],
)
def test_a_restarted_rule_goes_on_where_it_was(make: object) -> None:
    """One process for each update takes the same path as one process for all of them."""
    assert callable(make)
    gradients = [np.array([np.sin(t), t - 3.0]) for t in range(8)]
    running: StepRule = make()
    state = make().dump()
    for gradient in gradients:
        fresh: StepRule = make()
        fresh.load(state)
        expected: Vector = running.step(gradient.copy())
        np.testing.assert_array_equal(fresh.step(gradient), expected)
        state = fresh.dump()
