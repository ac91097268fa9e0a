"""The tree keeps its own rules: rooms, public names, and nothing of the machine it was written on."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import blackopt

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    ROOT / "blackopt",
    ROOT / "connectors" / "blackopt_connectors",
    ROOT / "policies" / "blackopt_policies",
)
TEXT = {".css", ".json", ".lock", ".md", ".py", ".sql", ".toml", ".yaml", ""}
BUILT = {"build", "dist", "runs"}


def files() -> Iterator[Path]:
    """Every file of the repository that a person wrote."""
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT)
        hidden = any(part.startswith(".") and part != ".ci" for part in inside.parts)
        if (
            not hidden
            and inside.parts[0] not in BUILT
            and "__pycache__" not in inside.parts
            and path.is_file()
        ):
            yield path


@pytest.mark.parametrize("public", [name for name in blackopt.__all__ if not name.startswith("__")])
def test_every_public_name_resolves_says_what_it_is_and_stands_in_a_document(public: str) -> None:
    assert inspect.getdoc(getattr(blackopt, public))
    documents = [path.read_text(encoding="utf-8") for path in files() if path.suffix == ".md"]
    assert any(re.search(rf"\b{public}\b", text) for text in documents)


def rooms() -> set[str]:
    """Paths in the first column of the table in CONTRIBUTING.md."""
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    return {
        path
        for line in lines
        if line.startswith("| `")
        for path in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def test_every_part_of_the_tree_has_a_room_in_contributing() -> None:
    tops = {path.relative_to(ROOT).parts[0] for path in files() if path.parent != ROOT} - {".ci", "blackopt"}
    core = {
        f"blackopt/{path.name}{'/' * path.is_dir()}"
        for path in (ROOT / "blackopt").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    } - {"blackopt/__init__.py"}
    assert rooms() == core | {f"{top}/" for top in tops}


def test_every_path_that_contributing_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = [path for path in re.findall(r"`([\w./-]+)`", text) if "/" in path]
    assert len(named) > 20
    assert not [path for path in named if not (ROOT / path).exists()]


ONE_MACHINE = re.compile(r"/(?:w[o]rk|home/\w+|root|Users/\w+|tmp)/")


def test_no_file_speaks_of_the_machine_it_was_written_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line}"
        for path in files()
        if path.suffix in TEXT
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if ONE_MACHINE.search(line)
    ]
    assert not found


def test_every_plug_in_module_is_in_the_contract_of_independence() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "independence"]
    modules = {
        f"{package.name}.{module.stem}" for package in PACKAGES[1:] for module in package.glob("[!_]*.py")
    }
    assert set(contract["modules"]) == modules


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.name))
def test_every_package_is_typed(package: Path) -> None:
    assert (package / "py.typed").is_file()


def test_the_version_is_the_same_inside_and_outside() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert blackopt.__version__ == settings["project"]["version"]
