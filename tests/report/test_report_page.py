"""The report as a browser shows it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from blackopt.report.charts import Dot, Scale, scatter
from blackopt.report.page import TRIALS_SHOWN
from blackopt.report.shell import CONTENT_SECURITY_POLICY

SCRIPT = "<script>document.title = 'owned'</script>"
MEASURE = (
    "<script>const e = document.documentElement; document.title = e.scrollWidth - e.clientWidth</script>"
)


def title(dom: str) -> str:
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found
    return found[1]


def text_of(page: str) -> str:
    without_style = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", without_style))


class Balance(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed at once, as SVG's shapes are."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(params=["production_page", "evaluation_page"])
def page(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_the_page_is_well_formed(page: str) -> None:
    balance = Balance()
    balance.feed(page)
    assert balance.open == []


def test_production_has_its_story(production_page: str) -> None:
    text = text_of(production_page)
    assert "hill done" in text
    assert re.search(
        r"[+-]\d+\.\d\d % returned \d+\.\d\d&nbsp;% against \d+\.\d\d&nbsp;% under control", text
    )
    assert "Maximize returned against control, trial by trial" in text
    assert "parameter incumbent recommended" in text
    assert "the recommendation, measured again" in text
    assert "(1.5 * control)" in text
    assert (
        production_page.count("<tr>") == 1 + 2 + 1 + 8 + 1 + 50
    )  # parameters, windows, trials, with their heads
    assert "All times are UTC" in text


def test_an_evaluation_speaks_of_no_production(evaluation_page: str) -> None:
    text = text_of(evaluation_page)
    assert "parameter start recommended" in text
    for word in ("control", "incumbent", "window", "guardrail", "Set aside"):
        assert word not in text


def test_nothing_was_told_yet(told_by_hand: Callable[..., str]) -> None:
    text = text_of(told_by_hand(0))
    assert "Nothing was told yet." in text
    assert "nothing was measured yet" in text


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    for word in (
        "http:",
        "https:",
        "src=",
        "href=",
        "url(",
        "@import",
        "<link",
        "<script",
        "<iframe",
        "<img",
    ):
        assert word not in page
    assert f'content="{CONTENT_SECURITY_POLICY}"' in page
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'")


def test_the_browser_shows_it(browse: Callable[..., str], production_page: str) -> None:
    dom = browse(production_page)
    assert title(dom) == "hill · blackopt"
    assert "under control" in dom
    assert dom.count("<circle") == production_page.count("<circle") > 20
    assert dom.count("<tr>") == production_page.count("<tr>")


@pytest.mark.parametrize("width", [500, 1200])
def test_the_page_is_never_wider_than_the_screen(browse: Callable[..., str], page: str, width: int) -> None:
    measured = page.replace(CONTENT_SECURITY_POLICY, "").replace("</body>", f"{MEASURE}</body>")
    assert title(browse(measured, width=width)) == "0"


def test_f73_a_script_in_a_cause_is_text(
    browse: Callable[..., str], told_by_hand: Callable[..., str]
) -> None:
    page = told_by_hand(3, {1: SCRIPT + "<img src=x onerror=\"document.title='owned'\">"})
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;document.title = &#x27;owned&#x27;" in page
    assert "<b>none</b>" not in page
    dom = browse(page)
    assert title(dom) == "tasting · blackopt"
    assert "&lt;script&gt;" in dom


def test_f73_a_script_that_slipped_through_would_not_run(
    browse: Callable[..., str], told_by_hand: Callable[..., str]
) -> None:
    slipped = told_by_hand(1).replace("</body>", f"{SCRIPT}</body>")
    assert title(browse(slipped)) == "tasting · blackopt"
    assert title(browse(slipped.replace(CONTENT_SECURITY_POLICY, ""))) == "owned", (
        "or this test proves nothing"
    )


def test_thousands_of_trials_stay_small(browse: Callable[..., str], told_by_hand: Callable[..., str]) -> None:
    page = told_by_hand(5000)
    assert len(page.encode()) < 2_000_000
    assert f"The last {TRIALS_SHOWN} of 5000." in page
    assert browse(page).count("<circle") == 5000


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-0.5, 0.0, 0.5, 1.0], ["-50 %", "0 %", "+50 %", "+100 %"]),
        ([0.0, 0.002, 0.004], ["0.0 %", "+0.2 %", "+0.4 %"]),
    ],
)
def test_ticks_have_the_decimals_that_they_need(values: list[float], expected: list[str]) -> None:
    assert Scale(100.0, " %", signed=True).ticks(values) == expected


def test_large_and_tiny_numbers_are_readable_ticks() -> None:
    assert Scale().ticks([0.0, 2e6, 4e6]) == ["0", "2e+06", "4e+06"]
    assert Scale().ticks([0.0, 1e-9]) == ["0", "1e-09"]
    assert Scale().ticks([5.0]) == ["5"]


def test_one_value_alone_makes_a_chart() -> None:
    svg = ET.fromstring(scatter([Dot(1, 3.0, 0.0, "ok", "t0")], [], scale=Scale(), baseline=None))
    assert len(svg.findall("circle")) == 1


def test_equal_values_make_a_chart() -> None:
    dots: list[Any] = [Dot(i, 0.0, 0.1, "ok", "") for i in range(3)]
    svg = ET.fromstring(scatter(dots, [(0.5, 3.5, 0.0)], scale=Scale(), baseline=None))
    assert len(svg.findall("circle")) == 3
    assert [path.get("class") for path in svg.findall("path")] == ["ok"]
