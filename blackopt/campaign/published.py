"""The JSON Schema of ``campaign.yaml``, for editors: the core's keys and the plug-ins' options."""

from __future__ import annotations

from typing import Any

from blackopt import plugins
from blackopt.campaign.base import Section
from blackopt.campaign.schema import (
    CORE,
    IN_PRODUCTION,
    PLUGINS,
    PRODUCTION,
    REQUIRED,
    Guardrail,
    Head,
    Metric,
)
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
    none_of = {"not": {"anyOf": [{"required": [key]} for key in IN_PRODUCTION]}}
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
    inner: dict[str, Schema] = schema.pop("$defs", {})
    _inline(schema, inner)
    return schema


def _inline(schema: Schema, inner: dict[str, Schema]) -> None:
    """Sections within the section in place of references to them; defaults as a campaign has them."""
    for key, value in schema.get("properties", {}).items():
        own = [kind for kind in value.get("anyOf", [value]) if "$ref" in kind]
        if own:
            found = dict(inner[own[0]["$ref"].rpartition("/")[2]])
            _inline(found, inner)
            rest = {k: v for k, v in value.items() if k not in ("anyOf", "$ref")}
            schema["properties"][key] = {**found, **rest}
        elif "default" in value:
            value["default"] = _written(value, value["default"])


def _written(value: Schema, default: Any) -> Any:
    write = _WRITTEN.get(value.get("title", ""))
    if isinstance(default, list | tuple):
        return [_written(value["items"], item) for item in default]
    return write(default) if write is not None else default


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
    # What a source asks the core for is written once, as the core's key.
    own["properties"] = {
        key: it for key, it in own.get("properties", {}).items() if key not in Metric.model_fields
    }
    own["required"] = [key for key in own.get("required", []) if key not in Metric.model_fields]
    metric = {
        **core,
        "title": "metric",
        "properties": {
            **core["properties"],
            "history": {**own, "description": core["properties"]["history"]["description"]},
            **own.get("properties", {}),
        },
        "required": [*core["required"], *own.get("required", [])],
    }
    return {"type": "object", "minProperties": 1, "additionalProperties": metric}


def _model(model: type[Any], prefix: str, definitions: dict[str, Schema]) -> Schema:
    """A model's own schema; its definitions move to the root, under names that are the plug-in's alone."""
    schema: Schema = model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    for name, definition in schema.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = definition
    return schema
