"""The backend for NVIDIA's GPUs on a driver of the host; as a plugin (HAL_PLUGIN_PATH) the host is two of them."""

from cuda_on_cpu.driver import OnCPU

from hal.codegen.kernels import memory
from hal.plugin import Backend, hookimpl
from hal_cuda import CUDA

NAME = "cuda-on-cpu"


def on_cpu(driver: OnCPU) -> CUDA:
    """The backend on a driver. Never the default device."""
    backend = CUDA(driver, NAME)
    backend.priority = -1
    return backend


@hookimpl
def hal_backends() -> list[Backend]:
    """Two GPUs whose blocks of memory are as large as what is in them, in a process of their own."""
    memory.rounded = lambda nbytes: nbytes
    return [on_cpu(OnCPU(devices=2))]
