"""The units in which a result is compared with torch's in float64: bits, ulps, and two conditioned units.

A limit comes from the record of the op with the same name where there is one, so from the same published tables as
the conformance suite's. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np

from hal import ops
from hal.op import Array
from hal.testing.accuracy import ulp, unit_roundoff

TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Limit:
    """How far a result may be from torch's in float64.

    Attributes:
        unit: `exact`; `ulp`: units in the last place of each element; `terms`: u * f(|x|), of which
            min(K, 8 + 2 sqrt(K)) are allowed for a sum of K terms; `norm`: u times the largest magnitude, of the
            result or of what `magnitude` says.
        allowed: how many of them; for `terms` the number of further roundings, that is added to K.
        terms: `terms(*args, **kwargs)`: K, for all elements or for each; by default f of ones.
        magnitude: `magnitude(*args, **kwargs)`, f(|x|) or the largest magnitude on the way; by default f of the
            magnitudes for `terms`, and the largest magnitude of the result for `norm`. For losses `unreduced`: the
            mean or sum of the elements' magnitudes.
    """

    unit: Literal["exact", "ulp", "terms", "norm"] = "exact"
    allowed: float = 0
    terms: Callable[..., Any] | None = None
    magnitude: Callable[..., Any] | Literal["unreduced"] | None = None


EXACT = Limit()


def of(name: str) -> Limit:
    """The limit in the record of an op."""
    record = ops.TABLE[name].tolerance
    return Limit(record.unit, 0 if record.unit == "terms" else record.float32)


@dataclass(frozen=True)
class Verdict:
    """How one result compares: the largest error and what is allowed there, in `unit`; what is wrong, for people."""

    error: float
    allowed: float
    unit: str
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is within its limit."""
        return self.error <= self.allowed


def judge(limit: Limit, got: Array, want: Array, dtype: np.dtype[Any], scale: Any = None, terms: Any = 1) -> Verdict:
    """Compare a result with that of the oracle.

    Args:
        got: ours.
        want: the oracle's, in float64 where it is floating.
        dtype: what the result should have.
        scale: f(|x|) for `terms`, the largest magnitude on the way for `norm`, where it is not the result's own.
        terms: K, for `terms`.
    """
    if got.shape != want.shape:
        return Verdict(np.inf, 0, "exact", f"shape {got.shape}, torch gives {want.shape}")
    if got.dtype != dtype:
        return Verdict(np.inf, 0, "exact", f"dtype {got.dtype}, torch gives {dtype}")
    if got.dtype.kind in "biu":
        return _verdict((got != want).astype(float), np.zeros(got.shape), "exact", got, want)
    info = ml_dtypes.finfo(got.dtype)
    y, r = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(all="ignore"):
        rounded = r.astype(got.dtype).astype(np.float64)
    same = (y == rounded) | (np.isnan(y) & np.isnan(r))
    finite = np.isfinite(y) & np.isfinite(r) & np.isfinite(rounded)
    at_the_edge = np.isfinite(r) & (np.abs(r) > 0.999 * float(info.max))  # may overflow or not
    wrong = ~same & ~finite & ~at_the_edge
    if limit.unit == "exact" or wrong.any():
        return _verdict(np.where(same, 0, np.inf), np.zeros(got.shape), limit.unit, got, want)
    error = np.where(finite, np.abs(y - np.where(finite, r, 0)), 0)
    u = unit_roundoff(_dtype(got.dtype))
    if limit.unit == "ulp":
        own = 2 if got.dtype == np.float64 else 0  # the oracle is in float64 itself
        allowed = np.full(got.shape, max(limit.allowed, 0.5) + own + 1e-3)
        return _verdict(error / ulp(np.where(finite, r, 1), _dtype(got.dtype)), allowed, "ulp", got, want)
    if limit.unit == "norm":
        largest = float(
            np.max(np.abs(r if scale is None else scale), initial=0, where=finite if scale is None else True)
        )
        return _verdict(error / (u * max(largest, TINY)), np.full(got.shape, limit.allowed), "norm", got, want)
    scale = np.abs(r if scale is None else np.asarray(scale, np.float64))
    count = np.maximum(np.broadcast_to(np.asarray(terms, np.float64), got.shape), 1) + limit.allowed
    allowed = np.minimum(count, 8 + 2 * np.sqrt(count)) + 1e-3
    with np.errstate(all="ignore"):
        units = np.where(finite, error / (u * np.maximum(scale, TINY)), 0)
    return _verdict(units, allowed, "terms", got, want)


def _dtype(dtype: np.dtype[Any]) -> Any:
    from hal import dtypes

    return dtypes.of(dtype)


def _verdict(error: Array, allowed: Array, unit: str, got: Array, want: Array) -> Verdict:
    if error.size == 0:
        return Verdict(0.0, 0.0, unit)
    over = ~(error <= allowed)  # a NaN is over
    ratio = np.where(over, np.inf, error / np.maximum(allowed, 1e-30))
    at = np.unravel_index(int(np.argmax(np.where(over, 1e30 + np.nan_to_num(error), ratio))), error.shape)
    place = tuple(int(i) for i in at)
    found = float(np.nan_to_num(error[at], nan=np.inf))
    text = f"at {place} got {got[at]!r}, torch {want[at]!r}; {int(over.sum())} of {error.size}" if over.any() else ""
    return Verdict(found, float(allowed[at]), unit, text)
