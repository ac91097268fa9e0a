"""What `campaign.yaml` evaluates: NDCG@5 of a linear ranker on the training queries.

`tune.py` puts ``training.npz`` beside the campaign; the evaluator's processes work in that folder.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ranking_app.data import Floats, Queries
from ranking_app.metric import Ndcg
from ranking_app.rankers import K

TRAINING = "training.npz"


def ndcg(params: Mapping[str, Any]) -> float:
    """The value of one candidate: an artifact of the linear policy."""
    features, metric = _training()
    (weights,) = params["weights"]
    return float(metric(features @ np.array(weights, dtype=np.float64))[0])


@functools.cache
def _training() -> tuple[Floats, Ndcg]:
    with np.load(Path(TRAINING)) as stored:
        queries = Queries(stored["features"], stored["grades"], stored["sizes"])
    return queries.features, Ndcg(queries, K)
