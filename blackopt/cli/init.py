"""``blackopt init``: a campaign to start from, with a production to try it on."""

from __future__ import annotations

import secrets
from importlib.resources import as_file, files
from pathlib import Path

import typer

from blackopt.errors import ConfigurationError

STARTER = ("campaign.yaml", "production.py", "queries/bought.sql", "queries/complained.sql")
SECRET = "secret.txt"  # noqa: S105 - the name of a file


def init(directory: Path) -> None:
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
            to.write_bytes(source.read_bytes())
    secret = directory / SECRET
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32) + "\n")
    folder = "" if directory == Path() else f"cd {directory} && "
    for name in (*STARTER, SECRET):
        typer.echo(str(directory / name))
    typer.echo(f"\nnext: {folder}python production.py &\n      {folder}blackopt check && blackopt run", err=True)
