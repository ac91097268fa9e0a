"""The SQL source on real SQLite files."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from blackopt.errors import ConfigurationError, RetriableError
from blackopt.testing.sources import EXPECTED, QUERY, SourceConformance
from blackopt.types import NoReading, Reading
from blackopt_connectors.sql import SqlMetricOptions, SqlOptions, SqlSource

GROUPED = """
-- One row for each arm and day of the window.
SELECT arm, day AS cohort, COUNT(*) AS n, SUM(visited) AS sum
FROM exposures
WHERE "window" = :window AND campaign = :campaign AND at_us < :as_of
GROUP BY arm, day ORDER BY arm, day
"""

PER_ARM = """
SELECT day AS cohort, COUNT(*) AS n, SUM(visited) AS sum
FROM exposures
WHERE "window" = :window AND campaign = :campaign AND arm = :arm AND at_us < :as_of
GROUP BY day ORDER BY day
"""


def fill(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute('CREATE TABLE exposures(campaign, "window", arm, day, visited, at_us)')
    rows = [
        ("conformance", 2, arm, day, int(i < stats["sum"]), 0)
        for (arm, day), stats in EXPECTED.items()
        for i in range(int(stats["n"]))
    ]
    connection.executemany(
        "INSERT INTO exposures VALUES(?, ?, ?, ?, ?, ?)", [*rows, ("conformance", 1, "t0", "x", 1, 0)]
    )
    connection.commit()
    connection.close()


def source_of(base: Path, sql: str, **options: object) -> SqlSource:
    (base / "queries").mkdir(exist_ok=True)
    (base / "queries" / "visits.sql").write_text(sql)
    metrics = {"visits": SqlMetricOptions(query=Path("queries/visits.sql"))}
    return SqlSource(SqlOptions.model_validate({"url": "sqlite:///log.db", **options}), metrics, base=base)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    fill(tmp_path / "log.db")
    return tmp_path


class TestGrouped(SourceConformance):
    @pytest.fixture
    def source(self, base: Path) -> SqlSource:
        return source_of(base, GROUPED)


class TestPerArm(SourceConformance):
    @pytest.fixture
    def source(self, base: Path) -> SqlSource:
        return source_of(base, PER_ARM)


def readings(source: SqlSource) -> list[Reading]:
    items = list(source.read(QUERY))
    assert all(isinstance(item, Reading) for item in items), items
    return [item for item in items if isinstance(item, Reading)]


def test_every_variable_is_bound_in_microseconds(base: Path) -> None:
    sql = (
        "SELECT :arm AS arm, :window_start AS n, :window_end AS sum, :window AS value, "
        ":as_of AS as_of, :campaign AS cohort"
    )
    first = readings(source_of(base, sql))[0]
    assert (first.arm, first.cohort, first.as_of_us) == ("control", "conformance", QUERY.as_of_us)
    assert first.stats == {"n": QUERY.start_us, "sum": QUERY.end_us, "value": 2}


def test_a_watermark_is_taken_and_never_exceeds_the_query(base: Path) -> None:
    assert {r.as_of_us for r in readings(source_of(base, "SELECT :arm arm, 1 AS n, 12345 AS as_of"))} == {
        12345
    }
    late = source_of(base, "SELECT :arm AS arm, 1 AS n, :as_of + 1 AS as_of")
    assert {r.as_of_us for r in readings(late)} == {QUERY.as_of_us}
    default = source_of(base, "SELECT :arm AS arm, 1 AS n")
    assert {r.as_of_us for r in readings(default)} == {QUERY.as_of_us}


def test_an_arm_without_units_is_zero_and_not_null(base: Path) -> None:
    sql = (
        "SELECT COUNT(*) AS n, SUM(visited) AS sum, SUM(visited * visited) AS sum_sq "
        "FROM exposures WHERE arm = :arm || 'x'"
    )
    assert {tuple(r.stats.items()) for r in readings(source_of(base, sql))} == {
        (("n", 0.0), ("sum", 0.0), ("sum_sq", 0.0))
    }


@pytest.mark.parametrize("bad", ["NULL", "'abc'", "x'00ff'"])
def test_f48_a_bad_value_is_passed_on_with_its_place_and_hides_nothing(base: Path, bad: str) -> None:
    sql = f"SELECT 't1' AS arm, 5 AS n, {bad} AS sum UNION ALL SELECT 't2', 6, 1"
    first, second = readings(source_of(base, sql))
    said: object = first.stats["sum"]
    assert isinstance(said, str)
    assert said.endswith("at queries/visits.sql:1, row 1, column sum")
    assert second.stats == {"n": 6.0, "sum": 1.0}


def test_f48_infinities_are_passed_on(base: Path) -> None:
    (reading,) = readings(source_of(base, "SELECT 't1' AS arm, 5 AS n, 9e999 AS sum"))
    assert math.isinf(reading.stats["sum"])


@pytest.mark.parametrize(
    "row", ["NULL AS arm, 1 AS as_of", "7 AS arm, 1 AS as_of", "'t1' AS arm, 'soon' AS as_of"]
)
def test_a_row_without_a_place_is_named_and_hides_nothing(base: Path, row: str) -> None:
    source = source_of(base, f"SELECT {row}, 5 AS n UNION ALL SELECT 't2', 1, 6")
    first, second = source.read(QUERY)
    assert isinstance(first, NoReading)
    assert "queries/visits.sql:1, row 1" in first.cause
    assert isinstance(second, Reading)


def test_f53_rows_are_read_lazily(base: Path) -> None:
    """Ten rows of a query without end cost ten rows."""
    sql = (
        "WITH RECURSIVE days(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM days) "
        "SELECT 't1' AS arm, CAST(i AS TEXT) AS cohort, i AS n FROM days"
    )
    items: Iterator[Reading | NoReading] = iter(source_of(base, sql).read(QUERY))
    assert [next(items).arm for _ in range(10)] == ["t1"] * 10


def test_f53_too_many_rows_are_named_after_the_good_ones(base: Path) -> None:
    sql = (
        "WITH RECURSIVE days(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM days) "
        "SELECT 't1' AS arm, CAST(i AS TEXT) AS cohort, i AS n FROM days"
    )
    items = iter(source_of(base, sql, max_rows=1500).read(QUERY))
    assert sum(1 for _, _ in zip(range(1500), items, strict=False)) == 1500
    with pytest.raises(ConfigurationError, match="too many rows"):
        next(items)


def test_a_query_that_takes_too_long_is_stopped(base: Path) -> None:
    sql = (
        "WITH RECURSIVE days(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM days) "
        "SELECT 't1' AS arm, COUNT(*) AS n FROM days"
    )
    with pytest.raises(RetriableError, match="too long"):
        list(source_of(base, sql, timeout="50ms").read(QUERY))


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM exposures",
        "INSERT INTO exposures(arm) VALUES('x') RETURNING arm, 1 AS n",
        "SELECT 't1' AS arm, 1 AS n; DELETE FROM exposures",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode = WAL",
        "CREATE TABLE x(a)",
        "EXPLAIN SELECT 1",
        "SELECT file AS cohort, 1 AS n, 't1' AS arm FROM pragma_database_list",
        "SELECT load_extension('x') AS n, 't' AS arm",
        "SELECT ? AS n, 't' AS arm",
        "SELECT :nonsense AS n, 't' AS arm",
        "SELECT nothing AS n, 't' AS arm FROM exposures",
        "SELECT 1 AS n, 't' AS arm FROM nowhere",
        "SELEC 1",
        "",
        "-- nothing",
    ],
)
def test_only_one_select_is_run(base: Path, sql: str) -> None:
    source = source_of(base, sql)
    for call in (source.check, lambda: list(source.read(QUERY))):
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert caught.value.where == "queries/visits.sql:1"
    assert not (base / "other.db").exists()
    assert len(readings(source_of(base, GROUPED))) == len(EXPECTED)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT 't1' AS arm, 1 AS n, 2 AS total", "unknown column 'total'"),
        ("SELECT 1 AS n", "no column 'arm'"),
        ("SELECT 't1' AS arm, 1 AS n, 2 AS n", "column 'n' twice"),
        ("SELECT 't1' AS arm, 'x' AS cohort", "no column with a statistic"),
    ],
)
def test_wrong_columns_are_named_with_the_expected_ones(base: Path, sql: str, said: str) -> None:
    source = source_of(base, sql)
    for call in (source.check, lambda: list(source.read(QUERY))):
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert said in caught.value.what
        assert "sum_sq" in caught.value.why
        assert caught.value.where == "queries/visits.sql:1"


def test_json_tables_can_be_read(base: Path) -> None:
    sql = "SELECT 't1' AS arm, COUNT(*) AS n FROM json_each('[1,2,3]')"
    assert readings(source_of(base, sql))[0].stats == {"n": 3.0}


def test_a_missing_database_is_not_created_and_can_come_later(tmp_path: Path) -> None:
    source = source_of(tmp_path, GROUPED)
    for call in (source.check, lambda: list(source.read(QUERY))):
        with pytest.raises(RetriableError) as caught:
            call()
        assert (caught.value.where, caught.value.why) == ("sqlite:///log.db", "there is no such file")
    assert not (tmp_path / "log.db").exists()
    fill(tmp_path / "log.db")
    assert len(readings(source)) == len(EXPECTED)


def test_an_empty_log_has_no_readings(base: Path) -> None:
    with sqlite3.connect(base / "log.db") as connection:
        connection.execute("DELETE FROM exposures")
    connection.close()
    assert readings(source_of(base, GROUPED)) == []


def test_a_locked_database_is_retriable(base: Path) -> None:
    writer = sqlite3.connect(base / "log.db", isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    source = source_of(base, GROUPED, busy_timeout="10ms")
    with pytest.raises(RetriableError, match="cannot be read now"):
        list(source.read(QUERY))
    writer.execute("ROLLBACK")
    writer.close()
    assert len(readings(source)) == len(EXPECTED)


def test_a_wal_database_is_read_beside_its_writer(base: Path) -> None:
    writer = sqlite3.connect(base / "log.db", isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM exposures")
    assert len(readings(source_of(base, GROUPED))) == len(EXPECTED)
    writer.execute("ROLLBACK")
    writer.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_text("not a database, and long enough to be looked at " * 10)
    with pytest.raises(ConfigurationError, match="cannot be run"):
        source_of(tmp_path, GROUPED).check()


def test_the_path_may_have_any_characters(tmp_path: Path) -> None:
    fill(tmp_path / "a b%3f?#.db")
    (tmp_path / "q.sql").write_text(GROUPED)
    metrics = {"visits": SqlMetricOptions(query=tmp_path / "q.sql")}
    options = SqlOptions(url="sqlite:///a%20b%253f%3F%23.db")
    assert len(readings(SqlSource(options, metrics, base=tmp_path))) == len(EXPECTED)
    absolute = SqlOptions(url=f"sqlite:///{tmp_path}/a%20b%253f%3F%23.db")
    assert len(readings(SqlSource(absolute, metrics, base=Path("/")))) == len(EXPECTED)


@pytest.mark.parametrize(
    "url", ["postgresql://host/db", "sqlite://", "sqlite:///", "log.db", "sqlite:///x?mode=rw"]
)
def test_other_databases_are_refused_with_what_is_supported(url: str) -> None:
    with pytest.raises(ValidationError, match="sqlite:///<path>"):
        SqlOptions(url=url)


def test_a_missing_query_is_named_as_the_campaign_names_it(base: Path) -> None:
    with pytest.raises(ConfigurationError, match="visits") as caught:
        SqlSource(
            SqlOptions(url="sqlite:///log.db"), {"visits": SqlMetricOptions(query=Path("no.sql"))}, base=base
        )
    assert caught.value.where == "no.sql"


def test_metrics_are_read_in_the_order_they_are_asked_for(base: Path) -> None:
    (base / "two.sql").write_text("SELECT :arm AS arm, 2 AS n")
    first = source_of(base, "SELECT :arm AS arm, 1 AS n")
    metrics = {
        "visits": SqlMetricOptions(query=Path("queries/visits.sql")),
        "b": SqlMetricOptions(query=Path("two.sql")),
    }
    source = SqlSource(first.options, metrics, base=base)
    items = [
        item for item in source.read(replace(QUERY, metrics=("b", "visits"))) if isinstance(item, Reading)
    ]
    assert [(item.metric, item.arm) for item in items] == [
        (m, a) for m in ("b", "visits") for a in QUERY.arms
    ]


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("-- total AS total\nSELECT\n  't1' AS arm,\n  1 AS n,\n  2 AS total", 5),
        (
            "/* SELECT\n */ WITH u AS (\n SELECT 1 AS n\n)\nSELECT 't' AS arm, n, 'total' AS\n  total FROM u",
            6,
        ),
        ("WITH u AS (\n  SELECT 1 AS n\n)\n-- no arm\nSELECT n FROM u", 5),
        ("-- a typo\n\nSELECT 't1' AS arm,\n  nothing AS n\nFROM exposures", 4),
        ("SELECT 't1' AS arm, 1 AS n\nFROM nowhere", 2),
        ("\n-- twice\nSELECT nothing AS n,\n nothing AS arm", 3),
    ],
)
def test_what_is_wrong_is_found_at_its_line(base: Path, sql: str, line: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        source_of(base, sql).check()
    assert caught.value.where == f"queries/visits.sql:{line}"


def test_a_mended_query_is_read_at_the_next_poll(base: Path) -> None:
    source = source_of(base, "SELECT nothing AS n")
    with pytest.raises(ConfigurationError):
        list(source.read(QUERY))
    (base / "queries" / "visits.sql").write_text(GROUPED)
    assert len(readings(source)) == len(EXPECTED)
