"""Trains the scorer as one does: a small neural network learns clicks from a log, and is exported to ONNX.

    python train.py --out scorer.onnx

The log is last month's: random articles that people looked at, and whether they clicked. Nothing here knows
of the metric that the campaign is about. What the export has to give is names for the initializers: the
campaign's `tune` goes by them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.neural_network import MLPClassifier

from feed_app.m04_scorer import FEATURES, features
from feed_app.reactions import click_probability
from feed_app.world import ARTICLES, draw_people

HIDDEN = 6
PEOPLE, ARTICLES_EACH = 2_000, 10


def click_log(seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Features (rows, 6) and clicks (rows,) of 20,000 articles that were looked at."""
    draw = np.random.default_rng(seed)
    people = draw_people(draw, PEOPLE)
    articles = draw.integers(ARTICLES, size=(PEOPLE, ARTICLES_EACH))
    clicked = draw.random(articles.shape) < click_probability(people, articles)
    return features(people, articles).reshape(-1, len(FEATURES)), clicked.ravel()


def train(x: np.ndarray, clicked: np.ndarray) -> MLPClassifier:
    """A network with one hidden layer, fitted to clicks."""
    return MLPClassifier(
        hidden_layer_sizes=(HIDDEN,),
        activation="tanh",
        solver="lbfgs",
        alpha=1.0,
        max_iter=2_000,
        random_state=0,
    ).fit(x, clicked)


def export(model: MLPClassifier) -> bytes:
    """The network as an ONNX model: logit = tanh(x body.weight + body.bias) head.weight + head.bias."""
    numbers = {
        "body.weight": model.coefs_[0],
        "body.bias": model.intercepts_[0],
        "head.weight": model.coefs_[1],
        "head.bias": model.intercepts_[1],
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "body.weight", "body.bias"], ["hidden"]),
            helper.make_node("Tanh", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "head.weight", "head.bias"], ["logit"]),
        ],
        "scorer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(FEATURES)])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in numbers.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    body: bytes = made.SerializeToString()
    return body


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("scorer.onnx"), help="where to write the model")
    arguments = parser.parse_args()
    x, clicked = click_log()
    model = train(x[:15_000], clicked[:15_000])
    accuracy = model.score(x[15_000:], clicked[15_000:])
    base = max(clicked.mean(), 1 - clicked.mean())
    arguments.out.write_bytes(export(model))
    print(
        f"{arguments.out}: right about {accuracy:.1%} of clicks it has not seen; always saying no: {base:.1%}"
    )


if __name__ == "__main__":
    main()
