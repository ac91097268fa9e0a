"""Checks across sections: what each section cannot know of the others. Whatever could be read is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blackopt.campaign.findings import Findings
from blackopt.campaign.schema import (
    EVERYTHING,
    PRODUCTION,
    Budget,
    Document,
    Form,
    Guardrail,
    Metric,
    Objective,
    Schedule,
    Traffic,
)
from blackopt.campaign.units import format_duration, format_share
from blackopt.diagnostics import suggest


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
    metrics: Mapping[str, Metric] | None
    population: int | None

    @property
    def arms(self) -> int:
        """Candidates served at the same time, at least 1."""
        given = self.traffic.arms if self.traffic else None
        return given or self.population or (self.budget.max_in_flight if self.budget else 0) or 1

    @property
    def max_in_flight(self) -> int:
        """Candidates asked and not told, at least 1."""
        given = self.budget.max_in_flight if self.budget else 0
        return given or (self.traffic.arms if self.traffic else None) or self.population or 1


def form_of(data: Document, findings: Findings) -> Form:
    """Which of the three forms a campaign has; sections that do not belong to it are problems."""
    if "evaluate" in data:
        for key in (*PRODUCTION, "guardrails"):
            if key in data:
                message = "does not go with `evaluate`"
                findings.add(
                    (key,), message, "a campaign has either `evaluate`, or `push` and `measure`", key=True
                )
        return Form.EVALUATION
    present = [key for key in (*PRODUCTION, "guardrails") if key in data]
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
    if objective.relative_to is None:
        return
    if form is not Form.PRODUCTION:
        findings.add(("objective", "relative_to"), "needs traffic with a control", "remove the key", key=True)
    elif core.traffic is not None and core.traffic.control == 0:
        at = ("traffic", "control")
        findings.add(
            at, "must be more than 0%: the objective is relative to the control", "such as control: 20%"
        )


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
    if core.budget is not None and core.max_in_flight < core.arms:
        origin = "" if core.traffic.arms else " (the optimizer's population)"
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
    matures = {name: metric.window + metric.lag for name, metric in _judged(core).items()}
    last = max(matures, key=lambda name: matures[name], default=None)
    if last is not None and schedule.deadline < matures[last] + schedule.poll:
        message = f"is too early: `{last}` matures {format_duration(matures[last])} after the window's end"
        hint = f"at least {format_duration(matures[last] + schedule.poll)}: one poll more"
        findings.add(("schedule", "deadline"), message, hint)


def _judged(core: Core) -> dict[str, Metric]:
    """Declared metrics that a candidate waits for."""
    named = [core.objective.metric] if core.objective else []
    named += [guardrail.metric for guardrail in core.guardrails if guardrail is not None]
    return {name: core.metrics[name] for name in named if name in core.metrics} if core.metrics else {}


def _declared(name: str, metrics: Mapping[str, Metric], path: tuple[Any, ...], findings: Findings) -> None:
    if name not in metrics:
        hint = suggest(name, metrics) or f"declared are {', '.join(metrics)}"
        findings.add(path, f"`{name}` is not declared under `measure.metrics`", hint)
