"""A recommendation becomes the incumbent, is refused, is taken back: state by state, fault by fault."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from blackopt.errors import BlackoptError, ConfigurationError, GuardrailStop
from blackopt.ledger.rows import Mode, PromotionState, PushState, TrialState
from blackopt.report.page import render
from blackopt.runner.assembly import Parts
from blackopt.runner.promoting import begin, take_back
from blackopt.runner.promotion_cost import promotion
from blackopt.runner.results import Evidence, results
from blackopt.runner.standing import standing
from blackopt.runner.wording import headline
from blackopt.testing.clock import DAY_US
from blackopt.types import Role, Status

PROMOTION = {
    "looks": 2,
    "ramp": ["1%", "10%", "50%"],
    "step": "1d",
    "holdback": "5%",
    "holdback_for": "3d",
}
GUARDED: dict[str, Any] = {
    "measure": {
        "metrics": {
            "success": {"kind": "proportion", "query": "unused.sql", "window": "2d", "lag": "1h"},
            "spam": {"kind": "proportion", "query": "unused.sql", "window": "1d"},
        }
    },
    "guardrails": [{"metric": "spam", "at_most": "1.3 * control", "min_units": 100}],
}


@pytest.fixture
def climbed(make_world: Callable[..., Any]) -> Callable[..., Any]:
    """A world whose search has ended on a recommendation that is truly better (by about a half)."""

    def make(rate: float | None = None, **changes: Any) -> Any:
        world = make_world(**{"promotion": PROMOTION, "budget": {"confirm": 0}, **changes})
        world.production.units = 20_000
        world.production.rate = (lambda _: rate) if rate is not None else world.production.rate
        world.production.metrics = {"success": lambda rate: rate, "spam": lambda _: 0.1}
        world.finish()
        world.notices.clear()
        return world

    return make


@contextmanager
def promoting(world: Any, fuse: Any = None) -> Iterator[Any]:
    with world.process(fuse) as runner, Parts(world.spec, clock=world.clock) as parts:
        begin(world.spec, runner.driver, runner.learner, parts.policy, at_us=world.clock.now_us())
        runner.wake()
        yield runner


def state(world: Any) -> PromotionState:
    with world.ledger() as ledger:
        return ledger.promotions()[-1].state


def until(world: Any, runner: Any, wanted: PromotionState) -> None:
    """Turn after turn until the promotion is in a state."""
    for _ in range(400):
        turn = runner.turn()
        if state(world) is wanted:
            return
        assert not turn.done, f"ended {state(world)}"
        world.clock.wait_until(turn.next_us)
    raise AssertionError(f"never {wanted}")


def found(world: Any) -> Any:
    with world.ledger() as ledger:
        return standing(world.spec, ledger)


def test_a_better_recommendation_is_tested_ramped_adopted_and_held_against_the_former(
    climbed: Callable[..., Any],
) -> None:
    world = climbed()
    with promoting(world) as runner:
        runner.run()
    at = found(world)
    assert at.state is PromotionState.DONE
    assert at.decision is not None
    assert at.decision.interval[0] > 0
    with world.ledger() as ledger:
        ledger.verify()
        windows = {w.number: w for w in ledger.windows()}
        trials = {role: ledger.trials(role=role) for role in Role}
        [promotion] = ledger.promotions()
        [incumbent] = ledger.incumbents()
        assert ledger.campaign.mode is Mode.DONE
    # Every look on fresh units, half and half; each step of the ramp holds the one before it.
    assert len({windows[t.window].salt for t in trials[Role.TEST]}) == len(trials[Role.TEST])
    steps = [t.slice for t in trials[Role.RAMP]]
    assert [(s.lower, s.upper) for s in steps] == [(0, 10_000), (0, 100_000), (0, 500_000)]
    ramp_salts = {windows[t.window].salt for t in trials[Role.RAMP]}
    assert len(ramp_salts) == 1
    [holdback] = trials[Role.HOLDBACK]
    assert holdback.slice.lower >= 500_000, "the holdback never got the recommendation"
    assert windows[holdback.window].salt in ramp_salts
    # The holdback serves what was the incumbent, and it is measured to be worse.
    assert holdback.vector.tolist() == [0.2, 0.2]
    assert at.holdback is not None
    assert at.holdback.value < 0
    assert world.production.adopted[0] == 1
    assert json.loads(world.production.adopted[1].body).keys() == {"x", "y"}
    assert incumbent.state is PushState.ACKED
    assert incumbent.vector.tolist() == promotion.vector.tolist()


def test_no_trial_of_a_promotion_reaches_the_optimizer(climbed: Callable[..., Any]) -> None:
    world = climbed()
    before = world.facts()["recommendation"]
    with promoting(world) as runner:
        runner.run()
    assert world.facts()["recommendation"] == before


def test_production_serves_the_new_incumbent_before_the_last_arm_of_the_ramp_ends(
    climbed: Callable[..., Any],
) -> None:
    world = climbed()
    with promoting(world) as runner:
        until(world, runner, PromotionState.HOLDING)
    with world.ledger() as ledger:
        kinds = [(e.kind, e.data.get("cause", "")) for e in ledger.events()]
    adopted = next(i for i, (kind, _) in enumerate(kinds) if kind == "incumbent")
    closes = [i for i, (kind, cause) in enumerate(kinds) if kind == "close" and cause == "window ended"]
    assert closes[-1] > adopted


def test_noise_is_refused_and_says_what_would_be_enough(climbed: Callable[..., Any]) -> None:
    world = climbed(rate=0.2)
    with promoting(world) as runner:
        runner.run()
    at = found(world)
    assert at.state is PromotionState.REFUSED
    assert at.decision.enough is not None
    assert at.decision.enough.text in at.cause
    assert world.production.adopted is None
    with world.ledger() as ledger:
        assert not ledger.trials(role=Role.RAMP)
        assert ledger.campaign.mode is Mode.DONE
    with world.ledger() as ledger, Parts(world.spec, clock=world.clock) as parts:
        known = results(parts, ledger)
    assert known.evidence is Evidence.FRESH
    assert not known.proven
    assert "refused" in headline(known)


def test_the_same_recommendation_is_not_tested_until_it_passes(climbed: Callable[..., Any]) -> None:
    world = climbed(rate=0.2)
    with promoting(world) as runner:
        runner.run()
    with pytest.raises(BlackoptError, match="not promoted") as refused, promoting(world):
        pass
    assert "tested it already" in refused.value.why


def test_nothing_is_promoted_while_the_search_goes_on(make_world: Callable[..., Any]) -> None:
    world = make_world(promotion=PROMOTION)
    with world.process() as runner:
        runner.turn()
    with pytest.raises(BlackoptError, match="not promoted") as refused, promoting(world):
        pass
    assert "search has not ended" in refused.value.why
    with world.ledger() as ledger:
        assert ledger.promotions() == []


def test_a_guardrail_that_the_recommendation_breaks_refuses_it(climbed: Callable[..., Any]) -> None:
    world = climbed(**GUARDED)
    world.production.metrics["spam"] = lambda rate: 60 * rate**4
    with promoting(world) as runner:
        runner.run()
    at = found(world)
    assert at.state is PromotionState.REFUSED
    assert at.cause.startswith("guardrail: spam")
    assert world.production.adopted is None


def test_harm_during_the_ramp_withdraws_it_without_an_adoption(climbed: Callable[..., Any]) -> None:
    world = climbed(**GUARDED)
    with promoting(world) as runner:
        until(world, runner, PromotionState.RAMPING)
        world.production.metrics["spam"] = lambda rate: 0.1 if rate == 0.2 else 0.3
        runner.run()
    at = found(world)
    assert at.state is PromotionState.REVERTED
    assert at.cause.startswith("guardrail: spam")
    assert world.production.adopted is None
    assert not world.production.live


def test_harm_that_shows_beside_the_holdback_brings_the_former_incumbent_back(
    climbed: Callable[..., Any],
) -> None:
    world = climbed(**{**GUARDED, "promotion": {**PROMOTION, "holdback_for": "9d"}})
    with promoting(world) as runner:
        until(world, runner, PromotionState.HOLDING)
        with world.ledger() as ledger:
            while any(t.state is not TrialState.TOLD for t in ledger.trials(role=Role.RAMP)):
                world.clock.wait_until(runner.turn().next_us)
        good = world.production.rate(world.production.adopted[1].body)
        world.production.metrics["spam"] = lambda rate: 0.3 if rate == good else 0.1
        runner.run()
    at = found(world)
    assert at.state is PromotionState.REVERTED
    assert "beside the holdback" in at.cause
    assert world.production.adopted[0] == 2
    assert json.loads(world.production.adopted[1].body) == {"x": 0.2, "y": 0.2}


@pytest.mark.parametrize(
    "when",
    [PromotionState.TESTING, PromotionState.RAMPING, PromotionState.HOLDING, PromotionState.DONE],
)
def test_a_person_takes_it_back_at_any_time(climbed: Callable[..., Any], when: PromotionState) -> None:
    world = climbed()
    with promoting(world) as runner:
        until(world, runner, when)
    was_adopted = world.production.adopted is not None
    with world.process() as runner:
        now_us = world.clock.now_us()
        assert take_back(runner.driver, cause="taken back by a person", at_us=now_us)
        runner.lane.reconcile(now_us)
        runner.lane.turn(now_us)
        assert state(world) is PromotionState.REVERTED
        assert not world.production.live
        assert not take_back(runner.driver, cause="again", at_us=now_us)
    if was_adopted:
        assert world.production.adopted[0] == 2
        assert json.loads(world.production.adopted[1].body) == {"x": 0.2, "y": 0.2}
    else:
        assert world.production.adopted is None
    world.facts()  # verifies the ledger


@pytest.mark.parametrize("fault", ["down", "lost", "unanswered"])
def test_f02_an_adoption_that_is_not_answered_is_sent_again_under_the_same_number(
    climbed: Callable[..., Any], fault: str
) -> None:
    world = climbed()
    world.production.faults["adopt"] = [fault] * 3
    with promoting(world) as runner:
        runner.run()
    assert state(world) is PromotionState.DONE
    assert world.production.adopted[0] == 1
    with world.ledger() as ledger:
        [order] = ledger.incumbents()
    assert (order.state, order.attempts) == (PushState.ACKED, 4)


def test_a_module_that_refuses_to_adopt_keeps_what_it_has(climbed: Callable[..., Any]) -> None:
    world = climbed()
    world.production.faults["adopt"] = ["refused"]
    with promoting(world) as runner:
        runner.run()
    at = found(world)
    assert at.state is PromotionState.REVERTED
    assert "bounds: too bold" in at.cause
    assert world.production.adopted[0] == 2, (
        "the way back is told: the refusal may not have been the first answer"
    )


def test_a_module_that_lost_what_it_adopted_is_told_again(climbed: Callable[..., Any]) -> None:
    world = climbed()
    with promoting(world) as runner:
        until(world, runner, PromotionState.HOLDING)
    world.production.adopted = None
    with world.process():
        pass
    assert world.production.adopted[0] == 1


def test_a_step_that_production_refuses_ends_the_ramp(climbed: Callable[..., Any]) -> None:
    world = climbed()
    with promoting(world) as runner:
        until(world, runner, PromotionState.RAMPING)
        world.production.faults["push"] = ["refused"]
        runner.run()
    at = found(world)
    assert at.state is PromotionState.REVERTED
    assert "bounds: too bold" in at.cause


def test_a_look_that_gave_nothing_is_repeated(climbed: Callable[..., Any]) -> None:
    world = climbed()
    world.production.faults["push"] = ["refused"]
    with promoting(world) as runner:
        until(world, runner, PromotionState.RAMPING)
    with world.ledger() as ledger:
        tests = ledger.trials(role=Role.TEST)
        statuses = [t.status for t in ledger.tells() if t.role is Role.TEST]
    assert statuses[0] is Status.FAILED
    assert found(world).looks >= 1
    assert len(tests) >= 2


def test_looks_that_never_give_anything_end_in_a_refusal(climbed: Callable[..., Any]) -> None:
    world = climbed()
    world.production.faults["push"] = ["refused"] * 3
    with promoting(world) as runner:
        runner.run()
    at = found(world)
    assert at.state is PromotionState.REFUSED
    assert "3 looks gave no value" in at.cause


def test_after_a_promotion_the_search_is_over(climbed: Callable[..., Any]) -> None:
    world = climbed()
    with promoting(world) as runner:
        runner.run()
    world.document["budget"]["trials"] = 40
    with pytest.raises(ConfigurationError, match="search is over"), world.process():
        pass


def test_nothing_new_starts_in_quiet_hours(climbed: Callable[..., Any]) -> None:
    world = climbed(schedule={"quiet": {"hours": "00:00-06:00"}, "poll": "6h"})
    with promoting(world) as runner:
        runner.run()
    assert state(world) is PromotionState.DONE
    with world.ledger() as ledger:
        starts = [window.start_us for window in ledger.windows()]
        adopted = [order.intended_us for order in ledger.incumbents()]
    assert starts
    assert all(at % DAY_US >= DAY_US // 4 for at in (*starts, *adopted))


def test_whole_weeks_hold_for_looks_and_confirmations(make_world: Callable[..., Any]) -> None:
    world = make_world(
        promotion=PROMOTION, schedule={"whole_weeks": True, "deadline": "30d"}, budget={"confirm": 1}
    )
    world.production.units = 20_000
    world.finish()
    with promoting(world) as runner:
        runner.run()
    with world.ledger() as ledger:
        lengths = {(w.role, (w.end_us - w.start_us) // DAY_US) for w in ledger.windows()}
    assert (Role.CONFIRM, 7) in lengths
    assert (Role.TEST, 7) in lengths
    assert (Role.SEARCH, 1) in lengths


def test_every_turn_leaves_at_most_one_window_in_traffic(climbed: Callable[..., Any]) -> None:
    world = climbed()
    with promoting(world) as runner:
        while not (turn := runner.turn()).done:
            with world.ledger() as ledger:
                live = ledger.trials(states=[TrialState.LIVE])
            assert len({t.window for t in live}) <= 1
            world.clock.wait_until(turn.next_us)


def test_the_report_tells_the_whole_way(climbed: Callable[..., Any]) -> None:
    world = climbed()
    with promoting(world) as runner:
        runner.run()
    with world.ledger() as ledger, Parts(world.spec, clock=world.clock) as parts:
        page = render(parts, ledger)
    assert "Promotion 1" in page
    states = [page.index(words) for words in ("ramping up", "becoming the incumbent", "watched")]
    assert states == sorted(states)
    assert "The former incumbent, on the holdback" in page


def test_a_test_takes_as_long_as_was_forecast(climbed: Callable[..., Any]) -> None:
    world = climbed(rate=0.2, schedule={"poll": "1h"})
    began_us = world.clock.now_us()
    with promoting(world) as runner:
        runner.run()
    cost = promotion(world.spec, 2.0, 1e6, told=49 * DAY_US // 24, improve=None)
    assert found(world).state is PromotionState.REFUSED
    assert cost is not None
    assert world.clock.now_us() - began_us == cost.tested


def test_looks_that_are_told_together_are_judged_one_after_the_other(climbed: Callable[..., Any]) -> None:
    turn_by_turn = climbed()
    asleep = turn_by_turn.copied(turn_by_turn.folder.with_name("asleep"))
    with promoting(turn_by_turn) as runner:
        until(turn_by_turn, runner, PromotionState.RAMPING)
    with promoting(asleep) as runner:
        with asleep.ledger() as ledger:
            while len(ledger.trials(role=Role.TEST)) < 2:
                asleep.clock.wait_until(runner.turn().next_us)
        asleep.clock.wait_until(asleep.clock.now_us() + 8 * DAY_US)  # both looks mature while nobody drives
        until(asleep, runner, PromotionState.RAMPING)
    causes = []
    for world in (turn_by_turn, asleep):
        with world.ledger() as ledger:
            causes.append(ledger.promotions()[-1].cause)
    assert causes[0] == causes[1]
    assert "after 1 window" in causes[0]


def test_a_campaign_that_was_stopped_adopts_nothing(climbed: Callable[..., Any]) -> None:
    world = climbed()
    world.production.faults["adopt"] = ["down"]
    with promoting(world) as runner:
        until(world, runner, PromotionState.ADOPTING)
        runner.driver.set_mode(Mode.STOPPED, cause="stopped by a person", at_us=world.clock.now_us())
        world.clock.wait_until(world.clock.now_us() + DAY_US)
        runner.lane.turn(world.clock.now_us())
    with world.ledger() as ledger:
        assert ledger.incumbents()[-1].attempts == 1, "the first try, before it was stopped"
    with world.process(resume=True) as runner:
        until(world, runner, PromotionState.HOLDING)
    assert world.production.adopted[0] == 1


def test_a_promotion_is_not_begun_where_the_campaign_is_stopped(climbed: Callable[..., Any]) -> None:
    world = climbed()
    with world.process() as runner:
        runner.driver.set_mode(Mode.STOPPED, cause="stopped by a person", at_us=world.clock.now_us())
    with pytest.raises(GuardrailStop), promoting(world):
        pass
    with world.ledger() as ledger:
        assert ledger.promotions() == []


def test_an_edit_of_the_section_does_not_reach_a_promotion_and_is_said(climbed: Callable[..., Any]) -> None:
    world = climbed()
    with promoting(world) as runner:
        runner.turn()
    world.document["promotion"] = {**PROMOTION, "looks": 9, "alpha": "1%"}
    with world.process():
        pass
    assert any("goes on as it was started" in notice.text for notice in world.notices)
    assert (found(world).of_looks, found(world).level) == (2, 0.95)


def test_a_lost_incumbent_that_production_refuses_is_trouble(climbed: Callable[..., Any]) -> None:
    world = climbed()
    with promoting(world) as runner:
        until(world, runner, PromotionState.HOLDING)
    world.production.adopted = None
    world.production.faults["adopt"] = ["refused"]
    with world.process():
        pass
    assert any("refuses its incumbent" in notice.text for notice in world.notices)
