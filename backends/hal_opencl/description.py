"""What `hal devices -v` says of an OpenCL device: driver, limits, extensions, memory in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hal.codegen.kernels.memory import bytes_text

if TYPE_CHECKING:
    from hal_opencl.runtime import OpenCLRuntime


def describe(runtime: OpenCLRuntime) -> dict[str, str]:
    """Lines for people, by what they are about."""
    device, pool = runtime.device, runtime.pool
    return {
        "device": runtime.title,
        "driver": f"{device.driver_version} ({device.version.strip()})",
        "compute units": f"{runtime.units} at {device.max_clock_frequency} MHz",
        "work groups": f"up to {device.max_work_group_size} items, {bytes_text(device.local_mem_size)} of local memory",
        "memory": f"{bytes_text(device.global_mem_size)}, blocks of at most {bytes_text(runtime.max_block)}",
        "shared with the host": "yes" if runtime.shares_memory else "no",
        "in use": f"{bytes_text(pool.used)}, at most {bytes_text(pool.peak)}, {bytes_text(pool.kept)} kept for reuse",
        "programs": f"{runtime.programs.built} compiled, {runtime.programs.loaded} from {runtime.programs.folder()}",
        "extensions": " ".join(sorted(runtime.extensions)),
    }
