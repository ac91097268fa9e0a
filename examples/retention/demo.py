"""The whole loop on one machine: a simulated app in its own process, a campaign over it, and what came out.

    python examples/retention/demo.py [--directory runs/retention-7] [--seed 7] [--fresh]

Run again on the same directory, it goes on where it stopped, however it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from blackopt.runner.assembly import open_ledger
from blackopt.runner.results import Evidence, Results
from blackopt.sdk import Campaign
from blackopt.types import Role
from retention_app import truth
from retention_app.cohort import DAY_US
from retention_app.pipeline import FEATURES, INCUMBENT, Configuration

HERE = Path(__file__).resolve().parent
BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]


def prepare(directory: Path, *, fresh: bool) -> Path:
    """Put the campaign and its queries into the run's directory, and return the campaign's path."""
    if fresh and directory.exists():
        if not (directory / "campaign.yaml").exists():
            raise SystemExit(f"{directory} does not look like a run of this demo: not deleted")
        shutil.rmtree(directory)
    (directory / "queries").mkdir(parents=True, exist_ok=True)
    for name in ("campaign.yaml", *(f"queries/{query.name}" for query in HERE.glob("queries/*.sql"))):
        shutil.copyfile(HERE / name, directory / name)
    return directory / "campaign.yaml"


@contextmanager
def running_app(directory: Path, seed: int, secret: str) -> Iterator[Mapping[str, str]]:
    """The app in a process of its own; yields the environment that the campaign's references need."""
    command = [sys.executable, str(HERE / "app.py"), "--directory", str(directory), "--seed", str(seed)]
    environment = {**os.environ, "APP_SECRET": secret}
    app = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        line = app.stdout.readline() if app.stdout else ""
        if not line:
            raise SystemExit(f"the app did not start (exit code {app.wait()})")
        port = urlsplit(json.loads(line)["address"]).port
        yield {**environment, "APP_PORT": str(port)}
    finally:
        app.terminate()
        app.wait(timeout=30)
        if app.stdout:
            app.stdout.close()


def run_campaign(campaign: Path, environment: Mapping[str, str]) -> None:
    """``blackopt run`` and ``blackopt report``, as a user would type them."""
    for verb in ("run", "report"):
        done = subprocess.run([*BLACKOPT, verb, str(campaign)], env=environment, check=False)
        if done.returncode != 0:
            raise SystemExit(done.returncode)


def summary(campaign: Path, environment: Mapping[str, str]) -> str:
    """What came out, beside what only a simulation can know."""
    loaded = Campaign.load(campaign, env=environment)
    found = loaded.results()
    with open_ledger(loaded.spec, read_only=True) as ledger:
        starts = [window.start_us for window in ledger.windows() if window.role is Role.CONFIRM]
    days = [start_us // DAY_US for start_us in starts] or list(truth.REFERENCE_DAYS)
    recommended = _configuration(found.parameters)
    true = {
        name: truth.expected(configuration, first_days=days)
        for name, configuration in (
            ("production today", INCUMBENT),
            ("recommendation", recommended),
            ("best possible", truth.optimum()),
        )
    }
    low, now, best = (true[n].retention_d7 for n in ("production today", "recommendation", "best possible"))
    lines = [
        "",
        _measured(found),
        "",
        "What only a simulation knows, the true values (on the days of the confirmation):",
        "",
        f"  {'':<18}{'day 1':>10}{'day 7':>10}{'unsubscribed':>15}",
    ]
    for name, value in true.items():
        shares = (value.retention_d1, value.retention_d7, value.unsubscribe_7d)
        day1, day7, left = (f"{100 * share:.2f} %" for share in shares)
        lines.append(f"  {name:<18}{day1:>10}{day7:>10}{left:>15}")
    closed = (now - low) / (best - low)
    lines += [
        "",
        f"The recommendation closes {closed:.0%} of the gap to the best possible day-7 retention.",
        "",
        f"  campaign   {campaign}",
        f"  ledger     {loaded.ledger}",
        f"  report     {loaded.ledger.with_suffix('.html')}",
        f"  event log  {campaign.with_name('app.db')}",
    ]
    return "\n".join(lines)


def _measured(found: Results) -> str:
    """What a business would be told; only fresh evidence counts."""
    if found.evidence is not Evidence.FRESH or found.treatment is None or found.control is None:
        return "The recommendation has not been confirmed on fresh users: no claim is made."
    levels = f"{100 * found.treatment.value:.1f} % against {100 * found.control.value:.1f} % under control"
    interval = ""
    if found.interval is not None and found.estimate is not None:
        low, high = (100 * bound for bound in found.interval)
        interval = (
            f": {100 * found.estimate.value:+.1f} %, 95 % confidence interval {low:+.1f} % to {high:+.1f} %"
        )
    return f"Day-7 retention on fresh users: {levels}{interval}."


def _configuration(parameters: Mapping[str, object]) -> Configuration:
    weights, diversity, throttle = (parameters[name] for name in ("weights", "diversity", "throttle"))
    if not isinstance(weights, list) or len(weights) != len(FEATURES):
        raise ValueError(f"expected {len(FEATURES)} weights, got {weights!r}")
    return Configuration(tuple(float(w) for w in weights), float(str(diversity)), float(str(throttle)))


def main() -> int:
    """Run the demo and print its summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=7, help="of the simulated users, not of the optimizer")
    parser.add_argument("--directory", type=Path, help="of the run; default: runs/retention-SEED")
    parser.add_argument("--fresh", action="store_true", help="delete what an earlier run left there")
    arguments = parser.parse_args()
    directory = arguments.directory or Path("runs") / f"retention-{arguments.seed}"
    campaign = prepare(directory, fresh=arguments.fresh)
    with running_app(directory, arguments.seed, secrets.token_hex(16)) as environment:
        run_campaign(campaign, environment)
        print(summary(campaign, environment))
    return 0


if __name__ == "__main__":
    sys.exit(main())
