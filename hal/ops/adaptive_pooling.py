"""Pooling to a given output size: along an axis of s, window i of n reaches from floor(i s / n) to ceil((i + 1) s / n).

Windows along one axis differ in length by one at most, and may overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.errors import ShapeError
from hal.op import SUMS, Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import FLOATS, REAL_NUMBERS, check_kind, common, distinct, floating, integers, uniform
from hal.ops.convolution import mirrored
from hal.ops.max_pooling import OVERLAPS, to_first_maximum
from hal.ops.precision import widened
from hal.ops.steps import zeros
from hal.ops.windows import LAYOUT, Sizes, at, check_layout, check_tuples, flat_index, in_all_axes, in_two_axes
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def bounds(size: int, out: int) -> list[tuple[int, int]]:
    """Where each of `out` windows over `size` elements starts and stops. Source: torch.nn.AdaptiveAvgPool2d."""
    return [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def longest(size: int, out: int) -> int:
    """The number of elements in the longest window of one axis."""
    return max(stop - start for start, stop in bounds(size, out))


def _check(who: str, n: int, x: Spec, output: Sizes, kinds: tuple[str, ...]) -> Spec:
    check_kind(who, x, kinds)
    check_layout(who, x, n)
    check_tuples(who, n, 1, output=output)
    if min(x.shape[2:]) < 1:
        raise ShapeError(
            f"{who} needs an input {LAYOUT[n]} with at least one element along each spatial axis, got {x.shape}"
        )
    return Spec((*x.shape[:2], *output), x.dtype)


def _infer(who: str, n: int, kinds: tuple[str, ...]) -> Callable[..., Spec]:
    def infer(x: Spec, *, output: Sizes) -> Spec:
        return _check(who, n, x, output, kinds)

    return infer


def _infer_avg_gradient(n: int) -> Callable[..., Spec]:
    who = f"adaptive_avg_pool{n}d_gradient"

    def infer(g: Spec, *, sizes: Sizes) -> Spec:
        check_layout(who, g, n)
        check_tuples(who, n, 1, sizes=sizes)
        x = Spec((*g.shape[:2], *sizes), g.dtype)
        _check(who, n, x, g.shape[2:], FLOATS)
        return x

    return infer


def _infer_max_gradient(n: int) -> Callable[..., Spec]:
    who = f"adaptive_max_pool{n}d_gradient"

    def infer(g: Spec, x: Spec) -> Spec:
        check_layout(who, g, n)
        if _check(who, n, x, g.shape[2:], REAL_NUMBERS).shape != g.shape:
            raise ShapeError(
                f"{who} needs as many images and channels in the gradient as in x, {x.shape[:2]}; got {g.shape}"
            )
        return x

    return infer


# What they mean.


def _each_window(sizes: Sizes, out: Sizes) -> Iterator[tuple[Sizes, tuple[Any, ...]]]:
    """The place of each window in the result, and its slices of the input."""
    along = [bounds(size, o) for size, o in zip(sizes, out, strict=True)]
    for place in np.ndindex(*out):
        yield at(place), at(tuple(slice(*edges[i]) for edges, i in zip(along, place, strict=True)))


def _reference_avg(x: Array, *, output: Sizes) -> Array:
    result = np.empty((*x.shape[:2], *output), x.dtype)
    for place, window in _each_window(x.shape[2:], output):
        seen = x[window]
        result[place] = seen.sum(axis=tuple(range(2, x.ndim))) / prod(seen.shape[2:])
    return result


def _reference_max(x: Array, *, output: Sizes) -> Array:
    result = np.empty((*x.shape[:2], *output), x.dtype)
    for place, window in _each_window(x.shape[2:], output):
        result[place] = x[window].max(axis=tuple(range(2, x.ndim)))
    return result


def _reference_avg_gradient(g: Array, *, sizes: Sizes) -> Array:
    result = np.zeros((*g.shape[:2], *sizes), g.dtype)
    for place, window in _each_window(sizes, g.shape[2:]):
        result[window] += (g[place] / prod(result[window].shape[2:])).reshape(*g.shape[:2], *[1] * len(sizes))
    return result


def _reference_max_gradient(g: Array, x: Array) -> Array:
    result = np.zeros(x.shape, x.dtype)
    for place, window in _each_window(x.shape[2:], g.shape[2:]):
        seen = x[window].reshape(*x.shape[:2], prod(x[window].shape[2:]))
        is_top = seen == seen.max(axis=2, keepdims=True)
        first = is_top & (np.cumsum(is_top, axis=2) == 1)
        result[window] += np.where(first, g[place][..., None], 0).reshape(x[window].shape)
    return result


# In simpler ops. Windows of one length are a reshape; others are taken from the flattened image, and those that are
# shorter than the longest repeat their last element.


def _even(sizes: Sizes, out: Sizes) -> bool:
    return all(size % o == 0 for size, o in zip(sizes, out, strict=True))


def _folded(sizes: Sizes, out: Sizes) -> tuple[Shape, tuple[int, ...]]:
    """The spatial shape in which each axis is one of windows and one of what is in them, and the axes of the latter."""
    shape = tuple(part for size, o in zip(sizes, out, strict=True) for part in (o, size // o))
    return shape, tuple(3 + 2 * i for i in range(len(sizes)))


def _starts_and_stops(size: int, out: int, device: Any) -> tuple[Tensor, Tensor]:
    place = ops.iota(size=out, dtype=dtypes.int64, device=device)
    return ops.floor_divide(place * size, out), ops.floor_divide((place + 1) * size + (out - 1), out)


def _index(sizes: Sizes, out: Sizes, device: Any) -> Tensor:
    """Where the elements of all windows lie: int64 (elements, windows)."""
    along = []
    for size, o in zip(sizes, out, strict=True):
        start, stop = _starts_and_stops(size, o, device)
        inside = ops.iota(size=longest(size, o), dtype=dtypes.int64, device=device)
        along.append(ops.minimum(ops.reshape(inside, shape=(inside.shape[0], 1)) + start, stop - 1))
    return flat_index(sizes, along)


def _shares(sizes: Sizes, out: Sizes, like: Tensor) -> Tensor:
    """By what each element of each window is multiplied for the mean: (elements, windows), zero for repeated ones."""
    along = []
    for size, o in zip(sizes, out, strict=True):
        start, stop = _starts_and_stops(size, o, like.device)
        length = ops.cast(stop - start, dtype=like.dtype)
        inside = ops.iota(size=longest(size, o), dtype=dtypes.int64, device=like.device)
        counts = ops.less(ops.reshape(inside, shape=(inside.shape[0], 1)), stop - start)
        along.append(ops.where(counts, 1.0 / length, 0.0))
    share, *others = in_all_axes(along)
    for other in others:
        share = share * other
    return in_two_axes(share)


def _seen(x: Tensor, output: Sizes) -> Tensor:
    """All windows: (N, C, elements, windows)."""
    flat = ops.reshape(x, shape=(*x.shape[:2], prod(x.shape[2:])))
    return ops.take(flat, _index(x.shape[2:], output, x.device), axis=2)


def _decompose_avg(x: Tensor, *, output: Sizes) -> Tensor:
    if _even(x.shape[2:], output):
        shape, inside = _folded(x.shape[2:], output)
        return ops.mean(ops.reshape(x, shape=(*x.shape[:2], *shape)), axis=inside)
    share = _shares(x.shape[2:], output, x)
    seen = ops.where(ops.equal(share, 0), 0.0, _seen(x, output))  # an infinity that is repeated is none
    return ops.reshape(ops.sum(seen * share, axis=2), shape=(*x.shape[:2], *output))


def _decompose_max(x: Tensor, *, output: Sizes) -> Tensor:
    if _even(x.shape[2:], output):
        shape, inside = _folded(x.shape[2:], output)
        return ops.max(ops.reshape(x, shape=(*x.shape[:2], *shape)), axis=inside)
    return ops.reshape(ops.max(_seen(x, output), axis=2), shape=(*x.shape[:2], *output))


def _put_back(parts: Tensor, sizes: Sizes, output: Sizes) -> Tensor:
    """What each window (N, C, elements, windows) gives to its elements, summed where windows overlap."""
    nothing = zeros(parts, (*parts.shape[:2], prod(sizes)))
    whole = ops.index_add(nothing, _index(sizes, output, parts.device), parts, axis=2)
    return ops.reshape(whole, shape=(*parts.shape[:2], *sizes))


def _decompose_avg_gradient(g: Tensor, *, sizes: Sizes) -> Tensor:
    output = g.shape[2:]
    if _even(sizes, output):
        shape, _ = _folded(sizes, output)
        spread = tuple(1 if i % 2 else n for i, n in enumerate(shape))
        share = ops.reshape(g / (prod(sizes) // prod(output)), shape=(*g.shape[:2], *spread))
        return ops.reshape(ops.broadcast_to(share, shape=(*g.shape[:2], *shape)), shape=(*g.shape[:2], *sizes))
    parts = ops.reshape(g, shape=(*g.shape[:2], 1, prod(output))) * _shares(sizes, output, g)
    return _put_back(parts, sizes, output)


def _decompose_max_gradient(g: Tensor, x: Tensor) -> Tensor:
    sizes, output = x.shape[2:], g.shape[2:]
    return _put_back(
        to_first_maximum(ops.reshape(g, shape=(*g.shape[:2], prod(output))), _seen(x, output)), sizes, output
    )


def _gradient_of_avg(g: Tensor, out: Tensor, x: Tensor, *, output: Sizes) -> Grads:
    return (lambda: ops.TABLE[f"adaptive_avg_pool{x.ndim - 2}d_gradient"](g, sizes=x.shape[2:]),)


def _gradient_of_avg_gradient(g: Tensor, out: Tensor, given: Tensor, *, sizes: Sizes) -> Grads:
    return (lambda: ops.TABLE[f"adaptive_avg_pool{g.ndim - 2}d"](g, output=given.shape[2:]),)


def _gradient_of_max(g: Tensor, out: Tensor, x: Tensor, *, output: Sizes) -> Grads:
    return (lambda: ops.TABLE[f"adaptive_max_pool{x.ndim - 2}d_gradient"](g, x),)


def _cost(*specs: Spec, out: Spec, **settings: Any) -> Cost:
    return Cost(max(out.size, *(s.size for s in specs)), sum(s.nbytes for s in specs) + out.nbytes)


def _terms(x: Spec, *, output: Sizes) -> int:
    return prod(longest(size, o) for size, o in zip(x.shape[2:], output, strict=True)) + 2  # and to multiply by 1 / n


def _terms_of_avg_gradient(g: Spec, *, sizes: Sizes) -> int:
    """The most windows that one element can be in, and to multiply by 1 / n."""
    return prod(-(-o // size) + 1 for size, o in zip(sizes, g.shape[2:], strict=True)) + 2


# Sample calls.


def _cases(n: int) -> Iterator[tuple[Shape, Sizes]]:
    """Shapes of inputs, and output sizes: the last one is large."""

    def last(*values: int) -> Sizes:
        return values[-n:]

    yield (2, 3, *last(4, 6, 4)), last(2, 3, 2)
    yield (2, 3, *last(3, 5, 4)), (1,) * n
    yield (1, 2, *last(4, 5, 7)), last(3, 2, 3)
    yield (1, 2, *last(2, 3, 3)), last(3, 3, 5)  # more windows than elements
    yield (1, 2, *last(2, 3, 5)), last(2, 3, 5)
    yield (0, 2, *last(3, 4, 5)), last(2, 2, 2)
    yield (3, 5, *last(7, 23, 38)), last(3, 7, 7)


def _samples(n: int, draw: Callable[[Rng, Shape], Array], maximum: bool) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        for shape, output in _cases(n):
            yield Sample((draw(rng, shape),), {"output": output}, smooth=prod(shape) < 300)
        yield Sample((mirrored(draw(rng, (1, 2, *(4, 5, 7)[-n:]))),), {"output": (3, 2, 3)[-n:]})
        odd = draw(rng, (1, 2, *(4, 5, 7)[-n:]))
        odd[at((-1,) * n)] = np.inf
        yield Sample((odd,), {"output": (3, 2, 3)[-n:]}, smooth=False)
        if maximum:
            yield Sample(
                (integers(rng, (1, 2, *(4, 5, 7)[-n:])),), {"output": (3, 2, 3)[-n:]}, smooth=False, exact=True
            )

    return samples


def _samples_of_avg_gradient(n: int) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        for shape, output in _cases(n):
            g = uniform(rng, (*shape[:2], *output))
            yield Sample((g,), {"sizes": shape[2:]}, smooth=prod(shape) < 300)
            yield Sample((mirrored(g),), {"sizes": shape[2:]}, smooth=prod(shape) < 300)

    return samples


def _samples_of_max_gradient(n: int) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        for shape, output in _cases(n):
            g = uniform(rng, (*shape[:2], *output))
            yield Sample((g, distinct(rng, shape)), {}, smooth=prod(shape) < 300)
            yield Sample((mirrored(g), integers(rng, shape, 0, 3).astype(np.float32)), {}, smooth=False)  # ties

    return samples


def _avg(n: int) -> Op:
    name = f"adaptive_avg_pool{n}d"
    return Op(
        name, _infer(name, n, FLOATS), _reference_avg, _samples(n, uniform, False), _gradient_of_avg,
        widened(_decompose_avg), _cost, promote=floating, terms=_terms, tolerance=SUMS,
        doc=f"The means of as many windows of x {LAYOUT[n]} as `output` says.",
    )  # fmt: skip


def _max(n: int) -> Op:
    name = f"adaptive_max_pool{n}d"
    return Op(
        name, _infer(name, n, REAL_NUMBERS), _reference_max, _samples(n, distinct, True), _gradient_of_max,
        _decompose_max, _cost, doc=f"The maxima of as many windows of x {LAYOUT[n]} as `output` says.",
    )  # fmt: skip


def _avg_gradient(n: int) -> Op:
    return Op(
        f"adaptive_avg_pool{n}d_gradient", _infer_avg_gradient(n), _reference_avg_gradient, _samples_of_avg_gradient(n),
        _gradient_of_avg_gradient, widened(_decompose_avg_gradient), _cost, promote=floating,
        terms=_terms_of_avg_gradient, tolerance=SUMS,
        doc=f"The gradient of adaptive_avg_pool{n}d at an input of spatial sizes `sizes`, given that of its result.",
    )  # fmt: skip


def _max_gradient(n: int) -> Op:
    return Op(
        f"adaptive_max_pool{n}d_gradient", _infer_max_gradient(n), _reference_max_gradient, _samples_of_max_gradient(n),
        None, widened(_decompose_max_gradient), _cost, promote=common, tolerance=OVERLAPS,
        doc=f"The gradient of adaptive_max_pool{n}d at x: it goes to the first maximum of each window.",
    )  # fmt: skip


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = map(_avg, (1, 2, 3))
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = map(_max, (1, 2, 3))
adaptive_avg_pool1d_gradient, adaptive_avg_pool2d_gradient, adaptive_avg_pool3d_gradient = map(_avg_gradient, (1, 2, 3))
adaptive_max_pool1d_gradient, adaptive_max_pool2d_gradient, adaptive_max_pool3d_gradient = map(_max_gradient, (1, 2, 3))
