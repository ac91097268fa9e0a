"""The policy ``trees``, with models that LightGBM and XGBoost really trained, saved and load again."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import Policy
from blackopt.testing.policies import PolicySuite
from blackopt.types import Artifact
from blackopt_policies.trees import Trees, TreesOptions

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(300, 4))
FEATURES[:, 3] = RNG.integers(0, 4, 300)
TARGETS = FEATURES[:, 0] + FEATURES[:, 1] ** 2 + 3 * (FEATURES[:, 3] == 2)
ROUNDS = 3


@cache
def lightgbm_model(**parameters: Any) -> str:
    settings = {
        "verbose": -1,
        "num_leaves": 5,
        "num_threads": 1,
        "max_cat_to_onehot": 1,
        "min_data_per_group": 5,
    }
    data = lightgbm.Dataset(FEATURES, TARGETS, categorical_feature=[3])
    return lightgbm.train(settings | parameters, data, num_boost_round=ROUNDS).model_to_string()


@cache
def xgboost_model(form: str = "json", **parameters: Any) -> bytes:
    settings = {"max_depth": 2, "nthread": 1, "eta": 0.7}
    kinds = ["q", "q", "q", "c"]
    data = xgboost.DMatrix(FEATURES, TARGETS, feature_types=kinds, enable_categorical=True)
    booster = xgboost.train(settings | parameters, data, num_boost_round=ROUNDS)
    return bytes(booster.save_raw(form))


def trees(base: Path, model: str | bytes, **options: Any) -> Trees:
    (base / "model").write_bytes(model.encode() if isinstance(model, str) else model)
    return Trees(TreesOptions.model_validate({"model": "model"} | options), base=base)


def lightgbm_scores(artifact: Artifact) -> Any:
    return lightgbm.Booster(model_str=artifact.body.decode()).predict(FEATURES, num_threads=1)


def xgboost_scores(artifact: Artifact) -> Any:
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(artifact.body))
    data = xgboost.DMatrix(FEATURES, feature_types=["q", "q", "q", "c"], enable_categorical=True)
    return booster.predict(data)


class TestLightGbmLeaves(PolicySuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.base = tmp_path

    def make(self) -> Policy:
        return trees(self.base, lightgbm_model())


class TestLightGbmThresholdsToo(PolicySuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.base = tmp_path

    def make(self) -> Policy:
        return trees(self.base, lightgbm_model(), tune={"*.leaves": {"scale": 0.1}, "*": {"bounds": [-4, 4]}})


class TestXgboost(PolicySuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.base = tmp_path

    def make(self) -> Policy:
        return trees(self.base, xgboost_model(), tune=["*"])


def test_lightgbm_loads_the_start_and_predicts_the_same(tmp_path: Path) -> None:
    policy = trees(tmp_path, lightgbm_model(), tune=["*"])
    start = policy.render(policy.start())
    assert start.media_type == "text/plain"
    before = lightgbm.Booster(model_str=lightgbm_model()).predict(FEATURES, num_threads=1)
    assert np.array_equal(lightgbm_scores(start), before)


def test_lightgbm_predicts_with_the_leaves_that_were_rendered(tmp_path: Path) -> None:
    policy = trees(tmp_path, lightgbm_model())
    assert [block.name for block in policy.space.blocks] == [f"tree{i}.leaves" for i in range(ROUNDS)]
    vector = RNG.normal(size=policy.space.size)
    leaves = policy.tuned.values(vector)
    booster = lightgbm.Booster(model_str=lightgbm_model())
    which = np.asarray(booster.predict(FEATURES, pred_leaf=True, num_threads=1))
    expected = sum(leaves[f"tree{i}.leaves"][which[:, i]] for i in range(ROUNDS))
    assert np.allclose(lightgbm_scores(policy.render(vector)), expected, rtol=1e-12)


def test_lightgbm_splits_at_the_thresholds_that_were_rendered(tmp_path: Path) -> None:
    model = lightgbm_model()
    policy = trees(tmp_path, model, tune=["tree0.thresholds"])
    splits = re.findall(r"^decision_type=(.*)$", model, re.MULTILINE)[0].split()
    numeric = [int(kind) & 1 == 0 for kind in splits]
    assert policy.space.size == sum(numeric) < len(numeric)  # the others are sets of categories
    scale = policy.space.spec()[("tree0.thresholds")]["scale"]
    assert isinstance(scale, float)
    rendered = policy.render(policy.start() + 0.3 / scale).body.decode()
    before, after = (re.findall(r"^threshold=(.*)$", text, re.MULTILINE) for text in (model, rendered))
    assert after[1:] == before[1:]
    moved = np.array(after[0].split(), dtype=float) - np.array(before[0].split(), dtype=float)
    assert np.allclose(moved, np.where(numeric, 0.3, 0.0))
    root = lightgbm.Booster(model_str=rendered).dump_model()["tree_info"][0]["tree_structure"]
    assert root["threshold"] == float(after[0].split()[0]) or root["decision_type"] == "=="


def test_xgboost_loads_the_start_and_predicts_the_same(tmp_path: Path) -> None:
    policy = trees(tmp_path, xgboost_model(), tune=["*"])
    start = policy.render(policy.start())
    assert start.media_type == "application/json"
    assert np.array_equal(xgboost_scores(start), xgboost_scores(Artifact(xgboost_model())))


@pytest.mark.parametrize("booster", ["gbtree", "dart"])
def test_xgboost_predicts_with_the_leaves_that_were_rendered(tmp_path: Path, booster: str) -> None:
    model = xgboost_model(booster=booster)
    policy = trees(tmp_path, model)
    before = xgboost_scores(Artifact(model))
    scale = {block.name: block.spec()["scale"] for block in policy.space.blocks}
    step = np.concatenate([np.full(b.size, 0.25 / float(str(scale[b.name]))) for b in policy.space.blocks])
    # Every leaf rises by a quarter, and every case is in one leaf of each tree.
    after = xgboost_scores(policy.render(policy.start() + step))
    assert np.allclose(after - before, 0.25 * ROUNDS, atol=1e-5)


def test_xgboost_splits_at_the_thresholds_that_were_rendered(tmp_path: Path) -> None:
    policy = trees(tmp_path, xgboost_model(), tune=["tree0.thresholds"])
    tree = json.loads(xgboost_model())["learner"]["gradient_booster"]["model"]["trees"][0]
    numeric = [n for n, left in enumerate(tree["left_children"]) if left >= 0 and not tree["split_type"][n]]
    assert policy.space.size == len(numeric)
    vector = policy.start() * 0.0 + 1.5
    rendered = json.loads(policy.render(vector).body)
    moved = rendered["learner"]["gradient_booster"]["model"]["trees"][0]["split_conditions"]
    (value,) = {moved[n] for n in numeric}
    rest = [x for n, x in enumerate(moved) if n not in numeric]
    assert rest == [x for n, x in enumerate(tree["split_conditions"]) if n not in numeric]
    assert value == policy.tuned.values(vector)["tree0.thresholds"][0]
    assert not np.array_equal(
        xgboost_scores(policy.render(vector)), xgboost_scores(Artifact(xgboost_model()))
    )


def test_an_artifact_of_other_trees_is_refused(tmp_path: Path) -> None:
    policy = trees(tmp_path, lightgbm_model())
    other = trees(tmp_path, lightgbm_model(num_leaves=7))
    with pytest.raises(UsageError, match=r"tree0.leaves: expected 5 numbers"):
        policy.parse(other.render(other.start()))
    thresholds = trees(tmp_path, lightgbm_model(), tune=["*.thresholds"])
    with pytest.raises(UsageError, match="outside of what is tuned"):
        policy.parse(thresholds.render(thresholds.start() + 1.0))


def broken(model: str | bytes, old: str, new: str) -> bytes:
    text = model if isinstance(model, str) else model.decode()
    assert old in text
    return text.replace(old, new, 1).encode()


def first_leaf(word: str) -> bytes:
    """The LightGBM model with another word, as long as the number that stands there."""
    text = re.sub(
        r"(?m)^leaf_value=\S+",
        lambda found: "leaf_value=" + word.ljust(len(found[0]) - len("leaf_value=")),
        lightgbm_model(),
        count=1,
    )
    return text.encode()


DUMP = json.dumps(lightgbm.Booster(model_str=lightgbm_model()).dump_model()).encode()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"", "expected a LightGBM text model"),
        (b"booster[0]:\n0:leaf=0.5", "expected a LightGBM text model .* or an XGBoost JSON model"),
        (xgboost_model("ubj"), "XGBoost JSON model"),
        (DUMP, "a LightGBM dump cannot be loaded again"),
        (b'{"learner":{}}', "and found none"),
        (b'{"learner"', "expected an XGBoost JSON model"),
        (b'{"trees":[]}', "as save_model writes it"),
        (b"tree\nversion=v4\n", "a LightGBM text model with trees"),
        (broken(lightgbm_model(), "tree_sizes=", "tree_sizes=9"), "tree0 is not where|tree1 is not where"),
        (first_leaf("nan"), "tree0.leaves.0.: expected a finite number, got nan"),
        (first_leaf("x"), "tree0.leaves: expected numbers, got 'x"),
        (broken(lightgbm_model(), "is_linear=0", "is_linear=1"), "tree0: has linear models in its leaves"),
        (broken(xgboost_model(), '"left_children":[1', '"left_children":[0'), "its nodes form a circle"),
        (
            broken(xgboost_model(), '"split_conditions":[', '"split_conditions":["x","x",'),
            "expected numbers",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, model: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        trees(tmp_path, model, tune=["*"])
    assert re.search(message, caught.value.why), caught.value.why
    assert caught.value.where == str(tmp_path / "model")


def test_several_values_a_leaf_are_refused(tmp_path: Path) -> None:
    model = broken(xgboost_model(), '"size_leaf_vector":"1"', '"size_leaf_vector":"2"')
    with pytest.raises(ConfigurationError) as caught:
        trees(tmp_path, model)
    assert "its leaves hold several values each" in caught.value.why


def test_a_tree_that_is_not_there_is_pointed_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        trees(tmp_path, lightgbm_model(), tune=["tree0.leafs"])
    assert "did you mean `tree0.leaves`?" in caught.value.why
