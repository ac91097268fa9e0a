"""Checks across sections: what each section cannot know of the others. Whatever could be read is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blackopt.campaign.findings import Findings
from blackopt.campaign.schema import (
    EVERYTHING,
    IN_PRODUCTION,
    PRODUCTION,
    Budget,
    Explore,
    Form,
    Guardrail,
    Metric,
    Objective,
    Promotion,
    Schedule,
    Traffic,
)
from blackopt.campaign.specs import Document, delay
from blackopt.campaign.units import format_duration, format_share, parse_duration, whole_weeks
from blackopt.diagnostics import suggest

LONGEST_TEST_US = parse_duration("730d")
"""All looks of a promotion together; what runs longer compares two products, not two policies."""


@dataclass
class Core:
    """The core's sections as far as they could be read; None where one is absent or wrong.

    Attributes:
        metrics: under ``measure.metrics``; None if they could not be read.
        population: of the optimizer, if it has one.
    """

    objective: Objective | None
    guardrails: tuple[Guardrail | None, ...]
    traffic: Traffic | None
    budget: Budget | None
    schedule: Schedule | None
    promotion: Promotion | None
    metrics: Mapping[str, Metric] | None
    population: int | None
    explore: Explore | None = None

    @property
    def arms(self) -> int:
        """Candidates served at the same time, at least 1."""
        given = self.explore.arms if self.explore else self.traffic.arms if self.traffic else None
        return given or self.population or (self.budget.max_in_flight if self.budget else 0) or 1

    @property
    def max_in_flight(self) -> int:
        """Candidates asked and not told, at least 1."""
        given = self.budget.max_in_flight if self.budget else 0
        return given or (
            self.arms if self.explore or (self.traffic and self.traffic.arms) else self.population or 1
        )


def form_of(data: Document, findings: Findings) -> Form:
    """Which of the three forms a campaign has; sections that do not belong to it are problems."""
    if "evaluate" in data:
        for key in IN_PRODUCTION:
            if key in data:
                message = "does not go with `evaluate`"
                findings.add(
                    (key,), message, "a campaign has either `evaluate`, or `push` and `measure`", key=True
                )
        return Form.EVALUATION
    present = [key for key in IN_PRODUCTION if key in data]
    if not present:
        return Form.MANUAL
    for key in PRODUCTION:
        if key not in data:
            hint = f"a campaign with `{present[0]}` needs all of {', '.join(PRODUCTION)}"
            findings.add((key,), "is required", hint)
    return Form.PRODUCTION


def check(core: Core, form: Form, findings: Findings) -> None:
    """Record every contradiction between sections."""
    _objective(core, form, findings)
    _guardrails(core, findings)
    _traffic(core, findings)
    _schedule(core, findings)
    _promotion(core, findings)


def _objective(core: Core, form: Form, findings: Findings) -> None:
    objective = core.objective
    if objective is None:
        return
    key = "maximize" if objective.maximizes else "minimize"
    if core.metrics is not None:
        _declared(objective.metric, core.metrics, ("objective", key), findings)
    if objective.relative_to is None and "effect" in objective.model_fields_set:
        findings.add(
            ("objective", "effect"),
            "says nothing without `relative_to`",
            "add relative_to: control",
            key=True,
        )
    _surrogate(objective, core, findings)
    if objective.relative_to is None:
        return
    if form is not Form.PRODUCTION:
        findings.add(("objective", "relative_to"), "needs traffic with a control", "remove the key", key=True)
    elif core.traffic is not None and core.traffic.control == 0:
        at = ("traffic", "control")
        findings.add(
            at, "must be more than 0%: the objective is relative to the control", "such as control: 20%"
        )


def _surrogate(objective: Objective, core: Core, findings: Findings) -> None:
    if objective.surrogate is None:
        return
    at, name = ("objective", "surrogate"), objective.surrogate.metric
    if objective.relative_to is None:
        findings.add(
            at, "needs `relative_to`: it is effects that it maps", "add relative_to: control", key=True
        )
    if name == objective.metric:
        findings.add((*at, "metric"), "is the objective itself", "name a metric that matures sooner")
        return
    if core.metrics is None:
        return
    _declared(name, core.metrics, (*at, "metric"), findings)
    if name in core.metrics and objective.metric in core.metrics:
        own, its = delay(core.metrics[name]), delay(core.metrics[objective.metric])
        if own >= its:
            message = (
                f"matures {format_duration(own)} after a window's end, "
                f"`{objective.metric}` {format_duration(its)}"
            )
            findings.add((*at, "metric"), message, "a surrogate must mature sooner")


def _guardrails(core: Core, findings: Findings) -> None:
    seen: set[tuple[str, bool]] = set()
    for i, guardrail in enumerate(core.guardrails):
        if guardrail is None:
            continue
        if core.metrics is not None:
            _declared(guardrail.metric, core.metrics, ("guardrails", i, "metric"), findings)
        side = (guardrail.metric, guardrail.at_most is not None)
        if side in seen:
            findings.add(
                ("guardrails", i), f"is a second bound on the same side of `{guardrail.metric}`", "keep one"
            )
        seen.add(side)
        bound = guardrail.at_most if guardrail.at_most is not None else guardrail.at_least
        if isinstance(bound, str) and core.traffic is not None and core.traffic.control == 0:
            key = "at_most" if guardrail.at_most is not None else "at_least"
            findings.add(("guardrails", i, key), "needs a control", "such as control: 20% under `traffic`")


def _traffic(core: Core, findings: Findings) -> None:
    if core.traffic is None:
        return
    if core.traffic.control == EVERYTHING:
        findings.add(("traffic", "control"), "leaves no traffic for candidates", "such as 20%")
    elif core.traffic.share * (EVERYTHING - core.traffic.control) // EVERYTHING < core.arms:
        share = format_share(core.traffic.share)
        findings.add(
            ("traffic", "share"),
            f"{share} is too little for {core.arms} arms",
            "a larger share, or fewer arms",
        )
    if core.explore is not None and core.traffic.arms not in (None, core.explore.arms):
        message = f"is not the {core.explore.arms} arms of {core.explore.directions} directions"
        findings.add(("traffic", "arms"), message, "leave it out: `explore.directions` says how many")
    if core.budget is not None and core.max_in_flight < core.arms:
        origin = "" if core.traffic.arms or core.explore else " (the optimizer's population)"
        message = f"is less than the {core.arms} arms of a window{origin}"
        hint = f"at least {core.arms}, or arms: {core.max_in_flight} under `traffic`"
        findings.add(("budget", "max_in_flight"), message, hint)


def _schedule(core: Core, findings: Findings) -> None:
    schedule = core.schedule
    if schedule is None:
        return
    poll = format_duration(schedule.poll)
    if schedule.lease < schedule.poll:
        message = f"is shorter than `poll` ({poll}): every candidate would lapse between two polls"
        findings.add(
            ("schedule", "lease"), message, f"at least {poll}, better {format_duration(3 * schedule.poll)}"
        )
    if schedule.poll > schedule.window:
        window = format_duration(schedule.window)
        message = f"is longer than `window` ({window}): guardrails would be judged too late"
        hint = "" if "poll" in schedule.model_fields_set else f"`poll` is {poll} unless it is given"
        findings.add(("schedule", "poll"), message, hint)
    matures = {name: delay(metric) for name, metric in _judged(core).items()}
    last = max(matures, key=lambda name: matures[name], default=None)
    if last is not None and schedule.deadline < matures[last] + schedule.poll:
        message = f"is too early: `{last}` matures {format_duration(matures[last])} after the window's end"
        hint = f"at least {format_duration(matures[last] + schedule.poll)}: one poll more"
        findings.add(("schedule", "deadline"), message, hint)


def _promotion(core: Core, findings: Findings) -> None:
    promotion, schedule = core.promotion, core.schedule
    if promotion is None or schedule is None:
        return
    for key in ("window", "step"):
        given = getattr(promotion, key)
        if given is not None and given < schedule.poll:
            message = f"is shorter than `schedule.poll` ({format_duration(schedule.poll)})"
            findings.add(("promotion", key), message, "guardrails would be judged too late")
    window = promotion.window or schedule.window
    if schedule.whole_weeks:
        window = whole_weeks(window)
    if promotion.looks * window > LONGEST_TEST_US:
        message = f"{promotion.looks} looks of {format_duration(window)} take longer than two years"
        findings.add(("promotion", "looks"), message, "fewer looks, or a shorter window")
    traffic = core.traffic
    if traffic is not None and not 0 < traffic.share * promotion.share // EVERYTHING < traffic.share:
        message = f"{format_share(promotion.share)} of {format_share(traffic.share)} is too little, or all"
        findings.add(("promotion", "share"), message, "such as 50%")


def _judged(core: Core) -> dict[str, Metric]:
    """Declared metrics that a candidate waits for."""
    named = [core.objective.metric] if core.objective else []
    named += [guardrail.metric for guardrail in core.guardrails if guardrail is not None]
    return {name: core.metrics[name] for name in named if name in core.metrics} if core.metrics else {}


def _declared(name: str, metrics: Mapping[str, Metric], path: tuple[Any, ...], findings: Findings) -> None:
    if name not in metrics:
        hint = suggest(name, metrics) or f"declared are {', '.join(metrics)}"
        findings.add(path, f"`{name}` is not declared under `measure.metrics`", hint)
