"""What ``blackopt trials`` and the report show beside what was told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blackopt.cli import trials as verb
from blackopt.cli.output import Output
from blackopt.ledger import Ledger
from blackopt.report.page import render
from blackopt.runner.assembly import Parts
from blackopt.testing.clock import DAY_US
from blackopt.types import Reading

Shown = Callable[..., Any]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """What ``blackopt trials`` prints about a world: text, or with JSON the parsed data."""

    def call(world: Any, output: Output = Output.TABLE) -> Any:
        path = Path(world.folder) / "campaign.yaml"
        path.write_text(json.dumps(world.document))
        capsys.readouterr()
        verb.trials(path, output, 1_000)
        out = capsys.readouterr().out
        return json.loads(out) if output is Output.JSON else out

    return call


def page(world: Any) -> str:
    with Parts(world.spec, clock=world.clock) as parts, world.ledger() as ledger:
        return render(parts, ledger)


def restate(world: Any, arm: str, add: int) -> None:
    spec, now_us = world.spec, world.clock.now_us() + DAY_US
    with Ledger.open(spec.ledger) as ledger, ledger.drive(at_us=now_us) as driver:
        [row] = [r for r in ledger.latest(1, arm=arm) if r.reading.metric == "success"]
        stats = {**row.reading.stats, "sum": row.reading.stats["sum"] + add}
        driver.ingest(spec.measure.use, [Reading("success", 1, arm, "", now_us, stats)], at_us=now_us)


def test_partial_values_are_marked(world: Any, shown: Shown) -> None:
    with world.process() as runner:
        runner.turn()
        world.clock.wait_until(runner.turn().next_us)
        runner.turn()
    text = shown(world)
    assert text.count("% (so far)") == 4
    rows = shown(world, Output.JSON)
    assert all(row["value"] is None and row["status"] is None for row in rows)
    assert all(set(row["so_far"]) == {"value", "se"} for row in rows)
    assert page(world).count("% (so far)") == 4


def test_settled_trials_show_nothing_more(world: Any, shown: Shown) -> None:
    world.finish()
    text = shown(world)
    assert "so far" not in text
    assert "now" not in text.splitlines()[0].split()
    assert {(row["so_far"], row["now"], row["matured"]) for row in shown(world, Output.JSON)} == {
        (None, None, None)
    }
    html = page(world)
    assert "Restated metrics" not in html
    assert "Surrogate" not in html


def test_a_restated_value_stands_beside_what_was_told(world: Any, shown: Shown) -> None:
    world.finish()
    before = {row["trial"]: row for row in shown(world, Output.JSON)}
    restate(world, "t2", 90)
    after = {row["trial"]: row for row in shown(world, Output.JSON)}
    assert after[2]["now"]["value"] > before[2]["value"]
    assert after[2] == {**before[2], "now": after[2]["now"]}
    assert {n: row for n, row in after.items() if n != 2} == {n: row for n, row in before.items() if n != 2}
    head, *lines = shown(world).splitlines()
    assert "now" in head.split()
    per_cent = f"{100 * after[2]['now']['value']:+.2f} %"
    assert [line.split()[0] for line in lines if per_cent in line] == ["t2"]
    html = page(world)
    assert "<h2>Restated metrics</h2>" in html
    section = html.split("<h2>Restated metrics</h2>")[1].split("</table>")[0]
    assert per_cent in section
    assert section.count("<tr>") == 2


@pytest.fixture
def ranked(make_world: Callable[..., Any]) -> Any:
    """A finished campaign whose search was told from clicks, and whose objective has matured since."""
    made = make_world(
        measure={"metrics": {"click": {"kind": "proportion", "query": "unused.sql", "window": "6h"}}},
        objective={
            "maximize": "success",
            "relative_to": "control",
            "surrogate": {"metric": "click", "slope": 0.5, "error": "2%"},
        },
    )
    made.production.metrics = {"success": lambda rate: rate, "click": lambda rate: 0.1 + rate}
    made.finish()
    return made


def test_a_surrogate_is_shown_with_what_has_shown_since(ranked: Any, shown: Shown) -> None:
    text = shown(ranked)
    assert "matured" in text.splitlines()[0].split()
    assert text.splitlines()[-1].startswith("surrogate click: declared slope 0.5, error 2.00 %; ")
    rows = [row for row in shown(ranked, Output.JSON) if row["role"] == "search"]
    assert all(row["matured"] is not None for row in rows)
    html = page(ranked)
    assert "<h2>Surrogate</h2><p>surrogate click: declared slope 0.5, error 2.00 %; " in html
    assert "It ranks the candidates of the search; it promotes none." in html


def test_a_surrogate_is_no_part_of_json(ranked: Any, shown: Shown) -> None:
    assert isinstance(shown(ranked, Output.JSON), list)
