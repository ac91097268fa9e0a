"""Promote, go on, or refuse: thresholds, directions, guardrails, sentences, and how often it errs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackopt.errors import UsageError
from blackopt.metrics.combination import bounds
from blackopt.metrics.effects import combine, interval
from blackopt.metrics.guardrails import parse_bound
from blackopt.metrics.promotion import (
    Decision,
    Guardrail,
    GuardrailLook,
    Look,
    Plan,
    Ruling,
    Standing,
    decide,
    unbiased,
)
from blackopt.types import Estimate

SE = 0.01
SLOW = Guardrail("slow", parse_bound(at_most=2.0))
FAST, UNSURE, BAD = (GuardrailLook(Estimate(value, 0.1, 1_000)) for value in (1.0, 1.95, 3.0))
ZS = st.lists(st.floats(-6.0, 6.0), min_size=1, max_size=4)


def seen(*zs: float, slow: GuardrailLook | None = None, se: float = SE) -> list[Look]:
    """Looks whose effects are so many standard errors."""
    return [Look(Estimate(z * se, se, 1_000), {} if slow is None else {"slow": slow}) for z in zs]


# -- the objective alone -------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [1, 2, 3, 5])
@pytest.mark.parametrize("alpha", [0.01, 0.025, 0.05])
@pytest.mark.parametrize("maximize", [True, False])
def test_it_is_promoted_just_beyond_the_bound_of_its_look(looks: int, alpha: float, maximize: bool) -> None:
    plan, sign = Plan(looks=looks, alpha=alpha, maximize=maximize), 1.0 if maximize else -1.0
    for k, bound in enumerate(bounds(looks, alpha), start=1):
        per_look = bound / math.sqrt(k)
        found = decide(plan, seen(*[sign * per_look * (1 + 1e-9)] * k))
        assert (found.outcome, found.looks, found.enough) == (Ruling.PROMOTE, k, None)
        assert found.bound == bound
        short = decide(plan, seen(*[sign * per_look * (1 - 1e-9)] * k))
        assert short.outcome is (Ruling.GO_ON if k < looks else Ruling.REFUSE)
        # Harm that is proved as surely ends the test at once; anything less does not.
        assert decide(plan, seen(*[-sign * per_look * (1 + 1e-9)] * k)).outcome is Ruling.REFUSE
        harmful = decide(plan, seen(*[-sign * per_look * (1 - 1e-9)] * k))
        assert harmful.outcome is (Ruling.GO_ON if k < looks else Ruling.REFUSE)


def test_one_look_is_a_test_at_a_fixed_horizon() -> None:
    plan = Plan(looks=1, alpha=0.025)
    assert decide(plan, seen(1.959965)).outcome is Ruling.PROMOTE
    assert decide(plan, seen(1.959963)).outcome is Ruling.REFUSE
    found = decide(plan, seen(2.5))
    assert found.interval == pytest.approx(found.naive, abs=1e-9)


@given(zs=ZS, se=st.floats(0.001, 10.0))
@settings(deadline=None)  # the first of its kind integrates
def test_minimising_is_the_mirror_of_maximising(zs: list[float], se: float) -> None:
    more = decide(Plan(looks=4), seen(*zs, se=se))
    less = decide(Plan(looks=4, maximize=False), seen(*[-z for z in zs], se=se))
    assert (less.outcome, less.z, less.enough is None) == (more.outcome, more.z, more.enough is None)
    assert less.effect.value == -more.effect.value
    assert less.interval == (-more.interval[1], -more.interval[0])


@given(zs=ZS, raised=st.lists(st.floats(0.0, 3.0), min_size=4, max_size=4))
@settings(deadline=None)  # the first of its kind integrates
def test_better_looks_never_have_a_worse_outcome(zs: list[float], raised: list[float]) -> None:
    order = [Ruling.REFUSE, Ruling.GO_ON, Ruling.PROMOTE]
    worse = decide(Plan(looks=4), seen(*zs))
    better = decide(Plan(looks=4), seen(*[z + up for z, up in zip(zs, raised, strict=False)]))
    assert order.index(better.outcome) >= order.index(worse.outcome)


@given(zs=ZS, seed=st.integers(0, 99))
@settings(deadline=None)  # the first of its kind integrates
def test_the_order_of_the_looks_does_not_matter(zs: list[float], seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(zs).tolist()
    assert decide(Plan(looks=4), seen(*shuffled)) == decide(Plan(looks=4), seen(*zs))


@given(zs=ZS)
@settings(deadline=None)  # the first of its kind integrates
def test_the_interval_excludes_zero_exactly_where_something_is_proved(zs: list[float]) -> None:
    found = decide(Plan(looks=4), seen(*zs))
    if abs(abs(found.z) - found.bound) > 1e-9:
        assert (found.interval[0] > 0.0) is (found.outcome is Ruling.PROMOTE)
        assert (found.interval[1] < 0.0) is (-found.z > found.bound)


def test_looks_of_unequal_size_are_weighted_as_was_planned() -> None:
    # Traffic falls to a hundredth in the second window: its z counts as much as the other's.
    looks = [Look(Estimate(0.04, 0.01, 1e4), {}), Look(Estimate(0.0, 0.1, 1e2), {})]
    found = decide(Plan(looks=2), looks)
    assert found.z == pytest.approx(4.0 / math.sqrt(2.0))
    pooled = combine([one.effect for one in looks])
    assert found.effect == pooled
    assert found.naive == interval(pooled, 0.95)
    assert found.interval[0] < found.naive[0] < found.naive[1] < found.interval[1]


# -- guardrails ----------------------------------------------------------------------------------------------


def test_everything_must_be_proved_at_the_same_look() -> None:
    plan = Plan(looks=3, guardrails=(SLOW,))
    assert decide(plan, seen(5.0, slow=FAST)).outcome is Ruling.PROMOTE
    early = decide(plan, seen(5.0, slow=UNSURE))
    assert (early.outcome, early.guardrails[0].standing) == (Ruling.GO_ON, Standing.OPEN)
    assert decide(plan, seen(5.0, 5.0, 5.0, slow=UNSURE)).outcome is Ruling.REFUSE
    assert decide(plan, seen(0.5, slow=FAST)).outcome is Ruling.GO_ON
    # It was proved after the first look, and is no longer when the guardrail is.
    later = [*seen(5.0, slow=UNSURE), *seen(-4.0, slow=FAST)]
    assert decide(plan, later).outcome is Ruling.GO_ON


def test_proved_harm_to_a_guardrail_ends_it_at_once() -> None:
    found = decide(Plan(looks=3, guardrails=(SLOW,)), seen(5.0, slow=BAD))
    assert (found.outcome, found.guardrails[0].standing) == (Ruling.REFUSE, Standing.BROKEN)
    assert found.reason.startswith("slow 3 against at most 2; proved to be beyond it. Observed +5.00 %")


def test_every_guardrail_must_hold() -> None:
    kept = Guardrail("kept", parse_bound(at_least=1.0))
    plan = Plan(looks=2, guardrails=(SLOW, kept))
    for value, outcome in ((2.0, Ruling.PROMOTE), (1.05, Ruling.GO_ON), (0.5, Ruling.REFUSE)):
        looks = [Look(Estimate(0.05, SE, 1), {"slow": FAST, "kept": GuardrailLook(Estimate(value, 0.1, 9))})]
        found = decide(plan, looks)
        assert found.outcome is outcome
        assert [one.metric for one in found.guardrails] == ["slow", "kept"]


def test_one_metric_may_have_several_bounds() -> None:
    lasting = replace(SLOW, bound=parse_bound(at_most=1.1), lasting=True)
    plan = Plan(looks=2, guardrails=(SLOW, lasting))
    assert decide(plan, seen(5.0, slow=FAST)).outcome is Ruling.PROMOTE
    slower = GuardrailLook(Estimate(1.2, 0.1, 1_000))
    beyond = decide(plan, seen(5.0, slow=slower))
    assert [one.standing for one in beyond.guardrails] == [Standing.HOLDS, Standing.OPEN]
    assert beyond.outcome is Ruling.GO_ON
    assert decide(plan, [*seen(5.0, slow=slower), *seen(5.0, slow=FAST)]).outcome is Ruling.PROMOTE


def test_a_look_without_a_guarded_metric_is_refused() -> None:
    looks = [*seen(1.0, slow=FAST), *seen(1.0)]
    with pytest.raises(UsageError, match=r"look 2: expected the guarded metric slow, got \[\]"):
        decide(Plan(guardrails=(SLOW,)), looks)


# -- what is said, and what would be enough ------------------------------------------------------------------


def test_a_refusal_says_what_was_seen_and_what_would_be_enough() -> None:
    weak = decide(Plan(looks=3), seen(1.0, 1.0, 1.0))
    assert weak.reason == (
        "not proved to be better: observed +1.00 % (95 % interval -0.15 % to +2.15 %)"
        " after 3 windows of at most 3"
    )
    assert weak.enough is not None
    assert weak.enough.text == (
        "to prove an effect of that size takes about 9 windows of this size,"
        " and about 22 if it is only +0.61 %"
    )
    assert (weak.enough.looks, weak.enough.cautious) == (9, 22)


@pytest.mark.parametrize(("maximize", "side"), [(True, "above"), (False, "below")])
def test_an_effect_in_the_wrong_direction_is_never_proved(maximize: bool, side: str) -> None:
    for zs in ([-0.5], [0.0]):
        found = decide(Plan(maximize=maximize), seen(*[z if maximize else -z for z in zs]))
        assert found.enough is not None
        assert (found.enough.looks, found.enough.cautious) == (None, None)
        assert found.enough.text == f"no effect can be proved: the estimate is not {side} zero"


def test_enough_is_enough_for_everything() -> None:
    plan = Plan(looks=3, guardrails=(SLOW,))
    guard = decide(plan, seen(2.0, 2.0, 2.0, slow=UNSURE))  # 0.5 standard errors inside, at each look
    assert guard.reason.startswith(
        "better, but not every guardrail is proved to hold: slow 1.9 against at most 2"
    )
    assert guard.enough is not None
    assert guard.enough.looks is not None
    assert guard.enough.looks == guard.guardrails[0].needed
    assert guard.enough.text == (
        f"to prove that slow holds takes about {guard.enough.looks} windows of this size"
    )
    both = decide(plan, seen(0.3, 0.3, 0.3, slow=UNSURE))
    assert both.enough is not None
    assert both.enough.looks is not None
    assert both.enough.looks > guard.enough.looks
    assert both.enough.text.count("windows of this size") == 2
    never = decide(plan, seen(0.3, 0.3, 0.3, slow=GuardrailLook(Estimate(2.01, 0.1, 10))))
    assert never.enough is not None
    assert never.enough.looks is None
    assert never.enough.text.endswith(
        "slow was not observed inside its bound: no number of windows proves that it holds"
    )


def test_a_promotion_says_so() -> None:
    alone = decide(Plan(), seen(4.0))
    assert alone.reason == (
        "proved to be better: observed +4.00 % (95 % interval +0.29 % to +7.71 %) after 1 window of at most 3"
    )
    guarded = decide(Plan(guardrails=(SLOW,)), seen(4.0, slow=FAST))
    assert guarded.reason == f"{alone.reason}; every guardrail is proved to hold"
    assert decide(Plan(), seen(-4.0)).reason.startswith("proved to be worse: observed -4.00 %")


def test_effects_that_are_no_lifts_are_written_as_they_are() -> None:
    found = decide(Plan(looks=1, relative=False, alpha=0.05), seen(3.0))
    assert "observed +0.03 (90 % interval +0.0135515 to +0.0464485)" in found.reason


def test_where_nothing_can_be_proved_yet_the_interval_is_everything() -> None:
    found = decide(Plan(looks=10, alpha=1e-4), seen(6.0))
    assert found.interval == (-math.inf, math.inf)
    assert "minus infinity to infinity" in found.reason
    assert found.outcome is Ruling.GO_ON


# -- the estimate after an early stop ------------------------------------------------------------------------


@given(zs=st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=2))
@settings(deadline=None)  # the first of its kind integrates
def test_the_corrected_estimate_mirrors_too(zs: list[float]) -> None:
    plan = Plan(looks=3)
    mirrored = unbiased(replace(plan, maximize=False), seen(*[-z for z in zs]))
    assert mirrored == pytest.approx(-unbiased(plan, seen(*zs)), abs=1e-9)


def test_a_look_that_a_guardrail_kept_open_could_not_have_ended_it() -> None:
    plan = Plan(looks=2, guardrails=(SLOW,))
    stopped = unbiased(plan, seen(2.9, 2.0, slow=FAST))
    assert stopped < 0.0245  # below the plain mean
    held = unbiased(plan, [*seen(3.0, slow=UNSURE), *seen(2.0, slow=FAST)])
    assert held == pytest.approx(0.025, abs=1e-6)


# -- misuse --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [decide, unbiased])
def test_impossible_tests_are_refused(ask: object) -> None:
    assert callable(ask)
    for looks in ([], seen(1.0, 1.0, 1.0, 1.0)):
        with pytest.raises(UsageError, match=f"looks: expected 1 to 3, got {len(looks)}"):
            ask(Plan(), looks)
    with pytest.raises(UsageError, match="effect: expected a finite value with a standard error above 0"):
        ask(Plan(), [Look(Estimate(0.1, None, 5), {})])
    with pytest.raises(UsageError, match="alpha: expected"):
        ask(Plan(alpha=0.5), seen(1.0, 1.0))


# -- how often it errs ---------------------------------------------------------------------------------------


def end(plan: Plan, looks: list[Look]) -> Decision:
    for k in range(1, len(looks) + 1):
        found = decide(plan, looks[:k])
        if found.outcome is not Ruling.GO_ON:
            return found
    raise AssertionError("a test that has had all its looks goes on")


@pytest.mark.parametrize("looks", [1, 3, 5])
def test_noise_is_promoted_as_often_as_the_level_says(looks: int) -> None:
    zs = np.random.default_rng(looks).standard_normal((3_000, looks))
    errors = np.random.default_rng(9).uniform(0.001, 0.1, looks).tolist()
    ends = [
        end(Plan(looks=looks), [Look(Estimate(z * se, se, 1), {}) for z, se in zip(row, errors, strict=True)])
        for row in zs.tolist()
    ]
    promoted = sum(one.outcome is Ruling.PROMOTE for one in ends) / len(ends)
    assert promoted == pytest.approx(0.025, abs=0.01)  # 3.5 standard errors
    covered = sum(one.interval[0] <= 0.0 <= one.interval[1] for one in ends) / len(ends)
    assert covered >= 0.95 - 0.013
