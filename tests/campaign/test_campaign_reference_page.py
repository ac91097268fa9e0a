"""The reference page is written from the schema, and is up to date."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from blackopt.campaign import parse
from blackopt.campaign.schema import CORE, KEYS, Head, Metric

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "reference" / "campaign.md"


def test_the_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_key_of_the_core_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for key in {
        *KEYS,
        *Metric.model_fields,
        *(info.alias or name for model in CORE.values() for name, info in model.model_fields.items()),
    }:
        heading = f"### {key}" in page
        row = re.search(rf"^\| `{key}` \| .+ \| .* \| .+ \|$", page, re.MULTILINE)
        assert heading or row, key
    assert set(Head.model_fields) <= set(KEYS)


def test_the_pages_example_is_a_campaign() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    parse(example.group(1), env={"MAILER_SECRET": "whsec_" + "x" * 32})
