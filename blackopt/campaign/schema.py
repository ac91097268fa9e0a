"""What a campaign says: one model a section. Keys, types, defaults and the reference page all come from here.

Durations are integer microseconds and shares integer millionths, whatever unit the campaign was written in.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from blackopt.campaign.base import CampaignName, MetricName, Section, UnitName, derived
from blackopt.campaign.quiet import Quiet
from blackopt.campaign.units import (
    Duration,
    Limit,
    PositiveDuration,
    PositiveShare,
    Share,
    Spread,
    format_share,
    parse_duration,
    parse_share,
)
from blackopt.protocols import (
    Clock,
    Evaluator,
    Optimizer,
    Policy,
    Source,
    Target,
)

EVERYTHING = parse_share("100%")
HALF = EVERYTHING // 2


def _version_1(version: int) -> int:
    if version != 1:
        raise PydanticCustomError("version", "is not a version of this format", {"hint": "write 1"})
    return version


CUPED = ("mean", "revenue", "ratio")
"""Kinds of metric that may be adjusted for a covariate."""

_DAY = parse_duration("1d")
_EXAMPLES = {"day": "7", "cap": "250", "quantile": "0.9"}


def _metric_error(says: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError("metric", "{says}", {"says": says, "hint": hint})


class Form(StrEnum):
    """The three forms of a campaign."""

    PRODUCTION = "production"  # push, measure, traffic, schedule: candidates are served to live traffic
    EVALUATION = "evaluation"  # evaluate: blackopt runs the candidates itself
    MANUAL = "manual"  # neither: candidates are asked and told by hand


class Head(Section):
    """What stands at the top of a campaign, beside its sections."""

    version: Annotated[int, AfterValidator(_version_1), Field(json_schema_extra={"const": 1})]
    """Version of this format; always 1."""

    name: CampaignName
    """Name of the campaign: lower-case letters, digits and dashes. Part of what assigns a unit to an arm."""

    ledger: Annotated[str, Field(min_length=1)] | None = Field(default=None, json_schema_extra=derived)
    """File of the ledger, relative to the campaign file. Default: `<name>.db`."""


class Anchor(Section):
    """An event of the unit's own at which a metric starts to look."""

    event: MetricName
    """Name of the event, as the source knows it. Units without it have no metric."""

    within: PositiveDuration
    """How long after the exposure it must come; maturity waits for that too."""


class Metric(Section):
    """One metric under `measure.metrics`. Every other key belongs to the source that `measure.use` names."""

    kind: Literal["proportion", "retention", "mean", "revenue", "ratio", "quantile", "value"]
    """What is estimated from the units' sums, and how: [metrics](../metrics.md)."""

    window: Duration = 0
    """How long after a unit's exposure the metric looks."""

    lag: Duration = 0
    """What the source needs after that to have everything."""

    bake: Duration = 0
    """How long after that the metric is still undone, such as by chargebacks and refunds."""

    anchor: Anchor | None = Field(default=None, json_schema_extra=derived)
    """Where the metric's window starts. Default: at the unit's first exposure."""

    min_units: Annotated[int, Field(ge=1)] = 1
    """With fewer units in an arm the metric has no value."""

    min_events: Annotated[int, Field(ge=0)] = 0
    """The same for units that succeeded, paid or ordered, whatever the metric is about."""

    day: Annotated[int, Field(ge=0)] | None = Field(default=None, json_schema_extra=derived)
    """Of a `retention`: it counts the units that are active on this day after exposure, exactly."""

    within: bool = False
    """Of a `retention`: it counts the units that are active on any of the days 1 to `day`, in place of that
    day exactly."""

    cap: Annotated[float, Field(gt=0)] | None = Field(default=None, json_schema_extra=derived)
    """Of a `revenue`: the most that counts for one unit, fixed in advance from the history of the control."""

    quantile: Annotated[float, Field(gt=0, lt=1)] | None = Field(default=None, json_schema_extra=derived)
    """Of a `quantile`: which one, between 0 and 1."""

    cuped: bool = False
    """Of a `mean`, `revenue` or `ratio`: adjust for a covariate from before the exposure."""

    history: dict[str, Any] | None = Field(default=None, json_schema_extra=derived)
    """The source's keys of this metric, all of them, with which it is asked about the control in the past,
    before the campaign."""

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> Metric:
        for key, owner in (("day", "retention"), ("cap", "revenue"), ("quantile", "quantile")):
            given = getattr(self, key) is not None
            if given != (self.kind == owner):
                says = f"`{key}` belongs to a {owner}" if given else f"a {owner} needs `{key}`"
                hint = f"remove it, or write kind: {owner}" if given else f"such as {key}: {_EXAMPLES[key]}"
                raise _metric_error(says, hint)
        if self.cuped and self.kind not in CUPED:
            raise _metric_error(f"a {self.kind} is not adjusted", f"`cuped` belongs to {', '.join(CUPED)}")
        if self.min_events and self.kind in ("quantile", "value"):
            raise _metric_error(f"a {self.kind} counts no events", "remove `min_events`")
        if self.within and self.kind != "retention":
            raise _metric_error("`within` belongs to a retention", "remove it, or write kind: retention")
        if self.within and not self.day:
            raise _metric_error("no day lies between day 1 and day 0", "a later `day`, or without `within`")
        if self.day is not None and self.window < (self.day + 1) * _DAY:
            ends = f"{self.day + 1}d"
            raise _metric_error(f"its window ends before day {self.day} does", f"at least window: {ends}")
        return self


class Surrogate(Section):
    """A faster metric that ranks candidates while the search goes on. It never promotes one: confirmations
    and promotions wait for the objective itself."""

    metric: MetricName
    """One of `measure.metrics` that matures before the objective."""

    slope: float
    """The objective's effect for each unit of this metric's effect, from earlier experiments. Negative where
    one falls as the other rises."""

    error: Spread
    """Standard deviation of what the slope misses: how far the objective's effect lies from `slope` times the
    surrogate's, sampling noise apart. A share or a number, as `effect` has it."""

    @model_validator(mode="after")
    def _says_something(self) -> Surrogate:
        if not isfinite(self.slope) or self.slope == 0:
            raise PydanticCustomError(
                "slope", "`slope` must be finite and not 0", {"hint": "such as slope: 0.4"}
            )
        return self


class Objective(Section):
    """What the campaign moves: exactly one of `maximize` and `minimize`."""

    maximize: MetricName | None = None
    """Metric to make large. In production one of `measure.metrics`, else any name."""

    minimize: MetricName | None = None
    """Metric to make small."""

    relative_to: Literal["control"] | None = None
    """Measure arms against the control of the same window, so that drift cancels. Production only."""

    effect: Literal["relative", "absolute"] = "relative"
    """With `relative_to`: the arm's value over the control's minus 1, or their difference."""

    surrogate: Surrogate | None = Field(default=None, json_schema_extra=derived)
    """With `relative_to`: a metric that matures sooner, from which the search is told."""

    @model_validator(mode="after")
    def _one_direction(self) -> Objective:
        if (self.maximize is None) == (self.minimize is None):
            raise PydanticCustomError(
                "direction",
                "needs exactly one of `maximize` and `minimize`",
                {"hint": "such as maximize: visit_14d"},
            )
        return self

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.maximize or self.minimize or ""

    @property
    def maximizes(self) -> bool:
        """Whether larger is better."""
        return self.maximize is not None


class Guardrail(Section):
    """A bound that no candidate may cross: exactly one of `at_most` and `at_least`."""

    metric: MetricName
    """One of `measure.metrics`."""

    at_most: Limit | None = None
    """A number in the metric's units, or `<factor> * control` for a multiple of what the control measures."""

    at_least: Limit | None = None
    """The same, from below."""

    min_units: Annotated[int, Field(ge=1)] | None = Field(default=None, json_schema_extra=derived)
    """Fewer units in an arm decide nothing. Default: the metric's `min_units`."""

    min_events: Annotated[int, Field(ge=0)] = 10
    """Fewer events in an arm decide nothing, and fewer than the control's rate would give it; where the
    metric counts events."""

    alpha: PositiveShare = parse_share("5%")
    """Probability at most that a candidate which is not beyond the bound is ever withdrawn, however often it
    is looked at."""

    expected_units: Annotated[int, Field(ge=1)] | None = Field(default=None, json_schema_extra=derived)
    """Units of an arm when its window is complete; harm is found soonest at a quarter of that. Default: 4
    times the larger of `min_units` and 1000."""

    lasting: PositiveDuration | None = Field(default=None, alias="for", json_schema_extra=derived)
    """For operational metrics (errors, a 99th percentile), in place of a test: crossed only when every
    reading has been beyond the bound for so long."""

    silent_after: PositiveDuration | None = Field(default=None, json_schema_extra=derived)
    """A candidate without data for so long is withdrawn too. Default: what the metric takes to mature
    (`anchor.within`, `window`, `lag` and `bake`), and 2 times `schedule.poll`."""

    @model_validator(mode="after")
    def _one_side(self) -> Guardrail:
        if (self.at_most is None) == (self.at_least is None):
            hint = {"hint": 'such as at_most: "1.05 * control"'}
            raise PydanticCustomError("side", "needs exactly one of `at_most` and `at_least`", hint)
        if self.alpha >= HALF:
            raise PydanticCustomError("level", "`alpha` must be less than 50%", {"hint": "such as alpha: 5%"})
        tested = self.model_fields_set & {"alpha", "expected_units", "min_events"}
        if self.lasting is not None and tested:
            key = min(tested)
            hint = {"hint": f"remove `{key}`, or `for`"}
            raise PydanticCustomError("lasting", f"`{key}` belongs to a test, `for` replaces it", hint)
        return self


class Traffic(Section):
    """Who takes part."""

    unit: UnitName
    """What is assigned to an arm and stays there for a window: customer, session, store."""

    share: PositiveShare
    """Part of all units that takes part."""

    control: Share = 0
    """Part of those that serves the incumbent; 1/(1 + sqrt(k)) beside k arms gives the least variance."""

    arms: Annotated[int, Field(ge=1, le=10_000)] | None = Field(default=None, json_schema_extra=derived)
    """Candidates served at once. Default: with `explore` two for each direction, else the optimizer's
    `population`, else `budget.max_in_flight`."""


class Budget(Section):
    """When the campaign is done. May be changed while it runs."""

    trials: Annotated[int, Field(ge=1)]
    """Candidates that the optimizer may ask for."""

    max_in_flight: Annotated[int, Field(ge=1)] = Field(default=0, json_schema_extra=derived)
    """Candidates asked and not told. Default: `traffic.arms`, else the optimizer's `population`, else 1."""

    confirm: Annotated[int, Field(ge=0)] = 0
    """How often the recommendation is measured again at the end, on fresh units."""

    breaches: Annotated[int, Field(ge=1)] = 5
    """So many candidates withdrawn by guardrails in a row pause the campaign. With `explore` a quarter of a
    window's, where that is more: among many arms, a few in a row come by chance."""


class Schedule(Section):
    """When things happen. `poll` and `lease` may be changed while the campaign runs."""

    window: PositiveDuration
    """How long the arms of one window are served."""

    poll: PositiveDuration = parse_duration("15m")
    """How often metrics are polled and guardrails judged."""

    deadline: PositiveDuration = parse_duration("30d")
    """Counted from the window's end: a candidate whose metric has not matured by then is told as expired."""

    lease: PositiveDuration = Field(default=0, json_schema_extra=derived)
    """A module stops serving a candidate this long after the last order. Default: 3 times `poll`."""

    quiet: Quiet | None = Field(default=None, json_schema_extra=derived)
    """When nothing new is started, such as at night and at weekends."""

    whole_weeks: bool = False
    """Windows of confirmations and promotions last a multiple of 7 days, rounded up, so that each weekday
    counts alike."""

    @model_validator(mode="after")
    def _three_polls(self) -> Schedule:
        if self.lease == 0:  # not given: a given one is longer than nothing
            # Past pydantic's frozen setattr, and not recorded as set: the document holds what was written.
            object.__setattr__(self, "lease", 3 * self.poll)
        return self


def _rising(ramp: tuple[int, ...]) -> tuple[int, ...]:
    if any(later <= earlier for earlier, later in pairwise(ramp)):
        raise PydanticCustomError("ramp", "must rise from step to step", {"hint": "such as [1%, 5%, 25%]"})
    if ramp[-1] > HALF:
        hint = {"hint": "at most 50%: a control of the same size runs beside it"}
        raise PydanticCustomError("ramp", f"{format_share(ramp[-1])} leaves no equal control", hint)
    return ramp


class Promotion(Section):
    """How the recommendation becomes the incumbent: a test on fresh units, a ramp, an adoption, a holdback.
    May be edited until a promotion starts."""

    looks: Annotated[int, Field(ge=1, le=100)] = 3
    """How often the test is looked at, each time with the fresh units of one more window; 1 is a fixed
    horizon."""

    window: PositiveDuration | None = Field(default=None, json_schema_extra=derived)
    """How long the arms of one look are served. Default: `schedule.window`; whole weeks if
    `schedule.whole_weeks` says so."""

    alpha: PositiveShare = parse_share("2.5%")
    """Probability at most, over all looks, that a recommendation which is no better passes the test;
    one-sided."""

    share: PositiveShare = parse_share("50%")
    """Part of the campaign's traffic that gets the recommendation while it is tested; the rest is the
    control."""

    ramp: Annotated[tuple[PositiveShare, ...], Field(min_length=1), AfterValidator(_rising)] = tuple(
        parse_share(step) for step in ("1%", "5%", "10%", "25%", "50%")
    )
    """Parts of all units that get the recommendation, step after step, each beside a control of the same
    size."""

    step: PositiveDuration | None = Field(default=None, json_schema_extra=derived)
    """How long one step of the ramp lasts. Default: `schedule.window`."""

    holdback: Share = parse_share("5%")
    """Part of all units that keeps the old incumbent after the adoption, so that the effect goes on being
    measured; at most 50%."""

    holdback_for: PositiveDuration = parse_duration("28d")
    """How long it is kept."""

    @model_validator(mode="after")
    def _levels(self) -> Promotion:
        for key, says, hint in (
            ("alpha", "`alpha` must be less than 50%" if self.alpha >= HALF else "", "such as alpha: 2.5%"),
            ("share", "`share` leaves no control" if self.share == EVERYTHING else "", "such as share: 50%"),
            ("holdback", "`holdback` must be at most 50%" if self.holdback > HALF else "", "such as 5%"),
        ):
            if says:
                raise PydanticCustomError(key, "{says}", {"says": says, "hint": hint})
        return self


class Explore(Section):
    """Candidates by the hundred, each served to a few units: the module perturbs its model for every request,
    from the 24 bytes that an order brings ([exploration](../exploration.md))."""

    unit: Literal["request"]
    """Who perturbs: the module, for each request."""

    directions: Annotated[int, Field(ge=1, le=5_000)] = 64
    """Directions in a window, each there and back: twice as many arms. Also how many an update of the
    optimizer takes, unless `optimizer` says so itself."""

    store: Annotated[str, Field(min_length=1)] = "centres"
    """Where the centres are that candidates are relative to, shared with the modules: a directory, relative
    to the campaign file, or a URL such as `s3://bucket/feed`
    ([where they are kept](../artifacts.md#where-they-are-kept))."""

    @property
    def arms(self) -> int:
        """Candidates of a window."""
        return 2 * self.directions


CORE: dict[str, type[Section]] = {
    "objective": Objective,
    "guardrails": Guardrail,
    "traffic": Traffic,
    "explore": Explore,
    "budget": Budget,
    "schedule": Schedule,
    "promotion": Promotion,
}
"""Sections of the core; ``guardrails`` is a list of them."""

PLUGINS: dict[str, tuple[str, type]] = {
    "clock": ("clocks", Clock),
    "policy": ("policies", Policy),
    "optimizer": ("optimizers", Optimizer),
    "push": ("connectors", Target),
    "measure": ("connectors", Source),
    "evaluate": ("connectors", Evaluator),
}
"""Sections of plug-ins: the group they are found in, and the contract they must meet."""

REQUIRED = ("version", "name", "policy", "optimizer", "objective", "budget")
PRODUCTION = ("push", "measure", "traffic", "schedule")
IN_PRODUCTION = (*PRODUCTION, "guardrails", "promotion", "explore")
"""Sections that only a campaign in production has; the first ones are required there."""

KEYS = (*Head.model_fields, *PLUGINS, *CORE)
