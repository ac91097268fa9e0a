"""Cross-validates linear rankers tuned by NDCG itself beside ridge regression and LightGBM's lambdarank.

python compare.py --data PATH

All 251 queries are in the test part once (`--repeats` times with other folds). What a ranker leaves open (a
penalty, a number of trees or trials) is chosen by a cross-validation inside each training part. An SE is that
of a mean over queries; the one in brackets comes from the means of the folds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ranking_app import data
from ranking_app.data import Floats, Ints, Queries
from ranking_app.metric import Ndcg
from ranking_app.rankers import TRIALS, Fitter, K, Score, Tuned, chance, chosen, folds, lambdarank, ridge

PLACES = (1, 3, 5, 10)
RIDGE, LAMBDARANK = "ridge regression", "lambdarank (trees)"


@dataclass(slots=True)
class Row:
    """What a ranker reached on queries that it was not fitted to.

    Attributes:
        ndcg: by place, (repeats, queries).
        folds: for each repeat, the queries of each fold.
        train: NDCG@5 on its own training queries, in each fold.
        settings: what inner validation chose in each fold.
    """

    ndcg: dict[int, Floats]
    folds: list[list[Ints]]
    train: list[float] = field(default_factory=list)
    settings: list[float] = field(default_factory=list)

    def mean(self, place: int) -> float:
        """Over queries and repeats."""
        return float(self.ndcg[place].mean())

    def error(self, minus: Row | None = None) -> tuple[float, float, float]:
        """NDCG@5, or its difference to another ranker's: mean, SE over queries, and SE over folds."""
        value = self.ndcg[K] if minus is None else self.ndcg[K] - minus.ndcg[K]
        # A query's repeats are not independent of one another: they are averaged first.
        per_query = value.mean(axis=0)
        over_queries = float(per_query.std(ddof=1)) / len(per_query) ** 0.5
        variances = []
        for repeat, parts in zip(value, self.folds, strict=True):
            means = np.array([repeat[part].mean() for part in parts])
            variances.append(means.var(ddof=1) / len(means))
        return float(value.mean()), over_queries, float(np.mean(variances)) ** 0.5


def compare(
    queries: Queries, *, repeats: int, outer: int, inner: int, trials: tuple[int, ...]
) -> dict[str, Row]:
    """Fit and test every ranker, fold by fold."""
    rows: dict[str, Row] = {}
    parts = [[left_out for _, left_out in folds(len(queries), outer, seed)] for seed in range(repeats)]

    def note(name: str, repeat: int, test: Ints, train: Queries, score: Score, setting: float) -> None:
        if name not in rows:
            rows[name] = Row({k: np.zeros((repeats, len(queries))) for k in PLACES}, parts)
        left_out = queries.part(test)
        for k, ndcg in rows[name].ndcg.items():
            ndcg[repeat, test] = Ndcg(left_out, k).per_query(score(left_out.features))[0]
        rows[name].train.append(float(Ndcg(train, K)(score(train.features))[0]))
        rows[name].settings.append(setting)

    for repeat in range(repeats):
        for number, (rest, test) in enumerate(folds(len(queries), outer, repeat)):
            train, seed = queries.part(rest), 1000 * repeat + number
            penalty = chosen(ridge, train, inner=inner, seed=seed)
            for name, fit in rankers(seed, trials, penalty):
                # The same inner folds for everybody.
                setting = penalty if name == RIDGE else chosen(fit, train, inner=inner, seed=seed)
                scores = fit(train)
                note(name, repeat, test, train, scores[setting], setting)
                if isinstance(fit, Tuned):
                    last = trials[-1]
                    note(f"{name}, all {last:,}", repeat, test, train, scores[last], last)
    return rows


def rankers(seed: int, trials: tuple[int, ...], penalty: float) -> Iterator[tuple[str, Fitter]]:
    """Every ranker with its name."""
    yield "random order", chance
    yield RIDGE, ridge
    yield LAMBDARANK, lambdarank
    for use in ("openai-es", "auto"):
        yield f"{use} from zero", Tuned(use, seed, trials)
        yield f"{use} from ridge", Tuned(use, seed, trials, penalty)


def lines(rows: dict[str, Row]) -> Iterator[str]:
    """The table."""
    head = "".join(f"{f'@{k}':>7}" for k in PLACES)
    columns = f"{'SE @5':>8}{'@5 - ridge':>26}{'@5 - lambdarank':>26}{'train @5':>10}"
    yield f"{'NDCG on queries left out':<32}{head}{columns}"
    for name, row in rows.items():
        cells = "".join(f"{row.mean(k):7.3f}" for k in PLACES)
        _, over_queries, _ = row.error()
        differences = "".join(
            f"{'':>26}" if row is other else f"{m:+10.3f} ± {q:.3f} ({f:.3f})"
            for other in (rows[RIDGE], rows[LAMBDARANK])
            for m, q, f in [row.error(other)]
        )
        yield f"{name:<32}{cells}{over_queries:8.3f}{differences}{np.mean(row.train):10.3f}"
    yield ""
    for name, row in rows.items():
        if len(set(row.settings)) > 1 or name in (RIDGE, LAMBDARANK):
            yield f"chosen for {name}: {', '.join(f'{setting:g}' for setting in row.settings)}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with rank.train and so on, or .xz")
    parser.add_argument("--repeats", type=int, default=1, help="cross-validations, each with other folds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="3 folds, 2 inner ones, up to 500 trials")
    arguments = parser.parse_args()
    try:
        queries = data.load(arguments.data)
    except data.DataError as error:
        raise SystemExit(str(error)) from error
    outer, inner, trials = (3, 2, TRIALS[:3]) if arguments.quick else (5, 3, TRIALS)
    rows = compare(queries, repeats=arguments.repeats, outer=outer, inner=inner, trials=trials)
    for line in lines(rows):
        print(line)
    if arguments.json:
        found = {
            name.strip(): {
                "ndcg": {k: row.mean(k) for k in PLACES},
                "at_5": row.error(),
                "minus_ridge": row.error(rows[RIDGE]),
                "minus_lambdarank": row.error(rows[LAMBDARANK]),
                "train": row.train,
                "settings": row.settings,
            }
            for name, row in rows.items()
        }
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
