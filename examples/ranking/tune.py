"""The same search as a campaign: with a ledger, in worker processes, to be killed and gone on with.

    python tune.py --data PATH [--directory runs/ranking]

writes what the campaign needs, runs `blackopt run campaign.yaml`, and tests what it recommends on
`rank.test`. Run again on the same directory, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from blackopt import Campaign
from ranking_app import data
from ranking_app.data import Floats, Queries
from ranking_app.metric import Ndcg
from ranking_app.objective import TRAINING
from ranking_app.rankers import K, Linear, chosen, ridge

HERE = Path(__file__).resolve().parent
BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]
PENALTY_FOLDS = 5


def prepare(train: Queries, directory: Path, trials: int | None) -> Linear:
    """Write the campaign, its start and its training queries; return the start."""
    penalty = chosen(ridge, train, inner=PENALTY_FOLDS, seed=0)
    start = ridge(train, (penalty,))[penalty]
    directory.mkdir(parents=True, exist_ok=True)
    document = yaml.safe_load((HERE / "campaign.yaml").read_text())
    document["budget"]["trials"] = trials or document["budget"]["trials"]
    (directory / "campaign.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    artifact = {"weights": [start.weights.tolist()], "bias": [0.0], "parameters": {}}
    (directory / "start.json").write_text(json.dumps(artifact))
    np.savez(
        directory / TRAINING,
        features=(train.features - start.mean) / start.deviation,
        grades=train.grades,
        sizes=train.sizes,
    )
    return start


def compared(start: Linear, weights: Floats, train: Queries, test: Queries) -> list[str]:
    """NDCG@5 before and after, on both sets of queries."""
    tuned = Linear(weights, start.mean, start.deviation)
    lines = []
    for name, queries in ((f"{len(train)} training queries", train), (f"{len(test)} test queries", test)):
        metric = Ndcg(queries, K)
        before, after = (metric.per_query(ranker(queries.features))[0] for ranker in (start, tuned))
        gain = after - before
        error = gain.std(ddof=1) / len(gain) ** 0.5
        lines.append(
            f"{name:<22}{before.mean():8.3f} -> {after.mean():.3f}{gain.mean():+10.3f} ± {error:.3f}"
        )
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with rank.train and so on, or .xz")
    parser.add_argument("--directory", type=Path, default=Path("runs") / "ranking", help="of the run")
    parser.add_argument("--trials", type=int, help="in place of those of campaign.yaml")
    arguments = parser.parse_args()
    try:
        train, test = data.load(arguments.data, "rank.train"), data.load(arguments.data, "rank.test")
    except data.DataError as error:
        raise SystemExit(str(error)) from error
    start = prepare(train, arguments.directory, arguments.trials)
    path = arguments.directory / "campaign.yaml"
    # The evaluator's workers import ranking_app from here.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *_python_path()])}
    quiet = () if sys.stderr.isatty() else ("--quiet",)
    subprocess.run(
        [*BLACKOPT, "run", *quiet, str(path)], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    campaign = Campaign.load(path)
    results = campaign.results()
    print(f"NDCG@{K} after {campaign.spec.budget.trials:,} trials, from ridge regression")
    for line in compared(start, np.array(results.recommendation), train, test):
        print(line)


def _python_path() -> list[str]:
    return [path for path in (os.environ.get("PYTHONPATH"),) if path]


if __name__ == "__main__":
    main()
