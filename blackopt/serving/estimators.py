"""The numbers of a fitted scikit-learn model, out of it and into it, as JSON: no pickle, no library needed.

Where the model was trained, :func:`export` writes what the policy ``sklearn`` starts from. In the module,
which has the same fitted model, :func:`install` makes a copy of it with the numbers of an artifact.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from blackopt.errors import UsageError
from blackopt.serving.answers import Refused
from blackopt.types import Artifact

Model = TypeVar("Model")

_STEPS = ("steps", "transformers_", "transformer_list")
"""Where a Pipeline, a ColumnTransformer and a FeatureUnion keep their named parts."""

_IDLE = frozenset(
    "classes_ var_ n_samples_seen_ data_min_ data_max_ data_range_ singular_ singular_values_ "
    "explained_variance_ratio_ noise_variance_ loss_ best_loss_ best_validation_score_ t_".split()
)
"""What no prediction computes with: records of the fit; and ``classes_``, which are names even as floats."""


def export(model: object) -> Artifact:
    """The fitted numbers of a model, by step and attribute (``scale.mean_``), as JSON.

    Fitted numbers are the attributes that hold arrays of floats, or a float, and whose names end in one
    underscore: ``coef_``, ``intercept_``, ``mean_``, ``scale_``. Of lists of such arrays (``coefs_`` of a
    neural network), each has its number (``coefs_.0``). What a fit keeps for the record alone, such as
    ``loss_`` and ``var_``, is left out. Models whose numbers are elsewhere, such as trees, have none.

    Args:
        model: a fitted estimator, Pipeline, ColumnTransformer or FeatureUnion.

    Raises:
        UsageError: no such number, or one that is not finite.
    """
    values = {}
    for name, holder, key in _numbers(model):
        array = np.asarray(_get(holder, key))
        if not np.isfinite(array).all():
            raise UsageError(f"{name}: expected finite numbers only")
        values[name] = {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "values": array.ravel().tolist(),
        }
    if not values:
        raise UsageError(f"{type(model).__name__} has no fitted numbers such as coef_; fit it first")
    body = {"estimator": type(model).__name__, "values": values}
    return Artifact(json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())


def install(model: Model, artifact: Artifact) -> Model:
    """A copy of a fitted model with the numbers of an artifact.

    Args:
        model: fitted as the one that was exported: the same steps, and arrays of the same shapes.
        artifact: as rendered by the policy ``sklearn``.

    Raises:
        Refused: not such an artifact, or one of another model.
    """
    fresh = copy.deepcopy(model)
    places = {name: (holder, key) for name, holder, key in _numbers(fresh)}
    try:
        values = json.loads(artifact.body)["values"]
        if set(values) != set(places):
            odd = ", ".join(sorted(set(values) ^ set(places)))
            raise Refused(f"the artifact is of another model; only one of the two has {odd}")
        for name, (holder, key) in places.items():
            _set(holder, key, _array(name, values[name], np.asarray(_get(holder, key))))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"not the numbers of a model: {type(error).__name__}: {error}") from error
    return fresh


def _array(name: str, value: Mapping[str, Any], old: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    numbers = np.array(value["values"], dtype=np.float64)
    if value["dtype"] != old.dtype.name or value["shape"] != list(old.shape) or numbers.shape != (old.size,):
        raise Refused(f"{name}: expected {old.dtype.name} of shape {list(old.shape)}, got {value['dtype']}")
    if not np.isfinite(numbers).all():
        raise Refused(f"{name}: expected finite numbers only")
    return numbers.astype(old.dtype).reshape(old.shape)


def _numbers(model: object, prefix: str = "") -> Iterator[tuple[str, Any, str | int]]:
    """Name, holder and key of everything fitted: a key is an attribute, or the index in a list."""
    for steps in _STEPS:
        for step in getattr(model, steps, None) or ():
            if not isinstance(step[1], str):  # "passthrough" and "drop" have no numbers
                yield from _numbers(step[1], f"{prefix}{step[0]}.")
    for attribute, value in vars(model).items() if hasattr(model, "__dict__") else ():
        if attribute.startswith("_") or not attribute.endswith("_") or attribute in _IDLE:
            continue
        if _is_floats(value) or isinstance(value, float | np.floating):
            yield prefix + attribute, model, attribute
        elif isinstance(value, list) and value and all(map(_is_floats, value)):  # a list of floats is a log
            for i in range(len(value)):
                yield f"{prefix}{attribute}.{i}", value, i


def _is_floats(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 0


def _get(holder: Any, key: str | int) -> Any:
    return holder[key] if isinstance(key, int) else getattr(holder, key)


def _set(holder: Any, key: str | int, array: np.ndarray[Any, Any]) -> None:
    value = array if array.ndim else array[()]
    if isinstance(key, int):
        holder[key] = value
    else:
        setattr(holder, key, value)
