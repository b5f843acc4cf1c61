"""Faults against promises: dtypes, shapes and abilities that are declared and not kept, or kept and not declared."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal import dtypes
from hal.errors import DeviceError
from hal.op import Array, Op
from hal.plugin import Device, Spec
from hal.testing.fake import Fake
from hal.testing.fake_memory import FakeBuffer
from hal.testing.faults.fault import Fault


class SinglePrecision(Fake):
    """Declares float64, and computes in float32."""

    def compute(
        self, op: Op, inputs: list[Array], settings: dict[str, Any], specs: tuple[Spec, ...]
    ) -> tuple[Array, ...]:
        results = super().compute(op, inputs, settings, specs)
        return tuple(r.astype(np.float32).astype(r.dtype) if r.dtype == np.float64 else r for r in results)


class ShortIndices(Fake):
    """Gives indices of 32 bits, where 64 are asked for."""

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        result = super().run(op, buffers, settings, out)
        return self.upload(result.contents.astype(np.int32), result.device) if op.name == "argmax" else result


class FlatWhenEmpty(Fake):
    """Gives an empty result as an array of one axis."""

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        result = super().run(op, buffers, settings, out)
        empty = isinstance(result, FakeBuffer) and 0 in result.shape
        return result.viewed((0,), (1,)) if empty and op.name == "matmul" else result


class OnlyInfers(Fake):
    """Declares that it can train, and has no gradient kernels that work."""

    def compute(
        self, op: Op, inputs: list[Array], settings: dict[str, Any], specs: tuple[Spec, ...]
    ) -> tuple[Array, ...]:
        if op.name.endswith("_gradient"):
            raise DeviceError("this chip only infers")
        return super().compute(op, inputs, settings, specs)


class OnlyMatrices(Fake):
    """Takes products of any number of axes, and fails at more than two."""

    def compute(
        self, op: Op, inputs: list[Array], settings: dict[str, Any], specs: tuple[Spec, ...]
    ) -> tuple[Array, ...]:
        if op.name == "matmul" and any(x.ndim > 2 for x in inputs):
            raise IndexError("axis 2 of 2")
        return super().compute(op, inputs, settings, specs)


class SaysLessThanItDoes(Fake):
    """Takes elements of any type, declared or not."""

    def upload(self, array: Array, device: Device) -> FakeBuffer:
        buffer = self.allocate(Spec(array.shape, dtypes.of(array.dtype)), device)
        buffer.contents[...] = array
        return buffer


class ComesAndGoes(Fake):
    """Has one device when it is asked first, then two, then one."""

    def devices(self) -> list[Device]:
        self.calls += 1
        return [Device(self, i) for i in range(1 + self.calls % 2)]


FAULTS = (
    Fault("float64-in-name-only", "float64 is declared, and computed in float32.",
          lambda: SinglePrecision("float64-in-name-only", dtypes=dtypes.ALL), "primitives/div/float64/*"),
    Fault("indices-of-32-bits", "argmax gives int32, where its record says int64.",
          lambda: ShortIndices("indices-of-32-bits", dtypes=dtypes.ALL), "composites/argmax/*", says="int32"),
    Fault("empty-and-flat", "A product with no elements has one axis.",
          lambda: FlatWhenEmpty("empty-and-flat", dtypes=dtypes.ALL), "primitives/matmul/*", says="shape (0,)"),
    Fault("training-in-name-only", "Training is declared, and the kernels that it needs fail.",
          lambda: OnlyInfers("training-in-name-only", dtypes=dtypes.ALL), "gradients/softmax/*", says="only infers",
          status="crash"),
    Fault("takes-what-it-cannot", "A kernel says that it takes any product, and fails at batches.",
          lambda: OnlyMatrices("takes-what-it-cannot", dtypes=dtypes.ALL), "primitives/matmul/*", says="axis 2 of 2",
          status="crash"),
    Fault("devices-that-change", "The list of devices is another one each time.",
          lambda: ComesAndGoes("devices-that-change", dtypes=dtypes.ALL), "basics/answers"),
    Fault("undeclared-dtype", "float16 works, and is not declared.",
          lambda: SaysLessThanItDoes("undeclared-dtype", dtypes=set(dtypes.ALL) - {dtypes.float16}),
          "dtypes/undeclared/float16", twin="no-float16"),
)  # fmt: skip
