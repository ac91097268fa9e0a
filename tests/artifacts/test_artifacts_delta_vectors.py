"""The vectors of deltas: in this package, and in JavaScript."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from blackopt.artifacts import Base, apply, expand
from blackopt.errors import ArtifactError

FOLDER = Path(__file__).parents[2] / "docs" / "protocol"
VECTORS = json.loads((FOLDER / "deltas.json").read_text(encoding="utf-8"))
BASE = Base.load(bytes.fromhex(VECTORS["base"]))
MOST = 1_000_000


def test_the_base() -> None:
    assert hashlib.sha256(bytes.fromhex(VECTORS["base"])).hexdigest() == VECTORS["base_sha256"] == BASE.sha256


@pytest.mark.parametrize("case", VECTORS["deltas"], ids=lambda case: case["name"])
def test_deltas(case: dict[str, Any]) -> None:
    made = apply(expand(bytes.fromhex(case["body"]), most=MOST), BASE)
    bits = {
        name: [format(int(number), f"0{2 * width}x") for number in tensor.reshape(-1).view(f"u{width}")]
        for name, tensor in made.items()
        for width in [tensor.dtype.itemsize]
    }
    assert bits == case["made"]


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["name"])
def test_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError):
        apply(expand(bytes.fromhex(case["body"]), most=MOST), BASE)


def test_javascript_makes_the_same_numbers_and_refuses_the_same() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine: the vectors were not checked in JavaScript")
    check = """
    const {apply, expand} = require(process.argv[1]);
    const vectors = require(process.argv[2]);
    const base = Buffer.from(vectors.base, "hex");
    const made = (v) => apply(expand(Buffer.from(v.body, "hex"), 1e6), base);
    const hex = ({dtype, numbers}) => numbers.map((x) => {
      const view = new DataView(new ArrayBuffer(dtype === "F32" ? 4 : 8));
      dtype === "F32" ? view.setFloat32(0, x) : view.setFloat64(0, x);
      return Buffer.from(view.buffer).toString("hex");
    });
    const wrong = [];
    for (const v of vectors.deltas) {
      const found = made(v);
      const names = Object.keys(v.made);
      if (Object.keys(found).length !== names.length) wrong.push(v.name);
      for (const name of names) if (hex(found[name]).join() !== v.made[name].join()) wrong.push(v.name);
    }
    for (const v of vectors.refused) {
      let refused = false;
      try { made(v); } catch { refused = true; }
      if (!refused) wrong.push(v.name);
    }
    console.log(JSON.stringify(wrong));
    """
    arguments = [node, "-e", check, str(FOLDER / "delta.js"), str(FOLDER / "deltas.json")]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []
