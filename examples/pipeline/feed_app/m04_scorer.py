"""Module 4, the scorer: an ONNX model of how probable a click is. The one module that blackopt tunes.

Everything that the campaign and this module know of one another is the ONNX file in an order.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from blackopt.serving import Refused
from blackopt.types import Artifact
from feed_app.feed import Feed
from feed_app.world import CATALOGUE, Ints, People

FEATURES = ("affinity", "quality", "freshness", "popularity", "loudness", "adult")
LARGEST_BYTES = 1_000_000


class Scorer:
    """A model that onnxruntime runs: ``x`` (rows, 6) float32 to ``logit`` (rows, 1) float32.

    Raises:
        Refused: onnxruntime cannot run it, or it does not have that input and output, or its scores are not
            finite. What a module refuses is never served.
    """

    def __init__(self, artifact: Artifact) -> None:
        if len(artifact.body) > LARGEST_BYTES:
            raise Refused(f"a model of {len(artifact.body)} bytes; this module takes {LARGEST_BYTES}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                artifact.body, options, providers=["CPUExecutionProvider"]
            )
            tried = self.logits(np.random.default_rng(0).normal(size=(64, len(FEATURES))).astype(np.float32))
        except Exception as error:  # onnxruntime's errors have no common base but this one
            raise Refused(f"onnxruntime cannot run this model: {error}") from error
        if tried.shape != (64, 1) or not np.isfinite(tried).all():
            raise Refused(f"expected 64 finite logits for 64 rows, got {tried.shape}")

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, 1) of features (rows, 6)."""
        (found,) = self._session.run(["logit"], {"x": x})
        return np.asarray(found, dtype=np.float32)


def features(people: People, articles: Ints) -> NDArray[np.float32]:
    """(n, m, 6) what the model sees of m articles for each of n people."""
    affinity = np.take_along_axis(people.stated @ CATALOGUE.topics.T, articles, axis=1)
    columns = [affinity, *(getattr(CATALOGUE, name)[articles].astype(np.float64) for name in FEATURES[1:])]
    return np.stack(columns, axis=2).astype(np.float32)


def run(feed: Feed, scorer: Scorer) -> Feed:
    """Score every candidate."""
    x = features(feed.people, feed.articles)
    logits = scorer.logits(x.reshape(-1, len(FEATURES))).reshape(feed.articles.shape)
    return replace(feed, score=logits.astype(np.float64))
