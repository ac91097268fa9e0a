"""Guardrails that must be proved to hold: thresholds, limits, what proves nothing, and how often it errs."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from blackopt.errors import UsageError
from blackopt.metrics.combination import bounds, power
from blackopt.metrics.guardrails import excess, parse_bound
from blackopt.metrics.kinds import kind
from blackopt.metrics.noninferiority import Guardrail, GuardrailLook, Standing, judge
from blackopt.types import Estimate

ONE_SIDED = NormalDist().inv_cdf(0.95)
SLOW = Guardrail("slow", parse_bound(at_most=2.0))
KEPT = Guardrail("kept", parse_bound(at_least=2.0))
COMPLAINTS = Guardrail("complaints", parse_bound(at_most="1.1 * control"), percent=True)


def share(events: float, n: float = 10_000) -> Estimate:
    return kind("proportion").estimate({"n": n, "sum": events})


def at(value: float, se: float | None = 0.1, n: float = 1_000) -> GuardrailLook:
    return GuardrailLook(Estimate(value, se, n))


def both(mine: float, theirs: float, n: float = 10_000) -> GuardrailLook:
    return GuardrailLook(share(mine, n), share(theirs, n), events=(mine, theirs))


# -- thresholds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_it_holds_where_its_confidence_limit_is_inside_the_bound(side: float) -> None:
    rule = SLOW if side > 0 else KEPT
    edge = ONE_SIDED * 0.1
    assert judge(rule, [at(2.0 - side * (edge + 1e-9))], 1).standing is Standing.HOLDS
    assert judge(rule, [at(2.0 - side * (edge - 1e-9))], 1).standing is Standing.OPEN
    assert judge(rule, [at(2.0 + side * (edge - 1e-9))], 1).standing is Standing.OPEN
    assert judge(rule, [at(2.0 + side * (edge + 1e-9))], 1).standing is Standing.BROKEN


def test_at_an_early_look_more_is_asked_than_at_the_last() -> None:
    for k, critical in enumerate(bounds(3, 0.05), start=1):
        edge = critical * 0.1 / math.sqrt(k)
        found = judge(SLOW, [at(2.0 - edge - 1e-9)] * k, 3)
        assert (found.standing, found.critical) == (Standing.HOLDS, critical)
        assert judge(SLOW, [at(2.0 - edge + 1e-9)] * k, 3).standing is Standing.OPEN
        assert judge(SLOW, [at(2.0 + edge + 1e-9)] * k, 3).standing is Standing.BROKEN


def test_its_own_level_counts() -> None:
    looks = [at(2.0 - 1.8 * 0.1)]
    assert judge(SLOW, looks, 1).standing is Standing.HOLDS
    assert judge(replace(SLOW, alpha=0.025), looks, 1).standing is Standing.OPEN


def test_not_being_proved_worse_is_no_proof() -> None:
    equal = judge(COMPLAINTS, [both(200, 200)], 1)
    assert equal.standing is Standing.OPEN
    assert equal.z is not None
    assert 0.0 < equal.z < ONE_SIDED


def test_the_margin_is_a_multiple_of_the_control_in_the_same_window() -> None:
    # The control doubles in the second window, and the arm with it.
    looks = [both(2_000, 2_000), both(4_000, 4_000)]
    assert judge(COMPLAINTS, looks, 2).standing is Standing.HOLDS
    assert judge(replace(COMPLAINTS, bound=parse_bound(at_most=0.22)), looks, 2).standing is Standing.BROKEN


# -- the strictest bound that holds --------------------------------------------------------------------------


@given(
    mine=st.lists(st.integers(50, 9_000), min_size=1, max_size=3),
    control=st.integers(50, 9_000),
    number=st.floats(0.3, 3.0),
    at_most=st.booleans(),
    relative=st.booleans(),
)
@settings(deadline=None)
def test_the_limit_is_where_a_bound_ceases_to_hold(
    mine: list[int], control: int, number: float, at_most: bool, relative: bool
) -> None:
    written = f"{number} * control" if relative else number / 4.0
    bound = parse_bound(at_most=written) if at_most else parse_bound(at_least=written)
    rule = Guardrail("complaints", bound, percent=True)
    looks = [both(events, control) for events in mine]
    found = judge(rule, looks, 3)
    assume(found.limit is not None)
    assert found.limit is not None
    assert found.standing is not Standing.HOLDS or (found.limit <= bound.number) is at_most
    lenient = 1.0 if at_most else -1.0
    for shift, holds in ((1e-6, True), (-1e-6, False)):
        moved = replace(bound, number=found.limit + lenient * shift * abs(found.limit))
        standing = judge(replace(rule, bound=moved), looks, 3).standing
        assert (standing is Standing.HOLDS) is holds


def test_for_one_look_the_limit_of_a_multiple_is_fiellers() -> None:
    mine, theirs = share(260), share(240)
    found = judge(COMPLAINTS, [GuardrailLook(mine, theirs)], 1)
    assert mine.se is not None
    assert theirs.se is not None
    # (kC − T)² = z²·V·(1/n + k²/n), solved for the larger k; V/n is the mean of the squared errors.
    spread = ONE_SIDED**2 * (mine.se**2 + theirs.se**2) / 2.0
    a, b, c = theirs.value**2 - spread, -2.0 * mine.value * theirs.value, mine.value**2 - spread
    assert found.limit == pytest.approx((-b + math.sqrt(b * b - 4 * a * c)) / (2 * a), rel=1e-6)


def test_where_no_bound_would_hold_there_is_no_limit() -> None:
    # With three complaints in the control, no multiple of it is proved; and never a share above nothing.
    assert judge(COMPLAINTS, [both(3, 1, 50)], 1).limit is None
    early = judge(replace(SLOW, alpha=1e-4), [at(1.0)], 10)
    assert (early.critical, early.limit, early.standing) == (math.inf, None, Standing.OPEN)
    assert "no bound yet" in early.text


def test_what_is_said() -> None:
    assert judge(COMPLAINTS, [both(190, 200)], 1).text.startswith(
        "complaints 1.9 % against at most 2.2 % (1.1 * control); not proved yet, only at most 1.1"
    )
    assert judge(COMPLAINTS, [both(400, 200)], 1).text == (
        "complaints 4 % against at most 2.2 % (1.1 * control); proved to be beyond it"
    )
    rule = replace(COMPLAINTS, bound=parse_bound(at_most=0.03))
    assert judge(rule, [both(200, 200)], 1).text == (
        "complaints 2 % against at most 3 %; proved to be at most 2.24 %"
    )
    assert judge(KEPT, [at(2.5)], 1).text == "kept 2.5 against at least 2; proved to be at least 2.336"


# -- what is taken at its word, and what proves nothing ------------------------------------------------------


def test_an_operational_metric_is_as_its_last_look_says() -> None:
    rule = replace(SLOW, lasting=True)
    assert judge(rule, [at(3.0, None), at(2.0, None)], 3).standing is Standing.HOLDS
    beyond = judge(rule, [at(1.0, None), at(2.0 + 1e-9, None)], 3)
    assert beyond.standing is Standing.OPEN  # it may pass
    assert (beyond.z, beyond.critical, beyond.limit, beyond.needed) == (None, None, None, None)
    assert judge(rule, [at(1.99, 5.0)], 1).standing is Standing.HOLDS  # whatever its standard error


def test_a_value_without_a_standard_error_is_as_its_looks_are_on_average() -> None:
    rule = replace(SLOW, exact=True)
    assert judge(rule, [at(3.0, None), at(1.0, None)], 3).standing is Standing.HOLDS
    assert judge(rule, [at(3.1, None), at(1.0, None)], 3).standing is Standing.OPEN
    assert judge(rule, [at(3.1, 0.0), at(0.0, None)], 3).standing is Standing.HOLDS
    assert judge(rule, [at(1.99, 0.1)], 1).standing is Standing.OPEN  # it has one: it is tested


def test_any_other_metric_without_a_spread_proves_nothing() -> None:
    for se in (None, 0.0):
        found = judge(SLOW, [at(1.0), at(1.0, se)], 2)
        assert found.standing is Standing.OPEN
        assert "proves nothing" in found.text
    # Nobody complained, in either arm: that is no proof of a multiple, but of a share.
    nobody = [both(0, 0)]
    assert judge(COMPLAINTS, nobody, 1).standing is Standing.OPEN
    absolute = replace(COMPLAINTS, bound=parse_bound(at_most=0.01))
    assert judge(absolute, nobody, 1).standing is Standing.HOLDS


def test_too_few_units_or_events_prove_nothing() -> None:
    looks = [both(20, 200), both(20, 200)]
    assert judge(COMPLAINTS, looks, 2).standing is Standing.HOLDS
    assert judge(replace(COMPLAINTS, min_units=20_000), looks, 2).standing is Standing.HOLDS
    few = judge(replace(COMPLAINTS, min_units=20_001), looks, 2)
    assert (few.standing, few.z, few.needed) == (Standing.OPEN, None, None)
    assert "only 20000 of at least 20001 units" in few.text
    # Events that should have been there count as those that were: the arm has a tenth of the control's.
    assert judge(replace(COMPLAINTS, min_events=400), looks, 2).standing is Standing.HOLDS
    assert "only 400 of at least 401 events" in judge(replace(COMPLAINTS, min_events=401), looks, 2).text
    unknown = [replace(one, events=None) for one in looks]
    assert judge(replace(COMPLAINTS, min_events=401), unknown, 2).standing is Standing.HOLDS


def test_a_multiple_of_nothing_is_not_proved() -> None:
    for rule in (COMPLAINTS, replace(COMPLAINTS, lasting=True)):
        found = judge(rule, [both(20, 200), at(0.001)], 2)
        assert found.standing is Standing.OPEN
        assert found.text == "complaints in some look: no control to compare with (1.1 * control)"
    assert judge(SLOW, [at(1.0)], 1).standing is Standing.HOLDS  # a plain number needs none
    with pytest.raises(UsageError, match=r"control: expected its estimate, got none .*1.1 \* control"):
        excess(COMPLAINTS.bound, share(10), None)


def test_no_look_is_no_evidence() -> None:
    with pytest.raises(UsageError, match="looks: expected at least one"):
        judge(SLOW, [], 1)


# -- what would be enough ------------------------------------------------------------------------------------


def test_enough_looks_have_the_power_at_what_was_observed() -> None:
    found = judge(SLOW, [at(1.91), at(1.91)], 3)  # 0.9 standard errors inside, at each look
    assert found.standing is Standing.OPEN
    assert found.needed is not None
    assert power(found.needed, 0.05, 0.9)[0] >= 0.8 > power(found.needed - 1, 0.05, 0.9)[0]
    assert judge(SLOW, [at(2.01)], 3).needed is None


# -- how often it errs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["1.1 * control", 0.022])
def test_at_the_margin_exactly_it_is_proved_as_often_as_the_level_says(written: str | float) -> None:
    rng = np.random.default_rng(11)
    rule = replace(COMPLAINTS, bound=parse_bound(at_most=written))
    units, runs = 20_000, 1_500
    mine, theirs = rng.binomial(units, 0.022, (runs, 3)), rng.binomial(units, 0.020, (runs, 3))
    proved = 0
    for ours, control in zip(mine.tolist(), theirs.tolist(), strict=True):
        looks = [both(a, b, units) for a, b in zip(ours, control, strict=True)]
        proved += any(judge(rule, looks[:k], 3).standing is Standing.HOLDS for k in (1, 2, 3))
    assert proved / runs == pytest.approx(0.05, abs=0.02)  # 3.5 standard errors
