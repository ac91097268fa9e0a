"""The CSV source on real files, whole and broken."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from blackopt.errors import ConfigurationError, RetriableError
from blackopt.testing.sources import EXPECTED, QUERY, SourceConformance
from blackopt.types import NoReading, Reading
from blackopt_connectors.csv import CsvMetricOptions, CsvOptions, CsvSource

HEADER = "metric,arm,window,cohort,as_of,n,sum"


def source_of(base: Path, text: str | bytes) -> CsvSource:
    (base / "visits.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return CsvSource(CsvOptions(path=Path("visits.csv")), {"visits": CsvMetricOptions()}, base=base)


def items_of(base: Path, *lines: str) -> list[Reading | NoReading]:
    return list(source_of(base, "".join(f"{line}\n" for line in lines)).read(QUERY))


class TestConformance(SourceConformance):
    @pytest.fixture
    def source(self, tmp_path: Path) -> CsvSource:
        rows = [f"visits,{arm},2,{day},1000,{s['n']},{s['sum']}" for (arm, day), s in EXPECTED.items()]
        rows += ["visits,t0,1,1970-01-10,1000,9,9", "other,t1,2,1970-01-11,1000,7,7"]
        return source_of(tmp_path, "\n".join([HEADER, *rows, ""]))


class TestConformanceOfAnOwnFile(SourceConformance):
    @pytest.fixture
    def source(self, tmp_path: Path) -> CsvSource:
        text = "arm,window,cohort,n,sum\r\n" + "".join(
            f'"{arm}",2,{day},{s["n"]},{s["sum"]}\r\n' for (arm, day), s in EXPECTED.items()
        )
        (tmp_path / "own.csv").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"t0,1,x,1,1\r\n")
        return CsvSource(CsvOptions(), {"visits": CsvMetricOptions(file=Path("own.csv"))}, base=tmp_path)


@pytest.mark.parametrize("cell", ["abc", "1_000", "1,5", "0x10"])
def test_f48_a_bad_cell_is_passed_on_with_its_place_and_hides_nothing(tmp_path: Path, cell: str) -> None:
    first, second = items_of(tmp_path, HEADER, f'visits,t1,2,,1,"{cell}",3', "visits,t2,2,,1,5,3")
    assert isinstance(first, Reading)
    said: object = first.stats["n"]
    assert said == f"{cell!r} at visits.csv:2, column n"
    assert isinstance(second, Reading)
    assert second.stats == {"n": 5.0, "sum": 3.0}


@pytest.mark.parametrize("cell", ["nan", "inf", "1e400"])
def test_f48_numbers_that_are_not_finite_are_passed_on(tmp_path: Path, cell: str) -> None:
    (item,) = items_of(tmp_path, HEADER, f"visits,t1,2,,1,{cell},3")
    assert isinstance(item, Reading)
    assert not math.isfinite(item.stats["n"])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("visits,t1,two,,1,5,3", "column window is 'two'"),
        ("visits,t1,2,,soon,5,3", "column as_of is 'soon'"),
        ("visits,t1,-2,,1,5,3", "column window is '-2'"),
        ("visits,t1,2", "3 cells, the header has 7"),
        ('visits,"t1"x,2,,1,5,3', "expected after"),
    ],
)
def test_f36_a_broken_row_is_named_and_hides_nothing(tmp_path: Path, row: str, said: str) -> None:
    first, second = items_of(tmp_path, HEADER, row, "visits,t2,2,,1,5,3")
    assert isinstance(first, NoReading)
    assert first.cause.startswith("visits.csv:2: ")
    assert said in first.cause
    assert isinstance(second, Reading)
    assert second.arm == "t2"


def test_f36_half_a_last_line_is_named_and_not_read(tmp_path: Path) -> None:
    """The file is being appended to: `12` may become `1234`."""
    source = source_of(tmp_path, f"{HEADER}\nvisits,t1,2,,1,5,3\nvisits,t2,2,,1,50,12")
    first, second = source.read(QUERY)
    assert isinstance(first, Reading)
    assert isinstance(second, NoReading)
    assert second.cause.startswith("visits.csv:3: ")


def test_an_empty_cell_is_no_value(tmp_path: Path) -> None:
    (item,) = items_of(tmp_path, f"{HEADER},value", "visits,t1,2,,,,,1.5")
    assert isinstance(item, Reading)
    assert item.stats == {"value": 1.5}
    assert item.as_of_us == QUERY.as_of_us


def test_rows_from_the_future_are_not_known_yet(tmp_path: Path) -> None:
    rows = [HEADER, "visits,t1,2,,1000,5,3", "visits,t1,2,,2000,6,4"]
    source = source_of(tmp_path, "".join(f"{row}\n" for row in rows))
    assert [
        item.stats["n"] for item in source.read(replace(QUERY, as_of_us=1500)) if isinstance(item, Reading)
    ] == [5.0]


def test_bytes_that_are_not_utf8_do_not_end_the_read(tmp_path: Path) -> None:
    source = source_of(tmp_path, f"{HEADER}\nvisits,t\xff1,2,,1,5,3\nvisits,t2,2,,1,5,3\n".encode("latin-1"))
    assert [item.arm for item in source.read(QUERY)] == ["t�1", "t2"]


def test_an_empty_file_has_no_readings(tmp_path: Path) -> None:
    assert list(source_of(tmp_path, "").read(QUERY)) == []
    assert source_of(tmp_path, "").check()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("metric,arm,window,total,n", "unknown column 'total'"),
        ("metric,arm,n", "no column 'window'"),
        ("arm,window,n", "no column 'metric'"),
        ("metric,arm,window,n,n", "column 'n' twice"),
        ("metric,arm,window", "no column with a statistic"),
    ],
)
def test_a_wrong_header_is_named(tmp_path: Path, header: str, said: str) -> None:
    source = source_of(tmp_path, f"{header}\n")
    for call in (source.check, lambda: list(source.read(QUERY))):
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert said in caught.value.what
        assert caught.value.where == "visits.csv:1"


def test_a_missing_file_can_come_later(tmp_path: Path) -> None:
    source = CsvSource(CsvOptions(path=Path("late.csv")), {"visits": CsvMetricOptions()}, base=tmp_path)
    with pytest.raises(RetriableError) as caught:
        list(source.read(QUERY))
    assert caught.value.where == "late.csv"


def test_a_metric_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="visits has no file"):
        CsvSource(CsvOptions(), {"visits": CsvMetricOptions()}, base=tmp_path)
