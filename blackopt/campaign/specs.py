"""A campaign that was read: what the sections say, with defaults filled in, ready to be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from blackopt.campaign.schema import Anchor, Budget, Explore, Form, Metric, Objective, Schedule
from blackopt.protocols import OptimizerOptions, PluginOptions

Document: TypeAlias = dict[str, Any]
"""JSON-able; references to secrets are as they were written."""


def delay(metric: Metric | MetricSpec) -> int:
    """How long after the end of a traffic window a metric has matured, in microseconds."""
    return (metric.anchor.within if metric.anchor else 0) + metric.window + metric.lag + metric.bake


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
    """One entry of ``measure.metrics``: what :class:`Metric` says, and the source's own options.

    Attributes:
        options: the source's, of this metric.
        history: the same for questions about the control before the campaign; None where nobody said.
    """

    kind: str
    window: int
    lag: int
    min_units: int
    options: PluginOptions = field(repr=False)
    min_events: int = 0
    cap: float | None = None
    quantile: float | None = None
    cuped: bool = False
    bake: int = 0
    anchor: Anchor | None = None
    day: int | None = None
    within: bool = False
    history: PluginOptions | None = field(default=None, repr=False)


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
class PromotionSpec:
    """``promotion``, with its defaults filled in.

    Attributes:
        window: of one look, in microseconds; whole weeks where the schedule wants them.
        alpha: a probability, one-sided, over all looks.
        share: millionths of the campaign's traffic that get the recommendation while it is tested.
        ramp: millionths of all units, rising, each at most half.
        step: of the ramp, in microseconds.
        holdback: millionths of all units, at most half.
        holdback_for: microseconds.
    """

    looks: int
    window: int
    alpha: float
    share: int
    ramp: tuple[int, ...]
    step: int
    holdback: int
    holdback_for: int


@dataclass(frozen=True, slots=True)
class CampaignSpec:
    """A campaign that has passed every check that needs no network.

    Attributes:
        file: as the user named it; for messages.
        base: directory that relative paths start from.
        ledger: path of the ledger.
        mode: which of the three forms it has.
        push, measure, traffic, schedule: all present in production, all None otherwise.
        promotion: present in production, even where the file has none; None otherwise.
        explore: where candidates are keys that modules perturb their models by; None otherwise.
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
    promotion: PromotionSpec | None = None
    explore: Explore | None = None
