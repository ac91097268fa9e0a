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

from blackopt.sdk import Campaign
from story import told

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


def blackopt(verb: str, campaign: Path, environment: Mapping[str, str], *options: str) -> int:
    """A command as a user would type it; its exit code."""
    command = [*BLACKOPT, verb, *options, str(campaign)]
    print(f"\n$ blackopt {verb} {campaign}", flush=True)
    return subprocess.run(command, env=environment, check=False).returncode


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
    quiet = () if sys.stderr.isatty() else ("--quiet",)  # in a file, the progress would be 2,000 lines
    campaign = prepare(directory, fresh=arguments.fresh)
    with running_app(directory, arguments.seed, secrets.token_hex(16)) as environment:
        print("A simulated app with 20,000 new users a day, and a campaign on it. It takes about a minute.")
        if code := blackopt("run", campaign, environment, *quiet):
            return code
        # 1 or 3: the recommendation was not proved, or a guardrail stopped it. That is a result too.
        if (code := blackopt("promote", campaign, environment, *quiet)) not in (0, 1, 3):
            return code
        if code := blackopt("report", campaign, environment):
            return code
        loaded = Campaign.load(campaign, env=environment)
        for line in told(loaded, f"http://127.0.0.1:{environment['APP_PORT']}"):
            print(line)
        print()
        for name, path in (
            ("campaign", campaign),
            ("ledger", loaded.ledger),
            ("report", loaded.ledger.with_suffix(".html")),
            ("event log", campaign.with_name("app.db")),
        ):
            print(f"  {name:<10} {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
