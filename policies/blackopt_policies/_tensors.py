"""What the policies of trained models share: tensors chosen by name, each a block, all others as they are.

The artifact is the model with the chosen numbers replaced. A number is rounded to the type its tensor is
stored in; rounding never moves the start, and what was rendered is parsed back exactly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from blackopt.diagnostics import suggest
from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import PluginOptions
from blackopt.space import Block, FloatBlock, Space, WeightsBlock
from blackopt.types import Artifact, Vector
from blackopt_policies._floats import rounded

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_NAMED = 6  # names shown in one error


class TuneOptions(PluginOptions):
    """How the optimizer moves the tensors that a pattern names."""

    scale: Literal["auto"] | Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = Field(
        "auto", description="Step of the optimizer; `auto` is the size of the tensor's own numbers."
    )
    bounds: tuple[_Finite, _Finite] | None = Field(
        None, description="Lowest and highest value; the optimizer's step is a part of this range then."
    )

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if self.bounds is not None and "scale" in self.model_fields_set:
            raise ValueError("scale: bounds set the step already; leave one of the two out")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds: the lower must be below the upper, got {list(self.bounds)!r}")
        return self


Tune: TypeAlias = (
    Annotated[list[str], Field(min_length=1)] | Annotated[dict[str, TuneOptions], Field(min_length=1)]
)


class ChosenOptions(PluginOptions):
    """Which tensors the optimizer moves."""

    tune: Tune = Field(
        ["*"],
        description="Names or patterns (`head.*`) of what to move, each with `scale` or `bounds` if wanted.",
    )
    freeze: list[str] = Field(
        default_factory=list, description="Names or patterns that stay as they are, whatever `tune` says."
    )

    @property
    def patterns(self) -> dict[str, TuneOptions]:
        """Options by pattern, in order; the first that matches a tensor counts."""
        return self.tune if isinstance(self.tune, dict) else dict.fromkeys(self.tune, TuneOptions())


class ModelOptions(ChosenOptions):
    """A model file, and which of its tensors the optimizer moves."""

    model: str = Field(min_length=1, description="Path of the model, relative to the campaign.")


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Numbers of a model under one name.

    Attributes:
        name: in the model.
        values: (n,) where they start.
        dtype: the type they are stored in, one of :data:`blackopt_policies._floats.TYPES`.
        size: what numbers of this tensor are typically like, where all of them are zero; 0 if nobody knows.
    """

    name: str
    values: Vector
    dtype: str = "float32"
    size: float = 0.0


class Tuned:
    """The tensors that the optimizer moves, as a space.

    Args:
        tensors: of the model, in its order.
        options: which to move, and how.
        others: names that hold no numbers of a floating type, and what they hold.

    Attributes:
        space: a block of weights for each tensor, named like it; with bounds, a float for each number.
        tensors: those that move, by name.

    Raises:
        UsageError: a pattern that fits nothing, a number that is not finite or outside its bounds.
    """

    def __init__(
        self, tensors: Sequence[Tensor], options: ChosenOptions, *, others: Mapping[str, str] | None = None
    ) -> None:
        chosen = _choose(tensors, options, {} if others is None else others)
        self.tensors = {tensor.name: tensor for tensor, _ in chosen}
        self._bounds = {tensor.name: how.bounds for tensor, how in chosen if how.bounds is not None}
        common = size_of(np.concatenate([tensor.values for tensor, _ in chosen]))
        blocks: list[Block] = []
        for tensor, how in chosen:
            name, values = tensor.name, tensor.values
            wrong = np.flatnonzero(~np.isfinite(values))
            if wrong.size:
                raise UsageError(f"{name}[{wrong[0]}]: expected a finite number, got {values[wrong[0]]}")
            if how.bounds is not None:
                starts = zip(_places(tensor), values.tolist(), strict=True)
                blocks.extend(FloatBlock(place, *how.bounds, start=start) for place, start in starts)
            else:
                auto = size_of(values) or tensor.size or common or 1.0
                scale = how.scale if isinstance(how.scale, float) else auto
                blocks.append(WeightsBlock(name, values.size, scale=scale, start=values))
        self.space = Space(blocks)

    def values(self, vector: Vector) -> dict[str, Vector]:
        """By name, the numbers of (n,) coordinates, rounded to the type of their tensor.

        Raises:
            UsageError: another shape, or a coordinate outside the bounds.
        """
        natural = self.space.decode(vector)
        found = {}
        for name, tensor in self.tensors.items():
            listed = [natural[p] for p in _places(tensor)] if name in self._bounds else natural[name]
            values = rounded(np.array(listed, dtype=np.float64), tensor.dtype)
            # A zero has the sign that the start has there: coordinates do not tell 0 from -0.
            found[name] = np.where(values == 0.0, np.where(tensor.values == 0.0, tensor.values, 0.0), values)
        return found

    def vector(self, values: Mapping[str, Vector]) -> Vector:
        """(n,) the coordinates of numbers by name, as ``values`` returned them.

        Raises:
            UsageError: a number that is not finite, outside its bounds, or not of its tensor's type.
        """
        natural: dict[str, object] = {}
        for name, tensor in self.tensors.items():
            given = values[name]
            if not np.isfinite(given).all():
                raise UsageError(f"artifact: {name}: expected finite numbers only")
            if name not in self._bounds:
                natural[name] = given
                continue
            # Rounding may have left the bounds by half a step of the type: undo just that.
            inside = np.clip(given, *self._bounds[name])
            wrong = np.flatnonzero(rounded(inside, tensor.dtype) != given)
            if wrong.size:
                lowest, highest = self._bounds[name]
                raise UsageError(
                    f"artifact: {name}[{wrong[0]}]: expected a number in [{lowest!r}, {highest!r}], "
                    f"got {given[wrong[0]]:.9g}"
                )
            natural |= zip(_places(tensor), inside.tolist(), strict=True)
        return self.space.encode(natural)


class ModelPolicy(ABC):
    """A policy whose artifact is a model with the tuned numbers replaced; subclasses know the format.

    Attributes:
        space: of the tensors that move.
    """

    Options: ClassVar[type[PluginOptions]]
    media_type: str = "application/octet-stream"
    tuned: Tuned
    space: Space

    def start(self) -> Vector:
        """(n,) the numbers of the model."""
        return self.space.start()

    def render(self, vector: Vector) -> Artifact:
        """The model with the numbers of (n,) coordinates.

        Raises:
            UsageError: another shape, or a coordinate outside the bounds.
        """
        return Artifact(self.write(self.tuned.values(vector)), self.media_type)

    def parse(self, artifact: Artifact) -> Vector:
        """(n,) the coordinates of an artifact; ``render`` gives the same bytes for them.

        Raises:
            UsageError: not an artifact of this policy, or one of another model.
        """
        values = self.read(artifact.body)
        vector = self.tuned.vector(values)
        if self.render(vector).body == artifact.body:
            return vector
        for name, nearest in self.tuned.values(vector).items():
            if not np.array_equal(nearest, values[name]):
                raise UsageError(
                    f"artifact: {name}: float64 numbers that lie between those of the coordinates; "
                    "a `scale` that is a power of two, such as `auto`, leaves none out"
                )
        raise UsageError("artifact: it differs from the model of this policy outside of what is tuned")

    @abstractmethod
    def write(self, values: Mapping[str, Vector]) -> bytes:
        """The bytes of the model with these numbers, flat, by tensor."""

    @abstractmethod
    def read(self, body: bytes) -> dict[str, Vector]:
        """The numbers of the tuned tensors, flat, by name.

        Raises:
            UsageError: the bytes are no such model, or one of other tensors.
        """


def read_file(path: Path) -> bytes:
    """The bytes of a model.

    Raises:
        ConfigurationError: there is no such file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(path, error) from error


@contextmanager
def configuring(path: Path) -> Iterator[None]:
    """What is wrong with a model file is a matter of configuration.

    Raises:
        ConfigurationError: the block raised a ``UsageError``, which is its ``why``.
    """
    try:
        yield
    except UsageError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        "the policy cannot use its model",
        where=str(path),
        why=str(error),
        safe="nothing was pushed",
        next_step="correct `policy` or the file, then run `blackopt check` again",
    )


def _choose(
    tensors: Sequence[Tensor], options: ChosenOptions, others: Mapping[str, str]
) -> list[tuple[Tensor, TuneOptions]]:
    names = [tensor.name for tensor in tensors]
    if not names:
        raise UsageError("the model has no tensor of a floating type to move")
    for key, patterns in (("tune", options.patterns), ("freeze", options.freeze)):
        for pattern in patterns:
            if pattern in others:
                raise UsageError(f"policy.{key}: {pattern!r} holds {others[pattern]}, which cannot be tuned")
            if not any(_fits(name, pattern) for name in names):
                raise UsageError(f"policy.{key}: {pattern!r} fits nothing in the model{hint(pattern, names)}")
    chosen = []
    for tensor in tensors:
        if not tensor.values.size or any(_fits(tensor.name, pattern) for pattern in options.freeze):
            continue
        how = [how for pattern, how in options.patterns.items() if _fits(tensor.name, pattern)]
        if how:
            chosen.append((tensor, how[0]))
    if not chosen:
        raise UsageError("policy.freeze: nothing that `tune` names is left to move")
    return chosen


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def hint(pattern: str, names: Sequence[str]) -> str:
    """What to say to a pattern that fits none of the names: the nearest of them, or the first few."""
    if close := suggest(pattern, names):
        return f"; {close}"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"; it has {', '.join(names[:_NAMED])}{more}"


def _places(tensor: Tensor) -> list[str]:
    return [f"{tensor.name}[{i}]" for i in range(tensor.values.size)]


def size_of(values: Vector) -> float:
    """The power of two nearest to the root mean square, 0 of nothing but zeros.

    A power of two, because dividing by it is exact.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return 0.0
    mean_square = float(np.mean((values / largest) ** 2))
    exponent = math.log2(largest) + math.log2(mean_square) / 2
    return math.ldexp(1.0, min(max(round(exponent), -500), 500))
