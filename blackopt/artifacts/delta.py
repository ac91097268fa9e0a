"""A model as what changed against a base that the receiver has.

A delta is a safetensors file whose metadata name the format and its version, the sha256 of the base, and the
shapes of the tensors that changed; others are the base's. docs/artifacts.md lists the bytes.

    sparse   the new values and where they stand: exact where all changes are kept
    float16  every change, as float16 times a power of two for each tensor: off by up to 2^-11 of the change
    int8     every change, as a whole number from -127 to 127 times a scale for each block: off by up to
             1/254 of the largest change of its block

Values are rebuilt in float64 and rounded once to the type of the tensor, which is the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blackopt.artifacts import safetensors
from blackopt.artifacts.safetensors import Tensors
from blackopt.errors import ArtifactError, UsageError
from blackopt.types import Artifact

MEDIA_TYPE = "application/vnd.blackopt.delta+safetensors"
FORMAT, BASE, SHAPES, BLOCK = "blackopt.format", "blackopt.base", "blackopt.shapes", "blackopt.block"

Parts = dict[str, NDArray[Any]]
_CHUNK = 1 << 16  # numbers at a time, so that float64 costs no memory
_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


def full(tensors: Tensors) -> Artifact:
    """The whole model: a plain safetensors file.

    Raises:
        UsageError: a number is not finite, or as in :func:`blackopt.artifacts.safetensors.write`.
    """
    for name, tensor in tensors.items():
        if not _finite(tensor):
            raise UsageError(f"full: {name!r} has a number that is not finite")
    return Artifact(safetensors.write(tensors, {FORMAT: "full/1"}), safetensors.MEDIA_TYPE)


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A whole model and the hash of its file, by which deltas name it."""

    sha256: str
    tensors: Tensors

    @classmethod
    def load(cls, body: bytes) -> Base:
        """From a safetensors file, whoever wrote it.

        Raises:
            ArtifactError: it is damaged, a delta, or has a number that is not finite.
        """
        tensors, texts = safetensors.read(body)
        if texts.get(FORMAT, "full/1") != "full/1":
            raise _refused(f"it is {texts[FORMAT]!r}, and not a whole model", body)
        for name, tensor in tensors.items():
            if not _finite(tensor):
                raise _refused(f"{name!r} has a number that is not finite", body)
        return cls(hashlib.sha256(body).hexdigest(), tensors)


def sparse(candidate: Tensors, base: Base, *, share: float = 1.0) -> Artifact:
    """The new values and where they stand.

    Args:
        candidate: the tensors, of the names, shapes and types of the base's.
        base: what the receiver has.
        share: of all numbers of the model, how many to keep: those that changed most; 0 < share <= 1.

    Raises:
        UsageError: the two do not match, a number is not finite, or ``share`` is out of its range.
    """
    if not 0 < share <= 1:
        raise UsageError(f"sparse: share must be > 0 and at most 1, got {share}")
    changed = {name: np.nonzero(_bits(new) != _bits(old))[0] for name, new, old in _pairs(candidate, base)}
    room = math.ceil(share * sum(tensor.size for tensor in base.tensors.values()))
    if sum(map(len, changed.values())) > room:
        changed = _largest(candidate, base, changed, room)
    parts: Parts = {}
    for name, places in changed.items():
        if len(places):
            gaps = np.diff(places, prepend=0)
            parts[f"gaps/{name}"] = gaps.astype(np.min_scalar_type(int(gaps.max())))
            parts[f"values/{name}"] = candidate[name].reshape(-1)[places]
    return _artifact("sparse/1", parts, base)


def float16(candidate: Tensors, base: Base) -> Artifact:
    """Every change as float16, scaled for each tensor so that the largest uses its range.

    Raises:
        UsageError: the two do not match, a number is not finite, or a change is beyond float32.
    """
    parts: Parts = {}
    for name, new, old in _float_pairs(candidate, base):
        largest = max((float(np.abs(change).max()) for _, change in _changes(new, old)), default=0.0)
        _check_size(largest, name)
        if not largest:
            continue
        # A power of two, so that scaling is exact; 2^15 leaves room for the rounding.
        scale = math.ldexp(1.0, max(math.frexp(largest)[1] - 15, -126))
        values = np.empty(new.size, np.float16)
        for place, change in _changes(new, old):
            values[place] = change / scale
        parts[f"values/{name}"] = values
        parts[f"scales/{name}"] = np.array([scale], np.float32)
    return _artifact("float16/1", parts, base)


def int8(candidate: Tensors, base: Base, *, block: int = 64) -> Artifact:
    """Every change as one byte, and a float32 scale for each block.

    Args:
        candidate: the tensors, of the names, shapes and types of the base's.
        base: what the receiver has.
        block: numbers that share a scale: a power of two from 8 to 65536.

    Raises:
        UsageError: the two do not match, a number is not finite, a change is beyond float32, or ``block`` is
            out of its range.
    """
    if not _fits(block):
        raise UsageError(f"int8: block must be a power of two from 8 to {_CHUNK}, got {block}")
    parts: Parts = {}
    for name, new, old in _float_pairs(candidate, base):
        values = np.zeros(new.size, np.int8)
        scales = np.zeros(-(-new.size // block), np.float32)
        for place, change in _changes(new, old):
            blocks = np.pad(change, (0, -len(change) % block)).reshape(-1, block)
            largest = np.abs(blocks).max(axis=1)
            _check_size(float(largest.max()), name)
            scale = (largest / 127.0).astype(np.float32)
            scales[place.start // block :][: len(scale)] = scale
            steps = blocks / np.where(scale > 0, scale, np.inf).astype(np.float64)[:, None]
            values[place] = np.clip(np.rint(steps), -127, 127).reshape(-1)[: len(change)]
        if values.any():
            parts[f"values/{name}"], parts[f"scales/{name}"] = values, scales
    return _artifact("int8/1", parts, base, {BLOCK: str(block)})


def apply(body: bytes, base: Base) -> dict[str, NDArray[Any]]:
    """The model that a delta makes of its base. Tensors that did not change are the base's own.

    Raises:
        ArtifactError: the delta is damaged, of another format or base, or makes a number that is not finite.
    """
    parts, texts = safetensors.read(body)
    form = texts.get(FORMAT)
    if form not in _READERS:
        raise _refused(f"its format is {form!r}; known are {', '.join(_READERS)}", body)
    if texts.get(BASE) != base.sha256:
        raise _refused(f"it belongs to the base {texts.get(BASE)!r}, and this is {base.sha256}", body)
    try:
        shapes = json.loads(texts[SHAPES])
        made = dict(base.tensors)
        for name, shape in shapes.items():
            old = base.tensors[name]
            if list(old.shape) != shape:
                raise ValueError(f"{name!r} has shape {shape}, and the base {list(old.shape)}")
            made[name] = _READERS[form](name, old.reshape(-1), parts, texts).reshape(old.shape)
            if not _finite(made[name]):
                raise ValueError(f"{name!r} would have a number that is not finite")
        if parts:
            raise ValueError(f"it has parts of no tensor: {', '.join(map(repr, sorted(parts)))}")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise _refused(f"{type(error).__name__}: {error}", body) from error
    return made


def _read_sparse(name: str, old: NDArray[Any], parts: Parts, _: Mapping[str, str]) -> NDArray[Any]:
    gaps, values = parts.pop(f"gaps/{name}"), parts.pop(f"values/{name}")
    if gaps.dtype.kind != "u" or gaps.ndim != 1 or not len(gaps) or not gaps[1:].all():
        raise ValueError(f"the gaps of {name!r} are not places in rising order")
    if values.dtype != old.dtype or values.shape != gaps.shape:
        raise ValueError(f"the values of {name!r} are {values.dtype} {values.shape}, for {gaps.shape} places")
    # The sum in float64 first: the one in whole numbers could wrap around.
    if (
        gaps.sum(dtype=np.float64) > old.size
        or int((places := np.cumsum(gaps, dtype=np.int64))[-1]) >= old.size
    ):
        raise ValueError(f"the places of {name!r} are beyond its {old.size} numbers")
    made = old.copy()
    made[places] = values
    return made


def _read_float16(name: str, old: NDArray[Any], parts: Parts, _: Mapping[str, str]) -> NDArray[Any]:
    values, scales = _payload(name, old, parts, np.float16, 1)
    return _added(old, lambda place: values[place].astype(np.float64) * float(scales[0]))


def _read_int8(name: str, old: NDArray[Any], parts: Parts, texts: Mapping[str, str]) -> NDArray[Any]:
    block = int(texts[BLOCK])
    if not _fits(block) or texts[BLOCK] != str(block):
        raise ValueError(f"blocks of {block} numbers are not a power of two from 8 to {_CHUNK}")
    values, scales = _payload(name, old, parts, np.int8, -(-old.size // block))

    def change(place: slice) -> NDArray[np.float64]:
        part = scales[place.start // block : -(-place.stop // block)].astype(np.float64)
        return values[place] * np.repeat(part, block)[: place.stop - place.start]

    return _added(old, change)


_READERS: dict[str, Callable[[str, NDArray[Any], Parts, Mapping[str, str]], NDArray[Any]]] = {
    "sparse/1": _read_sparse,
    "float16/1": _read_float16,
    "int8/1": _read_int8,
}


def _payload(
    name: str, old: NDArray[Any], parts: Parts, dtype: type[Any], count: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values and scales of one tensor, with the types and sizes that they must have."""
    values, scales = parts.pop(f"values/{name}"), parts.pop(f"scales/{name}")
    if old.dtype not in _FLOATS:
        raise ValueError(f"{name!r} is {old.dtype} in the base, and takes no change of {np.dtype(dtype)}")
    if (
        values.dtype != dtype
        or values.shape != old.shape
        or scales.dtype != np.float32
        or scales.shape != (count,)
    ):
        raise ValueError(f"values or scales of {name!r} have another type or size than the base asks for")
    if not _finite(values) or not _finite(scales) or (scales < 0).any():
        raise ValueError(f"values or scales of {name!r} are negative, or not finite")
    return values, scales


def _added(old: NDArray[Any], change: Callable[[slice], NDArray[np.float64]]) -> NDArray[Any]:
    """Round(float64(old) + change), a chunk at a time."""
    made = np.empty_like(old)
    with np.errstate(over="ignore"):  # infinity is found by the caller
        for place in _places(old.size):
            made[place] = change(place) + old[place]
    return made


def _artifact(form: str, parts: Parts, base: Base, texts: Mapping[str, str] | None = None) -> Artifact:
    names = sorted({part.partition("/")[2] for part in parts})
    shapes = {name: list(base.tensors[name].shape) for name in names}
    text = json.dumps(shapes, separators=(",", ":"))
    metadata = {FORMAT: form, BASE: base.sha256, **(texts or {}), SHAPES: text}
    return Artifact(safetensors.write(parts, metadata), MEDIA_TYPE)


def _pairs(candidate: Tensors, base: Base) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Name, new and old numbers of each tensor, flat, in the order of names."""
    if set(candidate) != set(base.tensors):
        differing = sorted(set(candidate) ^ set(base.tensors))
        raise UsageError(
            f"delta: these tensors are in one of candidate and base only: {', '.join(differing)}"
        )
    for name in sorted(candidate):
        new, old = candidate[name], base.tensors[name]
        if (new.shape, new.dtype) != (old.shape, old.dtype):
            raise UsageError(
                f"delta: {name!r} is {old.dtype} {old.shape} in the base, got {new.dtype} {new.shape}"
            )
        if not _finite(new):
            raise UsageError(f"delta: {name!r} has a number that is not finite")
        yield name, new.reshape(-1), old.reshape(-1)


def _float_pairs(candidate: Tensors, base: Base) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    for name, new, old in _pairs(candidate, base):
        if new.dtype in _FLOATS:
            yield name, new, old
        elif (new != old).any():
            raise UsageError(f"delta: {name!r} is {new.dtype} and changed: only a sparse delta can say that")


def _changes(new: NDArray[Any], old: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    for place in _places(new.size):
        with np.errstate(over="ignore"):  # infinity is found by _check_size
            change = np.subtract(new[place], old[place], dtype=np.float64)
        yield place, change


def _places(size: int) -> Iterator[slice]:
    for start in range(0, size, _CHUNK):
        yield slice(start, min(start + _CHUNK, size))


def _largest(
    candidate: Tensors, base: Base, changed: Mapping[str, NDArray[np.intp]], room: int
) -> dict[str, NDArray[np.intp]]:
    """The ``room`` places whose numbers changed most; among equals, the first."""
    sizes = [
        np.abs(candidate[name].reshape(-1)[at].astype(np.float64) - base.tensors[name].reshape(-1)[at])
        for name, at in changed.items()
    ]
    every = np.concatenate(sizes)
    least = np.partition(every, len(every) - room)[len(every) - room]
    kept = every > least
    kept[np.nonzero(every == least)[0][: room - int(kept.sum())]] = True
    ends = np.cumsum([len(size) for size in sizes])[:-1]
    return {name: at[keep] for (name, at), keep in zip(changed.items(), np.split(kept, ends), strict=True)}


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    """The same bytes as whole numbers: 0.0 and -0.0 differ."""
    return array.view(f"u{array.dtype.itemsize}")


def _finite(array: NDArray[Any]) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _fits(block: int) -> bool:
    return 8 <= block <= _CHUNK and block & (block - 1) == 0


def _check_size(largest: float, name: str) -> None:
    if largest > float(np.finfo(np.float32).max):
        raise UsageError(f"delta: a change of {name!r} is beyond float32; send the whole model")


def _refused(why: str, body: bytes) -> ArtifactError:
    return ArtifactError(
        "this artifact cannot be used here",
        where=f"sha256 {hashlib.sha256(body).hexdigest()}, {len(body)} bytes",
        why=why,
        safe="nothing was made of it",
        next_step="fetch the artifact, or the base that it names, again",
    )
