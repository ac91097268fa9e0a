"""What is imported is declared, what is declared is imported, and the lock files hold it with hashes."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SHIPPED = ("blackopt", "connectors", "policies")
SCRIPTS = ("benchmarks", "docs", "examples", "tests")
OURS = {"blackopt", "blackopt_connectors", "blackopt_policies"}
PARTS = {"pydantic-core": "pydantic"}  # released with it, for it alone
CHOSEN = {"pysqlite3", "tzdata"}  # used by sqlite-utils and by zoneinfo, where they are installed
TOOLS = {  # run, not imported
    "build", "editables", "hatchling", "import-linter", "mypy", "pytest-timeout", "pytest-xdist", "ruff",
    "flask", "flask-cors", "moto", "s3fs",  # a server that speaks S3, in a process of its own, and its client
}  # fmt: skip


def normal(requirement: str) -> str:
    """The name in a requirement, as package indexes spell it."""
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def imported(*folders: str) -> set[str]:
    """Distributions that the Python files under these folders import, wherever in the file."""
    tops = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    tops |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    tops.add(node.module.split(".")[0])
                elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
                    tops.add(ast.literal_eval(node.args[0]).split(".")[0])
    helpers = [path for folder in SCRIPTS for path in (ROOT / folder).rglob("*.py")]
    ours = OURS | {path.stem for path in helpers} | {path.parent.name for path in helpers}
    homes = packages_distributions()
    names = {normal(homes[top][0]) for top in tops - ours - set(sys.stdlib_module_names)}
    return {PARTS.get(name, name) for name in names}


def declared() -> set[str]:
    return {normal(requirement) for requirement in SETTINGS["project"]["dependencies"]}


def extras() -> set[str]:
    return {
        normal(entry) for extra in SETTINGS["project"]["optional-dependencies"].values() for entry in extra
    }


def for_developers() -> set[str]:
    groups = SETTINGS["dependency-groups"]
    return {normal(entry) for entry in (*groups["build"], *groups["dev"]) if isinstance(entry, str)}


def test_what_the_packages_import_is_declared_and_nothing_else() -> None:
    assert imported(*SHIPPED) == (declared() | extras()) - CHOSEN


EXAMPLES = sorted(readme.parent.name for readme in (ROOT / "examples").glob("*/README.md"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_needs_the_packages_and_what_its_readme_installs(example: str) -> None:
    text = (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^pip install (.+)$", text, re.MULTILINE)
    installed = {requirement.strip("'") for line in lines for requirement in line.split()}
    extra = SETTINGS["project"]["optional-dependencies"]
    brought = {normal(entry) for name in extra if f"blackopt[{name}]" in installed for entry in extra[name]}
    assert imported(f"examples/{example}") <= declared() | brought | {normal(name) for name in installed}


def test_the_demo_needs_no_more_than_the_packages() -> None:
    assert imported("examples/retention") <= declared()


def test_what_tests_and_benchmarks_import_is_in_the_group_dev_and_nothing_else() -> None:
    stubs = {entry for entry in for_developers() if entry.startswith("types-") or entry.endswith("-stubs")}
    assert imported(*SCRIPTS) - declared() == for_developers() - TOOLS - stubs


@pytest.mark.parametrize(
    ("lock", "names"),
    [("requirements.lock", declared()), ("requirements-dev.lock", declared() | for_developers())],
    ids=["run", "dev"],
)
def test_lock_files_pin_every_requirement_with_hashes_and_name_no_index(lock: str, names: set[str]) -> None:
    entries = [
        entry
        for entry in re.split(r"\n(?=\S)", (ROOT / lock).read_text(encoding="utf-8").rstrip("\n"))
        if not entry.startswith("#")
    ]
    assert names <= {normal(entry) for entry in entries}
    assert not [
        entry for entry in entries if not re.match(r"[\w.-]+==\S+ .*--hash=sha256:", entry, re.DOTALL)
    ]
    assert "://" not in "".join(entries)


def test_both_lock_files_pin_the_same() -> None:
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^([\w.-]+==\S+)", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")
