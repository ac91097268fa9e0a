"""Ledgers, drivers and short words for their rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from blackopt.ledger import Driver, Ledger
from blackopt.ledger.rows import NewCampaign, NewTrial, WindowRow
from blackopt.types import Reading, Role, Slice

CAMPAIGN = NewCampaign("offer", '{"name":"offer"}', "c" * 64, "random", "1")
DAY_US = 86_400_000_000


class Make:
    """Short words for the rows that the tests write."""

    campaign = CAMPAIGN

    @staticmethod
    def trial(number: int, *, window: int | None = None, width: int = 3, seed: int = 0) -> NewTrial:
        vector = np.random.default_rng([seed, number]).standard_normal(width)
        cut = None if window is None else Slice(1000 * (number + 1), 1000 * (number + 2))
        return NewTrial(number, number, Role.SEARCH, 0, 0, vector, window=window, slice=cut)

    @staticmethod
    def window(number: int = 1) -> WindowRow:
        return WindowRow(
            number, Role.SEARCH, f"salt{number}", number * DAY_US, (number + 1) * DAY_US, Slice(0, 1000)
        )

    @staticmethod
    def reading(
        arm: str, total: float = 57.0, *, as_of_us: int = 10, window: int = 1, **other: object
    ) -> Reading:
        stats = other.pop("stats", {"n": 310.0, "sum": total})
        metric, cohort = other.pop("metric", "visit"), other.pop("cohort", "2026-01-01")
        return Reading(metric, window, arm, cohort, as_of_us, stats)  # type: ignore[arg-type]

    @staticmethod
    def value(number: int, value: float) -> Reading:
        return Reading("value", 0, f"t{number}", "", 5, {"value": value})


@pytest.fixture
def make() -> type[Make]:
    return Make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "campaign.ledger"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.create(path, CAMPAIGN, at_us=1) as created:
        yield created


@pytest.fixture
def driver(ledger: Ledger) -> Iterator[Driver]:
    with ledger.drive(at_us=2) as driver:
        yield driver
