"""Max pooling over one to three spatial axes, and its gradient, which goes to the first maximum of each window.

Padding never wins: it counts as minus infinity (the smallest integer). A window whose maximum is NaN gives NaN,
and passes no gradient on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import SettingError, ShapeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample, in_norm
from hal.ops.common import REAL_NUMBERS, check_kind, common, distinct, integers
from hal.ops.convolution import mirrored
from hal.ops.precision import widened
from hal.ops.steps import zeros
from hal.ops.windows import (
    LAYOUT,
    Sizes,
    check_layout,
    check_tuples,
    fit_windows,
    offsets,
    overhang,
    pad_spatial,
    padded,
    seen_from,
    window_index,
    windows,
)
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def lowest(dtype: DType) -> int | float:
    """The value that no maximum takes over another: minus infinity, or the smallest integer."""
    return -np.inf if dtype.is_floating else int(np.iinfo(dtype.numpy).min)


def check_padding(who: str, padding: Sizes, kernel: Sizes) -> None:
    """Raise SettingError if the padding is so wide that windows would see little else. Source: torch.nn.MaxPool2d."""
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise SettingError(f"{who} needs padding= of at most half its kernel {kernel}, got {padding}")


def _check(
    who: str, n: int, x: Spec, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool
) -> tuple[int, ...]:
    """The shape of the result, or an error that says what was needed."""
    check_kind(who, x, REAL_NUMBERS)
    check_layout(who, x, n)
    check_tuples(who, n, 1, kernel=kernel, stride=stride, dilation=dilation)
    check_tuples(who, n, 0, padding=padding)
    check_padding(who, padding, kernel)
    return (*x.shape[:2], *fit_windows(who, x.shape[2:], kernel, stride, padding, dilation, ceil_mode))


def _infer(n: int) -> Callable[..., Spec]:
    def infer(
        x: Spec,
        *,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes = (0,) * n,
        dilation: Sizes = (1,) * n,
        ceil_mode: bool = False,
    ) -> Spec:
        return Spec(_check(f"max_pool{n}d", n, x, kernel, stride, padding, dilation, ceil_mode), x.dtype)

    return infer


def _infer_gradient(n: int) -> Callable[..., Spec]:
    who = f"max_pool{n}d_gradient"

    def infer(
        g: Spec,
        x: Spec,
        *,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes = (0,) * n,
        dilation: Sizes = (1,) * n,
        ceil_mode: bool = False,
    ) -> Spec:
        wanted = _check(who, n, x, kernel, stride, padding, dilation, ceil_mode)
        if g.shape != wanted:
            raise ShapeError(f"{who} needs a gradient of the shape of the pooling's result, {wanted}; got {g.shape}")
        return Spec(x.shape, x.dtype)

    return infer


# What they mean.


def _fit(x: Any, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool) -> tuple[Sizes, Sizes]:
    """How many windows there are, and the padding that they need at the end."""
    sizes = x.shape[2:]
    out = fit_windows("max_pool", sizes, kernel, stride, padding, dilation, ceil_mode)
    return out, overhang(sizes, out, kernel, stride, padding, dilation)


def _reference(x: Array, *, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool) -> Array:
    out, after = _fit(x, kernel, stride, padding, dilation, ceil_mode)
    x = padded(x, padding, after, lowest(dtypes.of(x.dtype)))
    return np.stack([x[seen_from(place, out, stride, dilation)] for place in offsets(kernel)]).max(axis=0)


def _reference_gradient(
    g: Array, x: Array, *, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool
) -> Array:
    out, after = _fit(x, kernel, stride, padding, dilation, ceil_mode)
    x = padded(x, padding, after, lowest(dtypes.of(x.dtype)))
    total = np.zeros(x.shape, x.dtype)
    waiting = np.ones(g.shape, np.bool_)  # windows whose maximum has not been met yet
    places = [seen_from(place, out, stride, dilation) for place in offsets(kernel)]
    top = np.stack([x[seen] for seen in places]).max(axis=0)
    for seen in places:
        here = waiting & (x[seen] == top)
        total[seen] += np.where(here, g, 0)
        waiting &= ~here
    return padded(total, tuple(-p for p in padding), tuple(-p for p in after))


# In simpler ops.


def _gradient(g: Tensor, out: Tensor, x: Tensor, **settings: Any) -> Grads:
    return (lambda: ops.TABLE[f"max_pool{x.ndim - 2}d_gradient"](g, x, **settings),)


def _decompose(x: Tensor, *, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool) -> Tensor:
    out, after = _fit(x, kernel, stride, padding, dilation, ceil_mode)
    seen = windows(pad_spatial(x, padding, after, lowest(x.dtype)), out, kernel, stride, dilation)
    return ops.reshape(ops.max(seen, axis=2), shape=(*x.shape[:2], *out))


def to_first_maximum(g: Tensor, seen: Tensor) -> Tensor:
    """`g` (N, C, L) at the first maximum of each window `seen` (N, C, K, L), and zero at its other elements."""
    count = seen.shape[2]
    order = ops.reshape(ops.iota(size=count, dtype=dtypes.int64, device=seen.device), shape=(count, 1))
    is_top = ops.equal(seen, ops.max(seen, axis=2, keepdims=True))
    first = ops.min(ops.where(is_top, order, count), axis=2, keepdims=True)
    return ops.where(ops.equal(order, first), ops.reshape(g, shape=(*g.shape[:2], 1, g.shape[2])), 0)


def _decompose_gradient(
    g: Tensor, x: Tensor, *, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool
) -> Tensor:
    out, after = _fit(x, kernel, stride, padding, dilation, ceil_mode)
    spaced = pad_spatial(x, padding, after, lowest(x.dtype))
    seen = windows(spaced, out, kernel, stride, dilation)
    parts = to_first_maximum(ops.reshape(g, shape=(*g.shape[:2], prod(out))), seen)
    return put_back(parts, spaced.shape[2:], out, kernel, stride, padding, after, dilation)


def put_back(
    parts: Tensor, sizes: Sizes, out: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, after: Sizes, dilation: Sizes
) -> Tensor:
    """What each window (N, C, K, L) gives to its elements, summed where windows overlap, without the padding."""
    index = window_index(sizes, out, kernel, stride, dilation, parts.device)
    nothing = zeros(parts, (*parts.shape[:2], prod(sizes)))
    whole = ops.reshape(ops.index_add(nothing, index, parts, axis=2), shape=(*parts.shape[:2], *sizes))
    return pad_spatial(whole, tuple(-p for p in padding), tuple(-p for p in after))


def _cost(*specs: Spec, out: Spec, kernel: Sizes, **settings: Any) -> Cost:
    smaller = min(specs[0].size, out.size)  # the pooled array, be it the result or the gradient
    return Cost(smaller * prod(kernel) * len(specs), sum(s.nbytes for s in specs) + out.nbytes)


# Sample calls.


def cases(n: int) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    """Shapes of inputs and settings, for `n` spatial axes: the last one is large."""

    def last(*values: int) -> Sizes:
        return values[-n:]

    def case(
        shape: tuple[int, ...], kernel: Sizes, stride: Sizes, **settings: Any
    ) -> tuple[tuple[int, ...], dict[str, Any]]:
        return shape, {"kernel": kernel, "stride": stride, **settings}

    twos, sizes = last(2, 2, 2), last(4, 5, 6)
    yield case((2, 3, *last(4, 4, 6)), twos, twos)
    yield case((1, 2, *sizes), last(2, 3, 2), (1,) * n)  # windows overlap
    yield case((1, 2, *last(5, 6, 7)), last(3, 3, 3), twos, padding=(1,) * n)
    yield case((2, 1, *sizes), twos, last(2, 3, 3))  # some elements are in no window
    yield case((1, 2, *last(5, 5, 7)), twos, twos, ceil_mode=True)
    yield case((1, 1, *last(5, 7, 8)), last(3, 2, 3), last(3, 3, 4), padding=(1,) * n, ceil_mode=True)
    yield case((2, 3, *sizes), sizes, sizes)
    yield case((2, 2, *sizes), (1,) * n, (1,) * n)
    yield case((0, 2, *sizes), twos, twos)
    yield case((3, 5, *last(5, 23, 38)), last(2, 3, 3), last(2, 2, 2), padding=(1,) * n)


def _all_cases(n: int) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    yield (1, 2, *(6, 6, 7)[-n:]), {"kernel": (2, 3, 2)[-n:], "stride": (1,) * n, "dilation": (2, 2, 3)[-n:]}
    yield (1, 2, *(6, 6, 7)[-n:]), {"kernel": (2,) * n, "stride": (2,) * n, "dilation": (3,) * n, "padding": (1,) * n}
    yield from cases(n)


def _samples(n: int) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        for shape, settings in _all_cases(n):
            yield Sample((distinct(rng, shape),), settings, smooth=prod(shape) < 300)
        shape, settings = next(cases(n))
        yield Sample((mirrored(distinct(rng, shape)),), settings)
        for dtype in (np.int32, np.int8, np.uint8):
            drawn = integers(rng, shape, 0, 200, dtype)
            yield Sample((drawn,), {**settings, "padding": (1,) * n}, smooth=False, exact=True)
        odd = distinct(rng, shape)
        odd.flat[::5] = [np.nan, np.inf, -np.inf][n - 1]
        yield Sample((odd,), settings, smooth=False)

    return samples


def _samples_of_gradient(n: int) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        for i, (shape, settings) in enumerate(_all_cases(n)):
            plain: dict[str, Any] = {"padding": (0,) * n, "dilation": (1,) * n} | settings
            g = rng.uniform(-2, 2, (*shape[:2], *fit_windows("sample", shape[2:], **plain))).astype(np.float32)
            smooth = prod(shape) < 300
            yield Sample((g, distinct(rng, shape)), settings, smooth=smooth)
            if i < 4:
                yield Sample((mirrored(g), mirrored(distinct(rng, shape))), settings)
                yield Sample((g, integers(rng, shape, 0, 3).astype(np.float32)), settings, smooth=False)  # ties

    return samples


OVERLAPS = in_norm(16, "a sum over the few windows that overlap")


def _max_pool(n: int) -> Op:
    return Op(
        f"max_pool{n}d", _infer(n), _reference, _samples(n), _gradient, _decompose, _cost,
        doc=f"The maximum of each window of x {LAYOUT[n]}.",
    )  # fmt: skip


def _max_pool_gradient(n: int) -> Op:
    return Op(
        f"max_pool{n}d_gradient", _infer_gradient(n), _reference_gradient, _samples_of_gradient(n), None,
        widened(_decompose_gradient), _cost, promote=common, tolerance=OVERLAPS,
        doc=f"The gradient of max_pool{n}d at x, given that of its result: it goes to each window's first maximum.",
    )  # fmt: skip


max_pool1d, max_pool2d, max_pool3d = map(_max_pool, (1, 2, 3))
max_pool1d_gradient, max_pool2d_gradient, max_pool3d_gradient = map(_max_pool_gradient, (1, 2, 3))
