"""Two model files of boosted trees: where leaf values and thresholds stand, and how they are replaced."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from blackopt.errors import UsageError
from blackopt.types import Vector
from blackopt_policies._floats import shortest

_CATEGORICAL = 1  # bit of LightGBM's decision_type, value of XGBoost's split_type
_LEAF = -1
_TREE = re.compile(r"^Tree=\d+\n", re.MULTILINE)
_SIZES = re.compile(r"^tree_sizes=(.*)$", re.MULTILINE)


class Forest(ABC):
    """A file of trees.

    Attributes:
        dtype: the type in which the library holds the numbers.
        media_type: of the file.
    """

    dtype: ClassVar[str]
    media_type: ClassVar[str]

    @abstractmethod
    def read(self, body: bytes) -> dict[str, Vector]:
        """``tree<i>.leaves`` and ``tree<i>.thresholds`` of a file of this format.

        Raises:
            UsageError: another format, or trees that cannot be tuned.
        """

    @abstractmethod
    def write(self, values: Mapping[str, Vector]) -> bytes:
        """The file with these numbers."""


class LightGbmText(Forest):
    """What ``Booster.save_model`` writes: sections of ``key=value`` lines, their sizes at the top."""

    dtype = "float64"
    media_type = "text/plain"

    def __init__(self, body: bytes) -> None:
        self._head, self._trees, self._tail = _sections(body)

    def read(self, body: bytes) -> dict[str, Vector]:
        """See :class:`Forest`."""
        found: dict[str, Vector] = {}
        for i, tree in enumerate(_sections(body)[1]):
            if _line(tree, "is_linear") == "1":
                raise UsageError(
                    f"tree{i}: has linear models in its leaves (linear_tree), which are not tuned"
                )
            found[f"tree{i}.leaves"] = _numbers(f"tree{i}.leaves", _line(tree, "leaf_value"))
            thresholds = _numbers(f"tree{i}.thresholds", _line(tree, "threshold"))
            found[f"tree{i}.thresholds"] = thresholds[_numeric(tree)]
        return found

    def write(self, values: Mapping[str, Vector]) -> bytes:
        """See :class:`Forest`; the sizes at the top follow the new numbers."""
        trees = []
        for i, tree in enumerate(self._trees):
            if (leaves := values.get(f"tree{i}.leaves")) is not None:
                tree = _replaced(tree, "leaf_value", leaves)
            if (moved := values.get(f"tree{i}.thresholds")) is not None:
                thresholds = _numbers("", _line(tree, "threshold"))
                thresholds[_numeric(tree)] = moved
                tree = _replaced(tree, "threshold", thresholds)
            trees.append(tree)
        sizes = " ".join(str(len(tree.encode())) for tree in trees)
        head = _SIZES.sub(lambda _: f"tree_sizes={sizes}", self._head, count=1)
        return "".join([head, *trees, self._tail]).encode()


class XgboostJson(Forest):
    """What ``save_model("….json")`` writes: arrays by node; a leaf's value stands as its split condition."""

    dtype = "float32"
    media_type = "application/json"

    def __init__(self, body: bytes) -> None:
        self._model = _json(body)

    def read(self, body: bytes) -> dict[str, Vector]:
        """See :class:`Forest`."""
        found: dict[str, Vector] = {}
        for name, nodes, numbers in _places(_json(body)):
            try:
                found[name] = np.array([np.float32(numbers[node]) for node in nodes], dtype=np.float64)
            except (TypeError, ValueError, IndexError) as error:
                raise UsageError(f"{name}: expected numbers ({error})") from error
        return found

    def write(self, values: Mapping[str, Vector]) -> bytes:
        """See :class:`Forest`."""
        # Every tuned number is overwritten each time, so nothing of the last artifact is left.
        for name, nodes, numbers in _places(self._model):
            if name in values:
                for node, value in zip(nodes, shortest(values[name], self.dtype), strict=True):
                    numbers[node] = value
        return json.dumps(self._model, ensure_ascii=False, separators=(",", ":")).encode()


def _sections(body: bytes) -> tuple[str, list[str], str]:
    """The text before the trees, each tree, and the text after them, by the sizes that the file declares."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"expected a LightGBM text model, got {body[:16]!r} ({error})") from error
    first, declared = _TREE.search(text), _SIZES.search(text)
    if not text.startswith("tree\n") or first is None or declared is None:
        raise UsageError(f"expected a LightGBM text model with trees, got {text[:40]!r}")
    trees = []
    rest = body[len(text[: first.start()].encode()) :]
    for i, size in enumerate(declared[1].split()):
        tree = rest[: int(size)].decode() if size.isdigit() else ""
        if not tree.startswith(f"Tree={i}\n"):
            raise UsageError(f"damaged LightGBM model: tree{i} is not where `tree_sizes` says")
        trees.append(tree)
        rest = rest[int(size) :]
    return text[: first.start()], trees, rest.decode()


def _line(tree: str, key: str) -> str:
    """The value of a key, empty where there is none: a tree of one leaf has no splits."""
    found = re.search(rf"^{key}=(.*)$", tree, re.MULTILINE)
    return found[1] if found else ""


def _replaced(tree: str, key: str, values: Vector) -> str:
    text = " ".join(map(repr, values.tolist()))
    return re.sub(rf"^{key}=.*$", lambda _: f"{key}={text}", tree, count=1, flags=re.MULTILINE)


def _numbers(name: str, text: str) -> Vector:
    try:
        return np.array([float(word) for word in text.split()], dtype=np.float64)
    except ValueError as error:
        raise UsageError(f"{name}: expected numbers, got {text[:40]!r}") from error


def _numeric(tree: str) -> list[int]:
    """Which splits compare a number with a threshold; the threshold of the others is an index."""
    kinds = _numbers("decision_type", _line(tree, "decision_type")).astype(int).tolist()
    return [i for i, kind in enumerate(kinds) if not kind & _CATEGORICAL]


def _json(body: bytes) -> Any:
    try:
        model = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"expected an XGBoost JSON model, got {body[:40]!r} ({error})") from error
    if isinstance(model, dict) and "tree_info" in model:
        raise UsageError("a LightGBM dump cannot be loaded again; save the model with Booster.save_model")
    if not isinstance(model, dict) or "learner" not in model:
        raise UsageError("expected an XGBoost JSON model, as save_model writes it to a name in .json")
    return model


def _places(model: Any) -> Iterator[tuple[str, list[int], list[float]]]:
    """For the leaves and the splits of each tree: name, nodes, and the list of numbers by node."""
    try:
        booster = model["learner"]["gradient_booster"]
        trees = booster.get("gbtree", booster)["model"]["trees"]  # DART wraps the trees
        for i, tree in enumerate(trees):
            if int(tree["tree_param"]["size_leaf_vector"]) > 1:
                raise UsageError(f"tree{i}: its leaves hold several values each, which are not tuned")
            left, right, kinds = tree["left_children"], tree["right_children"], tree["split_type"]
            leaves: list[int] = []
            splits: list[int] = []
            waiting = [0]
            while waiting:  # from the root: what was pruned is still in the arrays
                node = waiting.pop()
                if len(leaves) + len(splits) > len(left):
                    raise UsageError(f"tree{i}: damaged: its nodes form a circle")
                if left[node] == _LEAF:
                    leaves.append(node)
                    continue
                if kinds[node] != _CATEGORICAL:
                    splits.append(node)
                waiting += [left[node], right[node]]
            yield f"tree{i}.leaves", sorted(leaves), tree["split_conditions"]
            yield f"tree{i}.thresholds", sorted(splits), tree["split_conditions"]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"expected an XGBoost JSON model with trees, and found none ({error!r})") from error
