"""The example examples/online: its world, its shop, and its processes, one of them killed."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml

from blackopt import Campaign, Ledger
from blackopt.types import Query, Reading
from blackopt_connectors.sql import SqlMetricOptions, SqlOptions, SqlSource

EXAMPLE = Path(__file__).parents[2] / "examples" / "online"

sys.path.insert(0, str(EXAMPLE))
import killed  # noqa: E402
import sample  # noqa: E402
from initialize import initialize  # noqa: E402
from online_app import world  # noqa: E402
from online_app.shop import START_US, TICK_US, Shop  # noqa: E402
from online_app.world import HOUR_US  # noqa: E402

sys.path.remove(str(EXAMPLE))


# -- the world ---------------------------------------------------------------------------------------


def test_many_networks_at_once_score_as_each_of_them_does() -> None:
    draw = np.random.default_rng(1)
    tensors = {name: draw.normal(size=(3, *shape)) for name, shape in world.SHAPES.items()}
    x = draw.normal(size=(3, 5, world.FEATURES))
    together = world.scores(tensors, x)
    for i in range(3):
        alone = world.scores({name: tensor[i] for name, tensor in tensors.items()}, x[i])
        np.testing.assert_allclose(together[i], alone, rtol=1e-12)
        assert world.Network({name: tensor[i] for name, tensor in tensors.items()}).act(x[i, 0]) == int(
            np.argmax(alone[0])
        )


def test_there_is_something_to_learn_and_a_limit_to_it() -> None:
    assert sum(tensor.size for tensor in world.incumbent().values()) == world.WEIGHTS
    assert 0.2 < world.value(world.incumbent()) < 0.35
    assert 0.6 < world.best() < 0.7


def test_most_purchases_are_hours_late() -> None:
    delay_h = world.draw_visitors(np.random.default_rng(2), 10_000).delay_h
    assert 3.8 < np.median(delay_h) < 4.2
    assert 0.02 < np.mean(delay_h > world.WITHIN_H) < 0.05


# -- the shop ----------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A directory with a network, a campaign and an empty log."""
    initialize(tmp_path / "run")
    return tmp_path / "run"


def rows(directory: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(directory / "log.db")) as log:
        return log.execute(query).fetchall()


def lived(directory: Path, hours: int, *, restarts: int = 1) -> list[Any]:
    """The purchases of some hours, and the clock; each part by a shop of its own."""
    for part in range(1, restarts + 1):
        with closing(Shop(directory, seed=5, visitors=60)) as shop:
            end_us = START_US + hours * HOUR_US * part // restarts
            assert shop.advance(end_us) == end_us
    return [rows(directory, "SELECT * FROM purchases ORDER BY unit"), rows(directory, "SELECT * FROM clock")]


def test_a_shop_that_is_started_again_goes_on_where_its_clock_stands(tmp_path: Path) -> None:
    initialize(tmp_path / "one")
    initialize(tmp_path / "two")
    assert lived(tmp_path / "one", 6) == lived(tmp_path / "two", 6, restarts=3)


def test_a_purchase_is_in_the_log_from_when_it_has_happened(begun: Path) -> None:
    [purchases, [(now_us,)]] = lived(begun, 6)
    assert len(purchases) > 20
    assert all(visited_us <= bought_us < now_us for _, visited_us, bought_us in purchases)
    assert rows(begun, f"SELECT count(*) FROM future WHERE bought_us < {now_us}") == [(0,)]
    assert rows(begun, "SELECT count(*) > 10 FROM future") == [(1,)]
    assert rows(begun, "SELECT count(*) FROM exposures") == [(0,)]  # nobody is in an arm yet


def test_the_clock_lives_whole_ticks_and_answers_nonsense(begun: Path) -> None:
    with closing(Shop(begun, seed=5, visitors=60)) as shop, sample.make_server(shop) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/clock"
        try:
            assert requests.get(url, timeout=9).json() == {"now_us": START_US}
            for nonsense in (b"", b"[]", b'{"until_us": 1.5}', b'{"until_us": true}'):
                assert requests.post(url, data=nonsense, timeout=9).status_code == 400
            until_us = START_US + TICK_US + 1
            answer = requests.post(url, json={"until_us": until_us}, timeout=60).json()
            assert answer == {"now_us": START_US + TICK_US}
            assert requests.get(f"{url}/elsewhere", timeout=9).status_code == 404
        finally:
            server.shutdown()
            thread.join()


# -- the query ---------------------------------------------------------------------------------------


@pytest.fixture
def source(begun: Path) -> Iterator[SqlSource]:
    metrics = {"bought": SqlMetricOptions(query=Path("queries/bought.sql"))}
    with closing(SqlSource(SqlOptions(url="sqlite:///log.db"), metrics, base=begun)) as found:
        yield found


def test_a_visitor_who_was_logged_twice_counts_once_and_only_what_came_in_time(
    begun: Path, source: SqlSource
) -> None:
    lines = [("a", "t0", "u1"), ("b", "t0", "u1"), ("c", "t0", "u2"), ("d", "t0", "u3"), ("e", "t1", "u4")]
    limit = START_US + 12 * HOUR_US
    with closing(sqlite3.connect(begun / "log.db")) as log, log:
        log.executemany(
            "INSERT INTO exposures (id, campaign, window, arm, unit, time) VALUES (?, 'shop', 1, ?, ?, 0)",
            lines,
        )
        log.executemany(
            "INSERT INTO purchases VALUES (?, ?, ?)",
            [("u1", START_US, limit), ("u2", START_US, limit + 1), ("u9", START_US, START_US + 1)],
        )
        log.execute("UPDATE clock SET now_us = ?", (limit + HOUR_US,))

    def read(as_of_us: int) -> dict[str, tuple[Any, Any, int]]:
        query = Query("shop", 1, ("control", "t0", "t1"), START_US, START_US + HOUR_US, as_of_us, ("bought",))
        found = [each for each in source.read(query) if isinstance(each, Reading)]
        return {each.arm: (each.stats["n"], each.stats["sum"], each.as_of_us) for each in found}

    # It claims to know no more than its clock, whatever it is asked for.
    assert read(limit + 9 * HOUR_US) == {"t0": (3, 1, limit + HOUR_US), "t1": (1, 0, limit + HOUR_US)}
    assert read(limit - 1) == {"t0": (3, 0, limit - 1), "t1": (1, 0, limit - 1)}


def test_the_campaign_has_as_much_in_flight_as_comes_late(begun: Path) -> None:
    document = yaml.safe_load((begun / "campaign.yaml").read_text())
    arms, budget = 2 * document["explore"]["directions"], document["budget"]
    spec = Campaign.load(begun / "campaign.yaml", env={"SHOP_PORT": "1"}).spec
    assert document["measure"]["metrics"]["bought"]["window"] == f"{world.WITHIN_H}h"
    # The window in traffic, the twelve that wait for purchases, and the one that is about to be told.
    assert budget["max_in_flight"] == (world.WITHIN_H + 2) * arms
    assert spec.budget.trials % arms == 0


@pytest.mark.parametrize(("windows", "asked"), [(1, [8, 8, 16, 16]), (14, [8, 16, 24, 32])])
def test_how_much_may_be_in_flight_is_whether_it_waits(begun: Path, windows: int, asked: list[int]) -> None:
    """A window of an hour, of which all is known an hour later."""
    killed.settle(begun, 4, "1h")
    document = yaml.safe_load((begun / "campaign.yaml").read_text())
    document["budget"]["max_in_flight"] = windows * 8
    (begun / "campaign.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    found = []
    with closing(Shop(begun, seed=5, visitors=120)) as shop, sample.make_server(shop) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            for hour in range(4):
                shop.advance(START_US + hour * HOUR_US)
                campaign = Campaign.load(begun / "campaign.yaml", env={"SHOP_PORT": str(server.server_port)})
                campaign.turn()
                with Ledger.open(campaign.ledger, read_only=True) as ledger:
                    found.append(len(ledger.trials()))
        finally:
            server.shutdown()
            thread.join()
    assert found == asked


# -- the whole ---------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_processes_that_are_killed_learn_what_they_would_have_learnt(tmp_path: Path) -> None:
    found = {}
    for name, chance in (("whole", killed.Chance(0)), ("killed", killed.Chance(2, seed=50))):
        campaign = killed.learn(tmp_path / name, killed.QUICK, seed=7, chance=chance)
        found[name] = killed.learnt(campaign)
    assert chance.done == 2
    assert len(found["whole"]["results"]) == 16
    assert len(found["whole"]["centres"]) > 1
    assert found["killed"] == found["whole"]
