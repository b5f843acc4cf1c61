"""Limits of what has no record of its own in the op table: sums by their number of terms, and what rounds on the way.

The functions take what torch's op takes, tensors as arrays, floating ones in float64. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from opinfo_units import Limit, of

from hal import ops

SUM = Limit("terms")


def rounded(roundings: float) -> Limit:
    """A sum with so many roundings besides those of its terms."""
    return Limit("terms", roundings)


def norm(units: float, magnitude: Any = None) -> Limit:
    """So many units of the largest magnitude."""
    return Limit("norm", units, magnitude=magnitude)


def ulps(units: float) -> Limit:
    """So many units in the last place."""
    return Limit("ulp", units)


def relative(terms: Callable[..., Any], roundings: float = 0) -> Limit:
    """A sum or product of this many terms in which nothing cancels: f(|x|) is |f(x)|."""
    return Limit("terms", roundings, terms=terms, magnitude=lambda *args, **kwargs: None)


def reduced(x: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> int:
    """How many elements go into each one of a reduction."""
    axes = range(x.ndim) if dim is None or dim == () else (dim,) if isinstance(dim, int) else dim
    return prod(x.shape[a] for a in axes) if x.ndim else 1


def norm_terms(x: Any, p: Any = 2, dim: Any = None, *args: Any, **kwargs: Any) -> float:
    """A power is within 16 ulp in OpenCL's table, before the sum and after it; the root divides what came before."""
    order = kwargs.get("ord", p)
    special = order in (None, "fro", 1, 2, 0) or abs(order) == np.inf
    return reduced(x, kwargs.get("dim", dim)) + (2 if special else 32 + 32 / min(abs(order), 1))


def layer_magnitude(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> float:
    found: float = ops.TABLE["layer_norm"].magnitude(x, *([] if weight is None else [weight]), dims=len(shape), eps=eps)
    return found


def normalized(axes: Any, grouped: Any = None) -> Callable[..., Any]:
    """|x| / deviation * |weight| + |bias| of a normalisation with statistics of these axes of x, reshaped in groups."""

    def magnitude(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> float:
        if x.size == 0:
            return 0.0
        parts = x if grouped is None else x.reshape(*grouped(x), -1)
        inside = tuple(range(2, parts.ndim)) if axes == "inner" else tuple(i for i in range(parts.ndim) if i != 1)
        deviation = np.sqrt(np.var(parts, axis=inside, keepdims=True) + eps)
        of_weight = 1 if weight is None else np.max(abs(weight))
        return float(np.max(abs(parts) / deviation)) * of_weight + (0 if bias is None else np.max(abs(bias)))

    return magnitude


def group_magnitude(x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> float:
    """Of group_norm."""
    return normalized("inner", lambda x: (len(x), groups))(x, weight, bias, eps)


def instance_magnitude(x: Any, *args: Any, use_input_stats: bool = True, **kwargs: Any) -> float:
    """Of instance_norm, whose running statistics come first."""
    given = (kwargs.get(name) for name in ("weight", "bias"))
    return normalized("inner")(x, *given, kwargs.get("eps", 1e-5))


def batch_magnitude(
    x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False, momentum: Any = 0.1,
    eps: float = 1e-5,
) -> float:  # fmt: skip
    """Of batch_norm, with the running statistics or those of the batch."""
    if training or mean is None:
        return normalized("outer")(x, weight, bias, eps)
    shape = (1, -1, *[1] * (x.ndim - 2))
    deviation = np.sqrt(var + eps).reshape(shape)
    of_weight = 1 if weight is None else np.max(abs(weight), initial=0)
    largest = np.max((abs(x) + abs(mean).reshape(shape)) / deviation, initial=0)
    return float(largest * of_weight + (0 if bias is None else np.max(abs(bias), initial=0)))


def native_magnitude(x: Any, weight: Any, bias: Any, *rest: Any) -> float:
    """Of torch's batch norms that take (running mean, running variance, training, momentum, eps), or the last three."""
    mean, var, training, momentum, eps = rest if len(rest) == 5 else (None, None, *rest)
    return batch_magnitude(x, mean, var, weight, bias, training, momentum, eps)


def whole(kernel: Any, n: int) -> int:
    sizes = kernel if isinstance(kernel, (tuple, list)) else (kernel,)
    return prod(sizes * n if len(sizes) == 1 else sizes)


def window(n: int) -> Limit:
    return relative_to(lambda x, kernel, *args, **kwargs: whole(kernel, n))


def relative_to(terms: Callable[..., Any]) -> Limit:
    """A mean: as a sum of this many terms, divided by their number."""
    return Limit("terms", 1, terms=terms)


MEAN = relative_to(reduced)
SPREAD = norm(64)  # the record of var and std


def multiple(x: Any, y: Any, alpha: Any = 1) -> Limit:
    """x + alpha y: one rounding without a factor, and with one those of a sum of two terms."""
    terms = Limit("terms", terms=lambda *a, **k: 2, magnitude=lambda x, y, alpha: abs(x) + abs(alpha * y))
    return of("add") if alpha == 1 else terms


def multiple_from(x: Any, y: Any, alpha: Any = 1) -> Limit:
    """y - alpha x, as torch.rsub has it."""
    terms = Limit("terms", terms=lambda *a, **k: 2, magnitude=lambda x, y, alpha: abs(y) + abs(alpha * x))
    return of("sub") if alpha == 1 else terms


def attention_magnitude(q: Any, k: Any, v: Any, *mask: Any, scale: float | None = None, **kwargs: Any) -> Any:
    """What rounds in attention: scores, whose errors are relative errors of the weights, and the values' sum."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return np.max(abs(v)) * (1 + scale * np.max(abs(q) @ np.swapaxes(abs(k), -1, -2)))


def cross_magnitude(a: Any, b: Any, dim: int = -1) -> Any:
    a, b = abs(a), abs(b)
    turned = [[np.roll(x, -n, axis=dim) for n in (1, 2)] for x in (a, b)]
    return turned[0][0] * turned[1][1] + turned[0][1] * turned[1][0]


def adaptive_cells(x: Any, size: Any, *args: Any, **kwargs: Any) -> int:
    """The most elements in a window that adaptive pooling cuts."""
    n = x.ndim - 2 if x.ndim > 2 else 1
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size,) * n
    axes = x.shape[x.ndim - len(sizes) :]
    return prod(-(-a // (s or a)) + 1 for a, s in zip(axes, sizes, strict=True))


def lerp_magnitude(x: Any, end: Any, weight: Any) -> Any:
    """Of x + weight (end - x)."""
    return abs(x) + abs(weight) * (abs(end) + abs(x))


def logit_magnitude(x: Any, eps: float | None = None) -> Any:
    """Of log(x / (1 - x)): near a quotient of 1 the logarithm keeps the quotient's error, not its own size."""
    with np.errstate(all="ignore"):
        x = x if eps is None else np.clip(x, eps, 1 - eps)
        return 1 + np.nan_to_num(abs(np.log(x)) + abs(np.log1p(-x)))


def diff_terms(x: Any, n: int = 1, *args: Any, **kwargs: Any) -> int:
    """n differences of differences sum 2**n elements."""
    return 2 ** max(n, 1)


def diff_magnitude(x: Any, n: int = 1, *args: Any, **kwargs: Any) -> Any:
    """As many of the largest."""
    return 2.0**n * max(np.max(abs(part), initial=0) for part in (x, *(a for a in args if isinstance(a, np.ndarray))))
