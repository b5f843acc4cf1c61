"""How a sample of torch's OpInfo becomes a call of hal, as a table: one line for each entry that hal has.

A line says what is called with the sample's own arguments, and in which unit the result is judged. Most entries have
torch's name and arguments in hal too, so a name in a list is a line. What hal does not have is in `opinfo_absent`.
Nothing here needs torch.
"""

# ruff: noqa: I001  # names of other modules on a few lines

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from opinfo_calls import (
    accumulating, adaptive, by_chance, by_frequency, converted, inplace, native_batch_norm, not_attention,
    pool_gradient, reducing, scalar, select_scatter, slice_scatter, sliced, split_at, values_only, with_eps, with_part,
)  # fmt: skip
from opinfo_limits import (
    MEAN, SPREAD, SUM, adaptive_cells, attention_magnitude, batch_magnitude, cross_magnitude, diff_magnitude,
    diff_terms, group_magnitude, instance_magnitude, layer_magnitude, lerp_magnitude, logit_magnitude, multiple,
    multiple_from, native_magnitude, norm, norm_terms, reduced, relative, relative_to, rounded, ulps, window,
)  # fmt: skip
from opinfo_units import EXACT, Limit, of

import hal
import nn
from hal import ops
from nn import functional as F


@dataclass(frozen=True)
class Line:
    """How one entry is run and judged.

    Attributes:
        call: takes what torch's op takes, as tensors of hal.
        limits: one for each result that is compared, or a function of the arguments that gives it; the last one is
            that of all further results.
        first: how many of torch's results are compared, if hal does not give all of them; 0 for all.
        absent: says why a sample cannot be run (`absent(*args, **kwargs)`), or nothing.
        settle: makes a sample mean the same in every precision (`settle(args, kwargs)`), before torch and hal run it.
        wide: whether torch runs in float64; some functions are about the numbers of one type.
        no_gradient: why gradients are not compared, where torch has one.
    """

    call: Callable[..., Any]
    limits: tuple[Limit | Callable[..., Limit], ...] = (EXACT,)
    first: int = 0
    absent: Callable[..., str | None] = lambda *args, **kwargs: None
    settle: Callable[..., Any] = lambda args, kwargs: (args, kwargs)
    wide: bool = True
    no_gradient: str = ""


def line(call: Callable[..., Any], *limits: Limit | Callable[..., Limit], **options: Any) -> Line:
    """A line, with exact results if nothing is said."""
    return Line(call, limits or (EXACT,), **options)


def method(name: str) -> Callable[..., Any]:
    """A method of tensors as a function."""
    return lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs)


def named(names: str, where: Any, *limits: Limit, prefix: str = "", **options: Any) -> dict[str, Line]:
    """A line for each of several names that hal has too; without limits, those of the records of these names."""
    lines = {}
    for name in names.split():
        call = method(name) if where is hal.Tensor else getattr(where, name)
        lines[prefix + name] = line(call, *(limits or (of(RECORD.get(name, name)),)), **options)
    return lines


RECORD = {"logsigmoid": "log_sigmoid", "true_divide": "div", "binary_cross_entropy_with_logits": "bce_with_logits",
          "softmin": "softmax", "mm": "matmul", "bmm": "matmul", "mv": "matmul", "dot": "matmul", "inner": "tensordot",
          "clamp": "clip", "amax": "max", "amin": "min", "cat": "concat"}  # fmt: skip

LINES: dict[str, Line] = {
    # Elementwise: names, units and all are those of the op table.
    **named("abs acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh erf erfc exp exp2 expm1 floor "
            "floor_divide fmod hypot isfinite isinf isnan log log10 log1p log2 logaddexp logical_and logical_not "
            "logical_or logical_xor maximum minimum mul neg pow reciprocal real remainder round rsqrt sigmoid sign "
            "signbit sin sinh sqrt square tan tanh true_divide trunc", hal),
    **named("eq ge gt le lt ne clamp positive conj frac", hal, EXACT),
    **named("clamp_max clamp_min", hal.Tensor, EXACT),
    **named("celu elu gelu glu hardshrink hardswish hardtanh leaky_relu logsigmoid mish relu relu6 selu "
            "silu softplus softshrink softsign tanhshrink threshold prelu", F, prefix="nn.functional."),
    "nn.functional.hardsigmoid": line(F.hardsigmoid, of("hardsigmoid"),
                                      no_gradient="torch's has 1/6 in the precision of float32, in float64 too"),
    "conj_physical": line(hal.conj),
    "nextafter": line(hal.nextafter, wide=False, no_gradient="of numbers whose neighbours differ with the type"),
    "nan_to_num": line(hal.nan_to_num, wide=False),
    "div:no_rounding_mode": line(hal.div, of("div")),
    "div:trunc_rounding": line(hal.div, of("floor_divide")),
    "div:floor_rounding": line(hal.div, of("floor_divide")),
    "round:decimals_0": line(hal.round),
    "round:decimals_3": line(hal.round, ulps(3)),  # x * 10**d, rounded, / 10**d
    "round:decimals_neg_3": line(hal.round, ulps(3)),
    "max:binary": line(hal.max),
    "min:binary": line(hal.min),
    "add": line(hal.add, multiple),
    "sub": line(hal.sub, multiple),
    "rsub": line(lambda x, y, alpha=1: hal.sub(y, x, alpha=alpha), multiple_from),
    "__radd__": line(lambda x, y: y + x),
    "__rdiv__": line(lambda x, y: y / x, of("div")),
    "__rmul__": line(lambda x, y: y * x),
    "__rsub__": line(lambda x, y: y - x),
    "__rmod__": line(lambda x, y: y % x, of("remainder")),
    "__rpow__": line(lambda x, y: y**x, of("pow")),
    "where": line(lambda x, condition, y: hal.where(condition, x, y)),
    "addcmul": line(hal.addcmul, rounded(2)),
    "addcdiv": line(hal.addcdiv, rounded(5)),  # a division is within 2.5 ulp, 5 u
    "lerp": line(hal.lerp, Limit("terms", 4, terms=lambda *a: 1, magnitude=lerp_magnitude)),
    "logit": line(hal.logit, Limit("terms", 10, terms=lambda *a: 1, magnitude=logit_magnitude)),  # log is within 3 ulp
    "isclose": line(hal.isclose),
    "allclose": line(hal.allclose),
    "equal": line(method("equal")),
    # Reductions.
    **named("all any amax amin argmax argmin count_nonzero", hal, EXACT),
    **named("sum cumsum", hal, SUM),
    "mean": line(hal.mean, MEAN),
    **named("var std", hal.Tensor, SPREAD),
    "var:unbiased": line(method("var"), SPREAD),
    "std:unbiased": line(method("std"), SPREAD),
    "var_mean": line(hal.var_mean, SPREAD, MEAN),
    "var_mean:unbiased": line(hal.var_mean, SPREAD, Limit("terms", 1, terms=lambda x, *a: x.size)),
    "prod": line(hal.prod, relative(reduced)),
    "cumprod": line(hal.cumprod, relative(lambda x, dim, **kwargs: x.shape[dim] if x.ndim else 1)),
    "logsumexp": line(hal.logsumexp, of("logsumexp")),
    "max:reduction_no_dim": line(hal.max),
    "max:reduction_with_dim": line(hal.max),
    "min:reduction_no_dim": line(hal.min),
    "min:reduction_with_dim": line(hal.min),
    "aminmax": line(hal.aminmax),
    "median": line(hal.median),
    "diff": line(hal.diff, Limit("terms", terms=diff_terms, magnitude=diff_magnitude)),
    "norm": line(hal.norm, relative(norm_terms)),
    "norm:fro": line(hal.norm, relative(norm_terms)),
    "norm:inf": line(hal.norm),
    "linalg.vector_norm": line(lambda x, p=2, dim=None, keepdim=False, *, ord=None, dtype=None: hal.norm(
        x, p if ord is None else ord, dim, keepdim, dtype=dtype), relative(norm_terms)),
    "trace": line(hal.trace, SUM),
    # Order.
    "sort": line(method("sort")),
    "argsort": line(hal.argsort),
    "topk": line(hal.topk),
    "unique": line(hal.unique),
    "searchsorted": line(hal.searchsorted),
    # Products.
    **named("matmul mm bmm mv dot", hal),
    "bmm:triton_optimized": line(hal.bmm, of("matmul")),
    "__rmatmul__": line(lambda x, y: y @ x, of("matmul")),
    "vdot": line(hal.vecdot, of("matmul")),
    "linalg.vecdot": line(hal.vecdot, of("matmul")),
    "addmm": line(hal.addmm, rounded(2)),
    "addmm:decomposed": line(hal.addmm, rounded(2)),
    "addmv": line(hal.addmv, rounded(2)),
    "baddbmm": line(hal.baddbmm, rounded(2)),
    "outer": line(hal.outer),
    "inner": line(hal.inner, SUM),
    "tensordot": line(hal.tensordot, SUM),
    "einsum": line(lambda tensors, equation: hal.einsum(equation, *tensors), SUM),
    "cross": line(hal.cross, Limit("terms", terms=lambda *a, **k: 3, magnitude=cross_magnitude)),
    "linalg.cross": line(hal.cross, Limit("terms", terms=lambda *a, **k: 3, magnitude=cross_magnitude)),
    "nn.functional.linear": line(F.linear, SUM),
    "nn.functional.bilinear": line(F.bilinear, rounded(1)),
    **named("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", F, SUM, prefix="nn.functional."),
    # Shapes: nothing is computed.
    **named("broadcast_shapes broadcast_tensors broadcast_to chunk clone diag diagonal dstack flatten flip gather "
            "hstack index_copy index_fill index_select masked_fill masked_select movedim narrow permute ravel "
            "repeat_interleave reshape roll select split squeeze stack t take take_along_dim tensor_split tile "
            "transpose tril triu unbind unsqueeze vstack cat argwhere", hal, EXACT),
    **named("contiguous expand expand_as repeat reshape_as unflatten view view_as", hal.Tensor, EXACT),
    **{name: line(attrgetter(name)) for name in ("T", "H", "mT", "mH")},
    **{f"{name}_copy": line(call) for name, call in {
        "expand": method("expand"), "diagonal": hal.diagonal, "narrow": hal.narrow, "view": method("view"),
        "permute": hal.permute, "split_with_sizes": hal.split, "unbind": hal.unbind, "squeeze": hal.squeeze,
        "unsqueeze": hal.unsqueeze, "transpose": hal.transpose, "t": hal.t, "alias": hal.clone}.items()},
    "meshgrid:variadic_tensors": line(hal.meshgrid),
    "meshgrid:list_of_tensors": line(hal.meshgrid),
    "unsafe_chunk": line(hal.chunk),
    "unsafe_split": line(hal.split),
    "split:list_args": line(hal.split),
    "split_with_sizes": line(hal.split),
    "squeeze:multiple": line(hal.squeeze),
    "slice": line(sliced),
    "slice_scatter": line(slice_scatter),
    "select_scatter": line(select_scatter),
    "tensor_split": line(split_at),
    "linalg.diagonal": line(lambda x, offset=0, dim1=-2, dim2=-1: hal.diagonal(x, offset, dim1, dim2)),
    "nonzero": line(hal.nonzero),
    "__getitem__": line(lambda x, key: x[list(key) if isinstance(key, list) else key]),
    "index_put": line(with_part, absent=accumulating),
    "index_add": line(hal.index_add, rounded(1)),
    "scatter": line(hal.scatter, absent=reducing),
    "scatter_add": line(hal.scatter_add, SUM),
    "fill": line(inplace("fill_")),
    "zero_": line(inplace("zero_"), no_gradient="torch refuses to write over a leaf"),
    "constant_pad_nd": line(lambda x, pad, value=0: F.pad(x, pad, value=value)),
    **{f"nn.functional.pad:{mode}": line(F.pad) for mode in (
        "constant", "reflect", "replicate", "replicate_negative", "circular")},
    **named("pixel_shuffle pixel_unshuffle", F, EXACT, prefix="nn.functional."),
    **{f"nn.functional.interpolate:{mode}": line(F.interpolate, norm(32)) for mode in (
        "nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area")},
    "nn.functional.unfold": line(F.unfold),
    "nn.functional.grid_sample": line(F.grid_sample, norm(64)),
    "nn.functional.embedding_bag": line(lambda weight, indices, scale_grad_by_freq=False, sparse=False, **kwargs:
                                        F.embedding_bag(indices, weight, **kwargs), norm(16), absent=by_frequency),
    "nn.functional.channel_shuffle": line(lambda x, groups: nn.ChannelShuffle(groups)(x)),
    "nn.functional.embedding": line(lambda weight, indices, scale_grad_by_freq=False, sparse=False, **kwargs:
                                    F.embedding(indices, weight, **kwargs), ulps(8), absent=by_frequency),
    # Types and creation.
    **named("half bfloat16 float double int long short char bool", hal.Tensor, EXACT),
    "to": line(converted),
    "item": line(lambda x: x.item()),
    **named("zeros_like ones_like full_like", hal, EXACT),
    **named("new_zeros new_ones new_full", hal.Tensor, EXACT),
    "zeros": line(lambda size, **kwargs: hal.zeros(size, **kwargs)),
    "ones": line(lambda size, **kwargs: hal.ones(size, **kwargs)),
    "full": line(hal.full),
    "eye": line(hal.eye),
    "arange": line(hal.arange, norm(2)),
    "linspace": line(hal.linspace, norm(2)),
    "linspace:tensor_overload": line(lambda start, end, steps, **kwargs: hal.linspace(
        float(start), float(end), steps, **kwargs), norm(2)),
    # Pooling.
    **{f"nn.functional.max_pool{n}d": line(values_only(getattr(F, f"max_pool{n}d")), first=1) for n in (1, 2, 3)},
    "max_pool2d_with_indices_backward": line(pool_gradient, SUM, no_gradient="is one itself"),
    **{f"nn.functional.avg_pool{n}d": line(getattr(F, f"avg_pool{n}d"), window(n)) for n in (1, 2, 3)},
    **{f"nn.functional.adaptive_avg_pool{n}d": line(getattr(F, f"adaptive_avg_pool{n}d"), relative_to(
        adaptive_cells)) for n in (1, 2, 3)},
    **{f"nn.functional.adaptive_max_pool{n}d": line(adaptive(getattr(F, f"adaptive_max_pool{n}d")), first=1)
       for n in (1, 2, 3)},
    # Normalisation, softmax, attention.
    "nn.functional.batch_norm": line(F.batch_norm, norm(32, batch_magnitude)),
    "nn.functional.group_norm": line(F.group_norm, norm(32, group_magnitude)),
    "nn.functional.instance_norm": line(F.instance_norm, norm(32, instance_magnitude)),
    "nn.functional.local_response_norm": line(F.local_response_norm, of("local_response_norm")),
    "nn.functional.layer_norm": line(F.layer_norm, norm(32, layer_magnitude)),
    "nn.functional.rms_norm": line(F.rms_norm, of("rms_norm"), settle=with_eps),
    "nn.functional.normalize": line(F.normalize, norm(16)),
    "native_layer_norm": line(F.layer_norm, norm(32, layer_magnitude), first=1),
    "native_group_norm": line(lambda x, weight, bias, n, c, inner, groups, eps: F.group_norm(
        x, groups, weight, bias, eps), norm(32, lambda x, weight, bias, n, c, inner, groups, eps: group_magnitude(
            x, groups, weight, bias, eps)), first=1),
    "native_batch_norm": line(native_batch_norm, norm(32, native_magnitude), first=1),
    "_native_batch_norm_legit": line(native_batch_norm, norm(32, native_magnitude), first=1),
    "_batch_norm_with_update": line(lambda x, w, b, mean, var, momentum, eps: F.batch_norm(
        x, mean, var, w, b, True, momentum, eps), norm(32, lambda x, w, b, mean, var, momentum, eps: batch_magnitude(
            x, mean, var, w, b, True, momentum, eps)), first=1),
    "softmax": line(hal.softmax, of("softmax")),
    "softmax:with_dtype": line(hal.softmax, of("softmax")),
    "log_softmax": line(hal.log_softmax, of("log_softmax")),
    "log_softmax:with_dtype": line(hal.log_softmax, of("log_softmax")),
    "nn.functional.softmin": line(F.softmin, of("softmax")),
    "nn.functional.softmin:with_dtype": line(F.softmin, of("softmax")),
    "_softmax_backward_data": line(lambda g, out, dim, dtype: ops.softmax_gradient(g, out, axis=dim),
                                   of("softmax_gradient"), no_gradient="is one itself"),
    "nn.functional.scaled_dot_product_attention": line(F.scaled_dot_product_attention,
                                                       norm(16, attention_magnitude), absent=not_attention),
    # Losses, dropout.
    **named("binary_cross_entropy binary_cross_entropy_with_logits cross_entropy huber_loss kl_div l1_loss mse_loss "
            "smooth_l1_loss", F, norm(32, "unreduced"), prefix="nn.functional."),
    **named("cosine_similarity pairwise_distance pdist", F, norm(32), prefix="nn.functional.", absent=scalar),
    **named("multi_margin_loss multilabel_margin_loss", F, norm(32, "unreduced"), prefix="nn.functional.",
            absent=scalar),
    **named("cosine_embedding_loss gaussian_nll_loss hinge_embedding_loss "
            "margin_ranking_loss multilabel_soft_margin_loss poisson_nll_loss "
            "soft_margin_loss triplet_margin_loss", F, norm(32, "unreduced"),
            prefix="nn.functional."),
    "nn.functional.ctc_loss": line(F.ctc_loss, norm(32, "unreduced"), no_gradient="torch's is that before log_softmax"),
    "nn.functional.nll_loss": line(F.nll_loss, Limit("terms", 4, terms=lambda x, target, **kwargs: target.size)),
    **named("dropout dropout2d dropout3d alpha_dropout", F, EXACT, prefix="nn.functional.", absent=by_chance),
}  # fmt: skip
