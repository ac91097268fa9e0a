"""Conformance suite for evaluators: subclass :class:`EvaluatorConformance` and pytest finds the rest.

    from blackopt.testing.evaluators import EvaluatorConformance

    class TestMine(EvaluatorConformance):
        @pytest.fixture
        def evaluator(self, tmp_path):
            return Mine(Mine.Options(...), base=tmp_path)

The fixture returns an evaluator of ``{"x": x}`` whose value is ``x * x``; it fails with a text that contains
``unlucky`` where x is 13.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from blackopt.protocols import Evaluator, PluginOptions
from blackopt.types import Artifact, NoReading, Outcome, Push, Query, Reading

QUERY = Query("conformance", 0, (), 0, 5_000_000, 5_000_000, ("loss",))
"""What the suite asks for, as a campaign of evaluations does."""

PATIENCE_S = 60.0
"""How long the suite waits for an evaluation before it calls it lost."""


def an_order(trial: int, x: float) -> Push:
    """The order to evaluate ``{"x": x}``."""
    artifact = Artifact(json.dumps({"x": x}).encode())
    return Push(f"key-{trial}", "conformance", trial, f"t{trial}", 1, 0.0, artifact)


def collect(evaluator: Evaluator, count: int, query: Query = QUERY) -> list[Reading | NoReading]:
    """Read until ``count`` items have come.

    Raises:
        TimeoutError: they have not within :data:`PATIENCE_S`.
    """
    items: list[Reading | NoReading] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(items) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(items)} of {count} evaluations came back")
        items += evaluator.read(query)
    return items


class EvaluatorConformance:
    """What every evaluator does. Subclasses give the fixture ``evaluator``."""

    @pytest.fixture
    def evaluator(self) -> Evaluator:
        """An evaluator of x squared."""
        raise NotImplementedError("a subclass of EvaluatorConformance defines the fixture `evaluator`")

    @pytest.fixture
    def running(self, evaluator: Evaluator) -> Iterator[Evaluator]:
        """The same, closed after the test."""
        yield evaluator
        evaluator.close()

    def test_is_an_evaluator_with_strict_options(self, running: Evaluator) -> None:
        """It has every method of the contract, at least one slot, and options that refuse unknown keys."""
        assert isinstance(running, Evaluator)
        assert running.slots >= 1
        assert issubclass(running.Options, PluginOptions)
        assert running.Options.model_config.get("extra") == "forbid"

    def test_check_says_one_line(self, running: Evaluator) -> None:
        """And leaves nothing to read."""
        line = running.check()
        assert line
        assert "\n" not in line
        assert list(running.read(QUERY)) == []

    def test_reads_what_was_pushed(self, running: Evaluator) -> None:
        """A reading of kind ``value`` in window 0 for each order, whatever the order they finish in."""
        for trial in range(4):
            assert running.push(an_order(trial, trial + 0.5)).outcome is Outcome.APPLIED
        items = collect(running, 4)
        assert all(isinstance(item, Reading) for item in items), items
        readings = sorted((item for item in items if isinstance(item, Reading)), key=lambda item: item.arm)
        for trial, reading in enumerate(readings):
            assert (reading.metric, reading.window, reading.arm, reading.cohort) == (
                "loss",
                0,
                f"t{trial}",
                "",
            )
            assert reading.as_of_us == QUERY.as_of_us
            assert reading.stats["value"] == (trial + 0.5) ** 2

    def test_a_result_is_read_once(self, running: Evaluator) -> None:
        """Afterwards there is nothing."""
        running.push(an_order(1, 2.0))
        collect(running, 1)
        assert list(running.read(QUERY)) == []

    def test_a_failure_is_a_no_reading_with_its_cause(self, running: Evaluator) -> None:
        """And takes nothing else down."""
        running.push(an_order(1, 13))
        running.push(an_order(2, 3.0))
        items = {item.arm: item for item in collect(running, 2)}
        failed, good = items["t1"], items["t2"]
        assert isinstance(failed, NoReading)
        assert "unlucky" in failed.cause
        assert isinstance(good, Reading)
        assert good.stats["value"] == 9.0

    def test_the_same_order_is_not_run_twice_at_once(self, running: Evaluator) -> None:
        """Idempotent by key while it runs."""
        assert running.push(an_order(1, 2.0)).outcome is Outcome.APPLIED
        assert running.push(an_order(1, 2.0)).outcome is Outcome.REPEATED
        assert len(collect(running, 1)) == 1
        assert list(running.read(QUERY)) == []

    def test_an_order_that_was_read_can_be_given_again(self, running: Evaluator) -> None:
        """What was read and not written down is evaluated again."""
        for _ in range(2):
            assert running.push(an_order(1, 2.0)).outcome is Outcome.APPLIED
            assert len(collect(running, 1)) == 1

    def test_an_artifact_that_is_not_json_is_a_no_reading(self, running: Evaluator) -> None:
        """It is said, not swallowed."""
        order = Push("key", "conformance", 1, "t1", 1, 0.0, Artifact(b"\xff\x00", "application/octet-stream"))
        running.push(order)
        (item,) = collect(running, 1)
        assert isinstance(item, NoReading)
        assert "JSON" in item.cause

    def test_closing_twice_is_harmless(self, running: Evaluator) -> None:
        """Also with an evaluation that nobody reads."""
        running.push(an_order(1, 2.0))
        running.close()
        running.close()
