"""Asks cuDNN itself, without a GPU, which engines it has for HAL's convolutions: it plans for a GPU that is described.

    python tests/bench/cudnn_plans.py > docs/measured/cudnn-plans.md

Needs `nvidia-cudnn-frontend`, `nvidia-cudnn-cu13` and what that loads, and, where there is no driver, g++: a library
that stands in for the driver's, and answers that there is no GPU, is built for the run. Planning so is what cuDNN calls
ahead-of-time compilation without a device; nothing is run, and nothing is said of speed.
"""

# ruff: noqa: E402  # what is imported is found in the folders that come first
from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]

from hal.codegen.kernels.layout import Shape, row_strides
from hal_cuda.cudnn_driver import front_end, planned
from hal_cuda.driver import Convolution, Layout, Refused

# What NVIDIA publishes of three GPUs, by the names that cuDNN's own descriptions have.
COMMON = {
    "maxGridSize": [2**31 - 1, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536, "warpSize": 32,
    "smCountOrigin": 0, "maxSharedMemoryPerBlock": 49152, "oversizedSharedMemoryPerBlock": 0, "isTccDriver": 0,
    "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536, "maxThreadsPerBlock": 1024, "pciDeviceId": 0,
    "supportCoopLaunch": 1, "cudaDeviceId": 0, "driverVer": 13000,
}  # fmt: skip
GPUS = {
    "NVIDIA H200": {
        "deviceVer": 900, "multiProcessorCount": 132, "maxSharedMemoryPerBlockOptin": 232448, "maxCtasPerSM": 32,
        "maxThreadsPerSM": 2048, "totalGlobalMem": 150 * 10**9, "smClockRateKHz": 1980000,
        "memClockRateKHz": 3201000, "memoryBusWidth": 6144, "l2CacheSize": 60 << 20,
    },
    "NVIDIA A100": {
        "deviceVer": 800, "multiProcessorCount": 108, "maxSharedMemoryPerBlockOptin": 166912, "maxCtasPerSM": 32,
        "maxThreadsPerSM": 2048, "totalGlobalMem": 80 * 10**9, "smClockRateKHz": 1410000,
        "memClockRateKHz": 1593000, "memoryBusWidth": 5120, "l2CacheSize": 40 << 20,
    },
    "Tesla T4": {
        "deviceVer": 750, "multiProcessorCount": 40, "maxSharedMemoryPerBlockOptin": 65536, "maxCtasPerSM": 16,
        "maxThreadsPerSM": 1024, "totalGlobalMem": 15 * 10**9, "smClockRateKHz": 1590000,
        "memClockRateKHz": 5001000, "memoryBusWidth": 256, "l2CacheSize": 4 << 20,
    },
}  # fmt: skip
# Images, weights, padding, stride, dilation.
CASES: dict[str, tuple[Shape, Shape, int, int, int]] = {
    "LeNet's first": ((64, 1, 28, 28), (6, 1, 5, 5), 2, 1, 1),
    "CIFAR 5 x 5": ((128, 64, 12, 12), (64, 64, 5, 5), 2, 1, 1),
    "ResNet 3 x 3": ((64, 64, 56, 56), (64, 64, 3, 3), 1, 1, 1),
    "ResNet 3 x 3, stride 2": ((64, 64, 56, 56), (128, 64, 3, 3), 1, 2, 1),
    "ResNet 1 x 1": ((64, 64, 56, 56), (256, 64, 1, 1), 0, 1, 1),
    "one channel at a time": ((64, 64, 56, 56), (64, 1, 3, 3), 1, 1, 1),
    "four groups": ((8, 64, 14, 14), (128, 16, 3, 3), 1, 1, 1),
    "dilated": ((8, 32, 14, 14), (32, 32, 3, 3), 2, 1, 2),
    "odd sizes": ((3, 5, 9, 7), (7, 5, 3, 2), 1, 2, 1),
    "one axis": ((8, 16, 1, 100), (32, 16, 1, 5), 0, 1, 1),
    "three axes": ((2, 8, 8, 14, 14), (16, 8, 3, 3, 3), 1, 1, 1),
}
KINDS = [("float32", "highest"), ("float32", "tf32"), ("float16", "highest"), ("bfloat16", "highest")]
MADE = {"forward": ("y", False), "with a bias": ("y", True), "by images": ("x", False), "by weights": ("w", False)}
STAND_IN = 'extern "C" { int cuDriverGetVersion(int *v) { *v = 13000; return 0; } %s }\n'


def load_driver() -> None:
    """Load NVIDIA's driver, or, where there is none, what has the names that cuDNN asks of it and says: no GPU."""
    try:
        ctypes.CDLL("libcuda.so.1")
        return
    except OSError:
        asked: set[str] = set()
    for folder in map(Path, sys.path):
        for file in folder.glob("nvidia/cudnn/lib/libcudnn*.so.*"):
            command = ["nm", "-D", "--undefined-only", str(file)]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            asked |= set(re.findall(r"\bcu[A-Z]\w*$", told, re.MULTILINE))
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder, "libcuda.so.1"))
        text = STAND_IN % " ".join(f"int {name}() {{ return 100; }}" for name in sorted(asked))
        command = ["g++", "-w", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-x", "c++", "-", "-o", library]
        subprocess.run(command, input=text, text=True, check=True)
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)


def cases() -> Iterator[tuple[str, str, str, list[Convolution]]]:
    """Each case in each dtype: its name, the dtype, the precision, and what is asked for, in the order of `MADE`."""
    for name, (x, w, padding, stride, dilation) in CASES.items():
        around = [0 if n == 1 else padding for n in x[2:]]
        along = zip(x[2:], w[2:], around, strict=True)
        places = [(n + 2 * p - dilation * (k - 1) - 1) // stride + 1 for n, k, p in along]
        layouts = [Layout(s, row_strides(s)) for s in (x, w, (x[0], w[0], *places))]
        axes = len(places)
        for dtype, precision in KINDS:
            wanted = [
                Convolution(
                    made, dtype, *layouts, tuple(around), (stride,) * axes, (dilation,) * axes, bias, precision
                )
                for made, bias in MADE.values()
            ]  # fmt: skip
            yield name, dtype, precision, wanted


def asked(wanted: Convolution, **where: Any) -> str:
    """The engine that cuDNN chooses, and its workspace; or that there is none."""
    try:
        graph, nbytes = planned(wanted, **where)
    except Refused:
        return "none"
    index = getattr(graph, "_plan_index", 0)  # the plan that was built: of those before it, none is allowed
    engine = graph.get_plan_name_at_index(index).partition("_")[0].removeprefix("eng")
    return engine + (f", {nbytes / 2**20:.0f} MiB" if nbytes >= 1 << 19 else "")


def main() -> None:
    """Print the page."""
    quiet = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # cuDNN names every function that the stand-in does not have
    load_driver()
    cudnn = front_end()
    versions = f"cuDNN {cudnn.backend_version_string()}, front end {metadata.version('nvidia-cudnn-frontend')}"
    print(f"""# Which engines cuDNN has for HAL's convolutions

{versions}, {time.strftime("%d %B %Y")}, asked by `tests/bench/cudnn_plans.py` on a machine without a GPU.
**Nothing was run**, and nothing here is about speed: cuDNN was given what NVIDIA publishes of a GPU, and planned.

The numbers are those of the engines that it ranks first among those that HAL allows: the same bits in every run, and no
digits lost that the dtype has ([why](../decisions/0017-nvidias-libraries.md)). Behind them is the memory that they work
in, where it is half a MiB or more: for half precision most of that is images turned to channels last, since given those
the same engines ask for little. `none`: it declines, and HAL's own convolution runs.""")
    for name, told in GPUS.items():
        found = cudnn.create_device_properties(json.dumps(COMMON | told | {"deviceName": name}))
        where = {
            "device_property": found, "sm_count": told["multiProcessorCount"], "sm_version": told["deviceVer"],
        }  # fmt: skip
        print(f"\n## {name}\n\n| convolution | dtype | {' | '.join(MADE)} |\n|---|---|{'---|' * len(MADE)}")
        for case, dtype, precision, several in cases():
            kind = "float32 as TF32" if precision == "tf32" else dtype
            print(f"| {case} | {kind} | {' | '.join(asked(w, **where) for w in several)} |", flush=True)
    os.dup2(quiet, 2)


if __name__ == "__main__":
    main()
