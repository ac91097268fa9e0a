"""Build the wheel, install it into an empty environment with the source out of reach, and run a campaign with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

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
import importlib.resources as r, blackopt, blackopt_connectors, blackopt_policies
for package in (blackopt, blackopt_connectors, blackopt_policies):
    assert "site-packages" in package.__file__, package.__file__
    assert r.files(package).joinpath("py.typed").is_file(), package
from blackopt import plugins
for group in ("optimizers", "policies", "connectors", "clocks"):
    for name in plugins.names(group):
        plugins.find(group, name)
        print(group, name)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
        [wheel] = folder.glob("*.whl")
        venv.create(folder / "env", with_pip=True)
        python = str(folder / "env" / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "--require-hashes", "--requirement", str(ROOT / "requirements.lock")], folder)
        run([*pip, "--no-deps", str(wheel)], folder)
        (folder / "campaign.yaml").write_text(CAMPAIGN)
        (folder / "valley.py").write_text(EVALUATOR)
        run([python, "-c", PROBE], folder)
        blackopt = str(folder / "env" / "bin" / "blackopt")
        for arguments in (["--help"], ["schema"], ["plugins"], ["check"], ["run", "-q"], ["best"], ["status"]):
            run([blackopt, *arguments], folder)
    sys.stdout.write("the wheel works with the source out of reach\n")


def run(command: list[str], folder: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} exited {done.returncode}\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    main()
