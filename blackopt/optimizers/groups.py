"""Several modules optimized together: each group of blocks has an optimizer of its own, and all of them learn
from the same outcomes.

Candidate k is candidate k of every group, side by side, and every evaluation is told to every group. To one
group, what the others try is noise: it adds the variance that their perturbations have in the loss to that of
the measurement. It does so independently of what this group tries, because each group draws from a seed of
its own. With one seed for all, two groups of one algorithm and size would draw the same numbers, and each
would take the other's slope for its own.

Where twins are drawn in every group, candidates 2j and 2j + 1 are twins as a whole: what the others' even
effects add cancels within a pair, and their slopes do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator

from blackopt import noise
from blackopt.blocks import Block
from blackopt.diagnostics import suggest
from blackopt.errors import UsageError
from blackopt.nested import at_key, nested_options
from blackopt.optimizers.base import BaseOptimizer, Result
from blackopt.protocols import Explained, Optimizer, OptimizerOptions, PluginOptions
from blackopt.space import Space
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATTERN = frozenset("*?[")


class Group(PluginOptions):
    """One of ``groups``; every other key is an option of the optimizer that ``use`` names.

    Attributes:
        blocks: names of blocks, or patterns of them as in a shell: ``ranker.*``.
        use: name of an optimizer.
        frozen: in place of ``use``: the blocks stay where they start.
    """

    model_config = ConfigDict(extra="allow")

    blocks: tuple[str, ...] = Field(min_length=1)
    use: str | None = None
    frozen: bool = False
    _part: tuple[type[Optimizer], OptimizerOptions] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _options_of_its_optimizer(self, info: ValidationInfo) -> Self:
        own = self.model_extra or {}
        if self.frozen:
            given = own if self.use is None else {"use": self.use, **own}
            for key, value in given.items():
                raise at_key(key, value, "has no meaning in a frozen group", "remove it, or `frozen`")
            return self
        if self.use is None:
            hint = "the name of an optimizer; or frozen: true"
            raise at_key("use", None, "is required", hint, kind="missing")
        if "seed" in own:
            says = "belongs to the whole: groups must not draw alike"
            raise at_key("seed", own["seed"], says, "write it beside `groups`")
        plugin, options = nested_options("optimizers", self.use, own, as_json=info.mode == "json")
        # plugins.find has checked that an optimizer's Options are OptimizerOptions.
        self._part = plugin, cast("OptimizerOptions", options)
        return self

    @property
    def part(self) -> tuple[type[Optimizer], OptimizerOptions] | None:
        """The class that ``use`` names and its options; None in a frozen group."""
        return self._part


class GroupsOptions(OptimizerOptions):
    """Options of ``groups``.

    Attributes:
        groups: each block of the space belongs to exactly one of them.
        trials: budget of the campaign, for those groups whose optimizer asks for it.
        parallel: candidates in flight, likewise.
    """

    groups: tuple[Group, ...]
    trials: int | None = Field(default=None, ge=1)
    parallel: int | None = Field(default=None, ge=1)

    def asks(self) -> frozenset[str]:
        """What one of the groups' optimizers asks."""
        wanted = [group.part[1].asks() for group in self.groups if group.part is not None]
        return super().asks() & frozenset[str]().union(*wanted)

    @model_validator(mode="after")
    def _something_moves(self) -> Self:
        if all(group.frozen for group in self.groups):
            says = "leave nothing to optimize"
            raise at_key("groups", len(self.groups), says, "give one of them a `use`")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A group at work.

    Attributes:
        at: (m,) where its coordinates are in the whole vector.
        optimizer: of these coordinates.
    """

    at: NDArray[np.int64]
    optimizer: Optimizer

    def tell(self, result: Result) -> None:
        """Its share of a result of the whole."""
        vector = result.vector[self.at] if result.moved else None
        self.optimizer.tell([result.evaluation(result.number, vector)])


class Groups(BaseOptimizer):
    """``use: groups``. Its version counts the updates of all groups.

    Attributes:
        group: least common multiple of the groups' own.
        reason: what the groups' optimizers say about themselves, if any does.
    """

    Options: ClassVar[type[OptimizerOptions]] = GroupsOptions
    version: ClassVar[str] = "groups/1"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, GroupsOptions)
        self.options = options
        self._parts = [
            Part(at, _built(f"groups[{i}]", cls, Space(blocks), self._start[at], own))
            for i, blocks, at, cls, own in self._moving()
        ]
        # an instance's version says more than its class's: another version of a part is another fold
        self.version = f"{type(self).version} ({', '.join(p.optimizer.version for p in self._parts)})"  # type: ignore[misc]
        self.group = math.lcm(*(part.optimizer.group for part in self._parts))
        said = [part.optimizer.reason for part in self._parts if isinstance(part.optimizer, Explained)]
        self.reason = "; ".join(said)

    def _moving(
        self,
    ) -> Iterator[tuple[int, list[Block], NDArray[np.int64], type[Optimizer], OptimizerOptions]]:
        """Place, blocks, coordinates, class and options of each group that is not frozen."""
        everywhere = np.arange(self.space.size, dtype=np.int64)
        members = shared_out(self.space, self.options.groups)
        for i, (group, blocks) in enumerate(zip(self.options.groups, members, strict=True)):
            if group.part is not None:
                cls, own = group.part
                at = np.concatenate([everywhere[self.space.slices[block.name]] for block in blocks])
                yield i, blocks, at, cls, own.model_copy(update=self._handed_on(i, own))

    def _handed_on(self, i: int, own: OptimizerOptions) -> dict[str, Any]:
        """A seed of its own for group i, and what its optimizer wants to know of the campaign."""
        told = {name: getattr(self.options, name) for name in own.asks()}
        return {"seed": int(noise.integers(self._seed, "groups", i, 1, 1 << 32)[0]), **told}

    def _draw(self, number: int) -> Vector:
        del number  # the groups count along
        vector, updates = self._start.copy(), 0
        for part in self._parts:
            [candidate] = part.optimizer.ask(1)
            vector[part.at] = candidate.vector
            updates += candidate.version
        self._updates = updates
        return vector

    def _learn(self, result: Result) -> None:
        for part in self._parts:
            part.tell(result)

    def recommend(self) -> Vector:
        """(n,) the groups' recommendations side by side; the start where they are frozen."""
        vector = self._start.copy()
        for part in self._parts:
            vector[part.at] = part.optimizer.recommend()
        return vector

    def _memory(self) -> State:
        return {"parts": [part.optimizer.dump() for part in self._parts]}

    def _recall(self, memory: State) -> None:
        self._parts = [
            Part(at, cls.load(Space(blocks), own, state))
            for (_, blocks, at, cls, own), state in zip(self._moving(), memory["parts"], strict=True)
        ]


def _built(
    where: str, cls: type[Optimizer], space: Space, start: Vector, options: OptimizerOptions
) -> Optimizer:
    try:
        return cls(space, start, options)
    except UsageError as error:
        raise UsageError(f"{where} ({', '.join(block.name for block in space.blocks)}): {error}") from error


def shared_out(space: Space, groups: Sequence[Group]) -> list[list[Block]]:
    """The blocks of each group, in the order of the space.

    Raises:
        UsageError: a pattern fits no block, or a block is in no group or in several; all of it at once.
    """
    names = [block.name for block in space.blocks]
    problems: list[str] = []
    owners: dict[str, list[int]] = {name: [] for name in names}
    for i, group in enumerate(groups):
        for j, pattern in enumerate(group.blocks):
            fits = [name for name in names if fnmatchcase(name, pattern)]
            if not fits:
                problems.append(f"groups[{i}].blocks[{j}]: {_no_block(pattern, names)}")
            for name in fits:
                if i not in owners[name]:
                    owners[name].append(i)
    for name, found in owners.items():
        if len(found) > 1:
            which = " and ".join(f"groups[{i}]" for i in found)
            problems.append(f"block {name} is in {which}: keep it in one")
    lost = [name for name, found in owners.items() if not found]
    if lost:
        problems.append(
            f"no group has {', '.join(lost)}: add to one, or to a new one, such as "
            f"{{blocks: [{', '.join(lost[:3])}], frozen: true}}"
        )
    if problems:
        raise UsageError("groups do not share out the space: " + "; ".join(problems))
    return [[block for block in space.blocks if owners[block.name] == [i]] for i in range(len(groups))]


def _no_block(pattern: str, names: Sequence[str]) -> str:
    if _PATTERN.isdisjoint(pattern):
        hint = suggest(pattern, names)
        return f"no block is called {pattern!r}; {hint or 'there are ' + ', '.join(names)}"
    return f"no block fits {pattern!r}; there are {', '.join(names)}"
