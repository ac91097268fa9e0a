"""Shaping: from losses to weights that know no scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blackopt import noise
from blackopt.optimizers.shaping import centred_ranks, finite, late_weights, log_effective, trust, utilities
from blackopt.types import Vector

losses_lists = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, 1e300, np.inf]), min_size=1, max_size=12)


def ranks(*losses: float, among: list[float] | None = None) -> list[float]:
    return centred_ranks(np.array(losses), None if among is None else np.array(among)).tolist()


def test_ranks_span_minus_a_half_to_a_half() -> None:
    assert ranks(30.0, 10.0, 20.0) == [0.5, -0.5, 0.0]


def test_ties_share_their_mean_rank() -> None:
    assert ranks(1.0, 1.0, 1.0, 1.0) == [0.0] * 4
    assert ranks(1.0, 2.0, 2.0, 3.0) == [-0.5, 0.0, 0.0, 0.5]


def test_one_loss_scores_zero() -> None:
    assert ranks(5.0) == [0.0]


def test_infinite_losses_share_the_worst_ranks() -> None:
    np.testing.assert_allclose(ranks(np.inf, 0.0, np.inf), [0.25, -0.5, 0.25])


def test_a_late_loss_is_ranked_among_those_that_came_before_it() -> None:
    assert ranks(1.5, among=[1.0, 2.0, 1.5, 3.0, 4.0]) == [-0.25]


@given(losses_lists)
def test_scores_sum_to_zero_keep_the_order_and_ignore_the_order_of_arrival(losses: list[float]) -> None:
    scores = centred_ranks(np.array(losses))
    assert abs(scores.sum()) < 1e-12
    for i, a in enumerate(losses):
        for j, b in enumerate(losses):
            assert (scores[i] < scores[j]) == (a < b)
    np.testing.assert_array_equal(centred_ranks(np.array(losses[::-1])), scores[::-1])


def test_trust_without_errors_is_the_weights() -> None:
    np.testing.assert_allclose(trust(np.zeros(3), [None] * 3, np.array([1.0, 2.0, 3.0])), [0.5, 1.0, 1.5])


def test_trust_under_equal_errors_is_equal() -> None:
    np.testing.assert_array_equal(trust(np.arange(3.0), [0.3, 0.3, None], np.ones(3)), np.ones(3))


def test_trust_is_inverse_variance_where_noise_is_all_there_is() -> None:
    weights = trust(np.zeros(3), [1.0, 2.0, 2.0], np.ones(3))
    np.testing.assert_allclose(weights / weights[1], [4.0, 1.0, 1.0])


def test_trust_is_nearly_equal_where_the_losses_differ_by_much_more_than_noise() -> None:
    weights = trust(np.array([0.0, 100.0, np.inf, -100.0]), [1.0, 2.0, 0.0, None], np.ones(4))
    np.testing.assert_allclose(weights, 1.0, rtol=1e-3)


def test_trust_bounds_an_error_of_zero() -> None:
    weights = trust(np.zeros(3), [0.0, 1.0, 1.0], np.ones(3))
    assert np.all(np.isfinite(weights))
    assert weights[0] > 50 * weights[1]


def perturbations(k: int, n: int) -> Vector:
    return noise.normal(0, "test/shaping", 0, k * n)


def moved(epsilon: Any, shift: Vector) -> Vector:
    """Weights of (k, n) perturbations in a Gaussian that has moved by ``shift``."""
    return late_weights(epsilon @ shift - shift @ shift / 2, -float(shift @ shift))


def stretched(epsilon: Any, shift: Vector, variances: Vector) -> Vector:
    """The same of one that has stretched, too."""
    log_ratios = 0.5 * ((epsilon**2).sum(axis=1) - ((epsilon - shift) ** 2 / variances).sum(axis=1))
    return late_weights(log_ratios, log_effective(shift, variances))


def test_late_weights_of_a_centre_that_stayed_are_exactly_one() -> None:
    np.testing.assert_array_equal(moved(perturbations(10, 3).reshape(10, 3), np.zeros(3)), np.ones(10))


def test_late_weights_follow_the_density_ratio() -> None:
    epsilon, shift = np.array([[0.4, 0.0], [-0.4, 1.0]]), np.array([0.5, 0.0])
    w = np.exp(epsilon @ shift - 0.125)
    np.testing.assert_allclose(moved(epsilon, shift), np.exp(-0.25) * w / w.mean(), rtol=1e-12)


def test_late_weights_reweight_old_draws_to_the_new_centre() -> None:
    epsilon, shift = perturbations(40_000, 2).reshape(-1, 2), np.array([0.2, -0.1])
    w = moved(epsilon, shift)
    np.testing.assert_allclose(w @ epsilon / w.sum(), shift, atol=0.02)


def test_late_weights_fade_with_distance_and_are_clipped() -> None:
    epsilon = perturbations(1000, 2).reshape(-1, 2)
    total = [float(moved(epsilon, np.array([s, 0.0])).sum()) for s in (0.0, 0.5, 1.0, 2.0)]
    assert total == sorted(total, reverse=True)
    assert total[3] < 0.02 * total[0]
    assert moved(epsilon, np.array([1.0, 0.0])).max() <= 2 * np.exp(-1.0)


def test_late_weights_do_not_overflow() -> None:
    assert np.all(np.isfinite(moved(np.array([[50.0], [-50.0]]), np.array([40.0]))))


def test_late_weights_of_a_stretched_gaussian_follow_the_density_ratio() -> None:
    """Between two draws, and their mean the effective share, which is E[w]^2 / E[w^2]."""
    epsilon = noise.normal(0, "test/stretched", 0, 40_000).reshape(20_000, 2)
    shift, variances = np.array([0.2, -0.1]), np.array([0.8, 1.3])

    def density(x: Vector) -> Vector:
        log = -0.5 * ((x - shift) ** 2 / variances).sum(axis=1) + 0.5 * (x**2).sum(axis=1)
        return np.exp(log) / np.sqrt(variances.prod())

    ratio = density(epsilon)
    weights = stretched(epsilon, shift, variances)
    small = ratio < 1.5  # not clipped
    np.testing.assert_allclose(weights[small] / weights[small][0], ratio[small] / ratio[small][0], rtol=1e-9)
    np.testing.assert_allclose(weights[small].mean() / ratio[small].mean(), 1 / np.mean(ratio**2), rtol=0.02)


def test_the_effective_share_without_a_stretch_is_that_of_a_stretch_by_one() -> None:
    shift = np.array([0.3, -0.5])
    np.testing.assert_allclose(log_effective(shift, np.ones(2)), -(shift @ shift))


def test_late_weights_end_where_the_variance_has_doubled() -> None:
    epsilon, shift = np.array([[0.1, 0.2], [0.3, -0.4]]), np.zeros(2)
    assert np.all(stretched(epsilon, shift, np.array([1.0, 2.0 - 1e-9])) > 0)
    assert np.all(stretched(epsilon, shift, np.array([1.0, 2.0])) == 0)


def test_utilities_are_the_textbook_ones_times_their_number() -> None:
    """Of four: ln 3 - (ln 1, ln 2), and 0 from the third on."""
    raw = np.array([np.log(3), np.log(1.5), 0.0, 0.0])
    losses = np.array([0.3, 0.1, np.inf, 0.2])
    expected = (4 * raw / raw.sum() - 1)[[2, 0, 3, 1]]
    np.testing.assert_allclose(utilities(losses, losses), expected)


def test_utilities_of_ties_are_shared_and_of_one_loss_zero() -> None:
    np.testing.assert_allclose(utilities(np.ones(5), np.ones(5)), 0.0, atol=1e-15)
    assert utilities(np.array([3.0]), np.array([3.0])) == 0.0


def test_a_late_loss_has_the_utility_of_its_rank_in_the_whole_cohort() -> None:
    whole = np.array([4.0, 1.0, 3.0, 2.0, 5.0])
    np.testing.assert_array_equal(utilities(whole[2:4], whole), utilities(whole, whole)[2:4])


def test_infeasible_losses_lie_a_range_above_the_worst() -> None:
    np.testing.assert_array_equal(finite(np.array([1.0, np.inf, 3.0])), [1.0, 5.0, 3.0])
    np.testing.assert_array_equal(finite(np.array([2.0, np.inf])), [2.0, 3.0])
