"""What the newest readings say beside what was told: so far, restated, or nothing new."""

from __future__ import annotations

from typing import Any

import pytest

from blackopt.ledger import Ledger
from blackopt.runner.judge import Judge
from blackopt.runner.newest import Newest
from blackopt.runner.restated import Known, known, newest
from blackopt.types import Reading, Status


def restate(world: Any, arm: str, add: int) -> None:
    """The source says of an arm of the first window, a day later, that more of its units have succeeded."""
    spec, now_us = world.spec, world.clock.now_us() + 86_400_000_000
    with Ledger.open(spec.ledger) as ledger, ledger.drive(at_us=now_us) as driver:
        [row] = ledger.latest(1, arm=arm)
        stats = {**row.reading.stats, "sum": row.reading.stats["sum"] + add}
        driver.ingest(spec.measure.use, [Reading("success", 1, arm, "", now_us, stats)], at_us=now_us)


def seen(world: Any) -> dict[int, Known]:
    with world.ledger() as ledger:
        return known(Judge(world.spec), ledger, ledger.trials(), ledger.tells())


def test_nothing_is_beside_what_was_told_of_settled_trials(world: Any) -> None:
    world.finish()
    assert seen(world) == {}


def test_a_restated_arm_shows_its_own_trial_another_value(world: Any) -> None:
    world.finish()
    restate(world, "t2", 90)
    found = seen(world)
    assert set(found) == {2}
    with world.ledger() as ledger:
        tell = next(t for t in ledger.tells() if t.trial == 2)
        rows = newest(ledger, 1)
    assert tell.value is not None
    [control], [own] = ([r.reading.stats for r in rows if r.reading.arm == a] for a in ("control", "t2"))
    now = found[2].now
    assert now is not None
    assert now.value == pytest.approx(own["sum"] / own["n"] / (control["sum"] / control["n"]) - 1)
    assert now.value > tell.value


def test_a_restated_control_shows_every_trial_of_its_window_another_value(world: Any) -> None:
    world.finish()
    restate(world, "control", 40)
    with world.ledger() as ledger:
        expected = {
            t.trial for t in ledger.tells() if t.status is Status.OK and ledger.trial(t.trial).window == 1
        }
    found = seen(world)
    assert set(found) == expected
    assert all(k.now is not None and k.so_far is None for k in found.values())


def test_a_restatement_that_changes_no_sum_shows_nothing(world: Any) -> None:
    world.finish()
    restate(world, "t2", 0)
    assert seen(world) == {}


def test_what_was_told_stands(world: Any) -> None:
    world.finish()
    before = world.facts()
    restate(world, "t2", 90)
    after = world.facts()
    assert (after["tells"], after["recommendation"]) == (before["tells"], before["recommendation"])


def test_a_trial_that_is_not_told_shows_what_is_known_so_far(world: Any) -> None:
    with world.process() as runner:
        runner.turn()
        assert seen_in(world, runner) == {}, "no unit yet"
        world.clock.wait_until(runner.turn().next_us)
        runner.turn()
        found = seen_in(world, runner)
        assert set(found) == {0, 1, 2, 3}
        rows = Newest(runner.driver.ledger.latest(1))
        judge = Judge(world.spec)
        for number, beside in found.items():
            assert beside.now is None
            assert beside.so_far == judge.effect(rows, "success", f"t{number}")[0]
        assert runner.driver.ledger.tells() == [], "shown, not told"


def seen_in(world: Any, runner: Any) -> dict[int, Known]:
    ledger = runner.driver.ledger
    return known(Judge(world.spec), ledger, ledger.trials(), ledger.tells())
