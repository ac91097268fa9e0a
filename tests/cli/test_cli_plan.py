"""`plan` on the starter: figures for people and programs, and refusals."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

PLAN = ("plan", "--baseline", "bought=8%", "--units", "2e9")


@pytest.fixture
def starter(folder: Any) -> Any:
    assert folder.call("init").code == 0
    return folder


def test_a_plan_for_people_and_for_programs(starter: Any) -> None:
    answer = starter.call(*PLAN, "--improve", "5%", "--spread", "2%")
    assert answer.code == 0, answer.err
    assert "signal over noise" in answer.out
    assert "least variance at 26.1%" in answer.out
    data = starter.call(*PLAN, "--improve", "5%", "--spread", "0.02", "-o", "json").data
    assert data["hopeless"] == ""
    assert [row["arms"] for row in data["table"]] == [4, 8, 16, 32] * 3
    assert data["own"]["arm_units"] == pytest.approx(12_500)
    assert not list(starter.path.glob("*.db"))


def test_a_campaign_that_cannot_learn_is_refused_unless_forced(starter: Any) -> None:
    hopeless = ("plan", "--baseline", "bought=0.08", "--units", "1e7", "--improve", "1%")
    answer = starter.call(*hopeless)
    assert answer.code == 2
    assert "cannot learn" in answer.err
    assert "signal over noise" in answer.out
    assert starter.call(*hopeless, "-o", "json").data["hopeless"]
    forced = starter.call(*hopeless, "--force")
    assert forced.code == 0
    assert "warning" in forced.err


def test_the_spread_follows_from_sigma_and_the_hoped_for_improvement(starter: Any) -> None:
    data = starter.call(*PLAN, "--improve", "5%", "--force", "-o", "json").data
    assert 0 < data["spread"] < 0.15 * 0.05 / 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--units", "0"], "--units"),
        (["--units", "nan"], "--units"),
        (["--units", "9", "--baseline", "bought"], "no baseline"),
        (["--units", "9", "--baseline", "bought=high"], "no baseline"),
        (["--units", "9", "--baseline", "bought=3:-1"], "no baseline"),
        (["--units", "9", "--baseline", "clicked=3%"], "there is no metric clicked"),
        (["--units", "9"], "add --baseline bought=RATE"),
        (["--units", "9", "--baseline", "bought=3%", "--improve", "3"], "--improve 3%"),
        (["--units", "9", "--baseline", "bought=3%", "--spread", "-1%"], "--spread"),
        ([], "--units"),
        (["--since", "2026-10-01"], "--until"),
        (["--since", "October", "--until", "2026-11-01"], "--since"),
        (["--since", "2026-10-01", "--until", "2026-11-01"], "`history`"),
        (["--units", "9", "--baseline", "bought=3:1:2"], "no baseline"),
        (["--units", "9", "--baseline", "bought=3:1:0.5:7"], "no baseline"),
    ],
)
def test_impossible_options_are_refused(options: list[str], says: str, starter: Any) -> None:
    answer = starter.call("plan", *options)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err
    assert "Traceback" not in answer.err


def test_weights_without_bounds_need_the_spread(starter: Any) -> None:
    file = starter.path / "campaign.yaml"
    text = file.read_text().replace("size:   {int: [1, 9], start: 2}", "size:   {weights: 3}")
    file.write_text(text)
    answer = starter.call(*PLAN, "--improve", "5%")
    assert answer.code == 0
    assert "--spread" in answer.err


def test_a_campaign_without_traffic_has_no_plan(evaluation: Any) -> None:
    answer = evaluation.call(*PLAN)
    assert (answer.code, answer.out) == (2, "")
    assert "no traffic" in answer.err


PAST = """\
SELECT 'control' AS arm, date(first_us / 1000000, 'unixepoch') AS cohort, count(*) AS n, sum(bought) AS sum,
  :as_of AS as_of
FROM past WHERE first_us >= :window_start AND first_us < :window_end GROUP BY 2 ORDER BY 2
"""


def with_past(starter: Any) -> None:
    """Two weeks of 400 visitors a day, 300 on the weekend, of whom a tenth bought."""
    starter.write("queries/past.sql", PAST)
    day_us = 86_400_000_000
    with closing(sqlite3.connect(starter.path / "events.db")) as events, events:
        events.execute("CREATE TABLE past (first_us INTEGER, bought INTEGER)")
        for day in range(20_450, 20_464):  # 2025-12-28 to 2026-01-10
            n = 300 if (day + 3) % 7 >= 5 else 400
            rows = [(day * day_us + i, int(i % 10 == 0)) for i in range(n)]
            events.executemany("INSERT INTO past VALUES (?, ?)", rows)
    file = starter.path / "campaign.yaml"
    text = file.read_text().replace("bought.sql,", "bought.sql, history: {query: queries/past.sql},")
    file.write_text(text)


SPAN = ("--since", "2025-12-28", "--until", "2026-01-11")


def test_the_past_of_the_control_replaces_what_had_to_be_stated(starter: Any) -> None:
    with_past(starter)
    answer = starter.call("plan", *SPAN)
    assert answer.code == 0, answer.err
    assert "week: Mon 108 %" in answer.out
    assert "Sun 81 %" in answer.out
    data = starter.call("plan", *SPAN, "-o", "json").data
    assert data["past"]["bought"]["mean"] == pytest.approx(0.1)
    assert data["past"]["bought"]["units_per_day"] == pytest.approx(400 - 100 * 2 / 7)
    assert data["metrics"][0]["baseline"] == pytest.approx(0.1)
    stated = starter.call("plan", *SPAN, "--units", "2e9", "--baseline", "bought=8%", "-o", "json").data
    assert stated["metrics"][0]["baseline"] == 0.08
    assert stated["own"]["arm_units"] == pytest.approx(12_500)


def test_a_day_that_is_missing_is_named(starter: Any) -> None:
    with_past(starter)
    answer = starter.call("plan", "--since", "2025-12-26", "--until", "2026-01-11")
    assert (answer.code, answer.out) == (2, "")
    assert "2 of 16 days of bought are missing" in answer.err
    assert "queries/past.sql:1" in answer.err


def test_a_plan_can_be_drawn(starter: Any) -> None:
    answer = starter.call(*PLAN, "--improve", "5%", "--spread", "2%", "--plot", "plan.html")
    assert answer.code == 0, answer.err
    page = (starter.path / "plan.html").read_text()
    assert page.count("<svg") == 3
    assert "needed: 1.645" in page
    assert starter.call(*PLAN, "--plot", "missing/plan.html").code == 1


def test_a_plan_needs_no_secret(starter: Any) -> None:
    (starter.path / "secret.txt").unlink()
    assert starter.call(*PLAN).code == 0
