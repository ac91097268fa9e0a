"""``blackopt init``: a campaign to start from, with a production to try it on."""

from __future__ import annotations

import secrets
import shlex
import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path

import typer

from blackopt.errors import ConfigurationError

STARTER = ("campaign.yaml", "production.py", "queries/bought.sql", "queries/complained.sql")
SECRET = "secret.txt"  # noqa: S105 - the name of a file
PORT = "8801"
"""The port that the starter's files name."""


def init(directory: Path, port: int) -> None:
    """Copy the starter; never over anything that exists.

    Raises:
        ConfigurationError: one of its files is already there; nothing was written.
    """
    there = [name for name in (*STARTER, SECRET) if (directory / name).exists()]
    if there:
        raise ConfigurationError(
            "there is something already",
            where=", ".join(str(directory / name) for name in there),
            safe="nothing was written",
            next_step="name an empty folder: `blackopt init FOLDER`",
        )
    for name in STARTER:
        to = directory / name
        to.parent.mkdir(parents=True, exist_ok=True)
        with as_file(files("blackopt.cli") / "starter" / name) as source:
            to.write_text(source.read_text(encoding="utf-8").replace(PORT, str(port)), encoding="utf-8")
    secret = directory / SECRET
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32) + "\n")
    for name in (*STARTER, SECRET):
        typer.echo(str(directory / name))
    steps = [f"{_python()} production.py &", "blackopt check", "blackopt run", "blackopt best"]
    if directory.resolve() != Path.cwd():
        steps.insert(0, f"cd {shlex.quote(str(directory))}")
    typer.echo("\nnext:  " + "\n       ".join(steps), err=True)


def _python() -> str:
    """The Python that has blackopt: by its short name where the shell finds the same one."""
    found = shutil.which("python")
    return "python" if found and Path(found).parent == Path(sys.executable).parent else sys.executable
