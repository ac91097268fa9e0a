"""A rehearsal is the real loop against a known truth: the same again by its seed, and nothing outside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from blackopt.campaign import from_mapping
from blackopt.errors import ConfigurationError
from blackopt.ledger import Ledger
from blackopt.ledger.rows import PromotionState, TrialState
from blackopt.rehearsal.landscape import WEEK_US, Landscape
from blackopt.rehearsal.run import require_production
from blackopt.rehearsal.summary import rehearse_often, summarise
from blackopt.rehearsal.world import DAY_US
from blackopt.runner.assembly import Parts
from blackopt.runner.plan import Baseline


def test_with_much_traffic_the_optimum_is_found_and_proven(make_spec: Any, assume: Any, run: Any) -> None:
    spec = make_spec(budget={"trials": 160})
    found = run(spec, assume(spec, units=1e8))
    assert found.ended == "the budget was spent"
    assert found.proven
    assert found.true > 0.5 * found.possible == pytest.approx(0.05)
    assert found.interval[0] < found.true < found.interval[1]
    assert found.told == 162


def test_a_proven_recommendation_is_promoted_and_what_is_no_better_is_not(
    make_spec: Any, assume: Any, run: Any
) -> None:
    spec = make_spec(promotion={"looks": 2, "ramp": ["5%", "50%"], "holdback": "5%", "holdback_for": "3d"})
    found = run(spec, assume(spec, faults=0.05), promote=True)
    assert found.promotion is PromotionState.DONE, found.ended
    assert found.promoted
    assert found.true > 0.0
    nothing = run(spec, assume(spec, improve=0.0), promote=True)
    assert nothing.promotion is PromotionState.REFUSED
    assert not nothing.promoted
    both = summarise([found, nothing], promote=True)
    assert both.promoted == 1
    assert "1 promoted it" in str(both)


def test_where_nothing_can_be_won_hardly_anything_is_proven(make_spec: Any, assume: Any) -> None:
    spec = make_spec(budget={"trials": 16})
    found = rehearse_often(spec, assume(spec, improve=0.0), range(20), until_us=200 * DAY_US)
    assert found.proven <= 3  # of 20 at 2.5 %: more happens once in five thousand
    assert (found.true, found.possible) == (0.0, 0.0)
    assert "nothing to find" in str(found)


def test_the_same_seed_gives_the_same_and_another_does_not(make_spec: Any, assume: Any, run: Any) -> None:
    spec = make_spec()
    one, again, other = (run(spec, assume(spec, faults=0.05), seed=seed) for seed in (4, 4, 5))
    assert one == again
    assert one.points != other.points
    assert one.faults != other.faults


def test_the_real_campaign_is_never_touched(make_spec: Any, assume: Any, run: Any, tmp_path: Any) -> None:
    run(make_spec(), assume(make_spec()))
    assert list(tmp_path.iterdir()) == []


def test_whatever_fails_every_trial_is_told_once(make_spec: Any, assume: Any, run: Any) -> None:
    spec = make_spec(budget={"trials": 32})
    found = run(spec, assume(spec, faults=0.25))
    assert {str(fault) for _, fault in found.faults} == {
        "an order failed",
        "an order was not answered",
        "a poll failed",
        "readings were late",
        "readings were restated",
    }
    with Ledger.open(run.folders[0] / "hill.db", read_only=True) as ledger:
        ledger.verify()
        assert {trial.state for trial in ledger.trials()} == {TrialState.TOLD}
        assert len(ledger.tells()) == len(ledger.trials()) == 34


@pytest.mark.parametrize("use", ["cma-es", "snes", "random"])
def test_any_optimizer_can_be_rehearsed(use: str, make_spec: Any, assume: Any, run: Any) -> None:
    document = {**make_spec().document, "optimizer": {"use": use, "seed": 3}}
    spec = from_mapping(document, base=make_spec().base)
    found = run(spec, assume(spec))
    assert found.ended == "the budget was spent"


def test_weeks_add_up_to_the_whole(make_spec: Any, assume: Any, run: Any) -> None:
    spec = make_spec(budget={"trials": 72, "max_in_flight": 8})
    found = run(spec, assume(spec))
    assert len(found.weeks) > 3
    assert sum(week.told for week in found.weeks) == 74
    assert sum(week.windows for week in found.weeks) == 11
    # 80 % of the traffic; arms get 80 % of that in nine windows, 50 % in the two confirmations.
    assert sum(w.exposed for w in found.weeks) == pytest.approx(1e6 * 0.8 * (9 * 0.8 + 2 * 0.5), rel=1e-3)
    for week in found.weeks:
        assert 0 <= week.worse <= week.exposed
        assert (week.lost > 0) == (week.worse > 0)


def test_it_ends_when_its_time_is_up(make_spec: Any, assume: Any, run: Any) -> None:
    spec = make_spec()
    found = run(spec, assume(spec), days=5)
    assert (found.ended, found.days, len(found.weeks)) == ("its time was up", 5.0, 1)
    assert not found.proven


def test_harm_is_stopped_by_guardrails_and_pauses_the_campaign(make_spec: Any, assume: Any, run: Any) -> None:
    spec = make_spec(budget={"trials": 400, "breaches": 2})
    assumed = replace(assume(spec, units=1e8), harms={"refund": 20.0})
    found = run(spec, assumed)
    assert found.ended.startswith("paused: guardrails withdrew the last 2")
    assert sum(week.stopped for week in found.weeks) >= 2
    assert not found.proven


def test_a_metric_that_is_minimized_and_absolute_effects(make_spec: Any, assume: Any, run: Any) -> None:
    objective = {"minimize": "visit", "relative_to": "control", "effect": "absolute"}
    spec = make_spec(budget={"trials": 160})
    spec = from_mapping({**spec.document, "objective": objective}, base=spec.base)
    # A difference is told in the metric's units, so a level that drifts would scale it.
    found = run(spec, assume(spec, units=1e8, drift=0.0))
    assert found.proven
    assert found.true > 0.03
    assert found.interval[0] < found.true < found.interval[1]


def test_a_surrogate_leads_as_its_slope_says(make_spec: Any, assume: Any, run: Any) -> None:
    click = {"kind": "proportion", "query": "unused.sql", "window": "1h"}
    surrogate = {"metric": "click", "slope": 0.5, "error": "0.1%"}
    spec = make_spec(
        measure={"metrics": {"click": click}}, objective={"surrogate": surrogate}, budget={"trials": 120}
    )
    baselines = {"visit": Baseline(0.2), "refund": Baseline(0.05), "click": Baseline(0.3)}
    found = run(spec, assume(spec, units=1e8, baselines=baselines))
    assert found.true > 0.03


def test_a_campaign_without_production_is_refused() -> None:
    document = {
        "version": 1,
        "name": "tasting",
        "policy": {"use": "parameters", "space": {"sugar": {"float": [0, 10]}}},
        "optimizer": {"use": "random", "seed": 3},
        "objective": {"maximize": "score"},
        "budget": {"trials": 4},
    }
    with pytest.raises(ConfigurationError, match="no production"):
        require_production(from_mapping(document))


def test_every_metric_that_decides_needs_a_level(make_spec: Any, assume: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        assume(make_spec(), baselines={"visit": Baseline(0.2)})
    assert "--baseline refund=RATE" in refused.value.next_step
    with pytest.raises(ConfigurationError, match="crossed by what production serves"):
        assume(make_spec(guardrails=[{"metric": "refund", "at_most": 0.01}]))


def test_several_are_counted(make_spec: Any, assume: Any, run: Any) -> None:
    one = run(make_spec(), assume(make_spec()), days=3)
    found = summarise([replace(one, proven=True, true=t, possible=0.03) for t in (0.01, 0.02, -0.01)])
    assert (found.proven, found.wrongly, found.true, found.least, found.most) == (3, 1, 0.01, -0.01, 0.02)
    assert "in 3 of 3" in str(found)
    assert "+1.00 % of +3.00 %" in str(found)


def test_ledgers_are_kept_where_they_are_wanted(make_spec: Any, assume: Any, tmp_path: Any) -> None:
    rehearse_often(make_spec(), assume(make_spec()), [7], until_us=3 * DAY_US, keep=tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["seed-7"]
    assert (tmp_path / "kept" / "seed-7" / "hill.db").is_file()


@pytest.mark.parametrize("seed", range(5))
def test_the_truth_is_zero_at_the_start_and_most_at_the_optimum(seed: int, make_spec: Any) -> None:
    with Parts(make_spec()) as parts:
        truth = Landscape(
            parts.policy, improve=0.03, harms={"refund": 0.6}, wander=0.5, seed=seed, start_us=0
        )
        points = np.random.default_rng(seed).random((200, 2))
    assert truth.lift(truth.start, 0) == pytest.approx(0.0, abs=1e-12)
    assert truth.lift(truth.optimum, 0) == pytest.approx(0.03)
    lifts = [truth.lift(point, 0) for point in points]
    assert -0.03 < min(lifts) < max(lifts) <= 0.03
    assert truth.harm("refund", truth.start) == truth.harm("visit", points[0]) == 0.0
    assert all(0.0 <= truth.harm("refund", point) <= 0.6 + 1e-12 for point in points)
    # Two weeks later the optimum is the other one, and what production has is worth something else.
    assert truth.lift(truth.at(2 * WEEK_US), 2 * WEEK_US) == pytest.approx(0.03)
    assert truth.at(9 * WEEK_US).tolist() == truth.at(2 * WEEK_US).tolist() != truth.optimum.tolist()
    assert truth.effect(truth.start, 2 * WEEK_US) == 0.0


def test_a_space_of_one_point_has_nothing_to_find(make_spec: Any) -> None:
    spec = make_spec()
    space = {"x": {"int": [3, 4], "start": 3}}
    spec = from_mapping({**spec.document, "policy": {"use": "parameters", "space": space}}, base=spec.base)
    with Parts(spec) as parts:
        policy = parts.policy
        policy.parse = lambda artifact: policy.start()  # type: ignore[method-assign]
        with pytest.raises(ConfigurationError, match="nothing to find"):
            Landscape(policy, improve=0.1, harms={}, wander=0.0, seed=1, start_us=0)


def test_the_mean_of_a_window_is_as_sure_as_its_shared_control(make_spec: Any, assume: Any, run: Any) -> None:
    spec = make_spec(budget={"trials": 400, "max_in_flight": 400})
    found = run(spec, assume(spec, improve=0.0))
    z = [m.lift / m.se for m in found.measured]
    assert len(z) == 52
    assert float(np.std(z)) == pytest.approx(1.0, abs=0.3)  # arms as if they were alone: 1.9
