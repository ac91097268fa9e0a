"""What benchmarks measured, on the pages that show it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.results import Table, command, read, write
from docs.generate import with_results

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
PAGE = """# Page

<!-- results: one -->
old
<!-- end of one -->

In between.

<!-- results: two -->
<!-- end of two -->
"""
TABLE = Table(
    title="Speed", columns=["what", "s"], rows=[["fast", 0.12345], ["slow", None]], note="On a `good` day."
)


def test_results_are_written_in_their_place_and_others_left_out(tmp_path: Path) -> None:
    write(tmp_path / "one.json", "Speeds", [TABLE], seeds="100 to 104", lost=["The slow one never arrived."])
    page = with_results(PAGE, tmp_path)
    shown = page.partition("<!-- results: one -->\n")[2].partition("<!-- end of one -->")[0]
    assert "old" not in page
    assert "\n### Speeds\n" in shown
    assert "| what | s |\n| --- | --- |\n| fast | 0.123 |\n| slow |  |\n" in shown
    assert "On a `good` day." in shown
    assert "- The slow one never arrived." in shown
    assert "Seeds: 100 to 104." in shown
    assert page.endswith("In between.\n\n<!-- results: two -->\n<!-- end of two -->\n")
    assert with_results(page, tmp_path) == page


def test_a_page_without_its_results_shows_nothing_in_their_place(tmp_path: Path) -> None:
    assert "old" not in with_results(PAGE, tmp_path)


def test_a_place_for_results_must_end(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="end of one"):
        with_results("<!-- results: one -->\n", tmp_path)


def test_a_table_has_a_cell_for_every_column() -> None:
    with pytest.raises(ValidationError, match="row 1 has 1 cells"):
        Table(title="t", columns=["a", "b"], rows=[["x", 1], ["y"]])


def test_the_command_is_the_one_that_prints_the_numbers() -> None:
    given = ["/somewhere/benchmarks/delay.py", "--seeds", "5", "--json", "x.json", "--quick"]
    assert command(given) == "python benchmarks/delay.py --seeds 5 --quick"
    assert command(["delay.py", "--json=x.json"]) == "python benchmarks/delay.py"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_kept_results_have_the_format_and_a_page_that_shows_them(path: Path) -> None:
    assert read(path).tables
    pages = [page.read_text(encoding="utf-8") for page in RESULTS.parent.glob("*.md")]
    assert any(f"<!-- results: {path.stem} -->\n" in page for page in pages)


def test_numbers_of_a_page_that_were_changed_by_hand_are_found(tmp_path: Path) -> None:
    write(tmp_path / "one.json", "Speeds", [TABLE], seeds="0")
    page = with_results(PAGE, tmp_path)
    assert with_results(page.replace("0.123", "0.100"), tmp_path) == page
