"""Element types: those that are declared convert, promote and wrap around as they should; the others are refused."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

import hal
from hal import dtypes, ops
from hal.device import Device
from hal.dtypes import DType
from hal.errors import DTypeError, HalError, ShapeError
from hal.op import Array, Op
from hal.spec import Spec
from hal.testing.calls import Call, check_call, fetch, roundtrip_of
from hal.testing.case import Case, Level, Outcome
from hal.testing.checks import case, same_bits
from hal.testing.inputs import special_values

INTEGER_OPS = ("add", "sub", "mul", "floor_divide", "remainder", "less", "equal", "maximum", "minimum", "bitwise_and",
               "bitwise_or", "bitwise_xor", "bitwise_right_shift")  # fmt: skip
TRIED = ("add", "mul", "less", "where", "reshape", "sum")  # what an undeclared dtype must do to count as working


def declared(device: Device) -> list[DType]:
    """The element types of a device, in one order for all."""
    return [d for d in dtypes.ALL if d in device.backend.dtypes]


def corners(dtype: DType) -> Array:
    """Values at which conversions and integer arithmetic go wrong."""
    if dtype.kind == "bool":
        return np.array([False, True])
    if dtype.kind in ("int", "uint"):
        info = np.iinfo(dtype.numpy)
        values = [info.min, info.min + 1, -7, -2, -1, 0, 1, 2, 7, 100, info.max - 1, info.max]
        return np.array([v for v in values if info.min <= v <= info.max], dtype.numpy)
    if dtype.kind == "float":
        return special_values(dtype)
    parts = special_values(dtypes.float32 if dtype is dtypes.complex64 else dtypes.float64)
    whole = parts[np.isfinite(parts)]
    return (whole + 1j * whole[::-1]).astype(dtype.numpy)


def convertible(values: Array, target: DType) -> Array:
    """Those of `values` whose conversion is the same everywhere: floats that an integer type can hold."""
    if target.kind not in ("int", "uint") or values.dtype.kind in "biu":
        return values
    info = np.iinfo(target.numpy)
    wide = values.astype(np.float64)
    near = float(np.spacing(np.float64(info.max)))
    return values[np.isfinite(wide) & (np.trunc(wide) >= info.min) & (np.trunc(wide) <= info.max - near)]


def _cast(source: DType, target: DType) -> Case:
    def run(device: Device) -> Outcome:
        with np.errstate(all="ignore"):
            values = convertible(corners(source), target)
        return check_call(device, Call(ops.cast, (values,), {"dtype": target}))

    return Case(f"dtypes/cast/{source.name}/to-{target.name}", run, "cast", source.name, (roundtrip_of(source),))


def _promotion(a: DType, b: DType) -> Case:
    def run(device: Device) -> Outcome:
        return check_call(device, Call(ops.add, (np.array([1, 0, 1]).astype(a.numpy), np.ones(3, b.numpy)), {}))

    return Case(f"dtypes/promotion/{a.name}/with-{b.name}", run)


def _wrap_around(op: Op, dtype: DType) -> Case:
    def run(device: Device) -> Outcome:
        grid = np.array(list(product(corners(dtype), repeat=2)), dtype.numpy)
        a, b = grid[:, 0], grid[:, 1]
        if op in (ops.floor_divide, ops.remainder):  # by zero, and the smallest by -1: whatever the device makes of it
            fits = (b != 0) & ~((a == np.iinfo(dtype.numpy).min) & (b.astype(object) == -1))
            a, b = a[fits], b[fits]
        if op is ops.bitwise_right_shift:
            fits = (b.astype(object) >= 0) & (b.astype(object) < 8 * dtype.itemsize)
            a, b = a[fits], b[fits]
        return check_call(device, Call(op, (a.copy(), b.copy()), {}))

    return Case(f"dtypes/wrap-around/{op.name}/{dtype.name}", run, op.name, dtype.name, (roundtrip_of(dtype),))


def _creation(dtype: DType) -> Case:
    def check(device: Device) -> str:
        given: dict[str, Any] = {"dtype": dtype, "device": device}
        made = {
            "zeros": (hal.zeros((2, 3), **given), np.zeros((2, 3))),
            "ones": (hal.ones((2, 3), **given), np.ones((2, 3))),
            "full": (hal.full((4,), 1, **given), np.full(4, 1)),
            "zeros_like": (hal.zeros_like(hal.ones((3,), **given)), np.zeros(3)),
        }
        if dtype.kind != "bool":
            made["eye"] = (hal.eye(3, **given), np.eye(3))
        if dtype.kind in ("int", "uint", "float"):
            made["arange"] = (hal.arange(0, 20, 3, **given), np.arange(0, 20, 3))
        for name, (got, want) in made.items():
            problem = same_bits(f"hal.{name} of {dtype.name}", fetch(got), want.astype(dtype.numpy))
            if problem:
                return problem
        return ""

    return case(f"dtypes/creation/{dtype.name}", check, dtype=dtype.name, needs=(roundtrip_of(dtype),))


def _refused(dtype: DType) -> Case:
    def check(device: Device) -> str | Outcome:
        try:
            hal.tensor(np.ones(3, dtype.numpy), device=device)
        except DTypeError as error:
            problem = "" if dtype.name in str(error) else f"the message does not name {dtype.name}: {error}"
        else:
            problem = f"{device.type} does not declare {dtype.name}, and a tensor of it was made"
        return problem or Outcome("declined", detail=f"{device.type} declares no {dtype.name}")

    return case(f"dtypes/refused/{dtype.name}", check, dtype=dtype.name)


def _undeclared(dtype: DType) -> Case:
    def check(device: Device) -> str | Outcome:
        if works(device, dtype):
            return (
                f"{device.type} does not declare {dtype.name}, yet upload(), download() and its kernels for "
                f"{', '.join(TRIED)} are right for it: add it to `dtypes`, or let upload() refuse it"
            )
        return Outcome("declined", detail=f"{device.type} declares no {dtype.name}, and does not do it")

    return case(f"dtypes/undeclared/{dtype.name}", check, dtype=dtype.name)


def works(device: Device, dtype: DType) -> bool:
    """Whether a dtype does what it should on a device, past the check that it is declared."""
    backend = device.backend
    a, b = np.array([3, 1, 2, 0]).astype(dtype.numpy), np.array([1, 1, 0, 2]).astype(dtype.numpy)
    tried: dict[str, tuple[tuple[Array, ...], dict[str, Any]]] = {
        "add": ((a, b), {}), "mul": ((a, b), {}), "less": ((a, b), {}),
        "where": ((a.astype(bool), a, b), {}), "reshape": ((a,), {"shape": (2, 2)}),
        "sum": ((a,), {"axis": None, "keepdims": False}),
    }  # fmt: skip
    ran = 0
    for name in TRIED:
        inputs, settings = tried[name]
        op = ops.TABLE[name]
        specs = tuple(Spec(x.shape, dtypes.of(x.dtype)) for x in inputs)
        try:
            out = op.infer(*specs, **settings)
        except (DTypeError, ShapeError):
            continue
        assert isinstance(out, Spec)
        try:
            kernel = backend.kernels.find(op, specs, settings)
            if kernel is None:
                return False
            run = backend.prepare(op, kernel, specs, (out,), settings)
            buffer = run(*(backend.upload(x, device) for x in inputs), **settings)
            got = np.asarray(backend.download(buffer, out))
        except (HalError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return False  # it does not do it, in whatever way
        if same_bits("", got, np.asarray(op.reference(*inputs, **settings)).astype(out.dtype.numpy)):
            return False
        ran += 1
    return ran > 2


def cases(device: Device) -> Iterator[Case]:
    """Conversions and promotions between all declared types, integers that overflow, and the types not declared."""
    found = declared(device)
    for source, target in product(found, found):
        if source.kind != "complex" or target.kind in ("complex", "bool"):
            yield _cast(source, target)
    for i, a in enumerate(found):
        for b in found[i + 1 :]:
            yield _promotion(a, b)
    for name in INTEGER_OPS:
        for dtype in found:
            if dtype.kind in ("int", "uint"):
                yield _wrap_around(ops.TABLE[name], dtype)
    for dtype in found:
        yield _creation(dtype)
    for dtype in dtypes.ALL:
        if dtype not in found:
            yield _refused(dtype)
            yield _undeclared(dtype)


LEVEL = Level("dtypes", "conversions, promotion, overflow; what is declared works, what is not is refused", 50, cases)
