"""The page on metrics: its query runs, and what it says is so."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from blackopt.metrics.kinds import kind
from blackopt.types import Query, Reading
from blackopt_connectors.sql import SqlMetricOptions, SqlOptions, SqlSource

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
QUERY = Query("shop", 3, ("control", "t1"), 0, 10, 1_000, ("clicks",))
VIEWS = {"control": [[1, 0, 1], [0, 0], [1], []], "t1": [[1, 1], [0, 1, 1, 0], [1], [0, 0, 1]]}


def test_the_query_gives_a_ratio_its_sums(tmp_path: Path) -> None:
    example = re.search(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    (tmp_path / "clicks.sql").write_text(example.group(1), encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "log.db")) as log:
        log.execute("CREATE TABLE exposures(campaign, window, arm, unit)")
        log.execute("CREATE TABLE views(id INTEGER PRIMARY KEY, unit, clicked, at_us)")
        for name, units in VIEWS.items():
            for i, clicks in enumerate(units):
                log.execute("INSERT INTO exposures VALUES('shop', 3, ?, ?)", (name, f"{name}{i}"))
                rows = [(f"{name}{i}", clicked, 500) for clicked in (*clicks,)]
                log.executemany("INSERT INTO views(unit, clicked, at_us) VALUES(?, ?, ?)", rows)
                log.execute("INSERT INTO views(unit, clicked, at_us) VALUES(?, 1, 1000)", (f"{name}{i}",))
        log.commit()
    options = SqlOptions(url="sqlite:///log.db")
    source = SqlSource(options, {"clicks": SqlMetricOptions(query=Path("clicks.sql"))}, base=tmp_path)
    found = {item.arm: item for item in source.read(QUERY) if isinstance(item, Reading)}
    assert found.keys() == VIEWS.keys()
    for name, units in VIEWS.items():
        m, d = np.array([sum(u) for u in units]), np.array([len(u) for u in units])
        estimate = kind("ratio").estimate(found[name].stats)
        ratio = m.sum() / d.sum()
        assert estimate.value == pytest.approx(ratio, rel=1e-12)
        assert estimate.se == pytest.approx(
            (m - ratio * d).std(ddof=1) / d.mean() / np.sqrt(len(d)), rel=1e-12
        )
