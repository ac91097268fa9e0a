"""What the targets send is what docs/protocol publishes for modules in other languages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from blackopt.testing.targets import a_push, a_withdrawal, an_adoption
from blackopt_connectors import _signing, _wire

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol"
VALID = [
    vector
    for vector in json.loads((PROTOCOL / "vectors.json").read_text(encoding="utf-8"))["signatures"]
    if vector["valid"] and len(vector["secrets"]) == 1 and " " not in vector["signature"]
]


def validator(name: str) -> Any:
    schema = json.loads((PROTOCOL / f"{name}.schema.json").read_text(encoding="utf-8"))
    return jsonschema.validators.validator_for(schema)(schema)


@pytest.mark.parametrize("order", [a_push(17), replace(a_push(17), placement=None, ttl_s=0.5)])
def test_pushes_fit_the_published_schema(order: Any) -> None:
    validator("push").validate(json.loads(_wire.push_body(order)))


def test_withdrawals_fit_the_published_schema() -> None:
    validator("withdraw").validate(json.loads(_wire.withdraw_body(a_withdrawal(17))))


def test_adoptions_fit_the_published_schema() -> None:
    validator("adopt").validate(json.loads(_wire.adopt_body(an_adoption(1))))


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector["name"])
def test_signatures_are_the_published_ones(vector: dict[str, Any]) -> None:
    key = _signing.signing_key(vector["secrets"][0])
    headers = _signing.sign(key, vector["id"], int(vector["timestamp"]), vector["body"].encode())
    assert headers["webhook-signature"] == vector["signature"]


def test_there_are_vectors_to_hold_to() -> None:
    assert len(VALID) >= 4
