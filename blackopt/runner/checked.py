"""A source whose rows are looked at before anything relies on them: each fault by name, with its row.

What is wrong with one metric never hides another, and never ends a turn: a campaign must go on guarding what
is live. So a query that cannot be used is reported for now, and a suspect row is reported and kept. Rows
that no estimate may use (statistics missing, days of another window, a covariate from after the exposure)
are marked so that the ledger rejects and keeps them; where an arm has no other, they hold back the window
until the query is mended or the deadline passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import ClassVar, Protocol, runtime_checkable

from blackopt.errors import BlackoptError, ConfigurationError, RetriableError, WrongColumns
from blackopt.metrics.errors import (
    ConstantMetric,
    CovariateAfterExposure,
    MetricError,
    NoRows,
    OverlappingWindows,
    UnknownArm,
)
from blackopt.metrics.kinds import Stats
from blackopt.protocols import PluginOptions, Source
from blackopt.runner.judge import MetricRule
from blackopt.types import CONTROL, NoReading, Query, Reading

EVERY_ARM = "every arm"
"""What a report names that concerns no single arm."""

REMEMBERED = 100_000
"""Rows of one metric among which a second one for the same place is noticed."""

_DAY_US = 86_400_000_000
_ZONES_US = _DAY_US * 14 // 24  # a day of a calendar begins up to 14 hours before that of UTC, ends 12 after
_EPOCH = date(1970, 1, 1).toordinal()


@runtime_checkable
class Described(Protocol):
    """A source that can say more of a metric; ``sql`` and ``csv`` do."""

    def where(self, metric: str) -> str:
        """The file and line of its query."""
        ...

    def columns(self, metric: str) -> tuple[str, ...]:
        """The columns that its query returns; none where that is not known yet."""
        ...


class CheckedSource:
    """A :class:`blackopt.protocols.Source` that passes on what another reads, and says what is wrong with it.

    Args:
        inner: what reads.
        rules: what the campaign declares of each metric.
    """

    Options: ClassVar[type[PluginOptions]] = PluginOptions
    MetricOptions: ClassVar[type[PluginOptions]] = PluginOptions

    def __init__(self, inner: Source, rules: Mapping[str, MetricRule]) -> None:
        self.inner, self.rules = inner, rules

    def check(self) -> str:
        """The source's own check, and whether its queries return what each metric's kind needs.

        Raises:
            WrongColumns: one does not.
            BlackoptError: the source's own check failed.
        """
        said = self.inner.check()
        if isinstance(self.inner, Described):
            for name, rule in self.rules.items():
                columns = self.inner.columns(name)
                missing = sorted(rule.kind.required - set(columns)) if columns else []
                if missing:
                    raise WrongColumns(
                        f"{name} misses {', '.join(missing)}",
                        where=self.inner.where(name),
                        why=f"a {rule.kind.name} needs {', '.join(sorted(rule.kind.required))}; "
                        f"got {', '.join(columns)}",
                        safe="no reading was taken from it",
                        next_step="return these columns (docs/metrics.md), then run `blackopt check`",
                    )
        return said

    def read(self, query: Query) -> Iterator[Reading | NoReading]:
        """Metric by metric what the source says, and after each what is wrong with it.

        Raises:
            RetriableError: one or more metrics could not be read; raised after everything that could.
        """
        failed: list[BlackoptError] = []
        said: set[str] = set()
        for name in query.metrics:
            look = _Look(name, self.rules[name], query)
            try:
                for item in self.inner.read(replace(query, metrics=(name,))):
                    if isinstance(item, Reading):
                        yield look.at(item)
                    elif item.cause not in said:  # a broken line of a file that several metrics share
                        said.add(item.cause)
                        yield item
                look.finish(self._where(name))
            except (ConfigurationError, RetriableError) as error:
                failed.append(error)
            yield from look.reports()
        if failed:
            raise _for_now(failed)

    def close(self) -> None:
        """Close the source."""
        self.inner.close()

    def _where(self, metric: str) -> str:
        return self.inner.where(metric) if isinstance(self.inner, Described) else ""


@dataclass
class _Found:
    """The first row with a fault, and how many had it."""

    arm: str
    error: BlackoptError
    count: int = 1


@dataclass
class _Look:
    """What one read of one metric shows."""

    metric: str
    rule: MetricRule
    query: Query
    rows: int = 0
    arms: set[str] = field(default_factory=set)
    found: dict[str, _Found] = field(default_factory=dict)
    places: dict[tuple[str, str, int], tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asked = frozenset(self.query.arms)
        self.due_us = self.rule.maturity.mature_at(self.query.end_us)
        self.still: dict[str, list[Stats]] | None = {} if self.query.as_of_us >= self.due_us else None

    def at(self, row: Reading) -> Reading:
        """The row as it may be passed on."""
        self.rows += 1
        self.arms.add(row.arm)
        where = getattr(row, "where", "") or f"row {self.rows}"
        unusable = self._unusable(row)
        fault = unusable or self._suspect(row)
        if fault is not None:
            fault.where = where
            self._note(row.arm, fault)
        elif self.still is not None:
            self._remember(row)
        if unusable is None:
            return row
        # The text makes the ledger reject the row and keep it; it says nothing of any time.
        told: dict[str, object] = {type(unusable).__name__: where, **row.stats}
        return replace(row, as_of_us=0, stats=told)  # type: ignore[arg-type]

    def finish(self, where: str) -> None:
        """All rows have come: what do they show together?"""
        if self.query.as_of_us < self.due_us:
            return
        absent = EVERY_ARM if not self.arms & self.asked else CONTROL
        if absent not in self.arms and (absent == EVERY_ARM or CONTROL in self.query.arms):
            error = NoRows(
                f"no row for {absent} of window {self.query.window}, whose units are all known by now",
                why="the query filters them out, its log has gaps, or no unit was exposed",
                next_step=f"run the query by hand with :window = {self.query.window}, and mend it",
            )
            error.where = where
            self._note(absent, error)
        pooled = [self.rule.kind.pool(stats) for stats in (self.still or {}).values()]
        if self.rule.kind.is_constant(pooled):
            constant = ConstantMetric(
                f"all units are alike in each of {len(pooled)} arms",
                why="it may be true (nobody complained), and it is what a broken sensor looks like",
                next_step="compare the query with its log",
            )
            constant.where = f"{where}, {self.rows} rows" if where else f"{self.rows} rows"
            self._note(EVERY_ARM, constant)

    def reports(self) -> Iterator[NoReading]:
        """A line for each kind of fault."""
        for found in self.found.values():
            more = f" and {found.count - 1} more" if found.count > 1 else ""
            what = f"{type(found.error).__name__}: {self.metric}: {_bare(found.error)}"
            yield NoReading(self.query.window, found.arm, _line(found.error, what, more))

    def _note(self, arm: str, error: BlackoptError) -> None:
        kind = type(error).__name__
        if kind in self.found:
            self.found[kind].count += 1
        else:
            self.found[kind] = _Found(arm, error)

    def _unusable(self, row: Reading) -> BlackoptError | None:
        """Why nothing may be computed from the row, although its numbers are sound."""
        kind = self.rule.kind
        missing = sorted(kind.required - row.stats.keys())
        if missing:
            return WrongColumns(
                f"a {kind.name} needs {', '.join(missing)} too",
                why=f"it has {', '.join(row.stats)}",
                safe="the row is kept aside, and nothing is told from it",
                next_step="return these columns (docs/metrics.md), then run `blackopt check`",
            )
        after = row.stats.get("cov_after", 0.0)
        if isinstance(after, int | float) and after > 0:
            return _aside(
                CovariateAfterExposure(
                    f"the covariate of {after:g} units looks past their exposure",
                    why="what the candidate changed must not explain its effect away",
                    next_step="end the covariate strictly before each unit's first exposure",
                )
            )
        if _outside(row.cohort, self.query):
            return _aside(
                OverlappingWindows(
                    f"units exposed on {row.cohort}, which is no day of window {self.query.window}",
                    why="the query does not filter by :window (or :window_start and :window_end), so units"
                    " of several windows are counted together",
                    next_step="filter the exposures by :window",
                )
            )
        return None

    def _suspect(self, row: Reading) -> MetricError | None:
        """What is wrong with a row that the ledger and the judge know how to treat."""
        if row.arm not in self.asked:
            return UnknownArm(
                f"{row.arm!r} is no arm of window {self.query.window} ({_few(self.query.arms)})",
                why="the query does not filter by :campaign and :window, or names arms otherwise",
                next_step="filter the exposures by :window, and return the arm that was assigned",
            )
        return self.rule.kind.fault(row.stats) or self._second(row)

    def _second(self, row: Reading) -> OverlappingWindows | None:
        """Whether another row of this read spoke of the same units otherwise."""
        place = (row.arm, row.cohort, row.as_of_us)
        stats = hash(frozenset(row.stats.items()))
        if len(self.places) >= REMEMBERED and place not in self.places:
            return None
        first, before = self.places.setdefault(place, (self.rows, stats))
        if before == stats:
            return None
        return OverlappingWindows(
            f"a second row for {row.arm}{f' on {row.cohort}' if row.cohort else ''}, beside row {first}",
            why="the query groups by more than arm and cohort, such as by window, or by a day that it does"
            " not return as `cohort`; only the first row counts",
            next_step="filter the exposures by :window, and return one row for each arm and cohort",
        )

    def _remember(self, row: Reading) -> None:
        """Collect what might stand still, until a row shows that it does not."""
        if self.still is None:
            return
        self.still.setdefault(row.arm, []).append(row.stats)
        if self.rule.kind.moves(row.stats):
            self.still = None


def _aside(error: MetricError) -> MetricError:
    error.safe = "the row is kept aside, and nothing is told from it"
    return error


def _outside(cohort: str, query: Query) -> bool:
    """Whether a cohort is a day of which no part lies in the window, in any time zone."""
    if len(cohort) != len("2026-01-31"):
        return False
    try:
        day_us = (date.fromisoformat(cohort).toordinal() - _EPOCH) * _DAY_US
    except ValueError:
        return False  # the source splits by something else
    return day_us + _DAY_US + _ZONES_US <= query.start_us or day_us - _ZONES_US >= query.end_us


def _few(arms: Sequence[str], most: int = 8) -> str:
    return ", ".join(arms[:most]) + (", …" if len(arms) > most else "")


def _bare(error: BlackoptError) -> str:
    return error.what.removeprefix(f"{type(error).__name__}: ")


def _line(error: BlackoptError, what: str, more: str = "") -> str:
    """All of an error in one line."""
    parts = [what, f"at {error.where}{more}" if error.where else "", error.why, error.safe]
    parts.append(f"next: {error.next_step}" if error.next_step else "")
    return "; ".join(part for part in parts if part)


def _for_now(failed: Sequence[BlackoptError]) -> RetriableError:
    """One error for all metrics that could not be read: each is asked for again at the next poll."""
    [first, *others] = failed
    if isinstance(first, RetriableError) and all(str(error) == str(first) for error in others):
        return first
    whys = dict.fromkeys(error.why for error in failed if error.why)
    return RetriableError(
        "; ".join(dict.fromkeys(error.what for error in failed)),
        where=", ".join(dict.fromkeys(error.where for error in failed if error.where)),
        why="; ".join(whys),
        safe="what the other metrics returned is kept, and guardrails go on",
        next_step=first.next_step,
    )
