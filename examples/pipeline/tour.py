"""A model is trained on clicks, served in a pipeline of ten modules, and tuned by who comes back tomorrow.

    python tour.py [--directory runs/pipeline-7] [--seed 7] [--quick]

The commands as one would type them, and then what only a simulation can add.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from blackopt.types import Artifact
from feed_app import truth
from feed_app.m04_scorer import Scorer

HERE = Path(__file__).resolve().parent
BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]
PEOPLE, QUICK_PEOPLE = 10_000, 3_000
QUICK_BUDGET = {"trials": 96, "confirm": 1}


def train(directory: Path) -> Path:
    """The model as it was trained and exported, in the run's directory."""
    out = directory / "scorer.onnx"
    print(f"$ python train.py --out {out}", flush=True)
    subprocess.run([sys.executable, str(HERE / "train.py"), "--out", str(out)], check=True)
    return out


@contextmanager
def production(directory: Path, scorer: Path, *, seed: int, people: int) -> Iterator[Mapping[str, str]]:
    """Production in a process of its own; yields the environment that the campaign's references need."""
    settings = {"--directory": directory, "--scorer": scorer, "--seed": seed, "--people": people}
    command = [sys.executable, str(HERE / "production.py")]
    command += [str(part) for option in settings.items() for part in option]
    environment = {**os.environ, "FEED_SECRET": secrets.token_hex(16)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not (address := process.stdout.readline().strip()):
                raise SystemExit("production did not start; its message is above")
            yield {**environment, "FEED_PORT": str(urlsplit(address).port)}
        finally:
            process.terminate()


def blackopt(verb: str, campaign: Path, environment: Mapping[str, str], *options: str) -> None:
    """A command as a user would type it."""
    print(f"\n$ blackopt {' '.join((verb, *options, str(campaign)))}", flush=True)
    # Nothing of the pipeline can be imported there: the campaign's folder has no Python in it.
    subprocess.run(
        [*BLACKOPT, verb, *options, campaign.name], env=environment, cwd=campaign.parent, check=True
    )


def told(trained: Path, tuned: Path) -> Iterator[str]:
    """What only a simulation knows: both models shown to everybody."""
    files = {"trained on clicks": trained, "tuned": tuned}
    rows = {name: truth.expected(Scorer(Artifact(file.read_bytes()))) for name, file in files.items()}
    yield f"{'TRUE VALUES':<20}{'back tomorrow':>15}{'mutes':>10}"
    for name, (back, mute) in rows.items():
        yield f"{name:<20}{back:>13.2%}{mute:>12.2%}"
    (before, _), (after, _) = rows.values()
    yield f"true effect: {after / before - 1.0:+.1%}"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=7, help="of the simulated people, not of the optimizer")
    parser.add_argument("--directory", type=Path, help="of the run; default: runs/pipeline-SEED; made anew")
    parser.add_argument("--quick", action="store_true", help="a smaller town and a shorter campaign")
    arguments = parser.parse_args()
    directory: Path = arguments.directory or Path("runs") / f"pipeline-{arguments.seed}"
    if directory.exists():
        if not (directory / "campaign.yaml").exists():
            raise SystemExit(f"{directory} does not look like a run of this example: not deleted")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    trained, campaign = train(directory), directory / "campaign.yaml"
    document = yaml.safe_load((HERE / "campaign.yaml").read_text())
    if arguments.quick:
        document["budget"] |= QUICK_BUDGET
    campaign.write_text(yaml.safe_dump(document, sort_keys=False))
    people = QUICK_PEOPLE if arguments.quick else PEOPLE
    with production(directory, trained, seed=arguments.seed, people=people) as environment:
        blackopt("check", campaign, environment)
        blackopt("run", campaign, environment, *(() if sys.stderr.isatty() else ("--quiet",)))
        blackopt("best", campaign, environment, "--out", "tuned.onnx")
    print()
    for line in told(trained, directory / "tuned.onnx"):
        print(line)
    print(f"\ncampaign, ledger, event log, both models: {directory}")


if __name__ == "__main__":
    main()
