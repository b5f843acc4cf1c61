"""Post-training quantisation: a trained network as one that multiplies 8-bit integers, for chips that only do that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np

import hal
from hal import dispatch, ops
from hal.errors import DataError
from hal.op import Array
from hal.tensor import Tensor
from nn.activations import ReLU
from nn.batchnorm import BatchNorm1d, BatchNorm2d
from nn.containers import Sequential
from nn.convolution import Conv2d
from nn.linear import Identity, Linear
from nn.module import Module

LARGEST = 127  # of the integers, on both sides of zero
UNUSED = 2.0**-10  # the scale where all is zero: fine enough that a bias is still told in sums
KEPT = ("relu", "max_pool2d", "reshape")  # ops that do to integers what they do to the numbers these stand for
PRODUCTS = ("linear", "conv2d")
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
        """The product of int8 and int8 with the bias, in int32."""
        raise NotImplementedError(f"{type(self).__name__} has no _sums: write which integer op makes its sums")

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
    such a layer are folded into its weights. Where nothing but such layers takes a result, directly or through relu,
    max_pool2d and flatten, it stays int8. All else, such as the sum of a residual connection, is in float32 as before.

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
        handed = _handed_on(copy, first)
        largest = _largest(copy, chain([first], batches))
    for receivers, _ in handed.values():  # whoever takes the same integers reads them with the same scale
        shared = max(largest[r] for r in receivers)
        largest.update(dict.fromkeys(receivers, shared))
    made = {layer: _made(layer, magnitude) for layer, magnitude in largest.items()}
    for layer, (receivers, relu) in handed.items():
        made[layer].hand_on(made[receivers[0]].input_scale, relu)
    for layer, quantized in made.items():
        copy = _replaced(copy, layer, quantized)
    for module in copy.modules():
        if isinstance(module, Sequential):
            _drop_relus(module)
    return copy.eval()


def _made(layer: Layer, magnitude: float) -> _Quantized:
    return QuantizedConv2d(layer, magnitude) if isinstance(layer, Conv2d) else QuantizedLinear(layer, magnitude)


def _inputs(data: Iterable[Any]) -> Iterator[Tensor]:
    for batch in data:
        yield batch[0] if isinstance(batch, (tuple, list)) else batch


def _layers(model: Module) -> list[Layer]:
    plain = [m for m in model.modules() if isinstance(m, (Linear, Conv2d)) and type(m).forward in _FORWARDS]
    return [m for m in plain if isinstance(m, Linear) or _padding(m) is not None]


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


def _handed_on(model: Module, x: Tensor) -> dict[Layer, tuple[list[Layer], bool]]:
    """Layers whose results can stay integers: nothing but other layers takes them, directly or through `KEPT` ops.

    Each with those layers, and whether a relu comes first; found by running the model.
    """
    called: list[Module] = []
    handles = [layer.register_forward_pre_hook(lambda layer, args: called.append(layer)) for layer in _layers(model)]
    calls: list[tuple[Any, tuple[Tensor, ...], tuple[Tensor, ...]]] = []  # kept, so that ids stay their own

    def note(op: Any, inputs: tuple[Tensor, ...], settings: Any, results: tuple[Tensor, ...]) -> None:
        calls.append((op, inputs, results))

    with dispatch.watching(note):
        output = model(_on_device_of(model, x))
    for handle in handles:
        handle.remove()
    by_weight = {id(layer.weight): layer for layer in _layers(model) if called.count(layer) == 1}
    takers: dict[int, list[tuple[Any, tuple[Tensor, ...], tuple[Tensor, ...]]]] = {}
    for call in calls:
        for tensor in call[1]:
            takers.setdefault(id(tensor), []).append(call)
    found: dict[Layer, tuple[list[Layer], bool]] = {}
    for op, inputs, results in calls:
        layer = by_weight.get(id(inputs[1])) if op.name in PRODUCTS else None
        if layer is None or layer in found:
            continue
        receivers: list[Layer] | None = []
        waiting, first = [results[0]], takers.get(id(results[0]), [])
        while waiting and receivers is not None:
            tensor = waiting.pop()
            taken = takers.get(id(tensor), [])
            if not taken or tensor is output:
                receivers = None  # a result of the model
                break
            for other, given, made in taken:
                receiver = by_weight.get(id(given[1])) if other.name in PRODUCTS and given[0] is tensor else None
                if receiver is not None:
                    receivers.append(receiver)
                elif other.name in KEPT:
                    waiting.append(made[0])
                else:
                    receivers = None
                    break
        if receivers:
            found[layer] = receivers, all(other.name == "relu" for other, _, _ in first)
    return found


def _drop_relus(sequence: Sequential) -> None:
    """Leave out each relu that the layer right before it makes as it cuts off its integers at zero."""
    before: Module | None = None
    for name, part in list(sequence.named_children()):
        if isinstance(part, ReLU) and isinstance(before, _Quantized) and before.low == 0:
            setattr(sequence, name, Identity())
        elif not isinstance(part, Identity):
            before = part
