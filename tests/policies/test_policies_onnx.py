"""The policy ``onnx``, with models that onnxruntime runs."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import Policy
from blackopt.testing.policies import PolicySuite
from blackopt.types import Artifact
from blackopt_policies.onnx import Onnx, OnnxOptions

RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(3, 4)).astype(np.float32)
OFFSET = np.array([0.5, -0.0, 0.1, -0.25], dtype=np.float32)
HEAD = RNG.normal(size=(4, 2)).astype(np.float32)
FEATURES = RNG.normal(size=(7, 3)).astype(np.float32)


@cache
def model(dtype: int = TensorProto.FLOAT) -> bytes:
    """y = cast(relu(x W + b)) V, the weights of the head in any type."""
    initializers = [
        numpy_helper.from_array(HIDDEN, "hidden.weight"),
        helper.make_tensor("hidden.bias", TensorProto.FLOAT, [4], OFFSET.tolist()),  # as float_data
        helper.make_tensor("head.weight", dtype, [4, 2], HEAD.ravel().tolist()),
        numpy_helper.from_array(np.array([-1, 2], dtype=np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "hidden.weight"], ["a"]),
        helper.make_node("Add", ["a", "hidden.bias"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Cast", ["head.weight"], ["v"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["c", "v"], ["d"]),
        helper.make_node("Reshape", ["d", "shape"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "ranker",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        initializers,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    body: bytes = made.SerializeToString()
    return body


def policy_of(base: Path, body: bytes, **options: Any) -> Onnx:
    (base / "ranker.onnx").write_bytes(body)
    return Onnx(OnnxOptions.model_validate({"model": "ranker.onnx"} | options), base=base)


def run(body: bytes) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(body, settings, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": FEATURES})[0]


class TestOnnx(PolicySuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.base = tmp_path

    def make(self) -> Policy:
        return policy_of(self.base, model())


class TestOnnxWithBounds(PolicySuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.base = tmp_path

    def make(self) -> Policy:
        tune = {"*.bias": {"bounds": [-0.7, 0.7]}, "head.*": {"scale": 0.1}}
        return policy_of(self.base, model(TensorProto.DOUBLE), tune=tune)


def test_blocks_are_the_floating_initializers_under_their_names(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, model())
    sizes = {block.name: block.size for block in policy.space.blocks}
    assert sizes == {"hidden.weight": 12, "hidden.bias": 4, "head.weight": 8}


@pytest.mark.parametrize(
    "dtype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16]
)
def test_the_start_is_the_model_to_the_bit(tmp_path: Path, dtype: int) -> None:
    policy = policy_of(tmp_path, model(dtype))
    start = policy.render(policy.start())
    before, after = (onnx.load_model_from_string(body).graph for body in (model(dtype), start.body))
    for old, new in zip(before.initializer, after.initializer, strict=True):
        assert numpy_helper.to_array(old).tobytes() == numpy_helper.to_array(new).tobytes()
    assert policy.render(policy.parse(start)) == start
    onnx.checker.check_model(start.body)
    assert np.array_equal(run(start.body), run(model(dtype)))


def test_onnxruntime_computes_with_the_numbers_that_were_rendered(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, model(), tune=["head.weight", "hidden.bias"])
    vector = RNG.normal(size=policy.space.size)
    values = policy.tuned.values(vector)
    hidden = np.maximum(FEATURES @ HIDDEN + values["hidden.bias"], 0.0)
    expected = hidden @ values["head.weight"].reshape(4, 2)
    assert np.allclose(run(policy.render(vector).body), expected, rtol=1e-5, atol=1e-5)
    # What was rendered before leaves nothing behind.
    assert np.array_equal(run(policy.render(policy.start()).body), run(model()))


def test_an_artifact_of_another_model_is_refused(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, model(), tune=["head.*"])
    other = policy_of(tmp_path, model(TensorProto.DOUBLE), tune=["head.*"])
    with pytest.raises(UsageError, match=r"expected an initializer 'head.weight' of type float32"):
        policy.parse(other.render(other.start()))
    hidden = policy_of(tmp_path, model(), tune=["hidden.*"])
    with pytest.raises(UsageError, match="outside of what is tuned"):
        policy.parse(hidden.render(hidden.start() + 1.0))
    wider = onnx.load_model_from_string(model())
    wider.graph.initializer[2].CopyFrom(helper.make_tensor("head.weight", TensorProto.FLOAT, [1], [0.5]))
    with pytest.raises(UsageError, match=r"head.weight: expected 8 numbers, got 1"):
        policy.parse(Artifact(wider.SerializeToString()))


def edited(name: str, **fields: Any) -> bytes:
    changed = onnx.load_model_from_string(model())
    (initializer,) = [i for i in changed.graph.initializer if i.name == name]
    for field, value in fields.items():
        setattr(initializer, field, value)
    body: bytes = changed.SerializeToString()
    return body


@pytest.mark.parametrize(
    ("body", "tune", "message"),
    [
        (b"", "*", "expected an ONNX model, got 0 bytes without a graph"),
        (b"\x00\xff", "*", "expected an ONNX model, got b'.x00"),
        (model(), "haed.weight", "'haed.weight' fits nothing in the model; did you mean `head.weight`"),
        (model(), "shape", "policy.tune: 'shape' holds numbers of type INT64, which cannot be tuned"),
        (
            edited("hidden.weight", raw_data=np.full(12, np.nan, dtype="<f4").tobytes()),
            "*",
            r"hidden.weight\[0\]: expected a finite number, got nan",
        ),
        (edited("hidden.weight", raw_data=b"\0" * 5), "*", "'hidden.weight': its numbers cannot be read"),
        (
            edited("hidden.weight", data_location=TensorProto.EXTERNAL),
            "*",
            "'hidden.weight' is stored in a file beside the model",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, body: bytes, tune: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        policy_of(tmp_path, body, tune=[tune])
    assert re.search(message, caught.value.why), caught.value.why
    assert caught.value.where == str(tmp_path / "ranker.onnx")


def test_without_onnx_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError('no onnx', name='onnx')")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pathlib import Path\n"
        "from blackopt_policies.onnx import Onnx, OnnxOptions\n"
        "Onnx(OnnxOptions(model='m.onnx'), base=Path())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'blackopt[onnx]'" in done.stderr
