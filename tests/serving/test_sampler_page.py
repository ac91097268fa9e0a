"""docs/exploration.md: what it says of serving runs as it stands, and names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from blackopt.serving import Exposure

PAGE = (Path(__file__).parents[2] / "docs" / "exploration.md").read_text(encoding="utf-8")
SERVING = PAGE[PAGE.index("## Serving it") :]


def test_the_examples_run_one_after_another(tmp_path: Path) -> None:
    script = "".join(re.findall(r"^```python\n(.*?)^```", SERVING, re.MULTILINE | re.DOTALL))
    assert "sampler.perturb" in script
    command = [sys.executable, "-W", "error", "-c", script]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")


def test_it_names_every_column() -> None:
    for column in Exposure._fields:
        assert f"`{column}`" in SERVING
