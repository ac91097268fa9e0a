"""A forecast agrees with what the real loop then does, and says where a campaign cannot learn."""

from __future__ import annotations

import math
from typing import Any

import pytest

from blackopt.campaign import CampaignSpec, from_mapping
from blackopt.errors import ConfigurationError
from blackopt.metrics import combination, power
from blackopt.runner.calendar import Span, calendar
from blackopt.runner.plan import LEAST_SIGNAL, Baseline, Plan, Search, plan

DAY = 86_400_000_000
HOUR = DAY // 24
RATE = {"success": Baseline(0.2)}


@pytest.mark.parametrize(
    ("budget", "arms", "window"),
    [
        ({"trials": 12, "max_in_flight": 8, "confirm": 1}, 4, 24),
        ({"trials": 14, "max_in_flight": 4, "confirm": 2}, 4, 24),
        ({"trials": 10, "max_in_flight": 5, "confirm": 0}, 4, 24),
        ({"trials": 24, "max_in_flight": 16, "confirm": 3}, 4, 36),
        ({"trials": 7, "max_in_flight": 7, "confirm": 1}, 4, 48),
        ({"trials": 6, "max_in_flight": 2, "confirm": 2}, 2, 24),
    ],
)
def test_the_calendar_is_that_of_the_real_loop(
    budget: dict[str, int], arms: int, window: int, make_world: Any
) -> None:
    world = make_world(budget=budget, traffic={"arms": arms}, schedule={"window": f"{window}h", "poll": "1h"})
    world.finish()
    with world.ledger() as ledger:
        took = max(row.at_us for row in ledger.tells()) - ledger.windows()[0].start_us
    span = Span(window * HOUR, 49 * HOUR)  # a metric of two days and an hour of lag
    forecast = calendar(span, span, arms=arms, group=2, **budget)
    assert forecast == took


def test_a_surrogate_is_waited_for_in_the_search_alone(make_world: Any) -> None:
    metrics = {
        "success": {"kind": "proportion", "query": "unused.sql", "window": "2d", "lag": "1h"},
        "fast": {"kind": "proportion", "query": "unused.sql", "window": "6h"},
    }
    world = make_world(
        measure={"metrics": metrics},
        objective={"surrogate": {"metric": "fast", "slope": 1.0, "error": "1%"}},
        budget={"trials": 8, "max_in_flight": 4, "confirm": 1},
        schedule={"poll": "1h", "whole_weeks": True},
    )
    world.production.metrics["fast"] = lambda rate: rate
    world.finish()
    with world.ledger() as ledger:
        took = max(row.at_us for row in ledger.tells()) - ledger.windows()[0].start_us
    search, confirming = Span(DAY, 6 * HOUR), Span(7 * DAY, 49 * HOUR)
    assert took == calendar(search, confirming, trials=8, arms=4, max_in_flight=4, confirm=1, group=2)


@pytest.mark.parametrize("effect", ["relative", "absolute"])
def test_a_search_is_as_noisy_as_the_surrogate_it_is_told_from(make_world: Any, effect: str) -> None:
    metrics = {
        "success": {"kind": "proportion", "query": "unused.sql", "window": "2d", "lag": "1h"},
        "fast": {"kind": "proportion", "query": "unused.sql", "window": "6h"},
    }
    error = 0.03 if effect == "relative" else 0.006  # of a rate of 20 %: the same
    slope = 0.5 if effect == "relative" else 0.25  # of a rate of 40 %: the same
    objective = {"effect": effect, "surrogate": {"metric": "fast", "slope": slope, "error": error}}
    world = make_world(measure={"metrics": metrics}, objective=objective)
    both = {"success": Baseline(0.2), "fast": Baseline(0.4)}
    found = forecast(world, baselines=both, search=Search(4, 2, spread=0.02)).own
    fast = found.se * power.proportion_cv(0.4) / power.proportion_cv(0.2)
    assert found.told == pytest.approx(math.hypot(0.5 * fast, 0.03))
    assert found.signal == pytest.approx(power.signal_to_noise(0.02, found.told, 12))
    without = forecast(world, search=Search(4, 2))
    assert without.own.told == without.own.se
    assert any("told from fast" in warning for warning in without.warnings)


def test_windows_that_overlap_take_less() -> None:
    rest = {"trials": 40, "arms": 4, "confirm": 0}
    week = Span(DAY, 7 * DAY)
    apart = calendar(week, week, max_in_flight=4, **rest)
    together = calendar(week, week, max_in_flight=32, **rest)
    assert apart == 10 * 8 * DAY
    assert together == (10 + 7) * DAY


def forecast(world: Any, units: float = 100_000.0, **options: Any) -> Plan:
    spec: CampaignSpec = world.spec
    options = {"search": Search(4, 2), **options}
    return plan(spec, options.pop("baselines", RATE), units, **options)


def test_units_are_cut_as_the_splitter_cuts(world: Any) -> None:
    found = forecast(world)
    [precision] = found.metrics
    assert precision.control_units == pytest.approx(16_000)
    assert precision.arm_units == pytest.approx(16_000)
    assert precision.se == power.relative_se(2.0, 16_000, 16_000) == found.own.se
    assert found.windows == 3
    assert found.control == 0.2
    assert found.best_control == pytest.approx(1 / 3)


def test_the_table_compares_arms_and_windows(world: Any) -> None:
    table = forecast(world).table
    assert [(c.arms, c.window // DAY) for c in table] == [(a, w) for w in (1, 2, 7) for a in (4, 8, 16, 32)]
    by = {(c.arms, c.window // DAY): c for c in table}
    assert by[4, 1] == forecast(world).own
    assert by[4, 2].arm_units == pytest.approx(2 * by[4, 1].arm_units)
    assert by[8, 1].arm_units == pytest.approx(by[4, 1].arm_units / 2)
    assert by[4, 7].se == pytest.approx(by[4, 1].se / math.sqrt(7))
    assert by[4, 7].takes > by[4, 1].takes > by[8, 1].takes


def test_windows_needed_are_updates_times_population_over_arms(world: Any) -> None:
    own = forecast(world, improve=0.05, search=Search(4, 2, spread=0.02)).own
    updates = 0.05 / power.gain(0.02, own.se)
    assert own.windows_needed == math.ceil(updates)
    assert own.generation_signal is not None
    assert own.signal == pytest.approx(own.generation_signal * math.sqrt(3))


def test_the_confirmation_is_half_control(make_world: Any) -> None:
    world = make_world(budget={"confirm": 4})
    own = forecast(world, units=10_000.0, improve=0.05).own
    se = power.relative_se(2.0, 4_000, 4_000) / 2
    assert own.confirm_power == power.power_of(0.05, se)
    assert forecast(world).own.confirm_power is None


def test_without_a_control_nothing_is_compared_with_it(make_world: Any) -> None:
    world = make_world(objective={"maximize": "success"}, traffic={"control": "0%"})
    del world.document["objective"]["relative_to"]
    found = forecast(world)
    assert found.own.se == power.relative_se(2.0, 20_000, None)
    assert found.metrics[0].control_units == 0.0


def test_a_campaign_cannot_learn_exactly_below_the_documented_signal(world: Any) -> None:
    se = forecast(world).own.se
    share = LEAST_SIGNAL / math.sqrt(12)  # rho
    spread = se * share / math.sqrt(1 - share**2)
    assert not forecast(world, search=Search(4, 2, spread=spread * 1.001)).hopeless
    assert "1.645" in forecast(world, search=Search(4, 2, spread=spread * 0.999)).hopeless
    assert not forecast(world).hopeless, "nothing is known, nothing is said"


def test_warnings_name_what_is_short(make_world: Any) -> None:
    found = forecast(make_world(budget={"confirm": 0}), improve=0.01, search=Search(4, 2, spread=0.001))
    assert any("windows, and the budget has 3" in warning for warning in found.warnings)
    assert any("set budget.confirm" in warning for warning in found.warnings)
    found = forecast(make_world(), units=1_000.0, improve=0.01)
    assert any("raise budget.confirm" in warning for warning in found.warnings)
    assert any("--spread" in warning for warning in found.warnings)
    assert forecast(make_world()).warnings == ()


@pytest.mark.parametrize(
    ("baselines", "says"),
    [
        ({}, "no baseline"),
        ({**RATE, "sucess": Baseline(0.1)}, "no metric sucess"),
        ({"success": Baseline(1.0)}, "not between 0 and 1"),
        ({"success": Baseline(0.2, 0.4)}, "its rate says all"),
        ({**RATE, "revenue": Baseline(12.0)}, "does not say how much it varies"),
        ({**RATE, "revenue": Baseline(0.0, 3.0)}, "is 0 today"),
    ],
)
def test_impossible_baselines_are_refused(baselines: dict[str, Baseline], says: str, make_world: Any) -> None:
    revenue = {"kind": "mean", "query": "unused.sql", "window": "1d"}
    world = make_world(measure={"metrics": {"revenue": revenue}})
    with pytest.raises(ConfigurationError, match=says):
        forecast(world, baselines=baselines)


def test_a_mean_varies_as_its_deviation_says(make_world: Any) -> None:
    revenue = {"kind": "mean", "query": "unused.sql", "window": "1d"}
    world = make_world(measure={"metrics": {"revenue": revenue}})
    found = forecast(world, baselines={**RATE, "revenue": Baseline(-12.0, 36.0)})
    assert found.metrics[1].se == power.relative_se(3.0, 16_000, 16_000)


def test_a_campaign_without_traffic_is_refused() -> None:
    spec = from_mapping(
        {
            "version": 1,
            "name": "tasting",
            "policy": {"use": "parameters", "space": {"sugar": {"float": [0, 10]}}},
            "optimizer": {"use": "random", "seed": 3},
            "objective": {"maximize": "score"},
            "budget": {"trials": 4},
        }
    )
    with pytest.raises(ConfigurationError, match="no traffic"):
        plan(spec, {}, 1.0, search=Search(4))


def test_a_promotion_costs_looks_ramp_and_holdback(make_world: Any) -> None:
    rules = {"looks": 3, "window": "2d", "step": "1d", "ramp": ["5%", "50%"], "holdback_for": "14d"}
    found = forecast(make_world(promotion=rules), units=10_000.0, improve=0.05).promotion
    assert found is not None
    assert found.se == power.relative_se(2.0, 8_000, 8_000)
    # The last look is told a metric of two days and an hour of lag after it, and a poll of twelve hours.
    assert found.tested == 3 * 2 * DAY + 49 * HOUR + 12 * HOUR
    assert (found.ramp, found.holdback) == (2 * DAY, 14 * DAY)
    assert (found.power, found.expected_looks) == combination.power(3, 0.025, 0.05 / found.se)
    assert found.exposed == 3 * 8_000
    assert forecast(make_world(promotion=rules)).promotion.power is None  # type: ignore[union-attr]


def test_a_fixed_horizon_has_the_power_of_one_test(make_world: Any) -> None:
    found = forecast(make_world(promotion={"looks": 1}), units=100_000.0, improve=0.05)
    assert found.promotion is not None
    assert found.promotion.power == pytest.approx(power.power_of(0.05, found.promotion.se), abs=1e-4)


def test_a_promotion_that_proves_little_is_warned_of(make_world: Any) -> None:
    found = forecast(make_world(), units=1_000.0, improve=0.01)
    assert any("raise promotion.window" in warning for warning in found.warnings)
    quiet = make_world(schedule={"quiet": {"days": ["sat", "sun"]}})
    assert any("schedule.quiet" in warning for warning in forecast(quiet).warnings)


def test_a_covariate_leaves_what_it_does_not_explain(make_world: Any) -> None:
    spent = {"kind": "mean", "query": "unused.sql", "window": "1d", "cuped": True}
    world = make_world(measure={"metrics": {"spent": spent}})
    found = forecast(world, baselines={**RATE, "spent": Baseline(12.0, 36.0, 0.6)})
    assert found.metrics[1].se == pytest.approx(0.8 * power.relative_se(3.0, 16_000, 16_000))
    plain = make_world(measure={"metrics": {"spent": {**spent, "cuped": False}}})
    with pytest.raises(ConfigurationError, match="covariate explains nothing"):
        forecast(plain, baselines={**RATE, "spent": Baseline(12.0, 36.0, 0.6)})
