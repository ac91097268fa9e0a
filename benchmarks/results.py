"""What a benchmark found: the JSON that ``--json`` writes, and that documents are written from.

A benchmark calls :func:`write`. What it wrote is kept as ``docs/results/NAME.json`` and shown on
``docs/optimizers.md`` between the lines ``<!-- results: NAME -->`` and ``<!-- end of NAME -->``:
``docs/generate.py`` puts the tables there, and ``docs/generate.py --check`` fails where page and numbers
differ. The page may name results that are not there yet; nothing is shown for them.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Cell = str | float | None

LIBRARIES = ("blackopt", "numpy", "cma", "cmaes", "nevergrad", "optuna", "scipy")


class Table(BaseModel):
    """One table of a page.

    Attributes:
        title: what it shows.
        columns: their headings.
        rows: a cell for each column: a text as it is to be shown; a number, shown with three digits; or null.
        note: what one must know to read it; Markdown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    columns: list[str] = Field(min_length=1)
    rows: list[list[Cell]]
    note: str = ""

    @model_validator(mode="after")
    def _rectangular(self) -> Table:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}: row {number} has {len(row)} cells, and there are "
                    f"{len(self.columns)} columns"
                )
        return self


class Results(BaseModel):
    """One run of a benchmark.

    Attributes:
        title: of the section that shows them.
        command: what prints these numbers, from the root of the repository.
        date: when it ran, YYYY-MM-DD.
        machine: its class: cores, architecture, operating system, Python.
        versions: of the libraries that took part.
        seeds: which, in words.
        tables: in the order in which they are shown.
        lost: what did not go well, a sentence each; Markdown. It is shown, too.
        data: anything else that the tables were made from; it is not shown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    command: str
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    machine: str
    versions: dict[str, str]
    seeds: str
    tables: list[Table]
    lost: list[str] = []
    data: Any = None


def write(
    path: Path,
    title: str,
    tables: Sequence[Table],
    *,
    seeds: str,
    lost: Sequence[str] = (),
    data: Any = None,
    libraries: Sequence[str] = LIBRARIES,
) -> None:
    """Write the results of this process, with the command, the date, the machine and the versions.

    Args:
        path: a JSON file, overwritten.
        title: of the section that shows them.
        tables: see :class:`Table`.
        seeds: which ran, in words.
        lost: what did not go well, a sentence each.
        data: more, as JSON values.
        libraries: distributions whose versions matter; those that are not installed are left out.
    """
    results = Results(
        title=title,
        command=command(sys.argv),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}",
        versions=_versions(libraries),
        seeds=seeds,
        tables=list(tables),
        lost=list(lost),
        data=data,
    )
    path.write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")


def command(arguments: Sequence[str]) -> str:
    """The command line again, without ``--json FILE``, which changes no number."""
    script, *given = arguments
    kept, skip = [], False
    for argument in given:
        if skip or argument.startswith("--json="):
            skip = False
        elif argument == "--json":
            skip = True
        else:
            kept.append(argument)
    return shlex.join(["python", f"benchmarks/{Path(script).name}", *kept])


def _versions(libraries: Sequence[str]) -> Mapping[str, str]:
    found = {}
    for library in libraries:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def read(path: Path) -> Results:
    """What :func:`write` wrote.

    Raises:
        pydantic.ValidationError: the file is something else.
    """
    return Results.model_validate_json(path.read_text(encoding="utf-8"))
