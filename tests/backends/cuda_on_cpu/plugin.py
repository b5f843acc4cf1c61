"""The backend for NVIDIA's GPUs with the host as two of them: `HAL_PLUGIN_PATH=<this file>`, device `cuda-on-cpu`.

Never the default device.
"""

from cuda_on_cpu.driver import OnCPU

from hal.plugin import Backend, hookimpl
from hal_cuda import CUDA

NAME = "cuda-on-cpu"


def on_cpu(driver: OnCPU, name: str = NAME) -> CUDA:
    """The backend of GPUs on a driver of the host."""
    backend = CUDA(driver, name)
    backend.priority = -1
    return backend


@hookimpl
def hal_backends() -> list[Backend]:
    """The host as two GPUs."""
    return [on_cpu(OnCPU(devices=2))]
