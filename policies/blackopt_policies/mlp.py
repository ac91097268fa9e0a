"""A multi-layer perceptron as JSON that any language can run; ``blackopt.serving.mlp`` runs it in Python.

The features may be normalised by means and deviations that travel in the artifact. They are the campaign's:
were they to move while it searches, the weights that it has judged would mean something else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from blackopt import noise
from blackopt.errors import UsageError
from blackopt.protocols import PluginOptions
from blackopt.space import Space
from blackopt.types import Artifact, Vector
from blackopt_policies._floats import rounded, shortest
from blackopt_policies._tensors import ChosenOptions, Tensor, Tuned, configuring, read_file

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
_DTYPE = "float32"
_KEYS = {"inputs", "activation", "normalizer", "layers"}


class Normalizer(PluginOptions):
    """Features are fed as ``(x - mean) / deviation``."""

    mean: Annotated[list[_Finite], Field(min_length=1)] = Field(description="One number a feature.")
    deviation: Annotated[list[_Positive], Field(min_length=1)] = Field(description="One number a feature.")


class MlpOptions(ChosenOptions):
    """``policy: {use: mlp, inputs: 18, hidden: [32, 32], outputs: 3}``."""

    inputs: Annotated[int, Field(ge=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        description="Number of features, or their names in order; names are written into the artifact."
    )
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list, description="Width of each hidden layer, from the features on."
    )
    outputs: int = Field(1, ge=1, description="Number of outputs.")
    activation: Literal["tanh", "relu"] = Field("tanh", description="Of the hidden layers.")
    start: str | None = Field(
        None, description="Path of an artifact of this policy; weights drawn from `seed` without."
    )
    seed: int = Field(0, description="Of the weights to start from where there is no `start`.")
    normalizer: Normalizer | None = Field(
        None, description="Means and deviations of the features; those of `start` without."
    )

    @property
    def sizes(self) -> list[int]:
        """Width of each layer, features first, outputs last."""
        width = self.inputs if isinstance(self.inputs, int) else len(self.inputs)
        return [width, *self.hidden, self.outputs]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if isinstance(self.inputs, list) and len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs: the features must have different names, got {self.inputs!r}")
        for key, values in self.normalizer or ():
            if len(values) != self.sizes[0]:
                raise ValueError(f"normalizer.{key}: expected {self.sizes[0]} numbers, got {len(values)}")
        return self


class Mlp:
    """Renders ``{"inputs":…,"activation":"tanh","normalizer":{…},"layers":[{"weights":[[…]],"bias":[…]}]}``.

    Weights have one row an output of their layer. Numbers are float32, with as few digits as mean the same
    float32; the normalizer's are float64.

    Args:
        options: layers, start, and what of it moves.
        base: folder of the campaign, which a path under ``start`` is relative to.

    Attributes:
        space: blocks ``layer1.weights``, ``layer1.bias``, ``layer2.weights`` and so on; the last layer's are
            called ``output.weights`` and ``output.bias``.
        shapes: of the tensors by these names.

    Raises:
        ConfigurationError: the artifact under ``start`` cannot be read or does not fit, or a pattern fits no
            block.
    """

    Options: ClassVar[type[PluginOptions]] = MlpOptions

    def __init__(self, options: MlpOptions, *, base: Path) -> None:
        self._inputs, self._activation = options.inputs, options.activation
        self._normalizer = None if options.normalizer is None else options.normalizer.model_dump()
        self.shapes = _shapes(options.sizes)
        path = base / (options.start or "campaign.yaml")
        with configuring(path):
            if options.start is None:
                self._values = _drawn(self.shapes, options.seed)
            else:
                document = _json(read_file(path))
                self._values = self._weights(document)
                if self._normalizer is None:
                    self._normalizer = _normalizer(document, options.sizes[0])
            tensors = [Tensor(name, values, _DTYPE) for name, values in self._values.items()]
            self.tuned = Tuned(tensors, options)
        self.space: Space = self.tuned.space

    def start(self) -> Vector:
        """(n,) the weights under ``start``, or those drawn from ``seed``."""
        return self.space.start()

    def render(self, vector: Vector) -> Artifact:
        """The network of (n,) coordinates.

        Raises:
            UsageError: another shape, or a coordinate outside the bounds.
        """
        values = self._values | self.tuned.values(vector)
        listed: dict[str, Any] = {}
        for name, shape in self.shapes.items():
            flat, step = shortest(values[name], _DTYPE), shape[-1]
            rows = [flat[at : at + step] for at in range(0, len(flat), step)]
            listed[name] = rows if len(shape) > 1 else flat
        names = list(listed)
        body = {
            "inputs": self._inputs,
            "activation": self._activation,
            "normalizer": self._normalizer,
            "layers": [
                {"weights": listed[weights], "bias": listed[bias]}
                for weights, bias in zip(names[0::2], names[1::2], strict=True)
            ],
        }
        return Artifact(json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())

    def parse(self, artifact: Artifact) -> Vector:
        """(n,) the coordinates of an artifact; ``render`` gives the same bytes for them.

        Raises:
            UsageError: not an artifact of this policy: other layers, features, activation or normalizer, or
                another number in what is frozen.
        """
        document = _json(artifact.body)
        values = self._weights(document)
        if _normalizer(document, self._width) != self._normalizer:
            raise UsageError("artifact: its normalizer is not the one of this campaign")
        for name, frozen in self._values.items():
            if name not in self.tuned.tensors and not np.array_equal(values[name], frozen):
                raise UsageError(f"artifact: {name} is frozen, and differs from the campaign's")
        return self.tuned.vector({name: values[name] for name in self.tuned.tensors})

    @property
    def _width(self) -> int:
        return self._inputs if isinstance(self._inputs, int) else len(self._inputs)

    def _weights(self, document: Mapping[str, Any]) -> dict[str, Vector]:
        """The numbers of every block, flat."""
        for key, mine in (("inputs", self._inputs), ("activation", self._activation)):
            if document[key] != mine:
                raise UsageError(f"artifact: expected {key} {mine!r}, got {document[key]!r}")
        layers, count = document["layers"], len(self.shapes) // 2
        if not isinstance(layers, list) or len(layers) != count:
            raise UsageError(f"artifact: expected {count} layers")
        values = {}
        for i, (name, shape) in enumerate(self.shapes.items()):
            layer = layers[i // 2]
            if not isinstance(layer, dict) or set(layer) != {"weights", "bias"}:
                raise UsageError(f"artifact: layers[{i // 2}]: expected an object of weights and bias")
            values[name] = _array(name, layer[name.rpartition(".")[2]], shape)
        return values


def _shapes(sizes: list[int]) -> dict[str, tuple[int, ...]]:
    """(outputs, inputs) of the weights and (outputs,) of the bias of each layer, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (inputs, outputs) in enumerate(pairwise(sizes), 1):
        layer = "output" if i == len(sizes) - 1 else f"layer{i}"
        shapes[f"{layer}.weights"], shapes[f"{layer}.bias"] = (outputs, inputs), (outputs,)
    return shapes


def _drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Vector]:
    """Weights to start from: normal with deviation m^(-1/2) for m inputs of the unit; no bias.

    LeCun, Bottou, Orr and Müller, "Efficient BackProp" (1998), section 4.6: a unit's sum has variance 1 then,
    if its inputs have.
    """
    drawn = {}
    for key, (name, shape) in enumerate(shapes.items()):
        if len(shape) == 1:
            drawn[name] = np.zeros(shape)
        else:
            values = noise.normal(seed, "mlp", key, math.prod(shape)) / math.sqrt(shape[1])
            drawn[name] = rounded(values, _DTYPE)
    return drawn


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"artifact: expected JSON, got {body[:40]!r} ({error})") from error
    if not isinstance(document, dict) or set(document) != _KEYS:
        got = ", ".join(document) if isinstance(document, dict) else type(document).__name__
        raise UsageError(
            f"artifact: expected an object of {', '.join(sorted(_KEYS))}, got {got or 'nothing'}"
        )
    return document


def _normalizer(document: Mapping[str, Any], width: int) -> dict[str, list[float]] | None:
    given = document["normalizer"]
    if given is None:
        return None
    if not isinstance(given, dict) or set(given) != {"mean", "deviation"}:
        raise UsageError(
            f"artifact: normalizer: expected null or an object of mean and deviation, got {given!r}"
        )
    found = {key: _array(f"normalizer.{key}", given[key], (width,)) for key in ("mean", "deviation")}
    if not (found["deviation"] > 0.0).all():
        raise UsageError("artifact: normalizer.deviation: expected numbers above 0")
    return {key: values.tolist() for key, values in found.items()}


def _array(name: str, value: object, shape: tuple[int, ...]) -> Vector:
    """A nested list of finite numbers of this shape, flat."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError) as error:  # rows of different lengths
        raise UsageError(f"artifact: {name}: expected numbers of shape {shape} ({error})") from error
    if array.shape != shape or array.dtype.kind not in "if" or not np.isfinite(array).all():
        raise UsageError(
            f"artifact: {name}: expected finite numbers of shape {shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )
    flat: Vector = array.astype(np.float64).ravel()
    # Weights read in decimal mean the float32 next to them; the normalizer is float64.
    return flat if name.startswith("normalizer.") else rounded(flat, _DTYPE)
