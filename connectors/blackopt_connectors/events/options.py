"""What a campaign says to ``use: events``: where exposures and events are, and what each metric counts."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self
from urllib.parse import unquote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from blackopt.protocols import PluginOptions
from blackopt_connectors._options import Seconds

SCHEMES = ("sqlite:///", "duckdb:///", "parquet:///", "csv:///")
"""What may be read: a SQLite or DuckDB file; a folder of Parquet or CSV files, through DuckDB."""


def _check_url(url: str) -> str:
    scheme = next((scheme for scheme in SCHEMES if url.startswith(scheme)), None)
    if scheme is None or not url.removeprefix(scheme):
        raise ValueError(f"expected {' or '.join(f'{scheme}<path>' for scheme in SCHEMES)}")
    if "?" in url or "#" in url:
        raise ValueError("the url has no parameters")
    return url


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("no such time zone; write it as Europe/Berlin or UTC") from error
    return name


def _check_table(name: str) -> str:
    if "\0" in name or ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
        raise ValueError("expected a table, schema.table, or a file inside the folder of the url")
    return name


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_no_nul)]
Table = Annotated[Name, AfterValidator(_check_table)]
TimeUnit = Literal["us", "ms", "s", "iso"]


class Exposures(PluginOptions):
    """The table with a row for each time that a unit was served an arm."""

    table: Table = Field("exposures", description="a table or view, or a file of a folder")
    unit: Name = Field("unit", description="column: who was exposed")
    time: Name = Field("time", description="column: when")
    arm: Name | None = Field("arm", description="column: the arm that was served; null: always the control")
    window: Name | None = Field("window", description="column: number of the window; null: told by the time")
    campaign: Name | None = Field("campaign", description="column: name of the campaign; null: all are ours")
    received: Name | None = Field(None, description="column: when the row arrived in the table")


class Events(PluginOptions):
    """The table with a row for each thing that a unit did."""

    table: Table = Field("events", description="a table or view, or a file of a folder")
    unit: Name = Field("unit", description="column: who did it")
    time: Name = Field("time", description="column: when")
    name: Name = Field("name", description="column: what it was")
    id: Name | None = Field(None, description="column: the same event, delivered twice, has the same one")
    received: Name | None = Field(None, description="column: when the row arrived in the table")


class Watermark(PluginOptions):
    """A table that says up to when the events are complete."""

    table: Table
    time: Name = Field("time", description="column: its largest value counts")


class EventsOptions(PluginOptions):
    """Options of ``use: events``."""

    url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="sqlite:///app.db, duckdb:///app.duckdb, parquet:///folder or csv:///folder; "
        "relative to the campaign file, with four slashes absolute"
    )
    exposures: Exposures = Exposures()
    events: Events = Events()
    watermark: Literal["log", "now"] | Watermark = Field(
        "log",
        description="up to when events are complete: log (the last one that arrived), now, or a table",
    )
    timezone: Annotated[str, AfterValidator(_check_zone)] = Field(
        "UTC", description="where calendar days are counted"
    )
    time_unit: TimeUnit = Field("us", description="how every time is stored; iso without an offset is UTC")
    timeout: Seconds = Field(60.0, description="time that the database may spend on one query")
    busy_timeout: Seconds = Field(5.0, description="how long to wait for a writer's lock (SQLite)")

    @property
    def dialect(self) -> Literal["sqlite", "duckdb"]:
        """Who runs the queries."""
        return "sqlite" if self.url.startswith("sqlite:") else "duckdb"

    @property
    def scheme(self) -> str:
        """The url up to its path."""
        return re.match(r"\w+:///", self.url)[0]  # type: ignore[index]  # it was checked

    @property
    def path(self) -> str:
        """The path as the campaign gives it."""
        return unquote(self.url.removeprefix(self.scheme))


class Part(PluginOptions):
    """Some events of a unit: how many, or the sum of a column of theirs."""

    event: Name = Field(description="name of the event")
    value: Name | None = Field(None, description="column to add up; without it events are counted")


class Covariate(Part):
    """What a unit did before its first exposure."""

    before: Seconds = Field(description="how far back; it ends strictly before the first exposure")


class Anchor(PluginOptions):
    """The event at which a metric's window starts, as the core has it."""

    event: Name
    within: int = Field(ge=0, description="microseconds after the first exposure")


class EventsMetricOptions(PluginOptions):
    """What a metric says to ``use: events``.

    The fields up to ``cuped`` are the core's keys of the metric, which it fills in; times in microseconds.
    """

    kind: Literal["proportion", "retention", "mean", "revenue", "ratio", "quantile", "value"]
    window: int = Field(0, ge=0)
    lag: int = Field(0, ge=0)
    bake: int = Field(0, ge=0)
    anchor: Anchor | None = None
    day: int | None = None
    within: bool = False
    cap: float | None = None
    quantile: float | None = None
    cuped: bool = False

    event: Name | None = Field(None, description="name of the event; of every kind but a ratio")
    value: Name | None = Field(
        None, description="of a mean, revenue or quantile: column to add up; without it a mean counts events"
    )
    numerator: Part | None = Field(None, description="of a ratio")
    denominator: Part | None = Field(None, description="of a ratio")
    covariate: Covariate | None = Field(None, description="with cuped: what explains the metric")
    rolling: bool = Field(False, description="of a retention: days are 24 hours from the exposure")
    exposures: Exposures | None = Field(None, description="of this metric alone, such as in `history`")

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> Self:
        if self.kind == "value":
            raise ValueError("events give no metric of kind value; use sql or csv for it")
        needs = {"ratio": ("numerator", "denominator"), "revenue": ("event", "value")}
        needs["quantile"] = needs["revenue"]
        required = needs.get(self.kind, ("event",))
        may = {*required, *(("value",) if self.kind == "mean" else ())}
        for key in ("event", "value", "numerator", "denominator"):
            given = getattr(self, key) is not None
            if given != (key in may) and (given or key in required):
                raise ValueError(f"a {self.kind} {'takes no' if given else 'needs'} `{key}`")
        if self.rolling and self.kind != "retention":
            raise ValueError("`rolling` belongs to a retention")
        if (self.covariate is not None) != self.cuped:
            raise ValueError("`cuped: true` needs a `covariate`, which belongs to nothing else")
        return self

    @property
    def parts(self) -> dict[str, Part]:
        """What is summed over a unit's events, by the name of the part: num, den, cov."""
        if self.numerator is not None and self.denominator is not None:
            found: dict[str, Part] = {"num": self.numerator, "den": self.denominator}
        else:
            found = {"num": Part(event=self.event or "", value=self.value)}
        return found | ({"cov": self.covariate} if self.covariate is not None else {})

    @property
    def delay_us(self) -> int:
        """How long after its first exposure a unit is complete."""
        return (self.anchor.within if self.anchor else 0) + self.window + self.bake + self.lag
