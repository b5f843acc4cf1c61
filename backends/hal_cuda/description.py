"""What `hal devices -v` says of a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hal.codegen.kernels.memory import bytes_text
from hal_cuda.products import precision

if TYPE_CHECKING:
    from hal_cuda.runtime import CUDARuntime


def describe(runtime: CUDARuntime) -> dict[str, str]:
    """Lines for people, by what they are about."""
    found, pool = runtime.properties, runtime.pool
    of_pools = zip(*((p.used, p.peak, p.kept) for p in runtime.pools), strict=True)
    used, peak, kept = (bytes_text(sum(n)) for n in of_pools)
    versions = (f"{v // 1000}.{v % 1000 // 10}" for v in (found.driver, found.toolkit))
    return {
        "device": f"{runtime.title}, {found.architecture}, at {found.bus}",
        "driver": "for CUDA {}, libraries of CUDA {}".format(*versions),
        "multiprocessors": f"{found.units}" + (f" at {found.clock} MHz" if found.clock else ""),
        "memory": f"{bytes_text(found.memory)}, {bytes_text(pool.limit)} for tensors; cache: {bytes_text(found.cache)}",
        "in use": f"{used}, at most {peak}, {kept} kept for reuse",
        "convolutions": runtime.convolutions or "by columns and products (cuDNN: pip install 'hal-runtime[cudnn]')",
        "biases": runtime.biases or "before products (within: pip install 'hal-runtime[nvmath]')",
        "float32 products": "rounded to TF32" if precision() == "tf32" else "in float32 (HAL_CUDA_TF32=1 is faster)",
        "programs": f"{runtime.programs.built} compiled, {runtime.programs.loaded} from {runtime.programs.folder()}",
    }
