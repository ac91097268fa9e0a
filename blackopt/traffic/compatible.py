"""Splitters of other systems, number for number: where a unit falls, as a float in [0, 1).

For modules that hand out traffic with GrowthBook, Unleash, PlanOut or LaunchDarkly already, and keep doing
so: with these a pipeline computes the same assignment without their libraries, for example to reserve the
part ``[0.9, 1)`` of an existing experiment for blackopt, or to test that a log agrees with its splitter.
:func:`part_of` finds a number among weights that are cut as blackopt cuts its slices. The analysis itself
joins logged exposures and never computes an assignment again.

None of them is imported or copied: each is written from the hash that its project documents, and held to the
vectors that the project publishes (``tests/traffic/test_compatible_splitters.py`` names them).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from blackopt.errors import UsageError

UNLEASH_STRATEGY_SEED = 0
UNLEASH_VARIANT_SEED = 86_028_157

_MASK = 0xFFFF_FFFF
_LARGEST = 0xFFF_FFFF_FFFF_FFFF
_BELOW_ONE = math.nextafter(1.0, 0.0)


def growthbook_v1(seed: str, unit: str) -> float:
    """GrowthBook, ``hashVersion`` 1: fnv1a32(unit + seed) mod 1000, in thousandths.

    It is kept by GrowthBook for old experiments only: experiments with the same units are correlated in it.
    """
    return _fnv1a32(_text(unit) + seed) % 1_000 / 1_000


def growthbook_v2(seed: str, unit: str) -> float:
    """GrowthBook, ``hashVersion`` 2: fnv1a32 of the decimal digits of fnv1a32(seed + unit), mod 10,000, in
    ten-thousandths.
    """
    return _fnv1a32(str(_fnv1a32(seed + _text(unit)))) % 10_000 / 10_000


def unleash(group: str, unit: str, *, parts: int = 100) -> float:
    """Unleash's gradual rollout: murmur3 of ``group:unit`` with seed 0, mod ``parts``, in ``parts``-ths.

    Unleash counts from 1 to ``parts`` and enables a rollout of p % for numbers up to p: here u < p/100. The
    group is the strategy's ``groupId``, by default the flag's name.

    Raises:
        UsageError: fewer than one part, or a unit without an id.
    """
    return _unleash(group, unit, parts, UNLEASH_STRATEGY_SEED)


def unleash_variant(group: str, unit: str, *, parts: int = 1_000) -> float:
    """Which variant Unleash gives: as :func:`unleash`, with seed 86028157, so that variants do not depend on
    who is in the rollout.

    Args:
        group: the flag's name, or the strategy's ``groupId`` for variants of a strategy.
        unit: what it is sticky to.
        parts: the sum of the variants' weights; Unleash's interface writes 1000.

    Raises:
        UsageError: as for :func:`unleash`.
    """
    return _unleash(group, unit, parts, UNLEASH_VARIANT_SEED)


def planout(salt: str, unit: str) -> float:
    """PlanOut: the first 60 bits of SHA-1 of ``salt.unit`` over 16^15 − 1, the number behind its operators.

    The salt is the experiment's and the parameter's, joined by a dot: ``button_test.colour``. Several units
    are joined by dots as well. blackopt's own splitter is this one, cut into millionths.
    """
    return _sha1(f"{salt}.{_text(unit)}")


def launchdarkly(flag: str, salt: str, unit: str) -> float:
    """LaunchDarkly's percentage rollouts: the same 60 bits of SHA-1 of ``flag.salt.unit``."""
    return _sha1(f"{flag}.{salt}.{_text(unit)}")


def launchdarkly_seeded(seed: int, unit: str) -> float:
    """LaunchDarkly's experiments, which carry a seed in place of flag and salt: ``seed.unit``."""
    return _sha1(f"{seed}.{_text(unit)}")


def part_of(u: float, weights: Sequence[float]) -> int | None:
    """The index of the part that u lies in, when [0, 1) is cut by weights in their order; None beyond them.

    Weights are parts of all units: a control of 18 % and four arms of 10 % are ``[0.18] + 4 * [0.1]``, and
    42 % take no part. Bounds are summed exactly, so that no unit is on two sides of one.

    Raises:
        UsageError: u is outside [0, 1), a weight is negative or no number, or they add up to more than 1.
    """
    if not 0.0 <= u < 1.0:
        raise UsageError(f"u: expected a number in [0, 1), got {u!r}")
    total = math.fsum(weights)
    if not all(0.0 <= weight <= 1.0 for weight in weights) or total > 1.0 + 1e-9:
        raise UsageError(f"weights: expected numbers from 0 that add up to at most 1, got {list(weights)!r}")
    for index in range(len(weights)):
        if u < math.fsum(weights[: index + 1]):
            return index
    return None


def _unleash(group: str, unit: str, parts: int, seed: int) -> float:
    if parts < 1:
        raise UsageError(f"parts: expected at least 1, got {parts!r}")
    return _murmur3(f"{group}:{_text(unit)}".encode(), seed) % parts / parts


def _sha1(key: str) -> float:
    # The largest hashes round to 1.0, which would be in nobody's interval.
    return min(_sixty_bits(key) / _LARGEST, _BELOW_ONE)


def _sixty_bits(key: str) -> int:
    # Not for secrecy: it is the hash that these systems chose.
    return int(hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()[:15], 16)


def _fnv1a32(text: str) -> int:
    """FNV-1a of 32 bits, over UTF-16 code units as GrowthBook's JavaScript has them: bytes for ASCII."""
    units = text.encode("utf-16-le")
    value = 0x811C_9DC5
    for low, high in zip(units[::2], units[1::2], strict=True):
        value = (value ^ (low | high << 8)) * 0x0100_0193 & _MASK
    return value


def _murmur3(data: bytes, seed: int) -> int:
    """MurmurHash3 x86 of 32 bits (Austin Appleby, public domain)."""
    value = seed
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        value ^= _scramble(int.from_bytes(data[at : at + 4], "little"))
        value = (_rotate(value, 13) * 5 + 0xE654_6B64) & _MASK
    value ^= _scramble(int.from_bytes(data[whole:], "little"))  # no bytes left: scramble(0) = 0
    value ^= len(data)
    value = (value ^ value >> 16) * 0x85EB_CA6B & _MASK
    value = (value ^ value >> 13) * 0xC2B2_AE35 & _MASK
    return value ^ value >> 16


def _scramble(block: int) -> int:
    return _rotate(block * 0xCC9E_2D51 & _MASK, 15) * 0x1B87_3593 & _MASK


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & _MASK


def _text(unit: str) -> str:
    if not isinstance(unit, str) or not unit:
        raise UsageError(f"unit: expected the id of a unit as non-empty text, got {unit!r}")
    return unit
