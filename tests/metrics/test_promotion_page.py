"""The page on promotion: its bounds and its example are what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from blackopt.metrics.combination import bounds
from blackopt.metrics.promotion import Look, Plan, decide
from blackopt.types import Estimate

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "promotion.md").read_text(encoding="utf-8")


def test_the_bounds_of_the_page_are_those_of_the_test() -> None:
    rows = re.findall(r"^\| (\d+) \|((?: ?[\d.]* ?\|){5})$", PAGE, re.MULTILINE)
    assert len(rows) >= 4
    for looks, cells in rows:
        found = [cell.strip() for cell in cells.split("|") if cell.strip()]
        assert found == [f"{bound:.3f}" for bound in bounds(int(looks), Plan().alpha)]


def test_the_example_of_the_page_is_what_is_said() -> None:
    found = decide(Plan(looks=3), [Look(Estimate(0.01, 0.01, 1), {})] * 3)
    assert found.enough is not None
    assert f"{found.reason}\n{found.enough.text}\n" in PAGE
