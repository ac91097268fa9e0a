"""Documents agree with the tree: links resolve, commands and plug-ins are written about."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from blackopt import plugins

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if not any(part.startswith(".") or part == "runs" for part in path.relative_to(ROOT).parts)
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
ENTRIES = [(group, name, value) for group, entries in GROUPS.items() for name, value in entries.items()]


def anchors(document: Path) -> set[str]:
    """The anchors that the headings of a document get where it is shown."""
    text = FENCED.sub("", document.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(FENCED.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


RUNNABLE = [
    (document, block)
    for document in DOCUMENTS
    for block in re.findall(
        r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    if re.search(r"^from blackopt import", block, re.MULTILINE)
]


@pytest.mark.parametrize(
    ("document", "block"), RUNNABLE, ids=lambda it: it.stem if isinstance(it, Path) else ""
)
def test_python_in_documents_runs_as_it_stands(document: Path, block: str, tmp_path: Path) -> None:
    script = tmp_path / f"{document.stem}.py"
    script.write_text(block, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_policies_in_documents_are_valid() -> None:
    text = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    policies = [yaml.safe_load(block)["policy"] for block in blocks]
    assert {policy["use"] for policy in policies} == GROUPS["blackopt.policies"].keys()
    for policy in policies:
        plugins.find("policies", policy.pop("use")).Options.model_validate(policy)


def test_the_changelog_is_open() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert versions[0] == "Unreleased"


@pytest.mark.parametrize(("group", "name", "value"), ENTRIES, ids=[f"{g}:{n}" for g, n, _ in ENTRIES])
def test_every_plug_in_loads_and_is_written_about(group: str, name: str, value: str) -> None:
    found = plugins.find(group.removeprefix("blackopt."), name)
    assert f"{found.__module__}:{found.__qualname__}" == value
    pages = [path for path in DOCUMENTS if path.parent == ROOT / "docs" or "reference" in path.parts]
    spoken_of = re.compile(rf"`[^`\n]*\b{name}\b[^`\n]*`")
    assert [path for path in pages if spoken_of.search(path.read_text(encoding="utf-8"))], (
        "no page in docs/ names it"
    )
