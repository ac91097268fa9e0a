"""The life of trials in production, fault by fault."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from blackopt.errors import Fenced, GuardrailStop
from blackopt.ledger.rows import Disposition, Mode
from blackopt.runner.assembly import Parts
from blackopt.runner.results import Evidence, results
from blackopt.testing.clock import DAY_US
from blackopt.types import CONTROL, Candidate, Reading, Role, Status

UNSUBSCRIBE = {"kind": "proportion", "query": "unused.sql", "window": "1d"}


def statuses(world: Any) -> list[Status]:
    with world.ledger() as ledger:
        return [row.status for row in ledger.tells()]


def outcomes(world: Any) -> list[Any]:
    with world.ledger() as ledger:
        return list(ledger.tells())


def test_a_campaign_runs_to_its_end_and_measures_its_recommendation(world: Any) -> None:
    world.finish()
    told = outcomes(world)
    assert [row.status for row in told] == [Status.OK] * 13
    assert [row.seq for row in told] == list(range(1, 14))
    assert [row.role for row in told] == [Role.SEARCH] * 12 + [Role.CONFIRM]
    with world.ledger() as ledger, Parts(world.spec, clock=world.clock) as parts:
        found = results(parts, ledger)
    assert found.mode is Mode.DONE
    assert found.evidence is Evidence.FRESH
    assert found.treatment is not None
    assert found.control is not None
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(found.treatment.value / found.control.value - 1)


def test_twins_and_control_share_each_window_and_windows_may_mature_together(world: Any) -> None:
    world.finish()
    with world.ledger() as ledger:
        windows, trials = ledger.windows(), ledger.trials()
    search = [w for w in windows if w.role is Role.SEARCH]
    assert [len([t for t in trials if t.window == w.number]) for w in search] == [4, 4, 4]
    assert len({w.salt for w in windows}) == len(windows)
    # The second window opens when the first ends, two days before the first has matured.
    assert search[1].start_us == search[0].end_us
    # In each window slices never overlap, and control is first.
    for w in windows:
        parts = sorted(
            [
                (w.control.lower, w.control.upper),
                *((t.slice.lower, t.slice.upper) for t in trials if t.window == w.number),
            ]
        )
        assert all(a[1] <= b[0] for a, b in pairwise(parts))
        assert parts[-1][1] <= 800_000


def test_maturity_follows_the_sources_watermark_not_the_clock(world: Any) -> None:
    start_us = world.clock.now_us()
    world.production.knows_until_us = start_us + DAY_US  # the log stands still
    with world.process() as runner:
        for _ in range(12):
            turn = runner.turn()
            world.clock.wait_until(turn.next_us)
        assert statuses(world) == []
        world.production.knows_until_us = None
        world.clock.wait_until(world.clock.now_us() + DAY_US // 2)
        runner.turn()
    assert len(statuses(world)) >= 4


def test_f03_a_request_whose_reply_is_lost_is_sent_again_and_applied_once(world: Any) -> None:
    world.production.faults["push"] = ["unanswered", "lost", "unanswered"]
    world.production.faults["withdraw"] = ["unanswered", "lost"]
    world.finish()
    assert set(world.production.applied.values()) == {1}
    assert statuses(world) == [Status.OK] * 13


def test_f31_a_module_that_is_down_for_a_while_costs_time_only(world: Any) -> None:
    world.production.faults["push"] = ["down"] * 9
    world.production.faults["read"] = ["down"] * 3
    world.production.faults["observe"] = ["down"]
    world.finish()
    assert statuses(world) == [Status.OK] * 13


def test_f41_a_module_that_is_down_for_days_voids_nothing_that_was_applied(world: Any) -> None:
    world.production.faults["push"] = ["down"] * 100
    world.finish()
    told = outcomes(world)
    failed = [row for row in told if row.status is Status.FAILED]
    assert failed, "trials whose whole window passed without an answer have no value"
    assert {row.trial for row in failed}.isdisjoint(world.production.applied)
    assert [row.status for row in told if row.role is Role.CONFIRM] == [Status.OK]


def test_a_refused_candidate_is_told_as_failed_and_the_others_go_on(world: Any) -> None:
    world.production.faults["push"] = ["", "refused"]
    world.finish()
    assert statuses(world).count(Status.FAILED) == 1
    with world.ledger() as ledger:
        [refused] = [t for t in ledger.trials() if t.cause.startswith("refused")]
    assert refused.number == 1
    assert refused.number not in world.production.applied


def test_f51_metrics_that_never_arrive_expire_at_the_deadline(world: Any) -> None:
    world.production.knows_until_us = world.clock.now_us()
    world.finish()
    assert set(statuses(world)) == {Status.EXPIRED}


def test_an_empty_window_fails_its_trials_with_a_reason(world: Any) -> None:
    world.production.units = 0
    world.finish()
    assert set(statuses(world)) == {Status.FAILED}
    assert any("too few units" in notice.text for notice in world.notices)


def test_f39_a_restarted_module_gets_its_arms_back_by_renewal(world: Any) -> None:
    with world.process() as runner:
        runner.turn()
        assert len(world.production.live) == 4
    world.production.restart()
    with world.process() as runner:  # a new process reconciles first
        assert len(world.production.live) == 4
        runner.run()
    assert set(world.production.applied.values()) == {1}


def test_leases_are_renewed_while_the_window_is_open(make_world: Callable[..., Any]) -> None:
    world = make_world(schedule={"lease": "12h", "poll": "3h"})
    with world.process() as runner:
        ends_us = world.clock.now_us() + DAY_US
        turn = runner.turn()
        while turn.next_us < ends_us:
            world.clock.wait_until(turn.next_us)
            assert {arm.trial for arm in world.production.observe()} == {0, 1, 2, 3}, "no lease has lapsed"
            turn = runner.turn()
    assert (
        world.production.renewed == 4 * 3
    )  # each arm after 4, 8 and 12 hours: the third lasts to the window's end


def test_f25_two_deliveries_of_one_metric_are_one_reading(make_world: Callable[..., Any]) -> None:
    once, twice = make_world(), make_world()
    once.finish()
    read = twice.production.read

    def doubled(query: Any) -> Any:
        for reading in read(query):
            yield reading
            yield reading

    twice.production.read = doubled
    twice.finish()
    assert twice.facts() == once.facts()
    with once.ledger() as a, twice.ledger() as b:
        assert [r.reading for r in a.revisions(1)] == [r.reading for r in b.revisions(1)]


def test_an_arm_that_the_ledger_does_not_know_is_withdrawn(world: Any) -> None:
    with world.process() as runner:
        runner.turn()
    order, until_us = world.production.live[0]
    from dataclasses import replace

    world.production.live[99] = (replace(order, trial=99, arm="t99"), until_us)
    world.production.faults["withdraw"] = ["down"]
    with world.process():  # an unreachable module is no reason to die: the next process tries again
        pass
    assert 99 in world.production.live
    with world.process():
        pass
    assert 99 not in world.production.live


def test_f10_an_old_driver_is_fenced_by_production(world: Any) -> None:
    with world.process() as runner:
        world.production.epoch = 99  # somebody else drives
        with pytest.raises(Fenced, match="newer driver"):
            runner.turn()
    assert world.production.applied == {}


def test_f74_a_breached_guardrail_withdraws_within_one_turn_and_is_told_as_infeasible(
    make_world: Callable[..., Any],
) -> None:
    world = make_world(
        measure={"metrics": {"unsubscribe": UNSUBSCRIBE}},
        guardrails=[{"metric": "unsubscribe", "at_most": "1.05 * control", "min_units": 100}],
    )
    world.production.metrics = {"success": lambda rate: rate, "unsubscribe": lambda rate: 0.02}
    with world.process() as runner:
        runner.turn()
        victim = world.production.bodies[1, "t2"]
        world.production.metrics = {
            "success": lambda rate: rate,
            "unsubscribe": lambda rate: 0.3 if rate == world.rate(victim) else 0.02,
        }
        world.clock.wait_until(runner.turn().next_us)
        runner.turn()
        assert sorted(world.production.live) == [0, 1]  # its antithetic twin went with it
        runner.run()
    assert [row.trial for row in outcomes(world)[:2]] == [2, 3]
    assert statuses(world) == [Status.INFEASIBLE] * 2 + [Status.OK] * 11


def test_f79_breaches_in_a_row_pause_the_campaign_until_a_person_resumes_it(
    make_world: Callable[..., Any],
) -> None:
    world = make_world(
        measure={"metrics": {"unsubscribe": UNSUBSCRIBE}},
        guardrails=[{"metric": "unsubscribe", "at_most": "1.05 * control", "min_units": 100}],
        budget={"breaches": 4},
    )
    world.production.metrics = {
        "success": lambda rate: rate,
        "unsubscribe": lambda rate: 0.02 if rate == 0.2 else 0.4,
    }
    with pytest.raises(GuardrailStop) as stop:
        world.finish()
    assert stop.value.exit_code == 3
    assert world.production.live == {}
    with world.ledger() as ledger:
        assert ledger.campaign.mode is Mode.PAUSED
    with pytest.raises(GuardrailStop):
        world.finish()


def test_f45_f52_a_restated_metric_is_kept_and_the_told_value_stands(world: Any) -> None:
    with world.process() as runner:
        while len(statuses(world)) < 4:
            world.clock.wait_until(runner.turn().next_us or 0)
        before = outcomes(world)[:4]
        stats = {"n": 1e6, "sum": 9e5}
        world.production.extra = [Reading("success", 1, "t0", "", world.clock.now_us(), stats)]
        runner.run()
    assert outcomes(world)[:4] == before
    with world.ledger() as ledger:
        late = [r for r in ledger.revisions(1, "t0") if r.disposition is Disposition.LATE]
    assert [dict(row.reading.stats) for row in late] == [stats]


def test_f47_f48_f50_junk_readings_are_set_aside_and_change_no_value(make_world: Callable[..., Any]) -> None:
    clean, dirty = make_world(), make_world()
    clean.finish()
    at_us = dirty.clock.now_us()
    dirty.production.extra = [
        Reading("success", 1, "t77", "", at_us, {"n": 10.0, "sum": 1.0}),  # unknown trial
        Reading("success", 9, "t0", "", at_us, {"n": 10.0, "sum": 1.0}),  # unknown window
        Reading("success", 1, "t1", "", at_us, {"n": float("nan"), "sum": 1.0}),
        Reading("success", 1, CONTROL, "", at_us, {"n": -5.0, "sum": 1.0}),
    ]
    dirty.finish()
    values = [(r.seq, r.trial, r.status, r.value, r.se) for r in outcomes(dirty)]
    assert values == [(r.seq, r.trial, r.status, r.value, r.se) for r in outcomes(clean)]
    assert any(notice.kind == "readings" for notice in dirty.notices)


def test_a_longer_budget_goes_on_where_it_ended_and_confirms_again(world: Any) -> None:
    world.finish()
    world.document["budget"] = {**world.document["budget"], "trials": 16}
    world.finish()
    roles = [row.role for row in outcomes(world)]
    assert roles == [Role.SEARCH] * 12 + [Role.CONFIRM] + [Role.SEARCH] * 4 + [Role.CONFIRM]


def test_f62_a_candidate_that_this_machine_would_draw_differently_keeps_its_recorded_vector(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.process() as runner:
        runner.turn()
    from blackopt.optimizers.openai_es import OpenAIES

    drawn = OpenAIES.ask

    def other_arithmetic(self: Any, n: int) -> Any:
        return [Candidate(c.number, c.version, c.vector * (1 - 1e-12)) for c in drawn(self, n)]

    monkeypatch.setattr(OpenAIES, "ask", other_arithmetic)
    with world.process() as runner:
        assert runner.learner.diverged == [0, 1, 2, 3]
        runner.run()
    with world.ledger() as ledger:
        assert [e for e in ledger.events() if e.kind == "replay_divergence"]
    assert statuses(world) == [Status.OK] * 13
