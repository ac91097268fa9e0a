"""The policies ``torch`` and ``lora``: files that the safetensors library wrote, and reads again."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import numpy as safetensors

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import Policy
from blackopt.serving import Refused
from blackopt.serving.lora import merge
from blackopt.testing.policies import PolicySuite
from blackopt.types import Artifact
from blackopt_policies._floats import numbers, raw, rounded
from blackopt_policies.lora import Lora, LoraOptions
from blackopt_policies.torch import Torch, TorchOptions

RNG = np.random.default_rng(0)
STATE: dict[str, Any] = {
    "body.0.weight": RNG.normal(size=(5, 3)).astype(np.float32),
    "body.0.bias": np.array([0.0, -0.0, 1e-40, 3.4e38, -1.5], dtype=np.float32),
    "body.1.weight": RNG.normal(size=(4, 5)).astype(np.float16),
    "head.weight": RNG.normal(size=(2, 4)).astype(np.float64),
    "steps": np.array(17, dtype=np.int64),
}
FILE = safetensors.save(STATE, metadata={"format": "pt"})
SHA = hashlib.sha256(FILE).hexdigest()


def torch(base: Path, file: bytes = FILE, **options: Any) -> Torch:
    (base / "model.safetensors").write_bytes(file)
    return Torch(TorchOptions.model_validate({"model": "model.safetensors"} | options), base=base)


def lora(base: Path, file: bytes = FILE, **options: Any) -> Lora:
    (base / "model.safetensors").write_bytes(file)
    given = {"model": "model.safetensors", "targets": ["body.*"], "rank": 2} | options
    return Lora(LoraOptions.model_validate(given), base=base)


class Here:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.base = tmp_path


class TestTorch(Here, PolicySuite):
    def make(self) -> Policy:
        return torch(self.base, tune={"head.*": {"scale": 0.3}, "body.0.weight": {}})


class TestTorchWithBounds(Here, PolicySuite):
    def make(self) -> Policy:
        return torch(self.base, tune={"body.?.weight": {"bounds": [-5.1, 5.1]}, "head.*": {}})


class TestLora(Here, PolicySuite):
    def make(self) -> Policy:
        return lora(self.base)


class TestLoraWithFrozenA(Here, PolicySuite):
    def make(self) -> Policy:
        return lora(self.base, freeze=["*.lora_A.weight"], alpha=8, rank=1, prefix="")


def test_the_start_is_the_file_to_the_byte(tmp_path: Path) -> None:
    policy = torch(tmp_path)
    assert {block.name for block in policy.space.blocks} == STATE.keys() - {"steps"}
    assert policy.render(policy.start()).body == FILE


def test_the_library_reads_the_numbers_that_were_rendered(tmp_path: Path) -> None:
    policy = torch(tmp_path, tune=["body.1.*", "head.*"])
    vector = RNG.normal(size=policy.space.size)
    read = safetensors.load(policy.render(vector).body)
    for name, values in policy.tuned.values(vector).items():
        assert read[name].dtype == STATE[name].dtype
        assert np.array_equal(read[name].ravel(), values)
    for name in ("body.0.weight", "body.0.bias", "steps"):
        assert read[name].tobytes() == STATE[name].tobytes()


def bfloat16_file() -> bytes:
    bits = np.array([0x3F80, 0xBF81, 0x0001, 0x7F7F], dtype="<u2")
    header = {"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bits.tobytes()


def test_bfloat16_is_read_and_written(tmp_path: Path) -> None:
    policy = torch(tmp_path, bfloat16_file())
    start = policy.tuned.values(policy.start())["w"]
    assert start.tolist() == [1.0, -1.0078125, 2.0**-133, 255 * 2.0**120]
    assert policy.render(policy.start()).body == bfloat16_file()
    tuned = torch(tmp_path, bfloat16_file(), tune={"w": {"scale": 1.0}})
    moved = tuned.tuned.values(np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1e300, -1 - 2.0**-7]))["w"]
    assert moved.tolist() == [1.0, 1 + 2 * 2.0**-7, 255 * 2.0**120, -1.0078125]  # ties to even; the largest


@given(arrays.arrays(np.float64, 4, elements=st.floats(allow_nan=False, allow_infinity=False)))
@settings(max_examples=300, deadline=None)
def test_rounding_is_that_of_numpy_and_is_done_once(values: Any) -> None:
    for dtype, kind in (("float16", np.float16), ("float32", np.float32)):
        limit = float(np.finfo(kind).max)
        expected = np.clip(values, -limit, limit).astype(kind).astype(np.float64)
        assert np.array_equal(rounded(values, dtype), expected)
    once = rounded(values, "bfloat16")
    assert np.array_equal(rounded(once, "bfloat16"), once)
    assert np.array_equal(numbers(raw(once, "bfloat16"), "bfloat16"), once)
    step = np.maximum(np.abs(once) * 2.0**-8, 2.0**-134)  # half a step of a mantissa of eight bits
    assert (np.abs(np.clip(values, -255 * 2.0**120, 255 * 2.0**120) - once) <= step * (1 + 2.0**-15)).all()


def test_a_zero_has_the_sign_that_it_starts_with(tmp_path: Path) -> None:
    file = safetensors.save({"w": np.array([0.0, -0.0, 1.0, 1.0], dtype=np.float32)})
    policy = torch(tmp_path, file, tune={"w": {"scale": 1.0}})
    artifact = policy.render(np.array([-1e-60, 1e-60, -1e-60, 0.0]))  # below the smallest float32
    assert np.signbit(safetensors.load(artifact.body)["w"]).tolist() == [False, True, False, False]
    assert policy.render(policy.parse(artifact)) == artifact


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    policy = torch(tmp_path, tune=["head.*"])
    fewer = safetensors.save({name: STATE[name] for name in ("head.weight", "steps")})
    with pytest.raises(UsageError, match="other names, types or shapes"):
        policy.parse(Artifact(fewer))
    moved = torch(tmp_path, tune=["body.1.weight"])
    with pytest.raises(UsageError, match="outside of what is tuned"):
        policy.parse(moved.render(moved.start() + 1.0))


def declared(**entry: object) -> bytes:
    text = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | entry}).encode()
    return len(text).to_bytes(8, "little") + text + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("file", "tune", "message"),
    [
        (b"", "*", "expected a safetensors file, got 0 bytes"),
        (b"PK\x03\x04" * 10, "*", "expected a safetensors file, got 40 bytes that begin with b'PK"),
        (b"\x02" + b"\0" * 7 + b"[]", "*", "cannot read its header"),
        (declared(data_offsets=[0, 8]), "*", "the bytes of 'w' are not where its header says"),
        (declared(data_offsets=[4, 0]), "*", "the bytes of 'w' are not where"),
        (declared(shape=[2]), "*", "the bytes of 'w' are not where"),
        (declared(shape="x"), "*", "cannot read its header"),
        (declared(dtype="I32"), "*", "no tensor of a floating type"),
        (FILE, "haed.weight", "did you mean `head.weight`"),
        (FILE, "steps", "'steps' holds numbers of type I64, which cannot be tuned"),
        (
            safetensors.save({"w": np.array([1, np.nan], dtype="f4")}),
            "w",
            r"w.1.: expected a finite number",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, file: bytes, tune: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        torch(tmp_path, file, tune=[tune])
    assert re.search(message, caught.value.why), caught.value.why
    assert caught.value.where == str(tmp_path / "model.safetensors")


def test_factors_start_as_no_change_and_are_named_as_peft_does(tmp_path: Path) -> None:
    policy = lora(tmp_path)
    artifact = policy.render(policy.start())
    assert {name: tensor.shape for name, tensor in safetensors.load(artifact.body).items()} == {
        "base_model.model.body.0.lora_A.weight": (2, 3),
        "base_model.model.body.0.lora_B.weight": (5, 2),
        "base_model.model.body.1.lora_A.weight": (2, 5),
        "base_model.model.body.1.lora_B.weight": (4, 2),
    }
    merged = merge(STATE, artifact, base_sha256=SHA)
    assert all(np.array_equal(merged[name], STATE[name]) for name in STATE)
    alike = safetensors.save({f"{i}.weight": np.eye(4, dtype="f4") for i in range(2)})
    drawn = lora(tmp_path, alike, targets=["*"])
    first, second = (drawn.tuned.values(drawn.start())[f"{i}.lora_A.weight"] for i in range(2))
    assert not np.isclose(first, second).any()
    again = lora(tmp_path, seed=1)
    assert again.render(again.start()) != artifact


def test_a_change_is_alpha_over_rank_times_b_a(tmp_path: Path) -> None:
    policy = lora(tmp_path, alpha=3)
    vector = RNG.normal(size=policy.space.size)
    artifact = policy.render(vector)
    factors = safetensors.load(artifact.body)
    merged = merge(STATE, artifact, base_sha256=SHA)
    for name in ("body.0", "body.1"):
        a, b = (factors[f"base_model.model.{name}.lora_{x}.weight"].astype(float) for x in "AB")
        weight = STATE[f"{name}.weight"]
        assert merged[f"{name}.weight"].dtype == weight.dtype
        assert np.array_equal(merged[f"{name}.weight"], (weight + 1.5 * b @ a).astype(weight.dtype))
    assert merged["head.weight"] is STATE["head.weight"]


def test_the_automatic_step_in_b_changes_a_matrix_by_its_own_size(tmp_path: Path) -> None:
    weight = (RNG.normal(size=(300, 200)) * 0.02).astype(np.float32)
    file = safetensors.save({"query.weight": weight})
    for rank, alpha in ((1, 1.0), (4, 16.0)):
        policy = lora(tmp_path, file, targets=["query.weight"], rank=rank, alpha=alpha, freeze=["*.lora_A.*"])
        artifact = policy.render(RNG.normal(size=policy.space.size))
        merged = merge({"query.weight": weight}, artifact, base_sha256=hashlib.sha256(file).hexdigest())
        change = merged["query.weight"] - weight
        # Sizes are taken to the nearest power of two: three of them meet here.
        assert 0.4 < np.std(change) / np.std(weight) < 2.5


def test_an_adapter_is_a_start(tmp_path: Path) -> None:
    first = lora(tmp_path)
    vector = first.space.start() + 1.0
    (tmp_path / "adapter.safetensors").write_bytes(first.render(vector).body)
    second = lora(tmp_path, start="adapter.safetensors")
    assert second.render(second.start()) == first.render(vector)
    foreign = safetensors.save(safetensors.load(first.render(vector).body))  # says nothing of its base
    (tmp_path / "adapter.safetensors").write_bytes(foreign)
    third = lora(tmp_path, start="adapter.safetensors")
    assert third.render(third.start()) == first.render(vector)
    with pytest.raises(UsageError, match=r"expected base_sha256 .*, got None"):
        third.parse(Artifact(foreign))


def test_factors_of_another_base_are_refused(tmp_path: Path) -> None:
    artifact = lora(tmp_path).render(lora(tmp_path).start())
    other = lora(tmp_path, safetensors.save(STATE | {"steps": np.array(18)}))
    with pytest.raises(UsageError, match="expected base_sha256"):
        other.parse(artifact)
    with pytest.raises(UsageError, match=r"expected rank 1, got 2"):
        lora(tmp_path, rank=1).parse(artifact)
    with pytest.raises(Refused, match="not for abc"):
        merge(STATE, artifact, base_sha256="abc")
    fewer = lora(tmp_path, targets=["body.0.weight"])
    with pytest.raises(UsageError, match=r"only one of the two has base_model.model.body.1"):
        fewer.parse(artifact)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: b"",
        lambda body: body[:100],
        lambda body: body.replace(b"F32", b"F16"),
        lambda body: body.replace(b"lora_B", b"lora_C"),
        lambda body: body[:-4] + np.array([np.nan], dtype="<f4").tobytes(),
    ],
)
def test_a_module_refuses_factors_that_do_not_fit(tmp_path: Path, change: Any) -> None:
    policy = lora(tmp_path)
    body = change(policy.render(policy.start()).body)
    with pytest.raises(Refused):
        merge(STATE, Artifact(body), base_sha256=SHA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["boby.0.weight"]}, "fits no matrix of the model; did you mean `body.0.weight`"),
        ({"targets": ["*.bias"]}, "'.*.bias' fits no matrix of the model; it has"),
        ({"rank": 4}, "body.0.weight is 5 by 3; a rank of 4 is no low rank"),
        ({"tune": ["*.lora_C.weight"]}, "fits nothing in the model"),
    ],
)
def test_targets_that_cannot_be_adapted_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        lora(tmp_path, **options)
    assert re.search(message, caught.value.why), caught.value.why


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Torch(TorchOptions(model="gone.safetensors"), base=tmp_path)
    assert "gone.safetensors" in caught.value.where
    assert "No such file" in caught.value.why
