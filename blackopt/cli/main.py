"""The command line's grammar and its exit codes. Each verb's work is in the module of its name.

Exit codes: 0 done or nothing due · 1 failed · 2 usage or configuration · 3 a guardrail stopped it and a
person must look · 70 a bug of blackopt · 75 temporary, run again · 130 and 143 interrupted, saved. Data goes
to stdout, progress and errors to stderr. Typer answers wrong options; what a verb raises is answered here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from blackopt.cli.output import Output, complain, say
from blackopt.cli.schedulers import Scheduler
from blackopt.errors import BlackoptError, DiagnosticsError, UsageError

CAMPAIGN = typer.Argument(help="The campaign file.", show_default=True)


CampaignFile = Annotated[Path, CAMPAIGN]
OutputFormat = Annotated[Output, typer.Option("-o", "--output", help="How to print data on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress on stderr; errors still are.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Every event on stderr, also with a terminal.")
]
Once = Annotated[bool, typer.Option("--once", help="Take every step that is due, then leave: for cron.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on after a guardrail or `blackopt stop`.")]
Units = Annotated[
    float | None, typer.Option(help="Units that arrive a day in all, each counted once a window.")
]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        help="METRIC=RATE, or METRIC=MEAN:SD with the deviation of one unit, or METRIC=MEAN:SD:R with its "
        "correlation with the covariate; may be repeated."
    ),
]
Since = Annotated[str | None, typer.Option(help="Read the control's past from this day on: 2026-10-01.")]
Until = Annotated[str | None, typer.Option(help="The day after the last one that is read.")]
DEFAULT = Path("campaign.yaml")
SAFE = "  safe:  the ledger is consistent\n  next:  the same command may be run again"

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
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from blackopt import __version__

        typer.echo(__version__)
        raise typer.Exit


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated like Ctrl-C."""


def _verb(function: Callable[..., None]) -> Callable[..., None]:
    """Register a verb whose errors become exit codes."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        raise typer.Exit(_exit_code(lambda: function(*args, **kwargs)))

    return app.command()(guarded)


def _exit_code(work: Callable[[], None]) -> int:
    try:
        work()
        sys.stdout.flush()
    except DiagnosticsError as error:
        say("\n".join([*map(str, error.problems), f"error: {BlackoptError.__str__(error)}"]))
        return error.exit_code
    except BlackoptError as error:
        complain(error)
        return error.exit_code
    except UsageError as error:
        complain(error)
        return 2
    except KeyboardInterrupt as error:
        say("interrupted: everything is saved; the same command goes on")
        return 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        _abandon_stdout()  # whoever read it has seen enough
        return 0
    except OSError as error:
        _abandon_stdout()
        say(
            f"error: {error.strerror or error}\n"
            + (f"  where: {error.filename}\n" if error.filename else "")
            + SAFE
        )
        return 1
    except Exception:  # noqa: BLE001 - the last resort of the process: shown in full, with its own exit code
        import traceback

        traceback.print_exc()
        say(f"error: this is a bug of blackopt\n{SAFE}")
        return 70
    return 0


def _abandon_stdout() -> None:
    """The interpreter flushes stdout once more on its way out: let that go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@_verb
def init(
    directory: Annotated[
        Path, typer.Argument(help="Where to put it; must not hold a campaign yet.")
    ] = Path(),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the fake production listens.")] = 8801,
) -> None:
    """Write a commented campaign and a fake production to try it on."""
    from blackopt.cli import init as verb

    verb.init(directory, port)


@_verb
def check(campaign: CampaignFile = DEFAULT, output: OutputFormat = Output.TABLE) -> None:
    """Validate it, load plug-ins, test credentials; push nothing."""
    from blackopt.cli import check as verb

    verb.check(campaign, output)


@_verb
def plan(
    campaign: CampaignFile = DEFAULT,
    units: Units = None,
    baseline: Baselines = None,
    since: Since = None,
    until: Until = None,
    improve: Annotated[str | None, typer.Option(help="The relative improvement hoped for: 3%.")] = None,
    spread: Annotated[
        str | None,
        typer.Option(help="Deviation of candidates' true effects; default: from --improve and sigma."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the comparison as an HTML file too.")] = None,
    output: OutputFormat = Output.TABLE,
    force: Annotated[bool, typer.Option("--force", help="Exit 0 although it cannot learn.")] = False,
) -> None:
    """What it can find out, how well and by when.

    Reads at most the control's past.
    """
    from blackopt.cli import plan as verb
    from blackopt.cli.assumed import Said

    said = Said(baseline or [], units, since, until)
    verb.plan(campaign, said, improve=improve, spread=spread, plot=plot, output=output, force=force)


@_verb
def rehearse(
    campaign: CampaignFile = DEFAULT,
    units: Units = None,
    baseline: Baselines = None,
    since: Since = None,
    until: Until = None,
    improve: Annotated[
        str, typer.Option(help="The most that can be won, of the objective; 0 for none.")
    ] = "3%",
    drift: Annotated[
        str, typer.Option(help="Deviation of a metric between days, where its past does not say.")
    ] = "2%",
    wander: Annotated[
        str, typer.Option(help="Part of the way to another optimum that this one goes a week.")
    ] = "0%",
    faults: Annotated[str, typer.Option(help="Part of orders, polls and readings that go wrong.")] = "2%",
    weeks: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many weeks; default: when the budget is spent.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many rehearsals.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The first one's.")] = 1,
    keep: Annotated[Path | None, typer.Option(help="Keep the ledgers in this new folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture as an HTML file too.")] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Rehearse the promotion of the recommendation as well.")
    ] = False,
    output: OutputFormat = Output.TABLE,
    quiet: Quiet = False,
) -> None:
    """All of it on a simulated production, in a minute.

    Serves nobody, and reads at most the control's past.
    """
    from blackopt.cli import rehearse as verb
    from blackopt.cli.assumed import Said

    stage = verb.Stage(improve, drift, wander, faults, weeks, seeds, seed, keep, plot, promote)
    verb.rehearse(campaign, Said(baseline or [], units, since, until), stage, output, quiet=quiet)


@_verb
def run(
    campaign: CampaignFile = DEFAULT,
    once: Once = False,
    resume: Resume = False,
    output: OutputFormat = Output.TABLE,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Start the campaign, or go on with it."""
    from blackopt.cli import run as verb

    verb.run(campaign, once=once, resume=resume, output=output, quiet=quiet, verbose=verbose)


@_verb
def promote(
    campaign: CampaignFile = DEFAULT,
    once: Once = False,
    resume: Resume = False,
    output: OutputFormat = Output.TABLE,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Test the recommendation; if proven, make it the incumbent.

    On fresh units, step by step, with a holdback; killed anywhere, it goes on.
    """
    from blackopt.cli import promote as verb

    verb.promote(campaign, once=once, resume=resume, output=output, quiet=quiet, verbose=verbose)


@_verb
def rollback(campaign: CampaignFile = DEFAULT, output: OutputFormat = Output.TABLE) -> None:
    """Take the promotion back: production serves the former incumbent."""
    from blackopt.cli import promote as verb

    verb.rollback(campaign, output)


@_verb
def schedule(
    scheduler: Annotated[Scheduler, typer.Option("--for", help="Who is to call.")],
    campaign: CampaignFile = DEFAULT,
) -> None:
    """Print what makes cron or another system call `run --once`."""
    from blackopt.cli import schedule as verb

    verb.schedule(campaign, scheduler)


@_verb
def status(campaign: CampaignFile = DEFAULT, output: OutputFormat = Output.TABLE) -> None:
    """Where the campaign stands, and who drives it."""
    from blackopt.cli import status as verb

    verb.status(campaign, output)


@_verb
def trials(
    campaign: CampaignFile = DEFAULT,
    output: OutputFormat = Output.TABLE,
    last: Annotated[int, typer.Option("-n", "--last", min=1, help="Only the last so many.")] = 1_000_000_000,
) -> None:
    """Every trial: parameters, value, and why it ended as it did."""
    from blackopt.cli import trials as verb

    verb.trials(campaign, output, last)


@_verb
def best(
    campaign: CampaignFile = DEFAULT,
    output: OutputFormat = Output.TABLE,
    out: Annotated[
        Path | None, typer.Option(help="Write its artifact, as production runs it, to this new file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
) -> None:
    """The recommendation, its worth, and how well that is known."""
    from blackopt.cli import best as verb

    verb.best(campaign, output, out, force=force)


@_verb
def report(
    campaign: CampaignFile = DEFAULT,
    to: Annotated[
        Path | None, typer.Option("--to", help="The HTML file; default: beside the ledger.")
    ] = None,
) -> None:
    """Write the whole campaign as one HTML file; print its path."""
    from blackopt.cli import report as verb

    verb.report(campaign, to)


@_verb
def ask(
    campaign: CampaignFile = DEFAULT,
    n: Annotated[int, typer.Option("-n", min=1, help="How many candidates.")] = 1,
    output: OutputFormat = Output.TABLE,
) -> None:
    """Draw candidates to be tried by hand."""
    from blackopt.cli import manual as verb

    verb.ask(campaign, n, output)


@_verb
def tell(
    trial: Annotated[int, typer.Argument(help="Number of the trial, as `ask` printed it.")],
    campaign: CampaignFile = DEFAULT,
    value: Annotated[
        float | None, typer.Option(help="What was measured, in the objective's own direction.")
    ] = None,
    se: Annotated[float | None, typer.Option(help="Its standard error.")] = None,
    failed: Annotated[str, typer.Option(help="Why there is no value.")] = "",
) -> None:
    """Report one candidate of `ask`; twice the same is harmless."""
    from blackopt.cli import manual as verb

    verb.tell(campaign, trial, value, se, failed)


@_verb
def stop(campaign: CampaignFile = DEFAULT) -> None:
    """Withdraw what is live; production serves the incumbent.

    `blackopt run --resume` goes on.
    """
    from blackopt.cli import stop as verb

    verb.stop(campaign)


@_verb
def plugins(output: OutputFormat = Output.TABLE) -> None:
    """Optimizers, policies, connectors and clocks installed here."""
    from blackopt.cli import plugins as verb

    verb.plugins(output)


@_verb
def schema() -> None:
    """Print the JSON Schema of campaign.yaml, for editors."""
    from blackopt.cli import schema as verb

    verb.schema()


@_verb
def backup(
    to: Annotated[Path, typer.Argument(help="The copy; must not exist.")],
    campaign: CampaignFile = DEFAULT,
) -> None:
    """Copy the ledger safely, also while the campaign runs."""
    from blackopt.cli import backup as verb

    verb.backup(campaign, to)


def main() -> NoReturn:
    """Entry point of the ``blackopt`` command."""
    signal.signal(signal.SIGTERM, _terminate)
    app()
    sys.exit(0)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise Terminated
