"""From a file, a text or a mapping to a :class:`CampaignSpec`: every problem in one pass, or none."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any

from blackopt.campaign import document as documents
from blackopt.campaign import text as yaml_text
from blackopt.campaign.checks import Core, check, form_of
from blackopt.campaign.findings import Findings
from blackopt.campaign.schema import (
    CORE,
    EVERYTHING,
    KEYS,
    REQUIRED,
    Budget,
    Form,
    Guardrail,
    Head,
    Metric,
    Promotion,
    Schedule,
)
from blackopt.campaign.secrets import References
from blackopt.campaign.sections import Sections, core_section, informed
from blackopt.campaign.specs import (
    CampaignSpec,
    Document,
    GuardrailSpec,
    MeasureSection,
    OptimizerSection,
    PluginSection,
    PromotionSpec,
    TrafficSpec,
    delay,
)
from blackopt.campaign.units import whole_weeks
from blackopt.campaign.validation import validate
from blackopt.diagnostics import KeyPath, suggest
from blackopt.errors import DiagnosticsError

SYSTEM_CLOCK = {"use": "system"}


def load(path: str | os.PathLike[str], *, env: Mapping[str, str] | None = None) -> CampaignSpec:
    """Read and check a campaign file; nothing is contacted.

    Args:
        path: of the file; relative paths in it start from its directory.
        env: where ``${NAME}`` is looked up; the process's environment where it is None.

    Raises:
        DiagnosticsError: the file cannot be read, or is wrong; all problems, each with its line.
    """
    file = Path(path)
    findings = Findings(str(path))
    body = _read(file, findings)
    text = yaml_text.decode(body, findings) if body is not None else None
    findings.stop(f"{path} cannot be used")
    return parse(text or "", file=str(path), base=file.resolve().parent, env=env)


def parse(
    text: str,
    *,
    file: str = "<string>",
    base: str | os.PathLike[str] = ".",
    env: Mapping[str, str] | None = None,
) -> CampaignSpec:
    """Check the text of a campaign.

    Args:
        text: YAML, as in a file.
        file: name that problems carry.
        base: directory that relative paths start from.
        env: as in :func:`load`.

    Raises:
        DiagnosticsError: as in :func:`load`.
    """
    findings = Findings(file)
    data = yaml_text.read(text, findings)
    if data is None:
        findings.stop(f"{file} cannot be used")
    return _Campaign(data or {}, findings, Path(base).resolve(), os.environ if env is None else env).spec()


def from_mapping(
    mapping: Mapping[str, object], *, base: str | os.PathLike[str] = ".", env: Mapping[str, str] | None = None
) -> CampaignSpec:
    """Check a campaign that was written in Python: the same keys, the same checks; problems carry key paths
    only.

    Args:
        mapping: nested mappings, sequences, text, numbers (numpy's as well), booleans, paths and None.
        base: directory that relative paths start from.
        env: as in :func:`load`.

    Raises:
        DiagnosticsError: as in :func:`load`.
    """
    findings = Findings("<mapping>")
    data = _plain(mapping, (), findings)
    return _Campaign(data, findings, Path(base).resolve(), os.environ if env is None else env).spec()


def refused(spec: CampaignSpec, path: KeyPath, message: str, hint: str) -> DiagnosticsError:
    """The error for a campaign that has passed every check, and that one of its plug-ins cannot run.

    Args:
        spec: the campaign.
        path: of the section to change, as in ``("policy",)``; its line is found in the file, if there is one.
        message: what is wrong, without the path.
        hint: what to write instead.
    """
    findings = Findings(spec.file)
    body = _read(Path(spec.file), Findings("")) if Path(spec.file).is_file() else None
    text = yaml_text.decode(body, Findings("")) if body is not None else None
    if text is not None:
        yaml_text.read(text, findings)
    findings.add(path, message, hint)
    try:
        findings.stop(f"{spec.file} cannot be used")
    except DiagnosticsError as error:
        return error
    raise RuntimeError("a finding is always reported")


def _read(file: Path, findings: Findings) -> bytes | None:
    try:
        if not file.is_file():
            hint = "name a campaign file" if file.exists() else "check the path"
            findings.add((), "is not a file" if file.exists() else "does not exist", hint)
            return None
        with file.open("rb") as stream:
            return stream.read(yaml_text.MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        findings.add((), f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return None


def _plain(value: object, path: KeyPath, findings: Findings) -> Any:
    """Python's values as those that YAML would give."""
    if value is None or isinstance(value, str | bool):
        return value
    if len(path) > yaml_text.MAX_DEPTH:
        findings.add(path, f"is nested more than {yaml_text.MAX_DEPTH} levels deep", breaks=True)
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        if math.isfinite(number):
            return number
        findings.add(path, f"{number} is not a number that can be used", breaks=True)
        return None
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                findings.add(path, f"has a key that is no text: {key!r}")
        return {
            key: _plain(item, (*path, key), findings) for key, item in value.items() if isinstance(key, str)
        }
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, i), findings) for i, item in enumerate(value)]
    findings.add(
        path,
        f"cannot be a {type(value).__name__}",
        "text, numbers, booleans, lists and mappings",
        breaks=True,
    )
    return None


class _Campaign:
    """One pass over one campaign."""

    def __init__(self, data: Document, findings: Findings, base: Path, env: Mapping[str, str]) -> None:
        self.data, self.findings, self.base = data, findings, base
        self.references = References(env, base, findings)
        self.sections = Sections(findings, self.references)

    def spec(self) -> CampaignSpec:
        data, sections = self.data, self.sections
        self._top_level()
        form = form_of(data, self.findings)
        head_data = {key: data[key] for key in Head.model_fields if key in data}
        self.references.refuse(head_data, ())
        head = validate(Head, head_data, (), self.findings)
        plugins: dict[str, PluginSection | None] = {
            key: sections.plain(key, data[key]) for key in ("policy", "push", "evaluate") if key in data
        }
        clock = sections.plain("clock", data.get("clock", SYSTEM_CLOCK))
        optimizer = sections.optimizer(data["optimizer"]) if "optimizer" in data else None
        measure = sections.measure(data["measure"]) if "measure" in data else None
        core = self._core(optimizer)
        check(core, form, self.findings)
        self.findings.stop(f"{self.findings.file} cannot be used")
        policy = plugins.pop("policy")
        if not (head and clock and policy and optimizer and core.objective and core.budget):
            raise RuntimeError("a section is missing, and no problem was recorded")  # a fault of this module
        optimizer, told = informed(
            optimizer, trials=core.budget.trials, parallel=core.max_in_flight, explore=core.explore
        )
        document = self._document(head, core, told)
        return self._assemble(head, form, clock, policy, optimizer, plugins, measure, core, document)

    def _top_level(self) -> None:
        for key in self.data:
            if key not in KEYS:
                self.findings.add(
                    (key,), "unknown key", suggest(key, KEYS) or f"known are {', '.join(KEYS)}", key=True
                )
        for key in REQUIRED:
            if key not in self.data and key not in Head.model_fields:
                self.findings.add((key,), "is required")

    def _core(self, optimizer: OptimizerSection | None) -> Core:
        population = getattr(optimizer.options, "population", None) if optimizer else None
        return Core(
            objective=self._section("objective"),
            guardrails=self._guardrails(),
            traffic=self._section("traffic"),
            budget=self._section("budget"),
            schedule=self._section("schedule"),
            promotion=self._section("promotion"),
            explore=self._section("explore"),
            metrics=self._metrics(),
            population=population if isinstance(population, int) else None,
        )

    def _section(self, key: str) -> Any:
        if key not in self.data:
            return None
        return core_section(CORE[key], self.data[key], (key,), self.findings, self.references)

    def _guardrails(self) -> tuple[Guardrail | None, ...]:
        entries = self.data.get("guardrails", [])
        if self.findings.is_broken(("guardrails",)):
            return ()
        if not isinstance(entries, list):
            hint = 'such as [{metric: unsubscribe_14d, at_most: "1.05 * control"}]'
            self.findings.add(("guardrails",), "must be a list", hint)
            return ()
        return tuple(
            core_section(Guardrail, entry, ("guardrails", i), self.findings, self.references)
            for i, entry in enumerate(entries)
        )

    def _metrics(self) -> dict[str, Metric] | None:
        """The core's part of the metrics, without a report: what is wrong with them has been said."""
        written = self.data.get("measure")
        declared = written.get("metrics") if isinstance(written, dict) else None
        if not isinstance(declared, dict):
            return None
        quiet = Findings("")
        metrics = {}
        for name, metric in declared.items():
            own = metric if isinstance(metric, dict) else {}
            core = validate(Metric, {k: own[k] for k in Metric.model_fields if k in own}, (), quiet)
            # A metric that is wrong is still declared, so that nobody is told it is not.
            metrics[name] = core or Metric(kind="value")
        return metrics

    def _document(self, head: Head, core: Core, told: Document) -> Document:
        result: Document = documents.dump(head)
        for key in ("clock", "policy", "optimizer", "push", "evaluate"):
            if key in self.data:
                result[key] = self.data[key]
        result["optimizer"] = {**result["optimizer"], **told}
        if "measure" in self.data:
            result["measure"] = documents.dump_measure(self.data["measure"], self._metrics() or {})
        for key in ("objective", "traffic", "explore", "budget", "schedule", "promotion"):
            section = getattr(core, key)
            if section is not None:
                result[key] = documents.dump(section)
        if core.guardrails:
            result["guardrails"] = [documents.dump(guardrail) for guardrail in core.guardrails if guardrail]
        plain: Document = documents.plain_numbers(result)
        return plain

    def _assemble(
        self,
        head: Head,
        form: Form,
        clock: PluginSection,
        policy: PluginSection,
        optimizer: OptimizerSection,
        plugins: dict[str, PluginSection | None],
        measure: MeasureSection | None,
        core: Core,
        document: Document,
    ) -> CampaignSpec:
        objective, budget, traffic = core.objective, core.budget, core.traffic
        if objective is None or budget is None:
            raise RuntimeError("objective and budget are required")
        return CampaignSpec(
            name=head.name,
            file=self.findings.file,
            base=self.base,
            ledger=self.base / (head.ledger or f"{head.name}.db"),
            mode=form,
            clock=clock,
            policy=policy,
            optimizer=optimizer,
            push=plugins.get("push"),
            measure=measure,
            evaluate=plugins.get("evaluate"),
            objective=objective,
            guardrails=tuple(_guardrail(g, measure, core.schedule) for g in core.guardrails if g),
            traffic=TrafficSpec(traffic.unit, traffic.share, traffic.control, core.arms) if traffic else None,
            budget=budget.model_copy(
                update={"max_in_flight": core.max_in_flight, "breaches": _breaches(core, budget)}
            ),
            schedule=core.schedule,
            document=document,
            canonical=documents.canonical(document),
            sha256=documents.sha256(document),
            promotion=_promotion(core.promotion or Promotion(), core.schedule) if core.schedule else None,
            explore=core.explore,
        )


def _guardrail(
    guardrail: Guardrail, measure: MeasureSection | None, schedule: Schedule | None
) -> GuardrailSpec:
    if measure is None or schedule is None:
        raise RuntimeError("guardrails need `measure` and `schedule`")  # a fault of this module
    metric = measure.metrics[guardrail.metric]
    return GuardrailSpec(
        metric=guardrail.metric,
        at_most=guardrail.at_most,
        at_least=guardrail.at_least,
        min_units=guardrail.min_units or metric.min_units,
        min_events=guardrail.min_events,
        alpha=guardrail.alpha / EVERYTHING,
        expected_units=guardrail.expected_units,
        lasting=guardrail.lasting,
        silent_after=guardrail.silent_after or delay(metric) + 2 * schedule.poll,
    )


def _breaches(core: Core, budget: Budget) -> int:
    if core.explore is None or "breaches" in budget.model_fields_set:
        return budget.breaches
    return max(budget.breaches, core.arms // 4)


def _promotion(promotion: Promotion, schedule: Schedule) -> PromotionSpec:
    window = promotion.window or schedule.window
    return PromotionSpec(
        looks=promotion.looks,
        window=whole_weeks(window) if schedule.whole_weeks else window,
        alpha=promotion.alpha / EVERYTHING,
        share=promotion.share,
        ramp=promotion.ramp,
        step=promotion.step or schedule.window,
        holdback=promotion.holdback,
        holdback_for=promotion.holdback_for,
    )
