"""What a person sees of the policies: `blackopt check` on files that are wrong, and a campaign that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

from blackopt import Campaign
from blackopt.cli.check import check
from blackopt.cli.output import Output
from blackopt.errors import ConfigurationError
from blackopt.serving.mlp import Mlp
from blackopt_policies._tensors import TuneOptions
from blackopt_policies.mlp import Mlp as MlpPolicy
from blackopt_policies.mlp import MlpOptions

BLACKOPT = str(Path(sys.executable).with_name("blackopt"))
CAMPAIGN = """\
version: 1
name: ranking
policy: {policy}
optimizer: {{use: cma-es, sigma: 0.3, seed: 1}}
objective: {{maximize: clicks}}
budget: {{trials: {trials}, max_in_flight: 4}}
"""
EVALUATE = 'evaluate: {use: python, call: "module:clicks", workers: 1}\n'
MODULE = """\
import json

from blackopt.serving.mlp import Mlp
from blackopt.types import Artifact

def clicks(document):
    network = Mlp.load(Artifact(json.dumps(document).encode()))
    return -float(((network.act([[0.0, 1.0], [1.0, 0.0]]) - [[1.0], [-1.0]]) ** 2).sum())
"""


def campaign(folder: Path, policy: str, *, trials: int = 4, evaluate: str = "") -> Path:
    path = folder / "campaign.yaml"
    path.write_text(CAMPAIGN.format(policy=policy, trials=trials) + evaluate, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("{use: torch, model: gone.safetensors}", ["gone.safetensors", "No such file"]),
        ("{use: torch, model: today.txt}", ["today.txt", "expected a safetensors file, got 5 bytes"]),
        ("{use: torch, model: nan.safetensors}", ["head.weight[1]: expected a finite number, got nan"]),
        ("{use: torch, model: ok.safetensors, tune: [haed.weight]}", ["did you mean `head.weight`?"]),
        ("{use: torch, model: ok.safetensors, tune: [ids]}", ["'ids' holds numbers of type I64"]),
        ("{use: onnx, model: today.txt}", ["expected an ONNX model"]),
        ("{use: trees, model: today.txt}", ["expected a LightGBM text model"]),
        ("{use: sklearn, model: today.txt}", ["blackopt.serving.estimators.export"]),
        ("{use: lora, model: ok.safetensors, targets: [x], rank: 1}", ["'x' fits no matrix of the model"]),
        ("{use: mlp, inputs: 2, start: today.txt}", ["expected JSON, got b'hello'"]),
        (
            "{use: composite, parts: {scorer: {use: torch, model: gone.safetensors}}}",
            ["policy.parts.scorer", "gone.safetensors"],
        ),
    ],
)
def test_check_says_what_is_wrong_with_a_model_and_where(
    tmp_path: Path, policy: str, expected: list[str]
) -> None:
    (tmp_path / "today.txt").write_text("hello")
    good: dict[str, Any] = {"head.weight": np.ones((2, 3), dtype=np.float32), "ids": np.arange(3)}
    (tmp_path / "ok.safetensors").write_bytes(safetensors.save(good))
    (tmp_path / "nan.safetensors").write_bytes(
        safetensors.save({"head.weight": np.array([1.0, np.nan], dtype=np.float32)})
    )
    with pytest.raises(ConfigurationError) as caught:
        check(campaign(tmp_path, policy), Output.TABLE)
    assert caught.value.exit_code == 2
    for words in [*expected, "blackopt check"]:
        assert words in str(caught.value)


def test_each_part_of_a_composite_may_have_an_optimizer_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = "scorer: {use: mlp, inputs: 2}, mix: {use: parameters, space: {top: {int: [1, 9]}}}"
    path = campaign(tmp_path, f"{{use: composite, parts: {{{parts}}}}}")
    groups = "[{blocks: ['scorer.*'], use: cma-es, sigma: 0.1}, {blocks: ['mix.*'], use: random}]"
    text = path.read_text().replace("use: cma-es, sigma: 0.3,", f"use: groups, groups: {groups},")
    path.write_text(text + EVALUATE)
    (tmp_path / "module.py").write_text(MODULE)
    check(path, Output.TABLE)
    assert "4 dimensions" in capsys.readouterr().out


def test_check_leaves_with_two_and_no_traceback(tmp_path: Path) -> None:
    path = campaign(tmp_path, "{use: torch, model: gone.safetensors}")
    done = subprocess.run([BLACKOPT, "check", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "gone.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_campaign_teaches_a_network_from_what_it_earns(tmp_path: Path) -> None:
    start = Mlp([np.full((3, 2), 0.1), np.full((1, 3), 0.1)], [np.zeros(3), np.zeros(1)])
    (tmp_path / "start.json").write_bytes(start.artifact().body)
    (tmp_path / "module.py").write_text(MODULE)
    policy = "{use: mlp, inputs: 2, hidden: [3], start: start.json, tune: {'*': {scale: 1.0}}}"
    path = campaign(tmp_path, policy, trials=120, evaluate=EVALUATE)
    found = Campaign.load(path).run()
    options = MlpOptions(inputs=2, hidden=[3], start="start.json", tune={"*": TuneOptions(scale=1.0)})
    learned = MlpPolicy(options, base=tmp_path)
    before, after = (
        Mlp.load(learned.render(vector)).act([[0.0, 1.0], [1.0, 0.0]])
        for vector in (learned.start(), found.recommendation)
    )
    wanted = [[1.0], [-1.0]]
    assert ((after - wanted) ** 2).sum() < 0.5 * ((before - wanted) ** 2).sum()
