"""Average pooling over one to three spatial axes, and its gradient, which each window spreads evenly.

A window is divided by the number of its elements. Those that hang over the padded input (`ceil_mode`) never count;
padding counts with `count_include_pad` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.errors import ShapeError
from hal.op import SUMS, Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import FLOATS, check_kind, floating, uniform
from hal.ops.convolution import mirrored
from hal.ops.max_pooling import cases, check_padding, put_back
from hal.ops.precision import widened
from hal.ops.windows import LAYOUT, Sizes, at, check_layout, check_tuples, fit_windows, overhang, pad_spatial, windows
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _check(who: str, n: int, x: Spec, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool) -> Spec:
    """The spec of the result, or an error that says what was needed."""
    check_kind(who, x, FLOATS)
    check_layout(who, x, n)
    check_tuples(who, n, 1, kernel=kernel, stride=stride)
    check_tuples(who, n, 0, padding=padding)
    check_padding(who, padding, kernel)
    return Spec((*x.shape[:2], *fit_windows(who, x.shape[2:], kernel, stride, padding, (1,) * n, ceil_mode)), x.dtype)


def _infer(n: int) -> Callable[..., Spec]:
    def infer(
        x: Spec,
        *,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes = (0,) * n,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Spec:
        return _check(f"avg_pool{n}d", n, x, kernel, stride, padding, ceil_mode)

    return infer


def _infer_gradient(n: int) -> Callable[..., Spec]:
    who = f"avg_pool{n}d_gradient"

    def infer(
        g: Spec,
        *,
        sizes: Sizes,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes = (0,) * n,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Spec:
        check_layout(who, g, n)
        check_tuples(who, n, 0, sizes=sizes)
        x = Spec((*g.shape[:2], *sizes), g.dtype)
        wanted = _check(who, n, x, kernel, stride, padding, ceil_mode)
        if g is not wanted:
            raise ShapeError(
                f"{who} needs a gradient of the shape of the pooling's result, {wanted.shape}; got {g.shape}"
            )
        return x

    return infer


def divisors(
    sizes: Sizes, out: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, count_include_pad: bool
) -> list[list[int]]:
    """By how much windows are divided: one list for each axis, to be multiplied."""
    counts = []
    for size, o, k, s, p in zip(sizes, out, kernel, stride, padding, strict=True):
        low, high = (-p, size + p) if count_include_pad else (0, size)
        counts.append([min(start + k, high) - max(start, low) for start in range(-p, o * s - p, s)])
    return counts


# What they mean.


def _reference(
    x: Array, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool
) -> Array:
    sizes = x.shape[2:]
    out = fit_windows("avg_pool", sizes, kernel, stride, padding, (1,) * len(sizes), ceil_mode)
    counts = divisors(sizes, out, kernel, stride, padding, count_include_pad)
    result = np.empty((*x.shape[:2], *out), x.dtype)
    for place in np.ndindex(*out):
        corner = [i * s - p for i, s, p in zip(place, stride, padding, strict=True)]
        window = tuple(slice(max(c, 0), c + k) for c, k in zip(corner, kernel, strict=True))
        total = x[at(window)].sum(axis=tuple(range(2, x.ndim)))
        result[at(place)] = total / prod(c[i] for c, i in zip(counts, place, strict=True))
    return result


def _reference_gradient(
    g: Array, *, sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool
) -> Array:
    out = g.shape[2:]
    counts = divisors(sizes, out, kernel, stride, padding, count_include_pad)
    result = np.zeros((*g.shape[:2], *sizes), g.dtype)
    for place in np.ndindex(*out):
        corner = [i * s - p for i, s, p in zip(place, stride, padding, strict=True)]
        window = tuple(slice(max(c, 0), c + k) for c, k in zip(corner, kernel, strict=True))
        share = g[at(place)] / prod(c[i] for c, i in zip(counts, place, strict=True))
        result[at(window)] += share.reshape(*share.shape, *[1] * len(sizes))
    return result


# In simpler ops.


def _divided(x: Tensor, sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, count_include_pad: bool) -> Tensor:
    """`x`, one element for each window, divided by the numbers of elements in the windows."""
    out, even = x.shape[2:], 1
    for axis, counts in enumerate(divisors(sizes, out, kernel, stride, padding, count_include_pad)):
        if len(set(counts)) == 1:
            even *= counts[0]
            continue
        start = ops.iota(size=out[axis], dtype=dtypes.int64, device=x.device) * stride[axis] - padding[axis]
        low, high = (-padding[axis], sizes[axis] + padding[axis]) if count_include_pad else (0, sizes[axis])
        found = ops.minimum(start + kernel[axis], high) - ops.maximum(start, low)
        shape = tuple(n if i == axis + 2 else 1 for i, n in enumerate(x.shape))
        x = x / ops.reshape(ops.cast(found, dtype=x.dtype), shape=shape)
    return x if even == 1 else x / even


def _gradient(g: Tensor, out: Tensor, x: Tensor, **settings: Any) -> Grads:
    return (lambda: ops.TABLE[f"avg_pool{x.ndim - 2}d_gradient"](g, sizes=x.shape[2:], **settings),)


def _decompose(
    x: Tensor, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool
) -> Tensor:
    sizes, ones = x.shape[2:], (1,) * len(kernel)
    out = fit_windows("avg_pool", sizes, kernel, stride, padding, ones, ceil_mode)
    after = overhang(sizes, out, kernel, stride, padding, ones)
    seen = windows(pad_spatial(x, padding, after), out, kernel, stride, ones)
    total = ops.reshape(ops.sum(seen, axis=2), shape=(*x.shape[:2], *out))
    return _divided(total, sizes, kernel, stride, padding, count_include_pad)


def _gradient_of_gradient(g: Tensor, out: Tensor, given: Tensor, *, sizes: Sizes, **settings: Any) -> Grads:
    return (lambda: ops.TABLE[f"avg_pool{g.ndim - 2}d"](g, **settings),)


def _decompose_gradient(
    g: Tensor, *, sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool
) -> Tensor:
    out, ones = g.shape[2:], (1,) * len(kernel)
    after = overhang(sizes, out, kernel, stride, padding, ones)
    whole = tuple(size + p + a for size, p, a in zip(sizes, padding, after, strict=True))
    share = ops.reshape(
        _divided(g, sizes, kernel, stride, padding, count_include_pad), shape=(*g.shape[:2], 1, prod(out))
    )
    parts = ops.broadcast_to(share, shape=(*g.shape[:2], prod(kernel), prod(out)))
    return put_back(parts, whole, out, kernel, stride, padding, after, ones)


def _cost(given: Spec, *, out: Spec, kernel: Sizes, **settings: Any) -> Cost:
    return Cost(min(given.size, out.size) * prod(kernel), given.nbytes + out.nbytes)


def _terms(given: Spec, *, kernel: Sizes, **settings: Any) -> int:
    return prod(kernel) + 2  # two more roundings: the divisor may be multiplied by, after it was itself rounded


# Sample calls.


def _all_cases(n: int) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    for shape, settings in cases(n):
        yield shape, settings
        if "padding" in settings or "ceil_mode" in settings:
            yield shape, {**settings, "count_include_pad": False}


def _samples(n: int) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        for shape, settings in _all_cases(n):
            yield Sample((uniform(rng, shape),), settings, smooth=prod(shape) < 300)
        shape, settings = next(cases(n))
        yield Sample((mirrored(uniform(rng, shape)),), settings)

    return samples


def _samples_of_gradient(n: int) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        for i, (shape, settings) in enumerate(_all_cases(n)):
            plain: dict[str, Any] = {"padding": (0,) * n, "dilation": (1,) * n} | settings
            plain.pop("count_include_pad", None)
            g = uniform(rng, (*shape[:2], *fit_windows("sample", shape[2:], **plain)))
            yield Sample((g,), {"sizes": shape[2:], **settings}, smooth=prod(shape) < 300)
            if i == 2:
                yield Sample((mirrored(g),), {"sizes": shape[2:], **settings})

    return samples


def _avg_pool(n: int) -> Op:
    return Op(
        f"avg_pool{n}d", _infer(n), _reference, _samples(n), _gradient, widened(_decompose), _cost,
        promote=floating, terms=_terms, tolerance=SUMS, doc=f"The mean of each window of x {LAYOUT[n]}.",
    )  # fmt: skip


def _avg_pool_gradient(n: int) -> Op:
    return Op(
        f"avg_pool{n}d_gradient", _infer_gradient(n), _reference_gradient, _samples_of_gradient(n),
        _gradient_of_gradient, widened(_decompose_gradient), _cost, promote=floating, terms=_terms, tolerance=SUMS,
        doc=f"The gradient of avg_pool{n}d at an input of spatial sizes `sizes`, given that of its result.",
    )  # fmt: skip


avg_pool1d, avg_pool2d, avg_pool3d = map(_avg_pool, (1, 2, 3))
avg_pool1d_gradient, avg_pool2d_gradient, avg_pool3d_gradient = map(_avg_pool_gradient, (1, 2, 3))
