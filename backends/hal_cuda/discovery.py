"""Finds the GPUs of this machine, or says why there is none and what cures it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hal.plugin import Unavailable
from hal_cuda.driver import Failure

if TYPE_CHECKING:
    from hal_cuda.driver import Driver

INSTALL = "pip install 'hal-runtime[cuda]', which brings CuPy for CUDA 13"
DRIVER = "install NVIDIA's driver, 580 or newer, and see that `nvidia-smi` lists the GPU"


def open_driver() -> Driver:
    """NVIDIA's libraries.

    Raises:
        Unavailable: CuPy is missing.
    """
    try:
        from hal_cuda.cupy_driver import CuPyDriver

        return CuPyDriver()
    except ImportError as error:
        raise Unavailable(f"CuPy cannot be imported ({error})", INSTALL) from None


def count_devices(driver: Driver) -> int:
    """How many GPUs there are, at least one.

    Raises:
        Unavailable: there is no driver, or no GPU.
    """
    try:
        count = driver.count()
    except Failure as error:
        raise Unavailable(f"there is no CUDA driver that works ({error})", DRIVER) from None
    if count == 0:
        raise Unavailable("the CUDA driver sees no GPU", "see that CUDA_VISIBLE_DEVICES names one")
    return count
