"""The JSON Schema of ``campaign.yaml``, for editors: the core's keys and the plug-ins' options."""

from __future__ import annotations

from typing import Any

from blackopt import plugins
from blackopt.campaign.schema import CORE, PLUGINS, PRODUCTION, REQUIRED, Guardrail, Head, Metric, Section
from blackopt.campaign.units import format_duration, format_share
from blackopt.errors import ConfigurationError
from blackopt.protocols import PluginOptions

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_WRITTEN = {"duration": format_duration, "share": format_share}


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a campaign file.

    A section of a plug-in is one of the installed plug-ins that fit there, told apart by ``use``; one that
    cannot be imported here (its extra is missing) may have any options. Sorted, so that the same installation
    gives the same.
    """
    definitions: dict[str, Schema] = {}
    head = core_schema(Head)
    properties = dict(head["properties"])
    for key in PLUGINS:
        properties[key] = _section(key, definitions)
    for key, model in CORE.items():
        properties[key] = core_schema(model)
    properties["guardrails"] = {"type": "array", "items": core_schema(Guardrail)}
    none_of = {"not": {"anyOf": [{"required": [key]} for key in (*PRODUCTION, "guardrails")]}}
    return {
        "$schema": DIALECT,
        "title": "blackopt campaign",
        "type": "object",
        "additionalProperties": False,
        "required": list(REQUIRED),
        "properties": properties,
        "oneOf": [
            {"title": "production", "required": list(PRODUCTION), "not": {"required": ["evaluate"]}},
            {"title": "evaluation", "required": ["evaluate"], **none_of},
            {"title": "manual", "allOf": [none_of, {"not": {"required": ["evaluate"]}}]},
        ],
        "$defs": {name: definitions[name] for name in sorted(definitions)},
    }


def core_schema(model: type[Section]) -> dict[str, Any]:
    """The schema of one of the core's sections; defaults in the units that a campaign is written in."""
    schema = model.model_json_schema()
    for value in schema["properties"].values():
        write = _WRITTEN.get(value.get("title", ""))
        if write is not None and "default" in value:
            value["default"] = write(value["default"])
    return schema


def _section(key: str, definitions: dict[str, Schema]) -> Schema:
    group, role = PLUGINS[key]
    kinds = []
    for name in plugins.names(group):
        try:
            plugin = plugins.find(group, name)
        except ConfigurationError as error:
            use = {"const": name, "description": error.what}
            kinds.append({"type": "object", "required": ["use"], "properties": {"use": use}})
            continue
        if not plugins.missing_members(plugin, role):
            kinds.append(_plugin(key, group, name, plugin, definitions))
    return (
        {"oneOf": kinds}
        if kinds
        else {"type": "object", "required": ["use"], "properties": {"use": {"type": "string"}}}
    )


def _plugin(key: str, group: str, name: str, plugin: type[Any], definitions: dict[str, Schema]) -> Schema:
    schema = _model(plugin.Options, f"{group}.{name}", definitions)
    properties = {"use": {"const": name}, **schema.get("properties", {})}
    required = ["use", *schema.get("required", [])]
    if key == "measure":
        properties["metrics"] = _metrics(plugin.MetricOptions, f"{group}.{name}.metric", definitions)
        required.append("metrics")
    return {**schema, "title": name, "type": "object", "properties": properties, "required": required}


def _metrics(options: type[PluginOptions], prefix: str, definitions: dict[str, Schema]) -> Schema:
    core, own = core_schema(Metric), _model(options, prefix, definitions)
    metric = {
        **core,
        "title": "metric",
        "properties": {**core["properties"], **own.get("properties", {})},
        "required": [*core["required"], *own.get("required", [])],
    }
    return {"type": "object", "minProperties": 1, "additionalProperties": metric}


def _model(model: type[Any], prefix: str, definitions: dict[str, Schema]) -> Schema:
    """A model's own schema; its definitions move to the root, under names that are the plug-in's alone."""
    schema: Schema = model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    for name, definition in schema.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = definition
    return schema
