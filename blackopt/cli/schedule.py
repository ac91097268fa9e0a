"""``blackopt schedule``: what makes another system call ``blackopt run --once`` at every poll."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer
import yaml

from blackopt.campaign.units import UNITS_US, format_duration
from blackopt.cli.schedulers import Scheduler
from blackopt.errors import ConfigurationError
from blackopt.sdk import Campaign

MINUTE, HOUR, DAY, WEEK = (UNITS_US[unit] for unit in ("m", "h", "d", "w"))

CRON: dict[int, str] = {
    **{n * MINUTE: f"*/{n} * * * *" if n > 1 else "* * * * *" for n in range(1, 60) if 60 % n == 0},
    **{n * HOUR: f"0 */{n} * * *" if n > 1 else "0 * * * *" for n in range(1, 24) if 24 % n == 0},
    DAY: "0 0 * * *",
    WEEK: "0 0 * * 0",
}
"""Periods in microseconds that cron keeps without a gap of another length, and their five fields."""

TEMPORARY = 75
"""The exit code of what is over by the next turn, so that nobody need be woken."""

LONGEST_NAME = 52
"""Kubernetes appends eleven characters to a CronJob's name, and a job's has 63."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be called.

    Attributes:
        campaign: its name.
        folder: absolute path of the campaign's directory.
        file: name of the campaign file in it.
        program: absolute path of the ``blackopt`` command.
        owner: whom the file belongs to, a name or a number.
        poll: ``schedule.poll`` in microseconds.
    """

    campaign: str
    folder: str
    file: str
    program: str
    owner: str
    poll: int

    @property
    def unit(self) -> str:
        """A name for units, jobs and DAGs."""
        return f"blackopt-{self.campaign}"

    def command(self, program: str) -> str:
        """One turn, as a POSIX shell writes it."""
        return shlex.join([program, "run", "--once", "--quiet", self.file])


def schedule(path: Path, scheduler: Scheduler) -> None:
    """Print it; nothing is installed.

    Raises:
        ConfigurationError: the campaign has nothing to poll, or the scheduler cannot express it.
    """
    typer.echo(RENDER[scheduler](_job(path)))


def cron_period(poll: int) -> int:
    """The longest period of :data:`CRON` that is no longer than ``poll``; both in microseconds.

    Raises:
        ConfigurationError: shorter than a minute.
    """
    periods = [period for period in CRON if period <= poll]
    if not periods:
        raise ConfigurationError(
            f"cron cannot call every {format_duration(poll)}",
            where="schedule.poll",
            why="its shortest period is a minute",
            safe="nothing was written",
            next_step="`blackopt schedule --for systemd`, or leave `blackopt run` running",
        )
    return max(periods)


def crontab(job: Job) -> str:
    """Comments and one line for ``crontab -e``.

    cron sends a mail when a job prints: a temporary failure prints nothing, all others what blackopt said.
    """
    command = (
        f"cd {shlex.quote(job.folder)} && said=$({job.command(job.program)} 2>&1) || "
        f'{{ code=$?; [ "$code" -eq {TEMPORARY} ] || {{ printf \'%s\\n\' "$said"; exit "$code"; }}; }}'
    )
    period = cron_period(job.poll)
    return "\n".join(
        [
            f"# blackopt: the campaign {job.campaign}, one turn at a time. Add it with: crontab -e",
            *_rounded(job.poll, period),
            f"# Exit code {TEMPORARY} is temporary: silent, the next turn tries again. Others are mailed;",
            "# 3 says that a guardrail stopped the campaign: look at it, then `blackopt run --resume`.",
            "# cron starts with an empty environment: above this line, set what is read from ${...}.",
            f"{CRON[period]}  " + command.replace("%", r"\%"),  # a bare % would end the command
        ]
    )


def systemd(job: Job) -> str:
    """A service and a timer, each under the path of its file."""
    program, file = (_systemd_word(word) for word in (job.program, job.file))
    return f"""\
# /etc/systemd/system/{job.unit}.service
[Unit]
Description=blackopt campaign {job.campaign}, one turn
Wants=network-online.target
After=network-online.target
# Exit codes 3 (a guardrail stopped it: a person must look), 1, 2 and 70 fail the unit; what tells you:
# OnFailure=

[Service]
Type=oneshot
User={job.owner}
WorkingDirectory={job.folder.replace("%", "%%")}
# What the campaign reads from ${{...}}, one NAME=value a line.
# EnvironmentFile=
ExecStart={program} run --once --quiet {file}
# {TEMPORARY}: temporary, the next turn tries again. 143: stopped by systemd, everything is saved.
SuccessExitStatus={TEMPORARY} 143

# /etc/systemd/system/{job.unit}.timer
# systemctl daemon-reload && systemctl enable --now {job.unit}.timer
[Unit]
Description=blackopt campaign {job.campaign}, every {format_duration(job.poll)}

[Timer]
OnBootSec=1min
OnUnitActiveSec={format_duration(job.poll)}
AccuracySec=1s

[Install]
WantedBy=timers.target"""


def kubernetes(job: Job) -> str:
    """A CronJob."""
    name, period = _kubernetes_name(job.unit), cron_period(job.poll)
    turn = f'{job.command("blackopt")} || {{ code=$?; [ "$code" -eq {TEMPORARY} ] || exit "$code"; }}'
    container = {
        "name": "turn",
        "image": f"{name}:latest",
        "workingDir": job.folder,
        "command": ["sh", "-c", turn],
        "envFrom": [{"secretRef": {"name": name, "optional": True}}],
        "volumeMounts": [{"name": "campaign", "mountPath": job.folder}],
    }
    pod = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "campaign", "persistentVolumeClaim": {"claimName": name}}],
    }
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {
            "schedule": CRON[period],
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": period // UNITS_US["s"],
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": pod}}},
        },
    }
    return "\n".join(
        [
            f"# blackopt: the campaign {job.campaign}, one turn at a time. For: kubectl apply -f FILE",
            *_rounded(job.poll, period),
            "# Yours to provide, by the names below: an image with blackopt; a claim with the folder of the",
            "# campaign and its ledger (block storage, ReadWriteOnce); a secret with what ${...} names.",
            f"# Exit code {TEMPORARY} is temporary: the job succeeds, the next tries again. Others fail it;",
            "# 3 says that a guardrail stopped the campaign: look at it, then `blackopt run --resume`.",
            yaml.safe_dump(manifest, sort_keys=False, width=1000, allow_unicode=True).rstrip("\n"),
        ]
    )


def airflow(job: Job) -> str:
    """A Python file for Airflow's folder of DAGs."""
    command = job.command(job.program)
    if marks := [mark for mark in ("{{", "{%", "{#") if mark in command + job.folder]:
        raise ConfigurationError(
            f"Airflow would take {marks[0]} in a path for a template",
            where=job.folder,
            safe="nothing was written",
            next_step="move the campaign to another folder",
        )
    return f"""\
# blackopt: the campaign {job.campaign}, one turn at a time. Put it into the folder of DAGs.
from datetime import datetime, timedelta, timezone

from airflow import DAG
from airflow.providers.standard.operators.bash import BashOperator  # apache-airflow-providers-standard

with DAG(
    dag_id={job.unit!r},
    schedule=timedelta(microseconds={job.poll}),  # {format_duration(job.poll)}, the campaign's schedule.poll
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
):
    # Exit code {TEMPORARY} is temporary: the task is skipped, the next run tries again. Others fail the task;
    # 3 says that a guardrail stopped the campaign: look at it, then `blackopt run --resume`.
    BashOperator(
        task_id="turn",
        bash_command={command + " "!r},  # the space: a command that ends in .sh would be read as a file
        cwd={job.folder!r},
        append_env=True,
        skip_on_exit_code={TEMPORARY},
        retries=0,
    )"""


RENDER: dict[Scheduler, Callable[[Job], str]] = {
    Scheduler.CRONTAB: crontab,
    Scheduler.SYSTEMD: systemd,
    Scheduler.KUBERNETES: kubernetes,
    Scheduler.AIRFLOW: airflow,
}


def _job(path: Path) -> Job:
    spec = Campaign.load(path).spec
    if spec.schedule is None:
        raise ConfigurationError(
            "there is nothing to poll",
            where=str(path),
            why=f"it is a {spec.mode} campaign, without a schedule",
            safe="nothing was written",
            next_step="`blackopt run`" if spec.evaluate is not None else "`blackopt ask` and `blackopt tell`",
        )
    file = path.resolve()
    found = Path(sys.executable).with_name("blackopt")
    program = str(found) if found.is_file() else shutil.which("blackopt") or "blackopt"
    if any(not character.isprintable() for character in f"{file}{program}"):
        raise ConfigurationError(
            "a path holds a line break or another control character",
            where=repr(str(file)),
            safe="nothing was written",
            next_step="move the campaign to another folder",
        )
    # A dash in front would be taken for an option.
    name = f"./{file.name}" if file.name.startswith("-") else file.name
    return Job(spec.name, str(file.parent), name, program, _owner(file), spec.schedule.poll)


def _owner(file: Path) -> str:
    try:
        return file.owner()
    except KeyError:  # a user that this machine has no name for
        return str(file.stat().st_uid)


def _rounded(poll: int, period: int) -> list[str]:
    if period == poll:
        return []
    asked, kept = format_duration(poll), format_duration(period)
    return [
        f"# schedule.poll is {asked}, which cron cannot keep: this calls every {kept}, which does no harm."
    ]


def _systemd_word(word: str) -> str:
    """One word of ExecStart: in quotes, with what systemd would expand doubled."""
    for raw, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(raw, escaped)
    return f'"{word}"'


def _kubernetes_name(unit: str) -> str:
    """A CronJob's name: what is too long, or ends in a dash, keeps its start and gets a digest."""
    if len(unit) <= LONGEST_NAME and not unit.endswith("-"):
        return unit
    digest = hashlib.sha256(unit.encode()).hexdigest()[:8]
    return f"{unit[: LONGEST_NAME - 9].rstrip('-')}-{digest}"
