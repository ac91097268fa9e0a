"""Verbs, options, help: what a stranger types first, right and wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from blackopt.cli.main import app

ROOT = Path(__file__).parents[2]
VERBS = sorted(command.callback.__name__ for command in app.registered_commands if command.callback)


def test_there_are_verbs() -> None:
    assert len(VERBS) >= 13


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_fits_its_line(verb: str, folder: Any) -> None:
    answer = folder.call(verb, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: blackopt {verb} ") or "Usage:" in answer.out
    listed = folder.call("--help").out
    [line] = [line for line in listed.splitlines() if line.strip().startswith(f"{verb} ")]
    assert not line.endswith("..."), "the first sentence of its docstring is too long"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_readme(verb: str) -> None:
    readme = (ROOT / "README.md").read_text()
    table = [line for line in readme.splitlines() if line.startswith("| `")]
    assert any(f"`{verb}`" in line.split("|")[1] for line in table), (
        f"README's table of commands lacks {verb}"
    )


def test_the_readme_names_no_verb_that_does_not_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    named = {
        word
        for line in readme.splitlines()
        if line.startswith("| `")
        for word in re.findall(r"`([a-z]+)`", line.split("|")[1])
    }
    assert named <= set(VERBS)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from blackopt.cli.main import main\n"
        "sys.argv = ['blackopt', '--help']\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'numpy', 'pydantic', 'sqlite3', 'sqlite_utils', 'yaml', 'requests'}\n"
        "    print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "heavy: []"


def test_the_version_is_the_packages(folder: Any) -> None:
    from blackopt import __version__

    assert folder.call("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["trials", "-n", "0"], "-n"),
        (["trials", "-n", "many"], "integer"),
        (["trails"], "trials"),
        (["frobnicate"], "frobnicate"),
        (["tell"], "trial"),
        (["tell", "first", "--value", "3"], "trial"),
        (["tell", "0", "--value", "good"], "--value"),
        (["run", "--output", "xml"], "table"),
        (["status", "--json"], "--json"),
        (["ask", "-n", "-1"], "-n"),
        (["backup"], "to"),
    ],
)
def test_wrong_options_are_usage_errors(args: list[str], says: str, folder: Any) -> None:
    answer = folder.call(*args)
    assert answer.code == 2
    assert answer.out == ""
    assert says in answer.err
    assert "Traceback" not in answer.err
    assert list(folder.path.iterdir()) == []


def test_without_a_verb_there_is_help_and_an_error(folder: Any) -> None:
    answer = folder.run()
    assert answer.code == 2
    assert "Commands:" in answer.out + answer.err


def test_a_fault_of_ours_has_its_own_exit_code(folder: Any) -> None:
    from blackopt.cli.main import _exit_code

    def broken() -> None:
        raise ZeroDivisionError("oh")

    assert _exit_code(broken) == 70
    said = folder.capture.readouterr().err
    assert "ZeroDivisionError: oh" in said
    assert "bug of blackopt" in said
    assert "the ledger is consistent" in said


def test_a_reader_that_leaves_early_is_no_error(folder: Any) -> None:
    process = folder.start("schema")
    process.stdout.close()
    process.wait(timeout=60)
    assert process.returncode == 0
    assert process.stderr.read() == ""


def test_data_that_cannot_be_written_is_an_error(folder: Any) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with full.open("w") as out:
        result = subprocess.run(
            [sys.executable, "-c", "from blackopt.cli.main import main; main()", "schema"],
            stdout=out, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith("error: No space left on device")
    assert "Traceback" not in result.stderr


def test_control_characters_of_others_do_not_reach_the_terminal(folder: Any) -> None:
    from blackopt.cli.main import _exit_code
    from blackopt.errors import FatalError

    def refused() -> None:
        raise FatalError("the module said no", why="\x1b]0;owned\x07 \x1b[2J")

    assert _exit_code(refused) == 1
    assert "\x1b" not in folder.capture.readouterr().err


def test_typer_exits_pass_through() -> None:
    assert issubclass(typer.Exit, RuntimeError), "a verb must not raise it: it would count as a bug"
