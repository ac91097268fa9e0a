"""Which arms of a window are compared with their slices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blackopt.ledger.rows import Disposition, ReadingRow, TrialRow, TrialState, WindowRow
from blackopt.metrics.kinds import kind
from blackopt.runner.ratio import mismatch
from blackopt.types import Reading, Role, Slice

LENGTH = 1_000_000
WINDOW = WindowRow(1, Role.SEARCH, "s.1", 5_000_000, 5_000_000 + LENGTH, Slice(0, 200_000))


def trial(number: int, *, live_us: int | None = 5_000_000, cause: str = "window ended") -> TrialRow:
    lower = 200_000 + number * 100_000
    return TrialRow(
        number=number,
        candidate=number,
        role=Role.SEARCH,
        version=0,
        told_before=0,
        body=bytes(8),
        keyed=False,
        vector_sha="",
        window=1,
        slice=Slice(lower, lower + 100_000),
        deadline_us=None,
        state=TrialState.AWAITING,
        cause=cause,
        asked_us=5_000_000,
        live_us=live_us,
        lease_until_us=None,
    )


def readings(units: dict[str, float], metric: str = "visits") -> list[ReadingRow]:
    return [
        ReadingRow(i, Reading(metric, 1, arm, "", 0, {"n": n, "sum": 0.0}), None, 0, Disposition.ACCEPTED)
        for i, (arm, n) in enumerate(units.items())
    ]


TRIALS = [trial(0), trial(1), trial(2)]
SOUND = {"control": 20_000.0, "t0": 10_030.0, "t1": 9_960.0, "t2": 10_010.0}
PROPORTION = kind("proportion")


def test_arms_of_their_size_are_compared() -> None:
    assert mismatch(WINDOW, TRIALS, readings(SOUND), "visits", PROPORTION) is None


@pytest.mark.parametrize("arm", list(SOUND))
def test_any_arm_that_is_short_is_found_and_the_cause_says_what_to_look_for(arm: str) -> None:
    found = mismatch(WINDOW, TRIALS, readings(SOUND | {arm: 0.9 * SOUND[arm]}), "visits", PROPORTION)
    assert found is not None
    assert found.startswith(f"sample ratio mismatch: {arm} has ")
    assert "exposures that are lost" in found


@pytest.mark.parametrize(
    "changed",
    [
        {"cause": "guardrail: visits 3 % against at most 2 %"},
        {"cause": "refused: bounds"},
        {"live_us": None},
        {"live_us": WINDOW.start_us + LENGTH // 100 + 1},
    ],
)
def test_an_arm_that_was_not_served_all_the_time_is_left_out(changed: dict[str, object]) -> None:
    trials = [*TRIALS[:2], replace(TRIALS[2], **changed)]  # type: ignore[arg-type]
    assert mismatch(WINDOW, trials, readings(SOUND | {"t2": 4_000.0}), "visits", PROPORTION) is None


def test_an_arm_that_was_a_moment_late_is_not_left_out() -> None:
    trials = [*TRIALS[:2], replace(TRIALS[2], live_us=WINDOW.start_us + LENGTH // 100)]
    assert mismatch(WINDOW, trials, readings(SOUND | {"t2": 4_000.0}), "visits", PROPORTION) is not None


def test_cohorts_add_up_and_other_metrics_do_not_count() -> None:
    halves = readings({arm: n / 2 for arm, n in SOUND.items()})
    assert mismatch(WINDOW, TRIALS, [*halves, *halves], "visits", PROPORTION) is None
    noise = readings({"t0": 9_000.0}, "complaints")
    assert mismatch(WINDOW, TRIALS, [*readings(SOUND), *noise], "visits", PROPORTION) is None


def test_without_a_control_only_the_arms_are_compared() -> None:
    window = replace(WINDOW, control=Slice(0, 0))
    rows = readings(SOUND | {"control": 7.0})
    assert mismatch(window, TRIALS, rows, "visits", PROPORTION) is None
    assert mismatch(window, TRIALS, readings(SOUND | {"t1": 9_000.0}), "visits", PROPORTION) is not None


def test_a_value_counts_no_units() -> None:
    assert mismatch(WINDOW, TRIALS, readings(SOUND | {"t1": 1.0}), "visits", kind("value")) is None
