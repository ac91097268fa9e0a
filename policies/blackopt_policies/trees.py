"""Boosted trees as LightGBM or XGBoost saved them: leaf values move, and thresholds where wanted.

The model file is the base, the artifact is the same file with the numbers replaced, and production loads it
with the library as before. Neither library is needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from blackopt.errors import UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import Vector
from blackopt_policies._forests import Forest, LightGbmText, XgboostJson
from blackopt_policies._tensors import (
    ModelOptions,
    ModelPolicy,
    Tensor,
    Tune,
    Tuned,
    configuring,
    read_file,
)


class TreesOptions(ModelOptions):
    """``policy: {use: trees, model: ranker.txt}``."""

    tune: Tune = Field(
        ["*.leaves"],
        description="Names or patterns of what to move: `tree0.leaves`, `tree0.thresholds`, `*.leaves`.",
    )


class Trees(ModelPolicy):
    """Renders the model file with the chosen leaf values and thresholds replaced.

    Thresholds are those of numeric splits; sets of categories stay.

    Args:
        options: the file, and what to move.
        base: folder of the campaign, which the path is relative to.

    Attributes:
        space: blocks ``tree<i>.leaves`` and ``tree<i>.thresholds``, in the order of the file.

    Raises:
        ConfigurationError: the file is none of the two formats, or a pattern fits nothing in it.
    """

    Options: ClassVar[type[PluginOptions]] = TreesOptions

    def __init__(self, options: TreesOptions, *, base: Path) -> None:
        path = base / options.model
        body = read_file(path)
        with configuring(path):
            self._forest = _forest(body)
            values = self._forest.read(body)
            tensors = [Tensor(name, numbers, self._forest.dtype) for name, numbers in values.items()]
            self.tuned = Tuned(tensors, options)
        self.space = self.tuned.space
        self.media_type = self._forest.media_type

    def write(self, values: Mapping[str, Vector]) -> bytes:
        """The file with these numbers."""
        return self._forest.write(values)

    def read(self, body: bytes) -> dict[str, Vector]:
        """The numbers of the chosen blocks.

        Raises:
            UsageError: another format, or other trees.
        """
        found = self._forest.read(body)
        tuned = self.tuned.tensors
        for name, tensor in tuned.items():
            if name not in found or found[name].shape != tensor.values.shape:
                raise UsageError(f"artifact: {name}: expected {tensor.values.size} numbers")
        return {name: found[name] for name in tuned}


def _forest(body: bytes) -> Forest:
    if body.startswith(b"tree\n"):
        return LightGbmText(body)
    if body.lstrip().startswith(b"{"):
        return XgboostJson(body)
    raise UsageError(
        "expected a LightGBM text model (Booster.save_model) or an XGBoost JSON model (save_model to a name "
        f"in .json), got bytes that begin with {body[:16]!r}"
    )
