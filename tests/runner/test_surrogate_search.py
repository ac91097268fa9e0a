"""A campaign whose search is told from a fast metric: what is told when, what is kept, and what never is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from blackopt.ledger import Ledger
from blackopt.ledger.rows import Disposition, TellRow
from blackopt.runner.judge import Judge
from blackopt.runner.restated import calibrated, calibration, known
from blackopt.testing.clock import DAY_US
from blackopt.types import Query, Reading, Role, Status

HOUR_US = DAY_US // 24
SLOPE, ERROR = 0.5, 0.02


@pytest.fixture
def world(make_world: Callable[..., Any]) -> Any:
    """Success takes 6 days after the window, half a day of lag and a day of baking; clicks are at once."""
    made = make_world(
        measure={
            "metrics": {
                "success": {
                    "kind": "proportion",
                    "query": "unused.sql",
                    "window": "5d",
                    "anchor": {"event": "arrived", "within": "1d"},
                    "lag": "12h",
                    "bake": "1d",
                },
                "click": {"kind": "proportion", "query": "unused.sql", "window": "6h"},
                "complaint": {"kind": "proportion", "query": "unused.sql", "window": "3d"},
            }
        },
        objective={
            "maximize": "success",
            "relative_to": "control",
            "surrogate": {"metric": "click", "slope": SLOPE, "error": ERROR},
        },
        guardrails=[{"metric": "complaint", "at_most": "1.5 * control", "min_units": 100}],
        budget={"trials": 16, "max_in_flight": 8, "confirm": 1},
        schedule={"window": "1d", "poll": "6h", "deadline": "20d", "lease": "2d"},
    )
    made.production.metrics = {
        "success": lambda rate: rate,
        "click": lambda rate: 0.1 + rate,
        "complaint": lambda _rate: 0.02,
    }
    return made


MATURES_US = (1 + 5 + 1) * DAY_US + DAY_US // 2


def ended(ledger: Ledger, tell: TellRow) -> int:
    trial = ledger.trial(tell.trial)
    return next(w.end_us for w in ledger.windows() if w.number == trial.window)


def follow(world: Any) -> None:
    """What the loop does after the search: poll each window until nothing more will be learned of it."""
    spec = world.spec
    judge = Judge(spec)
    with Ledger.open(spec.ledger) as ledger, ledger.drive(at_us=world.clock.now_us()) as driver:
        for window in ledger.windows():
            arms = ("control", *(t.arm for t in ledger.trials(window=window.number)))
            names = tuple(judge.metrics)
            now_us = max(world.clock.now_us() + HOUR_US, judge.mature_at(window))
            query = Query(spec.name, window.number, arms, window.start_us, window.end_us, now_us, names)
            readings = [r for r in world.production.read(query) if isinstance(r, Reading)]
            driver.ingest(spec.measure.use, readings, at_us=now_us)
            driver.polled(window.number, dict.fromkeys(names, now_us), at_us=now_us)


def test_the_search_is_told_as_soon_as_the_surrogate_has_matured(world: Any) -> None:
    world.finish()
    with world.ledger() as ledger:
        tells = ledger.tells()
        search = [t for t in tells if t.role is Role.SEARCH]
        assert len(search) == 16
        assert {t.status for t in search} == {Status.OK}
        assert {t.at_us - ended(ledger, t) for t in search} == {6 * HOUR_US}
        for tell in search:
            window = ledger.trial(tell.trial).window or 0
            n, total = counts(ledger, window, f"t{tell.trial}", "click")
            nc, totalc = counts(ledger, window, "control", "click")
            t, c = total / n, totalc / nc
            assert tell.value == pytest.approx(SLOPE * (t / c - 1))
            own = (t * (1 - t) / n / c**2 + c * (1 - c) / nc * t**2 / c**4) ** 0.5
            assert tell.se == pytest.approx(((SLOPE * own) ** 2 + ERROR**2) ** 0.5, rel=1e-3)
    texts = [n.text for n in world.notices if n.kind == "told"]
    assert sum(text.endswith(", from click") for text in texts) == 16


def counts(ledger: Ledger, window: int, arm: str, metric: str) -> tuple[float, float]:
    [row] = [r for r in ledger.latest(window, arm=arm) if r.reading.metric == metric]
    return row.reading.stats["n"], row.reading.stats["sum"]


def test_a_confirmation_waits_for_the_objective_itself(world: Any) -> None:
    world.finish()
    with world.ledger() as ledger:
        [tell] = [t for t in ledger.tells() if t.role is Role.CONFIRM]
        assert tell.status is Status.OK
        assert tell.at_us - ended(ledger, tell) == MATURES_US
        window = ledger.trial(tell.trial).window or 0
        n, total = counts(ledger, window, f"t{tell.trial}", "success")
        nc, totalc = counts(ledger, window, "control", "success")
        assert tell.value == pytest.approx(total / n / (totalc / nc) - 1)


def test_what_is_needed_by_whom(world: Any) -> None:
    judge = Judge(world.spec)
    assert judge.needed(Role.SEARCH) == {"click"}
    for role in (Role.CONFIRM, Role.TEST, Role.RAMP, Role.HOLDBACK):
        assert judge.needed(role) == {"success", "complaint"}
        assert judge.told_from(role) == "success"


def test_a_window_is_followed_until_the_objective_has_matured_too(world: Any) -> None:
    world.finish()
    judge = Judge(world.spec)
    with world.ledger() as ledger:
        first = ledger.windows()[0]
        assert judge.mature_at(first) == first.end_us + MATURES_US
        assert judge.polled_until_us(first) == first.end_us + 20 * DAY_US
    follow(world)
    with world.ledger() as ledger:
        assert all(judge.complete(window, ledger) for window in ledger.windows())


def test_without_a_surrogate_a_window_is_complete_when_it_is_told(make_world: Callable[..., Any]) -> None:
    world = make_world()
    with world.process() as runner:
        judge = Judge(world.spec)
        done = False
        while not done:
            step = runner.turn()
            for window in runner.driver.ledger.windows():
                open_ = any(t.state != "TOLD" for t in runner.driver.ledger.trials(window=window.number))
                assert judge.complete(window, runner.driver.ledger) == (not open_)
            done = step.done
            if not done:
                world.clock.wait_until(step.next_us)


def test_later_readings_of_the_objective_are_kept_shown_and_change_nothing(world: Any) -> None:
    world.finish()
    before = world.facts()
    world.production.metrics["success"] = lambda rate: 0.9 * rate + 0.01  # the last ones came, some went
    follow(world)
    after = world.facts()
    assert (after["tells"], after["recommendation"]) == (before["tells"], before["recommendation"])
    judge = Judge(world.spec)
    with world.ledger() as ledger:
        late = [r for r in ledger.revisions(1) if r.disposition is Disposition.LATE]
        assert {r.reading.metric for r in late} >= {"success"}
        beside = known(judge, ledger, ledger.trials(), ledger.tells())
        search = [t for t in ledger.tells() if t.role is Role.SEARCH]
        assert all(beside[t.trial].matured is not None for t in search)
        assert all(beside[t.trial].now is None for t in search), (
            "the surrogate's own readings are as they were"
        )
        [confirmation] = [t for t in ledger.tells() if t.role is Role.CONFIRM]
        restated = beside[confirmation.trial].now
        assert restated is not None
        assert restated.value != confirmation.value
        line = calibrated(judge, calibration(judge, ledger.trials(), beside))
    assert line is not None
    assert line.startswith("surrogate click: declared slope 0.5, error 2.00 %; ")


def test_the_calibration_waits_for_trials(world: Any) -> None:
    world.finish()
    judge = Judge(world.spec)
    with world.ledger() as ledger:
        trials = ledger.trials()
        nothing = calibration(judge, trials, {})
        assert nothing is None
        assert calibrated(judge, nothing) == (
            "surrogate click: declared slope 0.5, error 2.00 %; "
            "too few trials have matured since to tell how good that was"
        )


def test_a_guardrail_that_has_not_matured_still_stops_what_it_proves(world: Any) -> None:
    world.production.metrics["complaint"] = lambda rate: 0.02 if rate == 0.2 else 0.4
    world.document["budget"]["breaches"] = 100
    world.finish()
    with world.ledger() as ledger:
        search = [t for t in ledger.tells() if t.role is Role.SEARCH]
        assert {t.status for t in search} == {Status.INFEASIBLE}


def test_a_guardrail_without_a_unit_is_no_silence_before_it_has_matured(world: Any) -> None:
    read = world.production.read

    def blind(query: Query) -> Any:
        for reading in read(query):
            early = query.as_of_us < query.end_us + 3 * DAY_US
            if not (early and reading.metric == "complaint"):
                yield reading
            else:
                yield Reading("complaint", query.window, reading.arm, "", query.as_of_us, {"n": 0, "sum": 0})

    world.production.read = blind
    world.finish()
    with world.ledger() as ledger:
        assert {t.status for t in ledger.tells()} == {Status.OK}
