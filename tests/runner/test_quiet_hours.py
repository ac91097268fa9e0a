"""When something new may be started: hours, days, time zones, and the nights on which clocks change."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackopt.campaign import Quiet
from blackopt.campaign.quiet import WEEK
from blackopt.runner.hours import is_quiet, opens_us

SECOND = 1_000_000
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # changes its clock by half an hour
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Pacific/Apia",  # had no 30th of December in 2011
]


def quiet(**keys: Any) -> Quiet:
    return Quiet.model_validate_json(json.dumps(keys))


def us(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


def shown(at_us: int, zone: str) -> str:
    return datetime.fromtimestamp(at_us / SECOND, ZoneInfo(zone)).strftime("%a %Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("keys", "now", "opens"),
    [
        ({"hours": "20:00-08:00"}, "2026-06-10 12:00", "Wed 2026-06-10 12:00"),
        ({"hours": "20:00-08:00"}, "2026-06-10 20:00", "Thu 2026-06-11 08:00"),
        ({"hours": "20:00-08:00"}, "2026-06-11 07:59", "Thu 2026-06-11 08:00"),
        ({"hours": "20:00-08:00"}, "2026-06-11 08:00", "Thu 2026-06-11 08:00"),
        ({"hours": "12:00-13:30"}, "2026-06-11 12:00", "Thu 2026-06-11 13:30"),
        ({"hours": "20:00-24:00"}, "2026-06-11 23:59", "Fri 2026-06-12 00:00"),
        ({"days": ["sat", "sun"]}, "2026-06-12 23:59", "Fri 2026-06-12 23:59"),
        ({"days": ["sat", "sun"]}, "2026-06-13 00:00", "Mon 2026-06-15 00:00"),
        ({"hours": "20:00-08:00", "days": ["sat", "sun"]}, "2026-06-12 21:00", "Mon 2026-06-15 08:00"),
        ({"hours": "20:00-08:00", "days": ["mon", "tue", "wed", "thu", "sat", "sun"]},
         "2026-06-12 20:00", "Fri 2026-06-19 08:00"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_quiet_time_ends(zone: str, keys: dict[str, Any], now: str, opens: str) -> None:
    found = opens_us(quiet(timezone=zone, **keys), us(now, zone))
    assert shown(found, zone) == opens


def test_without_quiet_time_now_is_as_good_as_ever() -> None:
    assert opens_us(None, 17) == 17
    assert not is_quiet(None, 17)


def test_the_zone_decides() -> None:
    keys = {"hours": "20:00-08:00"}
    at = us("2026-06-10 19:00")
    assert not is_quiet(quiet(**keys), at)
    assert is_quiet(quiet(timezone="Europe/Berlin", **keys), at)


@pytest.mark.parametrize(
    ("hours", "now", "opens"),
    [
        # On 2026-03-29 in Berlin 02:00 is 03:00; on 2026-10-25 03:00 is 02:00 once more.
        ("20:00-08:00", "2026-03-28T19:30+00:00", "2026-03-29T06:00+00:00"),
        ("20:00-08:00", "2026-10-24T19:30+00:00", "2026-10-25T07:00+00:00"),
        ("01:00-02:30", "2026-03-29T00:10+00:00", "2026-03-29T01:00+00:00"),  # half past two never comes
        ("02:10-02:40", "2026-10-25T00:20+00:00", "2026-10-25T00:40+00:00"),
        ("02:10-02:40", "2026-10-25T01:20+00:00", "2026-10-25T01:40+00:00"),  # and is quiet again
        ("03:00-02:00", "2026-03-29T00:30+00:00", "2026-03-30T00:00+00:00"),  # its only hour never comes
    ],
)
def test_the_nights_on_which_clocks_are_changed(hours: str, now: str, opens: str) -> None:
    own = quiet(hours=hours, timezone="Europe/Berlin")
    now_us, opens_at_us = (round(datetime.fromisoformat(t).timestamp()) * SECOND for t in (now, opens))
    if is_quiet(own, now_us):
        assert opens_us(own, now_us) == opens_at_us
    else:
        pytest.fail("the case is not quiet to begin with")


MINUTES = st.integers(0, 24 * 60 - 1)


@st.composite
def quiets(draw: st.DrawFn) -> Quiet:
    keys: dict[str, Any] = {"timezone": draw(st.sampled_from(ZONES))}
    days = draw(st.lists(st.sampled_from(WEEK), unique=True, max_size=6))
    if days:
        keys["days"] = days
    if not days or draw(st.booleans()):
        begin, end = draw(st.lists(MINUTES, min_size=2, max_size=2, unique=True))
        keys["hours"] = f"{begin // 60:02d}:{begin % 60:02d}-{end // 60:02d}:{end % 60:02d}"
    return quiet(**keys)


CHANGES = [us("2026-03-29 01:00"), us("2026-10-25 01:00"), us("2026-11-01 06:00"), us("2026-04-04 15:00"),
           us("2011-12-30 10:00"), us("2026-02-15 02:00")]  # fmt: skip


@st.composite
def moments(draw: st.DrawFn) -> int:
    if draw(st.booleans()):
        return draw(st.sampled_from(CHANGES)) + draw(st.integers(-3 * 86_400 * SECOND, 86_400 * SECOND))
    return draw(st.integers(0, us("2060-01-01 00:00")))


@settings(max_examples=200, deadline=None)
@given(quiets(), moments(), st.lists(st.floats(0, 1), min_size=40, max_size=40))
def test_it_opens_at_the_first_moment_that_is_not_quiet(own: Quiet, now: int, parts: list[float]) -> None:
    found = opens_us(own, now)
    assert found >= now
    assert not is_quiet(own, found)
    if found > now:
        assert is_quiet(own, found - 1)
    minute = 60 * SECOND
    steps = range(now, found, minute) if found - now < 2_000 * minute else ()
    assert all(is_quiet(own, at) for at in steps)
    assert all(
        is_quiet(own, min(now + int(part * (found - now)), found - 1)) for part in parts if found > now
    )
