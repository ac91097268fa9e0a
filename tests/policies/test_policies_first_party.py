"""First-party policies: the conformance suite, and artifacts that read back exactly."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import Policy
from blackopt.testing.policies import PolicySuite
from blackopt.types import Artifact
from blackopt_policies.linear import Linear, LinearOptions
from blackopt_policies.parameters import Parameters, ParametersOptions

HERE = Path(__file__).parent
SPACE = {
    "lr": {"float": [1e-4, 1], "log": True, "start": 0.01},
    "price": {"float": [-3, 7.5]},
    "k": {"int": [1, 20], "start": 5},
    "steps": {"int": [1, 5000], "log": True},
    "mode": {"choice": ["a", "b", "ü"], "start": "b"},
    "mix": {"simplex": ["news", "sport", "music"], "start": [0.2, 0.3, 0.5]},
    "shares": {"simplex": 4},
    "w": {"weights": 3, "scale": 0.3, "start": [0.1, -0.2, 1e-9]},
}


def parameters(space: dict[str, Any]) -> Parameters:
    return Parameters(ParametersOptions.model_validate({"space": space}), base=HERE)


def linear(base: Path = HERE, **options: Any) -> Linear:
    return Linear(LinearOptions.model_validate(options), base=base)


class TestParameters(PolicySuite):
    def make(self) -> Policy:
        return parameters(SPACE)


class TestLinear(PolicySuite):
    def make(self) -> Policy:
        return linear(inputs=18, outputs=3)


class TestLinearWithEverything(PolicySuite):
    def make(self) -> Policy:
        return linear(
            inputs=["age", "visits"],
            outputs=2,
            scale=0.7,
            start=[[0.1, 0.2], [0.3, -0.4]],
            parameters={"threshold": {"float": [0, 1], "start": 0.3}, "mode": {"choice": ["a", "b"]}},
        )


class TestLinearWithoutBias(PolicySuite):
    def make(self) -> Policy:
        return linear(inputs=4, bias=False, scale=0.01)


@pytest.mark.parametrize(("name", "cls"), [("parameters", Parameters), ("linear", Linear)])
def test_they_are_found_as_plugins(name: str, cls: type) -> None:
    (found,) = entry_points(group="blackopt.policies", name=name)
    assert found.load() is cls


def test_parameters_are_plain_json_in_declared_order() -> None:
    policy = parameters(
        {"z": {"int": [0, 9], "start": 3}, "a": {"choice": ["ü", "b"]}, "m": {"simplex": ["x", "y"]}}
    )
    assert policy.render(policy.start()).body.decode() == '{"z":3,"a":"ü","m":{"x":0.5,"y":0.5}}'
    assert policy.render(policy.start()).media_type == "application/json"
    edited = policy.parse(Artifact(b'{ "m": [0.25, 0.75], "a": "b", "z": 9 }'))
    assert policy.space.decode(edited) == {"z": 9, "a": "b", "m": {"x": 0.25, "y": 0.75}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "artifact: expected JSON, got b'{'"),
        (b"3", "expected a JSON object of parameters, got int"),
        (b"{}", "missing: k"),
        (b'{"k": 3, "j": 1}', "unknown: j"),
        (b'{"k": 21}', "k: expected an integer in"),
        (b'{"k": NaN}', "k: expected an integer in"),
        (b'{"k": "3"}', "k: expected an integer in"),
    ],
)
def test_parameters_refuse_other_artifacts(body: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parameters({"k": {"int": [1, 20]}}).parse(Artifact(body))


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({}, ("space",), "Field required"),
        ({"space": {}}, (), "at least one block"),
        ({"space": {"k": {"int": [1, 20]}}, "sapce": 1}, ("sapce",), "Extra inputs"),
        ({"space": {"k": {"int": [20, 1]}}}, ("space", "k"), "the lower bound must be below"),
        ({"space": {"k": {"int": [1, "many"]}}}, ("space", "k", "int", 1), "valid integer"),
        ({"space": {"k": {"int": [1, 2], "strat": 1}}}, ("space", "k", "strat"), "Extra inputs"),
        ({"space": {"1k": {"int": [1, 2]}}}, (), "'1k' is no name"),
    ],
)
def test_problems_of_the_space_point_at_their_place(
    options: dict[str, Any], where: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        ParametersOptions.model_validate(options)
    (problem,) = caught.value.errors()
    assert problem["loc"] == where
    assert message in problem["msg"]


def test_a_linear_artifact_holds_rows_bias_and_parameters() -> None:
    policy = linear(inputs=2, outputs=2, scale=0.5, parameters={"cut": {"float": [0, 1], "start": 0.3}})
    assert policy.space.size == 4 + 2 + 1
    vector = policy.start()
    vector[:6] = [2, 4, 6, 8, 1, -1]
    assert json.loads(policy.render(vector).body) == {
        "weights": [[1.0, 2.0], [3.0, 4.0]],
        "bias": [0.5, -0.5],
        "parameters": {"cut": 0.3},
    }


def test_named_features_are_written_and_checked() -> None:
    policy = linear(inputs=["age", "visits"])
    artifact = policy.render(policy.start())
    assert json.loads(artifact.body)["inputs"] == ["age", "visits"]
    with pytest.raises(UsageError, match="expected the features"):
        linear(inputs=["visits", "age"]).parse(artifact)


def test_a_linear_start_survives_exactly_whatever_the_scale() -> None:
    rng = np.random.default_rng(5)
    for scale in (0.1, 0.3, 1 / 3, 7.0, 1e-7):
        rows = rng.normal(size=(3, 40)).tolist()
        policy = linear(inputs=40, outputs=3, scale=scale, start=rows)
        assert json.loads(policy.render(policy.start()).body)["weights"] == rows


def test_a_linear_policy_starts_from_an_artifact_of_its_kind(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"inputs": 3, "outputs": 2, "parameters": {"cut": {"float": [0, 1]}}}
    body = b'{"weights":[[0.1,0.2,0.3],[-1.0,0.0,7.7]],"bias":[0.7,-0.7],"parameters":{"cut":0.9}}'
    (tmp_path / "incumbent.json").write_bytes(body)
    policy = linear(tmp_path, scale=0.3, start="incumbent.json", **shape)
    assert policy.render(policy.start()).body == body
    fixed = linear(tmp_path, start="incumbent.json", bias=False, **shape)
    assert fixed.space.size == 6 + 1
    assert fixed.render(fixed.start()).body == body
    with pytest.raises(UsageError, match=r"the bias is fixed at \[0.7, -0.7\]"):
        fixed.parse(Artifact(body.replace(b"-0.7", b"-0.8")))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "No such file"),
        (b"{", "expected JSON"),
        (b"[]", "expected an object of bias, parameters, weights, got list"),
        (b'{"weights":[[0,0,0]],"bias":[0]}', "got weights, bias"),
        (
            b'{"weights":[[0,0]],"bias":[0],"parameters":{"cut":0}}',
            r"\(outputs, inputs\) = \(1, 3\), .*got shape \(1, 2\)",
        ),
        (b'{"weights":[[0,0,"1"]],"bias":[0],"parameters":{"cut":0}}', "finite numbers only"),
        (b'{"weights":[[0,0,NaN]],"bias":[0],"parameters":{"cut":0}}', "finite numbers only"),
        (b'{"weights":[[0,0,0]],"bias":[0,1],"parameters":{"cut":0}}', "expected a bias of 1 finite numbers"),
        (b'{"weights":[[0,0,0]],"bias":[0],"parameters":{}}', "expected parameters cut"),
        (
            b'{"weights":[[0,0,0]],"bias":[0],"parameters":{"cut":3}}',
            r"cut: expected a number in \[0.0, 1.0\], got 3",
        ),
    ],
)
def test_a_start_that_does_not_fit_says_why(tmp_path: Path, body: bytes | None, message: str) -> None:
    if body is not None:
        (tmp_path / "old.json").write_bytes(body)
    with pytest.raises(ConfigurationError) as caught:
        linear(tmp_path, inputs=3, start="old.json", parameters={"cut": {"float": [0, 1]}})
    assert "old.json" in caught.value.where
    assert re.search(message, caught.value.why)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": 0}, "greater than or equal to 1"),
        ({"inputs": []}, "at least 1 item"),
        ({"inputs": ["a", "a"]}, "different names"),
        ({"inputs": 2, "outputs": 0}, "greater than or equal to 1"),
        ({"inputs": 2, "scale": 0}, "greater than 0"),
        (
            {"inputs": 2, "start": [[1, 2, 3]]},
            r"shape \(outputs, inputs\) = \(1, 2\), finite numbers only, got shape \(1, 3\)",
        ),
        ({"inputs": 2, "start": [[1, 2], [3]], "outputs": 2}, "shape"),
        ({"inputs": 2, "parameters": {"bias": {"int": [0, 1]}}}, "'bias' is taken by the model"),
        ({"inputs": 2, "parameters": {"x": {"int": [1, 0]}}}, "the lower bound must be below"),
        ({"inputs": 2, "hidden": 3}, "Extra inputs"),
    ],
)
def test_impossible_linear_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LinearOptions.model_validate(options)


def test_a_refused_bias_names_the_artifact() -> None:
    with pytest.raises(UsageError, match="expected a bias of 1 finite numbers, got"):
        linear(inputs=1).parse(Artifact(b'{"weights":[[0]],"bias":[true],"parameters":{}}'))


@pytest.mark.parametrize(
    "policy", [linear(inputs=1), parameters({"k": {"int": [0, 1]}})], ids=["linear", "parameters"]
)
def test_bottomless_json_is_refused(policy: Policy) -> None:
    with pytest.raises(UsageError, match="artifact: expected JSON"):
        policy.parse(Artifact(b"[" * 200_000))


def test_a_fixed_bias_must_be_finite(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_bytes(b'{"weights":[[0]],"bias":[Infinity],"parameters":{}}')
    with pytest.raises(ConfigurationError) as caught:
        linear(tmp_path, inputs=1, bias=False, start="old.json")
    assert "finite numbers" in caught.value.why
