"""A multi-layer perceptron for many requests at once, each with a perturbation of its own.

    network = KeyedMlp([("w1", "b1"), ("w2", "b2")])
    together = [sampler.perturb(user) for user in users]  # no `with`: none is computed by itself
    scores = network.act(features, together)

A layer of a candidate is (W + s E) h + (b + s e) = (W h + b) + s (E h + e), where s is its step and E its
noise. The first part is one product for all requests, as in Flipout (Wen et al. 2018). E of a table lies in
memory already, so the second is a product with the table itself: no copy of the model, nor of its noise, is
made for a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

from blackopt.artifacts.centre import Centre
from blackopt.artifacts.keyed import Keyed
from blackopt.artifacts.portable import Kind, draw
from blackopt.artifacts.table import BLOCK, places, table
from blackopt.errors import UsageError

Floats = NDArray[np.float32]

_KEPT = 4_096  # keys whose places in the table are remembered


class HasCandidate(Protocol):
    """What is served to one request: a :class:`blackopt.serving.Perturbed`, opened or not."""

    @property
    def centre(self) -> Centre:
        """Numbers without noise."""
        ...

    @property
    def candidate(self) -> Keyed | None:
        """What is added to them, if anything."""
        ...


class KeyedMlp:
    """y = W h + b, with h = f(W h + b) for each hidden layer, in float32.

    Args:
        layers: names of the tensors W (outputs, inputs) and b (outputs,) of each layer.
        activation: f, ``tanh`` or ``relu``.

    Raises:
        UsageError: no layers, or an unknown activation.
    """

    def __init__(self, layers: Sequence[tuple[str, str]], *, activation: str = "tanh") -> None:
        if not layers:
            raise UsageError("layers: expected at least one pair of names")
        if activation not in {"tanh", "relu"}:
            raise UsageError(f"activation: expected tanh or relu, got {activation!r}")
        self._layers, self._tanh = list(layers), activation == "tanh"

    def act(self, features: ArrayLike, each: Sequence[HasCandidate]) -> Floats:
        """The outputs for one case of each request.

        Args:
            features: (cases, inputs).
            each: what is served to each case, in their order.

        Returns:
            (cases, outputs).

        Raises:
            UsageError: another number of cases or features than expected, or layers that the centre has not.
        """
        given = np.asarray(features, np.float32)
        if given.ndim != 2 or len(given) != len(each) or not len(each):
            raise UsageError(
                f"features: expected ({len(each)}, inputs), at least one case, got {given.shape}"
            )
        # Requests of one centre and key lie together, so that each stretch of noise is read once.
        order = sorted(range(len(each)), key=lambda i: (id(each[i].centre), _key(each[i].candidate)))
        made: Floats | None = None
        for _, group in groupby(order, key=lambda i: id(each[i].centre)):
            at = list(group)
            found = self._around(each[at[0]].centre, given[at], [each[i].candidate for i in at])
            if made is None:
                made = np.empty((len(each), found.shape[1]), np.float32)
            made[at] = found
        assert made is not None
        return made

    def _around(self, centre: Centre, h: Floats, candidates: Sequence[Keyed | None]) -> Floats:
        tensors, first = centre.tensors(), _offsets(centre)
        steps = np.array([[0.0 if c is None else c.sign * c.sigma] for c in candidates], np.float32)
        keys = list(_keys(centre, candidates))
        for number, names in enumerate(self._layers):
            weights, bias = self._layer(tensors, names, h.shape[1])
            y: Floats = h @ weights.T
            y += bias
            moved = np.zeros_like(y)
            for name, width in zip(names, (h.shape[1], 0), strict=True):
                if name in first:
                    _add_noise(moved, h if width else None, keys, first[name])
            moved *= steps
            y += moved
            last = number == len(self._layers) - 1
            h = y if last else np.tanh(y, out=y) if self._tanh else np.maximum(y, 0, out=y)
        return h

    def _layer(
        self, tensors: dict[str, NDArray[Any]], names: tuple[str, str], width: int
    ) -> tuple[Floats, Floats]:
        try:
            weights, bias = (tensors[name] for name in names)
        except KeyError as error:
            raise UsageError(
                f"layers: the centre has no tensor {error}, only {', '.join(tensors)}"
            ) from error
        if weights.ndim != 2 or bias.shape != weights.shape[:1] or weights.shape[1] != width:
            raise UsageError(
                f"layer {names}: expected ({width}-wide) weights and their bias, "
                f"got {weights.shape} and {bias.shape}"
            )
        return weights, bias


@dataclass(frozen=True, slots=True)
class _Cases:
    """Neighbouring cases of one key."""

    first: int
    last: int
    seed: int
    candidate: Keyed
    starts: tuple[int, ...]  # of its blocks in the table; empty for other kinds
    signs: tuple[int, ...]


@lru_cache(maxsize=_KEPT)
def _places(seed: int, key: int, blocks: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    starts, signs = places(seed, key, 0, blocks)
    return tuple(starts.tolist()), tuple(signs.tolist())


def _keys(centre: Centre, candidates: Sequence[Keyed | None]) -> Iterator[_Cases]:
    at = 0
    for _, group in groupby(candidates, key=_key):
        same = list(group)
        candidate = same[0]
        if candidate is not None:
            starts, signs = (), ()  # type: tuple[int, ...], tuple[int, ...]
            if candidate.kind is Kind.TABLE:
                starts, signs = _places(centre.seed, candidate.key, -(-centre.noisy // BLOCK))
            yield _Cases(at, at + len(same), centre.seed, candidate, starts, signs)
        at += len(same)


def _key(candidate: Keyed | None) -> tuple[int, int]:
    return (-1, 0) if candidate is None else (candidate.kind, candidate.key)


def _offsets(centre: Centre) -> dict[str, int]:
    """Where the noise of each tensor begins, for those that take some."""
    found: dict[str, int] = {}
    at = 0
    for name, tensor in centre.tensors().items():
        if name not in centre.still:
            found[name] = at
            at += tensor.size
    return found


def _add_noise(moved: Floats, h: Floats | None, keys: Sequence[_Cases], offset: int) -> None:
    """moved += E h of each case; e for a bias, which has no h.

    Args:
        moved: (cases, outputs).
        h: (cases, inputs).
        keys: of the cases.
        offset: of the tensor in the noise.
    """
    outputs, inputs = moved.shape[1], 1 if h is None else h.shape[1]
    tabled = [each for each in keys if each.starts]
    if tabled:
        pieces = _pieces(offset, outputs, inputs)
        if h is not None:
            _add_rows(moved, h, tabled, [piece for piece in pieces if piece.rows > 1])
        for piece in pieces:
            if h is None or piece.rows == 1:
                _add_few(moved, h, tabled, piece)
    for each in keys:
        if each.starts:
            continue
        key, kind = each.candidate.key, each.candidate.kind
        noise = draw(each.seed, key, outputs * inputs, offset=offset, kind=kind, dtype=np.float32)
        cases = slice(each.first, each.last)
        moved[cases] += noise if h is None else h[cases] @ noise.reshape(outputs, inputs).T


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a matrix that lies in one block of the noise: whole rows, or a part of one row."""

    block: int
    within: int  # where it begins in the block
    row: int
    rows: int
    column: int
    columns: int


@lru_cache(maxsize=256)
def _pieces(offset: int, outputs: int, inputs: int) -> tuple[_Piece, ...]:
    """A matrix, row by row from ``offset`` on in the noise, cut where a block ends."""
    found: list[_Piece] = []
    at, end = 0, outputs * inputs
    while at < end:
        block, within = divmod(offset + at, BLOCK)
        row, column = divmod(at, inputs)
        room = min(end - at, BLOCK - within)
        if column or room < inputs:  # the rest of a row, or the beginning of one
            rows, columns = 1, min(room, inputs - column)
        else:
            rows, columns = room // inputs, inputs
        found.append(_Piece(block, within, row, rows, column, columns))
        at += rows * columns
    return tuple(found)


def _add_rows(moved: Floats, h: Floats, keys: Sequence[_Cases], pieces: Sequence[_Piece]) -> None:
    """Pieces of several whole rows: a product for each piece and key, with the table where it lies."""
    whole = table(keys[0].seed)
    part = np.zeros_like(moved)
    work: list[tuple[int, NDArray[Any], _Cases, slice]] = []
    for piece in pieces:
        # Every place of the table as a matrix, transposed: views, of which each product takes one.
        shape = (len(whole) - piece.rows * piece.columns + 1, piece.columns, piece.rows)
        view = as_strided(whole, shape, (4, 4, 4 * piece.columns), writeable=False)
        rows = slice(piece.row, piece.row + piece.rows)
        work += [(each.starts[piece.block] + piece.within, view, each, rows) for each in keys]
    # In the order of the table, so that what lies in the cache is used while it does.
    work.sort(key=itemgetter(0))
    for start, view, each, rows in work:
        cases = slice(each.first, each.last)
        np.matmul(h[cases], view[start], out=part[cases, rows])
    for piece in pieces:
        part[:, piece.row : piece.row + piece.rows] *= _signs(len(moved), keys, piece)
    moved += part


def _add_few(moved: Floats, h: Floats | None, keys: Sequence[_Cases], piece: _Piece) -> None:
    """A part of one row, or of a bias: few numbers, and all requests at once."""
    whole = table(keys[0].seed)
    size = piece.rows * piece.columns
    noise = np.zeros((len(moved), size), np.float32)
    for each in keys:
        start = each.starts[piece.block] + piece.within
        noise[each.first : each.last] = whole[start : start + size]
    noise *= _signs(len(moved), keys, piece)
    if h is None:
        moved[:, piece.row : piece.row + piece.rows] += noise
    else:
        columns = slice(piece.column, piece.column + piece.columns)
        moved[:, piece.row] += np.einsum("ij,ij->i", noise, h[:, columns])


def _signs(cases: int, keys: Sequence[_Cases], piece: _Piece) -> Floats:
    """(cases, 1) of the piece's block; 0 where a case has no noise of a table."""
    signs = np.zeros((cases, 1), np.float32)
    for each in keys:
        signs[each.first : each.last] = each.signs[piece.block]
    return signs
