"""The devices: a machine of the simulator each, `systolic` and `systolic:PRESET`, and how their kernels are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hal.plugin import (
    Array,
    Backend,
    ConfigError,
    Device,
    DType,
    DTypeError,
    Kernel,
    Kernels,
    Link,
    Op,
    Spec,
    Speed,
    Tolerance,
    Unavailable,
)
from hal.plugin import dtypes as formats

if TYPE_CHECKING:
    from hal_systolic.config import Machine
    from hal_systolic.numerics import Numerics

WITHOUT = ("float16", "float64", "complex64", "complex128")  # number formats that the machines do not have
FORMATS = frozenset(d for d in formats.ALL if d.name not in WITHOUT)


class Systolic(Backend):
    """The backend as it is found: one device for HAL_SYSTOLIC or the default preset, one for each preset by name."""

    name = "systolic"
    priority = -1  # chosen by name only: who has a network to run wants a device, not a simulation
    dtypes = FORMATS
    views = True

    def __init__(self) -> None:
        self._chips: dict[tuple[str, Machine], Chip] = {}

    @cached_property
    def kernels(self) -> Kernels:  # type: ignore[override]  # the kernel files are imported on first use
        import hal_systolic.all_kernels

        return hal_systolic.all_kernels.kernels

    def devices(self) -> list[Device]:
        from hal_systolic.presets import PRESETS, load

        try:
            default = Device(self._chip("", load()))
        except ConfigError as error:
            raise Unavailable(str(error), "correct HAL_SYSTOLIC, or unset it") from error
        return [default, *(Device(self._chip(name, machine), name) for name, machine in PRESETS.items())]

    def device(self, machine: Machine) -> Device:
        """The device that simulates this machine."""
        return Device(self._chip(machine.name, machine), machine.name)

    def _chip(self, name: str, machine: Machine) -> Chip:
        found = self._chips.get((name, machine))
        if found is None:
            found = self._chips[name, machine] = Chip(self, machine)
        return found


class Chip(Backend):
    """One machine. Buffers are NumPy arrays: what is simulated is its arithmetic and its time, not its addresses."""

    name = "systolic"
    priority = -1
    dtypes = FORMATS
    views = True
    simulated = True

    def __init__(self, door: Systolic, machine: Machine) -> None:
        self.door = door
        self.machine = machine
        self.training = machine.training

    @cached_property
    def kernels(self) -> Kernels:  # type: ignore[override]  # made on first use
        return _Supported(self.door.kernels, self.machine)

    @property
    def numerics(self) -> Numerics:
        """How its array multiplies and adds, as `hal_systolic.precision` says at the moment."""
        from hal_systolic.accuracy import numerics_of

        return numerics_of(self.machine)

    def devices(self) -> list[Device]:
        return [d for d in self.door.devices() if d.backend is self]

    def upload(self, array: Array, device: Device) -> Array:
        from hal_systolic import recording

        if array.dtype.name in WITHOUT:
            raise DTypeError(f"{device} has no {array.dtype.name}: convert it to float32 first, with .float()")
        buffer = np.array(array, order="C")
        if recording.active is not None:
            recording.active.moved(self.machine, buffer, to_device=True)
        return buffer

    def download(self, buffer: Array, spec: Spec) -> Array:
        from hal_systolic import recording

        if recording.active is not None:
            recording.active.moved(self.machine, buffer, to_device=False)
        return np.array(buffer, order="C")

    def copy(self, buffer: Array, spec: Spec, source: Device, target: Device) -> Array | None:
        return buffer.copy() if source.backend is self else None

    def write(self, buffer: Array, value: Array, spec: Spec) -> None:
        np.copyto(buffer, value)

    def shares(self, buffer: Array, other: Array) -> bool:
        base = buffer.base
        return buffer is other or (base is not None and (base is other or base is other.base))

    def prepare(
        self, op: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        from hal_systolic.calling import call

        return call(self, op, kernel, specs, outs, settings)

    def tolerance(self, op: Op, dtype: DType) -> Tolerance | None:
        from hal_systolic.accuracy import tolerance_of

        return tolerance_of(self.machine, op, dtype)

    def speed(self, device: Device) -> Speed:
        """The machine's own speed, not its simulation's: products at the rates of its array, all else by lanes."""
        m = self.machine
        products = {name: 2 * m.peak_macs * m.clock_hz * rate for name, rate in m.rates.items()}
        floats, integers = products.get("bfloat16"), products.get("int8", products.get("bfloat16", 0.0))
        rates = {"any": m.vector.lanes * m.vector.ops_per_cycle * m.clock_hz, "contraction/int32": integers}
        if floats:
            rates |= {"contraction/float32": floats / self.numerics.passes, "contraction/bfloat16": floats}
        return Speed(m.dram.bytes_per_s, rates, launch=(2 * m.rows + m.cols) / m.clock_hz)

    def seconds(
        self, op: Op, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any], device: Device
    ) -> float | None:
        """By the cost model in closed form; operands come from device memory."""
        from hal_systolic.accuracy import setting
        from hal_systolic.describing import describe, estimate

        asked = describe(self.machine, setting.passes, op, specs, outs, settings)
        return estimate(asked, specs, outs, self.machine) if asked is not None else None

    def link(self, device: Device, other: Device | None = None) -> Link | None:
        m = self.machine
        return Link(m.host.bytes_per_s, m.host.latency / m.clock_hz) if other is None else None

    def describe(self, device: Device) -> dict[str, str]:
        m = self.machine
        arrays = f"{m.arrays} x " if m.arrays > 1 else ""
        return {
            "machine": m.name,
            "array": f"{arrays}{m.rows} x {m.cols}, {m.dataflow}, {m.clock_hz / 1e6:g} MHz",
            "numbers": f"{m.in_dtype} products, {m.acc_dtype} sums",
            "trains": "yes" if m.training else "no, it only infers",
        }


class _Supported(Kernels):
    """The backend's kernels, less those whose products a machine cannot multiply."""

    def __init__(self, table: Kernels, machine: Machine) -> None:
        super().__init__()
        self._table, self._machine = table, machine

    def find(self, op: Op, specs: Iterable[Spec], settings: Mapping[str, Any]) -> Kernel | None:
        from hal_systolic.describing import array_format
        from hal_systolic.products import ON_ARRAY

        specs = tuple(specs)
        if op.name in ON_ARRAY and not array_format(self._machine, specs[0].dtype):
            return None
        return self._table.find(op, specs, settings)

    def update(self, other: Kernels) -> None:
        self._table.update(other)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, op: Op) -> bool:
        return op in self._table
