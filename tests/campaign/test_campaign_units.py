"""Durations, shares and bounds: exact, with their unit, and back."""

# ruff: noqa: E501  tables of cases, one a line

from __future__ import annotations

import contextlib
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from blackopt.campaign.units import (
    LONGEST_US,
    MILLION,
    UNITS_US,
    check_bound,
    format_duration,
    format_share,
    parse_duration,
    parse_share,
)

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("14d", 14 * 86_400 * SECOND),
        ("15m", 900 * SECOND),
        ("1h30m", 5_400 * SECOND),
        ("1h 30m", 5_400 * SECOND),
        ("45s", 45 * SECOND),
        ("250ms", SECOND // 4),
        ("250 ms", SECOND // 4),
        ("2w", 14 * 86_400 * SECOND),
        ("1.5h", 5_400 * SECOND),
        ("0.000001s", 1),
        (" 7us ", 7),
        ("0s", 0),
        ("1w1d1h1m1s1ms1us", 694_861_001_001),
    ],
)
def test_durations_are_exact_microseconds(text: str, us: int) -> None:
    assert parse_duration(text) == us


@pytest.mark.parametrize(
    "value",
    [15, 0, 1.5, "15", "1.5", "", "  ", "d", "1y", "1M", "15 minutes", "30m1h", "1h1h", "-1d", "1d-", "0.1us",
     "99999999d", True, None, [], {}, float("inf"), float("nan"), "١d", "1e3s"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(PydanticCustomError):
        parse_duration(value)


def test_a_number_without_unit_is_told_which_units_there_are() -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_duration(14)
    assert caught.value.context is not None
    assert caught.value.message() == "14 has no unit"
    assert caught.value.context["hint"] == "write 14s, 14m, 14h or 14d"


@given(st.integers(0, LONGEST_US))
def test_durations_survive_the_round_trip(us: int) -> None:
    assert parse_duration(format_duration(us)) == us


@given(st.lists(st.sampled_from(list(UNITS_US)), unique=True, min_size=1), st.data())
def test_a_duration_is_the_sum_of_its_parts(units: list[str], data: st.DataObject) -> None:
    parts = [(data.draw(st.integers(0, 50)), unit) for unit in UNITS_US if unit in units]
    text = "".join(f"{n}{unit}" for n, unit in parts)
    assert parse_duration(text) == sum(n * UNITS_US[unit] for n, unit in parts)


@pytest.mark.parametrize(
    ("text", "millionths"),
    [
        ("60%", 600_000),
        ("12.5 %", 125_000),
        ("0.0001%", 1),
        ("0%", 0),
        ("100%", MILLION),
        ("100.0%", MILLION),
    ],
)
def test_shares_are_exact_millionths(text: str, millionths: int) -> None:
    assert parse_share(text) == millionths


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (0.6, "write 60%"),
        (60, "write 60%"),
        (12.5, "write 12.5%"),
        ("0.6", "such as 60% or 12.5%"),
        ("101%", "at most 100%"),
        ("-1%", "such as 60% or 12.5%"),
        ("0.00001%", "at most four decimals"),
        (True, "such as 60% or 12.5%"),
        (None, "such as 60% or 12.5%"),
        (float("inf"), "write 60%"),
    ],
)
def test_what_is_no_share_is_refused_with_what_to_write(value: object, hint: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_share(value)
    assert (caught.value.context or {})["hint"] == hint


@given(st.integers(0, MILLION))
def test_shares_survive_the_round_trip(millionths: int) -> None:
    text = format_share(millionths)
    assert parse_share(text) == millionths
    assert Fraction(text.removesuffix("%")) * 10_000 == millionths


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("1.05 * control", "1.05 * control"),
        ("1.05*control", "1.05 * control"),
        (" control * 2 ", "2.0 * control"),
        ("control", "1.0 * control"),
        ("9e-1 * control", "0.9 * control"),
        (0.02, 0.02),
        (-3, -3.0),
    ],
)
def test_bounds(value: object, kept: object) -> None:
    assert check_bound(value) == kept


@pytest.mark.parametrize(
    "value", ["1.05 * contro", "0 * control", "-1 * control", "1..2 * control", "1e999 * control", "0.02", "", True,
              None, [], "* control", "2 * control * 2", "1 + control"],
)  # fmt: skip
def test_what_is_no_bound_is_refused(value: object) -> None:
    with pytest.raises(PydanticCustomError):
        check_bound(value)


@given(st.text(max_size=30))
@pytest.mark.parametrize("parse", [parse_duration, parse_share, check_bound])
def test_no_text_crashes_a_parser(parse: Callable[[object], object], text: str) -> None:
    with contextlib.suppress(PydanticCustomError):
        parse(text)
