"""Synapses: ops that are affine in their input and so make currents of spikes, step by step, with weights at rest."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from hal import ops
from hal.plugin import Array, Spec, dtypes

from hal_spiking.reporting import note, wanted
from hal_spiking.signals import Constant, Layer, Signal, combined
from hal_spiking.table import kernels
from hal_spiking.windows import Sizes, pad_spatial, windows


def in_float32(*specs: Spec, **settings: Any) -> bool:
    """What currents and weights are made of; integers are data that only lie here."""
    return all(s.dtype is dtypes.float32 for s in specs)


@kernels.register(ops.linear, when=in_float32)
def linear(x: Signal, weight: Signal, bias: Signal | None = None) -> Signal:
    """Every event reaches all of the layer's neurons."""
    w, b = weight.value.T, None if bias is None else bias.value

    def current(x: Array) -> Array:
        y = np.matmul(x, w)
        return y if b is None else y + b

    layer = Layer("linear", weight)
    if wanted():
        _note(layer, x, prod(x.value.shape) * w.shape[1], int(x.events.sum()) * w.shape[1])
    return combined(current, x, layer=layer)


def _convolution(
    x: Signal,
    weight: Signal,
    bias: Signal | None = None,
    *,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Signal:
    """An event reaches the neurons in whose windows it lies; padding sends none."""
    w = weight.value
    outs, kernel = w.shape[0], w.shape[2:]
    n = len(kernel)
    by_group = w.reshape(groups, outs // groups, -1)
    b = None if bias is None else bias.value.reshape(-1, *(1,) * n)

    def current(x: Array) -> Array:
        seen = windows(pad_spatial(x, padding), kernel, stride, dilation)
        places = seen.shape[2 : 2 + n]
        flat = np.moveaxis(seen, 1, n + 1)  # (N, *places, C, *kernel)
        parts = []
        for i, part in enumerate(np.split(flat, groups, axis=n + 1)):
            columns = part.reshape(len(x) * prod(places), by_group.shape[2])
            parts.append((columns @ by_group[i].T).reshape(len(x), *places, outs // groups))
        y = np.moveaxis(np.concatenate(parts, axis=-1) if groups > 1 else parts[0], -1, 1)
        return np.ascontiguousarray(y) if b is None else y + b

    layer = Layer(f"conv{n}d", weight)
    if wanted():
        seen = windows(pad_spatial(x.events, padding), kernel, stride, dilation)
        macs = prod(seen.shape[:1] + seen.shape[2 : 2 + n]) * w.size
        _note(layer, x, macs, int(seen.sum()) * (outs // groups))
    return combined(current, x, layer=layer)


for _op in (ops.conv1d, ops.conv2d, ops.conv3d):
    kernels.register(_op, when=in_float32)(_convolution)


@kernels.register(ops.batch_norm, when=in_float32)
def batch_norm(
    x: Signal, mean: Signal, var: Signal, weight: Signal | None = None, bias: Signal | None = None, *, eps: float
) -> Signal:
    """In use, batch norm is affine: on a chip it is part of the weights before it, so it costs nothing here."""
    shape = (-1, *(1,) * (x.value.ndim - 2))
    m = mean.value.reshape(shape)
    scale = (np.float32(1) / np.sqrt(var.value + np.float32(eps))).reshape(shape)
    w = None if weight is None else weight.value.reshape(shape)
    b = None if bias is None else bias.value.reshape(shape)

    def current(x: Array) -> Array:
        y = (x - m) * scale
        y = y if w is None else y * w
        return y if b is None else y + b

    return combined(current, x, layer=x.layer)


@kernels.register(ops.add, when=in_float32)
def add(a: Signal, b: Signal) -> Signal:
    """Currents that flow into one neuron add up: biases, and the branches of a residual block."""
    return combined(np.add, a, b, layer=a.layer or b.layer)


def _note(layer: Layer, x: Signal, macs: int, synaptic_ops: int) -> None:
    shape = x.value.shape
    analog = macs if isinstance(x, Constant) else 0
    samples = shape[0] if len(shape) > 1 else 1
    note(layer, samples=samples, macs=macs, analog_macs=analog, synaptic_ops=synaptic_ops)
