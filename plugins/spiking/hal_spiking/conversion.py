"""Conversion of a trained network into one for neurons of threshold 1, by normalising its weights with data.

Source: Diehl et al., "Fast-classifying, high-accuracy spiking deep networks through weight and threshold balancing",
IJCNN 2015 (weights scaled by the largest activations of the training set); Rueckauer et al., "Conversion of
continuous-valued deep networks to efficient event-driven networks for image classification", Frontiers in
Neuroscience 11:682, 2017 (a percentile instead of the largest, biases, batch norm in the weights, inputs as currents).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import hal
import nn
import numpy as np
from hal.errors import HalError
from hal.plugin import Array

SYNAPSES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
MEANS = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
KNOWN = "Linear, Conv1d to 3d, BatchNorm after those, ReLU, ReLU6, average and max pooling, Flatten, Dropout, Identity"
ELSE = "the network runs on spiking as it is, too: its thresholds are then balanced on each batch"


class ConversionError(HalError, ValueError):
    """A network has a part that has no spiking counterpart here."""


@dataclass
class _Call:
    """A layer as it was called: its name in the network, and how large its outputs were."""

    name: str
    layer: nn.Module
    scale: float


def convert(model: nn.Module, data: Any, *, percentile: float = 99.9) -> nn.Sequential:
    """A network on the CPU that gives what `model` gives, made of layers whose activations lie between 0 and 1.

    Each rectifier becomes `Hardtanh(0, 1)`: on the device `spiking` neurons with threshold 1, elsewhere what those
    neurons tend to with many time steps. Weights and biases are scaled so that every spike means 1; batch norms are
    folded into them; dropout is left out. The outputs keep their scale. `model` stays as it is.

    Args:
        model: a trained network whose layers are called one after the other.
        data: inputs like those that it will see, (N, ...): a tensor or an array. Activations on them set the scales.
        percentile: the part of the activations of a layer that must lie below 1; the few above are cut. 100 for none.

    Raises:
        ConversionError: a layer is not one that this knows, or they do not form a chain; the message has the cure.
    """
    if not 0 < percentile <= 100:
        raise ConversionError(f"convert needs a percentile above 0 and up to 100, got {percentile}: 99.9 suits most")
    calls = _calls(model, data, percentile)
    layers: list[nn.Module] = []
    synapses: int | None = None  # where the layer is whose neurons are still to come
    before = 1.0  # what a spike (or an input of 1) means
    for call in calls:
        layer = call.layer
        if isinstance(layer, SYNAPSES):
            layers.append(_scaled(layer, before, 1.0))
            synapses, before = len(layers) - 1, 1.0
        elif isinstance(layer, NORMS):
            if synapses != len(layers) - 1:
                raise ConversionError(
                    f"convert can fold {call.name} ({type(layer).__name__}) only into a Linear or Conv just before it: "
                    f"change the order, or {ELSE}"
                )
            layers[-1] = _folded(layers[-1], layer)
        elif isinstance(layer, (nn.ReLU, nn.ReLU6)):
            if synapses is not None:
                layers[synapses] = _scaled(layers[synapses], 1.0, call.scale)
            before = _add_neurons(layers, synapses, before, call)
            synapses = None
        elif isinstance(layer, (*MAXIMA, *MEANS, nn.Flatten)):
            layers.append(layer)
        elif not isinstance(layer, IDENTITIES):
            raise ConversionError(
                f"convert has no spiking counterpart of {call.name} ({type(layer).__name__}), only of {KNOWN}; {ELSE}"
            )
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _add_neurons(layers: list[nn.Module], synapses: int | None, before: float, call: _Call) -> float:
    """Put the neurons of a layer into the list; what a spike of theirs means."""
    if synapses is None:  # rectified twice, or an input that is: what was 0 to `before` stays so
        layers.append(nn.Hardtanh(0.0, max(1.0, call.scale / before)))
        return before
    # The largest of several rectified numbers is the rectified largest, so neurons can come before a max pooling,
    # which then passes spikes.
    place = synapses + 1
    if not all(isinstance(layer, (*MAXIMA, nn.Flatten)) for layer in layers[place:]):
        place = len(layers)
    layers.insert(place, nn.Hardtanh(0.0, 1.0))
    return call.scale


def _calls(model: nn.Module, data: Any, percentile: float) -> list[_Call]:
    """The layers of a copy of `model` in the order in which they are called, each on what the one before it gave."""
    twin = copy.deepcopy(model).to("cpu").eval()
    calls: list[_Call] = []
    outputs: list[Any] = []

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if outputs and (len(given) != 1 or given[0] is not outputs[-1]):
                raise ConversionError(
                    f"convert needs layers that follow one another, but {name} ({type(layer).__name__}) was given "
                    f"something else than {calls[-1].name} ({type(calls[-1].layer).__name__}) gave: use layers "
                    f"instead of functions (nn.ReLU, nn.MaxPool2d, nn.Flatten), and no branches; {ELSE}"
                )
            calls.append(_Call(name, layer, _scale(output.numpy(), percentile)))
            outputs.append(output)

        return hook

    leaves = [(name or "the network", layer) for name, layer in twin.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(watch(name)) for name, layer in leaves]
    inputs = data.cpu().numpy() if isinstance(data, hal.Tensor) else np.asarray(data)
    with hal.no_grad():
        result = twin(hal.tensor(inputs.astype(np.float32), device="cpu"))
    for handle in handles:
        handle.remove()
    if not outputs or result is not outputs[-1]:
        raise ConversionError(
            f"convert needs a network whose result is that of its last layer, but {type(model).__name__} does "
            f"something after it: make that a layer, or leave it out; {ELSE}"
        )
    return calls


def _scale(output: Array, percentile: float) -> float:
    """How large the activations of a layer are, leaving out the largest few."""
    found = float(np.percentile(output, percentile)) if output.size else 0.0
    return found if found > 0 else float(output.max(initial=0.0)) or 1.0


def _scaled(layer: nn.Module, before: float, after: float) -> nn.Module:
    """A copy whose inputs are in units of `before` and its outputs in units of `after`."""
    return _with(
        layer, _array(layer.weight) * (before / after), None if layer.bias is None else _array(layer.bias) / after
    )


def _folded(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """A copy that does what `layer` and then `norm` do."""
    if norm.running_mean is None:
        raise ConversionError(
            f"convert cannot fold a {type(norm).__name__} without running statistics: train it with "
            f"track_running_stats=True; {ELSE}"
        )
    mean, var = _array(norm.running_mean), _array(norm.running_var)
    factor = 1 / np.sqrt(var + norm.eps)
    if norm.weight is not None:
        factor = factor * _array(norm.weight)
    bias = -mean if layer.bias is None else _array(layer.bias) - mean
    bias = bias * factor + (0 if norm.bias is None else _array(norm.bias))
    weight = _array(layer.weight)
    return _with(layer, weight * factor.reshape(-1, *(1,) * (weight.ndim - 1)), bias)


def _array(x: hal.Tensor) -> Array:
    return x.detach().numpy().astype(np.float64)


def _with(layer: nn.Module, weight: Array, bias: Array | None) -> nn.Module:
    """A copy with other weights."""
    twin = copy.deepcopy(layer)
    twin.weight = nn.Parameter(hal.tensor(weight.astype(np.float32), device="cpu"))
    twin.bias = None if bias is None else nn.Parameter(hal.tensor(bias.astype(np.float32), device="cpu"))
    return twin
