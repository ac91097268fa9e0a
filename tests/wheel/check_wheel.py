"""Build the source archive and from it the wheel; with the source out of reach, run a campaign with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "blackopt": ROOT / "blackopt",
    "blackopt_connectors": ROOT / "connectors" / "blackopt_connectors",
    "blackopt_policies": ROOT / "policies" / "blackopt_policies",
}

CAMPAIGN = """\
version: 1
name: wheel
policy: {use: parameters, space: {x: {float: [-1, 1]}, y: {float: [-1, 1]}}}
optimizer: {use: cma-es, seed: 1}
evaluate: {use: python, call: "valley:depth", workers: 1}
objective: {minimize: depth}
budget: {trials: 40, max_in_flight: 8}
"""

EVALUATOR = """\
def depth(params):
    return (params["x"] - 0.3) ** 2 + (params["y"] + 0.2) ** 2
"""

PROBE = """\
import sys, blackopt, blackopt_connectors, blackopt_policies
for package in (blackopt, blackopt_connectors, blackopt_policies):
    assert "site-packages" in package.__file__, package.__file__
from blackopt import plugins
from blackopt.errors import ConfigurationError
for group in ("optimizers", "policies", "connectors", "clocks"):
    assert plugins.names(group), group
    for name in plugins.names(group):
        try:
            plugins.find(group, name)
        except ConfigurationError as error:  # an extra that is not installed here, and nothing else
            assert error.next_step.startswith("pip install 'blackopt["), error
"""

VERBS = (
    ["--version"],
    ["init", "offer"],
    ["schema"],
    ["plugins"],
    ["check"],
    ["run", "-q"],
    ["best"],
    ["status"],
    ["trials"],
    ["report"],
    ["backup", "copy.db"],
)


def main() -> None:
    """Exit with 1 and the output of the first command that fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Without --wheel or --sdist, the wheel is built from the source archive: both are tried.
        run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
        [wheel] = folder.glob("*.whl")
        compare(wheel)
        venv.create(folder / "env", with_pip=True)
        python = str(folder / "env" / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "--require-hashes", "--requirement", str(ROOT / "requirements.lock")], folder)
        run([*pip, "--no-deps", str(wheel)], folder)
        (folder / "campaign.yaml").write_text(CAMPAIGN)
        (folder / "valley.py").write_text(EVALUATOR)
        run([python, "-c", PROBE], folder)
        for arguments in VERBS:
            run([str(folder / "env" / "bin" / "blackopt"), *arguments], folder)
    sys.stdout.write("the wheel works with the source out of reach\n")


def compare(wheel: Path) -> None:
    """Every file of the packages is in the wheel, also those that are not Python, and nothing else is."""
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    if missing := sorted(expected - found):
        raise SystemExit(f"{wheel.name} lacks {', '.join(missing)}")
    if added := sorted(found - expected):
        raise SystemExit(f"{wheel.name} has more than the packages: {', '.join(added)}")


def run(command: list[str], folder: Path) -> None:
    """Run one command in ``folder``, with nothing in its environment that leads back to the source."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} exited {done.returncode}\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    main()
