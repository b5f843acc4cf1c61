"""Post-training quantisation: a trained network as one that multiplies 8-bit integers, for chips that only do that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np

import hal
from hal import ops
from hal.errors import DataError
from hal.op import Array
from hal.tensor import Tensor
from nn.activations import ReLU
from nn.batchnorm import BatchNorm1d, BatchNorm2d
from nn.containers import Sequential
from nn.convolution import Conv2d
from nn.dropout import Dropout
from nn.linear import Identity, Linear
from nn.module import Module
from nn.pooling import MaxPool2d
from nn.shaping import Flatten

LARGEST = 127  # of the integers, on both sides of zero
UNUSED = 2.0**-10  # the scale where all is zero: fine enough that a bias is still told in sums
PASSED_ON = (
    ReLU,
    MaxPool2d,
    Flatten,
    Dropout,
    Identity,
)  # what these do, they do to integers as to what they stand for
Layer = Linear | Conv2d
_FORWARDS = (Linear.forward, Conv2d.forward)  # a subclass with another may compute something else


class _Quantized(Module):
    """A layer whose weights are int8, one scale for each output, and whose sums are int32.

    It takes real numbers or, from a quantized layer before it, int8; it gives float32 or, if `hand_on` was called, int8
    for the quantized layer after it.
    """

    weight: Tensor
    bias: Tensor | None
    input_factor: Tensor
    output_scale: Tensor
    axis: int  # of the output's channels

    def __init__(self, layer: Layer, largest_input: float) -> None:
        super().__init__()
        weight = layer.weight.detach().cpu().numpy().astype(np.float32)
        rows = np.abs(weight.reshape(weight.shape[0], -1)).max(axis=1, initial=0.0)
        scales = np.where(rows > 0, rows / LARGEST, UNUSED).astype(np.float32)
        self.input_scale = largest_input / LARGEST if largest_input > 0 else UNUSED
        device = layer.weight.device
        whole = np.rint(weight / scales.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
        self.register_buffer("weight", hal.tensor(whole, device=device))
        sums = (scales * self.input_scale).astype(np.float32)  # what a 1 in the sums stands for
        self.register_buffer(
            "bias", None if layer.bias is None else hal.tensor(_whole(layer.bias, sums), device=device)
        )
        self.register_buffer("input_factor", hal.tensor(np.float32(1 / self.input_scale), device=device))
        self.register_buffer("output_scale", hal.tensor(sums, device=device))
        self.low = -LARGEST
        self.hands_on = False

    def hand_on(self, scale: float, relu: bool) -> None:
        """Give int8 that stand for multiples of `scale`, those below zero cut off if a relu follows."""
        factors = self.output_scale.cpu().numpy() / np.float32(scale)
        self.output_scale = hal.tensor(factors.astype(np.float32), device=self.output_scale.device)
        self.low, self.hands_on = (0 if relu else -LARGEST), True

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is not hal.int8:
            x = ops.quantize(x, self.input_factor, low=-LARGEST)
        sums = self._sums(x)
        if self.hands_on:
            return ops.quantize(sums, self.output_scale, axis=self.axis, low=self.low)
        return ops.dequantize(sums, self.output_scale, axis=self.axis)

    def _sums(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, int8 {'in and out' if self.hands_on else 'in'}"


def _whole(bias: Tensor, sums: Array) -> Array:
    """A bias in int32, as so many of what a 1 in the sums stands for."""
    values = np.rint(bias.detach().cpu().numpy().astype(np.float64) / sums)
    return np.clip(values, -(2**31), 2**31 - 1).astype(np.int32)


class QuantizedLinear(_Quantized):
    """x @ weight.T + bias in integers; `nn.quantize` makes it of a Linear."""

    axis = -1

    def _sums(self, x: Tensor) -> Tensor:
        return ops.integer_linear(x, self.weight, *_present(self.bias))


class QuantizedConv2d(_Quantized):
    """The convolution in integers; `nn.quantize` makes it of a Conv2d."""

    axis = 1

    def __init__(self, layer: Conv2d, largest_input: float) -> None:
        super().__init__(layer, largest_input)
        padding = _padding(layer)
        assert padding is not None
        self.settings: dict[str, Any] = {
            "stride": layer.stride, "padding": padding, "dilation": layer.dilation, "groups": layer.groups,
        }  # fmt: skip

    def _sums(self, x: Tensor) -> Tensor:
        return ops.integer_conv2d(x, self.weight, *_present(self.bias), **self.settings)


def _present(bias: Tensor | None) -> tuple[Tensor, ...]:
    return () if bias is None else (bias,)


def _padding(layer: Conv2d) -> tuple[int, ...] | None:
    """The zeros on each side; None where the sides differ, or where it is not zeros."""
    if layer.padding_mode != "zeros":
        return None
    if not isinstance(layer.padding, str):
        return tuple(layer.padding)
    spans = [
        d * (k - 1) if layer.padding == "same" else 0 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)
    ]
    return None if any(s % 2 for s in spans) else tuple(s // 2 for s in spans)


def quantize(model: Module, calibration_data: Iterable[Any]) -> Module:
    """A copy of a trained network that infers in 8-bit integers.

    Linear and Conv2d layers get int8 weights, with one scale for each output, and take int8 activations, with one scale
    for all, from the largest magnitude that the calibration data brings there; sums are int32. Batch norms that follow
    such a layer are folded into its weights. In a Sequential, activations stay int8 from one such layer to the next
    through ReLU, MaxPool2d, Flatten and Dropout. All other layers stay as they are, in float32.

    Args:
        model: it stays as it is. The copy is on its device, and in eval mode.
        calibration_data: batches of inputs, or of tuples that begin with inputs, as a DataLoader gives them. A few
            hundred examples of what the network will see are enough.

    Raises:
        DataError: no calibration data.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018; post-training, symmetric.

    >>> import nn
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> nn.quantize(net, [hal.randn(8, 2)])
    Sequential(
      (0): QuantizedLinear((3, 2), int8 in and out)
      (1): Identity()
      (2): QuantizedLinear((1, 3), int8 in)
    )
    """
    copy = deepcopy(model).eval()
    batches = _inputs(calibration_data)
    first = next(batches, None)
    if first is None:
        raise DataError("nn.quantize needs calibration data to know how large activations are, got none")
    with hal.no_grad():
        for layer, norm in _followed(copy, first):
            _fold(layer, norm)
            copy = _replaced(copy, norm, Identity())
        largest = _largest(copy, chain([first], batches))
    made: dict[Module, _Quantized] = {}
    for layer, magnitude in largest.items():
        if isinstance(layer, Conv2d):
            if _padding(layer) is None:
                continue
            made[layer] = QuantizedConv2d(layer, magnitude)
        else:
            made[layer] = QuantizedLinear(layer, magnitude)
        copy = _replaced(copy, layer, made[layer])
    for module in copy.modules():
        if isinstance(module, Sequential) and type(module).forward is Sequential.forward:
            _link(module)
    return copy.eval()


def _inputs(data: Iterable[Any]) -> Iterator[Tensor]:
    for batch in data:
        yield batch[0] if isinstance(batch, (tuple, list)) else batch


def _layers(model: Module) -> list[Layer]:
    return [m for m in model.modules() if isinstance(m, (Linear, Conv2d)) and type(m).forward in _FORWARDS]


def _on_device_of(model: Module, x: Tensor) -> Tensor:
    for parameter in model.parameters():
        return x.to(parameter.device)
    return x


def _followed(model: Module, x: Tensor) -> list[tuple[Layer, Module]]:
    """Layers and the batch norms that take their results, found by running the model."""
    results: list[tuple[Layer, Any]] = []
    pairs: dict[Module, Layer] = {}

    def note(layer: Any, args: Any, result: Any) -> None:
        results.append((layer, result))

    def look(norm: Module, args: Any) -> None:
        pairs.update((norm, layer) for layer, result in results if args and args[0] is result)

    handles = [layer.register_forward_hook(note) for layer in _layers(model)]
    norms = [m for m in model.modules() if type(m) in (BatchNorm1d, BatchNorm2d)]
    handles += [norm.register_forward_pre_hook(look) for norm in norms]
    model(_on_device_of(model, x))
    for handle in handles:
        handle.remove()
    return [(layer, norm) for norm, layer in pairs.items() if norm.running_mean is not None]


def _fold(layer: Layer, norm: Any) -> None:
    """Let a layer give what a batch norm would make of its results."""
    factor = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight
    shift = -norm.running_mean * factor if norm.bias is None else norm.bias - norm.running_mean * factor
    if layer.bias is None:
        layer.register_parameter("bias", type(layer.weight)(shift))
    else:
        layer.bias.copy_(layer.bias * factor + shift)
    layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.ndim - 1)))


def _replaced(model: Module, old: Module, new: Module) -> Module:
    """The model with one module in the place of another, wherever it stands."""
    if model is old:
        return new
    for module in model.modules():
        for name, part in module.named_children():
            if part is old:
                setattr(module, name, new)
    return model


def _largest(model: Module, batches: Iterable[Tensor]) -> dict[Layer, float]:
    """The largest magnitude that comes into each layer; layers that nothing comes into are left out."""
    found: dict[Layer, float] = {}

    def look(layer: Any, args: Any) -> None:
        if args and args[0].numel():
            found[layer] = max(found.get(layer, 0.0), float(args[0].abs().max().item()))

    handles = [layer.register_forward_pre_hook(look) for layer in _layers(model)]
    for x in batches:
        model(_on_device_of(model, x))
    for handle in handles:
        handle.remove()
    return found


def _link(sequence: Sequential) -> None:
    """Let activations stay integers between the quantized layers of a sequence."""
    before: _Quantized | None = None
    between: list[str] = []
    for name, part in list(sequence.named_children()):
        if isinstance(part, _Quantized):
            if before is not None:
                first = next((n for n in between if not isinstance(getattr(sequence, n), Identity)), "")
                relu = bool(first) and isinstance(getattr(sequence, first), ReLU)
                before.hand_on(part.input_scale, relu)
                if relu:
                    setattr(sequence, first, Identity())
            before, between = part, []
        elif isinstance(part, PASSED_ON):
            between.append(name)
        else:
            before, between = None, []
