"""Sums of raw samples, written out once more, by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest

Parts: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
Sums: TypeAlias = Callable[[Parts], dict[str, np.ndarray[Any, Any]]]


def _sums(parts: Parts) -> dict[str, np.ndarray[Any, Any]]:
    first = next(iter(parts.values()))
    found = {"n": np.full(first.shape[:-1], float(first.shape[-1]))}
    for name, sample in parts.items():
        column = "sum" if name == "num" else f"{name}_sum"
        found[column], found[f"{column}_sq"] = sample.sum(axis=-1), (sample * sample).sum(axis=-1)
    for a, b in (
        ("num", "den"), ("num", "cov"), ("num", "cov_den"), ("den", "cov"), ("den", "cov_den"),
        ("cov", "cov_den"),
    ):  # fmt: skip
        if a in parts and b in parts:
            found[f"{a}_{b}"] = (parts[a] * parts[b]).sum(axis=-1)
    return found


@pytest.fixture
def sums() -> Sums:
    """Columns of sums from samples ``num``, ``den``, ``cov``, ``cov_den``, over their last axis."""
    return _sums
