"""The policy ``mlp``, and the class that runs its artifacts in a module."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError
from sklearn.neural_network import MLPRegressor

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import Policy
from blackopt.serving import Arms, Refused
from blackopt.serving.mlp import Mlp as Network
from blackopt.serving.mlp import RunningNorm
from blackopt.testing.policies import PolicySuite
from blackopt.types import Artifact
from blackopt_policies.mlp import Mlp, MlpOptions

HERE = Path(__file__).parent
NORMALIZER = {"mean": [1.0, -2.0, 0.1], "deviation": [2.0, 0.5, 1e-3]}


def mlp(base: Path = HERE, **options: Any) -> Mlp:
    return Mlp(MlpOptions.model_validate(options), base=base)


class TestMlp(PolicySuite):
    def make(self) -> Policy:
        return mlp(inputs=3, hidden=[4, 5], outputs=2)


class TestMlpWithEverything(PolicySuite):
    def make(self) -> Policy:
        return mlp(
            inputs=["age", "visits", "ü"],
            hidden=[4],
            activation="relu",
            seed=3,
            normalizer=NORMALIZER,
            tune={"layer1.bias": {"bounds": [-0.1, 0.1]}, "*": {"scale": 0.3}},
            freeze=["output.bias"],
        )


class TestMlpWithoutHiddenLayers(PolicySuite):
    def make(self) -> Policy:
        return mlp(inputs=2)


def test_blocks_are_named_by_layer_and_start_from_weights_of_unit_gain() -> None:
    policy = mlp(inputs=400, hidden=[50], outputs=2)
    names = {block.name: block.size for block in policy.space.blocks}
    assert names == {"layer1.weights": 20_000, "layer1.bias": 50, "output.weights": 100, "output.bias": 2}
    values = policy.tuned.values(policy.start())
    assert np.std(values["layer1.weights"]) == pytest.approx(1 / 20, rel=0.02)
    assert not values["layer1.bias"].any()
    again, other = (mlp(inputs=400, hidden=[50], outputs=2, seed=seed) for seed in (0, 1))
    assert again.render(again.start()) == policy.render(policy.start()) != other.render(other.start())


def test_layers_of_one_shape_start_from_different_weights() -> None:
    policy = mlp(inputs=3, hidden=[3, 3])
    values = policy.tuned.values(policy.start())
    assert not np.isclose(values["layer1.weights"], values["layer2.weights"]).any()


def test_an_automatic_scale_is_the_size_of_the_numbers_as_a_power_of_two() -> None:
    policy = mlp(inputs=400, hidden=[50])
    step = {block.name: block.spec()["scale"] for block in policy.space.blocks}
    assert step["layer1.weights"] == 2**-4  # their deviation is 1/20
    assert step["output.weights"] == 2**-3  # 1/√50
    assert step["layer1.bias"] == 2**-4  # zeros: that of all numbers together


def test_frozen_blocks_are_not_in_the_space_and_stay_in_the_artifact() -> None:
    whole = mlp(inputs=2, hidden=[3])
    policy = mlp(inputs=2, hidden=[3], freeze=["layer1.*"])
    assert [block.name for block in policy.space.blocks] == ["output.weights", "output.bias"]
    first = json.loads(policy.render(policy.start() + 1.0).body)["layers"]
    before = json.loads(whole.render(whole.start()).body)["layers"]
    assert first[0] == before[0]
    assert first[1] != before[1]
    with pytest.raises(UsageError, match=r"layer1.weights is frozen"):
        policy.parse(whole.render(whole.start() + 1.0))


@given(
    arrays.arrays(
        np.float32,
        8,
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
@settings(max_examples=200, deadline=None)
def test_every_float32_is_parsed_and_rendered_as_it_was(weights: Any) -> None:
    policy = mlp(inputs=8, tune={"output.weights": {"scale": 0.3}})
    body = json.loads(policy.render(policy.start()).body)
    body["layers"][0]["weights"] = [weights.tolist()]
    rendered = policy.render(policy.parse(Artifact(json.dumps(body).encode())))
    got = np.array(json.loads(rendered.body)["layers"][0]["weights"][0]).astype(np.float32)
    assert np.array_equal(got, weights)
    assert policy.render(policy.parse(rendered)) == rendered


def test_the_fewest_digits_are_written() -> None:
    policy = mlp(inputs=1, tune={"output.weights": {"scale": 1}}, freeze=["output.bias"])
    body = policy.render(np.array([0.1])).body
    assert b'"weights":[[0.1]]' in body
    assert policy.render(np.array([float(np.float32(0.1))])).body == body


def test_bounds_hold_and_what_lies_outside_is_refused() -> None:
    policy = mlp(inputs=1, tune={"output.weights": {"bounds": [-10.0, 10.1]}}, freeze=["*.bias"])
    top = policy.render(policy.space.upper)
    assert json.loads(top.body)["layers"][0]["weights"] == [[10.1]]
    assert policy.render(policy.parse(top)) == top
    with pytest.raises(UsageError, match=r"weights.0.: expected a number in \[-10.0, 10.1\], got 10.1999998"):
        policy.parse(Artifact(top.body.replace(b"10.1", b"10.2")))


def test_a_network_trained_elsewhere_goes_in_and_comes_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(200, 3)) * [10.0, 1.0, 0.1] + 5.0
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    inputs = (features - mean) / deviation
    targets = np.stack([np.sin(inputs[:, 0]), inputs[:, 1] * inputs[:, 2]], axis=1)
    for activation in ("tanh", "relu"):
        model = MLPRegressor(
            hidden_layer_sizes=(7, 5), activation=activation, solver="lbfgs", tol=1e-2, random_state=0
        )
        model.fit(inputs, targets)
        network = Network(
            [weights.T for weights in model.coefs_],
            model.intercepts_,
            activation=activation,
            normalizer=(mean, deviation),
        )
        assert np.allclose(network.act(features), model.predict(inputs), rtol=1e-12, atol=1e-12)
        (tmp_path / "today.json").write_bytes(network.artifact().body)
        policy = mlp(tmp_path, inputs=3, hidden=[7, 5], outputs=2, activation=activation, start="today.json")
        served = Network.load(policy.render(policy.start()))
        # The policy keeps weights as float32: relative errors of 2^-24, a few of which add up.
        assert np.allclose(served.act(features), model.predict(inputs), atol=1e-4)
        assert np.allclose(served.act(features[0]), served.act(features)[0], rtol=1e-12)


def test_a_module_serves_what_the_policy_renders() -> None:
    policy = mlp(inputs=2, hidden=[3])
    artifact = policy.render(policy.start())
    arms = Arms(accept=Network.load, load=Network.load, incumbent=artifact, secrets=[])
    given = arms.assign("feed", "someone")
    assert np.array_equal(given.value.act([0.5, 1.0]), Network.load(artifact).act([0.5, 1.0]))


def test_the_normalizer_travels_in_the_artifact(tmp_path: Path) -> None:
    policy = mlp(inputs=3, normalizer=NORMALIZER)
    artifact = policy.render(policy.start())
    assert json.loads(artifact.body)["normalizer"] == NORMALIZER
    (tmp_path / "start.json").write_bytes(artifact.body)
    kept = mlp(tmp_path, inputs=3, start="start.json")
    assert kept.render(kept.start()) == artifact
    fresh = {"mean": [0.0] * 3, "deviation": [1.0] * 3}
    other = mlp(tmp_path, inputs=3, start="start.json", normalizer=fresh)
    assert json.loads(other.render(other.start()).body)["normalizer"] == fresh
    with pytest.raises(UsageError, match="normalizer is not the one"):
        other.parse(artifact)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_running_statistics_are_those_of_all_cases_at_once(batches: list[int]) -> None:
    rng = np.random.default_rng(len(batches))
    cases = [rng.normal(size=(n, 2)) * [1e3, 1e-3] + [1e6, 0.0] for n in [*batches, 2]]
    norm = RunningNorm(2)
    for batch in cases:
        norm.update(batch)
    mean, deviation = norm.normalizer()
    together = np.concatenate(cases)
    assert norm.count == len(together)
    assert np.allclose(mean, together.mean(axis=0), rtol=1e-12)
    assert np.allclose(deviation, together.std(axis=0, ddof=1), rtol=1e-6)


def test_a_feature_that_never_moves_is_divided_by_one() -> None:
    norm = RunningNorm(2)
    norm.update([1.0, 2.0])
    with pytest.raises(UsageError, match="at least two cases, got 1"):
        norm.normalizer()
    norm.update([1.0, 4.0])
    mean, deviation = norm.normalizer()
    assert mean.tolist() == [1.0, 3.0]
    assert deviation.tolist() == [1.0, pytest.approx(2**0.5)]
    with pytest.raises(UsageError, match="width 2"):
        norm.update([1.0])


BODY = b'{"inputs":1,"activation":"tanh","normalizer":null,"layers":[{"weights":[[0.5]],"bias":[0.0]}]}'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b"tanh", b"relu"), "expected activation 'tanh', got 'relu'"),
        ((b'"inputs":1', b'"inputs":2'), "expected inputs 1, got 2"),
        ((b"[[0.5]]", b"[[0.5, 1]]"), r"output.weights: expected finite numbers of shape \(1, 1\)"),
        ((b"[[0.5]]", b"[[0.5], 1]"), r"output.weights: expected numbers of shape \(1, 1\)"),
        ((b"[[0.5]]", b"[[NaN]]"), "output.weights: expected finite numbers"),
        ((b"[[0.5]]", b'[["a"]]'), "output.weights: expected finite numbers"),
        ((b'"bias"', b'"offset"'), r"layers\[0\]: expected an object of weights and bias"),
        ((b'[{"weights":[[0.5]],"bias":[0.0]}]', b"[]"), "expected 1 layers"),
        ((b"null", b'{"mean":[0]}'), "expected null or an object of mean and deviation"),
        ((b"null", b'{"mean":[0],"deviation":[0]}'), "deviation: expected numbers above 0"),
        ((b'"normalizer":null,', b""), "expected an object of activation, inputs, layers, normalizer"),
        ((b"{", b"["), "expected JSON"),
    ],
)
def test_a_start_that_does_not_fit_says_why(
    tmp_path: Path, change: tuple[bytes, bytes], message: str
) -> None:
    start = tmp_path / "start.json"
    start.write_bytes(BODY)
    assert mlp(tmp_path, inputs=1, start="start.json").render(np.array([0.5, 0.0])).body
    start.write_bytes(BODY.replace(*change))
    with pytest.raises(ConfigurationError) as caught:
        mlp(tmp_path, inputs=1, start="start.json")
    assert caught.value.where == str(start)
    assert re.search(message, caught.value.why), caught.value.why


def test_a_start_that_is_not_there_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot use its model") as caught:
        mlp(tmp_path, inputs=1, start="gone.json")
    assert caught.value.where.endswith("gone.json")
    assert "No such file" in caught.value.why


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": ["layer2.weights"]}, "did you mean `layer1.weights`"),
        (
            {"tune": ["encoder"]},
            "fits nothing in the model; it has layer1.weights, layer1.bias",
        ),
        ({"freeze": ["outptu.bias"]}, "policy.freeze: 'outptu.bias' fits nothing in the model; did you mean"),
        ({"freeze": ["*"]}, "nothing that `tune` names is left"),
        (
            {"tune": {"*.bias": {"bounds": [0.5, 1.0]}}},
            r"bias\[0\]: expected a number in \[0.5, 1.0\]",
        ),
    ],
)
def test_patterns_that_fit_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mlp(inputs=2, hidden=[2], **options)
    assert re.search(message, caught.value.why), caught.value.why


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": [0]}, "greater than or equal to 1"),
        ({"activation": "gelu"}, "'tanh' or 'relu'"),
        ({"inputs": ["a", "a"]}, "different names"),
        (
            {"normalizer": {"mean": [1.0], "deviation": [1.0, 1.0]}},
            "mean: expected 2 numbers, got 1",
        ),
        ({"normalizer": {"mean": [1.0, 1.0], "deviation": [1.0, 0.0]}}, "greater than 0"),
        ({"tune": []}, "at least 1 item"),
        ({"tune": {"*": {"scale": 1, "bounds": [0, 1]}}}, "bounds set the step already"),
        ({"tune": {"*": {"bounds": [1, 1]}}}, "the lower must be below the upper"),
        ({"tune": {"*": {"scale": 0}}}, "greater than 0"),
        ({"layers": [3]}, "Extra inputs"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MlpOptions.model_validate({"inputs": 2} | options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "a bias for each layer"),
        (([[[1.0]]], [[1.0, 2.0]]), "layer 0: expected weights"),
        (([[[1.0]], [[1.0, 1.0]]], [[0.0], [0.0]]), "layer 1: expected 1 inputs, got 2"),
        (([[[float("nan")]]], [[0.0]]), "finite numbers only"),
    ],
)
def test_layers_that_do_not_fit_make_no_network(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Network(*arguments)


def test_a_network_refuses_other_features_and_other_artifacts() -> None:
    network = Network([[[1.0, 2.0]]], [[0.5]])
    assert network.act([1.0, 1.0]).tolist() == [3.5]
    assert network.act([[1.0, 1.0], [0.0, 0.0]]).tolist() == [[3.5], [0.5]]
    with pytest.raises(UsageError, match=r"expected shape \(2,\) or \(cases, 2\), got shape \(3,\)"):
        network.act([1.0, 2.0, 3.0])
    with pytest.raises(UsageError, match="expected one of tanh, relu"):
        Network([[[1.0]]], [[0.0]], activation="gelu")
    with pytest.raises(UsageError, match="expected 2 names, got 1"):
        Network([[[1.0, 2.0]]], [[0.5]], inputs=["a"])
    with pytest.raises(UsageError, match="2 finite means and deviations"):
        Network([[[1.0, 2.0]]], [[0.5]], normalizer=([0, 0], [1, 0]))
    for body in (
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        BODY.replace(b"0.5", b"NaN"),
        BODY.replace(b"tanh", b"x"),
    ):
        with pytest.raises(Refused, match="not a network of the policy mlp"):
            Network.load(Artifact(body))
