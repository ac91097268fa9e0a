"""What a campaign says: one model a section. Keys, types, defaults and the reference page all come from here.

Durations are integer microseconds and shares integer millionths, whatever unit the campaign was written in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from blackopt.campaign.units import (
    Duration,
    Limit,
    PositiveDuration,
    PositiveShare,
    Share,
    parse_duration,
    parse_share,
)
from blackopt.protocols import (
    Clock,
    Evaluator,
    Optimizer,
    OptimizerOptions,
    PluginOptions,
    Policy,
    Source,
    Target,
)

Document: TypeAlias = dict[str, Any]
"""JSON-able; references to secrets are as they were written."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a kind of name is spelled, as a pattern and in words."""

    pattern: str
    rule: str

    def __call__(self, name: str) -> str:
        """The name.

        Raises:
            PydanticCustomError: it is spelled otherwise.
        """
        if re.fullmatch(self.pattern, name) is None:
            raise PydanticCustomError("spelling", "is not such a name", {"hint": self.rule})
        return name


CAMPAIGN_NAME = Spelling(
    r"[a-z0-9][a-z0-9-]{0,62}", "lower-case letters, digits and dashes, at most 63, such as email-offer"
)
METRIC_NAME = Spelling(
    r"[A-Za-z][A-Za-z0-9_.-]{0,62}", "a letter, then letters, digits, _ . -, at most 63 in all"
)
UNIT_NAME = Spelling(r"[A-Za-z][A-Za-z0-9_-]{0,62}", "a letter, then letters, digits, _ -, at most 63 in all")


def _pattern(spelling: Spelling) -> Any:
    return Field(json_schema_extra={"pattern": f"^{spelling.pattern}$"})


CampaignName = Annotated[str, AfterValidator(CAMPAIGN_NAME), _pattern(CAMPAIGN_NAME)]
MetricName = Annotated[str, AfterValidator(METRIC_NAME), _pattern(METRIC_NAME)]
UnitName = Annotated[str, AfterValidator(UNIT_NAME), _pattern(UNIT_NAME)]


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


def _derived(schema: dict[str, Any]) -> None:
    """The field's default depends on other keys, so the JSON Schema names none."""
    schema.pop("default", None)


class Form(StrEnum):
    """The three forms of a campaign."""

    PRODUCTION = "production"  # push, measure, traffic, schedule: candidates are served to live traffic
    EVALUATION = "evaluation"  # evaluate: blackopt runs the candidates itself
    MANUAL = "manual"  # neither: candidates are asked and told by hand


class Section(BaseModel):
    """Base of the core's sections: unknown keys are errors, nothing is coerced, nothing changes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )


class Head(Section):
    """What stands at the top of a campaign, beside its sections."""

    version: Annotated[int, AfterValidator(_version_1), Field(json_schema_extra={"const": 1})]
    """Version of this format; always 1."""

    name: CampaignName
    """Name of the campaign: lower-case letters, digits and dashes. Part of what assigns a unit to an arm."""

    ledger: Annotated[str, Field(min_length=1)] | None = Field(default=None, json_schema_extra=_derived)
    """File of the ledger, relative to the campaign file. Default: `<name>.db`."""


class Metric(Section):
    """One metric under `measure.metrics`. Every other key belongs to the source that `measure.use` names."""

    kind: Literal["proportion", "retention", "mean", "revenue", "ratio", "quantile", "value"]
    """What is estimated from the units' sums, and how: [metrics](../metrics.md)."""

    window: Duration = 0
    """How long after a unit's exposure the metric looks."""

    lag: Duration = 0
    """What the source needs after that to have everything."""

    min_units: Annotated[int, Field(ge=1)] = 1
    """With fewer units in an arm the metric has no value."""

    min_events: Annotated[int, Field(ge=0)] = 0
    """The same for units that succeeded, paid or ordered, whatever the metric is about."""

    day: Annotated[int, Field(ge=0)] | None = Field(default=None, json_schema_extra=_derived)
    """Of a `retention`: it counts the units that are active on this day after exposure, exactly."""

    cap: Annotated[float, Field(gt=0)] | None = Field(default=None, json_schema_extra=_derived)
    """Of a `revenue`: the most that counts for one unit, fixed in advance from the history of the control."""

    quantile: Annotated[float, Field(gt=0, lt=1)] | None = Field(default=None, json_schema_extra=_derived)
    """Of a `quantile`: which one, between 0 and 1."""

    cuped: bool = False
    """Of a `mean`, `revenue` or `ratio`: adjust for a covariate from before the exposure."""

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
        if self.day is not None and self.window < (self.day + 1) * _DAY:
            ends = f"{self.day + 1}d"
            raise _metric_error(f"its window ends before day {self.day} does", f"at least window: {ends}")
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

    min_units: Annotated[int, Field(ge=1)] | None = Field(default=None, json_schema_extra=_derived)
    """Fewer units in an arm decide nothing. Default: the metric's `min_units`."""

    min_events: Annotated[int, Field(ge=0)] = 10
    """Fewer events in an arm decide nothing, and fewer than the control's rate would give it; where the
    metric counts events."""

    alpha: PositiveShare = parse_share("5%")
    """Probability at most that a candidate which is not beyond the bound is ever withdrawn, however often it
    is looked at."""

    expected_units: Annotated[int, Field(ge=1)] | None = Field(default=None, json_schema_extra=_derived)
    """Units of an arm when its window is complete; harm is found soonest at a quarter of that. Default: 4
    times the larger of `min_units` and 1000."""

    lasting: PositiveDuration | None = Field(default=None, alias="for", json_schema_extra=_derived)
    """For operational metrics (errors, a 99th percentile), in place of a test: crossed only when every
    reading has been beyond the bound for so long."""

    silent_after: PositiveDuration | None = Field(default=None, json_schema_extra=_derived)
    """A candidate without data for so long is withdrawn too. Default: the metric's `window` and `lag`, and
    2 times `schedule.poll`."""

    @model_validator(mode="after")
    def _one_side(self) -> Guardrail:
        if (self.at_most is None) == (self.at_least is None):
            hint = {"hint": 'such as at_most: "1.05 * control"'}
            raise PydanticCustomError("side", "needs exactly one of `at_most` and `at_least`", hint)
        if self.alpha >= EVERYTHING // 2:
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

    arms: Annotated[int, Field(ge=1, le=10_000)] | None = Field(default=None, json_schema_extra=_derived)
    """Candidates served at once. Default: the optimizer's `population`, else `budget.max_in_flight`."""


class Budget(Section):
    """When the campaign is done. May be changed while it runs."""

    trials: Annotated[int, Field(ge=1)]
    """Candidates that the optimizer may ask for."""

    max_in_flight: Annotated[int, Field(ge=1)] = Field(default=0, json_schema_extra=_derived)
    """Candidates asked and not told. Default: `traffic.arms`, else the optimizer's `population`, else 1."""

    confirm: Annotated[int, Field(ge=0)] = 0
    """How often the recommendation is measured again at the end, on fresh units."""

    breaches: Annotated[int, Field(ge=1)] = 5
    """So many candidates withdrawn by guardrails in a row pause the campaign."""


class Schedule(Section):
    """When things happen. `poll` and `lease` may be changed while the campaign runs."""

    window: PositiveDuration
    """How long the arms of one window are served."""

    poll: PositiveDuration = parse_duration("15m")
    """How often metrics are polled and guardrails judged."""

    deadline: PositiveDuration = parse_duration("30d")
    """Counted from the window's end: a candidate whose metric has not matured by then is told as expired."""

    lease: PositiveDuration = Field(default=0, json_schema_extra=_derived)
    """A module stops serving a candidate this long after the last order. Default: 3 times `poll`."""

    @model_validator(mode="after")
    def _three_polls(self) -> Schedule:
        if self.lease == 0:  # not given: a given one is longer than nothing
            # Past pydantic's frozen setattr, and not recorded as set: the document holds what was written.
            object.__setattr__(self, "lease", 3 * self.poll)
        return self


@dataclass(frozen=True, slots=True)
class PluginSection:
    """A section that a plug-in answers for. Its options may hold secrets and are not in its repr.

    Attributes:
        use: name of the plug-in.
        options: an instance of the plug-in's ``Options``.
    """

    use: str
    options: PluginOptions = field(repr=False)


@dataclass(frozen=True, slots=True)
class OptimizerSection(PluginSection):
    """``optimizer``."""

    options: OptimizerOptions = field(repr=False)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One entry of ``measure.metrics``: what :class:`Metric` says, and the source's own options."""

    kind: str
    window: int
    lag: int
    min_units: int
    options: PluginOptions = field(repr=False)
    min_events: int = 0
    cap: float | None = None
    quantile: float | None = None
    cuped: bool = False


@dataclass(frozen=True, slots=True)
class MeasureSection(PluginSection):
    """``measure``."""

    metrics: Mapping[str, MetricSpec]


@dataclass(frozen=True, slots=True)
class GuardrailSpec:
    """One of ``guardrails``, with its defaults filled in; the bound as :class:`Guardrail` gives it.

    Attributes:
        alpha: a probability; here no share any more.
        expected_units: None where nobody said.
        lasting: what the campaign writes as ``for``, in microseconds; None for a test.
        silent_after: microseconds.
    """

    metric: str
    at_most: str | float | None
    at_least: str | float | None
    min_units: int
    min_events: int
    alpha: float
    expected_units: int | None
    lasting: int | None
    silent_after: int


@dataclass(frozen=True, slots=True)
class TrafficSpec:
    """``traffic``, with its defaults filled in; shares in millionths."""

    unit: str
    share: int
    control: int
    arms: int


@dataclass(frozen=True, slots=True)
class CampaignSpec:
    """A campaign that has passed every check that needs no network.

    Attributes:
        file: as the user named it; for messages.
        base: directory that relative paths start from.
        ledger: path of the ledger.
        mode: which of the three forms it has.
        push, measure, traffic, schedule: all present in production, all None otherwise.
        evaluate: present in an evaluation, None otherwise.
        document: what was written, in canonical units, references to secrets as they were written.
        canonical: the document as text.
        sha256: hex digest of what must not change once the campaign has started (:func:`frozen`).
    """

    name: str
    file: str
    base: Path
    ledger: Path
    mode: Form
    clock: PluginSection
    policy: PluginSection
    optimizer: OptimizerSection
    push: PluginSection | None
    measure: MeasureSection | None
    evaluate: PluginSection | None
    objective: Objective
    guardrails: tuple[GuardrailSpec, ...]
    traffic: TrafficSpec | None
    budget: Budget
    schedule: Schedule | None
    document: Document = field(repr=False)
    canonical: str = field(repr=False)
    sha256: str


CORE: dict[str, type[Section]] = {
    "objective": Objective,
    "guardrails": Guardrail,
    "traffic": Traffic,
    "budget": Budget,
    "schedule": Schedule,
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
KEYS = (*Head.model_fields, *PLUGINS, *CORE)

EVERYTHING = parse_share("100%")
