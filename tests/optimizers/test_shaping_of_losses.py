"""Shaping: from losses to weights that know no scale."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blackopt.optimizers.shaping import centred_ranks, finite, late_weight, trust, utilities

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


def test_a_result_counts_fully_until_the_centre_is_a_quarter_of_a_perturbation_away() -> None:
    """sqrt(16) / 4 = 1 standard deviation; from there on in inverse proportion."""
    assert [late_weight(d, 16) for d in (0.0, 1.0 - 1e-9, 1.0)] == [1.0, 1.0, 1.0]
    assert late_weight(1.0 + 1e-9, 16) < 1.0
    np.testing.assert_allclose([late_weight(d, 16) for d in (2.0, 4.0, 1e6)], [0.5, 0.25, 1e-6], rtol=1e-12)
    np.testing.assert_allclose(late_weight(10.0, 400), 0.5)  # as of the length of a perturbation


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
