"""Draws the samples of torch's OpInfo, runs torch in float64 on them as the oracle and hal in float32, and compares.

torch is imported when a function is called, so that the module can be looked at without it.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from opinfo_map import Line
from opinfo_units import Limit, Verdict, judge

import hal
from hal import dtypes
from hal.op import Array

SEED = 0
TORCH_ONLY = ("requires_grad", "layout", "pin_memory", "memory_format", "non_blocking")
GRADIENTS = Limit("norm", 1e5)  # 1e-11 of the largest: two ways to one formula, neither of them float32's
SCALARS = ("alpha", "beta", "value")  # settings that multiply what is summed


@cache
def entries() -> dict[str, Any]:
    """The entries of OpInfo that have float32 samples, by `name` or `name:variant`."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return {
        f"{info.name}:{info.variant_test_name}" if info.variant_test_name else info.name: info
        for info in op_db
        if torch.float32 in info.dtypes
    }


def drawn(info: Any, requires_grad: bool = False) -> list[Any]:
    """The float32 samples of an entry, the same ones each time, whatever was drawn before."""
    import torch

    torch.manual_seed(SEED)
    random.seed(SEED)
    np.random.seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The function itself: `info.sample_inputs` would look at the whole stack for each sample, and seed each alike.
        return list(info.sample_inputs_func(info, "cpu", torch.float32, requires_grad))


def chosen(samples: list[Any], count: int) -> list[tuple[int, Any]]:
    """So many samples with their numbers, spread over all."""
    step = max(1, -(-len(samples) // count))
    return list(enumerate(samples))[::step]


def arguments(sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What is given to torch's op and to hal's, without the settings that concern torch alone."""
    return (sample.input, *sample.args), {k: v for k, v in sample.kwargs.items() if k not in TORCH_ONLY}


def each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Lists, tuples, slices and dictionaries with `change` applied to what is in them."""
    if isinstance(value, dict):
        return {k: each(v, change) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(each(v, change) for v in (value.start, value.stop, value.step)))
    if isinstance(value, (list, tuple)):
        items = [each(v, change) for v in value]
        return items if isinstance(value, list) else tuple(items)
    return change(value)


def wide(value: Any) -> Any:
    """Tensors of float32 in float64, other tensors copied; the type float32 as float64."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().double() if value.dtype is torch.float32 else value.detach().clone()
    return torch.float64 if value is torch.float32 else value


def copied(value: Any) -> Any:
    """Tensors with memory of their own."""
    import torch

    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def ours(device: str, share: bool = False, dtype: Any = None) -> Callable[[Any], Any]:
    """From torch's tensors, types and devices to hal's.

    Args:
        device: where they are put.
        share: whether the tensors share torch's memory, its strides and all.
        dtype: floating tensors in this type, and asking for gradients if torch's do.
    """
    import torch

    def change(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            array = value.detach().numpy()
            if share:
                return hal.from_numpy(array)
            if dtype is None or not value.dtype.is_floating_point:
                return hal.tensor(array, device=device)
            return hal.tensor(array, dtype=dtype, device=device, requires_grad=value.requires_grad)
        if dtype is not None and value is torch.float32:
            return dtype
        if isinstance(value, torch.dtype):
            return dtypes.dtype(str(value).removeprefix("torch."))
        if isinstance(value, torch.device) or value == "cpu":
            return hal.device(device)
        return None if isinstance(value, (torch.memory_format, torch.layout)) else value

    return change


def leaves(result: Any) -> Iterator[Any]:
    """The tensors and numbers in a result, in order."""
    if isinstance(result, (list, tuple)):
        for part in result:
            yield from leaves(part)
    else:
        yield result


def array_of(result: Any) -> Array:
    """A tensor of torch or hal, or a number, as an array; bfloat16 too."""
    if isinstance(result, hal.Tensor):
        return result.detach().cpu().numpy()
    if hasattr(result, "detach"):
        result = result.detach().resolve_conj()
        return result.float().numpy().astype(ml_dtypes.bfloat16) if "bfloat16" in str(result.dtype) else result.numpy()
    return np.asarray(result)


def numbers(value: Any) -> Any:
    """Tensors as arrays, floating ones in float64, for the functions of limits."""
    if not hasattr(value, "detach"):
        return value
    return array_of(value).astype(np.float64) if value.is_floating_point() else array_of(value)


def compare(line: Line, info: Any, sample: Any, device: str) -> list[Verdict]:
    """Run one sample in torch's float64 and on a device of hal: a verdict for each result."""
    args, kwargs = line.settle(*arguments(sample))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = list(leaves(info.op(*each(args, wide if line.wide else copied), **each(kwargs, wide))))
        like = list(leaves(info.op(*each(args, copied), **kwargs)))
    got = list(leaves(line.call(*each(args, ours(device)), **each(kwargs, ours(device)))))
    return _judged(line, info, args, kwargs, got, want, like)


def _judged(line: Line, info: Any, args: Any, kwargs: Any, got: Any, want: Any, like: Any) -> list[Verdict]:
    if line.first:
        want, like = want[: line.first], like[: line.first]
    if len(got) != len(want):
        return [Verdict(np.inf, 0, "exact", f"{len(got)} results, torch gives {len(want)}")]
    verdicts = []
    for i, (ours, theirs, narrow) in enumerate(zip(got, want, like, strict=True)):
        limit = line.limits[min(i, len(line.limits) - 1)]
        if not isinstance(limit, Limit):
            limit = limit(*args, **kwargs)
        scale, terms = None, 1
        if limit.unit == "terms" or limit.magnitude:
            if limit.magnitude == "unreduced":
                scale = _unreduced(info, args, kwargs)
            elif limit.magnitude:
                scale = limit.magnitude(*each(args, numbers), **each(kwargs, numbers))
            else:
                scale = _at(info, args, kwargs, i, lambda x: x.abs(), abs)
            if limit.unit == "terms":
                if limit.terms:
                    terms = limit.terms(*each(args, numbers), **each(kwargs, numbers))
                else:
                    terms = _at(info, args, kwargs, i, lambda x: x * 0 + 1, lambda s: 1)
        verdicts.append(judge(limit, array_of(ours), array_of(theirs), array_of(narrow).dtype, scale, terms))
    return verdicts


def _unreduced(info: Any, args: Any, kwargs: Any) -> Array:
    """The mean or sum of the magnitudes of a loss's elements, or those magnitudes."""
    reduction = kwargs.get("reduction", "mean")
    found = info.op(*each(args, wide), **{**each(kwargs, wide), "reduction": "none"})
    elements = np.abs(array_of(found).astype(np.float64))
    if reduction == "none" or not elements.size:
        return elements
    total: Array = np.asarray(elements.sum())
    return total if reduction == "sum" else total / len(elements) if reduction == "batchmean" else total / elements.size


def _at(info: Any, args: Any, kwargs: Any, index: int, change: Any, scalar: Any) -> Array:
    """A result of the op for other contents of the floating tensors."""
    import torch

    def on(value: Any) -> Any:
        value = wide(value)
        return change(value) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    given = {k: scalar(v) if k in SCALARS and isinstance(v, (int, float)) else v for k, v in kwargs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return array_of(list(leaves(info.op(*each(args, on), **each(given, on))))[index]).astype(np.float64)


# Gradients.


def compare_gradients(line: Line, info: Any, sample: Any, device: str = "cpu") -> list[Verdict]:
    """Torch's gradients in float64 beside ours in float64, of a sum over all results with random weights.

    The sample is one that was drawn with `requires_grad`, so that torch says which tensors have a gradient.
    """
    import torch

    args, kwargs = line.settle(*arguments(sample))
    theirs: list[Any] = []
    mine: list[Any] = []

    def leaf(value: Any) -> Any:
        made = wide(value)
        if isinstance(value, torch.Tensor) and value.requires_grad:
            theirs.append(made.requires_grad_())
        return made

    def own(value: Any) -> Any:
        made = ours(device, dtype=hal.float64)(value)
        if isinstance(value, torch.Tensor) and value.requires_grad:
            mine.append(made)
        return made

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = list(leaves(info.op(*each(args, leaf), **each(kwargs, leaf))))
    got = list(leaves(line.call(*each(args, own), **each(kwargs, own))))
    kept = [i for i, w in enumerate(want[: line.first or None]) if isinstance(w, torch.Tensor) and w.requires_grad]
    kept = [i for i in kept if want[i].dtype is torch.float64]
    if not kept:
        return []
    rng = np.random.default_rng(0)
    weights = {i: rng.uniform(0.5, 1.5, tuple(want[i].shape)) for i in kept}
    total = sum((want[i] * torch.from_numpy(np.asarray(weights[i]))).sum() for i in kept)
    slopes = torch.autograd.grad(total, theirs, allow_unused=True)
    wrong = [i for i in kept if not got[i].requires_grad and any(s is not None and s.any() for s in slopes)]
    if wrong:
        return [Verdict(np.inf, 0, "norm", f"result {wrong[0]} has no gradient, torch's has")]
    recorded = [i for i in kept if got[i].requires_grad]
    if not recorded:
        return []
    sums = [(got[i] * hal.tensor(weights[i], device=device)).sum() for i in recorded]
    found = hal.grad(sum(sums[1:], sums[0]), mine, allow_unused=True)
    verdicts = []
    for x, mine_slope, slope in zip(mine, found, slopes, strict=True):
        zeros = np.zeros(x.shape)
        g = zeros if mine_slope is None else array_of(mine_slope)
        w = zeros if slope is None else array_of(slope)
        largest = float(np.max(np.abs(w), initial=1.0, where=np.isfinite(w)))
        verdicts.append(judge(GRADIENTS, g, w, np.dtype(np.float64), largest))
    return verdicts
