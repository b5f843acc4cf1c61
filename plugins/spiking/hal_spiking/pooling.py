"""Pooling of spikes: means by neurons of their own, maxima by a gate that lets the busiest input of a window through.

A gate counts the spikes of each input and passes one whenever the largest count grows, so that it never waits for the
end, and its rate is exactly the largest rate. (Rueckauer et al., 2017, pass the spikes of the input that is estimated
to be the busiest so far; that sends a few too many or too few whenever the lead changes.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from hal import ops
from hal.plugin import Array, Spec

from hal_spiking.neurons import fire
from hal_spiking.reporting import note, note_neurons, wanted
from hal_spiking.signals import Constant, Layer, Recorded, Signal, Spikes, combined, odd_ones
from hal_spiking.synapses import in_float32
from hal_spiking.table import kernels
from hal_spiking.windows import Sizes, pad_spatial, windows


def _plain(*specs: Spec, ceil_mode: bool, **settings: Any) -> bool:
    return in_float32(*specs) and not ceil_mode


def _average(
    x: Signal, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool
) -> Signal:
    n = len(kernel)
    ones = (1,) * n
    axes = tuple(range(-n, 0))
    inside = windows(pad_spatial(np.ones((1, 1, *x.value.shape[2:]), bool), padding), kernel, stride, ones)
    count = np.float32(np.prod(kernel)) if count_include_pad else inside.sum(axes).astype(np.float32)

    def current(x: Array) -> Array:
        return np.asarray(windows(pad_spatial(x, padding), kernel, stride, ones).sum(axes) / count)

    layer = Layer(f"avg_pool{n}d", after=x.layer)
    pooled = combined(current, x, layer=layer if isinstance(x, Spikes) else x.layer)
    if not isinstance(x, Spikes):
        return pooled  # before the neurons, a mean of currents is part of the weights
    if wanted():
        note(layer, synaptic_ops=int(windows(pad_spatial(x.counts, padding), kernel, stride, ones).sum()))
    return fire(pooled, float(x.amplitude), layer, odd_ones(pooled.value))


def _largest(x: Signal, *, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool) -> Signal:
    n = len(kernel)
    axes = tuple(range(-n, 0))

    def pooled(x: Array, outside: float) -> Array:
        return np.asarray(windows(pad_spatial(x, padding, outside), kernel, stride, dilation).max(axes))

    if isinstance(x, Constant):
        return Constant(pooled(x.array, -np.inf), x.layer)
    layer = Layer(f"max_pool{n}d", after=x.layer)
    if isinstance(x, Spikes):
        nothing = np.zeros(x.train.shape[1:], np.int32)
        train = _increments(nothing, x.train, lambda total: pooled(total, -1)).astype(bool)
        odd = None if x.odd is None else odd_ones(pooled(x.value, -np.inf))
        gated = Spikes(train, float(x.amplitude), layer, x.depth + 1, odd)
        if wanted():
            reached = int(windows(pad_spatial(x.counts, padding), kernel, stride, dilation).sum())
            note_neurons(gated)
            note(layer, synaptic_ops=reached)
        return gated
    assert x.steps is not None, "only constants have no steps"
    currents = (x.at(step) for step in range(x.steps))
    nothing = np.zeros(x.value.shape, np.float32)
    return Recorded(_increments(nothing, currents, lambda total: pooled(total, -np.inf)), x.layer, x.depth)


def _increments(total: Array, signal: Iterable[Array], pooled: Callable[[Array], Array]) -> Array:
    """By how much the pooled running totals grow in each step."""
    grown = []
    before = pooled(total)
    for now in signal:
        total = total + now
        after = pooled(total)
        grown.append(after - before)
        before = after
    return np.stack(grown)


for _op in (ops.avg_pool1d, ops.avg_pool2d, ops.avg_pool3d):
    kernels.register(_op, when=_plain)(_average)
for _op in (ops.max_pool1d, ops.max_pool2d, ops.max_pool3d):
    kernels.register(_op, when=_plain)(_largest)


def _divides(x: Spec, *, output: Sizes) -> bool:
    return in_float32(x) and all(o > 0 and size % o == 0 for size, o in zip(x.shape[2:], output, strict=True))


def _adaptive(x: Signal, *, output: Sizes) -> Signal:
    kernel = tuple(size // o for size, o in zip(x.value.shape[2:], output, strict=True))
    return _average(
        x, kernel=kernel, stride=kernel, padding=(0,) * len(kernel), ceil_mode=False, count_include_pad=True
    )


for _op in (ops.adaptive_avg_pool1d, ops.adaptive_avg_pool2d, ops.adaptive_avg_pool3d):
    kernels.register(_op, when=_divides)(_adaptive)
