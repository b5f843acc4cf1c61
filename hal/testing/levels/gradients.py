"""Gradients: of each op on the device, beside those of an exact device in float64 and finite differences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import hal
from hal import dtypes, ops, report
from hal.device import Device
from hal.dtypes import DType
from hal.op import Array, Op
from hal.policy import fallback
from hal.tensor import Tensor
from hal.testing.accuracy import expected, products_cost, ulp, unit_roundoff
from hal.testing.calls import (
    FLOATS,
    Call,
    call_of,
    fetch,
    foreign_result,
    has_floats,
    roundtrip_of,
    samples_of,
    why_declined,
)
from hal.testing.case import Case, Level, Outcome
from hal.testing.checks import exact_device
from hal.testing.inputs import widened

LARGEST = 1500  # elements of the inputs of a call: finite differences of more say nothing new
CALLS = {"float32": 6, "float64": 3, "float16": 2, "bfloat16": 2}  # of each op
ALLOWED = 64.0
SOURCE = "roundings of some tens of terms, each as large as the largest gradient or the gradient that came in"
STEP, DIFFERENCES = 1e-6, 2e-5  # of the finite differences, and how far they may be from the exact gradient


def differentiable(op: Op) -> bool:
    """Whether the op has a gradient, its own or that of its decomposition."""
    return (op.gradient is not None or op.decompose is not None) and not op.no_gradient


@dataclass(frozen=True)
class Slopes:
    """The gradient of a weighted sum of a call's results: one array for each floating input, None where it is none."""

    inputs: list[int]
    arrays: list[Array | None]


def slopes(device: Device, call: Call, weights: list[Array], dtype: DType) -> Slopes | None:
    """The gradient on a device with floating inputs in `dtype`; None where nothing depends on them."""
    floating = [i for i, x in enumerate(call.inputs) if dtypes.of(x.dtype).is_floating]
    settings = {**call.settings, "device": device} if "device" in call.settings else call.settings
    tensors = [
        hal.tensor(x.astype(dtype.numpy) if i in floating else x, device=device, requires_grad=i in floating)
        for i, x in enumerate(call.inputs)
    ]
    result = call.op(*tensors, **settings)
    outs = result if isinstance(result, tuple) else (result,)
    pairs = [
        (out, hal.tensor(w.astype(out.dtype.numpy), device=out.device))
        for out, w in zip(outs, weights, strict=True)
        if out.dtype.is_floating and out.requires_grad
    ]
    if not pairs:
        return None
    found = hal.grad([o for o, _ in pairs], [tensors[i] for i in floating], [w for _, w in pairs], allow_unused=True)
    return Slopes(
        floating, [None if g is None else _fetched(g, tensors[i]) for i, g in zip(floating, found, strict=True)]
    )


def _fetched(g: Tensor, x: Tensor) -> Array:
    if g.spec is not x.spec:
        raise AssertionError(f"the gradient is {g.spec}, its input {x.spec}")
    if g.device is not x.device:
        raise AssertionError(f"the gradient of a tensor on {x.device} is on {g.device}")
    return fetch(g)


def _weights(call: Call, dtype: DType) -> list[Array]:
    rng = np.random.default_rng(1)
    return [np.asarray(rng.normal(size=s.shape)).astype(dtype.numpy) for s in call.results]


def _value(call: Call, inputs: list[Array], weights: list[Array]) -> float:
    """The weighted sum of the results, by the reference."""
    results = expected(call.op, tuple(inputs), call.settings)
    pairs = zip(results, weights, call.results, strict=True)
    return sum(float((r * widened(w)).sum()) for r, w, s in pairs if s.dtype.is_floating)


def differences(call: Call, weights: list[Array], exact: Slopes) -> str:
    """What is wrong with the op's own gradient, by finite differences of its reference in a random direction."""
    rng = np.random.default_rng(2)
    wide = [widened(x) for x in call.inputs]
    for k, g in zip(exact.inputs, exact.arrays, strict=True):
        if not wide[k].size:
            continue
        direction = rng.normal(size=wide[k].shape)
        ahead, behind = list(wide), list(wide)
        ahead[k], behind[k] = wide[k] + STEP * direction, wide[k] - STEP * direction
        want = (_value(call, ahead, weights) - _value(call, behind, weights)) / (2 * STEP)
        got = 0.0 if g is None else float((g * direction).sum())
        scale = max(1.0, abs(want), float(np.abs(direction).sum()) * 1e-2)
        if not abs(got - want) <= DIFFERENCES * scale:
            return f"by the op's record the slope along input {k} is {got:.9g}, by finite differences {want:.9g}"
    return ""


def compare(got: Slopes, want: Slopes, weights: list[Array], dtype: DType) -> tuple[float, str]:
    """The largest error in units of rounding of the largest gradient, and what is wrong besides."""
    u, worst = unit_roundoff(dtype), 0.0
    incoming = max((float(np.abs(widened(w)).max(initial=0.0)) for w in weights), default=1.0)
    for k, g, w in zip(want.inputs, got.arrays, want.arrays, strict=True):
        if w is None or g is None:
            present = w if g is None else g
            if present is not None and np.abs(widened(present)).max(initial=0.0) > 0:
                return np.inf, f"there is {'no' if g is None else 'a'} gradient to input {k}"
            continue
        y = widened(g)
        if (np.isfinite(y) != np.isfinite(w)).any():
            return np.inf, f"gradient to input {k}: not finite where it should be, or the other way round"
        with np.errstate(all="ignore"):
            error = np.where(np.isfinite(w), np.abs(y - w) - 0.5 * ulp(np.where(np.isfinite(w), w, 1), dtype), 0)
        scale = max(float(np.abs(w[np.isfinite(w)]).max(initial=0.0)), incoming, float(np.finfo(np.float32).tiny))
        worst = max(worst, float(error.max(initial=0.0)) / (u * scale))
    return worst, ""


def _fitting(op: Op, dtype: DType) -> list[int]:
    found = []
    for i, sample in enumerate(samples_of(op.name)):
        size = sum(np.size(x) for x in sample.inputs)
        if sample.smooth and has_floats(sample) and size <= LARGEST:
            found.append(i)
    return found[: CALLS[dtype.name]]


def _run(device: Device, op: Op, dtype: DType) -> Outcome:
    if not device.backend.training:
        return Outcome("declined", detail=f"{device.type} declares that it does not train")
    worst, moved, fell, at, foreign = 0.0, 0, set[str](), "", ""
    allowed = ALLOWED + products_cost(device, op, dtype)
    for i in _fitting(op, dtype):
        call = call_of(op.name, i, dtype, device)
        declined = why_declined(device, call)
        if declined:
            return Outcome("declined", detail=declined)
        if foreign_result(device, call):
            foreign = foreign_result(device, call)
            continue
        weights = _weights(call, dtype)
        want = slopes(exact_device(), call, weights, dtypes.float64)
        if want is None:
            continue
        with fallback("allow"), report.placement_report() as counted:
            got = slopes(device, call, weights, dtype)
        moved += sum(e.bytes for e in counted.fallbacks.values())
        fell |= {e.what for e in counted.fallbacks.values()}
        if got is None:
            return Outcome("wrong", detail=f"{call}: nothing was recorded, so there is no gradient")
        error, problem = compare(got, want, weights, dtype)
        problem = problem or (differences(call, weights, want) if dtype is FLOATS[0] else "")
        if error > allowed or problem:
            problem = problem or f"the gradient is off by {error:.3g} units of rounding of the largest"
            return Outcome("wrong", error, allowed, "gradient", SOURCE, detail=f"{call}: {problem}", bytes=moved)
        worst, at = max((worst, at), (error, str(i)))
    if not at and foreign:
        return Outcome("declined", detail=foreign)
    reason = f"{', '.join(sorted(fell))} fell back" if fell else ""
    return Outcome("fallback" if fell else "native", worst, allowed, "gradient", SOURCE, reason=reason, bytes=moved)


def _case(op: Op, dtype: DType) -> Case:
    return Case(
        f"gradients/{op.name}/{dtype.name}", lambda device: _run(device, op, dtype), op.name, dtype.name,
        (roundtrip_of(dtype),),
    )  # fmt: skip


def cases(device: Device) -> Iterator[Case]:
    """Each op that has a gradient, in each floating dtype of the device."""
    for dtype in FLOATS:
        if dtype in device.backend.dtypes:
            for _, op in sorted(ops.TABLE.items()):
                if differentiable(op) and _fitting(op, dtype):
                    yield _case(op, dtype)


LEVEL = Level("gradients", "each op's gradient, beside the exact one in float64 and finite differences", 70, cases)
