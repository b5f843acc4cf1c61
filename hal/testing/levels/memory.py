"""Memory: every bit pattern survives the way to the device and back, and no buffer knows of another."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import hal
from hal import ops
from hal.device import Device
from hal.dtypes import DType
from hal.op import Array
from hal.recording import no_grad
from hal.spec import Spec
from hal.tensor import CONSTANT, Tensor
from hal.testing.calls import fetch
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, numbers, same_bits, some_float
from hal.testing.inputs import every_pattern

SHAPES = ((), (0,), (1,), (0, 3), (2, 3), (3, 1, 2), (1, 1, 1, 1), (70_001,))
BUFFERS = 100
CHURN, PIECE, ALLOWED = 96, 2 << 20, 64 << 20  # results that come and go, bytes of each, bytes that may stay


def _roundtrip(dtype: DType) -> Case:
    def check(device: Device) -> str:
        sent = every_pattern(dtype)
        return same_bits("what was uploaded came back changed", fetch(hal.tensor(sent, device=device)), sent)

    return case(f"memory/roundtrip/{dtype.name}", check, dtype=dtype.name)


def _shape(shape: tuple[int, ...]) -> Case:
    def check(device: Device) -> str:
        sent = numbers(device, *shape)
        return same_bits("what was uploaded came back changed", fetch(hal.tensor(sent, device=device)), sent)

    return case(f"memory/shape/{'x'.join(map(str, shape)) or 'scalar'}", check)


def _layouts(x: Array) -> dict[str, Array]:
    frozen = x.copy()
    frozen.flags.writeable = False
    return {
        "transposed": x.T,
        "reversed": x[::-1, ::-1],
        "spaced": x[::2, 1::2],
        "stretched": np.broadcast_to(x[:1], x.shape),
        "fortran": np.asfortranarray(x),
        "read-only": frozen,
        "unaligned": np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    }


def _layout(name: str) -> Case:
    def check(device: Device) -> str:
        sent = _layouts(numbers(device, 6, 8))[name]
        buffer = device.backend.upload(sent, device)
        got = np.asarray(device.backend.download(buffer, Spec(sent.shape, some_float(device))))
        return same_bits(f"a {name} host array came back changed", got, np.array(sent, order="C"))

    return case(f"memory/layout/{name}", check)


def _upload_copies(device: Device) -> str:
    sent = numbers(device, 1000)
    want = sent.copy()
    buffer = device.backend.upload(sent, device)
    sent[...] = 0
    got = np.asarray(device.backend.download(buffer, Spec(want.shape, some_float(device))))
    return same_bits("upload() kept the caller's array, which was changed afterwards", got, want)


def _download_copies(device: Device) -> str:
    want = numbers(device, 1000)
    spec = Spec(want.shape, some_float(device))
    buffer = device.backend.upload(want, device)
    got = np.asarray(device.backend.download(buffer, spec))
    if not got.flags.writeable:
        return "download() gave an array that cannot be written into: it must be the caller's own"
    got[...] = 0
    again = np.asarray(device.backend.download(buffer, spec))
    return same_bits("a downloaded array was changed, and the buffer with it", again, want)


def _many(device: Device) -> str:
    sent = [numbers(device, 7 + i % 5, seed=i) for i in range(BUFFERS)]
    kept = [hal.tensor(x, device=device) for x in sent]
    for i in range(0, BUFFERS, 2):  # their memory may be used again, by these
        kept[i] = hal.tensor(sent[i] + sent[i], device=device)
        sent[i] = sent[i] + sent[i]
    for i, (x, want) in enumerate(zip(kept, sent, strict=True)):
        problem = same_bits(f"of {BUFFERS} buffers, number {i} changed while others came and went", fetch(x), want)
        if problem:
            return problem
    return ""


def _wrap(device: Device) -> str:
    backend, x = device.backend, numbers(device, 4, 5)
    spec = Spec(x.shape, some_float(device))
    buffer = backend.wrap(x, device)
    if buffer is None:
        raise Declined(f"{device.type} does not share host arrays: wrap() gives None")
    x[1, 2] = 9
    problem = same_bits("wrap() gave a buffer that is a copy", np.asarray(backend.download(buffer, spec)), x)
    exposed = backend.expose(buffer, spec)
    if problem or exposed is None:
        return problem
    x[0, 0] = 7
    return same_bits("expose() gave an array that is a copy", exposed, x)


def _expose(device: Device) -> str:
    backend, x = device.backend, numbers(device, 4, 5)
    spec = Spec(x.shape, some_float(device))
    buffer = backend.upload(x, device)
    shared = backend.expose(buffer, spec)
    if shared is None:
        if backend.host_memory:
            return "host_memory is declared, and expose() gives None: say that the memory is not the host's"
        raise Declined(f"{device.type} does not share its buffers: expose() gives None")
    problem = same_bits("expose() gave other contents", shared, x)
    if problem:
        return problem
    shared[2, 3] = 5
    x[2, 3] = 5
    return same_bits("expose() gave an array that is a copy", np.asarray(backend.download(buffer, spec)), x)


def _synchronize(device: Device) -> str:
    x = hal.tensor(numbers(device, 64, 64), device=device)
    y = x
    for _ in range(20):
        y = y * 0.5 + x
    device.backend.synchronize(device)
    after = fetch(y)
    device.backend.synchronize(device)
    return same_bits("a result changed while nothing ran", fetch(y), after)


def _synchronize_shared(device: Device) -> str:
    """What was computed into a host array is there once the device says that all is done."""
    backend, x = device.backend, numbers(device, 64, 64)
    want = x * np.asarray(2.0**-20, x.dtype)
    buffer = backend.wrap(x, device)
    if buffer is None or not backend.views:
        raise Declined(f"{device.type} computes into no array of the host's")
    tensor = Tensor(buffer, Spec(x.shape, some_float(device)), device, CONSTANT)
    with no_grad():
        for _ in range(20):
            tensor.mul_(0.5)
    backend.synchronize(device)
    return same_bits("after synchronize() a shared host array does not hold what was computed into it", x, want)


def _order(device: Device) -> str:
    """Data goes up, through a long chain, and down, with nothing to wait for in between."""
    x = np.ones((256, 256)).astype(some_float(device).numpy)
    y = hal.tensor(x, device=device)
    for i in range(40):
        step = hal.tensor(np.full((256, 256), i % 3).astype(x.dtype), device=device)
        y = ops.maximum(y, step) + step
    want = x
    for i in range(40):
        want = np.maximum(want, x * (i % 3)) + x * (i % 3)
    return same_bits("a chain of ops was read before it was done, or out of order", fetch(y), want.astype(x.dtype))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _leak(device: Device) -> str:
    if not Path("/proc/self/statm").exists():
        raise Declined("this system does not say how much memory a process uses")
    itemsize = some_float(device).itemsize
    if (device.backend.max_memory(device) or PIECE * 16) < PIECE * 16:
        raise Declined(f"{device} has too little memory for this; the level `limits` sees leaks there")
    x = hal.tensor(numbers(device, PIECE // itemsize), device=device)
    for _ in range(8):
        fetch(x + x)
    gc.collect()
    before = _resident()
    for _ in range(CHURN):
        fetch(x + x)
    gc.collect()
    grown = _resident() - before
    if grown > ALLOWED:
        return f"{CHURN} results of {PIECE:,} bytes came and went, and the process grew by {grown:,} bytes"
    return ""


def cases(device: Device) -> Iterator[Case]:
    """Round trips of all dtypes, shapes and layouts, then what buffers may not share."""
    for dtype in sorted(device.backend.dtypes, key=lambda d: d.name):
        yield _roundtrip(dtype)
    for shape in SHAPES:
        yield _shape(shape)
    for name in _layouts(np.zeros((6, 8))):
        yield _layout(name)
    yield case("memory/upload-copies", _upload_copies)
    yield case("memory/download-copies", _download_copies)
    yield case("memory/many", _many)
    yield case("memory/wrap", _wrap)
    yield case("memory/expose", _expose)
    yield case("memory/synchronize", _synchronize)
    yield case("memory/synchronize-shared", _synchronize_shared)
    yield case("memory/order", _order)
    yield case("memory/leak", _leak)


LEVEL = Level("memory", "bits survive the way there and back, and buffers know nothing of each other", 10, cases)
