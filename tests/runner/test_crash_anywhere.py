"""A process may die before or after any transaction and any request: the campaign cannot tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def count_steps(world: Any, fuse: Any) -> int:
    """How many transactions and requests an uninterrupted run makes."""
    counter = fuse(at=-1, after=False)
    with world.process(counter) as runner:
        runner.run()
    return counter.calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_f01_f02_f03_f04_f08_death_at_every_step_changes_nothing(
    make_world: Callable[..., Any], fuse: Any, died: Any, after: bool
) -> None:
    whole = make_world()
    steps = count_steps(whole, fuse)
    expected = whole.facts()
    assert steps > 100
    # Dying right after step k and right before step k + 1 leave the same ledger; production may differ. Every
    # third of each.
    for at in range(1 + after, steps + 1, 3):
        world = make_world()
        with pytest.raises(died), world.process(fuse(at=at, after=after)) as runner:
            runner.run()
        world.finish()
        assert world.facts() == expected, f"died {'after' if after else 'before'} step {at}"
        assert set(world.production.applied.values()) == {1}


def test_dying_after_every_second_step_of_one_run_changes_nothing(
    make_world: Callable[..., Any], fuse: Any, died: Any
) -> None:
    whole = make_world()
    whole.finish()
    world = make_world()
    deaths = 0
    while True:
        try:
            with world.process(fuse(at=2, after=True)) as runner:
                runner.run()
        except died:
            deaths += 1
            continue
        break
    assert deaths > 50
    assert world.facts() == whole.facts()
    assert set(world.production.applied.values()) == {1}


def test_cron_turns_equal_one_long_run(make_world: Callable[..., Any]) -> None:
    whole, cron = make_world(), make_world()
    whole.finish()
    done = False
    while not done:
        with cron.process() as runner:
            turn = runner.turn()
        done = turn.done
        if turn.next_us is not None:
            cron.clock.wait_until(turn.next_us)
    assert cron.facts() == whole.facts()
