"""`schedule`: what it prints is read by the system that it is for, or by a parser of its format."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from blackopt.cli.schedule import CRON, cron_period
from blackopt.errors import ConfigurationError

WEEK = 7 * 24 * 60
MINUTE_US = 60_000_000
FAKE = '#!/bin/sh\nprintf \'%s\\n\' "$@" >> called.txt\necho said >&2\nexit "$(cat code.txt)"\n'


def write(folder: Any, poll: str = "15m", where: str = ".", name: str = "first-campaign") -> str:
    """The starter with another poll; its file's path."""
    assert folder.call("init", where).code == 0
    file = folder.path / where / "campaign.yaml"
    kept = "window: 6s, poll: 2s, deadline: 1m, lease: 6s"
    assert kept in file.read_text()
    text = file.read_text().replace(kept, f"window: 30d, poll: {poll}, deadline: 90d, lease: 30d")
    file.write_text(text.replace("name: first-campaign", f"name: {name}"))
    return str(file)


def values(field: str, low: int, high: int) -> set[int]:
    """What a field of a crontab line matches."""
    found = re.fullmatch(r"(\*|\d+)(?:/(\d+))?", field)
    assert found, field
    if found[1] != "*":
        assert low <= int(found[1]) <= high
        return {int(found[1])}
    return set(range(low, high + 1, int(found[2] or 1)))


def fires(fields: str) -> Iterator[int]:
    """Minutes of two weeks, the first day a Sunday, at which cron calls."""
    minute, hour, day, month, weekday = fields.split()
    assert (day, month) == ("*", "*"), "months are not of one length"
    minutes, hours, days = values(minute, 0, 59), values(hour, 0, 23), values(weekday, 0, 6)
    for at in range(2 * WEEK + 1):
        if at % 60 in minutes and at // 60 % 24 in hours and at // 1440 % 7 in days:
            yield at


@pytest.mark.parametrize("period", CRON)
def test_cron_keeps_every_period_without_a_gap(period: int) -> None:
    times = list(fires(CRON[period]))
    assert {b - a for a, b in pairwise(times)} == {period // MINUTE_US}


@pytest.mark.parametrize(
    ("minutes", "kept"),
    [
        *((1, 1), (7, 6), (15, 15), (45, 30), (59, 30), (60, 60), (90, 60), (300, 240), (1439, 720)),
        *((1440, 1440), (2880, 1440), (WEEK, WEEK), (2 * WEEK, WEEK)),
    ],
)
def test_polls_are_rounded_down_to_what_cron_can_keep(minutes: int, kept: int) -> None:
    assert cron_period(minutes * MINUTE_US) == kept * MINUTE_US


def test_cron_cannot_call_within_a_minute() -> None:
    with pytest.raises(ConfigurationError, match="59s"):
        cron_period(59_000_000)


def cron_line(out: str) -> tuple[str, str]:
    """Fields and command of the only line that is no comment, as Vixie cron reads it."""
    [line] = [line for line in out.splitlines() if not line.startswith("#")]
    *fields, command = line.split(maxsplit=5)
    assert not re.search(r"(?<!\\)%", command), "cron ends a command at a bare %"
    return " ".join(fields), command.replace(r"\%", "%")


def test_crontab_calls_as_often_as_the_campaign_polls(folder: Any) -> None:
    fields, command = cron_line(folder.call("schedule", write(folder), "--for", "crontab").out)
    assert fields == "*/15 * * * *"
    assert f"cd {folder.path} && " in command


def test_crontab_says_what_it_rounded(folder: Any) -> None:
    out = folder.call("schedule", write(folder, "7m"), "--for", "crontab").out
    assert cron_line(out)[0] == "*/6 * * * *"
    assert "schedule.poll is 7m" in out
    assert "every 6m" in out


@pytest.fixture
def fake(folder: Any) -> Path:
    """A command that writes down how it was called and ends as `code.txt` says."""
    bin_ = folder.path / "a bin"
    bin_.mkdir()
    (bin_ / "blackopt").write_text(FAKE)
    (bin_ / "blackopt").chmod(0o755)
    return Path(bin_)


@pytest.mark.parametrize(
    ("code", "raised", "mailed"), [(0, 0, ""), (75, 0, ""), (3, 3, "said\n"), (1, 1, "said\n")]
)
def test_crontab_mails_what_is_not_temporary(
    code: int, raised: int, mailed: str, folder: Any, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blackopt.cli.schedule.sys.executable", str(fake / "python"))
    where = "100% of it's $HOME"
    path = write(folder, where=where)
    _, command = cron_line(folder.call("schedule", path, "--for", "crontab").out)
    (folder.path / where / "code.txt").write_text(str(code))
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, env={}, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (raised, mailed, "")
    called = (folder.path / where / "called.txt").read_text().split()
    assert called == ["run", "--once", "--quiet", "campaign.yaml"]


def test_crontab_mails_that_the_folder_is_gone(folder: Any) -> None:
    path = write(folder, where="offer")
    _, command = cron_line(folder.call("schedule", path, "--for", "crontab").out)
    shutil.rmtree(folder.path / "offer")
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode not in (0, 75)
    assert "offer" in done.stderr


def units(out: str, to: Path) -> dict[str, str]:
    """The unit files in what was printed, written to a folder."""
    _, *parts = re.split(r"^# /etc/systemd/system/(\S+)$", out, flags=re.MULTILINE)
    files = dict(zip(parts[::2], parts[1::2], strict=True))
    to.mkdir()
    for name, text in files.items():
        (to / name).write_text(text)
    return files


def test_systemd_units_are_what_systemd_accepts(folder: Any) -> None:
    path = write(folder, "90s", where="50% off")
    files = units(folder.call("schedule", path, "--for", "systemd").out, folder.path / "units")
    assert list(files) == ["blackopt-first-campaign.service", "blackopt-first-campaign.timer"]
    service, timer = files.values()
    assert re.search(r"^SuccessExitStatus=75 143$", service, re.MULTILINE)
    assert re.search(r'^ExecStart=".*/blackopt" run --once --quiet "campaign.yaml"$', service, re.MULTILINE)
    assert re.search(r"^WorkingDirectory=.*/50%% off$", service, re.MULTILINE)
    assert re.search(r"^OnUnitActiveSec=1m30s$", timer, re.MULTILINE)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("this system has no systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(folder.path / "units" / name) for name in files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "blackopt-first-campaign" in line]
    assert not complaints


def test_systemd_analyze_would_have_complained(folder: Any) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("this system has no systemd-analyze")
    out = folder.call("schedule", write(folder), "--for", "systemd").out
    wrong = out.replace("Type=oneshot", "Type=once").replace("15m\nAcc", "often\nAcc")
    files = units(wrong, folder.path / "units")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(folder.path / "units" / name) for name in files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "blackopt-first-campaign" in line]
    assert any(".service:" in line for line in complaints)
    assert any(".timer:" in line for line in complaints)


@pytest.mark.parametrize(("code", "raised"), [(0, 0), (75, 0), (3, 3), (1, 1)])
def test_a_cron_job_of_kubernetes_fails_on_what_is_not_temporary(
    code: int, raised: int, folder: Any, fake: Path
) -> None:
    path = write(folder)
    job = yaml.safe_load(folder.call("schedule", path, "--for", "kubernetes").out)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["metadata"]["name"] == "blackopt-first-campaign"
    spec = job["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("*/15 * * * *", "Forbid")
    assert spec["startingDeadlineSeconds"] == 900
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert container["volumeMounts"][0]["mountPath"] == container["workingDir"] == str(folder.path)
    (folder.path / "code.txt").write_text(str(code))
    env = {"PATH": f"{fake}:/usr/bin:/bin"}
    done = subprocess.run(container["command"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == raised
    assert done.stderr == "said\n"


@pytest.mark.parametrize("name", ["n" * 63, "n" * 40 + "---------------", "odd-"])
def test_names_are_what_kubernetes_accepts(name: str, folder: Any) -> None:
    out = folder.call("schedule", write(folder, name=name), "--for", "kubernetes").out
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", yaml.safe_load(out)["metadata"]["name"])


def test_a_dag_of_airflow_skips_what_is_temporary(folder: Any) -> None:
    out = folder.call("schedule", write(folder, "7m", where="it's"), "--for", "airflow").out
    tree = ast.parse(out)
    compile(tree, "dag.py", "exec")
    given = {
        ast.unparse(call.func): {key.arg: ast.unparse(key.value) for key in call.keywords}
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
    }
    assert given["timedelta"] == {"microseconds": str(7 * MINUTE_US)}
    assert (given["DAG"]["catchup"], given["DAG"]["max_active_runs"]) == ("False", "1")
    operator = given["BashOperator"]
    assert (operator["skip_on_exit_code"], operator["retries"]) == ("75", "0")
    assert ast.literal_eval(operator["cwd"]) == str(folder.path / "it's")
    assert ast.literal_eval(operator["bash_command"]).endswith("/blackopt run --once --quiet campaign.yaml ")


def test_paths_that_a_format_cannot_hold_are_refused(folder: Any) -> None:
    answer = folder.call("schedule", write(folder, where="{{a}}"), "--for", "airflow")
    assert (answer.code, answer.out) == (2, "")
    assert "template" in answer.err
    answer = folder.call("schedule", write(folder, where="two\nlines"), "--for", "crontab")
    assert (answer.code, answer.out) == (2, "")
    assert "line break" in answer.err


def test_polls_that_cron_cannot_express_are_refused(folder: Any) -> None:
    path = write(folder, "2s")
    for scheduler in ("crontab", "kubernetes"):
        answer = folder.call("schedule", path, "--for", scheduler)
        assert (answer.code, answer.out) == (2, "")
        assert "--for systemd" in answer.err
    assert folder.call("schedule", path, "--for", "systemd").code == 0


def test_a_campaign_without_a_schedule_has_none(evaluation: Any) -> None:
    answer = evaluation.call("schedule", "--for", "crontab")
    assert (answer.code, answer.out) == (2, "")
    assert "evaluation" in answer.err
