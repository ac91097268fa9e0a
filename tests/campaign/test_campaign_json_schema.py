"""The published schema says what the loader says."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import jsonschema
import pytest

from blackopt.campaign import json_schema, parse
from blackopt.errors import DiagnosticsError

pytestmark = pytest.mark.usefixtures("throwaway")


@functools.cache
def schema_text() -> str:
    """Every test has the same plug-ins installed, so the schema is made once."""
    return json.dumps(json_schema())


@pytest.fixture
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(schema_text())
    return found


def test_it_is_a_schema_and_deterministic(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.dumps(schema) == json.dumps(json_schema())


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    text = json.dumps(schema)
    for part in text.split('"$ref": "#/$defs/')[1:]:
        assert part.split('"')[0] in schema["$defs"]


def test_it_accepts_what_the_loader_accepts(schema: dict[str, Any], campaign: str) -> None:
    jsonschema.validate(parse(campaign, env={}).document, schema)
    manual = {
        key: parse(campaign, env={}).document[key]
        for key in ("version", "name", "policy", "optimizer", "budget")
    }
    manual["objective"] = {"minimize": "cost"}
    jsonschema.validate(manual, schema)
    jsonschema.validate({**manual, "evaluate": {"use": "t-call", "call": "a:b"}}, schema)
    jsonschema.validate({**manual, "evaluate": {"use": "python", "call": "a:b"}}, schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("versoin",), 1),
        (("version",), 2),
        (("name",), "Email Offer"),
        (("policy", "use"), "unknown"),
        (("policy", "inputs"), "18"),
        (("policy", "inptus"), 1),
        (("push", "use"), "t-db"),
        (("measure", "metrics", "visit_14d", "window"), 14),
        (("measure", "metrics", "visit_14d", "query"), None),
        (("measure", "metrics", "visit_14d", "kind"), "median"),
        (("measure", "metrics"), {}),
        (("traffic", "share"), 0.6),
        (("budget", "trials"), 0),
        (("evaluate",), {"use": "t-call", "call": "a:b"}),
    ],
)
def test_it_refuses_what_the_loader_refuses(
    schema: dict[str, Any], campaign: str, path: tuple[str, ...], value: object
) -> None:
    document = copy.deepcopy(parse(campaign, env={}).document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
    with pytest.raises(DiagnosticsError):
        parse(json.dumps(document), env={})


def test_it_shows_each_plugin_where_it_fits(schema: dict[str, Any]) -> None:
    def uses(section: str) -> set[str]:
        return {kind["properties"]["use"]["const"] for kind in schema["properties"][section]["oneOf"]}

    assert "t-web" in uses("push") - uses("measure") - uses("evaluate")
    assert "t-db" in uses("measure") - uses("push")
    assert "t-heavy" in uses("push"), "what cannot be imported here may be used elsewhere"
    assert {"system", "t-clock"} <= uses("clock")


def test_every_key_of_the_core_is_described(schema: dict[str, Any]) -> None:
    for section in ("objective", "traffic", "budget", "schedule"):
        for key, value in schema["properties"][section]["properties"].items():
            assert value.get("description"), f"{section}.{key}"
