"""A promotion may be killed before or after any transaction and any order: it cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blackopt.ledger.rows import PromotionState
from blackopt.runner.assembly import Parts
from blackopt.runner.promoting import begin, take_back

PROMOTION = {"looks": 2, "ramp": ["1%", "50%"], "holdback": "5%", "holdback_for": "1d"}
DOMAIN = {"promotion": PROMOTION, "budget": {"trials": 8, "confirm": 0}}
FIRST, STRIDE = 8, 5
"""Dying right after step k and right before step k + 1 leave the same ledger: the first steps, and then every
fifth of each."""


@pytest.fixture
def copies(make_world: Callable[..., Any], tmp_path: Path) -> Callable[[], Any]:
    """Copies of one world whose search has ended."""
    world = make_world(**DOMAIN)
    world.production.units = 20_000
    world.finish()
    numbers = iter(range(100_000))
    return lambda: world.copied(tmp_path / f"copy{next(numbers)}")


@contextmanager
def promoting(world: Any, fuse: Any = None) -> Iterator[Any]:
    with world.process(fuse) as runner, Parts(world.spec, clock=world.clock) as parts:
        begin(world.spec, runner.driver, runner.learner, parts.policy, at_us=world.clock.now_us())
        runner.wake()
        yield runner


def promote(world: Any, fuse: Any = None) -> None:
    with promoting(world, fuse) as runner:
        runner.run()


def roll_back(world: Any, fuse: Any = None) -> None:
    """As ``blackopt rollback`` does, until production has answered."""
    with world.process(fuse) as runner:
        now_us = world.clock.now_us()
        take_back(runner.driver, cause="taken back by a person", at_us=now_us)
        runner.lane.reconcile(now_us)
        runner.lane.turn(now_us)


def steps_of(work: Callable[..., None], world: Any, fuse: Any) -> int:
    counter = fuse(at=-1, after=False)
    work(world, counter)
    return int(counter.calls)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_f01_f02_f03_a_promotion_that_died_at_any_step_ends_as_one_that_did_not(
    copies: Any, fuse: Any, died: Any, after: bool
) -> None:
    whole = copies()
    steps = steps_of(promote, whole, fuse)
    expected = whole.facts()
    assert expected["promotions"][-1][0] is PromotionState.DONE
    assert steps > 60
    for at in [*range(1, FIRST), *range(FIRST + 2 * after, steps + 1, STRIDE)]:
        world = copies()
        with pytest.raises(died):
            promote(world, fuse(at=at, after=after))
        promote(world)
        assert world.facts() == expected, f"died {'after' if after else 'before'} step {at}"
        assert set(world.production.applied.values()) == {1}
        assert world.production.adopted[0] == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_f01_f02_a_rollback_that_died_at_any_step_ends_as_one_that_did_not(
    copies: Any, fuse: Any, died: Any, after: bool
) -> None:
    whole = copies()
    with promoting(whole) as runner:
        while whole.production.adopted is None:
            whole.clock.wait_until(runner.turn().next_us)
    snapshot = whole.copied(whole.folder.with_name("held"))
    steps = steps_of(roll_back, whole, fuse)
    expected = whole.facts()
    assert expected["promotions"][-1][0] is PromotionState.REVERTED
    assert whole.production.adopted[0] == 2
    for at in range(1, steps + 1):
        world = snapshot.copied(snapshot.folder.with_name(f"held{at}"))
        with pytest.raises(died):
            roll_back(world, fuse(at=at, after=after))
        roll_back(world)
        assert world.facts()["promotions"] == expected["promotions"], at
        assert world.facts()["incumbents"] == expected["incumbents"], at
        assert world.production.adopted[0] == 2
        assert not world.production.live


def test_cron_turns_promote_as_one_long_process_does(copies: Any) -> None:
    whole, cron = copies(), copies()
    promote(whole)
    done = False
    while not done:
        with promoting(cron) as runner:
            turn = runner.turn()
        done = turn.done
        if turn.next_us is not None:
            cron.clock.wait_until(turn.next_us)
    assert cron.facts() == whole.facts()
