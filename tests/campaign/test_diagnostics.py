"""How a problem looks to a person."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blackopt.diagnostics import Problem, dotted, printable, suggest


def test_a_problem_without_text_has_no_line() -> None:
    assert (
        str(Problem("c.yaml", 0, 0, "", "does not exist", "check the path"))
        == "c.yaml: does not exist (check the path)"
    )


def test_a_long_line_is_cut_around_the_place() -> None:
    line = "x" * 300 + "HERE" + "y" * 300
    shown = str(Problem("c.yaml", 1, 301, "a", "is wrong", excerpt=line)).splitlines()
    caret = shown[2].index("^")
    assert shown[1][caret:].startswith("HERE")
    assert len(shown[1]) < 140


def test_tabs_and_controls_keep_the_caret_in_place() -> None:
    shown = str(Problem("c.yaml", 1, 4, "a", "is wrong", excerpt="\ta\x1bX")).splitlines()
    assert shown[1][shown[2].index("^")] == "X"
    assert "\x1b" not in shown[1]


def test_paths() -> None:
    assert dotted(()) == ""
    assert dotted(("guardrails", 0, "metric")) == "guardrails[0].metric"


def test_suggestions_look_past_case_and_dashes() -> None:
    assert suggest("max-in-flight", ["max_in_flight", "trials"]) == "did you mean `max_in_flight`?"
    assert suggest("Window", ["window"]) == "did you mean `window`?"
    assert suggest("zzz", ["window"]) == ""


@given(st.text())
def test_printable_text_is_printable(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text, width=1)) == len(text)
