"""Candidates by key: the vectors, two other languages, another process, slices, and the 24 bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blackopt.artifacts.keyed import SIZE, Keyed, perturb, rebuild
from blackopt.artifacts.portable import Kind, draw
from blackopt.artifacts.table import short
from blackopt.errors import ArtifactError, UsageError

FOLDER = Path(__file__).parents[2] / "docs" / "protocol"
VECTORS = json.loads((FOLDER / "keyed.json").read_text(encoding="utf-8"))
WORD = 2**64 - 1


def bits(numbers: NDArray[Any]) -> list[str]:
    """Each number's bytes in hex, the highest first."""
    width = numbers.dtype.itemsize
    return [format(int(number), f"0{2 * width}x") for number in numbers.view(f"u{width}")]


def numbers(texts: list[str], dtype: str = "float64") -> NDArray[Any]:
    width = np.dtype(dtype).itemsize
    return np.array([int(text, 16) for text in texts], f"u{width}").view(dtype)


def of(case: dict[str, Any]) -> Keyed:
    kind = Kind[case["kind"].upper()]
    return Keyed(case["version"], int(case["key"]), case["sign"], case["sigma"], kind)


@pytest.mark.parametrize("case", VECTORS["noise"])
def test_noise_of_the_vectors(case: dict[str, Any]) -> None:
    seed, key, offset = (int(case[name]) for name in ("seed", "key", "offset"))
    drawn = draw(seed, key, len(case["numbers"]), offset=offset, kind=Kind[case["kind"].upper()])
    assert bits(drawn) == case["numbers"]


def test_roundings_of_the_vectors() -> None:
    before, after = ([case[name] for case in VECTORS["short"]] for name in ("number", "rounded"))
    assert bits(short(numbers(before))) == after


@pytest.mark.parametrize("case", VECTORS["candidates"])
def test_candidates_of_the_vectors(case: dict[str, Any]) -> None:
    candidate = of(case)
    assert candidate.encode().body.hex() == case["body"]
    assert Keyed.decode(bytes.fromhex(case["body"])) == candidate
    centre = numbers(case["centre"], case["dtype"])
    values = perturb(centre, candidate, int(case["seed"]), offset=int(case["offset"]))
    assert bits(values) == case["values"]


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["name"])
def test_what_is_no_candidate_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="not a candidate by key") as raised:
        Keyed.decode(bytes.fromhex(case["body"]))
    assert raised.value.why
    assert raised.value.next_step


@pytest.fixture(scope="module", params=["here", "aarch64"])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the C reference, for this processor and for one with other instructions."""
    compiler, emulator = {
        "here": (shutil.which("cc"), None),
        "aarch64": (shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")),
    }[request.param]
    if compiler is None or (request.param != "here" and emulator is None):
        pytest.skip(f"no C compiler or emulator for {request.param}: the vectors were not checked there")
    program = str(tmp_path_factory.mktemp("keyed") / "keyed")
    flags = ["-std=c99", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
    subprocess.run([compiler, *flags, FOLDER / "keyed.c", "-lm", "-o", program], check=True, timeout=120)
    return [program] if emulator is None else [emulator, program]


def run_c(program: list[str], *arguments: object, data: bytes = b"") -> list[str]:
    run = subprocess.run([*program, *map(str, arguments)], input=data, capture_output=True, timeout=120)
    assert run.returncode == 0, arguments
    return run.stdout.decode().split()


def test_c_computes_the_vectors(reference: list[str]) -> None:
    for case in VECTORS["noise"]:
        kind = int(Kind[case["kind"].upper()])
        count = len(case["numbers"])
        found = run_c(reference, "noise", case["seed"], case["key"], kind, case["offset"], count)
        assert found == case["numbers"]
    rounded = run_c(reference, "short", data=numbers([case["number"] for case in VECTORS["short"]]).tobytes())
    assert rounded == [case["rounded"] for case in VECTORS["short"]]
    for case in VECTORS["candidates"]:
        data = numbers(case["centre"], case["dtype"]).tobytes()
        found = run_c(reference, case["dtype"], case["seed"], case["body"], case["offset"], data=data)
        assert found == case["values"]


@pytest.mark.parametrize("kind", Kind)
def test_c_computes_the_same_bits_for_many_numbers(reference: list[str], kind: Kind) -> None:
    n = 100_000  # 15,000 of them in the tails, over several chunks
    found = run_c(reference, "noise", 11, WORD, int(kind), 16_379, n)
    assert found == bits(draw(11, WORD, n, offset=16_379, kind=kind))


def test_javascript_computes_the_vectors_and_many_more() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine: the vectors were not checked in JavaScript")
    check = """
    const {noise, to12Bits, decode, perturb} = require(process.argv[1]);
    const vectors = require(process.argv[2]);
    const hex = (array) => Array.from(array, (_, i) => Array.from(
      new Uint8Array(array.buffer, i * array.BYTES_PER_ELEMENT, array.BYTES_PER_ELEMENT),
      (b) => b.toString(16).padStart(2, "0")).reverse().join(""));
    const kinds = {normal: 0, sign: 1, table: 2};
    const draw = (seed, key, kind, offset, n) => Float64Array.from(
      {length: n}, (_, i) => noise(BigInt(seed), BigInt(key), kind, BigInt(offset) + BigInt(i)));
    const wrong = [];
    for (const v of vectors.noise) {
      const found = hex(draw(v.seed, v.key, kinds[v.kind], v.offset, v.numbers.length));
      if (found.join() !== v.numbers.join()) wrong.push(v);
    }
    const bytes = (h) => Uint8Array.from(Buffer.from(h, "hex"));
    for (const v of vectors.short) {
      const number = new DataView(bytes(v.number).buffer).getFloat64(0);
      if (hex(Float64Array.of(to12Bits(number))).join() !== v.rounded) wrong.push(v);
    }
    for (const v of vectors.candidates) {
      const narrow = v.dtype === "float32";
      const [type, read] = narrow ? [Float32Array, "getFloat32"] : [Float64Array, "getFloat64"];
      const centre = type.from(v.centre, (h) => new DataView(bytes(h).buffer)[read](0));
      const candidate = decode(bytes(v.body));
      const found = hex(perturb(centre, candidate, BigInt(v.seed), BigInt(v.offset)));
      if (found.join() !== v.values.join() || candidate.version !== v.version) wrong.push(v);
    }
    for (const v of vectors.refused) {
      let refused = false;
      try { decode(bytes(v.body)); } catch { refused = true; }
      if (!refused) wrong.push(v);
    }
    const many = [0, 2].map((kind) => hex(draw(11, 3, kind, 5, 5000)));
    console.log(JSON.stringify({wrong, many}));
    """
    arguments = [node, "-e", check, str(FOLDER / "keyed.js"), str(FOLDER / "keyed.json")]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["wrong"] == []
    kinds = (Kind.NORMAL, Kind.TABLE)
    assert found["many"] == [bits(draw(11, 3, 5000, offset=5, kind=kind)) for kind in kinds]


def test_another_process_rebuilds_the_same_bytes() -> None:
    centre = np.linspace(-1, 1, 50_001, dtype=np.float32)
    body = Keyed(3, 17, -1, 0.02).encode().body
    script = (
        "import sys, hashlib, numpy as np\n"
        "from blackopt.artifacts.keyed import Keyed, perturb\n"
        "centre = np.frombuffer(sys.stdin.buffer.read(), np.float32)\n"
        f"values = perturb(centre, Keyed.decode(bytes.fromhex({body.hex()!r})), 7)\n"
        "print(hashlib.sha256(values.tobytes()).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], input=centre.tobytes(), capture_output=True, timeout=120
    )
    here = perturb(centre, Keyed.decode(body), 7).tobytes()
    assert run.stdout.decode().strip() == hashlib.sha256(here).hexdigest(), run.stderr


@settings(deadline=None)  # the first draw of a kind may make its table
@given(st.integers(0, 70_000), st.integers(0, 40_000), st.sampled_from(Kind), st.sampled_from(["f4", "f8"]))
def test_a_slice_is_the_same_drawn_alone(offset: int, n: int, kind: Kind, dtype: str) -> None:
    whole = draw(5, 9, 110_000, kind=kind, dtype=np.dtype(dtype).type)
    part = draw(5, 9, n, offset=offset, kind=kind, dtype=np.dtype(dtype).type)
    assert part.tobytes() == whole[offset : offset + n].tobytes()


@given(
    st.builds(
        Keyed,
        st.integers(0, 2**48 - 1),
        st.integers(0, WORD),
        st.sampled_from([1, -1]),
        st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        st.sampled_from(Kind),
    )
)
def test_24_bytes_hold_every_candidate(candidate: Keyed) -> None:
    artifact = candidate.encode()
    assert len(artifact.body) == SIZE == 24
    assert Keyed.decode(artifact.body) == candidate


@given(st.binary(min_size=20, max_size=28))
def test_any_bytes_are_refused_or_are_what_they_encode_to(body: bytes) -> None:
    for bytes_ in (body, b"\x4b\x02" + body):
        try:
            candidate = Keyed.decode(bytes_)
        except ArtifactError:
            continue
        assert candidate.encode().body == bytes_


def test_a_model_is_rebuilt_in_the_order_of_its_names_and_a_block_of_it_alone() -> None:
    model: dict[str, NDArray[Any]] = {
        "b": np.ones((3, 5), np.float32),
        "steps": np.array([4, 5], np.int64),
        "a": np.zeros(7),
        "c": np.full((), 2.0, np.float32),
    }
    candidate = Keyed(0, 1, -1, 0.5)
    made = rebuild(model, candidate, 7)
    expected = -0.5 * draw(7, 1, 23)
    assert made["a"].tobytes() == expected[:7].tobytes()
    assert made["b"].tobytes() == (1.0 + expected[7:22]).astype(np.float32).tobytes()
    assert made["c"].shape == ()
    assert made["c"] == np.float32(2.0 + expected[22])
    assert made["steps"] is model["steps"]
    block = perturb(model["b"][1:2], candidate, 7, offset=12)
    assert block.tobytes() == made["b"][1:2].tobytes()


def test_in_place_and_not_in_rows() -> None:
    centre = np.arange(12, dtype=np.float32).reshape(3, 4)
    candidate = Keyed(0, 1, 1, 0.5)
    turned = np.asfortranarray(centre)
    expected = perturb(centre, candidate, 7)
    np.testing.assert_array_equal(perturb(turned, candidate, 7), expected)
    assert perturb(centre, candidate, 7, out=centre) is centre
    np.testing.assert_array_equal(centre, expected)


@pytest.mark.parametrize("kind", Kind)
def test_memory_does_not_grow_with_the_model(kind: Kind) -> None:
    centre = np.zeros(2_000_000, np.float32)
    tracemalloc.start()
    perturb(centre, Keyed(0, 1, 1, 0.5, kind), 7, out=centre)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be in"),
        ({"seed": 2**64}, "seed must be in"),
        ({"key": 2**64}, "key must be in"),
        ({"offset": -1}, "offset"),
        ({"offset": 2**60}, r"offset \+ n must be in"),
        ({"n": -1}, "n must be >= 0"),
        ({"dtype": np.float16}, "dtype must be"),
    ],
)
def test_impossible_draws(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw(**{"seed": 0, "key": 0, "n": 1, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"version": 2**48}, "version must be"),
        ({"key": -1}, "key must be"),
        ({"sign": 0}, "sign must be"),
        ({"sigma": 0.0}, "sigma must be"),
        ({"sigma": np.nan}, "sigma must be"),
    ],
)
def test_impossible_candidates(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Keyed(**{"version": 0, "key": 0, "sign": 1, "sigma": 1.0, **arguments})


def test_impossible_perturbations() -> None:
    candidate = Keyed(0, 0, 1, 1.0)
    with pytest.raises(UsageError, match="float32 or float64, got int64"):
        perturb(np.zeros(3, np.int64), candidate, 0)
    with pytest.raises(UsageError, match="out must be"):
        perturb(np.zeros(3), candidate, 0, out=np.zeros(4))
    with pytest.raises(UsageError, match="not finite in float32"):
        perturb(np.zeros(3, np.float32), Keyed(0, 0, 1, 1e39), 0)
    with pytest.raises(UsageError, match="not finite"):
        perturb(np.array([0.0, np.nan]), candidate, 0)
