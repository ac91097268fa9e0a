"""The sections that plug-ins answer for: find the class, look up the references, let its own model judge."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from blackopt import plugins
from blackopt.campaign.base import METRIC_NAME, Section
from blackopt.campaign.findings import Findings
from blackopt.campaign.schema import PLUGINS, Explore, Metric
from blackopt.campaign.secrets import References, find_plain_passwords, has_reference, report_plain_secret
from blackopt.campaign.specs import (
    Document,
    MeasureSection,
    MetricSpec,
    OptimizerSection,
    PluginSection,
)
from blackopt.campaign.validation import secret_paths, validate
from blackopt.diagnostics import KeyPath
from blackopt.errors import ConfigurationError
from blackopt.protocols import OptimizerOptions, PluginOptions


@dataclass
class Sections:
    """Reads the sections of one campaign; what is wrong goes to the findings."""

    findings: Findings
    references: References

    def plain(self, key: str, data: Any) -> PluginSection | None:
        """``clock``, ``policy``, ``push`` or ``evaluate``; None if it is wrong."""
        found = self._plugin(key, data)
        if found is None:
            return None
        plugin, options = found
        valid = self._options(plugin.Options, options, (key,))
        return PluginSection(data["use"], valid) if valid is not None else None

    def optimizer(self, data: Any) -> OptimizerSection | None:
        """``optimizer``; None if it is wrong."""
        section = self.plain("optimizer", data)
        if section is None:
            return None
        # plugins.find has checked that an optimizer's Options are OptimizerOptions.
        return OptimizerSection(section.use, cast("OptimizerOptions", section.options))

    def measure(self, data: Any) -> MeasureSection | None:
        """``measure`` with its metrics; None if anything of it is wrong."""
        own = (
            {key: value for key, value in data.items() if key != "metrics"}
            if isinstance(data, dict)
            else data
        )
        found = self._plugin("measure", own)
        declared = self._metrics(data, found[0].MetricOptions if found else None)
        if found is None or declared is None:
            return None
        valid = self._options(found[0].Options, found[1], ("measure",))
        metrics = {name: spec for name, spec in declared.items() if spec is not None}
        if valid is None or len(metrics) < len(declared):
            return None
        return MeasureSection(data["use"], valid, MappingProxyType(metrics))

    def _metrics(self, data: Any, model: type[PluginOptions] | None) -> dict[str, MetricSpec | None] | None:
        path: KeyPath = ("measure", "metrics")
        if not isinstance(data, dict) or self.findings.is_broken(path):
            return None
        metrics = data.get("metrics")
        if not isinstance(metrics, dict) or not metrics:
            message = "must be a mapping of metrics" if "metrics" in data else "is required"
            self.findings.add(path, message, "such as visit_14d: {kind: proportion, window: 14d}")
            return None
        result: dict[str, MetricSpec | None] = {}
        for name, metric in metrics.items():
            at = (*path, name)
            if re.fullmatch(METRIC_NAME.pattern, name) is None:
                self.findings.add(at, "is not a name for a metric", METRIC_NAME.rule, key=True)
            core = self._metric(metric, at)
            result[name] = self._metric_spec(core, metric, model, at) if core and model else None
        return result

    def _metric_spec(
        self, core: Metric, written: Document, model: type[PluginOptions], path: KeyPath
    ) -> MetricSpec | None:
        # A source that computes from raw rows needs to know what the core knows: window, day, cap.
        asked = {name for name in model.model_fields if name in Metric.model_fields}
        read = {name: getattr(core, name) for name in asked}
        told = {name: dict(value) if isinstance(value, Section) else value for name, value in read.items()}
        own = {key: value for key, value in written.items() if key not in Metric.model_fields}
        options = self._options(model, own | told, path, beside=Metric.model_fields)
        history = None
        if core.history is not None:
            for key in sorted(asked & core.history.keys()):
                self.findings.add((*path, "history", key), "is the core's key", "the metric itself says it")
            history = self._options(model, core.history | told, (*path, "history"))
            if history is None:
                return None
        return (
            None
            if options is None
            else MetricSpec(
                kind=core.kind,
                window=core.window,
                lag=core.lag,
                min_units=core.min_units,
                options=options,
                min_events=core.min_events,
                cap=core.cap,
                quantile=core.quantile,
                cuped=core.cuped,
                bake=core.bake,
                anchor=core.anchor,
                day=core.day,
                within=core.within,
                history=history,
            )
        )

    def _metric(self, metric: Any, path: KeyPath) -> Metric | None:
        if self.findings.is_broken(path):
            return None
        if not isinstance(metric, dict):
            self.findings.add(path, "must be a mapping", "such as {kind: proportion, window: 14d}")
            return None
        core = {key: value for key, value in metric.items() if key in Metric.model_fields}
        plain = {key: value for key, value in core.items() if key != "history"}  # that is the source's
        self.references.refuse(plain, path)
        return validate(Metric, core, path, self.findings)

    def _plugin(self, key: str, data: Any) -> tuple[type[Any], Document] | None:
        """The section's class, and its options as they were written."""
        group, role = PLUGINS[key]
        if self.findings.is_broken((key,)):
            return None
        if not isinstance(data, dict):
            hint = f"{key}: {{use: {data}}}" if isinstance(data, str) else f"{key}: {{use: ...}}"
            self.findings.add((key,), "must be a mapping that names a plug-in", hint)
            return None
        use = data.get("use")
        if not isinstance(use, str):
            if not self.findings.is_broken((key, "use")):
                known = ", ".join(plugins.names(group)) or "none"
                message = "must be the name of a plug-in" if "use" in data else "is required"
                self.findings.add((key, "use"), message, f"installed {group}: {known}")
            return None
        self.references.refuse(use, (key, "use"))
        if self.findings.is_broken((key, "use")):
            return None
        try:
            plugin = plugins.find(group, use, role=role)
        except ConfigurationError as error:
            message = f"{error.what}: {error.why}" if error.why else error.what
            self.findings.add((key, "use"), message, error.next_step)
            return None
        return plugin, {name: value for name, value in data.items() if name != "use"}

    def _options(
        self, model: type[PluginOptions], written: Document, path: KeyPath, *, beside: Collection[str] = ()
    ) -> PluginOptions | None:
        find_plain_passwords(written, path, self.findings)
        for at, text in secret_paths(model, written, path):
            if text and not has_reference(text):
                report_plain_secret(text, at, self.findings, "is a secret in plain text")
        expanded = self.references.expand(written, path)
        return validate(model, expanded, path, self.findings, foreign=True, beside=beside)


def informed(
    optimizer: OptimizerSection, *, trials: int, parallel: int, explore: Explore | None
) -> tuple[OptimizerSection, Document]:
    """The optimizer told what it asks of the core and the campaign does not say, and what that is by key."""
    known = {"trials": trials, "parallel": parallel}
    told: Document = {name: known[name] for name in sorted(optimizer.options.asks())}
    if explore is not None:  # an update takes the candidates of a window
        sizes = {"population": explore.arms, "directions": explore.directions}
        own = type(optimizer.options).model_fields.keys() - optimizer.options.model_fields_set
        told |= {name: sizes[name] for name in sorted(sizes) if name in own}
    if not told:
        return optimizer, told
    return OptimizerSection(optimizer.use, optimizer.options.model_copy(update=told)), told


def core_section(
    model: type[Section], data: Any, path: KeyPath, findings: Findings, references: References
) -> Any:
    """One of the core's own sections, which take no references; None if it is wrong."""
    if findings.is_broken(path):
        return None
    if not isinstance(data, dict):
        findings.add(
            path,
            "must be a mapping",
            f"keys are {', '.join(info.alias or name for name, info in model.model_fields.items())}",
        )
        return None
    references.refuse(data, path)
    find_plain_passwords(data, path, findings, hint="give access by the environment")
    return validate(model, data, path, findings)
