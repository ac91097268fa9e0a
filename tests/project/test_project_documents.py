"""Documents agree with the tree: links resolve, commands and plug-ins are written about."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer

from blackopt import plugins
from blackopt.cli.main import app

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


def test_the_changelog_is_open() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert versions[0] == "Unreleased"


def test_every_verb_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = typer.main.get_command(app)
    assert isinstance(commands, typer.core.TyperGroup)
    assert commands.commands
    assert not [verb for verb in commands.commands if f"`{verb}`" not in readme]


@pytest.mark.parametrize(("group", "name", "value"), ENTRIES, ids=[f"{g}:{n}" for g, n, _ in ENTRIES])
def test_every_plug_in_loads_and_is_written_about(group: str, name: str, value: str) -> None:
    found = plugins.find(group.removeprefix("blackopt."), name)
    assert f"{found.__module__}:{found.__qualname__}" == value
    pages = [path for path in DOCUMENTS if path.parent == ROOT / "docs" or "reference" in path.parts]
    spoken_of = re.compile(rf"`[^`\n]*\b{name}\b[^`\n]*`")
    assert [path for path in pages if spoken_of.search(path.read_text(encoding="utf-8"))], (
        "no page in docs/ names it"
    )
