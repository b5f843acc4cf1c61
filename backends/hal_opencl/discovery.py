"""Finds the OpenCL devices of this machine, in an order that does not change with what else is installed."""

from __future__ import annotations

import os
from typing import Any

from hal.plugin import Unavailable
from hal_opencl import pocl

SIMULATORS = ("oclgrind",)  # they check memory accesses and are 10,000 times slower: used where asked for by name
INSTALL = "pip install 'hal-runtime[opencl]' for the GPU of a driver that is here, 'hal-runtime[opencl-cpu]' for PoCL"
_KINDS = ("gpu", "accelerator", "custom", "cpu")  # the order in which devices are listed


def kind_of(device: Any) -> str:
    """`gpu`, `accelerator`, `custom` or `cpu`."""
    import pyopencl as cl

    kinds = cl.device_type
    bits = {"gpu": kinds.GPU, "accelerator": kinds.ACCELERATOR, "cpu": kinds.CPU}
    return next((name for name, bit in bits.items() if device.type & bit), "custom")


def title(device: Any) -> str:
    """How a device is called for people."""
    return f"{device.platform.name.strip()} / {device.name.strip()}"


def find_devices() -> list[Any]:
    """The devices that are there: GPUs first, then by the names of platform and device.

    HAL_OPENCL_DEVICES, a comma list of parts of titles and versions, chooses among them and sets their order.
    Simulators are left out unless it names them.

    Raises:
        Unavailable: PyOpenCL, a driver or a device is missing, or none matches.
    """
    try:
        import pyopencl as cl
    except ImportError as error:
        raise Unavailable(f"PyOpenCL cannot be imported ({error})", INSTALL) from None
    try:
        with pocl.kept_here():
            found = [device for platform in cl.get_platforms() for device in _devices_of(platform)]
    except cl.Error as error:
        raise Unavailable(f"there is no OpenCL driver ({error})", INSTALL) from None
    found.sort(key=lambda d: (_KINDS.index(kind_of(d)), title(d)))
    wanted = [part.strip().lower() for part in os.environ.get("HAL_OPENCL_DEVICES", "").split(",") if part.strip()]
    if not wanted:
        chosen = [d for d in found if not any(s in title(d).lower() for s in SIMULATORS)]
    else:
        chosen = [d for part in wanted for d in found if part in f"{title(d)} / {d.platform.version}".lower()]
    if not chosen:
        there = "; ".join(map(title, found)) or "none at all"
        asked = f"HAL_OPENCL_DEVICES={','.join(wanted)} names none of the devices" if wanted else "no OpenCL device"
        raise Unavailable(f"{asked} (there is: {there})", INSTALL)
    return list(dict.fromkeys(chosen))


def _devices_of(platform: Any) -> list[Any]:
    import pyopencl as cl

    try:
        found: list[Any] = platform.get_devices()
    except cl.Error:  # a driver whose hardware is not there: the others still count
        return []
    return [d for d in found if d.available and d.compiler_available]
