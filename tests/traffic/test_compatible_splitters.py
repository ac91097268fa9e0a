"""Splitters of other systems, held to the vectors that their projects publish."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackopt.errors import UsageError
from blackopt.traffic import BUCKETS, bucket
from blackopt.traffic.compatible import (
    _sixty_bits,
    growthbook_v1,
    growthbook_v2,
    launchdarkly,
    launchdarkly_seeded,
    part_of,
    planout,
    unleash,
    unleash_variant,
)

# growthbook/growthbook, packages/sdk-js/test/cases.json (0.5.4), "hash": seed, value, version, number.
GROWTHBOOK = [
    ("", "a", 1, 0.22),
    ("", "b", 1, 0.077),
    ("b", "a", 1, 0.946),
    ("ef", "d", 1, 0.652),
    ("asdf", "8952klfjas09ujk", 1, 0.549),
    ("", "123", 1, 0.011),
    ("", '___)((*":&', 1, 0.563),
    ("seed", "a", 2, 0.0505),
    ("seed", "b", 2, 0.2696),
    ("foo", "ab", 2, 0.2575),
    ("foo", "def", 2, 0.2019),
    ("89123klj", "8952klfjas09ujkasdf", 2, 0.124),
    ("90850943850283058242805", "123", 2, 0.7516),
    ("()**(%$##$%#$#", '___)((*":&', 2, 0.0128),
]


@pytest.mark.parametrize(("seed", "unit", "version", "expected"), GROWTHBOOK)
def test_growthbook_gives_its_published_numbers(seed: str, unit: str, version: int, expected: float) -> None:
    splitter = {1: growthbook_v1, 2: growthbook_v2}[version]
    assert splitter(seed, unit) == expected


# Unleash/unleash-client-node, src/test/strategy/util.test.ts: "the same across node, java, and go clients".
@pytest.mark.parametrize(("unit", "group", "number"), [("123", "gr1", 73), ("999", "groupX", 25)])
def test_unleash_gives_its_published_rollout_numbers(unit: str, group: str, number: int) -> None:
    assert unleash(group, unit) == (number - 1) / 100


# Unleash/unleash-client-java, StrategyUtilsTest: the same pairs with the seed of variants.
@pytest.mark.parametrize(("unit", "group", "number"), [("123", "gr1", 96), ("999", "groupX", 60)])
def test_unleash_gives_its_published_variant_numbers(unit: str, group: str, number: int) -> None:
    assert unleash_variant(group, unit, parts=100) == (number - 1) / 100


# Unleash/client-specification, specifications/12-custom-stickiness.json.
@pytest.mark.parametrize(("unit", "enabled"), [("402", False), ("388", True), ("39", True)])
def test_unleash_enables_whom_its_specification_enables(unit: str, enabled: bool) -> None:
    assert (unleash("Feature.flexible.rollout.custom.stickiness_50", unit) < 0.5) == enabled


# The same file. Up to version 4 of the specification variants had the seed of rollouts.
@pytest.mark.parametrize(
    ("unit", "variant"), [("528", "blue"), ("16", "blue"), ("198", "red"), ("43", "green"), ("112", "yellow")]
)
def test_unleash_cuts_weights_as_its_specification_does(unit: str, variant: str) -> None:
    index = part_of(unleash("Feature.flexible.rollout.custom.stickiness_100", unit), [0.25] * 4)
    assert index is not None
    assert ["blue", "red", "green", "yellow"][index] == variant


# facebookarchive/planout, python/planout/test/test_assignment.py and test_experiment.py: uniform choices,
# which are the 60 bits modulo the number of choices.
@pytest.mark.parametrize(
    ("salt", "unit", "choices", "index"),
    [
        ("test_salt.foo", "4", 2, 1),
        ("test_salt.bar", "4", 2, 0),
        ("test_salt.baz", "4", 2, 0),
        ("test_salt.foo", "4", 8, 7),
        ("test_name.foo", "42", 2, 1),
    ],
)
def test_planout_gives_its_published_choices(salt: str, unit: str, choices: int, index: int) -> None:
    bits = _sixty_bits(f"{salt}.{unit}")
    assert bits % choices == index
    assert planout(salt, unit) == bits / 0xFFFFFFFFFFFFFFF


# launchdarkly/python-server-sdk and others, "gets expected bucket values for specific keys".
@pytest.mark.parametrize(
    ("unit", "plain", "seeded"),
    [
        ("userKeyA", 0.42157587, 0.09801207),
        ("userKeyB", 0.6708485, 0.14483777),
        ("userKeyC", 0.10343106, 0.9242641),
    ],
)
def test_launchdarkly_gives_its_published_buckets(unit: str, plain: float, seeded: float) -> None:
    assert launchdarkly("hashKey", "saltyA", unit) == pytest.approx(plain, abs=1e-7)
    assert launchdarkly_seeded(61, unit) == pytest.approx(seeded, abs=1e-7)
    assert launchdarkly("hashKey", "saltyA", "33333") == pytest.approx(0.54771423, abs=1e-7)


SPLITTERS: list[Callable[[str, str], float]] = [
    growthbook_v1,
    growthbook_v2,
    unleash,
    unleash_variant,
    planout,
    lambda salt, unit: launchdarkly("flag", salt, unit),
    lambda salt, unit: launchdarkly_seeded(len(salt), unit),
]


@given(
    st.sampled_from(SPLITTERS),
    st.text(st.characters(codec="utf-8")),
    st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_every_splitter_stays_inside_its_interval_and_repeats_itself(
    splitter: Callable[[str, str], float], salt: str, unit: str
) -> None:
    u = splitter(salt, unit)
    assert 0.0 <= u < 1.0
    assert splitter(salt, unit) == u


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_every_splitter_spreads_units_evenly(splitter: Callable[[str, str], float]) -> None:
    n = 10_000
    counts = [0] * 10
    for i in range(n):
        counts[int(splitter("salt", f"user-{i}") * 10)] += 1
    assert sum((c - n / 10) ** 2 / (n / 10) for c in counts) < 27.9  # 99.9 % quantile, 9 degrees of freedom


@pytest.mark.parametrize("splitter", SPLITTERS)
@pytest.mark.parametrize("unit", ["", None, 7])
def test_a_unit_without_an_id_is_refused(splitter: Callable[[str, str], float], unit: object) -> None:
    with pytest.raises(UsageError, match="unit: expected"):
        splitter("salt", unit)  # type: ignore[arg-type]


@given(st.text("abc-:", max_size=12), st.text("abc.", min_size=1, max_size=12))
def test_blackopts_own_splitter_is_planouts_in_millionths(salt: str, unit: str) -> None:
    u = planout(f"campaign.{salt}", unit)
    assert abs(bucket("campaign", salt, unit) - u * BUCKETS) <= 1.0


def test_parts_are_cut_in_their_order_and_the_rest_takes_no_part() -> None:
    weights = [0.2, 0.0, 0.1]
    assert [part_of(u, weights) for u in (0.0, 0.1999, 0.2, 0.29, 0.3000001, 0.99)] == [
        0,
        0,
        2,
        2,
        None,
        None,
    ]
    assert (
        part_of(math.nextafter(1.0, 0.0), [0.1] * 10) == 9
    )  # ten tenths are one, though not if added naively


@pytest.mark.parametrize(
    ("u", "weights", "message"),
    [
        (1.0, [1.0], "u: expected"),
        (-0.1, [1.0], "u: expected"),
        (0.5, [0.7, 0.7], "weights: expected"),
        (0.5, [-0.1, 0.2], "weights: expected"),
        (0.5, [math.nan], "weights: expected"),
    ],
)
def test_impossible_parts_are_refused(u: float, weights: list[float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        part_of(u, weights)


@pytest.mark.parametrize("splitter", [unleash, unleash_variant])
def test_less_than_one_part_is_refused(splitter: Callable[..., float]) -> None:
    with pytest.raises(UsageError, match="parts: expected"):
        splitter("group", "unit", parts=0)
