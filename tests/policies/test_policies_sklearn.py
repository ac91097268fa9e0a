"""The policy ``sklearn``, with models that scikit-learn really fitted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import Policy
from blackopt.serving import Refused
from blackopt.serving.estimators import export, install
from blackopt.testing.policies import PolicySuite
from blackopt.types import Artifact
from blackopt_policies.sklearn import Sklearn, SklearnOptions

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(120, 4)) * [1.0, 20.0, 0.3, 5.0] + 3.0
CLASSES = (FEATURES[:, 0] + 0.05 * FEATURES[:, 1] > 3.15).astype(int) + (FEATURES[:, 3] > 8)


def pipeline() -> Pipeline:
    columns = ColumnTransformer([("left", StandardScaler(), [0, 1]), ("right", MinMaxScaler(), [2, 3])])
    union = FeatureUnion([("same", "passthrough"), ("spread", StandardScaler())])
    return Pipeline([("columns", columns), ("union", union), ("classify", LogisticRegression())])


MODEL = pipeline().fit(FEATURES, CLASSES)


def sklearn(base: Path, model: object = MODEL, **options: Any) -> Sklearn:
    (base / "today.json").write_bytes(export(model).body)
    return Sklearn(SklearnOptions.model_validate({"model": "today.json"} | options), base=base)


class TestSklearn(PolicySuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.base = tmp_path

    def make(self) -> Policy:
        return sklearn(self.base, tune=["classify.*", "columns.left.mean_"])


class TestSklearnWithBoundsAndFloat32(PolicySuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.base = tmp_path

    def make(self) -> Policy:
        model = Ridge().fit(FEATURES.astype(np.float32), CLASSES.astype(np.float32))
        assert model.coef_.dtype == np.float32
        return sklearn(self.base, model, tune={"coef_": {"bounds": [-1.1, 1.3]}, "*": {"scale": 0.3}})


def test_numbers_are_named_by_step_and_attribute(tmp_path: Path) -> None:
    policy = sklearn(tmp_path)
    names = [block.name for block in policy.space.blocks]
    assert set(names) >= {
        "columns.left.mean_", "columns.left.scale_", "columns.right.min_", "union.spread.mean_",
        "classify.coef_", "classify.intercept_",
    }  # fmt: skip
    sizes = {block.name: block.size for block in policy.space.blocks}
    assert sizes["classify.coef_"] == 3 * 8  # classes times features of the union


@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        LinearRegression().fit(FEATURES, CLASSES),
        LinearRegression(fit_intercept=False).fit(FEATURES, CLASSES),
        make_pipeline(StandardScaler(), SGDClassifier(random_state=0)).fit(FEATURES, CLASSES),
        make_pipeline(
            StandardScaler(),
            MLPRegressor(hidden_layer_sizes=(5,), solver="lbfgs", tol=1e-2, random_state=0),
        ).fit(FEATURES, CLASSES),
    ],
    ids=["columns", "linear", "origin", "sgd", "network"],
)
def test_the_start_predicts_what_the_model_predicts(tmp_path: Path, model: Any) -> None:
    policy = sklearn(tmp_path, model)
    start = policy.render(policy.start())
    assert start.body == (tmp_path / "today.json").read_bytes()
    same = install(model, start)
    assert np.array_equal(same.predict(FEATURES), model.predict(FEATURES))
    moved = install(model, policy.render(policy.start() + 0.5))
    assert not np.array_equal(export(moved).body, start.body)
    assert export(model).body == start.body  # the model itself is not touched


@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        make_pipeline(RobustScaler(), LinearRegression()),
        make_pipeline(StandardScaler(), SGDClassifier(random_state=0)),
        MLPRegressor(hidden_layer_sizes=(5,), max_iter=2000, tol=0.1, random_state=0),
    ],
    ids=["columns", "linear", "sgd", "network"],
)
def test_every_number_that_moves_has_a_say_in_the_predictions(tmp_path: Path, model: Any) -> None:
    model.fit(FEATURES, CLASSES.astype(float))
    policy = sklearn(tmp_path, model)
    score = "decision_function" if hasattr(model, "decision_function") else "predict"
    before = getattr(model, score)(FEATURES)
    for block in policy.space.blocks:
        moved = policy.start()
        moved[policy.space.slices[block.name]] += 0.5
        after = getattr(install(model, policy.render(moved)), score)(FEATURES)
        assert not np.array_equal(after, before), block.name


def test_what_is_installed_is_what_was_rendered(tmp_path: Path) -> None:
    policy = sklearn(tmp_path, tune=["classify.*"])
    vector = policy.start() + np.linspace(-1.0, 1.0, policy.space.size)
    artifact = policy.render(vector)
    served = install(MODEL, artifact)
    assert export(served) == artifact
    values = policy.tuned.values(vector)
    coefficients = values["classify.coef_"].reshape(3, 8)
    inputs = MODEL[:-1].transform(FEATURES)
    scores = inputs @ coefficients.T + values["classify.intercept_"]
    assert np.allclose(served.decision_function(FEATURES), scores, rtol=1e-12)


def test_every_float64_is_a_coordinate_where_the_scale_is_a_power_of_two(tmp_path: Path) -> None:
    start = np.sqrt(np.arange(2.0, 402.0))
    body = json.loads(export(LinearRegression().fit(FEATURES, CLASSES)).body)
    body["values"] = {"coef_": {"dtype": "float64", "shape": [400], "values": start.tolist()}}
    (tmp_path / "long.json").write_text(json.dumps(body, separators=(",", ":")))
    body["values"]["coef_"]["values"] = np.sqrt(start).tolist()
    other = Artifact(json.dumps(body, separators=(",", ":")).encode())
    exact = Sklearn(SklearnOptions(model="long.json"), base=tmp_path)
    assert exact.render(exact.parse(other)) == other
    options = {"model": "long.json", "tune": {"coef_": {"scale": 0.3}}}
    coarse = Sklearn(SklearnOptions.model_validate(options), base=tmp_path)
    assert coarse.render(coarse.parse(coarse.render(coarse.start()))) == exact.render(exact.start())
    with pytest.raises(UsageError, match="a `scale` that is a power of two"):
        coarse.parse(other)


def test_a_model_without_numbers_is_not_exported() -> None:
    with pytest.raises(UsageError, match="has no fitted numbers such as coef_"):
        export(LogisticRegression())
    with pytest.raises(UsageError, match="has no fitted numbers"):
        export(DecisionTreeClassifier().fit(FEATURES, CLASSES))
    broken = LinearRegression().fit(FEATURES, CLASSES)
    broken.coef_[1] = np.nan
    with pytest.raises(UsageError, match="coef_: expected finite numbers"):
        export(broken)


def test_an_artifact_of_another_model_is_refused_by_policy_and_module(tmp_path: Path) -> None:
    policy = sklearn(tmp_path, tune=["classify.*"])
    other = export(LinearRegression().fit(FEATURES, CLASSES))
    with pytest.raises(UsageError, match=r"classify.coef_: expected float64 of shape \[3, 8\]"):
        policy.parse(other)
    with pytest.raises(Refused, match="only one of the two has"):
        install(MODEL, other)
    moved = sklearn(tmp_path, tune=["columns.left.mean_"])
    with pytest.raises(UsageError, match="outside of what is tuned"):
        policy.parse(moved.render(moved.start() + 1.0))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"values":[]}', b"[" * 100_000,
        export(MODEL).body.replace(b"[3,8]", b"[8,3]"),
        re.sub(rb'"values":\[[^]]+,', b'"values":[NaN,', export(MODEL).body, count=1),
    ],
)  # fmt: skip
def test_a_module_refuses_what_it_cannot_serve(body: bytes) -> None:
    with pytest.raises(Refused):
        install(MODEL, Artifact(body))


def edited(**entry: object) -> bytes:
    good = {"dtype": "float64", "shape": [2], "values": [1.0, 2.0]}
    return json.dumps({"estimator": "Ridge", "values": {"coef_": good | entry}}).encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x80\x04\x95", "expected what blackopt.serving.estimators.export wrote, got b'.x80"),
        (b"{}", "estimator and values"),
        (b'{"estimator":"Ridge","values":[]}', "for each name"),
        (b'{"estimator":"Ridge","values":{}}', "no tensor of a floating type"),
        (edited(dtype="int64"), "coef_: expected a dtype"),
        (edited(shape=[3]), "coef_: expected 3 numbers, got shape"),
        (edited(values=["a", 1]), "coef_: expected a list of numbers"),
        (edited(values=[float("nan"), 1.0]), "coef_: expected finite numbers"),
        (edited(), "policy.tune: 'coeff_' fits nothing in the model; did you mean `coef_`"),
    ],
)
def test_an_export_that_cannot_be_used_says_why(tmp_path: Path, body: bytes, message: str) -> None:
    (tmp_path / "today.json").write_bytes(body)
    options = SklearnOptions(model="today.json", tune=["coeff_" if body == edited() else "*"])
    with pytest.raises(ConfigurationError) as caught:
        Sklearn(options, base=tmp_path)
    assert re.search(message, caught.value.why), caught.value.why
    assert caught.value.where == str(tmp_path / "today.json")
