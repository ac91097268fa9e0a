"""Low-rank changes to the matrices of a frozen model: only the factors travel, with the base's sha256.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1: a frozen matrix W (out,
in) becomes W + (alpha / rank) B A, with A (rank, in) drawn from a normal distribution and B (out, rank) zero,
so that the start is the base itself.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from blackopt import noise
from blackopt.artifacts import safetensors
from blackopt.errors import UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import Vector
from blackopt_policies._floats import numbers, rounded
from blackopt_policies._safetensors import FLOATS, Entry, entries, floats
from blackopt_policies._tensors import (
    ModelOptions,
    ModelPolicy,
    Tensor,
    Tuned,
    configuring,
    hint,
    read_file,
    size_of,
)

_DTYPE = "float32"
_SUFFIX = ".weight"


class LoraOptions(ModelOptions):
    """``policy: {use: lora, model: base.safetensors, targets: [layers.*.attention.*.weight], rank: 4}``."""

    targets: Annotated[list[str], Field(min_length=1)] = Field(
        description="Names or patterns of the matrices of the model that change."
    )
    rank: int = Field(ge=1, description="Columns of B and rows of A.")
    alpha: float | None = Field(
        None, gt=0.0, allow_inf_nan=False, description="The change is (alpha / rank) B A; `rank` without."
    )
    start: str | None = Field(
        None, description="Path of an artifact of this policy, or of an adapter with the same names."
    )
    prefix: str = Field(
        "base_model.model.", description="Before the names of the factors; this is how PEFT calls them."
    )
    seed: int = Field(0, description="Of the A to start from where there is no `start`.")


class Lora(ModelPolicy):
    """Renders a safetensors file of float32 factors, with ``base_sha256``, ``rank``, ``alpha`` as metadata.

    Args:
        options: the base, the matrices that change, rank and start.
        base: folder of the campaign, which paths are relative to.

    Attributes:
        space: blocks ``<name>.lora_A.weight`` (rank, in) and ``<name>.lora_B.weight`` (out, rank) for each
            matrix ``<name>.weight``, row by row; ``tune`` and ``freeze`` name these.
        shapes: of the blocks by name.

    Raises:
        ConfigurationError: a file cannot be used, or a pattern fits no matrix of the base.
    """

    Options: ClassVar[type[PluginOptions]] = LoraOptions
    media_type = safetensors.MEDIA_TYPE

    def __init__(self, options: LoraOptions, *, base: Path) -> None:
        path = base / options.model
        body = read_file(path)
        alpha = options.rank if options.alpha is None else options.alpha
        self._metadata = {
            "base_sha256": hashlib.sha256(body).hexdigest(),
            "rank": str(options.rank),
            "alpha": repr(float(alpha)),
        }
        self._prefix = options.prefix
        with configuring(path):
            found = entries(body)[0]
            self.shapes = _shapes(found, options)
            self._values = _drawn(self.shapes, options.seed)
            sizes = {name: size_of(values) for name, _, values in floats(body, found)}
        if options.start is not None:
            start = base / options.start
            with configuring(start):
                self._values = self._factors(read_file(start), metadata=False)
        with configuring(path):
            factor = float(alpha) / math.sqrt(options.rank)
            tensors = [
                Tensor(name, values, size=self._size(name, sizes, factor))
                for name, values in self._values.items()
            ]
            self.tuned = Tuned(tensors, options)
        self.space = self.tuned.space

    def write(self, values: Mapping[str, Vector]) -> bytes:
        """The file of all factors, of which these are the tuned ones."""
        every = {**self._values, **values}
        shapes = self.shapes.items()
        tensors = {
            self._prefix + name: every[name].astype(np.float32).reshape(shape) for name, shape in shapes
        }
        return safetensors.write(tensors, self._metadata)

    def read(self, body: bytes) -> dict[str, Vector]:
        """The numbers of the tuned factors.

        Raises:
            UsageError: not a file of these factors, or one for another base.
        """
        factors = self._factors(body, metadata=True)
        return {name: factors[name] for name in self.tuned.tensors}

    def _size(self, name: str, sizes: Mapping[str, float], factor: float) -> float:
        """The size of B's numbers at which the change is as large as W.

        Each number of (alpha / rank) B A is a sum of ``rank`` products, so of size ``factor`` = alpha /
        sqrt(rank) times the sizes of B and of A.
        """
        module, _, which = name.removesuffix(_SUFFIX).rpartition(".")
        if which != "lora_B":
            return 0.0
        of_a = size_of(self._values[f"{module}.lora_A{_SUFFIX}"])
        return sizes[module + _SUFFIX] / (of_a * factor) if of_a else 0.0

    def _factors(self, body: bytes, *, metadata: bool) -> dict[str, Vector]:
        found, said = entries(body)
        # An adapter that something else wrote does not say what its base is; an artifact does.
        for key, mine in self._metadata.items():
            if (key in said or metadata) and said.get(key) != mine:
                raise UsageError(f"artifact: expected {key} {mine}, got {said.get(key)}")
        if odd := sorted(set(found) ^ {self._prefix + name for name in self.shapes}):
            names = ", ".join(odd[:4])
            raise UsageError(f"artifact: expected other factors; only one of the two has {names}")
        factors = {}
        for name, shape in self.shapes.items():
            entry = found[self._prefix + name]
            if entry.shape != shape or entry.dtype not in FLOATS:
                raise UsageError(
                    f"artifact: {name}: expected numbers of shape {shape}, got {entry.dtype} {entry.shape}"
                )
            factors[name] = rounded(numbers(body[entry.place], FLOATS[entry.dtype]), _DTYPE)
        return factors


def _shapes(found: Mapping[str, Entry], options: LoraOptions) -> dict[str, tuple[int, ...]]:
    """Shape of both factors of each target, by name."""
    matrices = {
        name: entry.shape
        for name, entry in found.items()
        if len(entry.shape) == 2 and 0 not in entry.shape and entry.dtype in FLOATS and name.endswith(_SUFFIX)
    }
    for pattern in options.targets:
        if not any(fnmatchcase(name, pattern) for name in matrices):
            raise UsageError(
                f"policy.targets: {pattern!r} fits no matrix of the model{hint(pattern, list(matrices))}"
            )
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in matrices.items():
        if any(fnmatchcase(name, pattern) for pattern in options.targets):
            if options.rank > min(outputs, inputs):
                raise UsageError(
                    f"policy.rank: {name} is {outputs} by {inputs}; a rank of {options.rank} is no low rank"
                )
            shapes[f"{name.removesuffix(_SUFFIX)}.lora_A.weight"] = (options.rank, inputs)
            shapes[f"{name.removesuffix(_SUFFIX)}.lora_B.weight"] = (outputs, options.rank)
    return shapes


def _drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Vector]:
    """A normal with deviation (inputs)^(-1/2), so that A x is as large as x; B zero: no change yet."""
    drawn = {}
    for key, (name, shape) in enumerate(shapes.items()):
        values = np.zeros(math.prod(shape))
        if name.endswith(".lora_A.weight"):
            values = rounded(noise.normal(seed, "lora", key, values.size) / math.sqrt(shape[1]), _DTYPE)
        drawn[name] = values
    return drawn
