"""Any sequence of orders, lapses, kills and restarts, against a model that fits a screen."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from blackopt.traffic import bucket

TRIALS = st.integers(0, 5)
EPOCHS = st.integers(1, 4)
PRICES = {"a": 1.25, "b": 1.5, "bad": 9.0}
UNITS = [f"u{i}" for i in range(40)]


def window_of(trial: int) -> int:
    return 1 + trial // 3


class ModuleMachine(RuleBasedStateMachine):
    """Trials 0 to 2 belong to window 1, 3 to 5 to window 2; the slices of 3 and 4 overlap."""

    bench: Any
    new_bench: Any

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.bench = self.new_bench(Path(self.folder.name))
        self.epoch, self.window, self.killed = 0, 0, False
        self.text: dict[int, str] = {}
        self.withdrawn: set[int] = set()
        self.leases: dict[int, tuple[float, int]] = {}
        self.adopted = (0, "")

    def teardown(self) -> None:
        self.bench.arms.close()
        self.folder.cleanup()

    def placement(self, trial: int) -> dict[str, Any]:
        lower = 200_000 + 100_000 * (trial % 3)
        if trial == 4:
            lower -= 1
        slice_ = [lower, lower + 100_000]
        return {
            "window": window_of(trial),
            "salt": f"s.{window_of(trial)}",
            "slice": slice_,
            "control": [0, 150_000],
        }

    def live(self) -> dict[int, int]:
        return {t: epoch for t, (until, epoch) in self.leases.items() if self.bench.now < until}

    def expect_push(self, trial: int, text: str, epoch: int) -> tuple[int, str]:
        if epoch < self.epoch:
            return 409, "fenced"
        self.epoch = epoch
        if trial in self.withdrawn:
            return 422, "withdrawn"
        if self.text.get(trial, text) != text:
            return 422, "conflict"
        if self.killed:
            return 503, "killed"
        if text == "bad":
            return 422, "bounds"
        if window_of(trial) < self.window:
            return 422, "window"
        if {3: 4, 4: 3}.get(trial) in self.live():
            return 422, "slice"
        return 200, "repeated" if trial in self.text else "applied"

    @rule(trial=TRIALS, text=st.sampled_from(sorted(PRICES)), epoch=EPOCHS, ttl_s=st.integers(1, 100))
    def push(self, trial: int, text: str, epoch: int, ttl_s: int) -> None:
        expected = self.expect_push(trial, text, epoch)
        body = json.dumps({"price": PRICES[text]})
        status, answer = self.bench.push(
            trial=trial, text=body, epoch=epoch, ttl_s=ttl_s, placement=self.placement(trial)
        )
        said = answer["outcome"] if status == 200 else answer["detail"].partition(":")[0]
        assert (status, said) == expected
        if status == 200:
            self.text[trial] = text
            self.window = window_of(trial)
            self.leases = {t: lease for t, lease in self.leases.items() if window_of(t) == self.window}
            self.leases[trial] = (self.bench.now + ttl_s, epoch)

    @rule(trial=TRIALS, epoch=EPOCHS)
    def withdraw(self, trial: int, epoch: int) -> None:
        status, answer = self.bench.withdraw(trial=trial, epoch=epoch)
        if epoch < self.epoch:
            assert status == 409
            return
        self.epoch = epoch
        known = trial in self.text and trial not in self.withdrawn
        assert (status, answer["outcome"]) == (200, "applied" if known else "repeated")
        self.withdrawn.add(trial)
        self.leases.pop(trial, None)

    def expect_adoption(self, number: int, text: str, epoch: int) -> tuple[int, str]:
        if epoch < self.epoch:
            return 409, "fenced"
        self.epoch = epoch
        before, adopted = self.adopted
        if number < before:
            return 422, "stale"
        if number == before and text != adopted:
            return 422, "conflict"
        if self.killed:
            return 503, "killed"
        if text == "bad":
            return 422, "bounds"
        return 200, "repeated" if number == before else "applied"

    @rule(number=st.integers(1, 4), text=st.sampled_from(sorted(PRICES)), epoch=EPOCHS)
    def adopt(self, number: int, text: str, epoch: int) -> None:
        expected = self.expect_adoption(number, text, epoch)
        body = json.dumps({"price": PRICES[text]})
        status, answer = self.bench.adopt(number=number, text=body, epoch=epoch)
        said = answer["outcome"] if status == 200 else answer["detail"].partition(":")[0]
        assert (status, said) == expected
        if status == 200:
            self.adopted = (number, text)

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        self.bench.now += seconds

    @rule()
    def restart(self) -> None:
        self.bench.start()
        self.leases = {}

    @precondition(lambda self: not self.killed)
    @rule()
    def kill(self) -> None:
        self.bench.kill_file.touch()
        self.bench.now += 1
        self.killed = True

    @precondition(lambda self: self.killed)
    @rule()
    def unkill(self) -> None:
        self.bench.kill_file.unlink()
        self.bench.now += 1
        self.killed = False

    @invariant()
    def what_is_live_is_what_was_ordered(self) -> None:
        expected = {} if self.killed else self.live()
        assert {arm["trial"]: arm["epoch"] for arm in self.bench.live()} == expected

    @invariant()
    def what_is_adopted_is_listed(self) -> None:
        number, _ = self.adopted
        expected = [(number, not self.killed)] if number else []
        assert [(entry["number"], entry["served"]) for entry in self.bench.incumbents()] == expected

    @invariant()
    def units_get_their_arm_or_the_incumbent(self) -> None:
        live = {} if self.killed else self.live()
        for unit in UNITS:
            given = self.bench.arms.assign("email-offer", unit)
            assert (given.arm, given.value["price"]) == self.expect_unit(unit, live)

    def expect_unit(self, unit: str, live: dict[int, int]) -> tuple[str | None, float]:
        incumbent = PRICES[self.adopted[1]] if self.adopted[0] and not self.killed else 1.0
        if not live:
            return None, incumbent
        at = bucket("email-offer", f"s.{self.window}", unit)
        for trial in live:
            lower, upper = self.placement(trial)["slice"]
            if lower <= at < upper:
                return f"t{trial}", PRICES[self.text[trial]]
        return ("control" if at < 150_000 else None), incumbent


def test_any_sequence_of_orders_and_faults(new_bench: Any) -> None:
    class Machine(ModuleMachine):
        pass

    Machine.new_bench = new_bench
    checks = list(HealthCheck)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=checks
        ),
    )
