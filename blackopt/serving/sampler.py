"""Serves each unit its own perturbation of a model, which a request computes in place.

    sampler = Sampler.load("arms", campaign="feed", store="centres", incumbent=tensors, model=Ranker, log=log)
    with sampler.perturb(user_id) as p:
        scores = p.act(features)
        p.log(clicked=clicked)

An arm of such a campaign is a candidate by key (:mod:`blackopt.artifacts.keyed`): 24 bytes, relative to a
centre that driver and module share in a store. Windows, slices, control, leases, fences and the kill file are
those of any campaign; a unit keeps its arm for the window. docs/exploration.md is the page.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

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
from blackopt.serving.exposure import Exposure, outcome_text
from blackopt.serving.exposures import ExposureLog
from blackopt.serving.folder import ArmFiles
from blackopt.serving.live import Assignment
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


class Assigns(Protocol[T]):
    """Says what a unit is served: :class:`blackopt.serving.Arms`, or :class:`blackopt.serving.ArmFiles`."""

    def assign(self, campaign: str, unit: str) -> Assignment[Served[T]]:
        """What to serve to one unit."""
        ...


class Sampler(Generic[T]):
    """Perturbs a model for each unit.

    For orders by HTTP::

        models = Models("centres", "feed", Ranker, incumbent=tensors, max_sigma=0.1)
        arms = Arms(accept=models.accept, load=models.load, incumbent=models.incumbent, secrets=[secret])
        sampler = Sampler(arms, models, log=log)

    Thread-safe. Memory is a copy of the model for each perturbation that is open at once, and never shrinks.

    Args:
        arms: takes the orders.
        models: whose ``load`` they were made with.
        log: where exposures go; None: :meth:`Perturbed.log` is an error.
        keep: how many candidates to keep as numbers between requests, at least 1: a request for one of them
            computes nothing.

    Raises:
        UsageError: ``keep`` is below 1.
    """

    def __init__(
        self, arms: Assigns[T], models: Models[T], *, log: ExposureLog | None = None, keep: int = 1
    ) -> None:
        if keep < 1:
            raise UsageError(f"keep: expected at least 1, got {keep!r}")
        self.campaign, self.log = models.campaign, log
        self._arms = arms
        self._pool = Pool(models.model, keep)

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        *,
        campaign: str,
        store: str | os.PathLike[str],
        model: Callable[[Tensors], T],
        incumbent: Mapping[str, NDArray[Any]],
        log: ExposureLog | None = None,
        keep: int = 1,
        max_sigma: float | None = None,
        kill_file: Path | None = None,
        **looks: Any,
    ) -> Self:
        """A sampler over the directory that the campaign's ``use: file`` writes.

        Args:
            directory: as under ``directory`` in the campaign.
            campaign: name.
            store, model, incumbent, max_sigma: see :class:`Models`.
            log, keep: see :class:`Sampler`.
            kill_file: while it exists, everyone gets ``incumbent``.
            looks: more of :class:`blackopt.serving.ArmFiles`, e.g. ``every_s``.

        Raises:
            UsageError: an argument is impossible.
        """
        models = Models(store, campaign, model, incumbent=incumbent, max_sigma=max_sigma)
        arms = ArmFiles(
            directory,
            campaign,
            accept=models.accept,
            incumbent=models.incumbent,
            load=models.load,
            kill_file=kill_file,
            **looks,
        )
        return cls(arms, models, log=log, keep=keep)

    def perturb(self, unit: str) -> Perturbed[T]:
        """What a unit is served now, to be used in a ``with``: its model holds until the end of that.

        The same unit gets the same candidate for as long as its window and its arm last. A unit outside every
        arm gets the incumbent; the control of a window of candidates their centre. Calls may be nested, and
        come from any thread.

        Raises:
            UsageError: the unit is not a string.
        """
        given = self._arms.assign(self.campaign, unit)
        return Perturbed(self, unit, given, self._pool)

    def refresh(self) -> None:
        """Look into the directory now. With orders by HTTP there is nothing to look at."""
        if isinstance(self._arms, ArmFiles):
            self._arms.refresh()

    def close(self) -> None:
        """Look no more, and write what is to be logged. Units are served on until the leases end.

        Raises:
            FatalError: lines of the log were lost.
        """
        if isinstance(self._arms, ArmFiles):
            self._arms.close()
        if self.log is not None:
            self.log.close()


class Perturbed(Generic[T]):
    """A model for one unit, inside a ``with``.

    Attributes:
        arm: the arm's name, ``control``, or None for a unit in no arm.
        window: its number; 0 in no arm.
        version: of the centre; None where a whole model is served.
        candidate: what is served; None without noise.
        model: what the module's ``model`` made.
    """

    __slots__ = (
        "_buffer",
        "_logged",
        "_pool",
        "_sampler",
        "_served",
        "arm",
        "candidate",
        "model",
        "unit",
        "window",
    )

    model: T

    def __init__(self, sampler: Sampler[T], unit: str, given: Assignment[Served[T]], pool: Pool[T]) -> None:
        self._sampler, self._pool, self.unit = sampler, pool, unit
        self.arm, self.window = given.arm, given.window
        # What the control is compared with are candidates around this centre.
        beside = given.beside
        self._served = given.value if beside is None or beside.candidate is None else Served(beside.still)
        self.candidate = self._served.candidate
        self._buffer: Buffer[T] | None = None
        self._logged = False

    @property
    def centre(self) -> Centre:
        """The numbers that are served where there is no noise."""
        return self._served.still.centre

    @property
    def version(self) -> int | None:
        """Of the centre; None where a whole model is served."""
        return self._served.still.version

    @property
    def key(self) -> int | None:
        """Of the noise; None without."""
        return None if self.candidate is None else self.candidate.key

    @property
    def sign(self) -> int | None:
        """Of the noise, 1 or -1; None without."""
        return None if self.candidate is None else self.candidate.sign

    @property
    def act(self) -> Any:
        """``model.act``."""
        return self.model.act  # type: ignore[attr-defined] # the module's own type

    def log(self, **outcome: object) -> None:
        """Log now that the unit was served this, and what came of it.

        The end of the ``with`` does so by itself where this was not called. A unit in no arm has no exposure,
        and nothing is written. Each call writes a line.

        Raises:
            UsageError: the sampler has no log, or the outcome is nothing that JSON has.
        """
        if self._sampler.log is None:
            raise UsageError("log: the sampler was made without a log; give it one: Sampler(..., log=...)")
        self._write(self._sampler.log, outcome_text(outcome))

    def __enter__(self) -> Self:
        if self._buffer is not None:
            raise UsageError("perturb: this one is open already; call perturb again for another")
        if self.candidate is None:
            self.model = self._served.still.model
        else:
            self._buffer = self._pool.take(self._served)
            self.model = self._buffer.model
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._buffer is not None:
            self._pool.give(self._buffer)
            self._buffer = None
        # Also after an error: that a candidate raised is something that its unit has seen.
        if self._sampler.log is not None and not self._logged:
            self._write(self._sampler.log, None)

    def _write(self, log: ExposureLog, outcome: str | None) -> None:
        self._logged = True
        if self.arm is None:
            return
        candidate = self.candidate
        log.put(
            Exposure(
                log.new_id(),
                self._sampler.campaign,
                self.window,
                self.arm,
                self.unit,
                time.time_ns() // 1_000,
                self.version,
                None if candidate is None else str(candidate.key),
                None if candidate is None else candidate.sign,
                outcome,
            )
        )


class Buffer(Generic[T]):
    """Memory for one candidate, and the model that lives in it."""

    __slots__ = ("_centre", "_served", "layout", "model", "values")

    def __init__(self, centre: Centre, make: Callable[[Tensors], T]) -> None:
        self.layout = tuple(centre.shapes.items())
        self.values: Floats = np.empty(len(centre.values), np.float32)
        # Weak, so that what is not served any more does not stay in memory for what it once was.
        self._centre: weakref.ref[Centre] | None = None
        self._served: weakref.ref[Served[T]] | None = None
        self.model = make(centre.tensors(self.values))

    def holds(self, served: Served[T]) -> bool:
        """Whether nothing has to be computed."""
        return self._served is not None and self._served() is served

    def fill(self, served: Served[T]) -> None:
        """Write the candidate's numbers: one pass over those that take noise."""
        if self.holds(served):
            return
        self._served = None  # half of a candidate is none
        centre = served.still.centre
        if self._centre is None or self._centre() is not centre:
            self._centre = None
            if centre.noisy < len(centre.values):
                np.copyto(self.values, centre.values)
            self._centre = weakref.ref(centre)
        served.fill(self.values)
        self._served = weakref.ref(served)


class Pool(Generic[T]):
    """Buffers that no request has now, the least recently used first.

    Args:
        make: the module's ``model``.
        keep: how many buffers there may be before one is rewritten although another could be made.
    """

    def __init__(self, make: Callable[[Tensors], T], keep: int) -> None:
        self._make, self._keep = make, keep
        self._lock = threading.Lock()
        self._free: list[Buffer[T]] = []
        self._made = 0

    def take(self, served: Served[T]) -> Buffer[T]:
        """A buffer with this candidate, for this request alone."""
        buffer = self._chosen(served)
        if buffer is None:
            buffer = Buffer(served.still.centre, self._make)
        buffer.fill(served)
        return buffer

    def give(self, buffer: Buffer[T]) -> None:
        """The request is done with it."""
        with self._lock:
            self._free.append(buffer)

    def _chosen(self, served: Served[T]) -> Buffer[T] | None:
        """One that holds the candidate already, or else the oldest; None: make one."""
        free = self._free
        with self._lock:
            for index in range(len(free) - 1, -1, -1):
                if free[index].holds(served):
                    return free.pop(index)
            if free and self._made >= self._keep:
                buffer = free.pop(0)
                if buffer.layout == tuple(served.still.centre.shapes.items()):
                    return buffer
                self._made -= 1
            self._made += 1
            return None


def _said(shapes: Mapping[str, tuple[int, ...]]) -> str:
    text = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return text if len(text) <= 200 else f"{text[:197]}..."
