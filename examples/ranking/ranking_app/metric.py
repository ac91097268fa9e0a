"""NDCG, the metric of a ranking: a step function of the scores, flat almost everywhere.

    DCG@k = sum over the places i = 1..k of (2^grade - 1) / log2(i + 1),    NDCG@k = DCG@k / best DCG@k

Jaervelin and Kekaelaeinen, "Cumulated gain-based evaluation of IR techniques" (ACM TOIS 20, 2002), with the
exponential gain of Burges et al. (ICML 2005), as in LightGBM.

Two conventions matter. Documents with *equal scores* could stand in any order: each counts with the mean gain
of its group, which is the expectation over all orders (McSherry and Najork, ECIR 2008); so a ranker of zeros
has the value of chance, and no order of the file helps anybody. A query *without a useful document* counts as
1, whatever the order, as in LightGBM; so does one whose documents all have the same grade, by the formula.
"""

from __future__ import annotations

import numpy as np

from ranking_app.data import Floats, Queries


class Ndcg:
    """NDCG of many rankings of the same queries at once.

    Args:
        queries: whose documents are ranked.
        k: places that count.
    """

    def __init__(self, queries: Queries, k: int) -> None:
        widest = int(queries.sizes.max())
        self._filled = np.arange(widest) < queries.sizes[:, None]
        self._gains = np.zeros(self._filled.shape)
        self._gains[self._filled] = 2.0**queries.grades - 1.0
        self._discounts = np.where(np.arange(widest) < k, 1.0 / np.log2(np.arange(widest) + 2.0), 0.0)
        self._best = -np.sort(-self._gains, axis=1) @ self._discounts

    def per_query(self, scores: Floats) -> Floats:
        """(rankings, queries) NDCG.

        Args:
            scores: (documents, rankings) or (documents,), finite; the highest comes first.
        """
        columns = scores.reshape(len(scores), -1)
        places = np.full((columns.shape[1], *self._filled.shape), -np.inf)  # what is not there comes last
        places[:, self._filled] = columns.T
        order = np.argsort(-places, axis=2)
        ranked = np.take_along_axis(places, order, axis=2)
        gains = np.take_along_axis(np.broadcast_to(self._gains, places.shape), order, axis=2)
        # Groups of equal scores are numbered through; a query begins a new one.
        begins = np.ones(places.shape, dtype=np.bool_)
        begins[:, :, 1:] = ranked[:, :, 1:] != ranked[:, :, :-1]
        group = np.cumsum(begins.ravel()) - 1
        mean = np.bincount(group, weights=gains.ravel()) / np.bincount(group)
        reached = mean[group].reshape(places.shape) @ self._discounts
        return np.where(self._best > 0.0, reached / np.where(self._best > 0.0, self._best, 1.0), 1.0)

    def __call__(self, scores: Floats) -> Floats:
        """(rankings,) the mean over queries."""
        mean: Floats = self.per_query(scores).mean(axis=1)
        return mean
