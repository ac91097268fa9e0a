"""Candidates by key: the ledger has 24 bytes a trial, the store what they are relative to while it must."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from blackopt.artifacts import Centre, Keyed, Store
from blackopt.artifacts.centre import label
from blackopt.cli.trials import _rows
from blackopt.diagnostics import Problem
from blackopt.errors import DiagnosticsError
from blackopt.ledger.rows import Mode, PromotionState, TrialState
from blackopt.report.page import render
from blackopt.runner.assembly import Parts, create_ledger
from blackopt.runner.centres import ADOPTED, WHOLE, require_keys
from blackopt.runner.promoting import begin
from blackopt.runner.results import Evidence, results
from blackopt.types import Role, Status

N, DIRECTIONS = 20, 4
BEST = np.linspace(-1.0, 1.0, N)
EXPLORING: dict[str, Any] = {
    "name": "feed",
    "policy": {"use": "parameters", "space": {"w": {"weights": N, "scale": 0.5}}},
    "optimizer": {"use": "openai-es", "sigma": 0.2, "seed": 3, "learning_rate": 0.2},
    "explore": {"unit": "request", "directions": DIRECTIONS},
    "traffic": {"arms": None},
    "budget": {"trials": 8 * 2 * DIRECTIONS, "max_in_flight": 4 * DIRECTIONS, "confirm": 1},
}


def near(where: str | Path) -> Callable[[bytes], float]:
    """True success rate of an order: the closer to BEST the better. Reads what a module would read."""

    def rate(body: bytes) -> float:
        store = Store(where)
        if len(body) == 64:
            values = Centre.read(store.get(body.decode())).values
        else:
            key = Keyed.decode(body)
            centre = Centre.load(store, "feed", key.version)
            values = centre.perturb(key, centre.values.copy())
        return float(0.2 + 0.4 * np.exp(-np.mean((values - BEST) ** 2)))

    return rate


def exploring(world: Any) -> Any:
    """The world of the other tests, with candidates by key."""
    for key, value in EXPLORING.items():
        world.document[key] = {**world.document.get(key, {}), **value} if isinstance(value, dict) else value
    world.document["policy"], world.document["optimizer"] = EXPLORING["policy"], EXPLORING["optimizer"]
    del world.document["traffic"]["arms"]
    world.production.rate, world.production.units = near(world.folder / "centres"), 200_000
    return world


def test_the_way_of_a_campaign_with_keys(world: Any) -> None:
    exploring(world).finish()
    store = Store(world.folder / "centres")
    with world.ledger() as ledger:
        trials = ledger.trials()
        search = [t for t in trials if t.role is Role.SEARCH]
        assert all(t.state is TrialState.TOLD for t in trials)
        assert all(t.keyed and len(t.body) == 24 for t in search)
        for plus, minus in zip(search[0::2], search[1::2], strict=True):
            one, other = Keyed.decode(plus.body), Keyed.decode(minus.body)
            assert (one.key, one.sign, one.version) == (other.key, -other.sign, plus.version)
        assert {t.version for t in search} == {row.version for row in ledger.centres()}
        [confirmed] = [t for t in trials if t.role is Role.CONFIRM]
        assert confirmed.vector.shape == (N,)
        ledger.verify()
    assert store.labels() == {}, "everything is told: no candidate can refer to a centre"
    with world.ledger() as ledger, Parts(world.spec, clock=world.clock) as parts:
        learner = parts.learner()
        learner.restore(ledger)
        start, found = parts.policy.start(), learner.recommend()
        assert np.mean((0.5 * found - BEST) ** 2) < 0.8 * np.mean((0.5 * start - BEST) ** 2)


def test_a_store_at_a_url_is_a_store(make_world: Callable[..., Any]) -> None:
    facts = []
    for where in ("centres", "memory://feed"):
        world = exploring(make_world())
        world.document["explore"] = {**world.document["explore"], "store": where}
        url = where if "://" in where else world.folder / where
        world.production.rate = near(url)
        world.finish()
        assert Store(url).labels() == {}
        assert (world.folder / "centres").exists() == (where == "centres")
        facts.append(world.facts())
    assert facts[0] == facts[1]


def test_a_store_that_does_not_answer_is_collected_later(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exploring(world)
    world.document["explore"] = {**world.document["explore"], "store": "memory://later"}
    world.production.rate = near("memory://later")
    deleted, files = MemoryFileSystem.rm_file, fsspec.filesystem("memory")

    def down(*_: object) -> None:
        raise ConnectionError("no route to host")

    with world.process() as runner:
        monkeypatch.setattr(MemoryFileSystem, "rm_file", down)
        while len(runner.driver.ledger.windows()) < 5:
            world.clock.wait_until(runner.turn().next_us)
        assert any("collecting centres" in notice.text for notice in world.notices)
        assert len(files.find("/later/objects")) > 1
        monkeypatch.setattr(MemoryFileSystem, "rm_file", deleted)
        runner.run()
    assert files.find("/later") == []


def test_arms_population_and_breaches_follow_the_directions(world: Any) -> None:
    spec = exploring(world).spec
    assert spec.traffic is not None
    assert spec.traffic.arms == 2 * DIRECTIONS
    assert spec.optimizer.options.population == 2 * DIRECTIONS
    assert spec.document["optimizer"]["population"] == 2 * DIRECTIONS
    world.document["optimizer"] = {**world.document["optimizer"], "population": 6}
    assert world.spec.optimizer.options.population == 6
    world.document["explore"] = {"unit": "request", "directions": 100}
    world.document["budget"] = {"trials": 400}
    assert (world.spec.budget.max_in_flight, world.spec.budget.breaches) == (200, 50)
    world.document["budget"] = {"trials": 400, "breaches": 3}
    assert world.spec.budget.breaches == 3


def test_what_is_sent_has_the_step_in_the_units_of_the_model(world: Any) -> None:
    with exploring(world).process() as runner:
        runner.turn()
        bodies = [order.artifact.body for order, _ in world.production.live.values()]
    with world.ledger() as ledger:
        keys = [Keyed.decode(t.body) for t in ledger.trials()]
    assert [Keyed.decode(body).sigma for body in bodies] == [0.1] * len(keys)
    assert [key.sigma for key in keys] == [0.2] * len(keys)
    assert [Keyed.decode(body).key for body in bodies] == [key.key for key in keys]


def test_a_centre_is_there_before_the_first_order_and_while_a_trial_needs_it(world: Any) -> None:
    seen: list[set[str]] = []
    folder, push = world.folder, world.production.push

    def watched(order: Any) -> Any:
        seen.append(set(Store(folder / "centres").labels()))
        number = int(order.arm[1:])
        key = None if len(order.artifact.body) == 64 else Keyed.decode(order.artifact.body)
        assert label("feed", WHOLE + number if key is None else key.version) in seen[-1]
        return push(order)

    exploring(world).production.push = watched
    with world.process() as runner:
        done = False
        while not done:
            turn = runner.turn()
            done = turn.done
            with world.ledger() as ledger:
                needed = {t.version for t in ledger.trials() if t.keyed and t.state is not TrialState.TOLD}
            assert {label("feed", version) for version in needed} <= set(Store(folder / "centres").labels())
            if turn.next_us is not None:
                world.clock.wait_until(turn.next_us)
    assert len(seen) > 48


def test_a_breach_takes_both_twins_out(world: Any) -> None:
    exploring(world)
    world.document["guardrails"] = [{"metric": "success", "at_least": "0.5 * control"}]
    rate = world.production.rate
    with world.process() as runner:
        runner.turn()
        bad = world.production.live[2][0].artifact.body
        world.production.rate = lambda body: 0.01 if body == bad else rate(body)
        while len(runner.driver.ledger.tells()) < 2 * DIRECTIONS:
            world.clock.wait_until(runner.turn().next_us)
    with world.ledger() as ledger:
        causes = {t.number: t.cause for t in ledger.trials() if t.cause.startswith("guardrail")}
        assert set(causes) == {2, 3}
        told = {tell.trial: tell.status for tell in ledger.tells()}
        assert {told[n] for n in (2, 3)} == {Status.INFEASIBLE}
        assert {told[n] for n in (0, 1, 4, 5, 6, 7)} == {Status.OK}


def test_readings_of_unknown_arms_and_of_collected_versions_are_set_aside_one_by_one(world: Any) -> None:
    from dataclasses import replace

    exploring(world)
    with world.process() as runner:
        while not runner.driver.ledger.tells():
            world.clock.wait_until(runner.turn().next_us)
        old = next(world.production.read(_query(world, runner)))
        late = replace(old, arm="t0", as_of_us=old.as_of_us + 1, stats={"n": 9.0, "sum": 1.0})
        world.production.extra += [replace(late, arm="t99999"), replace(late, arm="v9.k1", window=7), late]
        told = runner.driver.ledger.tells()
        runner.run()
        assert runner.driver.ledger.tells()[: len(told)] == told
        assert {row.reading.arm for row in runner.driver.ledger.quarantined()} == {"t99999", "v9.k1"}
        assert runner.driver.ledger.campaign.mode is Mode.DONE


def _query(world: Any, runner: Any) -> Any:
    from blackopt.types import Query

    window = runner.driver.ledger.windows()[0]
    now = world.clock.now_us()
    return Query("feed", 1, ("t0",), window.start_us, window.end_us, now, ("success",))


def test_a_centre_that_this_machine_computes_otherwise_is_said_and_the_published_one_stands(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exploring(world).process() as runner:
        while len(runner.driver.ledger.centres()) < 2:
            world.clock.wait_until(runner.turn().next_us)
        published = Store(world.folder / "centres").labels()
    from blackopt.optimizers.openai_es import OpenAIES

    step = OpenAIES._step
    monkeypatch.setattr(
        OpenAIES,
        "_step",
        lambda self, results: (step(self, results)[0] * (1 + 1e-12), step(self, results)[1]),
    )
    with world.process() as runner:
        assert runner.learner.moved == [1]
        assert runner.learner.diverged == []
        assert Store(world.folder / "centres").labels() == published
        runner.run()
    assert any(n.kind == "divergence" and "published ones stand" in n.text for n in world.notices)
    with world.ledger() as ledger:
        assert [e.data for e in ledger.events() if e.kind == "replay_divergence"] == [{"centres": [1]}]


def test_a_key_that_this_machine_draws_otherwise_is_told_as_it_was_served(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exploring(world).process() as runner:
        runner.turn()
    from blackopt.optimizers.keyed import Noise

    monkeypatch.setattr(Noise, "key", lambda self, number: 1_000 + number // 2)
    with world.process() as runner:
        assert runner.learner.diverged == list(range(2 * DIRECTIONS))
        recorded = runner.learner.centres.vector(runner.driver.ledger.trial(0).body)
        assert recorded.shape == (N,)
        runner.run()
    with world.ledger() as ledger:
        assert {row.status for row in ledger.tells()} == {Status.OK}


@pytest.mark.parametrize(
    ("changes", "at", "hint"),
    [
        ({"optimizer": {"use": "pgpe"}}, "optimizer", "openai-es"),
        ({"policy": {"use": "parameters", "space": {"x": {"float": [0, 1]}}}}, "policy", "without `bounds`"),
        ({"policy": {"use": "mlp", "inputs": 90, "hidden": [2]}}, "policy", "scale"),
    ],
)
def test_a_campaign_whose_candidates_are_no_keys_is_refused_at_its_line(
    world: Any, tmp_path: Path, changes: dict[str, Any], at: str, hint: str
) -> None:
    exploring(world).document.update(changes)
    with Parts(world.spec, clock=world.clock) as parts:
        with pytest.raises(DiagnosticsError) as caught:
            require_keys(world.spec, parts.policy, parts.learner().optimizer)
        [problem] = cast("list[Problem]", caught.value.problems)
        assert (problem.path, hint in problem.hint) == (at, True)
        with pytest.raises(DiagnosticsError):
            create_ledger(world.spec, parts, 1)
    assert not world.spec.ledger.exists()


def test_an_arms_key_beside_explore_must_agree(world: Any) -> None:
    exploring(world).document["traffic"]["arms"] = 5
    with pytest.raises(DiagnosticsError) as caught:
        world.spec  # noqa: B018
    assert [p.path for p in cast("list[Problem]", caught.value.problems)] == ["traffic.arms"]


def test_a_promotion_sends_whole_models_by_the_name_of_their_file(world: Any) -> None:
    exploring(world)
    world.document["budget"] = {"trials": 48, "max_in_flight": 16}
    world.document["promotion"] = {"looks": 1, "ramp": ["50%"], "step": "1d", "holdback_for": "1d"}
    world.finish()
    with world.process() as runner, Parts(world.spec, clock=world.clock) as parts:
        begin(world.spec, runner.driver, runner.learner, parts.policy, at_us=world.clock.now_us())
        runner.wake()
        runner.run()
    with world.ledger() as ledger:
        assert ledger.promotions()[-1].state is PromotionState.DONE
        tested = [t for t in ledger.trials() if t.role in (Role.TEST, Role.RAMP, Role.HOLDBACK)]
        assert {t.role for t in tested} == {Role.TEST, Role.RAMP, Role.HOLDBACK}
        assert not any(t.keyed for t in tested)
        ledger.verify()
    number, artifact = world.production.adopted
    store = Store(world.folder / "centres")
    assert store.labels() == {label("feed", ADOPTED + number): artifact.body.decode()}, (
        "it outlives the trials"
    )
    adopted = Centre.read(store.get(artifact.body.decode()))
    with world.ledger() as ledger:
        np.testing.assert_array_equal(
            adopted.values, (0.5 * ledger.promotions()[-1].vector).astype(np.float32)
        )


def test_a_campaign_whose_store_is_lost_goes_on(world: Any) -> None:
    exploring(world).production.rate = lambda body: 0.1 + 0.4 * (sum(body) % 97) / 97
    with world.process() as runner:
        while len(runner.driver.ledger.windows()) < 3:
            world.clock.wait_until(runner.turn().next_us)
    with world.ledger() as ledger:
        version = ledger.trials()[-1].version
    shutil.rmtree(world.folder / "centres")
    with world.process() as runner:
        while len(runner.driver.ledger.windows()) < 4:
            world.clock.wait_until(runner.turn().next_us)
        newest = runner.driver.ledger.trials()[-1].version
        assert newest >= version
        assert label("feed", newest) in Store(world.folder / "centres").labels()
        runner.run()
    with world.ledger() as ledger:
        assert {row.status for row in ledger.tells()} == {Status.OK}
        ledger.verify()


def test_what_people_see_of_candidates_by_key(world: Any) -> None:
    exploring(world).finish()
    with world.ledger() as ledger, Parts(world.spec, clock=world.clock) as parts:
        rows = _rows(parts, ledger, 100)
        assert rows[1]["params"] == {"version": 0, "key": 0, "sign": -1, "sigma": 0.2}
        assert list(rows[-1]["params"]) == ["w"], "a confirmation is a whole model"
        found = results(parts, ledger)
        assert found.evidence is Evidence.FRESH
        assert "t1" in render(parts, ledger)


def test_before_a_confirmation_nothing_is_said_of_the_incumbent(world: Any) -> None:
    exploring(world)
    world.document["budget"] = {"trials": 16}
    world.finish()
    with world.ledger() as ledger, Parts(world.spec, clock=world.clock) as parts:
        found = results(parts, ledger)
        assert (found.evidence, found.estimate) == (Evidence.NONE, None)
