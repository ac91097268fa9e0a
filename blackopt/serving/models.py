"""What an order makes the module serve: a model as it is, or a candidate around one.

Centres are read and checked when an order comes, outside any request; see :mod:`blackopt.serving.sampler`.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from blackopt.artifacts import centre as centres
from blackopt.artifacts import keyed, safetensors
from blackopt.artifacts.centre import Centre
from blackopt.artifacts.delta import Base, full
from blackopt.artifacts.keyed import Keyed
from blackopt.artifacts.portable import Kind
from blackopt.artifacts.store import Store
from blackopt.artifacts.table import BLOCK, places, table
from blackopt.errors import ArtifactError, UsageError
from blackopt.serving.answers import Refused
from blackopt.types import Artifact

T = TypeVar("T")

Floats = NDArray[np.float32]
Tensors = Mapping[str, Floats]

_FARTHEST = 7.0
"""No number of any kind of noise is as far from 0."""

_STEPS = 4
"""Steps that are served at once and have a table of their own, of 16 MB each; others take a second pass."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Still(Generic[T]):
    """A model without noise, shared by all requests.

    Attributes:
        centre: its numbers.
        version: of the centre; None where a whole model was sent.
        model: what the module made of them, once.
    """

    centre: Centre
    version: int | None
    model: T


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """Noise from a table, times sigma, as far as a request can be spared it.

    Attributes:
        scaled: sigma times the table, which all candidates of this step share.
        places: for each run of the centre, where in it each block begins, and whether it is added or else
            subtracted.
    """

    scaled: Floats
    places: tuple[tuple[NDArray[np.int32], NDArray[np.bool_]], ...]

    @classmethod
    def of(cls, centre: Centre, candidate: Keyed, scaled: Floats) -> Moves:
        """Those of a candidate."""
        found = []
        for run in centre.runs:
            first = run.offset // BLOCK
            count = -(-(run.offset + run.last - run.first) // BLOCK) - first
            starts, signs = places(centre.seed, candidate.key, first, count)
            found.append((starts, signs == candidate.sign))
        return cls(scaled, tuple(found))


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Served(Generic[T]):
    """What an artifact is: a still model, or a candidate around one.

    Attributes:
        still: what it is without noise.
        candidate: what is added; None for nothing.
        moves: what was made ready of it; None where nothing was.
    """

    still: Still[T]
    candidate: Keyed | None = None
    moves: Moves | None = None

    def fill(self, out: Floats) -> None:
        """Write the numbers that take noise, as :meth:`Centre.perturb` makes them, to the bit.

        That they are finite was seen when the order came. With the products at hand it is one sum for each
        number, and takes about as long as reading and writing them.
        """
        assert self.candidate is not None
        centre, moves = self.still.centre, self.moves
        if moves is None:
            centre.perturb(self.candidate, out)
            return
        for run, (starts, added) in zip(centre.runs, moves.places, strict=True):
            given, made = centre.values[run.place], out[run.place]
            at = -(run.offset % BLOCK)  # where the block begins, relative to the run
            for start, add in zip(starts.tolist(), added.tolist(), strict=True):
                low, high = max(at, 0), min(at + BLOCK, len(given))
                stretch = moves.scaled[start + low - at : start + high - at]
                (np.add if add else np.subtract)(given[low:high], stretch, made[low:high])
                at += BLOCK


class Models(Generic[T]):
    """Makes models of the artifacts that orders bring: what ``Arms(load=...)`` needs.

    Args:
        store: directory of centres that the driver shares, or its URL, such as ``s3://bucket/feed``, which
            needs ``pip install 'blackopt[fsspec]'``.
        campaign: whose centres.
        model: makes of tensors by name what a request calls. For a candidate, the tensors are views of memory
            that is rewritten for the next one, so it must keep them, and no copies. For a still model they
            cannot be written, and several threads may call it at once.
        incumbent: the module's own model: float32 tensors, which a centre must have by name and shape.
        max_sigma: the largest step that the module will serve; None: any.

    Raises:
        UsageError: ``incumbent`` is no model of float32 tensors, or ``max_sigma`` no size.
        ConfigurationError: a URL that cannot be opened here.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        campaign: str,
        model: Callable[[Tensors], T],
        *,
        incumbent: Mapping[str, NDArray[Any]],
        max_sigma: float | None = None,
    ) -> None:
        if max_sigma is not None and not max_sigma > 0:
            raise UsageError(f"max_sigma: expected a size > 0, got {max_sigma!r}")
        if not incumbent or any(tensor.dtype != np.float32 for tensor in incumbent.values()):
            raise UsageError("incumbent: expected float32 tensors by name, at least one")
        self.campaign, self.model = campaign, model
        self.incumbent = full(incumbent)
        self._store, self._max_sigma = Store(store), max_sigma
        self._shapes = {name: tensor.shape for name, tensor in incumbent.items()}
        self._lock = threading.Lock()
        # Alive for as long as something that is served, or was not replaced yet, refers to it.
        self._still: weakref.WeakValueDictionary[str, Still[T]] = weakref.WeakValueDictionary()
        self._scaled: weakref.WeakValueDictionary[tuple[int, float], Floats] = weakref.WeakValueDictionary()

    def accept(self, artifact: Artifact) -> None:
        """The check for ``Arms(accept=...)``: everything else is seen when it is loaded.

        Raises:
            Refused: a media type that is none of the three.
        """
        known = (keyed.MEDIA_TYPE, centres.MEDIA_TYPE, safetensors.MEDIA_TYPE)
        if artifact.media_type not in known:
            raise Refused(f"media type {artifact.media_type!r}; this module takes {', '.join(known)}")

    def load(self, artifact: Artifact) -> Served[T]:
        """What an artifact is.

        Raises:
            Refused: its centre is not in the store or not of this model, a step that is too long, or damage.
        """
        self.accept(artifact)
        try:
            if artifact.media_type == keyed.MEDIA_TYPE:
                candidate = Keyed.decode(artifact.body)
                still = self._around(candidate)
                return Served(still, candidate, self._moves(still.centre, candidate))
            if artifact.media_type == centres.MEDIA_TYPE:
                still = self._of_file(artifact.body.decode("ascii"))
                if still.centre.campaign != self.campaign:
                    raise Refused(f"it is the centre {still.centre.label}, and not one of {self.campaign}")
                return Served(still)
            return Served(self._whole(artifact))
        except ArtifactError as error:
            raise Refused(f"{error.what} ({error.where}): {error.why}") from error
        except ValueError as error:  # UsageError is one
            raise Refused(str(error)) from error

    def _around(self, candidate: Keyed) -> Still[T]:
        if self._max_sigma is not None and candidate.sigma > self._max_sigma:
            raise Refused(f"sigma is {candidate.sigma!r}; at most {self._max_sigma!r} here")
        wanted = centres.label(self.campaign, candidate.version)
        name = self._store.resolve(wanted)
        if name is None:
            raise Refused(f"the centre of this version is not in the store ({wanted})")
        still = self._of_file(name)
        if still.centre.label != wanted:
            raise Refused(f"what the store calls {wanted} is {still.centre.label}")
        largest = float(np.abs(still.centre.values).max(initial=0.0))
        # Checked once, so that no request meets an overflow.
        if largest + _FARTHEST * candidate.sigma > float(np.finfo(np.float32).max):
            raise Refused(f"sigma is {candidate.sigma!r}: float32 does not reach as far from {largest!r}")
        return still

    def _moves(self, centre: Centre, candidate: Keyed) -> Moves | None:
        if candidate.kind is not Kind.TABLE:
            return None
        whole = table(centre.seed)  # made now, and not in the first request
        with self._lock:
            scaled = self._scaled.get((centre.seed, candidate.sigma))
            if scaled is None and len(self._scaled) < _STEPS:
                scaled = self._scaled[centre.seed, candidate.sigma] = whole * np.float32(candidate.sigma)
        return None if scaled is None else Moves.of(centre, candidate, scaled)

    def _of_file(self, name: str) -> Still[T]:
        with self._lock:
            still = self._still.get(name)
            if still is None:
                centre = Centre.read(self._store.get(name))
                still = self._still[name] = self._made(centre, centre.version)
            return still

    def _whole(self, artifact: Artifact) -> Still[T]:
        tensors = Base.load(artifact.body).tensors
        if any(tensor.dtype != np.float32 for tensor in tensors.values()):
            raise Refused("a tensor of it is not float32")
        # One after another at the end of the file: no copy.
        size = sum(tensor.size for tensor in tensors.values())
        values = np.frombuffer(artifact.body, "<f4", offset=len(artifact.body) - 4 * size)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        return self._made(Centre(self.campaign, 0, 0, shapes, values), None)

    def _made(self, centre: Centre, version: int | None) -> Still[T]:
        if dict(centre.shapes) != self._shapes:
            raise Refused(
                f"its tensors {_said(centre.shapes)} are not those of the model, {_said(self._shapes)}"
            )
        return Still(centre, version, self.model(centre.tensors()))


def _said(shapes: Mapping[str, tuple[int, ...]]) -> str:
    text = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return text if len(text) <= 200 else f"{text[:197]}..."
