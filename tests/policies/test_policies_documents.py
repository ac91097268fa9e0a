"""Each section of docs/policies.md that trains a model: its code runs, its policy builds, it serves."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies.md"
BLOCK = re.compile(r"^```(python|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)

BETWEEN = """
import pathlib as _pathlib

import yaml as _yaml
from blackopt import plugins as _plugins

_options = _yaml.safe_load({text!r})["policy"]
_plugin = _plugins.find("policies", _options.pop("use"))
_policy = _plugin(_plugin.Options.model_validate(_options), base=_pathlib.Path.cwd())
artifact = _policy.render(_policy.start())
assert _policy.render(_policy.parse(artifact)) == artifact
"""


def sections() -> dict[str, list[tuple[str, str]]]:
    """The blocks of each section that has code to run, by title."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {title: BLOCK.findall(text) for title, text in zip(parts[1::2], parts[2::2], strict=True)}
    return {title: blocks for title, blocks in found.items() if any(kind == "python" for kind, _ in blocks)}


@pytest.mark.parametrize("title", sections())
def test_a_model_goes_from_training_to_a_campaign_as_it_is_written(title: str, tmp_path: Path) -> None:
    kinds = [kind for kind, _ in sections()[title]]
    assert kinds == ["python", "yaml", "python"]
    (_, training), (_, campaign), (_, module) = sections()[title]
    script = tmp_path / "walk.py"
    script.write_text(training + BETWEEN.format(text=campaign) + module, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_policy_of_a_trained_model_has_such_a_section() -> None:
    campaigns = [text for blocks in sections().values() for kind, text in blocks if kind == "yaml"]
    shown = {yaml.safe_load(text)["policy"]["use"] for text in campaigns}
    assert shown == {entry.name for entry in entry_points(group="blackopt.policies")} - {
        "parameters",
        "linear",
    }
