"""The splitter: exact shares, stable buckets, and slices that never overlap."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackopt.errors import UsageError
from blackopt.traffic import BUCKETS, allocate, assign, bucket
from blackopt.types import Slice

# First 15 digits from `printf 'campaign.salt.unit' | sha1sum`; u and the bucket by hand from them.
GOLDEN = [
    ("email-offer", "w1", "customer-42", "79ff9d186e2e1df", 0.4765566048283109, 476_556),
    ("email-offer", "w2", "customer-42", "8b4d41324b65bfa", 0.5441475627698287, 544_147),
    ("email-offer", "w1", "customer-43", "c3771596ce0c9d7", 0.7635358327079751, 763_535),
    ("checkout", "2024-05-01", "zoë", "f333a0c4d853305", 0.9500065308169041, 950_006),
    ("checkout", "2024-05-01", "東京", "4e7f75c2a42174d", 0.30663238527279707, 306_632),
    ("a", "b", "c.d", "3a03030725b0199", 0.22660845684521327, 226_608),
]


@pytest.mark.parametrize(("campaign", "salt", "unit", "digits", "u", "expected"), GOLDEN)
def test_golden_vectors(campaign: str, salt: str, unit: str, digits: str, u: float, expected: int) -> None:
    assert int(digits, 16) / 0xFFFFFFFFFFFFFFF == u
    assert int(u * 1_000_000) == expected
    assert bucket(campaign, salt, unit) == expected


class _Digest:
    def __init__(self, digits: str) -> None:
        self.digits = digits

    def hexdigest(self) -> str:
        return self.digits


@pytest.mark.parametrize(
    ("digits", "expected"), [("f" * 40, 999_999), ("0" * 40, 0), ("f" * 14 + "e" * 26, 999_999)]
)
def test_the_ends_of_the_interval(digits: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "blackopt.traffic.splitter.hashlib.sha1", lambda key, usedforsecurity: _Digest(digits)
    )
    assert bucket("c", "s", "u") == expected


def test_units_spread_evenly_and_a_new_salt_deals_them_anew() -> None:
    n, cells = 20_000, 10
    first = [bucket("c", "1", f"user-{i}") for i in range(n)]
    second = [bucket("c", "2", f"user-{i}") for i in range(n)]
    for drawn in (first, second):
        counts = Counter(b * cells // BUCKETS for b in drawn)
        chi2 = sum((counts[i] - n / cells) ** 2 / (n / cells) for i in range(cells))
        assert chi2 < 27.9  # 99.9 % quantile with 9 degrees of freedom
    joint = Counter((a * 4 // BUCKETS, b * 4 // BUCKETS) for a, b in zip(first, second, strict=True))
    chi2 = sum((joint[i, j] - n / 16) ** 2 / (n / 16) for i in range(4) for j in range(4))
    assert chi2 < 37.7  # 15 degrees of freedom


@pytest.mark.parametrize("unit", ["", None, 42, "\ud800"])
def test_a_unit_without_a_usable_id_is_refused(unit: object) -> None:
    with pytest.raises(UsageError, match="unit: expected"):
        bucket("c", "s", unit)  # type: ignore[arg-type]


def test_sixty_per_cent_with_a_fifth_as_control_and_sixteen_arms() -> None:
    control, arms = allocate(600_000, 200_000, 16)
    assert control == Slice(0, 120_000)
    assert arms[0] == Slice(120_000, 150_000)
    assert arms[-1] == Slice(570_000, 600_000)
    assert len(arms) == 16


@given(st.integers(1, BUCKETS), st.integers(0, BUCKETS - 1), st.integers(1, 200))
def test_slices_are_equal_never_overlap_and_stay_inside_the_share(share: int, control: int, k: int) -> None:
    try:
        first, arms = allocate(share, control, k)
    except UsageError:
        taken = share * control // BUCKETS
        assert (share - taken) // k == 0 or (control > 0 and taken == 0)
        return
    assert len(arms) == k
    assert len({a.upper - a.lower for a in arms}) == 1
    edges = [0, first.upper, *(a.upper for a in arms)]
    assert edges == sorted(edges)
    assert [first.lower, *(a.lower for a in arms)] == edges[:-1]
    assert all(a.upper > a.lower for a in arms)
    assert 0 <= share - arms[-1].upper < k
    assert first.upper == share * control // BUCKETS


@given(st.integers(0, BUCKETS - 1))
def test_assign_agrees_with_the_definition_of_a_slice(b: int) -> None:
    control, arms = allocate(600_000, 200_000, 7)
    slices = (control, *arms)
    inside = [i for i, s in enumerate(slices) if s.lower <= b < s.upper]
    found = assign(b, slices)
    assert inside == ([] if found is None else [found])


def test_an_empty_control_holds_nobody() -> None:
    control, arms = allocate(10, 0, 3)
    assert control == Slice(0, 0)
    assert assign(0, (control, *arms)) == 1
    assert assign(9, (control, *arms)) is None


@pytest.mark.parametrize(
    ("share", "control", "arms", "message"),
    [
        (0, 0, 1, "share: expected 1 to"),
        (BUCKETS + 1, 0, 1, "share: expected 1 to"),
        (10, -1, 1, "control: expected 0 to"),
        (10, BUCKETS, 1, "control: expected 0 to"),
        (10, 0, 0, "arms: expected at least 1"),
        (10, 0, 11, "too few"),
        (10, 1, 2, "too few"),
    ],
)
def test_impossible_allocations_are_refused(share: int, control: int, arms: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        allocate(share, control, arms)


def test_what_is_no_bucket_is_refused() -> None:
    with pytest.raises(UsageError, match="bucket: expected"):
        assign(BUCKETS, ())
