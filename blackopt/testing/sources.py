"""Conformance suite for sources: subclass :class:`SourceConformance` and pytest finds the rest.

    from blackopt.testing.sources import QUERY, SourceConformance

    class TestMine(SourceConformance):
        @pytest.fixture
        def source(self, tmp_path):
            write_the_rows_of(tmp_path)     # see :data:`EXPECTED`
            return Mine(Mine.Options(...), {"visits": Mine.MetricOptions(...)}, base=tmp_path)

The fixture returns a source that knows :data:`EXPECTED`, and at least one arm of another window.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from blackopt.errors import UsageError
from blackopt.protocols import PluginOptions, Source
from blackopt.types import NoReading, Query, Reading

DAY_US = 86_400_000_000

QUERY = Query(
    campaign="conformance",
    window=2,
    arms=("control", "t1", "t2"),
    start_us=10 * DAY_US,
    end_us=11 * DAY_US,
    as_of_us=20 * DAY_US,
    metrics=("visits",),
)
"""What the suite asks for."""

EXPECTED = {
    ("control", "1970-01-11"): {"n": 200.0, "sum": 40.0},
    ("control", "1970-01-12"): {"n": 100.0, "sum": 21.0},
    ("t1", "1970-01-11"): {"n": 50.0, "sum": 12.0},
    ("t2", "1970-01-11"): {"n": 50.0, "sum": 0.0},
}
"""Readings of window 2 by arm and cohort."""


class SourceConformance:
    """What every source does. Subclasses give the fixture ``source``."""

    @pytest.fixture
    def source(self) -> Source:
        """A source that knows :data:`EXPECTED`."""
        raise NotImplementedError("a subclass of SourceConformance defines the fixture `source`")

    def test_is_a_source_with_strict_options(self, source: Source) -> None:
        """It has every method of the contract, and options that refuse unknown keys."""
        assert isinstance(source, Source)
        for options in (source.Options, source.MetricOptions):
            assert issubclass(options, PluginOptions)
            assert options.model_config.get("extra") == "forbid"

    def test_check_says_one_line(self, source: Source) -> None:
        """``check`` reads nothing that counts."""
        line = source.check()
        assert line
        assert "\n" not in line

    def test_reads_what_it_was_given(self, source: Source) -> None:
        """Every arm and cohort of the window, once, with floats; nothing of another window."""
        items = list(source.read(QUERY))
        readings = [item for item in items if isinstance(item, Reading)]
        assert [item for item in items if isinstance(item, NoReading)] == []
        assert {(r.arm, r.cohort): dict(r.stats) for r in readings} == EXPECTED
        assert len(readings) == len(EXPECTED)
        for reading in readings:
            assert (reading.metric, reading.window) == ("visits", 2)
            assert all(type(value) is float and math.isfinite(value) for value in reading.stats.values())

    def test_never_knows_more_than_it_is_asked_for(self, source: Source) -> None:
        """A watermark beyond ``as_of_us`` would make a past decision depend on the future."""
        for as_of_us in (QUERY.as_of_us, QUERY.as_of_us + DAY_US):
            for item in source.read(replace(QUERY, as_of_us=as_of_us)):
                assert isinstance(item, Reading)
                assert item.as_of_us <= as_of_us

    def test_reading_again_gives_the_same(self, source: Source) -> None:
        """Also in the same order: a page that was lost is found again."""
        assert list(source.read(QUERY)) == list(source.read(QUERY))

    def test_two_reads_may_interleave(self, source: Source) -> None:
        """A read holds no state of the source."""
        first, second = iter(source.read(QUERY)), iter(source.read(QUERY))
        pairs = list(zip(first, second, strict=True))
        assert len(pairs) == len(EXPECTED)
        assert all(one == other for one, other in pairs)

    def test_a_read_may_be_left(self, source: Source) -> None:
        """Whoever takes one row and goes leaves nothing behind that disturbs the next."""
        next(iter(source.read(QUERY)))
        assert len(list(source.read(QUERY))) == len(EXPECTED)

    def test_an_unknown_metric_is_an_error_of_the_caller(self, source: Source) -> None:
        """It is not an empty answer."""
        with pytest.raises(UsageError, match="nonsense"):
            list(source.read(replace(QUERY, metrics=("nonsense",))))

    def test_f69_names_are_data(self, source: Source) -> None:
        """An arm that looks like a piece of a query finds nothing and breaks nothing."""
        hostile = "t1' OR 1=1; DROP TABLE exposures; --"
        items = list(source.read(replace(QUERY, arms=(hostile,), campaign=hostile)))
        assert all(item.arm != hostile for item in items if isinstance(item, Reading) and item.stats.get("n"))
        assert len(list(source.read(QUERY))) == len(EXPECTED)

    def test_closing_twice_is_harmless(self, source: Source) -> None:
        """Cleaning up happens more than once."""
        source.close()
        source.close()
