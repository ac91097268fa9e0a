"""The protocol's own vectors: against this package, against other libraries, and against JavaScript."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import standardwebhooks

from blackopt.serving import sign, within
from blackopt.serving.answers import Rejected
from blackopt.serving.signature import Verifier, key_of
from blackopt.traffic import bucket
from blackopt.types import Artifact

FOLDER = Path(__file__).parents[2] / "docs" / "protocol"
VECTORS = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))


def by_name(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", VECTORS[name], ids=lambda case: case.get("name") or case["unit"])


@by_name("signatures")
def test_signature(case: dict[str, Any]) -> None:
    verifier = Verifier(case["secrets"], lambda: float(case["now"]))
    headers = {f"webhook-{name}": case[name] for name in ("id", "timestamp", "signature")}
    if case["valid"]:
        verifier.check(headers, case["body"].encode())
    else:
        with pytest.raises(Rejected, match=r"^signature: ") as raised:
            verifier.check(headers, case["body"].encode())
        assert raised.value.answer.status == 401


@pytest.mark.parametrize(
    "case", [c for c in VECTORS["signatures"] if c["timestamp"].isdigit()], ids=lambda case: case["name"]
)
def test_signature_is_what_the_standardwebhooks_package_computes(case: dict[str, Any]) -> None:
    at = datetime.fromtimestamp(int(case["timestamp"]), UTC)
    theirs = {
        standardwebhooks.Webhook(base64.b64encode(key_of(secret)).decode()).sign(case["id"], at, case["body"])
        for secret in case["secrets"]
    }
    ours = {sign(s, case["id"], int(case["timestamp"]), case["body"].encode()) for s in case["secrets"]}
    assert ours == theirs
    # Beyond the arithmetic the two differ on purpose: the timestamp's age, and ids with a dot.
    in_time = abs(case["now"] - int(case["timestamp"])) <= 300 and "." not in case["id"]
    assert case["valid"] == (in_time and bool(theirs & set(case["signature"].split(" "))))


@by_name("splitter")
def test_splitter(case: dict[str, Any]) -> None:
    assert bucket(case["campaign"], case["salt"], case["unit"]) == case["bucket"]


@by_name("sequences")
def test_orders(case: dict[str, Any], bench: Any) -> None:
    module = VECTORS["module"]
    options = {
        "accept": within({name: tuple(pair) for name, pair in module["bounds"].items()}),
        "incumbent": Artifact(module["incumbent"].encode()),
        "max_share": module["max_share"],
        "max_ttl_s": module["max_ttl_s"],
    }
    bench.start(**options)
    for number, step in enumerate(case["steps"]):
        match step["do"]:
            case "order":
                status, answer = bench.post(step["path"], step["body"])
                code = answer["detail"].partition(":")[0]
                expected = (step["status"], step["outcome"], step["code"])
                assert (status, answer["outcome"], code) == expected, f"step {number}: {answer}"
            case "live":
                live = [{k: arm[k] for k in ("trial", "epoch", "expires_in_s")} for arm in bench.live()]
                assert live == step["live"], f"step {number}"
                if "incumbents" in step:
                    keys = ("campaign", "number", "served")
                    found = [{k: entry[k] for k in keys} for entry in bench.incumbents()]
                    assert found == step["incumbents"], f"step {number}"
            case "assign":
                given = bench.arms.assign(step["campaign"], step["unit"])
                assert (given.arm, given.window) == (step["arm"], step["window"]), f"step {number}"
                assert given.artifact.body.decode() == step.get("body", given.artifact.body.decode())
            case "wait":
                bench.now += step["seconds"]
            case "restart":
                bench.start(**options)
            case "kill":
                bench.kill_file.touch()
            case "unkill":
                bench.kill_file.unlink()
            case other:
                pytest.fail(f"step {number}: unknown {other}")


@by_name("sequences")
def test_the_schemas_agree_with_the_answers(case: dict[str, Any]) -> None:
    for step in case["steps"]:
        if step["do"] != "order":
            continue
        schema = json.loads((FOLDER / f"{step['path'].lstrip('/')}.schema.json").read_text(encoding="utf-8"))
        valid = jsonschema.Draft202012Validator(schema).is_valid(step["body"])
        assert valid == (step["status"] != 400 or step.get("beyond_schema", False)), step["body"]


def test_the_schemas_are_schemas_and_fit_what_is_answered(bench: Any) -> None:
    for path in FOLDER.glob("*.schema.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text(encoding="utf-8")))
    bench.push()
    bench.push(trial=2, placement=None)
    bench.adopt()
    bench.adopt(number=2, campaign="another")
    bench.start(accept=within({"price": (0.5, 1.0)}))
    answer = json.loads(bench.arms.handle("GET", "/live", {}, b"")[1])
    assert [entry["served"] for entry in answer["incumbents"]] == [False, False]
    schema = json.loads((FOLDER / "live.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(answer, schema)
    bench.start()
    bench.push()
    bench.push(trial=2, placement=None)
    answer = json.loads(bench.arms.handle("GET", "/live", {}, b"")[1])
    assert (len(answer["live"]), len(answer["incumbents"])) == (2, 2)
    jsonschema.validate(answer, schema)
    jsonschema.validate({"protocol": 1, "live": []}, schema)  # of a module from before adoptions


def test_every_code_is_in_the_page() -> None:
    page = (FOLDER.parent / "protocol.md").read_text(encoding="utf-8")
    codes = {step["code"] for s in VECTORS["sequences"] for step in s["steps"] if step.get("code")}
    assert {code for code in codes | {"signature", "state"} if not re.search(rf"`{code}: ", page)} == set()


def test_javascript_computes_the_same_buckets_and_signatures() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine: the vectors were not checked in JavaScript")
    page = (FOLDER.parent / "protocol.md").read_text(encoding="utf-8")
    example = re.search(r"```js\n(.*?)```", page, re.DOTALL)
    assert example is not None, "docs/protocol.md has no JavaScript example"
    check = """
    const vectors = JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8"));
    const wrong = vectors.splitter.filter((v) => bucket(v.campaign, v.salt, v.unit) !== v.bucket)
      .concat(vectors.signatures.filter((v) => v.valid !== verify(
        v.secrets, {"webhook-id": v.id, "webhook-timestamp": v.timestamp, "webhook-signature": v.signature},
        Buffer.from(v.body, "utf8"), v.now)));
    console.log(JSON.stringify({checked: vectors.splitter.length + vectors.signatures.length, wrong}));
    """
    run = subprocess.run(
        [node, "-e", example[1] + check, str(FOLDER / "vectors.json")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    count = len(VECTORS["splitter"]) + len(VECTORS["signatures"])
    assert json.loads(run.stdout) == {"checked": count, "wrong": []}
