"""The layout of the parameter vector: named blocks with bounds and scales, flat to named and back.

In ``campaign.yaml`` a space is a mapping from names to blocks::

    lr:   {float: [1e-4, 1], log: true, start: 0.01}
    k:    {int: [1, 20], start: 5}
    mode: {choice: [a, b, c], start: a}
    mix:  {simplex: [news, sport, music]}      # or {simplex: 3}
    w:    {weights: 6, scale: 1.0}

``start`` is where production stands. Without it: the middle of a float or int (on its own scale), the first
option of a choice, equal shares of a simplex, zero weights. What the optimizer sees of each kind is in
:mod:`blackopt.blocks`.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from blackopt.blocks import Block, ChoiceBlock, FloatBlock, IntBlock, SimplexBlock, WeightsBlock
from blackopt.errors import UsageError
from blackopt.types import Vector

__all__ = [
    "Block",
    "BlockSpec",
    "ChoiceBlock",
    "FloatBlock",
    "IntBlock",
    "SimplexBlock",
    "Space",
    "WeightsBlock",
]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_SHOWN = 5  # coordinates named in one error


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number, got a boolean")
    return value


_Real = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
_Integer = Annotated[int, BeforeValidator(_no_bool)]
_Option = StrictStr | StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]

_KEYS: dict[str, frozenset[str]] = {
    "float": frozenset({"log", "start"}),
    "int": frozenset({"log", "start"}),
    "choice": frozenset({"start"}),
    "simplex": frozenset({"start"}),
    "weights": frozenset({"scale", "start"}),
}


class BlockSpec(BaseModel):
    """One block as written in ``campaign.yaml``: exactly one of float, int, choice, simplex, weights."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"oneOf": [{"required": [kind]} for kind in _KEYS]}
    )

    float_: tuple[_Real, _Real] | None = Field(
        None, alias="float", description="Bounds of a float, both included."
    )
    int_: tuple[_Integer, _Integer] | None = Field(
        None, alias="int", description="Bounds of an integer, both included."
    )
    choice: list[_Option] | None = Field(None, description="Options, at least two.")
    simplex: int | list[str] | None = Field(None, description="Number or names of shares that add up to 1.")
    weights: _Integer | None = Field(None, description="Number of unbounded weights.")
    log: bool = Field(False, description="Search a float or int on a log scale.")
    scale: _Real = Field(1.0, gt=0.0, description="What one unit of the optimizer's step means for weights.")
    start: Any = Field(None, description="Where production stands; the middle if it is not given.")

    @model_validator(mode="after")
    def _one_kind_that_can_be_built(self) -> Self:
        given = {self._alias(field) for field in self.model_fields_set}
        kinds = [kind for kind in _KEYS if kind in given]
        if len(kinds) != 1:
            raise ValueError(f"expected exactly one of {', '.join(_KEYS)}, got {', '.join(kinds) or 'none'}")
        for key in sorted(given - {kinds[0]} - _KEYS[kinds[0]]):
            raise ValueError(
                f"{key} has no meaning for {kinds[0]}; it takes {', '.join(sorted(_KEYS[kinds[0]]))}"
            )
        try:
            self.build("")
        except UsageError as error:
            raise ValueError(str(error).removeprefix(": ")) from error
        return self

    @classmethod
    def _alias(cls, field: str) -> str:
        return cls.model_fields[field].alias or field

    def build(self, name: str) -> Block:
        """The block of this name.

        Raises:
            UsageError: bounds, options or start that make no block.
        """
        if self.float_ is not None:
            return FloatBlock(name, *self.float_, log=self.log, start=_from_text(self.start))
        if self.int_ is not None:
            return IntBlock(name, *self.int_, log=self.log, start=self.start)
        if self.choice is not None:
            return ChoiceBlock(name, self.choice, start=self.start)
        if self.simplex is not None:
            return SimplexBlock(name, self.simplex, start=_from_text(self.start))
        if self.weights is not None:
            return WeightsBlock(name, self.weights, scale=self.scale, start=_from_text(self.start))
        raise UsageError(f"{name}: expected one of {', '.join(_KEYS)}, got null")


def _from_text(value: Any) -> Any:
    """Numbers that YAML 1.1 reads as text (``1e-4`` has no dot) become floats, alone or in a list."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if isinstance(value, list):
        return [_from_text(v) for v in value]
    if isinstance(value, dict):
        return {key: _from_text(v) for key, v in value.items()}
    return value


class Space:
    """Named blocks laid out one after the other in a flat vector of n coordinates.

    Args:
        blocks: at least one, with different names.

    Attributes:
        blocks: in order.
        size: n.
        lower, upper: (n,) bounds of the coordinates: 0 and 1, infinite for weights. Read-only.
        discrete: (n,) bool, True for coordinates of an int or choice. Read-only.
        bounded: whether any coordinate has a finite bound.

    Raises:
        UsageError: no blocks, or two of one name.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(blocks)
        if not self.blocks:
            raise UsageError("a space needs at least one block, got none")
        seen: set[str] = set()
        for block in self.blocks:
            if block.name in seen:
                raise UsageError(f"two blocks of the space are called {block.name!r}")
            seen.add(block.name)
        sizes = [block.size for block in self.blocks]
        self.size = sum(sizes)
        ends = np.cumsum(sizes).tolist()
        self.slices: dict[str, slice] = {
            block.name: slice(end - block.size, end) for block, end in zip(self.blocks, ends, strict=True)
        }
        self.lower: Vector = _spread([block.lower for block in self.blocks], sizes)
        self.upper: Vector = _spread([block.upper for block in self.blocks], sizes)
        self.discrete: NDArray[np.bool_] = _spread([block.discrete for block in self.blocks], sizes)
        self.bounded = any(math.isfinite(b.lower) or math.isfinite(b.upper) for b in self.blocks)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """(n,) names of the coordinates, such as ``lr``, ``w[3]``, ``mode=a``, ``mix[news]``."""
        return tuple(name for block in self.blocks for name in block.coordinates)

    @classmethod
    def from_spec(cls, spec: Mapping[str, BlockSpec | Mapping[str, Any]]) -> Space:
        """The space that a mapping from names to blocks declares, in the mapping's order.

        Raises:
            UsageError: it declares none; every problem is named, with the block it is in.
        """
        blocks: list[Block] = []
        problems: list[str] = []
        for name, block in spec.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                problems.append(f"{name!r} is no name: letters, digits, _ . - and no digit first")
                continue
            try:
                parsed = block if isinstance(block, BlockSpec) else BlockSpec.model_validate(block)
                blocks.append(parsed.build(name))
            except ValidationError as error:
                for problem in error.errors():
                    where = ".".join([name, *(str(part) for part in problem["loc"])])
                    problems.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
            except UsageError as error:
                problems.append(str(error))
        if problems:
            raise UsageError("not a space: " + "; ".join(problems))
        return cls(blocks)

    def spec(self) -> dict[str, dict[str, object]]:
        """The space as JSON values in the grammar of ``campaign.yaml``; ``from_spec`` rebuilds it."""
        return {block.name: block.spec() for block in self.blocks}

    def start(self) -> Vector:
        """(n,) coordinates of where production stands; a new array."""
        if len(self.blocks) == 1:
            return self.blocks[0].start()
        return np.concatenate([block.start() for block in self.blocks])

    def clip(self, vector: Vector) -> Vector:
        """(n,) the nearest point inside the bounds; a new array.

        Raises:
            UsageError: another shape, or a coordinate that is not finite.
        """
        checked = self._check(vector)
        return np.clip(checked, self.lower, self.upper)

    def contains(self, vector: Vector) -> bool:
        """Whether all of (n,) coordinates are finite and inside the bounds.

        Raises:
            UsageError: another shape.
        """
        checked = self._check_shape(vector)
        return bool((np.isfinite(checked) & (checked >= self.lower) & (checked <= self.upper)).all())

    def decode(self, vector: Vector) -> dict[str, object]:
        """The natural values by name: float, int, an option, a list of floats, or a mapping of named shares.

        Raises:
            UsageError: another shape, or coordinates that are not finite or outside the bounds (clip first).
        """
        checked = self._check(vector)
        outside = np.flatnonzero((checked < self.lower) | (checked > self.upper))
        if outside.size:
            raise UsageError(
                f"coordinates outside the bounds: {self._list(checked, outside)}; clip the vector first"
            )
        return {block.name: block.decode(checked[self.slices[block.name]]) for block in self.blocks}

    def encode(self, values: Mapping[str, object]) -> Vector:
        """(n,) coordinates of natural values: exact for the start and for whatever ``decode`` returned.

        Raises:
            UsageError: a name is missing or unknown, or a value is outside what its block holds.
        """
        missing = [block.name for block in self.blocks if block.name not in values]
        unknown = [str(name) for name in values if name not in self.slices]
        if missing or unknown:
            parts = [("missing", missing), ("unknown", unknown)]
            text = "; ".join(f"{label}: {', '.join(names)}" for label, names in parts if names)
            raise UsageError(f"expected a value for each of {', '.join(self.slices)}; {text}")
        return np.concatenate([block.encode(values[block.name]) for block in self.blocks])

    def _check_shape(self, vector: Vector) -> Vector:
        array = np.asarray(vector, dtype=np.float64)
        if array.shape != (self.size,):
            raise UsageError(
                f"expected a vector of shape ({self.size},) = (space.size,), got shape {array.shape}"
            )
        return array

    def _check(self, vector: Vector) -> Vector:
        array = self._check_shape(vector)
        wrong = np.flatnonzero(~np.isfinite(array))
        if wrong.size:
            raise UsageError(f"coordinates that are not finite: {self._list(array, wrong)}")
        return array

    def _list(self, vector: Vector, indices: NDArray[np.intp]) -> str:
        shown = [f"{self.names[i]} = {float(vector[i])!r}" for i in indices[:_SHOWN].tolist()]
        rest = indices.size - _SHOWN
        return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")

    def _text(self) -> str:
        return json.dumps(self.spec(), separators=(",", ":"))

    def __eq__(self, other: object) -> bool:
        return self._text() == other._text() if isinstance(other, Space) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text())

    def __repr__(self) -> str:
        return f"Space({', '.join(f'{b.name}: {b.kind}[{b.size}]' for b in self.blocks)})"


def _spread(values: Sequence[Any], sizes: Sequence[int]) -> NDArray[Any]:
    """(n,) one value of each block for all its coordinates, read-only; one number where all are equal."""
    if len(set(values)) == 1:
        return np.broadcast_to(np.array(values[0]), sum(sizes))
    spread = np.repeat(np.array(values), sizes)
    spread.setflags(write=False)
    return spread
