"""A candidate as its key: 24 bytes, whatever the size of the model.

The candidate is centre + sign * sigma * noise(seed, key). Who has the centre of a version and the seed of the
campaign rebuilds it, or any slice of it, to the last bit; see :mod:`blackopt.artifacts.portable`.

    byte  0       format and version, 0x4B ("K")
    byte  1       bit 0: the sign is negative; bits 1 to 3: kind of noise; the others are 0
    bytes 2-7     version of the centre      unsigned, little-endian
    bytes 8-15    key                        unsigned, little-endian
    bytes 16-23   sigma                      float64, little-endian
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blackopt.artifacts.portable import Kind, check, chunks
from blackopt.artifacts.table import BLOCK, stretches
from blackopt.errors import ArtifactError, UsageError
from blackopt.types import Artifact

MEDIA_TYPE = "application/vnd.blackopt.keyed"
SIZE = 24
_FORMAT = 0x4B
_GROUP = 4 * BLOCK  # 256 KB of float32
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True)
class Keyed:
    """A candidate by key.

    Attributes:
        version: of the centre, 0 <= version < 2^48.
        key: of the noise, 0 <= key < 2^64; twins share it.
        sign: +1 or -1.
        sigma: the step, in the units of the parameters; > 0 and finite.
        kind: normal numbers, signs, or normal numbers from a table.
    """

    version: int
    key: int
    sign: int
    sigma: float
    kind: Kind = Kind.NORMAL

    def __post_init__(self) -> None:
        for name, value, bits in (("version", self.version, 48), ("key", self.key, 64)):
            if not 0 <= value < 1 << bits:
                raise UsageError(f"Keyed: {name} must be in 0 .. 2^{bits} - 1, got {value}")
        if self.sign not in (1, -1):
            raise UsageError(f"Keyed: sign must be 1 or -1, got {self.sign}")
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise UsageError(f"Keyed: sigma must be > 0 and finite, got {self.sigma}")

    def encode(self) -> Artifact:
        """24 bytes."""
        flags = (self.sign < 0) | self.kind << 1
        version = self.version.to_bytes(6, "little")
        body = struct.pack("<BB6sQd", _FORMAT, flags, version, self.key, self.sigma)
        return Artifact(body, MEDIA_TYPE)

    @classmethod
    def decode(cls, body: bytes) -> Keyed:
        """Read what :meth:`encode` wrote.

        Raises:
            ArtifactError: it is something else, or damaged.
        """
        try:
            form, flags, version, key, sigma = struct.unpack("<BB6sQd", body)
            if form != _FORMAT:
                raise ValueError(f"byte 0 is {form:#04x}, which no version of this format has")
            return cls(
                int.from_bytes(version, "little"), key, -1 if flags & 1 else 1, sigma, Kind(flags >> 1)
            )
        except (struct.error, ValueError) as error:
            raise ArtifactError(
                "this is not a candidate by key",
                where=f"{len(body)} bytes that begin with {body[:SIZE].hex()}",
                why=str(error),
                safe="nothing was rebuilt from it",
                next_step="send the artifact again; docs/artifacts.md lists what each byte is",
            ) from error


def perturb(
    centre: NDArray[Any], candidate: Keyed, seed: int, *, offset: int = 0, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """The candidate's values where the centre has these.

    Each is ``float64(centre) + (sign * sigma) * noise`` in float64, rounded once to the centre's type, so
    that another implementation can be equal to the last bit. Noise of a table over a float32 centre takes
    float32 throughout, the product rounded, then the sum, which is the fastest.

    Args:
        centre: float32 or float64 of any shape, taken row by row.
        candidate: which one.
        seed: of the campaign, 0 <= seed < 2^64.
        offset: how many numbers of the model come before ``centre``.
        out: where to put the values, contiguous, with the shape and type of ``centre``, which it may be.

    Raises:
        UsageError: a type, a shape or a number is out of its range, or a value overflows.
    """
    if centre.dtype not in _FLOATS:
        raise UsageError(f"perturb: the centre must be float32 or float64, got {centre.dtype}")
    if out is None:
        out = np.empty(centre.shape, centre.dtype)
    elif out.shape != centre.shape or out.dtype != centre.dtype or not out.flags.c_contiguous:
        raise UsageError(
            f"perturb: out must be contiguous {centre.dtype} {centre.shape}, got {out.dtype} {out.shape}"
        )
    given, made = centre.reshape(-1), out.reshape(-1)
    if candidate.kind is Kind.TABLE and centre.dtype == np.float32:
        finite = _perturb_narrow(given, candidate, seed, offset, made)
    else:
        finite = _perturb_wide(given, candidate, seed, offset, made)
    if not finite:
        raise UsageError(
            f"perturb: centre or candidate is not finite in {centre.dtype} (sigma {candidate.sigma})"
        )
    return out


def _perturb_wide(given: NDArray[Any], candidate: Keyed, seed: int, offset: int, made: NDArray[Any]) -> bool:
    """Whether all are finite."""
    step = candidate.sign * candidate.sigma
    finite = True
    for first, part in chunks(seed, candidate.key, given.size, offset=offset, kind=candidate.kind):
        place = slice(first, first + len(part))
        with np.errstate(over="ignore"):  # reported by the caller, for all parts at once
            np.multiply(part, step, out=part)
            np.add(part, given[place], out=part)
            made[place] = part
        finite = finite and bool(np.isfinite(made[place]).all())
    return finite


def _perturb_narrow(
    given: NDArray[np.float32], candidate: Keyed, seed: int, offset: int, made: NDArray[np.float32]
) -> bool:
    """The same in float32: products block by block, sums for a few blocks at a time, in the cache."""
    check(seed, candidate.key, given.size, offset)
    room = np.empty(_GROUP, np.float32) if np.may_share_memory(given, made) else None
    finite = True
    with np.errstate(over="ignore", invalid="ignore"):  # reported by the caller, for all parts at once
        forth = np.array(candidate.sign * candidate.sigma, np.float32)
        back = np.negative(forth)
        begin = 0
        moved = made[:_GROUP] if room is None else room
        for first, stretch, sign in stretches(seed, candidate.key, given.size, offset):
            end = first + len(stretch)
            np.multiply(stretch, forth if sign > 0 else back, moved[first - begin : end - begin])
            if end == given.size or end - begin > _GROUP - BLOCK:  # the next block might not fit
                place = made[begin:end]
                np.add(moved[: end - begin], given[begin:end], place)
                # One pass: no sum is finite where a number is not. One that overflowed is looked at again.
                finite = finite and (math.isfinite(np.einsum("i->", place)) or bool(np.isfinite(place).all()))
                begin = end
                moved = made[end : end + _GROUP] if room is None else room
    return finite


def rebuild(centre: Mapping[str, NDArray[Any]], candidate: Keyed, seed: int) -> dict[str, NDArray[Any]]:
    """The whole candidate from the tensors of its centre.

    Tensors of float32 and float64 take noise, in the order of their names (by code point); others stay.

    Raises:
        UsageError: as :func:`perturb`.
    """
    made: dict[str, NDArray[Any]] = {}
    offset = 0
    for name in sorted(centre):
        tensor = centre[name]
        if tensor.dtype in _FLOATS:
            made[name] = perturb(tensor, candidate, seed, offset=offset)
            offset += tensor.size
        else:
            made[name] = tensor
    return made
