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
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from blackopt.artifacts.centre import Centre
from blackopt.errors import UsageError
from blackopt.serving.exposure import Exposure, outcome_text
from blackopt.serving.exposures import ExposureLog
from blackopt.serving.folder import ArmFiles
from blackopt.serving.live import Assignment
from blackopt.serving.models import Models, Served, Tensors

T = TypeVar("T")

Floats = NDArray[np.float32]


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
