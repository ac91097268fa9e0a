"""The fitted numbers of a scikit-learn model or pipeline, as JSON: coefficients, means, scales.

The module keeps its fitted model, and sets the numbers in it with ``blackopt.serving.estimators``. A pickle
would run whatever code is in it, and read only with the very release that wrote it; numbers do neither.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from blackopt.errors import UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import Vector
from blackopt_policies._floats import TYPES, rounded, shortest
from blackopt_policies._tensors import ModelOptions, ModelPolicy, Tensor, Tuned, configuring, read_file

_WRITER = "blackopt.serving.estimators.export"


class SklearnOptions(ModelOptions):
    """``policy: {use: sklearn, model: today.json, tune: [classify.*]}``."""


class Sklearn(ModelPolicy):
    """Renders the exported numbers with the chosen ones replaced: the JSON that ``export`` wrote.

    Args:
        options: the export, and what of it moves.
        base: folder of the campaign, which the path is relative to.

    Attributes:
        space: a block for each chosen array, under its step and attribute: ``scale.mean_``.

    Raises:
        ConfigurationError: the export cannot be used, or a pattern fits nothing in it.
    """

    Options: ClassVar[type[PluginOptions]] = SklearnOptions
    media_type = "application/json"

    def __init__(self, options: SklearnOptions, *, base: Path) -> None:
        path = base / options.model
        body = read_file(path)
        with configuring(path):
            self._document = _document(body)
            entries = self._document["values"]
            tensors = [Tensor(name, _values(name, entry), entry["dtype"]) for name, entry in entries.items()]
            self.tuned = Tuned(tensors, options)
        self.space = self.tuned.space

    def write(self, values: Mapping[str, Vector]) -> bytes:
        """The export with these numbers."""
        entries = dict(self._document["values"])
        for name, numbers in values.items():
            entries[name] = entries[name] | {"values": shortest(numbers, self.tuned.tensors[name].dtype)}
        body = self._document | {"values": entries}
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def read(self, body: bytes) -> dict[str, Vector]:
        """The numbers of the chosen arrays.

        Raises:
            UsageError: not an export of the same model.
        """
        entries = _document(body)["values"]
        found = {}
        for name, tensor in self.tuned.tensors.items():
            mine = self._document["values"][name]
            if name not in entries or any(entries[name].get(key) != mine[key] for key in ("dtype", "shape")):
                raise UsageError(f"artifact: {name}: expected {tensor.dtype} of shape {mine['shape']}")
            found[name] = _values(name, entries[name])
        return found


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"expected what blackopt.serving.estimators.export wrote, got {body[:16]!r}"
        ) from error
    if not isinstance(document, dict) or set(document) != {"estimator", "values"}:
        raise UsageError(f"expected what {_WRITER} wrote: estimator and values")
    entries = document["values"]
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise UsageError("values: expected an object of dtype, shape and values for each name")
    return document


def _values(name: str, entry: Mapping[str, Any]) -> Vector:
    dtype, shape, values = entry.get("dtype"), entry.get("shape"), entry.get("values")
    if dtype not in TYPES or not isinstance(shape, list) or not all(type(n) is int for n in shape):
        raise UsageError(f"{name}: expected a dtype (one of {', '.join(TYPES)}) and a shape, got {dtype!r}")
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{name}: expected a list of numbers ({error})") from error
    if array.shape != (math.prod(shape),):
        raise UsageError(f"{name}: expected {math.prod(shape)} numbers, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError(f"{name}: expected finite numbers only")
    return rounded(array, str(dtype))
