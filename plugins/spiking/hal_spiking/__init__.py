"""A device for hal that runs networks as integrate-and-fire neurons, which infer and do not learn.

`model.to("spiking")` runs a trained network; `convert` gives it weights for neurons of threshold 1 first, `steps` says
how many time steps a run has, and `report` what it cost in spikes and energy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from hal.plugin import Array, Backend, Device, DType, Kernel, Kernels, Op, Spec, Tolerance, dtypes, hookimpl

from hal_spiking.reporting import Costs, Report, note_readout, si
from hal_spiking.settings import current_steps, steps
from hal_spiking.signals import Constant, Signal

if TYPE_CHECKING:
    from hal_spiking.conversion import convert

__all__ = ["Costs", "Report", "Spiking", "convert", "current_steps", "hal_backends", "report", "steps"]

report = Report  # used like a function: with hal_spiking.report() as r:


class Spiking(Backend):
    """A simulated neuromorphic chip: weights in float32, spikes of one bit, time in steps."""

    name = "spiking"
    priority = -1  # never chosen by itself: rates of spikes are not what one expects of float32
    dtypes = frozenset(d for d in dtypes.REAL if not d.is_floating) | {dtypes.float32}
    training = False
    known_failures: Mapping[str, str] = {
        f"nn/layer/{layer}": "its neurons give rates in steps of 1/T; the limits of whole layers know no such rounding"
        for layer in (
            "ReLU", "ReLU6", "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
            "TransformerEncoderLayer",
        )
    }  # fmt: skip

    @cached_property
    def kernels(self) -> Kernels:  # type: ignore[override]  # the kernel files are imported on first use
        import hal_spiking.all_kernels

        return hal_spiking.all_kernels.kernels

    def devices(self) -> list[Device]:
        return [Device(self)]

    def upload(self, array: Array, device: Device) -> Signal:
        return Constant(array.copy())

    def download(self, buffer: Signal, spec: Spec) -> Array:
        note_readout(buffer)
        with np.errstate(all="ignore"):
            return buffer.value.copy()

    def prepare(
        self, op: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        def run(*buffers: Signal, **given: Any) -> Any:
            with np.errstate(all="ignore"):
                return kernel.run(*buffers, **given)

        return run

    def tolerance(self, op: Op, dtype: DType) -> Tolerance | None:
        from hal_spiking.neurons import NEURONS

        if op.name not in NEURONS or dtype is not dtypes.float32:
            return None
        count = current_steps()
        half_a_spike = 0.5 / count * 2**24 * 1.001  # in units of u = 2^-24, and a rounding at exactly half
        return Tolerance(float32=half_a_spike, unit="norm", source=f"rates of spikes in {count} steps: half a spike")

    def describe(self, device: Device) -> dict[str, str]:
        costs = Costs()
        return {
            "neurons": "integrate and fire, reset by subtraction, one spike in a step at most",
            "time steps": f"{current_steps()} (HAL_SPIKING_STEPS, hal_spiking.steps)",
            "energy": f"{si(costs.synaptic_op, 'J')} a synaptic op, {si(costs.neuron_update, 'J')} a neuron and step",
        }


def __getattr__(name: str) -> Any:
    if name == "convert":  # it needs nn, which a device does not
        from hal_spiking.conversion import convert

        return convert
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@hookimpl
def hal_backends() -> list[Backend]:
    """The one device."""
    return [Spiking()]
