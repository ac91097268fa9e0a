"""What benchmarks/online.py reckons with."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.online import FORMS, SYNCHRONOUS, Curve, Form, Job, Setting, simulate, tensors, window
from online_app import world as shop  # found where the benchmark found it

SHORT = Setting(4, 0.2, 16)


def test_a_curve_holds_its_value_until_the_next_one() -> None:
    curve = Curve([0, 16, 20], [0.3, 0.4, 0.5])
    assert [curve.at(hour) for hour in (0, 15, 16, 19, 20, 99)] == [0.3, 0.3, 0.4, 0.4, 0.5, 0.5]
    assert (curve.reached(0.3), curve.reached(0.4), curve.reached(0.5)) == (0, 16, 20)
    assert curve.reached(0.51) == math.inf


def test_who_waits_is_told_once_a_round_and_who_does_not_once_a_window() -> None:
    """A window of 4 hours is known 12 hours after its end."""
    assert simulate(Job(SYNCHRONOUS, SHORT, 1, 36)).hours == [0, 16, 32]
    for form in FORMS[1:]:
        assert simulate(Job(form, SHORT, 1, 24)).hours == [0, 16, 20, 24]


def test_discarded_windows_leave_the_centre_where_it_is() -> None:
    """Those of hours 4, 8 and 12 were asked before the first was known, at hour 16; the next was not."""
    values = simulate(Job(Form("", "discard"), SHORT, 1, 32)).values
    assert values[0] != values[1] == values[2] == values[3] == values[4] != values[5]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_all_begin_with_the_same_and_the_same_seed_learns_the_same(form: Form) -> None:
    first, again = (simulate(Job(form, SHORT, 2, 20)) for _ in range(2))
    assert first == again
    assert first.values[0] == shop.value(shop.incumbent())


def test_arms_like_the_control_have_no_effect_and_better_ones_a_good_one() -> None:
    draw = np.random.default_rng(1)
    still = np.concatenate([tensor.ravel() for tensor in shop.incumbent().values()]).astype(np.float64)
    others = still + 0.5 * draw.normal(size=(4, still.size))
    effects = window(np.stack([*others, still, still]), 3, range(24))
    truth = np.array([shop.value(tensors(other)) - shop.value(tensors(still)) for other in [*others, still]])
    # 360 visitors an arm and 200 in the control, for a day: a standard error of 0.009.
    np.testing.assert_allclose(effects, truth, atol=0.03)
