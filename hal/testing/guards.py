"""Inputs that are watched: their contents, and the memory beside them, must be the same after a call as before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal import dtypes
from hal.device import Device
from hal.op import Array
from hal.spec import Spec
from hal.tensor import CONSTANT, Tensor

GUARD = 64  # bytes on either side; a multiple of what any element type is aligned to
PATTERN = 0xA5


class Watched:
    """Arrays as tensors on a device, with guards around them.

    Where the device can use host memory in place, each array lies between guard bytes in one block. Elsewhere small
    buffers are allocated before and after each upload: an allocator that hands out memory in order puts them beside it.
    """

    def __init__(self, device: Device, arrays: tuple[Array, ...], *, upload: bool = False) -> None:
        self.device = device
        self.tensors: list[Tensor] = []
        self._contents: list[Array] = []
        self._blocks: list[tuple[Array, int, int, int]] = []  # of which input, where it starts and stops
        self._sentinels: list[tuple[Any, Spec, bytes]] = []
        for array in arrays:
            buffer = None if upload else self._wrapped(array)
            if buffer is None:
                self._add_sentinel()
                buffer = device.backend.upload(array, device)
            self._contents.append(np.array(array, order="C"))
            self.tensors.append(Tensor(buffer, Spec(array.shape, dtypes.of(array.dtype)), device, CONSTANT))
        if self._sentinels:
            self._add_sentinel()

    def _wrapped(self, array: Array) -> Any:
        block = np.full(array.nbytes + 3 * GUARD, PATTERN, np.uint8)
        start = GUARD + -block.ctypes.data % GUARD
        inside = block[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        buffer = self.device.backend.wrap(inside, self.device)
        if buffer is not None:
            inside[...] = array
            self._blocks.append((block, len(self._contents), start, start + array.nbytes))
        return buffer

    def _add_sentinel(self) -> None:
        backend = self.device.backend
        dtype = min((d for d in backend.dtypes if d.kind != "bool"), key=lambda d: (d.itemsize, d.name))
        contents = np.full(GUARD, 3, np.uint8).astype(dtype.numpy)
        spec = Spec(contents.shape, dtype)
        self._sentinels.append((backend.upload(contents, self.device), spec, contents.tobytes()))

    def what_changed(self) -> str:
        """Which input, or memory beside one, is not what it was; empty if all is well."""
        backend = self.device.backend
        for i, (tensor, before) in enumerate(zip(self.tensors, self._contents, strict=True)):
            now = np.asarray(backend.download(tensor.buffer, tensor.spec))
            if now.tobytes() != before.tobytes():
                return f"input {i} was changed by the call: a kernel must leave its inputs alone"
        for block, i, start, end in self._blocks:
            if (block[:start] != PATTERN).any():
                return f"memory before input {i} was overwritten"
            if (block[end:] != PATTERN).any():
                return f"memory after input {i} was overwritten"
        for buffer, spec, before_bytes in self._sentinels:
            if np.asarray(backend.download(buffer, spec)).tobytes() != before_bytes:
                return "another buffer, allocated beside the inputs, was overwritten"
        return ""
