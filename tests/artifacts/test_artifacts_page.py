"""docs/artifacts.md: its example runs, and it names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import blackopt.artifacts
from blackopt.artifacts import compression, delta, keyed, normal, safetensors, words

PAGE = (Path(__file__).parents[2] / "docs" / "artifacts.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    command = [sys.executable, "-W", "error", "-c", example]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "text",
    [
        *(module.MEDIA_TYPE for module in (delta, keyed, safetensors)),
        *(delta.FORMAT, delta.BASE, delta.SHAPES, delta.BLOCK, *delta._READERS),
        *(compression.MAGIC.decode(), compression.SUFFIX),
        f"0x{words.TAG:X}",
        *(f"{number:.15g}" for number in (*normal._A, *normal._B, *normal._C, *normal._D)),
    ],
)
def test_the_page_says_what_the_code_says(text: str) -> None:
    assert text in PAGE


@pytest.mark.parametrize("name", blackopt.artifacts.__all__)
def test_public_names_say_what_they_are(name: str) -> None:
    assert getattr(blackopt.artifacts, name).__doc__
