"""Where signals go: the same neurons in other shapes, which costs nothing, and the largest output as the answer."""

from __future__ import annotations

import numpy as np
from hal import ops
from hal.plugin import Array, DType, Spec

from hal_spiking.reporting import note_readout
from hal_spiking.signals import Affine, Constant, Signal, Spikes, combined
from hal_spiking.table import kernels

Ints = tuple[int, ...]


def _rewired(x: Signal, function: Affine) -> Signal:
    if isinstance(x, Spikes):
        odd = None if x.odd is None else function(x.odd)
        return Spikes(np.stack([function(now) for now in x.train]), float(x.amplitude), x.layer, x.depth, odd)
    return combined(function, x, layer=x.layer)


@kernels.register(ops.reshape)
def reshape(x: Signal, *, shape: Ints) -> Signal:
    """The same neurons in another shape."""
    return _rewired(x, lambda now: now.reshape(shape))


@kernels.register(ops.permute)
def permute(x: Signal, *, axes: Ints) -> Signal:
    """The same neurons with their axes in another order."""
    return _rewired(x, lambda now: np.transpose(now, axes))


@kernels.register(ops.broadcast_to)
def broadcast_to(x: Signal, *, shape: Ints) -> Signal:
    """The same neurons several times."""
    return _rewired(x, lambda now: np.broadcast_to(now, shape))


@kernels.register(ops.slice)
def slice_(x: Signal, *, start: Ints, stop: Ints, step: Ints) -> Signal:
    """Some of the neurons. A stop below 0 is past the front, where a negative step may end."""
    ends = (b if b >= 0 else None if s < 0 else 0 for b, s in zip(stop, step, strict=True))
    key = tuple(slice(*part) for part in zip(start, ends, step, strict=True))
    return _rewired(x, lambda now: now[key])


def _with_silence(*specs: Spec, padding: tuple[tuple[int, int], ...], value: float) -> bool:
    return value == 0 and all(n >= 0 for pair in padding for n in pair)


@kernels.register(ops.pad, when=_with_silence)
def pad(x: Signal, *, padding: tuple[tuple[int, int], ...], value: float) -> Signal:
    """With neurons around that never fire."""

    def padded(now: Array) -> Array:
        return np.pad(now, padding) if padding else now

    return _rewired(x, padded)


def _as_it_is(x: Spec, *, dtype: DType) -> bool:
    return x.dtype is dtype


@kernels.register(ops.cast, when=_as_it_is)
def copy(x: Signal, *, dtype: DType) -> Signal:
    """The same signal: no one ever changes one, so a copy needs no memory of its own."""
    return x


@kernels.register(ops.full)
def full(value: Signal, *, shape: Ints) -> Signal:
    """Data at rest, all of one value."""
    return Constant(np.full(shape, value.value, value.value.dtype))


@kernels.register(ops.argmax)
def argmax(x: Signal, *, axis: int | None, keepdims: bool) -> Signal:
    """Which output is largest, read when the run is over: int64."""
    note_readout(x)
    return Constant(np.argmax(x.value, axis=axis, keepdims=keepdims))
