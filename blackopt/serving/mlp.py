"""Runs what the policy ``mlp`` renders, with numpy alone: a module loads it per order and acts per request.

from blackopt.serving import Arms
from blackopt.serving.mlp import Mlp

arms = Arms(load=Mlp.load, accept=Mlp.load, incumbent=artifact, secrets=[secret])
scores = arms.assign("feed", user).value.act(features)
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blackopt.errors import UsageError
from blackopt.serving.answers import Refused
from blackopt.types import Artifact

Floats = NDArray[np.float64]

_ACTIVATIONS = ("tanh", "relu")


class Mlp:
    """A multi-layer perceptron: h = f(W h + b) for each hidden layer, y = W h + b for the last.

    Args:
        weights: of each layer, (outputs, inputs).
        biases: of each layer, (outputs,).
        activation: f of the hidden layers, ``tanh`` or ``relu``.
        inputs: names of the features in order, if they have names.
        normalizer: ``(mean, deviation)`` of the features, each (inputs,); None feeds them as they are.

    Raises:
        UsageError: layers that do not fit together, numbers that are not finite, an unknown activation.
    """

    def __init__(
        self,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike],
        *,
        activation: str = "tanh",
        inputs: Sequence[str] | None = None,
        normalizer: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> None:
        self._weights = [np.asarray(array, dtype=np.float64) for array in weights]
        self._biases = [np.asarray(array, dtype=np.float64) for array in biases]
        if activation not in _ACTIVATIONS:
            raise UsageError(f"activation: expected one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        _check_layers(self._weights, self._biases)
        self.activation = activation
        self.width = self._weights[0].shape[1]
        self.inputs = None if inputs is None else list(inputs)
        if self.inputs is not None and len(self.inputs) != self.width:
            raise UsageError(f"inputs: expected {self.width} names, got {len(self.inputs)}")
        self._normalizer: tuple[Floats, Floats] | None = None
        if normalizer is not None:
            mean, deviation = (np.asarray(array, dtype=np.float64) for array in normalizer)
            if not (
                mean.shape == deviation.shape == (self.width,)
                and np.isfinite([mean, deviation]).all()
                and (deviation > 0.0).all()
            ):
                raise UsageError(f"normalizer: expected {self.width} finite means and deviations above 0")
            self._normalizer = (mean, deviation)

    @classmethod
    def load(cls, artifact: Artifact) -> Self:
        """The network of an artifact.

        Raises:
            Refused: not an artifact of the policy ``mlp``.
        """
        try:
            document = json.loads(artifact.body)
            layers, normalizer = document["layers"], document["normalizer"]
            return cls(
                [layer["weights"] for layer in layers],
                [layer["bias"] for layer in layers],
                activation=document["activation"],
                inputs=document["inputs"] if isinstance(document["inputs"], list) else None,
                normalizer=normalizer and (normalizer["mean"], normalizer["deviation"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # UsageError is a ValueError
            raise Refused(f"not a network of the policy mlp: {error}") from error

    def artifact(self) -> Artifact:
        """What the policy ``mlp`` takes as its ``start``: a network that was trained elsewhere, as JSON."""
        normalizer: dict[str, Any] | None = None
        if self._normalizer is not None:
            mean, deviation = self._normalizer
            normalizer = {"mean": mean.tolist(), "deviation": deviation.tolist()}
        body = {
            "inputs": self.width if self.inputs is None else self.inputs,
            "activation": self.activation,
            "normalizer": normalizer,
            "layers": [
                {"weights": weights.tolist(), "bias": bias.tolist()}
                for weights, bias in zip(self._weights, self._biases, strict=True)
            ],
        }
        return Artifact(json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())

    def act(self, features: ArrayLike) -> Floats:
        """The outputs for the features of one case or of many.

        Args:
            features: (inputs,) or (cases, inputs).

        Returns:
            (outputs,) or (cases, outputs).

        Raises:
            UsageError: features of another width.
        """
        h: Floats = np.asarray(features, dtype=np.float64)
        if h.ndim not in (1, 2) or h.shape[-1] != self.width:
            raise UsageError(
                f"features: expected shape ({self.width},) or (cases, {self.width}), got shape {h.shape}"
            )
        if self._normalizer is not None:
            h = (h - self._normalizer[0]) / self._normalizer[1]
        *hidden, (last, offset) = zip(self._weights, self._biases, strict=True)
        for weights, bias in hidden:
            z = h @ weights.T + bias
            h = np.tanh(z) if self.activation == "tanh" else np.maximum(z, 0.0)
        return h @ last.T + offset


class RunningNorm:
    """Means and deviations of features as they pass by, for the ``normalizer`` of a network.

    Two sets of cases are joined by their counts, means and sums of squares alone, so each process may gather
    its own: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979), equations 2.1.

    Args:
        width: how many features.

    Attributes:
        count: cases seen.
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise UsageError(f"width: expected at least one feature, got {width!r}")
        self.count = 0
        self._mean = np.zeros(width)
        self._squares = np.zeros(width)

    def update(self, features: ArrayLike) -> None:
        """Take in (inputs,) or (cases, inputs) features.

        Raises:
            UsageError: features of another width, or not finite.
        """
        batch = np.atleast_2d(np.asarray(features, dtype=np.float64))
        if batch.ndim != 2 or batch.shape[1] != self._mean.size or not np.isfinite(batch).all():
            raise UsageError(
                f"features: expected finite numbers of width {self._mean.size}, got {batch.shape}"
            )
        if len(batch):
            mean = batch.mean(axis=0)
            self._join(len(batch), mean, ((batch - mean) ** 2).sum(axis=0))

    def merge(self, other: RunningNorm) -> None:
        """Take in what another has seen; neither needs the cases again.

        Raises:
            UsageError: it has seen features of another width.
        """
        if other._mean.size != self._mean.size:
            raise UsageError(f"other: expected features of width {self._mean.size}, got {other._mean.size}")
        if other.count:
            self._join(other.count, other._mean, other._squares)

    def _join(self, count: int, mean: Floats, squares: Floats) -> None:
        delta, total = mean - self._mean, self.count + count
        self._squares += squares + delta**2 * self.count * count / total
        self._mean += delta * count / total
        self.count = total

    def dump(self) -> dict[str, Any]:
        """Everything, as JSON takes it; it reads back exactly."""
        return {"count": self.count, "mean": self._mean.tolist(), "squares": self._squares.tolist()}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Self:
        """What :meth:`dump` gave, also after a way through JSON.

        Raises:
            UsageError: something else.
        """
        try:
            self = cls(len(state["mean"]))
            self.count = operator.index(state["count"])
            self._mean, self._squares = (
                np.array(state[key], dtype=np.float64) for key in ("mean", "squares")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"state: expected count, mean and squares, got {state!r}") from error
        arrays = self._mean, self._squares
        if not (
            self.count >= 0
            and self._mean.shape == self._squares.shape == (self._mean.size,)
            and np.isfinite(arrays).all()
            and (self._squares >= 0.0).all()
        ):
            raise UsageError(f"state: expected finite numbers of one width, none negative, got {state!r}")
        return self

    def normalizer(self) -> tuple[Floats, Floats]:
        """Mean and deviation, (inputs,) each; the deviation is 1 where a feature has none.

        Raises:
            UsageError: fewer than two cases were seen.
        """
        if self.count < 2:
            raise UsageError(f"a deviation needs at least two cases, got {self.count}")
        deviation = np.sqrt(self._squares / (self.count - 1))
        return self._mean.copy(), np.where(deviation > 0.0, deviation, 1.0)


def _check_layers(weights: Sequence[Floats], biases: Sequence[Floats]) -> None:
    if not weights or len(weights) != len(biases):
        raise UsageError(
            f"expected a bias for each layer, got {len(weights)} weights and {len(biases)} biases"
        )
    width: float = math.nan
    for i, (matrix, bias) in enumerate(zip(weights, biases, strict=True)):
        if matrix.ndim != 2 or 0 in matrix.shape or bias.shape != matrix.shape[:1]:
            raise UsageError(
                f"layer {i}: expected weights (outputs, inputs) and bias (outputs,), "
                f"got {matrix.shape} and {bias.shape}"
            )
        if i and matrix.shape[1] != width:
            raise UsageError(f"layer {i}: expected {width} inputs, got {matrix.shape[1]}")
        if not (np.isfinite(matrix).all() and np.isfinite(bias).all()):
            raise UsageError(f"layer {i}: expected finite numbers only")
        width = matrix.shape[0]
