"""The command line's grammar and its exit codes. Each verb's work is in the module of its name, imported lazily.

Exit codes: 0 done or nothing due · 1 failed · 2 usage or configuration · 3 a guardrail stopped it · 70 a bug of blackopt ·
75 temporary, run again · 130 and 143 interrupted, saved. Data goes to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import click
import typer

from blackopt.errors import BlackoptError, UsageError

CAMPAIGN = typer.Argument(help="The campaign file.", show_default=True)


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


CampaignFile = Annotated[Path, CAMPAIGN]
OutputFormat = Annotated[Output, typer.Option("-o", "--output", help="How to print data on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress on stderr; errors still are.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Every event on stderr, also with a terminal.")]
DEFAULT = Path("campaign.yaml")

app = typer.Typer(
    name="blackopt",
    help="Moves a business metric that nobody can differentiate.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from blackopt import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def init(directory: Annotated[Path, typer.Argument(help="Where to put it; must not hold a campaign yet.")] = Path()) -> None:
    """Write a commented campaign, its queries, and a fake production to try it on."""
    from blackopt.cli import init as verb

    verb.init(directory)


@app.command()
def check(campaign: CampaignFile = DEFAULT, output: OutputFormat = Output.TABLE) -> None:
    """Validate the campaign, load its plug-ins, test its credentials; push nothing."""
    from blackopt.cli import check as verb

    verb.check(campaign, output)


@app.command()
def run(
    campaign: CampaignFile = DEFAULT,
    once: Annotated[bool, typer.Option("--once", help="Take every step that is due, then leave: for cron.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a guardrail or `blackopt stop`.")] = False,
    output: OutputFormat = Output.TABLE,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Start the campaign, or go on with it."""
    from blackopt.cli import run as verb

    verb.run(campaign, once=once, resume=resume, output=output, quiet=quiet, verbose=verbose)


@app.command()
def status(campaign: CampaignFile = DEFAULT, output: OutputFormat = Output.TABLE) -> None:
    """Where the campaign stands: trials by state, who drives it, what is due next."""
    from blackopt.cli import status as verb

    verb.status(campaign, output)


@app.command()
def trials(
    campaign: CampaignFile = DEFAULT,
    output: OutputFormat = Output.TABLE,
    last: Annotated[int, typer.Option("-n", "--last", min=1, help="Only the last so many.")] = 1_000_000_000,
) -> None:
    """Every trial: its window, state, value, and why it ended as it did."""
    from blackopt.cli import trials as verb

    verb.trials(campaign, output, last)


@app.command()
def best(campaign: CampaignFile = DEFAULT, output: OutputFormat = Output.TABLE) -> None:
    """The recommendation, what it is worth, and how well that is known."""
    from blackopt.cli import best as verb

    verb.best(campaign, output)


@app.command()
def report(
    campaign: CampaignFile = DEFAULT,
    to: Annotated[Path | None, typer.Option("--to", help="The HTML file; default: beside the ledger.")] = None,
) -> None:
    """Write one HTML file that shows the whole campaign, and print its path."""
    from blackopt.cli import report as verb

    verb.report(campaign, to)


@app.command()
def ask(
    campaign: CampaignFile = DEFAULT,
    n: Annotated[int, typer.Option("-n", min=1, help="How many candidates.")] = 1,
    output: OutputFormat = Output.TABLE,
) -> None:
    """Draw candidates to be tried by hand."""
    from blackopt.cli import manual as verb

    verb.ask(campaign, n, output)


@app.command()
def tell(
    trial: Annotated[int, typer.Argument(help="Number of the trial, as `ask` printed it.")],
    campaign: CampaignFile = DEFAULT,
    value: Annotated[float | None, typer.Option(help="What was measured, in the objective's own direction.")] = None,
    se: Annotated[float | None, typer.Option(help="Its standard error.")] = None,
    failed: Annotated[str, typer.Option(help="Why there is no value.")] = "",
) -> None:
    """Report one candidate of `ask`; the same report twice is harmless."""
    from blackopt.cli import manual as verb

    verb.tell(campaign, trial, value, se, failed)


@app.command()
def stop(campaign: CampaignFile = DEFAULT) -> None:
    """Withdraw everything that is live, so that production serves the incumbent; `run --resume` goes on."""
    from blackopt.cli import stop as verb

    verb.stop(campaign)


@app.command()
def plugins(output: OutputFormat = Output.TABLE) -> None:
    """The optimizers, policies, connectors and clocks that are installed."""
    from blackopt.cli import plugins as verb

    verb.plugins(output)


@app.command()
def schema() -> None:
    """Print the JSON Schema of campaign.yaml, for editors."""
    from blackopt.cli import schema as verb

    verb.schema()


@app.command()
def backup(
    to: Annotated[Path, typer.Argument(help="The copy; must not exist.")],
    campaign: CampaignFile = DEFAULT,
) -> None:
    """Copy the ledger safely, also while the campaign runs."""
    from blackopt.cli import backup as verb

    verb.backup(campaign, to)


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated like Ctrl-C."""


def main() -> NoReturn:
    """Entry point of the ``blackopt`` command."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_main())


def _main() -> int:
    try:
        code = app(standalone_mode=False)
    except BlackoptError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    except UsageError as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt) as error:
        typer.echo("interrupted: everything is saved; the same command goes on", err=True)
        return 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        return 0
    except Exception:  # noqa: BLE001 - the last resort of the process: shown in full, with its own exit code
        import traceback

        traceback.print_exc()
        typer.echo("this is a bug of blackopt: the ledger is consistent, and the same command may be run again", err=True)
        return 70
    return code if isinstance(code, int) else 0


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise Terminated
