"""Judges results against the float64 reference, in the units that an op's tolerance is stated in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import ml_dtypes
import numpy as np

from hal import dtypes
from hal.device import Device
from hal.dtypes import DType
from hal.op import Array, Op, Sample, Tolerance
from hal.spec import Spec
from hal.testing.inputs import widened

BINS = (0.5, 1, 2, 4, 8, 16, 64, 1024)  # upper ends, in units in the last place; the last bin is what is larger
# Ops whose results have the sign that the standards say, even if they are zero; moving elements keeps theirs anyway.
# Source: IEEE 754-2019, section 6.3; Python array API 2024.12, special cases.
SIGNED_ZEROS = frozenset((
    "abs", "add", "cast", "ceil", "copysign", "div", "floor", "mul", "neg", "round", "sqrt", "sub", "take", "trunc",
    "where",
))  # fmt: skip
_FLOATS = ("float16", "bfloat16", "float32", "float64")
ROUNDING = 0.5 + 1e-3  # units in the last place that rounding once may cost, the reference's own rounding included


@dataclass(frozen=True)
class Verdict:
    """How one result compares with the reference.

    Attributes:
        error: the largest error, in `unit`; infinite where a NaN, an infinity, a shape or a dtype is wrong.
        allowed: the largest that the op's record allows.
        unit: `ulp`, `terms`, `norm`, or `exact` for integers and bools.
        detail: what is wrong and where, for people.
        at: index of the element with the largest error; None where there are no elements.
        ulps: the largest error in units in the last place, whatever `unit` is.
        histogram: number of elements in each of `BINS`, and beyond the last.
        result: which result it is about, of an op with several.
    """

    error: float
    allowed: float
    unit: str
    detail: str = ""
    at: tuple[int, ...] | None = None
    ulps: float = 0.0
    histogram: tuple[int, ...] = ()
    result: int = 0

    @property
    def passed(self) -> bool:
        """Whether the error is within what is allowed."""
        return self.error <= self.allowed


def cast_inputs(sample: Sample, dtype: DType) -> tuple[Array, ...]:
    """The sample's inputs with floating ones in `dtype`, strides kept as far as NumPy keeps them."""
    inputs = tuple(np.asarray(x) for x in sample.inputs)
    if sample.exact:
        return inputs
    with np.errstate(over="ignore"):
        return tuple(x.astype(dtype.numpy) if dtypes.of(x.dtype).is_floating else x for x in inputs)


def expected(op: Op, inputs: tuple[Array, ...], settings: Mapping[str, Any]) -> tuple[Array, ...]:
    """What the reference says, one array per result."""
    promoted = inputs
    if op.promote is not None:
        wanted = op.promote(*(dtypes.of(x.dtype) for x in inputs))
        promoted = tuple(x.astype(w.numpy) for x, w in zip(inputs, wanted, strict=True))
    with np.errstate(all="ignore"):
        result = op.reference(*(widened(x) for x in promoted), **settings)
    return tuple(np.asarray(r) for r in result) if isinstance(result, tuple) else (np.asarray(result),)


def specs_of(op: Op, inputs: tuple[Array, ...], settings: Mapping[str, Any]) -> tuple[Spec, ...]:
    """The specs of the inputs after the op's promotion."""
    given = [dtypes.of(x.dtype) for x in inputs]
    wanted = op.promote(*given) if op.promote is not None else given
    return tuple(Spec(x.shape, d) for x, d in zip(inputs, wanted, strict=True))


def _info(dtype: DType) -> Any:
    """Limits of a floating-point type, bfloat16 included."""
    return ml_dtypes.finfo(dtype.numpy)


def unit_roundoff(dtype: DType) -> float:
    """Half the distance from 1 to the next number."""
    return float(_info(dtype).eps) / 2


def ulp(values: Array, dtype: DType) -> Array:
    """The distance between neighbouring numbers of `dtype` at `values`."""
    info = _info(dtype)
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log2(np.maximum(np.abs(values), float(info.tiny))))
        return np.asarray(np.exp2(exponent) * float(info.eps))


def judge(
    op: Op,
    inputs: tuple[Array, ...],
    settings: Mapping[str, Any],
    got: tuple[Array, ...],
    specs: tuple[Spec, ...],
    stated: Tolerance | None = None,
) -> Verdict:
    """The worst verdict over all results of one call; `specs` are those that the op's record infers for them.

    `stated` is what a device states about its accuracy: it holds instead of the record's tolerance.
    """
    if stated is not None:
        op = replace(op, tolerance=stated)
    wants = expected(op, inputs, settings)
    if len(got) != len(wants):
        return Verdict(np.inf, 0, "exact", f"{len(got)} results, the reference gives {len(wants)}")
    verdicts = [
        _judge_one(op, inputs, settings, g, w, s, i) for i, (g, w, s) in enumerate(zip(got, wants, specs, strict=True))
    ]
    worst = max(verdicts, key=lambda v: (not v.passed, v.error / v.allowed if v.allowed else v.error))
    counted = [v.histogram for v in verdicts if v.histogram]
    total = tuple(int(n) for n in np.sum(counted, axis=0)) if counted else ()
    return replace(worst, histogram=total, ulps=max(v.ulps for v in verdicts), result=verdicts.index(worst))


def _judge_one(
    op: Op, inputs: tuple[Array, ...], settings: Mapping[str, Any], got: Array, want: Array, spec: Spec, index: int
) -> Verdict:
    if got.shape != spec.shape or want.shape != spec.shape:
        return Verdict(
            np.inf, 0, "exact", f"shape {got.shape}, infer says {spec.shape}, the reference gives {want.shape}"
        )
    if got.dtype != spec.dtype.numpy:
        return Verdict(np.inf, 0, "exact", f"dtype {got.dtype}, infer says {spec.dtype.name}")
    if not spec.dtype.is_inexact:
        wrong = _words(got) != _words(want.astype(got.dtype))
        return Verdict(float(wrong.sum()), 0, "exact", _where(got, want, wrong), _first(wrong))
    if spec.dtype.kind == "complex":
        with np.errstate(all="ignore"):
            scale = np.maximum(np.abs(want), float(np.finfo(got.dtype).tiny))
            ulps = np.abs(got - want) / (scale * float(np.finfo(got.dtype).eps))
        ulps = np.where((got == want) | (np.isnan(got) & np.isnan(want)), 0, ulps)
        return _worst(ulps, 4 + _allowed(op, spec.dtype), "ulp", got, want, ulps)
    return _judge_real(op, inputs, settings, got, want, spec, index)


def _words(x: Array) -> Array:
    """`x` as it lies in memory, where a bool that is neither 0 nor 1 shows."""
    return np.ascontiguousarray(x).view(np.uint8).reshape(x.shape) if x.dtype == np.bool_ else x


def _allowed(op: Op, dtype: DType) -> float:
    name = {"complex64": "float32", "complex128": "float64"}.get(dtype.name, dtype.name)
    return float(getattr(op.tolerance, name))


def _judge_real(
    op: Op, inputs: tuple[Array, ...], settings: Mapping[str, Any], got: Array, want: Array, spec: Spec, index: int
) -> Verdict:
    with np.errstate(all="ignore"):  # signalling NaN among the inputs
        rounded = want.astype(spec.dtype.numpy).astype(np.float64)
        y = got.astype(np.float64)
        odd = (np.isnan(y) != np.isnan(want)) | (
            np.isinf(y) & ~np.isinf(rounded) & (np.abs(want) < _nearly_max(spec.dtype))
        )
        odd |= np.isinf(want) & (y != want)
        if op.kind == "movement" or op.name in SIGNED_ZEROS:
            odd |= (y == 0) & (want == 0) & (np.signbit(y) != np.signbit(want))
    if odd.any():
        return Verdict(np.inf, _allowed(op, spec.dtype), op.tolerance.unit, _where(got, want, odd), _first(odd), np.inf)
    finite = np.isfinite(want) & np.isfinite(rounded) & np.isfinite(y)
    error = np.abs(np.where(finite, y, 0) - np.where(finite, want, 0))
    last_place = ulp(np.where(finite, want, 1), spec.dtype)
    ulps = error / last_place
    allowed = _allowed(op, spec.dtype)
    unit = op.tolerance.unit
    if unit == "ulp":
        slack = 2 if spec.dtype is dtypes.float64 and allowed else 0  # the reference itself is in float64
        if op.tolerance.conditioned and (ulps > max(allowed, ROUNDING) + slack).any():
            beyond = np.maximum(error - _spread(op, inputs, settings, want, spec.dtype), 0)
            return _worst(beyond / last_place, max(allowed, ROUNDING) + slack, unit, got, want, ulps)
        return _worst(ulps, max(allowed, ROUNDING) + slack, unit, got, want, ulps)
    u = unit_roundoff(spec.dtype)
    excess = np.maximum(error - 0.5 * last_place, 0)  # rounding the result once is always allowed
    if unit == "norm":
        largest = float(np.abs(want[finite]).max(initial=0.0))
        if op.magnitude is not None:
            largest = max(largest, float(op.magnitude(*(widened(x) for x in inputs), **settings)))
        return _worst(excess / (u * max(largest, float(np.finfo(np.float32).tiny))), allowed, unit, got, want, ulps)
    assert op.terms is not None, f"{op.name} has a tolerance in terms and does not say how many there are"
    terms = max(1, op.terms(*specs_of(op, inputs, settings), **settings))
    absolute = tuple(np.abs(x) if dtypes.of(x.dtype).is_inexact else x for x in inputs)
    scale = np.maximum(expected(op, absolute, settings)[index], float(np.finfo(np.float32).tiny))
    accumulating = dtypes.float32 if spec.dtype in (dtypes.float16, dtypes.bfloat16) else spec.dtype
    with np.errstate(all="ignore"):
        units = np.where(finite, excess / (unit_roundoff(accumulating) * np.where(finite, scale, 1)), 0)
    return _worst(units, min(terms, 8 + 2 * sqrt(terms)) + 1 + allowed, unit, got, want, ulps)


def _spread(op: Op, inputs: tuple[Array, ...], settings: Mapping[str, Any], want: Array, dtype: DType) -> Array:
    """How far the result moves when an input moves by its last place, and what is lost if it is too small to be normal.

    Source: mixed forward-backward error, N. Higham, "Accuracy and Stability of Numerical Algorithms", section 1.5.
    """
    with np.errstate(all="ignore"):
        largest = np.maximum(1, np.max([np.abs(np.broadcast_to(widened(x), want.shape)) for x in inputs], axis=0))
        spread = np.where(np.isfinite(largest), largest, 0) * float(_info(dtype).tiny)
        for i, x in enumerate(inputs):
            for end in (np.inf, -np.inf):
                beside = np.nextafter(x, np.asarray(end, x.dtype))
                moved = expected(op, (*inputs[:i], beside, *inputs[i + 1 :]), settings)[0]
                spread = np.fmax(spread, np.abs(moved - want))  # a NaN is no distance
    return spread


def products_cost(device: Device, op: Op, dtype: DType) -> float:
    """Roundings of `dtype` that a gradient through `op`, or a network with it, may be off by on top of the usual.

    Nothing on most devices. On one that states how far its products are from exact ones, four times that: a gradient
    goes through the product's own, that of its gradient, and through those of what it is made of.
    """
    stated = device.backend.tolerance(op, dtype)
    return 0.0 if stated is None or dtype.name not in _FLOATS else 4 * float(getattr(stated, dtype.name))


def _nearly_max(dtype: DType) -> float:
    return float(_info(dtype).max) * 0.999


def _worst(units: Array, allowed: float, unit: str, got: Array, want: Array, ulps: Array) -> Verdict:
    if units.size == 0:
        return Verdict(0.0, allowed, unit)
    flat = int(np.argmax(units))  # a NaN, which is no error that can be measured, comes first
    error = float(units.reshape(-1)[flat])
    counts = np.bincount(np.searchsorted(BINS, ulps.reshape(-1)), minlength=len(BINS) + 1)
    return Verdict(
        np.inf if np.isnan(error) else error,
        allowed,
        unit,
        "" if error <= allowed else _where(got, want, ~(units <= allowed)),
        tuple(int(i) for i in np.unravel_index(flat, units.shape)),
        float(ulps.max()),
        tuple(counts.tolist()),
    )


def _first(wrong: Array) -> tuple[int, ...] | None:
    """Index of the first element that is wrong."""
    return tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.any() else None


def _where(got: Array, want: Array, wrong: Array) -> str:
    at = _first(wrong)
    if at is None:
        return ""
    return f"{int(wrong.sum())} of {wrong.size} elements differ; at {at} got {got[at]}, the reference says {want[at]}"
