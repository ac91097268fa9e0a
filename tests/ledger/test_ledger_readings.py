"""What becomes of a metric that comes twice, late, wrong, restated, or for nobody."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackopt.errors import LedgerError, UsageError
from blackopt.ledger import Driver, Ledger
from blackopt.ledger.readings import fault, trial_of
from blackopt.ledger.rows import Disposition, IngestReport, NewTell
from blackopt.types import CONTROL, Reading, Status


@pytest.fixture
def driver(ledger: Ledger, make: Any) -> Any:
    """Window 1 with trials 0 and 1, window 2 with trial 2, and trial 3 without a window."""
    with ledger.drive(at_us=2) as driver:
        driver.ask([make.trial(0, window=1), make.trial(1, window=1)], window=make.window(1), at_us=3)
        driver.ask([make.trial(2, window=2)], window=make.window(2), at_us=3)
        driver.ask([make.trial(3)], at_us=3)
        yield driver


def events(driver: Driver) -> list[dict[str, Any]]:
    return [dict(event.data) for event in driver.ledger.events() if event.kind == "ingest"]


def test_f42_the_same_reading_twice_is_one_row(driver: Driver, make: Any) -> None:
    page = [make.reading("t0"), make.reading(CONTROL), make.reading("t0")]
    assert driver.ingest("sql", page, at_us=10) == IngestReport(accepted=2, duplicate=1)
    assert driver.ingest("sql", page, at_us=11) == IngestReport(duplicate=3)
    assert len(driver.ledger.revisions(1)) == 2
    assert events(driver) == [], "what is as it should be is no event"


def test_statistics_that_did_not_change_are_not_stored_again(driver: Driver, make: Any) -> None:
    driver.ingest("sql", [make.reading("t0", as_of_us=10)], at_us=10)
    report = driver.ingest(
        "sql", [make.reading("t0", as_of_us=20, stats={"sum": 57, "n": np.int64(310)})], at_us=20
    )
    assert report == IngestReport(unchanged=1)
    assert driver.ingest("sql", [make.reading("t0", 58.0, as_of_us=30)], at_us=30) == IngestReport(accepted=1)
    # What was true once may be true again: it is a revision, because the newest one said otherwise.
    assert driver.ingest("sql", [make.reading("t0", 57.0, as_of_us=40)], at_us=40) == IngestReport(accepted=1)
    assert [row.reading.as_of_us for row in driver.ledger.revisions(1)] == [10, 30, 40]
    (latest,) = driver.ledger.latest(1)
    assert latest.reading == make.reading("t0", 57.0, as_of_us=40)


def test_f43_same_identity_other_value_keeps_the_first(driver: Driver, make: Any) -> None:
    driver.ingest("sql", [make.reading("t0", 57.0)], at_us=10)
    assert driver.ingest("sql", [make.reading("t0", 99.0)], at_us=11) == IngestReport(conflict=1)
    assert driver.ingest("sql", [make.reading("t0", 99.0)], at_us=12) == IngestReport(duplicate=1)
    (row,) = driver.ledger.revisions(1)
    assert row.reading.stats["sum"] == 57.0
    (conflict,) = driver.ledger.conflicts()
    assert (conflict.reading.stats["sum"], conflict.received_us) == (99.0, 11)
    (event,) = events(driver)
    assert event["conflict"]["count"] == 1
    # A conflict with a revision that is not the newest is one too.
    driver.ingest("sql", [make.reading("t0", 60.0, as_of_us=20)], at_us=13)
    assert driver.ingest("sql", [make.reading("t0", 77.0)], at_us=14) == IngestReport(conflict=1)
    assert driver.ingest("sql", [make.reading("t0", 57.0)], at_us=14) == IngestReport(duplicate=1)


def test_f44_the_order_of_arrival_does_not_matter(driver: Driver, make: Any) -> None:
    days = [make.reading("t0", 10.0 + n, as_of_us=n, cohort=f"2026-01-0{n}") for n in (3, 1, 2)]
    older = make.reading("t0", 1.0, as_of_us=0, cohort="2026-01-03")
    assert driver.ingest("sql", [*days, older], at_us=10) == IngestReport(accepted=4)
    assert [row.reading.cohort for row in driver.ledger.latest(1)] == [
        "2026-01-01",
        "2026-01-02",
        "2026-01-03",
    ]
    assert [row.reading.stats["sum"] for row in driver.ledger.latest(1)] == [11.0, 12.0, 13.0]
    assert len(driver.ledger.revisions(1, "t0")) == 4


def test_latest_is_ordered_by_metric_arm_and_cohort(driver: Driver, make: Any) -> None:
    page = [make.reading(arm, metric=metric) for arm in ("t1", "t0", CONTROL) for metric in ("b", "a")]
    driver.ingest("sql", page, at_us=10)
    found = [(row.reading.metric, row.reading.arm) for row in driver.ledger.latest(1)]
    assert found == [(m, a) for m in "ab" for a in (CONTROL, "t0", "t1")]


def test_f45_f52_a_told_value_does_not_change_when_the_metric_does(driver: Driver, make: Any) -> None:
    driver.ingest("sql", [make.reading("t0"), make.reading(CONTROL)], at_us=10)
    used = tuple(row.id for row in driver.ledger.latest(1))
    (told,) = driver.tell([NewTell(0, Status.OK, 0.2, used=used)], at_us=11)
    restated = [make.reading("t0", 60.0, as_of_us=20), make.reading(CONTROL, 61.0, as_of_us=20)]
    assert driver.ingest("sql", restated, at_us=20) == IngestReport(late=1, accepted=1), (
        "the control is never late"
    )
    assert driver.ingest("sql", restated, at_us=21) == IngestReport(duplicate=2)
    assert [row.disposition for row in driver.ledger.revisions(1, "t0")] == [
        Disposition.ACCEPTED,
        Disposition.LATE,
    ]
    (latest,) = driver.ledger.latest(1, arm="t0")
    assert latest.reading.stats["sum"] == 57.0
    assert driver.ledger.tells() == [told]
    driver.ingest("sql", [make.reading("t0", 61.0, as_of_us=30)], at_us=30)
    assert [event["late"]["count"] for event in events(driver)] == [1], (
        "lateness is one fact, however often polled"
    )
    driver.ledger.verify()


def test_f46_a_reading_before_the_push_is_acknowledged_counts(driver: Driver, make: Any) -> None:
    driver.intend({0: "b"}, at_us=5)
    assert driver.ingest("sql", [make.reading("t0")], at_us=6) == IngestReport(accepted=1)


@pytest.mark.parametrize(
    "place",
    [
        {"arm": "t9"},
        {"arm": "somebody"},
        {"arm": "t00"},
        {"arm": CONTROL, "window": 9},
        {"arm": CONTROL, "window": 0},
        {"arm": "t0", "window": 2},  # f50: another candidate's window
        {"arm": "t3", "window": 1},
        {"arm": "t0", "window": 0},
    ],
)
def test_f47_f50_a_reading_for_nobody_is_quarantined_once(
    driver: Driver, make: Any, place: dict[str, Any]
) -> None:
    page = [make.reading(**place)]
    assert driver.ingest("sql", page, at_us=10) == IngestReport(quarantined=1)
    assert driver.ingest("sql", [make.reading(total=1.0, as_of_us=99, **place)], at_us=11) == IngestReport(
        duplicate=1
    )
    (row,) = driver.ledger.quarantined()
    assert (row.trial, row.disposition) == (None, Disposition.QUARANTINED)
    assert driver.ledger.latest(page[0].window) == []
    assert len(events(driver)) == 1


def test_an_arm_that_becomes_known_later_is_accepted(driver: Driver, make: Any) -> None:
    # After an old backup was restored, production may report a trial that this ledger has yet to ask.
    driver.ingest("sql", [make.reading("t4", window=0)], at_us=10)
    driver.ask([make.trial(4)], at_us=11)
    assert driver.ingest("sql", [make.reading("t4", window=0)], at_us=12) == IngestReport(accepted=1)


@pytest.mark.parametrize(
    "stats",
    [
        {"n": float("nan"), "sum": 1.0},
        {"sum": float("inf")},
        {"sum": -math.inf},
        {"sum": 10**400},
        {"sum": "57"},
        {"sum": True},
        {"sum": np.bool_(True)},
        {"sum": None},
        {"n": -1.0},
        {"value": 1.0, "se": -0.1},
        {"sum": 1.0, "weight": 0.0},
        {"sum": 1.0, "weight": -1.0},
        {1: 1.0},
        {},
    ],
)
def test_f48_f49_what_is_no_number_is_rejected_once(driver: Driver, make: Any, stats: dict[Any, Any]) -> None:
    page = [make.reading("t0", stats=stats)]
    assert driver.ingest("sql", page, at_us=10) == IngestReport(rejected=1)
    assert driver.ingest("sql", [make.reading("t0", stats=stats, as_of_us=77)], at_us=11) == IngestReport(
        duplicate=1
    )
    assert driver.ledger.revisions(1) == []
    (row,) = driver.ledger.rejected()
    assert row.reason
    (event,) = events(driver)
    assert event["rejected"]["count"] == 1
    driver.ledger.verify()


def test_malformed_places_are_rejected(driver: Driver) -> None:
    wrong: list[tuple[Any, Any, Any]] = [
        ("1", 1, ""),
        (1, 1.5, ""),
        (1, 1, None),
        (2**63, 1, ""),
        (1, True, ""),
    ]
    page = [
        Reading(f"m{i}", window, "t0", cohort, as_of_us, {"n": 1.0})
        for i, (window, as_of_us, cohort) in enumerate(wrong)
    ]
    assert driver.ingest("sql", page, at_us=10) == IngestReport(rejected=5)


def test_a_count_of_zero_is_a_watermark(driver: Driver, make: Any) -> None:
    assert driver.ingest("sql", [make.reading("t0", stats={"n": 0, "sum": 0})], at_us=10) == IngestReport(
        accepted=1
    )


def test_f51_a_metric_that_never_comes_ends_as_expired(driver: Driver, make: Any) -> None:
    (told,) = driver.tell([NewTell(0, Status.EXPIRED, cause="deadline")], at_us=10)
    assert told.obs_sha == hashlib.sha256(b"[]").hexdigest()
    assert driver.ingest("sql", [make.reading("t0")], at_us=11) == IngestReport(late=1)


def test_watermarks_never_go_back(driver: Driver) -> None:
    driver.polled(1, {"visit": 10, "sale": 5}, at_us=100)
    driver.polled(1, {"visit": 8}, at_us=200)
    marks = driver.ledger.watermarks(1)
    assert (marks["visit"].as_of_us, marks["visit"].polled_us) == (10, 200)
    assert (marks["sale"].as_of_us, marks["sale"].polled_us) == (5, 100)
    assert driver.ledger.watermarks(2) == {}


def test_what_was_used_must_be_stored(driver: Driver, make: Any) -> None:
    driver.ingest("sql", [make.reading("nobody")], at_us=9)
    (quarantined,) = driver.ledger.quarantined()
    for wrong in (quarantined.id, 99):
        with pytest.raises(LedgerError, match="not stored or is quarantined"):
            driver.tell([NewTell(0, Status.OK, 1.0, used=(wrong,))], at_us=10)


@pytest.mark.parametrize("source", ["", "tell"])
def test_a_source_has_its_own_name(driver: Driver, make: Any, source: str) -> None:
    with pytest.raises(UsageError, match="source"):
        driver.ingest(source, [make.reading("t0")], at_us=10)


def test_sources_do_not_contradict_each_other(driver: Driver, make: Any) -> None:
    driver.ingest("sql", [make.reading("t0", 57.0)], at_us=10)
    assert driver.ingest("csv", [make.reading("t0", 58.0)], at_us=11) == IngestReport(accepted=1)


def test_the_hash_of_what_was_used_does_not_depend_on_its_order(driver: Driver, make: Any) -> None:
    driver.ingest("sql", [make.reading("t0"), make.reading(CONTROL)], at_us=10)
    ids = [row.id for row in driver.ledger.latest(1)]
    (told,) = driver.tell([NewTell(0, Status.OK, 0.2, used=tuple(ids))], at_us=11)
    texts = sorted(f'["visit",1,"{arm}","2026-01-01",10,{{"n":310.0,"sum":57.0}}]' for arm in ("t0", CONTROL))
    assert told.obs_sha == hashlib.sha256(f"[{','.join(texts)}]".encode()).hexdigest()
    (other,) = driver.tell([NewTell(1, Status.OK, 0.2, used=tuple(reversed(ids)))], at_us=11)
    assert other.obs_sha == told.obs_sha


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=6) | st.integers(min_value=0).map(lambda n: f"t{n}"))
def test_an_arm_names_at_most_one_trial(arm: str) -> None:
    number = trial_of(arm)
    assert number is None or f"t{number}" == arm


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_value_is_sound(value: float) -> None:
    assert fault(Reading("m", 0, "t0", "", 0, {"value": value})) == ""
