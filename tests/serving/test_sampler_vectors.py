"""docs/protocol/sampling.json: what units are served, here and in JavaScript."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blackopt.artifacts import Centre, Store
from blackopt.serving import Arms, Models, Sampler

FOLDER = Path(__file__).parents[2] / "docs" / "protocol"
VECTORS = json.loads((FOLDER / "sampling.json").read_text(encoding="utf-8"))


def test_units_are_served_what_the_vectors_say(tmp_path: Path) -> None:
    store = Store(tmp_path)
    body = base64.b64decode(VECTORS["centre"]["file"])
    centre = Centre.read(body)
    assert store.put(body, label=VECTORS["centre"]["label"]) == VECTORS["centre"]["sha256"]
    assert centre.label == VECTORS["centre"]["label"]
    incumbent = {name: np.zeros(shape, np.float32) for name, shape in centre.shapes.items()}

    def flat(tensors: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
        return tensors

    models = Models(tmp_path, "feed", flat, incumbent=incumbent)
    arms = Arms(accept=models.accept, load=models.load, incumbent=models.incumbent, secrets=[])
    for push in VECTORS["pushes"]:
        raw = json.dumps(push).encode()
        assert arms.handle("POST", "/push", {"Content-Type": "application/json"}, raw)[0] == 200
    sampler = Sampler(arms, models)
    for case in VECTORS["units"]:
        with sampler.perturb(case["unit"]) as p:
            values = np.concatenate([p.model[name].reshape(-1) for name in centre.shapes])
            found: dict[str, Any] | None = {
                "arm": p.arm,
                "version": p.version,
                "key": None if p.key is None else str(p.key),
                "sign": p.sign,
                "values": [format(int(bits), "08x") for bits in values.view("u4")],
            }
            assert (None if p.arm is None else found) == case["served"]


def test_they_meet_every_arm_kind_and_sign_the_control_and_none() -> None:
    served = [case["served"] for case in VECTORS["units"]]
    arms = {push["arm"] for push in VECTORS["pushes"]}
    assert {each and each["arm"] for each in served} == {*arms, "control", None}
    kinds = {base64.b64decode(push["artifact"]["body"])[1] for push in VECTORS["pushes"]}
    assert kinds == {kind << 1 | negative for kind in range(3) for negative in range(2)}


def test_javascript_serves_the_same() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine: the vectors were not checked in JavaScript")
    check = r"""
    const { serve } = require(process.argv[1]);
    const vectors = require(process.argv[2]);
    const hex = (x) => { const b = Buffer.alloc(4); b.writeFloatBE(x); return b.toString("hex"); };
    const centres = { 3: Buffer.from(vectors.centre.file, "base64") };
    const found = vectors.units.map(({ unit }) => {
      const served = serve(vectors.pushes, centres, unit);
      return { unit, served: served && { ...served, values: served.values.map(hex) } };
    });
    console.log(JSON.stringify(found));
    """
    arguments = [node, "-e", check, str(FOLDER / "sampling.js"), str(FOLDER / "sampling.json")]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == VECTORS["units"]
