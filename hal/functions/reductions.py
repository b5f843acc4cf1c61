"""Reductions with torch's words (`dim`, `keepdim`) or the Array API's (`axis`, `keepdims`), and running sums."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hal import dtypes, ops
from hal.errors import SettingError
from hal.functions.arguments import Axes, AxesLike, ValuesAndIndices, either, is_tensor, one_axis
from hal.ops.steps import cut
from hal.spec import normalize_axis

if TYPE_CHECKING:
    from hal.op import Op
    from hal.tensor import Tensor


def _converted(x: Tensor, dtype: Any) -> Tensor:
    wanted = x.dtype if dtype is None else dtypes.dtype(dtype)
    return x if wanted is x.dtype else ops.cast(x, dtype=wanted)


def sum(
    x: Tensor, /, dim: AxesLike = None, keepdim: bool = False, *,
    axis: AxesLike = None, keepdims: bool = False, dtype: Any = None,
) -> Tensor:  # fmt: skip
    """The sum over these axes, or all; bool and integers are summed in 64 bits. Source: torch.sum; Array API, sum."""
    axes = either("sum", dim, axis)
    if dtype is None:
        return ops.sum(x, axis=axes, keepdims=keepdim or keepdims)
    return _converted(ops.sum(_converted(x, dtype), axis=axes, keepdims=keepdim or keepdims), dtype)


def prod(
    x: Tensor, /, dim: AxesLike = None, keepdim: bool = False, *,
    axis: AxesLike = None, keepdims: bool = False, dtype: Any = None,
) -> Tensor:  # fmt: skip
    """The product over these axes, or all. Source: torch.prod; Array API, prod."""
    product = ops.prod(_converted(x, dtype), axis=either("prod", dim, axis), keepdims=keepdim or keepdims)
    return _converted(product, dtype)


def mean(
    x: Tensor, /, dim: AxesLike = None, keepdim: bool = False, *,
    axis: AxesLike = None, keepdims: bool = False, dtype: Any = None,
) -> Tensor:  # fmt: skip
    """The mean over these axes, or all. Source: torch.mean; Array API, mean."""
    return ops.mean(_converted(x, dtype), axis=either("mean", dim, axis), keepdims=keepdim or keepdims)


def _spread(
    op: Op, x: Tensor, dim: Any, unbiased: Any, keepdim: bool, axis: AxesLike, correction: float | None, default: float
) -> Tensor:
    if isinstance(dim, bool):  # torch's old form: var(unbiased)
        dim, unbiased = None, dim
    if correction is not None and unbiased is not None:
        raise SettingError(f"{op.name} got correction={correction} and unbiased={unbiased}, two words for one thing")
    if correction is None:
        correction = default if unbiased is None else int(unbiased)
    return op(x, axis=either(op.name, dim, axis), keepdims=keepdim, correction=correction)


def variance(
    x: Tensor, /, dim: AxesLike = None, unbiased: bool | None = None, keepdim: bool = False, *,
    axis: AxesLike = None, keepdims: bool = False, correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The variance: squared distances from the mean, divided by n - correction (1). Source: torch.Tensor.var."""
    return _spread(ops.var, x, dim, unbiased, keepdim or keepdims, axis, correction, 1)


def deviation(
    x: Tensor, /, dim: AxesLike = None, unbiased: bool | None = None, keepdim: bool = False, *,
    axis: AxesLike = None, keepdims: bool = False, correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The standard deviation: the root of the variance. Source: torch.Tensor.std."""
    return _spread(ops.std, x, dim, unbiased, keepdim or keepdims, axis, correction, 1)


def var(
    x: Tensor, /, dim: AxesLike = None, unbiased: bool | None = None, keepdim: bool = False, *,
    axis: AxesLike = None, keepdims: bool = False, correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The variance: squared distances from the mean, divided by n - correction.

    The correction is 0 as the Array API has it, or 1 as torch has it where the call names `dim`.

    Source: Array API, var; torch.var.
    """
    default = 0 if dim is None else 1
    return _spread(ops.var, x, dim, unbiased, keepdim or keepdims, axis, correction, default)


def std(
    x: Tensor, /, dim: AxesLike = None, unbiased: bool | None = None, keepdim: bool = False, *,
    axis: AxesLike = None, keepdims: bool = False, correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The standard deviation: the root of `var`, with the same correction. Source: Array API, std; torch.std."""
    default = 0 if dim is None else 1
    return _spread(ops.std, x, dim, unbiased, keepdim or keepdims, axis, correction, default)


def var_mean(
    x: Tensor, /, dim: AxesLike = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The variance and the mean. Source: torch.var_mean."""
    axes = None if isinstance(dim, bool) else dim  # torch's old form: var_mean(unbiased)
    return variance(x, dim, unbiased, keepdim, correction=correction), mean(x, axes, keepdim)


# Extrema.


def amax(
    x: Tensor, /, dim: AxesLike = None, keepdim: bool = False, *, axis: AxesLike = None, keepdims: bool = False
) -> Tensor:
    """The maximum over these axes, or all; ties share the gradient. Source: torch.amax."""
    return ops.max(x, axis=either("amax", dim, axis), keepdims=keepdim or keepdims)


def amin(
    x: Tensor, /, dim: AxesLike = None, keepdim: bool = False, *, axis: AxesLike = None, keepdims: bool = False
) -> Tensor:
    """The minimum over these axes, or all; ties share the gradient. Source: torch.amin."""
    return ops.min(x, axis=either("amin", dim, axis), keepdims=keepdim or keepdims)


def _extremum(op: Op, position: Op, between: Op, x: Tensor, dim: Any, keep: bool, axis: AxesLike) -> Any:
    if is_tensor(dim):
        return between(x, dim)
    if dim is None:
        return op(x, axis=either(op.name, None, axis), keepdims=keep)
    along = one_axis(op.name, dim, axis, 0)
    if x.ndim == 0:
        return ValuesAndIndices(x, position(x))
    indices = position(x, axis=along, keepdims=True)
    values = ops.gather(x, indices, axis=along)
    if keep:
        return ValuesAndIndices(values, indices)
    i = normalize_axis(op.name, along, x.ndim)
    shape = (*x.shape[:i], *x.shape[i + 1 :])
    return ValuesAndIndices(ops.reshape(values, shape=shape), ops.reshape(indices, shape=shape))


def max(x: Tensor, /, dim: Any = None, keepdim: bool = False, *, axis: AxesLike = None, keepdims: bool = False) -> Any:
    """The maximum of all, or over `axis`; with `dim` the pair (values, indices); with a tensor the larger of each two.

    Source: torch.max; Array API, max.
    """
    return _extremum(ops.max, ops.argmax, ops.maximum, x, dim, keepdim or keepdims, axis)


def min(x: Tensor, /, dim: Any = None, keepdim: bool = False, *, axis: AxesLike = None, keepdims: bool = False) -> Any:
    """The minimum of all, or over `axis`; with `dim` the pair (values, indices); with a tensor the smaller of each two.

    Source: torch.min; Array API, min.
    """
    return _extremum(ops.min, ops.argmin, ops.minimum, x, dim, keepdim or keepdims, axis)


def aminmax(x: Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The minimum and the maximum. Source: torch.aminmax."""
    return ops.min(x, axis=dim, keepdims=keepdim), ops.max(x, axis=dim, keepdims=keepdim)


def argmax(
    x: Tensor, /, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None, keepdims: bool = False
) -> Tensor:
    """Where the first maximum is: along an axis, or of the flattened tensor. Source: torch.argmax; Array API."""
    return ops.argmax(x, axis=either("argmax", dim, axis), keepdims=keepdim or keepdims)


def argmin(
    x: Tensor, /, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None, keepdims: bool = False
) -> Tensor:
    """Where the first minimum is: along an axis, or of the flattened tensor. Source: torch.argmin; Array API."""
    return ops.argmin(x, axis=either("argmin", dim, axis), keepdims=keepdim or keepdims)


# Truth, sizes, norms.


def any(
    x: Tensor, /, dim: AxesLike = None, keepdim: bool = False, *, axis: AxesLike = None, keepdims: bool = False
) -> Tensor:
    """Whether any element over these axes, or of all, is not zero. Source: torch.any; Array API, any."""
    return ops.any(x, axis=either("any", dim, axis), keepdims=keepdim or keepdims)


def all(
    x: Tensor, /, dim: AxesLike = None, keepdim: bool = False, *, axis: AxesLike = None, keepdims: bool = False
) -> Tensor:
    """Whether no element over these axes, or of all, is zero. Source: torch.all; Array API, all."""
    return ops.all(x, axis=either("all", dim, axis), keepdims=keepdim or keepdims)


def count_nonzero(x: Tensor, /, dim: AxesLike = None, *, axis: AxesLike = None, keepdims: bool = False) -> Tensor:
    """How many elements are not zero. Source: torch.count_nonzero; Array API, count_nonzero."""
    return ops.count_nonzero(x, axis=either("count_nonzero", dim, axis), keepdims=keepdims)


def logsumexp(
    x: Tensor, /, dim: AxesLike = None, keepdim: bool = False, *, axis: AxesLike = None, keepdims: bool = False
) -> Tensor:
    """log(sum(exp(x))) without overflow. Source: torch.logsumexp."""
    return ops.logsumexp(x, axis=either("logsumexp", dim, axis), keepdims=keepdim or keepdims)


def norm(
    x: Tensor, /, p: float | str | None = 2, dim: AxesLike = None, keepdim: bool = False, *,
    axis: AxesLike = None, keepdims: bool = False, dtype: Any = None,
) -> Tensor:  # fmt: skip
    """The p-norm of all elements, or over these axes: (sum |x|**p)**(1/p); for p = inf, -inf and 0 what that tends to.

    The gradient of the 2-norm (`fro`) of zeros is zero.

    Source: torch.norm; torch.linalg.vector_norm.
    """
    axes, keep = either("norm", dim, axis), keepdim or keepdims
    x = _converted(x, dtype)
    if p in ("fro", None, 2):
        return _euclidean(x, axes, keep)
    if isinstance(p, str):
        raise SettingError(f"norm takes a number or 'fro' as p, got {p!r}")
    size = ops.abs(x)
    if p == math.inf:
        return ops.max(size, axis=axes, keepdims=keep)
    if p == -math.inf:
        return ops.min(size, axis=axes, keepdims=keep)
    if p == 0:
        return ops.cast(ops.count_nonzero(x, axis=axes, keepdims=keep), dtype=size.dtype)
    if p == 1:
        return ops.sum(size, axis=axes, keepdims=keep)
    return ops.pow(ops.sum(ops.pow(size, p), axis=axes, keepdims=keep), 1 / float(p or 1))


def _euclidean(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    if x.dtype.kind == "complex":
        x = ops.abs(x)
    squares = ops.sum(ops.square(x), axis=axes, keepdims=keep)
    nothing = ops.equal(squares, 0)  # where the root has no slope: it is taken of 1 there, and not used
    return ops.where(nothing, 0.0, ops.sqrt(ops.where(nothing, 1.0, squares)))


# Running sums and products, differences.


def cumsum(x: Tensor, /, dim: int | None = None, *, axis: int | None = None, dtype: Any = None) -> Tensor:
    """The sums of all elements up to each one, along an axis. Source: torch.cumsum."""
    return _converted(ops.cumsum(_converted(x, dtype), axis=one_axis("cumsum", dim, axis, 0)), dtype)


def cumprod(x: Tensor, /, dim: int | None = None, *, axis: int | None = None, dtype: Any = None) -> Tensor:
    """The products of all elements up to each one, along an axis. Source: torch.cumprod."""
    return _converted(ops.cumprod(_converted(x, dtype), axis=one_axis("cumprod", dim, axis, 0)), dtype)


def _cumulative(op: Op, who: str, x: Tensor, axis: int | None, dtype: Any, initial: bool, neutral: int) -> Tensor:
    if axis is None and x.ndim > 1:
        raise SettingError(f"{who} of a tensor with {x.ndim} axes needs axis=")
    along = normalize_axis(who, 0 if axis is None else axis, x.ndim)
    out = _converted(op(_converted(x, dtype), axis=along), dtype)
    if not initial:
        return out
    return ops.pad(out, padding=tuple((int(i == along), 0) for i in range(x.ndim)), value=neutral)


def cumulative_sum(
    x: Tensor, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """The sums of all elements up to each one; a 0 in front if asked for. Source: Array API, cumulative_sum."""
    return _cumulative(ops.cumsum, "cumulative_sum", x, axis, dtype, include_initial, 0)


def cumulative_prod(
    x: Tensor, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """The products of all elements up to each one; a 1 in front if asked for. Source: Array API, cumulative_prod."""
    return _cumulative(ops.cumprod, "cumulative_prod", x, axis, dtype, include_initial, 1)


def diff(
    x: Tensor, /, n: int = 1, dim: int | None = None, prepend: Tensor | None = None, append: Tensor | None = None, *,
    axis: int | None = None,
) -> Tensor:  # fmt: skip
    """The differences of neighbours along an axis (the last by default), `n` times. Source: torch.diff; Array API."""
    i = normalize_axis("diff", one_axis("diff", dim, axis, -1), x.ndim)
    if n == 0:
        return x
    if prepend is not None or append is not None:
        x = ops.concat(*(part for part in (prepend, x, append) if part is not None), axis=i)
    for _ in range(n if x.shape[i] else 0):
        later, earlier = cut(x, i, 1, x.shape[i]), cut(x, i, 0, x.shape[i] - 1)
        x = ops.not_equal(later, earlier) if x.dtype is dtypes.bool_ else ops.sub(later, earlier)
    return x
