"""What candidates by key are relative to: the numbers of one version, and which of them take noise.

A centre is a ``full/1`` safetensors file of float32 tensors, under the label ``<campaign>.v<version>`` of a
:class:`~blackopt.artifacts.store.Store`. Its metadata say how a model is a vector:

    blackopt.campaign, blackopt.version, blackopt.seed    in decimal
    blackopt.order                                        JSON: the tensors' names in the order of the vector
    blackopt.still                                        JSON: those that take no noise

Positions of the noise are counted through the tensors that take noise, in this order and each row by row; the
others are the same in every candidate of the version.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blackopt.artifacts import keyed, safetensors
from blackopt.artifacts.delta import FORMAT
from blackopt.artifacts.keyed import Keyed
from blackopt.artifacts.store import Store
from blackopt.errors import ArtifactError, UsageError
from blackopt.types import Artifact

CAMPAIGN, VERSION, SEED = "blackopt.campaign", "blackopt.version", "blackopt.seed"
ORDER, STILL = "blackopt.order", "blackopt.still"
MEDIA_TYPE = "application/vnd.blackopt.centre"
"""Of an artifact that is a centre itself, without noise: the sha256 of its file, which both sides have."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring numbers of the vector that all take noise.

    Attributes:
        first, last: positions in the vector, ``last`` exclusive.
        offset: position of the first of them in the noise.
    """

    first: int
    last: int
    offset: int

    @property
    def place(self) -> slice:
        """Where in the vector."""
        return slice(self.first, self.last)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Centre:
    """The model that candidates of one version are drawn around.

    Attributes:
        campaign: its name.
        version: how many updates the optimizer had made, 0 <= version < 2^48.
        seed: of the noise, 0 <= seed < 2^64.
        shapes: of the tensors by name, in the order of the vector.
        values: (n,) float32, the tensors one after another, each row by row; kept read-only, and copied where
            it is another type.
        still: names of the tensors that take no noise.
        runs: where the vector takes noise, in its order.
        noisy: how many numbers do.

    Raises:
        UsageError: a number is out of its range or not finite, sizes that do not add up, or an unknown name.
    """

    campaign: str
    version: int
    seed: int
    shapes: Mapping[str, tuple[int, ...]]
    values: Floats
    still: Collection[str] = ()
    runs: tuple[Run, ...] = field(init=False)
    noisy: int = field(init=False)

    def __post_init__(self) -> None:
        for name, value, bits in (("version", self.version, 48), ("seed", self.seed, 64)):
            if not 0 <= value < 1 << bits:
                raise UsageError(f"centre: {name} must be in 0 .. 2^{bits} - 1, got {value}")
        values = np.ascontiguousarray(self.values, dtype=np.float32).view()
        size = sum(math.prod(shape) for shape in self.shapes.values())
        if values.shape != (size,) or not np.isfinite(values).all():
            raise UsageError(
                f"centre: expected ({size},) finite numbers for {len(self.shapes)} tensors, "
                f"got shape {values.shape}"
            )
        unknown = sorted(set(self.still) - set(self.shapes))
        if unknown:
            raise UsageError(f"centre: still names {', '.join(unknown)}, which is no tensor of it")
        values.flags.writeable = False
        runs = _runs(self.shapes, self.still)
        noisy = sum(run.last - run.first for run in runs)
        for name, made in (("values", values), ("runs", runs), ("noisy", noisy)):
            object.__setattr__(self, name, made)

    @property
    def label(self) -> str:
        """What it is called in a store."""
        return label(self.campaign, self.version)

    def tensors(self, vector: NDArray[Any] | None = None) -> dict[str, NDArray[Any]]:
        """Views of a vector as the tensors that it is made of; of the centre's own values without one."""
        flat = self.values if vector is None else vector
        ends = [0, *accumulate(math.prod(shape) for shape in self.shapes.values())]
        return {
            name: flat[first:last].reshape(shape)
            for (name, shape), (first, last) in zip(self.shapes.items(), pairwise(ends), strict=True)
        }

    def perturb(self, candidate: Keyed, out: Floats) -> Floats:
        """Write the numbers of a candidate that take noise; the others of ``out`` are left as they are.

        Args:
            candidate: of this version.
            out: (n,) float32, contiguous.

        Raises:
            UsageError: the candidate is of another version, ``out`` does not fit, or a value overflows.
        """
        if candidate.version != self.version:
            raise UsageError(
                f"centre: the candidate is of version {candidate.version}, this is {self.version}"
            )
        for run in self.runs:
            place = run.place
            keyed.perturb(self.values[place], candidate, self.seed, offset=run.offset, out=out[place])
        return out

    def publish(self, store: Store) -> str:
        """Put it into a store, under its label; repeating it changes nothing.

        Returns:
            The sha256 of its file.

        Raises:
            UsageError: campaign or tensors have names that no store or file can hold.
            OSError: the disk refused.
        """
        texts = {
            FORMAT: "full/1",
            CAMPAIGN: self.campaign,
            VERSION: str(self.version),
            SEED: str(self.seed),
            ORDER: json.dumps(list(self.shapes)),
            STILL: json.dumps([name for name in self.shapes if name in self.still]),
        }
        return store.put(safetensors.write(self.tensors(), texts), label=self.label)

    @classmethod
    def load(cls, store: Store, campaign: str, version: int) -> Self:
        """The centre of one version.

        Raises:
            ArtifactError: it is not in the store, or is damaged.
        """
        wanted = label(campaign, version)
        name = store.resolve(wanted)
        if name is None:
            raise ArtifactError(
                "the centre of this version is not in the store",
                where=wanted,
                why="it was not published there, or no trial needed it any more",
                safe="nothing was made of the candidate, and what is served is as it was",
                next_step="see that the driver and the module are given the same store",
            )
        found = cls.read(store.get(name))
        if (found.campaign, found.version) != (campaign, version):
            raise _damaged(f"it says {found.label}, and was called {wanted}", name)
        return found

    @classmethod
    def read(cls, body: bytes) -> Self:
        """The centre that a file holds.

        Raises:
            ArtifactError: it is no centre, or damaged.
        """
        tensors, texts = safetensors.read(body)
        try:
            order, still = json.loads(texts[ORDER]), json.loads(texts[STILL])
            if sorted(order) != sorted(tensors) or any(each.dtype != np.float32 for each in tensors.values()):
                raise ValueError("its tensors are not the float32 tensors of its order")
            values = np.concatenate([tensors[name].reshape(-1) for name in order])
            shapes = {name: tensors[name].shape for name in order}
            return cls(texts[CAMPAIGN], int(texts[VERSION]), int(texts[SEED]), shapes, values, still)
        except (ValueError, KeyError, TypeError) as error:  # UsageError is a ValueError
            raise _damaged(
                f"{type(error).__name__}: {error}", f"{len(body)} bytes that begin with {body[:16]!r}"
            ) from error


def reference(name: str) -> Artifact:
    """What orders a module to serve a centre as it is: 64 bytes, whatever the size of the model.

    Args:
        name: the sha256 that :meth:`Centre.publish` returned.
    """
    return Artifact(name.encode(), MEDIA_TYPE)


def label(campaign: str, version: int) -> str:
    """What the centre of a version is called in a store."""
    return f"{campaign}.v{version}"


def _runs(shapes: Mapping[str, tuple[int, ...]], still: Collection[str]) -> tuple[Run, ...]:
    runs: list[Run] = []
    at = offset = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        if name not in still and size:
            if runs and runs[-1].last == at:
                runs[-1] = Run(runs[-1].first, at + size, runs[-1].offset)
            else:
                runs.append(Run(at, at + size, offset))
            offset += size
        at += size
    return tuple(runs)


def _damaged(why: str, where: str) -> ArtifactError:
    return ArtifactError(
        "this is not the centre of a campaign",
        where=where,
        why=why,
        safe="nothing was made of it",
        next_step="publish the centre again",
    )
