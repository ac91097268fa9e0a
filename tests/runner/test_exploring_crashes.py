"""A campaign with keys that dies at any transaction or order, and between a centre and its trials."""

from __future__ import annotations

from typing import Any

import pytest

from blackopt.artifacts import Store
from blackopt.runner.centres import Centres

CHANGES: dict[str, Any] = {
    "name": "feed",
    "policy": {"use": "parameters", "space": {"w": {"weights": 5}}},
    "optimizer": {"use": "openai-es", "seed": 3, "noise": "signs"},
    "explore": {"unit": "request", "directions": 2},
    "traffic": {"unit": "user", "share": "80%", "control": "20%"},
    "budget": {"trials": 8, "max_in_flight": 8, "confirm": 1},
}


def explored(make_world: Any) -> Any:
    """A world with keys, at its beginning."""
    world = make_world()
    world.document.update(CHANGES)
    world.production.rate = lambda body: 0.1 + 0.4 * (sum(body) % 97) / 97
    return world


def labels(world: Any) -> set[str]:
    return set(Store(world.folder / "centres").labels())


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_dying_at_steps_all_over_the_run_changes_nothing(
    make_world: Any, fuse: Any, died: Any, after: bool
) -> None:
    whole = explored(make_world)
    whole.finish()
    expected = whole.facts()
    assert len(expected["tells"]) == 9
    assert labels(whole) == set()
    for at in range(1, 62, 5):
        dying = explored(make_world)
        with pytest.raises(died), dying.process(fuse(at, after)) as runner:
            runner.run()
        dying.finish()
        assert dying.facts() == expected, f"died at call {at}"
        assert labels(dying) == set()


@pytest.mark.parametrize("step", ["published", "collect"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_dying_around_the_store_changes_nothing(
    make_world: Any, died: Any, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    whole = explored(make_world)
    whole.finish()
    expected, inner = whole.facts(), getattr(Centres, step)
    for at in (1, 2, 3) if step == "collect" else (1, 2):
        calls = 0

        def dies(*args: Any, at: int = at) -> Any:
            nonlocal calls
            calls += 1
            if calls == at and not after:
                raise died
            found = inner(*args)
            if calls == at and after:
                raise died
            return found

        monkeypatch.setattr(Centres, step, dies)
        dying = explored(make_world)
        with pytest.raises(died), dying.process() as runner:
            runner.run()
        dying.finish()
        assert dying.facts() == expected
        assert labels(dying) == set()
