"""The rankers that are compared.

Each is fitted to queries in several *settings* at once: penalties, numbers of trees, numbers of trials. Which
setting counts is for inner validation to say, see :func:`chosen`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from blackopt import Optimizer
from ranking_app.data import COLUMNS, Floats, Ints, Queries
from ranking_app.metric import Ndcg

K = 5
"""NDCG@5 is what is maximised and validated; the other places are only reported."""

PENALTIES = (1e1, 1e2, 1e3, 1e4)
TREES = (10, 25, 50, 100, 200)
TRIALS = (0, 250, 500, 1000, 2000, 4000)

Score = Callable[[Floats], Floats]
"""From features (documents, 301) to scores (documents,)."""

Fitter = Callable[[Queries], Mapping[float, Score]]
"""Fits a ranker to queries: a score for each setting."""


def chance(_: Queries) -> dict[float, Score]:
    """No ranker at all: every document has the same score."""
    return {0: lambda features: np.zeros(len(features))}


def moments(features: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column; 1 where a column is constant."""
    deviation = features.std(axis=0)
    return features.mean(axis=0), np.where(deviation > 0.0, deviation, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """Scores (x - mean) / deviation @ weights.

    Attributes:
        weights: (301,); a bias would change no order, and nor would a factor.
        mean, deviation: (301,) of the documents that it was fitted to.
    """

    weights: Floats
    mean: Floats
    deviation: Floats

    def __call__(self, features: Floats) -> Floats:
        """(documents,) scores."""
        scores: Floats = (features - self.mean) / self.deviation @ self.weights
        return scores


def ridge(train: Queries, penalties: tuple[float, ...] = PENALTIES) -> dict[float, Linear]:
    """Least squares on the grades with penalty * ||w||^2, weights scaled to a root mean square of 1.

    The scale changes no order; it gives the optimizers' default steps something to be relative to.
    """
    mean, deviation = moments(train.features)
    x = (train.features - mean) / deviation
    y = train.grades - train.grades.mean()
    fitted = {}
    for penalty in penalties:
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(COLUMNS), x.T @ y)
        fitted[penalty] = Linear(weights / np.sqrt((weights**2).mean()), mean, deviation)
    return fitted


def lambdarank(train: Queries) -> dict[float, Score]:
    """LightGBM with the settings of its own example for these data, cut off at several numbers of trees."""
    import lightgbm

    settings = {
        "objective": "lambdarank",
        "learning_rate": 0.1,
        "num_leaves": 31,
        "bagging_freq": 1,
        "bagging_fraction": 0.9,
        "min_data_in_leaf": 50,
        "min_sum_hessian_in_leaf": 5.0,
        "num_threads": 1,
        "deterministic": True,
        "seed": 1,
        "verbose": -1,
    }
    data = lightgbm.Dataset(train.features, train.grades, group=train.sizes)
    booster = lightgbm.train(settings, data, num_boost_round=max(TREES))

    def cut(trees: int) -> Score:
        return lambda features: np.asarray(booster.predict(features, num_iteration=trees), dtype=np.float64)

    return {trees: cut(trees) for trees in TREES}


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """A linear ranker whose NDCG@5 on the training queries an optimizer of blackopt maximises.

    Attributes:
        use: the optimizer, at its defaults.
        seed: of the optimizer.
        trials: numbers of trials, ascending, after each of which the recommendation is kept.
        penalty: of the ridge regression that the search starts from; None starts from zeros.
    """

    use: str
    seed: int
    trials: tuple[int, ...] = TRIALS
    penalty: float | None = None

    def __call__(self, train: Queries) -> dict[float, Score]:
        """Search, and keep what is recommended on the way."""
        if self.penalty is None:
            start = Linear(np.zeros(COLUMNS), *moments(train.features))
        else:
            start = ridge(train, (self.penalty,))[self.penalty]
        x, metric = (train.features - start.mean) / start.deviation, Ndcg(train, K)
        # Whether a column is used at all is not the optimizer's to know: all 301 are weights of the space.
        options: dict[str, object] = {"seed": self.seed}
        if self.use == "auto":
            options |= {"trials": self.trials[-1], "parallel": BATCH, "noise": "none"}
        optimizer = Optimizer(
            {"weights": {"weights": COLUMNS, "start": start.weights.tolist()}}, self.use, **options
        )
        kept: dict[float, Score] = {}
        told = 0
        for trials in self.trials:
            while told < trials:
                proposals = optimizer.ask(min(BATCH, trials - told))
                values = metric(x @ np.stack([proposal.vector for proposal in proposals], axis=1))
                for proposal, value in zip(proposals, values, strict=True):
                    optimizer.tell(proposal.number, loss=-float(value))
                told += len(proposals)
            recommended = np.array(optimizer.recommend()["weights"], dtype=np.float64)
            kept[trials] = Linear(recommended, start.mean, start.deviation)
        return kept


BATCH = 16
"""Candidates that are evaluated at once."""


def folds(queries: int, count: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """Numbers of the queries to fit to and of those left out, ``count`` times."""
    shuffled = np.random.default_rng(seed).permutation(queries)
    for left_out in np.array_split(shuffled, count):
        yield np.setdiff1d(shuffled, left_out), np.sort(left_out)


def chosen(fit: Fitter, train: Queries, *, inner: int, seed: int) -> float:
    """The setting with the best NDCG@5 in a cross-validation of the training queries alone; of equals the
    smallest."""
    total: dict[float, float] = {}
    for rest, left_out in folds(len(train), inner, seed):
        validation = train.part(left_out)
        metric = Ndcg(validation, K)
        for setting, score in fit(train.part(rest)).items():
            value = float(metric.per_query(score(validation.features)).sum())
            total[setting] = total.get(setting, 0.0) + value
    return max(sorted(total), key=total.__getitem__)
