"""Normalisation over the last axes, layer norm and RMS norm, and their gradients: a kernel over rows each."""

from __future__ import annotations

from math import prod
from typing import Any

from hal import ops
from hal.codegen.folds import sums
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.composed import Out, Run, composite, folded, shaped, widely
from hal.codegen.kernels.movement import in_rows, into
from hal.codegen.kernels.rows import Rows, wide_of
from hal.codegen.kernels.runtime import Runtime
from hal.codegen.kernels.table import kernels
from hal.plugin import Spec

_MEAN = ("sum", "total", "x_")
_SPREAD = ("sum", "squares", "(x_ - total / length) * (x_ - total / length)")
_NORMAL = "const @V mean = total / length; const @V inverse = 1 / sqrt(squares / length + eps);"
_AFFINE = {0: "(x_ - mean) * inverse", 1: "(x_ - mean) * inverse * w_", 2: "(x_ - mean) * inverse * w_ + b_"}
LAYER_NORM = {
    count: Rows(
        "layer_norm", ("x", "y"), vectors=("w", "b")[:count], numbers=(("@V", "eps"),), folds=(_MEAN, _SPREAD),
        lines=_NORMAL, element=(("y", text),),
    )
    for count, text in _AFFINE.items()
}  # fmt: skip
RMS_NORM = {
    count: Rows(
        "rms_norm", ("x", "y"), vectors=("w",)[:count], numbers=(("@V", "eps"),),
        folds=(("sum", "squares", "x_ * x_"),),
        lines="const @V inverse = 1 / sqrt(squares / length + eps);",
        element=(("y", "x_ * inverse * w_" if count else "x_ * inverse"),),
    )
    for count in (0, 1)
}  # fmt: skip


def _normalised(x: Buffer, affine: tuple[Buffer, ...], dims: int, eps: float, table: dict[int, Rows]) -> Buffer:
    runtime = x.memory.runtime
    rows = table[len(affine)]
    out = runtime.empty(x.shape, x.dtype, rows.label)
    cut = len(x.shape) - dims
    shape = (prod(x.shape[:cut]), prod(x.shape[cut:]))
    given = {"x": in_rows(x), "y": out, "eps": eps, **dict(zip(("w", "b"), map(in_rows, affine), strict=False))}
    rows(runtime, shape, 1, wide_of(x.dtype), given)
    return out


@kernels.register(ops.layer_norm)
def layer_norm(x: Buffer, *affine: Buffer, dims: int, eps: float) -> Buffer:
    return _normalised(x, affine, dims, eps, LAYER_NORM)


@kernels.register(ops.rms_norm)
def rms_norm(x: Buffer, *weight: Buffer, dims: int, eps: float) -> Buffer:
    return _normalised(x, weight, dims, eps, RMS_NORM)


# The gradients. A row's kernel leaves behind what the gradient of the weight, a sum over rows, needs of it.

_OF_G = {0: "g_", 1: "g_ * w_"}
LAYER_NORM_GRADIENT = {
    count: Rows(
        "layer_norm_gradient", ("g", "x", "y"), values=("shift", "scale"), vectors=("w",)[:count],
        numbers=(("@V", "eps"),),
        folds=(_MEAN, _SPREAD, ("sum", "level", of_g), ("sum", "along", f"{of_g} * (x_ - total / length)")),
        lines=_NORMAL + " level /= length; along *= inverse * inverse / length;",
        element=(("y", f"inverse * ({of_g} - level - (x_ - mean) * along)"),),
        value=(("shift", "mean"), ("scale", "inverse")),
    )
    for count, of_g in _OF_G.items()
}  # fmt: skip
RMS_NORM_GRADIENT = {
    count: Rows(
        "rms_norm_gradient", ("g", "x", "y"), values=("scale",), vectors=("w",)[:count], numbers=(("@V", "eps"),),
        folds=(("sum", "squares", "x_ * x_"), ("sum", "along", f"{of_g} * x_")),
        lines="const @V inverse = 1 / sqrt(squares / length + eps); along *= inverse * inverse / length;",
        element=(("y", f"inverse * ({of_g} - x_ * along)"),), value=(("scale", "inverse"),),
    )
    for count, of_g in _OF_G.items()
}  # fmt: skip


def _gradient(
    runtime: Runtime, table: dict[int, Rows], x: Spec, weight: tuple[Spec, ...], dims: int, eps: float
) -> Run:
    rows, wide, values = table[len(weight)], wide_of(x.dtype), [n for n, _ in table[0].value]
    cut = len(x.shape) - dims
    last = x.shape[cut:]
    shape = (prod(x.shape[:cut]), prod(last))
    flat, one = x.with_shape(shape), Spec((shape[0], 1), wide)

    def terms(g: Any, x: Any, *found: Any) -> tuple[Any, ...]:
        g, x = widely(g), widely(x)
        return (g * ((x - found[0]) * found[1]), g) if len(found) == 2 else (g * (x * found[0]),)

    totals = folded(
        runtime, rows.label, (flat, flat, *[one] * len(values)), (0,), sums(len(values), wide), terms,
        lambda *made: tuple(ops.cast(y, dtype=x.dtype) for y in made[: len(values)]),
    )  # fmt: skip

    def run(g: Buffer, x: Buffer, *weight: Buffer, out: Out) -> tuple[Buffer, ...]:
        g, x = in_rows(g), in_rows(x)
        made = None if out[0] is None or not out[0].contiguous else out[0]
        y = runtime.empty(x.shape, x.dtype, rows.label) if made is None else made
        found = {name: runtime.empty(one.shape, wide, rows.label) for name in values}
        given = {"g": g, "x": x, "y": y, "eps": eps, **found, **dict(zip("w", map(in_rows, weight), strict=False))}
        rows(runtime, shape, 1, wide, given)
        seen = [v.view(shape, (shape[1], 1)) for v in (g, x)]
        rest = totals(*seen, *found.values(), out=out[1:])
        return into(y, out[0]), *(shaped(r, last) for r in rest)

    return run


@composite(ops.layer_norm_gradient)
def layer_norm_gradient(runtime: Runtime, g: Spec, x: Spec, *weight: Spec, dims: int, eps: float) -> Run:
    return _gradient(runtime, LAYER_NORM_GRADIENT, x, weight, dims, eps)


@composite(ops.rms_norm_gradient)
def rms_norm_gradient(runtime: Runtime, g: Spec, x: Spec, *weight: Spec, dims: int, eps: float) -> Run:
    return _gradient(runtime, RMS_NORM_GRADIENT, x, weight, dims, eps)
