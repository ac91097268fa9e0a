"""Guardrails and maturity: bounds as they are written, verdicts at their thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackopt.errors import UsageError
from blackopt.metrics.guardrails import (
    Bound,
    Outcome,
    Side,
    beyond_since,
    judge,
    look,
    parse_bound,
    sharpest_at,
)
from blackopt.metrics.kinds import kind
from blackopt.metrics.maturity import Maturity
from blackopt.metrics.sequential import boundary
from blackopt.types import Estimate


@pytest.mark.parametrize(
    ("text", "number", "relative"),
    [
        ("1.05 * control", 1.05, True),
        (" 1.05*control ", 1.05, True),
        ("control * 2", 2.0, True),
        ("control", 1.0, True),
        ("1e-1 * control", 0.1, True),
        ("250", 250.0, False),
        ("-0.5", -0.5, False),
        (0.03, 0.03, False),
        (7, 7.0, False),
    ],
)
def test_bounds_are_numbers_or_multiples_of_the_control(
    text: str | float, number: float, relative: bool
) -> None:
    assert parse_bound(at_most=text) == Bound(Side.AT_MOST, number, relative)
    assert parse_bound(at_least=text) == Bound(Side.AT_LEAST, number, relative)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "control + 1",
        "1.05 * baseline",
        "1.05 control",
        "5 %",
        True,
        "nan",
        "inf",
        "-1 * control",
        "0 * control",
        "1e999",
        math.nan,
    ],
)
def test_other_bounds_are_refused_with_an_example(text: str | float) -> None:
    with pytest.raises(UsageError, match="at_most: expected a"):
        parse_bound(at_most=text)


def test_a_bound_has_one_side() -> None:
    with pytest.raises(UsageError, match="exactly one of at_most and at_least, got neither"):
        parse_bound()
    with pytest.raises(UsageError, match="got both"):
        parse_bound(at_most=1, at_least=0)


def proportion(n: int, events: int) -> Estimate:
    return kind("proportion").estimate({"n": n, "sum": events})


def test_f74_a_breach_is_proved_by_the_confidence_sequence_of_the_pooled_difference() -> None:
    bound = parse_bound(at_most="1.05 * control")
    control = proportion(20_000, 500)
    n = 5_000
    outcomes = []
    for events in range(100, 260):
        treatment = proportion(n, events)
        v_t, v_c = treatment.value * (1 - treatment.value), control.value * (1 - control.value)
        pooled = (n * v_t + 20_000 * v_c) / (n + 20_000)
        z = (treatment.value - 1.05 * control.value) / math.sqrt(pooled * (1 / n + 1.05**2 / 20_000))
        outcomes.append(judge(bound, treatment, control, expected_units=12_000, alpha=0.01).outcome)
        assert (outcomes[-1] is Outcome.BREACHED) == (z > boundary(n, alpha=0.01, sharpest=3_000))
    assert {Outcome.OK, Outcome.BREACHED} == set(outcomes)


def test_a_factor_widens_the_error_of_the_control() -> None:
    # V = 1 in both arms, n = 100: the standard error of T − 2C is √((1 + 2²)/100) = 0.2236.
    bound, control = parse_bound(at_most="2 * control"), Estimate(10.0, 0.1, 100)
    edge = 20.0 + math.sqrt(5 / 100) * boundary(100, alpha=0.05, sharpest=100)
    for beyond, outcome in ((-1e-9, Outcome.OK), (1e-9, Outcome.BREACHED)):
        treatment = Estimate(edge + beyond, 0.1, 100)
        assert judge(bound, treatment, control, expected_units=400).outcome is outcome


def test_at_least_is_the_mirror_of_at_most() -> None:
    bound = parse_bound(at_least="0.9 * control")
    control = Estimate(10.0, 0.1, 1_000)
    assert judge(bound, Estimate(8.9, 0.1, 1_000), control).outcome is Outcome.OK
    assert judge(bound, Estimate(8.0, 0.1, 1_000), control).outcome is Outcome.BREACHED
    assert judge(bound, Estimate(12.0, 0.1, 1_000), control).outcome is Outcome.OK


def test_a_plain_number_needs_no_control() -> None:
    bound = parse_bound(at_most=250)
    assert judge(bound, Estimate(300.0, 9.0, 1_000), None).outcome is Outcome.BREACHED
    assert judge(bound, Estimate(300.0, 19.0, 1_000), None).outcome is Outcome.OK
    assert judge(bound, Estimate(300.0, 15.0, 1_000), None, alpha=0.2).outcome is Outcome.BREACHED


def test_a_proportion_beside_a_plain_number_has_at_least_the_variance_of_that_number() -> None:
    # All ten of ten complained: its own variance is zero, and ten units are not certain of 40 %.
    bound = parse_bound(at_most=0.4)
    assert judge(bound, proportion(10, 10), None, percent=True).outcome is Outcome.OK
    assert judge(bound, proportion(1_000, 1_000), None, percent=True).outcome is Outcome.BREACHED


def test_a_value_without_standard_error_is_taken_at_its_word() -> None:
    bound = parse_bound(at_most=250)
    assert judge(bound, Estimate(250.0, None, 1), None).outcome is Outcome.OK
    assert judge(bound, Estimate(250.1, None, 1), None).outcome is Outcome.BREACHED


def test_a_value_that_names_no_units_is_tested_at_the_sharpest_size() -> None:
    bound = parse_bound(at_most=250)
    edge = 250.0 + 2.0 * boundary(1.0, alpha=0.05, sharpest=1.0)
    assert judge(bound, Estimate(edge - 1e-6, 2.0, 1), None).outcome is Outcome.OK
    assert judge(bound, Estimate(edge + 1e-6, 2.0, 1), None).outcome is Outcome.BREACHED


def test_too_few_units_or_no_control_decide_nothing() -> None:
    bound = parse_bound(at_most="1 * control")
    few = judge(bound, proportion(99, 99), proportion(1_000, 1), min_units=100)
    assert (few.outcome, few.text) == (Outcome.UNDECIDED, "99 of at least 100 units")
    assert judge(bound, proportion(100, 100), proportion(1_000, 1), min_units=100).outcome is Outcome.BREACHED
    alone = judge(bound, proportion(100, 100), None)
    assert (alone.outcome, alone.text) == (Outcome.UNDECIDED, "no control to compare with (1 * control)")
    assert judge(bound, Estimate(1.0, 0.0, 0), proportion(1_000, 1), min_units=0).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("bound", "mine", "theirs", "outcome"),
    [
        # Many events in the arm, none in the control: decided. Five: too few, though far beyond.
        (parse_bound(at_most="1 * control"), 60, 0, Outcome.BREACHED),
        (parse_bound(at_most="1 * control"), 9, 0, Outcome.UNDECIDED),
        # None in the arm where the control's rate gives 100: decided. Where it gives 9: too few.
        (parse_bound(at_least="0.9 * control"), 0, 1_000, Outcome.BREACHED),
        (parse_bound(at_least="0.9 * control"), 0, 90, Outcome.UNDECIDED),
    ],
)
def test_too_few_events_decide_nothing(bound: Bound, mine: int, theirs: int, outcome: Outcome) -> None:
    treatment, control = proportion(1_000, mine), proportion(10_000, theirs)
    assert judge(bound, treatment, control, min_events=10, events=(mine, theirs)).outcome is outcome


def test_without_a_control_the_bound_says_how_many_events_there_should_be() -> None:
    bound = parse_bound(at_least=0.05)
    none = judge(bound, proportion(1_000, 0), None, min_events=10, events=(0, None), percent=True)
    assert none.outcome is Outcome.BREACHED
    few = judge(bound, proportion(100, 0), None, min_events=10, events=(0, None), percent=True)
    assert (few.outcome, few.text) == (Outcome.UNDECIDED, "5 of at least 10 events")


def test_the_expected_size_moves_where_the_test_is_sharpest_and_not_much_else() -> None:
    assert sharpest_at(1, None) == 1_000
    assert sharpest_at(5_000, None) == 5_000
    assert sharpest_at(1, 400) == 100
    least = boundary(1_000, alpha=0.05, sharpest=1_000)
    for n in (100, 1_000, 10_000, 100_000):
        assert boundary(n, alpha=0.05, sharpest=1_000) < 4 / 3 * least
    with pytest.raises(UsageError, match="expected_units: expected"):
        sharpest_at(1, 0)


def test_one_look_at_an_operational_metric_is_taken_at_its_word() -> None:
    bound = parse_bound(at_most=0.01)
    assert look(bound, proportion(1_000, 10), None).outcome is Outcome.OK
    assert look(bound, proportion(1_000, 11), None).outcome is Outcome.BREACHED
    relative = parse_bound(at_most="2 * control")
    assert look(relative, Estimate(300.0, None, 1), None).outcome is Outcome.UNDECIDED
    assert look(relative, Estimate(300.0, None, 1), Estimate(140.0, None, 1)).outcome is Outcome.BREACHED


@pytest.mark.parametrize(
    ("looks", "since"),
    [
        ([], None),
        ([(1, False)], None),
        ([(1, True)], 1),
        ([(1, True), (2, True), (3, True)], 1),
        ([(1, True), (2, False), (3, True), (4, True)], 3),
        ([(1, True), (2, True), (3, False)], None),
    ],
)
def test_only_an_unbroken_run_to_the_last_reading_counts(
    looks: list[tuple[int, bool]], since: int | None
) -> None:
    assert beyond_since(looks) == since


@given(
    n=st.integers(20, 50_000),
    rate=st.floats(0.01, 0.5),
    worse=st.floats(0.0, 0.4),
    more=st.floats(0.0, 0.4),
)
def test_more_harm_never_undoes_a_breach(n: int, rate: float, worse: float, more: float) -> None:
    bound, control = parse_bound(at_most="1.05 * control"), Estimate(rate, 0.4 / math.sqrt(4 * n), 4 * n)
    found = [
        judge(bound, Estimate(rate + harm, 0.4 / math.sqrt(n), n), control).outcome
        for harm in (worse, worse + more)
    ]
    assert found != [Outcome.BREACHED, Outcome.OK]


@given(
    n=st.integers(500, 50_000),
    value=st.floats(0.5, 0.6),
    low=st.floats(0.001, 0.2),
    high=st.floats(0.001, 0.2),
)
def test_a_stricter_level_never_breaches_more(n: int, value: float, low: float, high: float) -> None:
    bound, treatment = parse_bound(at_most=0.5), Estimate(value, 0.5 / math.sqrt(n), n)
    strict, loose = (judge(bound, treatment, None, alpha=alpha).outcome for alpha in sorted([low, high]))
    assert not (strict is Outcome.BREACHED and loose is Outcome.OK)


def test_an_arm_without_events_is_not_certain() -> None:
    # Its own variance is zero; pooled with the control's, ten units prove nothing.
    bound = parse_bound(at_least="0.9 * control")
    assert judge(bound, proportion(10, 0), proportion(10_000, 2_000)).outcome is Outcome.OK
    assert judge(bound, proportion(500, 0), proportion(10_000, 2_000)).outcome is Outcome.BREACHED


def test_the_text_is_for_people() -> None:
    bound = parse_bound(at_most="1.05 * control")
    verdict = judge(bound, Estimate(0.031, 0.0001, 9_000), Estimate(0.0248, 0.0001, 9_000), percent=True)
    assert verdict.outcome is Outcome.BREACHED
    assert verdict.text == "3.1 % against at most 2.6 % (1.05 * control)"
    plain = judge(parse_bound(at_least=2_000), Estimate(1_999.5, 0.1, 9), None)
    assert plain.text == "1999.5 against at least 2000"
    big = judge(parse_bound(at_most=250), Estimate(1_234.4, 1.0, 9), None)
    assert big.text == "1234 against at most 250"


def test_small_arms_beside_a_large_control_raise_few_false_alarms() -> None:
    # Revenue with 3 % payers, 20,000 against 2,000, no difference: unpooled variances breach a one-sided
    # 2.5 % bound in 11 % of the runs on the side of harm; pooled ones must stay below the nominal level.
    rng = np.random.default_rng(3)
    mean = kind("mean")
    bound = parse_bound(at_least="1 * control")

    def arm(n: int) -> Estimate:
        paid = rng.lognormal(3.0, 1.5, int(rng.binomial(n, 0.03)))
        return mean.estimate({"n": n, "sum": float(paid.sum()), "sum_sq": float((paid * paid).sum())})

    pairs = [(arm(2_000), arm(20_000)) for _ in range(1_500)]
    found = [judge(bound, t, c, alpha=0.025, expected_units=8_000) for t, c in pairs]
    pooled = [verdict.outcome is Outcome.BREACHED for verdict in found]
    unpooled = [c.value - t.value > 1.96 * math.hypot(t.se or 0, c.se or 0) for t, c in pairs]
    assert sum(unpooled) / 1_500 > 0.08
    assert sum(pooled) / 1_500 < 0.025


def test_maturity_counts_the_window_and_the_lag() -> None:
    rule = Maturity(window_us=14, lag_us=2)
    assert rule.mature_at(100) == 116
    assert not rule.is_mature(115, 100)
    assert rule.is_mature(116, 100)
    with pytest.raises(UsageError, match="at least 0"):
        Maturity(window_us=-1, lag_us=0)
