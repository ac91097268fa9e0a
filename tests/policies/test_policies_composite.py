"""The policy ``composite``: parts of every kind in one vector and one bundle."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors import numpy as safetensors

from blackopt.campaign import load
from blackopt.errors import ConfigurationError, DiagnosticsError, UsageError
from blackopt.protocols import Policy
from blackopt.serving import Refused
from blackopt.serving.bundle import part
from blackopt.serving.mlp import Mlp
from blackopt.testing.policies import PolicySuite
from blackopt.types import Artifact
from blackopt_policies.composite import Composite, CompositeOptions

STATE = {"head.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
PARTS: dict[str, Any] = {
    "ranker": {"use": "mlp", "inputs": 2, "hidden": [3], "tune": {"*": {"scale": 0.5}}},
    "encoder": {"use": "torch", "model": "encoder.safetensors", "tune": {"*": {"bounds": [-9, 9]}}},
    "mix": {
        "use": "parameters",
        "space": {"top": {"int": [1, 9], "start": 5}, "shares": {"simplex": ["ä", "b"]}},
    },
    "filter": {"use": "linear", "inputs": ["age"]},
}


def composite(base: Path, parts: dict[str, Any] | None = None) -> Composite:
    (base / "encoder.safetensors").write_bytes(safetensors.save(STATE))
    return Composite(CompositeOptions.model_validate({"parts": PARTS if parts is None else parts}), base=base)


class TestComposite(PolicySuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.base = tmp_path

    def make(self) -> Policy:
        return composite(self.base)


def test_every_installed_policy_can_be_a_part() -> None:
    for name in {entry.name for entry in entry_points(group="blackopt.policies")} - {"composite"}:
        with pytest.raises(ValidationError, match=r"parts.only.nonsense\n  unknown key"):
            CompositeOptions.model_validate({"parts": {"only": {"use": name, "nonsense": 1}}})


def test_blocks_keep_their_kind_and_scale_under_the_name_of_their_part(tmp_path: Path) -> None:
    policy = composite(tmp_path)
    spec = policy.space.spec()
    assert next(iter(spec)) == "ranker.layer1.weights"
    assert spec["ranker.output.bias"]["scale"] == 0.5
    assert spec["mix.top"] == {"int": [1, 9], "log": False, "start": 5}
    assert "encoder.head.weight[5]" in policy.space.names
    assert "mix.shares[ä]" in policy.space.names
    assert [block.name for block in policy.parts["mix"].space.blocks] == ["top", "shares"]
    vector = policy.start()
    vector[policy.space.slices["mix.top"]] = 2.0
    with pytest.raises(UsageError, match=r"mix.top = 2.0"):
        policy.render(vector)


def test_each_module_finds_the_artifact_of_its_own_policy(tmp_path: Path) -> None:
    policy = composite(tmp_path)
    vector = policy.space.clip(policy.start() + np.linspace(-0.2, 0.2, policy.space.size))
    bundle = policy.render(vector)
    at = 0
    for name, own in policy.parts.items():
        assert part(bundle, name) == own.render(vector[at : at + own.space.size])
        at += own.space.size
    assert Mlp.load(part(bundle, "ranker")).act([0.0, 1.0]).shape == (1,)
    assert safetensors.load(part(bundle, "encoder").body)["head.weight"].shape == (2, 3)
    kinds = {name: set(entry) for name, entry in json.loads(bundle.body)["parts"].items()}
    assert kinds["mix"] == {"media_type", "sha256", "text"}


def test_bytes_that_are_no_text_travel_as_base64(tmp_path: Path) -> None:
    encoder = {"use": "torch", "model": "encoder.safetensors", "tune": {"*": {"scale": 1.0}}}
    policy = composite(tmp_path, {"encoder": encoder})
    bundle = policy.render(policy.start() - 1.0)  # -1 is 00 00 80 bf: no UTF-8
    assert set(json.loads(bundle.body)["parts"]["encoder"]) == {"media_type", "sha256", "base64"}
    assert policy.render(policy.parse(bundle)) == bundle
    read = safetensors.load(part(bundle, "encoder").body)["head.weight"]
    assert np.array_equal(read, STATE["head.weight"] - 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts.pop("mix"), "expected an object of parts: ranker, encoder, mix, filter"),
        (lambda parts: parts["mix"].update(sha256="0"), "parts.mix: its sha256 is"),
        (lambda parts: parts["mix"].pop("media_type"), "parts.mix: expected media_type"),
        (lambda parts: parts.update(mix=3), "parts.mix: expected media_type"),
        (lambda parts: parts["mix"].update(text=3), "parts.mix: expected media_type"),
    ],
)
def test_another_bundle_is_refused_by_policy_and_module(tmp_path: Path, change: Any, message: str) -> None:
    policy = composite(tmp_path)
    bundle = json.loads(policy.render(policy.start()).body)
    change(bundle["parts"])
    broken = Artifact(json.dumps(bundle).encode())
    with pytest.raises(UsageError, match=message):
        policy.parse(broken)
    with pytest.raises(Refused):
        part(broken, "mix")


def test_a_part_that_its_policy_refuses_is_named(tmp_path: Path) -> None:
    policy = composite(tmp_path)
    other = composite(tmp_path, PARTS | {"filter": {"use": "linear", "inputs": ["visits"]}})
    with pytest.raises(UsageError, match=r"parts.filter: artifact: expected the features"):
        policy.parse(other.render(other.start()))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"[" * 100_000, b'{"parts":{"mix":{"base64":"?"}}}'])
def test_a_module_refuses_what_is_no_bundle(body: bytes) -> None:
    with pytest.raises(Refused):
        part(Artifact(body), "mix")


@pytest.mark.parametrize(
    ("parts", "where", "message"),
    [
        ({}, ("parts",), "at least 1 item"),
        ({"a.b": {"use": "linear", "inputs": 1}}, ("parts", "a.b", "[key]"), "should match pattern"),
        ({"a": {"inputs": 1}}, ("parts", "a", "use"), "Field required"),
        ({"a": {"use": "linaer"}}, ("parts", "a", "use"), "no policy is called `linaer`"),
        ({"a": {"use": "linear"}}, ("parts", "a", "inputs"), "Field required"),
        ({"a": {"use": "linear", "inputs": 1, "outptus": 1}}, ("parts", "a", "outptus"), "unknown key"),
        (
            {"a": {"use": "parameters", "space": {"k": {"int": [2, 1]}}}},
            ("parts", "a", "space", "k"),
            "the lower bound must be below",
        ),
    ],
)
def test_problems_of_a_part_point_at_their_place(
    parts: dict[str, Any], where: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        CompositeOptions.model_validate({"parts": parts})
    (problem,) = caught.value.errors()
    assert problem["loc"] == where
    assert message in problem["msg"]


def test_a_campaign_says_the_line_of_a_part_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(
        """\
version: 1
name: two
policy:
  use: composite
  parts:
    mix:
      use: linear
      inputs: 2
      outptus: 3
optimizer: {use: random}
objective: {maximize: clicks}
budget: {trials: 4}
"""
    )
    with pytest.raises(DiagnosticsError) as caught:
        load(path, env={})
    assert "campaign.yaml:9:" in str(caught.value)
    assert "did you mean `outputs`" in str(caught.value)


def test_a_part_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        composite(tmp_path, {"encoder": {"use": "torch", "model": "gone.safetensors"}})
    assert re.match(r"policy.parts.encoder: .*gone.safetensors", caught.value.where)
