"""The stand-in for a GPU: it runs blocks as CUDA does, finds what a GPU does not forgive, and is as late as it may."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_on_cpu.driver import OnCPU
from cuda_on_cpu.machine import unusable

from hal_cuda.driver import Failure, Matrix, Refused

pytestmark = pytest.mark.skipif(unusable(), reason="the stand-in for a GPU needs g++ on Linux")

KERNELS = r"""
typedef struct { int n[3]; short last; } layout;
__device__ static inline float doubled(float x) { return 2 * x; }
extern "C" __global__ void double_all(const float *__restrict__ x, float *__restrict__ y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = doubled(x[i]);
}
extern "C" __global__ void where_all(int *out, layout l, double factor) {
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = (block * 1000 + thread) * factor + l.n[2] + l.last;
}
extern "C" __global__ void stuck() { if (threadIdx.x % 2) __syncthreads(); }
extern "C" __global__ void warps(const float *x, float *y, float *z) {
  float sum = x[threadIdx.x];
  for (int by = 16; by; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
  y[threadIdx.x] = sum;
  float prefix = x[threadIdx.x];
  for (int by = 1; by < 32; by *= 2) {
    const float other = __shfl_up_sync(0xffffffffu, prefix, by);
    if (threadIdx.x % 32 >= by) prefix += other;
  }
  z[threadIdx.x] = prefix;
}
extern "C" __global__ void halves(const unsigned short *x, float *y, unsigned short *z) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  float wide;
  unsigned short half;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x[i]));
  y[i] = wide;
  wide = wide * 1.0003f;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(wide));
  z[i] = half;
}
extern "C" __global__ void divide(int *x) { x[0] = x[1] / x[2]; }
"""
REVERSED = """
extern "C" __global__ void {name}(const float *x, float *y) {{
  __shared__ float shared[96];
  shared[threadIdx.x] = x[blockIdx.x * 96 + threadIdx.x];
  {wait};
  y[blockIdx.x * 96 + threadIdx.x] = shared[95 - threadIdx.x];
}}
"""
KERNELS += REVERSED.format(name="reversed", wait="__syncthreads()") + REVERSED.format(name="hurried", wait="")


class GPU:
    """A device of a stand-in, and short ways to use it."""

    def __init__(self, driver: OnCPU, ordinal: int = 0) -> None:
        self.driver, self.ordinal = driver, ordinal
        self.stream = driver.stream(ordinal)
        self.module = driver.module(ordinal, code())

    def put(self, array: np.ndarray) -> int:
        """The address of a copy."""
        place = self.driver.allocate(self.ordinal, array.nbytes)
        self.driver.copy_in(self.ordinal, place, array, self.stream)
        return place

    def get(self, place: int, shape: Any, dtype: Any = np.float32, stream: int | None = None) -> np.ndarray:
        """What lies somewhere, when a stream is done."""
        out = np.empty(shape, dtype)
        self.driver.copy_out(self.ordinal, out, place, stream or self.stream)
        self.driver.wait(self.ordinal, stream or self.stream)
        return out

    def run(self, name: str, grid: Sequence[int], block: Sequence[int], *arguments: Any, stream: int = 0) -> None:
        """Enqueue a kernel: whole numbers are addresses, the rest is of ctypes."""
        values = [ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments]
        places = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        function = self.driver.function(self.ordinal, self.module, name)
        self.driver.launch(self.ordinal, function, grid, block, ctypes.addressof(places), stream or self.stream)
        for v in values:  # arguments are read at once
            ctypes.memset(ctypes.addressof(v), 0xFF, ctypes.sizeof(v))


_code: list[bytes] = []


def code() -> bytes:
    """The kernels of this file, compiled once."""
    if not _code:
        _code.append(OnCPU().build(KERNELS, "sm_90"))
    return _code[0]


@pytest.fixture
def gpu() -> GPU:
    """A device that nothing was done on."""
    return GPU(OnCPU())


X = np.arange(1, 97, dtype=np.float32)


class Layout(ctypes.Structure):
    """`layout` of the kernels."""

    _fields_ = [("n", ctypes.c_int * 3), ("last", ctypes.c_short)]


def test_every_thread_of_every_block_runs_once_and_knows_its_place(gpu: GPU) -> None:
    grid, block = (3, 2, 4), (4, 3, 5)
    out = gpu.driver.allocate(0, 24 * 60 * 4)
    gpu.run("where_all", grid, block, out, Layout((7, 8, 9), 3), ctypes.c_double(2))
    want = (np.arange(24)[:, None] * 1000 + np.arange(60)) * 2 + 12
    assert (gpu.get(out, (24, 60), np.int32) == want).all()


def test_threads_wait_for_each_other(gpu: GPU) -> None:
    x, y = gpu.put(np.tile(X, 5)), gpu.driver.allocate(0, X.nbytes * 5)
    for _ in range(2):
        gpu.run("reversed", (5, 1, 1), (96, 1, 1), x, y)
        assert (gpu.get(y, (5, 96)) == X[::-1]).all()


def test_a_wait_that_is_missing_shows(gpu: GPU) -> None:
    x, y = gpu.put(X), gpu.driver.allocate(0, X.nbytes)
    for _ in range(2):  # whichever thread comes first
        gpu.run("hurried", (1, 1, 1), (96, 1, 1), x, y)
        assert np.isnan(gpu.get(y, 96)).sum() == 48


def test_lanes_of_a_warp_give_each_other_numbers(gpu: GPU) -> None:
    x, y, z = gpu.put(X), gpu.driver.allocate(0, X.nbytes), gpu.driver.allocate(0, X.nbytes)
    gpu.run("warps", (1, 1, 1), (96, 1, 1), x, y, z)
    lanes = X.reshape(3, 32)
    assert (gpu.get(y, (3, 32)) == lanes.sum(1, keepdims=True)).all()
    assert (gpu.get(z, (3, 32)) == lanes.cumsum(1)).all()


def test_halves_are_converted_as_numpy_does(gpu: GPU) -> None:
    bits = np.arange(1 << 16).astype(np.uint16)
    x, y, z = gpu.put(bits), gpu.driver.allocate(0, 4 << 16), gpu.driver.allocate(0, 2 << 16)
    gpu.run("halves", (256, 1, 1), (256, 1, 1), x, y, z)
    wide = bits.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(gpu.get(y, 1 << 16), wide)
    with np.errstate(over="ignore", invalid="ignore"):
        want = (wide * np.float32(1.0003)).astype(np.float16)
    np.testing.assert_array_equal(gpu.get(z, 1 << 16, np.uint16).view(np.float16), want)


# What a GPU would not forgive.


def beyond(gpu: GPU) -> None:
    """Write one element behind a block."""
    gpu.run(
        "double_all", (2, 1, 1), (64, 1, 1), gpu.put(np.tile(X, 2)), gpu.driver.allocate(0, 95 * 4), ctypes.c_int(96)
    )


def before(gpu: GPU) -> None:
    """Read one element in front of a block."""
    gpu.run("double_all", (1, 1, 1), (64, 1, 1), gpu.put(X) - 4, gpu.put(X), ctypes.c_int(64))


def freed(gpu: GPU) -> None:
    """Read a block that was given back."""
    x = gpu.put(X)
    gpu.driver.free(0, x)
    gpu.run("double_all", (1, 1, 1), (64, 1, 1), x, gpu.put(X), ctypes.c_int(64))


def nowhere(gpu: GPU) -> None:
    """Write to the null pointer."""
    gpu.run("double_all", (1, 1, 1), (64, 1, 1), gpu.put(X), 0, ctypes.c_int(64))


def copied(gpu: GPU) -> None:
    """Copy more than a block holds."""
    gpu.driver.copy(0, gpu.put(X), gpu.put(X), X.nbytes + 1, gpu.stream)


def stuck(gpu: GPU) -> None:
    """Wait for threads that do not come."""
    gpu.run("stuck", (1, 1, 1), (96, 1, 1))


def divided(gpu: GPU) -> None:
    """Divide an integer by zero."""
    gpu.run("divide", (1, 1, 1), (1, 1, 1), gpu.put(np.zeros(3, np.int32)))


WRONG = [
    (
        beyond,
        "IllegalAddress",
        r"double_all: wrote 4 bytes at .*outside of all blocks.* \(thread 31 .* block 1 0 0\)",
    ),
    (before, "IllegalAddress", r"double_all: read 4 bytes at .*outside of all blocks"),
    (freed, "IllegalAddress", r"double_all: read 4 bytes at .*outside of all blocks"),
    (nowhere, "IllegalAddress", r"double_all: an access to .* where nothing is"),
    (copied, "IllegalAddress", r"a copy: 385 bytes at .* are in no block"),
    (stuck, "LaunchTimeout", r"stuck: 48 of 96 threads wait for others that do not come"),
    (divided, "LaunchFailure", r"divide: an integer is divided by zero"),
]


@pytest.mark.parametrize(("wrong", "error", "said"), WRONG, ids=[w.__name__ for w, _, _ in WRONG])
def test_a_fault_is_found_by_the_next_wait_and_stays(gpu: GPU, wrong: Any, error: str, said: str) -> None:
    wrong(gpu)
    with pytest.raises(Failure, match=f"cudaStreamSynchronize: cudaError{error}") as caught:
        gpu.driver.wait(0, gpu.stream)
    (report,) = gpu.driver.reports
    assert caught.value.__notes__ == [report]
    assert re.search(said, report), report
    with pytest.raises(Failure, match=error):
        gpu.driver.stream(0)


def test_memory_of_another_device_is_reached_once_it_may_be() -> None:
    driver = OnCPU(devices=2)
    one, two = GPU(driver), GPU(driver, 1)
    x = two.put(X)
    driver.wait(1, two.stream)
    assert driver.can_reach(0, 1)
    y = one.driver.allocate(0, X.nbytes)
    one.run("double_all", (1, 1, 1), (96, 1, 1), x, y, ctypes.c_int(96))
    assert (one.get(y, 96) == 2 * X).all()
    two.run("double_all", (1, 1, 1), (96, 1, 1), y, x, ctypes.c_int(96))
    with pytest.raises(Failure, match="IllegalAddress"):
        driver.wait(1, two.stream)
    assert "on a device that this one does not reach" in driver.reports[-1]
    assert (one.get(y, 96) == 2 * X).all()


def test_memory_is_given_as_far_as_there_is_some_and_is_not_zero() -> None:
    gpu = GPU(OnCPU(memory=1000))
    x = gpu.driver.allocate(0, 600)
    assert np.isnan(gpu.get(x, 150)).all()
    with pytest.raises(MemoryError):
        gpu.driver.allocate(0, 600)
    assert gpu.driver.free_memory(0) == 400
    gpu.driver.free(0, x)
    gpu.driver.allocate(0, 600)
    with pytest.raises(Failure, match="cudaErrorInvalidValue"):
        gpu.driver.free(0, x)


@pytest.mark.parametrize(
    ("grid", "block"), [((1, 1, 1), (2048, 1, 1)), ((1, 65536, 1), (1, 1, 1)), ((0, 1, 1), (1, 1, 1))]
)
def test_shapes_that_no_gpu_has_are_refused(gpu: GPU, grid: Sequence[int], block: Sequence[int]) -> None:
    with pytest.raises(Failure, match="CUDA_ERROR_INVALID_VALUE"):
        gpu.run("stuck", grid, block)


def test_sources_that_do_not_compile_and_code_for_others_are_refused(gpu: GPU) -> None:
    with pytest.raises(Refused, match=r"error: .nonsense. does not name a type"):
        gpu.driver.build("nonsense f() {}", "sm_90")
    with pytest.raises(Failure, match="CUDA_ERROR_NO_BINARY_FOR_GPU"):
        gpu.driver.module(0, bytes(64) + code())
    with pytest.raises(Failure, match="CUDA_ERROR_NOT_FOUND"):
        gpu.driver.function(0, gpu.module, "nonsense")


def test_failures_can_be_asked_for(gpu: GPU) -> None:
    gpu.driver.refuse("event", "cudaErrorMemoryAllocation", after=1)
    gpu.driver.event(0)
    with pytest.raises(Failure, match="cudaErrorMemoryAllocation"):
        gpu.driver.event(0)
    gpu.driver.event(0)
    gpu.driver.break_down(0)
    with pytest.raises(Failure, match="cudaErrorIllegalAddress"):
        gpu.driver.event(0)


# Streams.


def test_what_is_not_waited_for_is_not_there() -> None:
    for order, early in (("late", np.nan), ("others first", 1), ("at once", 1)):
        gpu = GPU(OnCPU(order=order))
        copies = gpu.driver.stream(0)
        x = gpu.driver.allocate(0, 4)
        gpu.driver.copy_in(0, x, np.ones(1, np.float32), copies)
        np.testing.assert_equal(gpu.get(x, 1), early)
        event = gpu.driver.event(0)
        assert gpu.driver.done(event)
        gpu.driver.record(0, event, copies)
        assert gpu.driver.done(event) == (order == "at once")
        gpu.driver.after(0, gpu.stream, event)
        assert gpu.get(x, 1) == 1
        assert gpu.driver.done(event)


def test_what_is_written_over_too_early_shows() -> None:
    gpu = GPU(OnCPU(order="others first"))
    copies = gpu.driver.stream(0)
    x, y = gpu.put(X), gpu.driver.allocate(0, X.nbytes)
    gpu.driver.wait(0, gpu.stream)
    gpu.run("double_all", (1, 1, 1), (96, 1, 1), x, y, ctypes.c_int(96))
    read = gpu.driver.event(0)
    gpu.driver.record(0, read, gpu.stream)
    gpu.driver.after(0, copies, read)
    gpu.driver.copy_in(0, x, -X, copies)
    assert (gpu.get(y, 96) == 2 * X).all()
    gpu.run("double_all", (1, 1, 1), (96, 1, 1), x, y, ctypes.c_int(96))
    gpu.driver.copy_in(0, x, X, copies)
    assert (gpu.get(y, 96) == 2 * X).all()  # and not of -X, which it was given


def test_page_locked_memory_is_read_when_the_copy_is_done(gpu: GPU) -> None:
    pageable, pinned = np.ones(4, np.uint8), gpu.driver.pinned(8)
    pinned[:] = 1
    x = gpu.driver.allocate(0, 8)
    gpu.driver.copy_in(0, x, pageable, gpu.stream)
    gpu.driver.copy_in(0, x + 4, pinned[2:6], gpu.stream)
    pageable[:] = pinned[:] = 2
    assert gpu.get(x, 8, np.uint8).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    gpu.driver.copy_in(0, x, pinned, gpu.stream)
    del pinned
    with pytest.raises(Failure, match="IllegalAddress"):
        gpu.driver.wait(0, gpu.stream)
    assert "page-locked memory was freed before it was copied" in gpu.driver.reports[-1]


def test_events_have_times(gpu: GPU) -> None:
    first, second = (gpu.driver.event(0, timed=True) for _ in range(2))
    gpu.driver.record(0, first, gpu.stream)
    gpu.run("double_all", (1, 1, 1), (96, 1, 1), gpu.put(X), gpu.put(X), ctypes.c_int(96))
    gpu.driver.record(0, second, gpu.stream)
    assert gpu.driver.elapsed(first, second) > 0
    assert gpu.driver.calls["wait"] == 0


# Graphs.


def test_a_graph_is_done_when_it_is_launched_with_the_arguments_it_had(gpu: GPU) -> None:
    x, y = gpu.put(X), gpu.put(X)
    gpu.driver.wait(0, gpu.stream)
    gpu.driver.begin_capture(0, gpu.stream)
    gpu.run("double_all", (1, 1, 1), (96, 1, 1), x, y, ctypes.c_int(96))
    gpu.run("double_all", (1, 1, 1), (96, 1, 1), y, x, ctypes.c_int(96))
    with pytest.raises(Failure, match="cudaErrorStreamCaptureUnsupported"):
        gpu.driver.wait(0, gpu.stream)
    graph = gpu.driver.end_capture(0, gpu.stream)
    assert (gpu.get(x, 96) == X).all()
    with gpu.driver.counted() as calls:
        for _ in range(3):
            gpu.driver.launch_graph(0, graph, gpu.stream)
        assert (gpu.get(x, 96) == 64 * X).all()
    assert calls == {"launch_graph": 3, "copy_out": 1, "wait": 1}


def test_streams_join_a_capture_by_events_and_must_be_joined_again(gpu: GPU) -> None:
    driver, other = gpu.driver, gpu.driver.stream(0)
    x, y = gpu.put(X), gpu.put(X)
    outside, begun, ended = (driver.event(0) for _ in range(3))
    driver.record(0, outside, other)
    for joined in (True, False):
        driver.begin_capture(0, gpu.stream)
        with pytest.raises(Failure, match="cudaErrorStreamCaptureIsolation"):
            driver.after(0, gpu.stream, outside)
        driver.record(0, begun, gpu.stream)
        driver.after(0, other, begun)
        gpu.run("double_all", (1, 1, 1), (96, 1, 1), x, y, ctypes.c_int(96), stream=other)
        driver.record(0, ended, other)
        if joined:
            driver.after(0, gpu.stream, ended)
            graph = driver.end_capture(0, gpu.stream)
            continue
        with pytest.raises(Failure, match="cudaErrorStreamCaptureUnjoined"):
            driver.end_capture(0, gpu.stream)
    driver.launch_graph(0, graph, gpu.stream)
    assert (gpu.get(y, 96) == 2 * X).all()


# Products.


@pytest.mark.parametrize("kinds", ["float16", "float16 float32", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("left", "right", "add"), [(False, False, False), (True, False, True), (False, True, True)])
def test_products_are_those_of_cublas(gpu: GPU, kinds: str, left: bool, right: bool, add: bool) -> None:
    kind, made = kinds.split()[0], kinds.split()[-1]
    dtype, out_dtype = (np.dtype(getattr(ml_dtypes, k, None) or k) for k in (kind, made))
    rng = np.random.default_rng(0)
    m, n, k, batch, extra = 3, 4, 5, 2, 2  # `extra` rows of each matrix are none of it

    def stored(rows: int, columns: int) -> np.ndarray:
        return rng.normal(size=(batch, columns, rows + extra)).astype(dtype)

    a, b = stored(k if left else m, m if left else k), stored(n if right else k, k if right else n)
    out = stored(m, n).astype(out_dtype)
    places = [gpu.put(x) for x in (a, b, out)]
    given = [
        Matrix(place, x.shape[2], x[0].size, swapped)
        for place, x, swapped in zip(places, (a, b, out), (left, right, False), strict=True)
    ]
    gpu.driver.multiply(0, kind, made, (m, n, k), *given, batch, add, "highest", gpu.stream)
    wide = [x.astype(np.float64)[:, :, : x.shape[2] - extra] for x in (a, b, out)]
    factors = [x if swapped else x.swapaxes(1, 2) for x, swapped in zip(wide, (left, right), strict=False)]
    want = factors[0] @ factors[1] + (wide[2].swapaxes(1, 2) if add else 0)
    found = gpu.get(places[2], out.shape, out_dtype)
    accuracy = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-6, "float64": 1e-14}[made]
    np.testing.assert_allclose(found.astype(np.float64)[:, :, :m].swapaxes(1, 2), want, accuracy, accuracy)
    assert (found[:, :, m:] == out[:, :, m:]).all()


def test_tf32_has_ten_binary_digits(gpu: GPU) -> None:
    x = np.array([1 + 2**-10, 1 + 2**-12, np.inf], np.float32)
    places = [gpu.put(v) for v in (x, np.ones(1, np.float32), x)]
    given = [Matrix(places[0], 3), Matrix(places[1], 1), Matrix(places[2], 3)]
    gpu.driver.multiply(0, "float32", "float32", (3, 1, 1), *given, 1, False, "tf32", gpu.stream)
    assert gpu.get(places[2], 3).tolist() == [1 + 2**-10, 1, np.inf]
