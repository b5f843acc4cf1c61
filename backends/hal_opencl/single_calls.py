"""A single call of a kernel as launches whose arguments are already set: what was decided for a layout is kept.

A kernel decides by the shapes, settings and layouts of what it is given, so calls that agree in them make the same
launches. Those are noted once, as those of a compiled plan are; what a call needs in between comes from the pool.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hal.codegen.kernels.buffer import Buffer
from hal_opencl.recording import WATCHED, Launches, Recorder

if TYPE_CHECKING:
    from hal.codegen.kernels.layout import Shape
    from hal_opencl.runtime import OpenCLRuntime

MOST_LAYOUTS = 4  # that one decision is noted for
MOST_MET = 64  # layouts whose calls are counted: slices of one tensor have as many as places
Layout = tuple[tuple["Shape", int], ...]


class SingleCall:
    """Runs the kernel of one decision: as it is at first, then as the launches that it made."""

    def __init__(self, runtime: OpenCLRuntime, kernel: Callable[..., Any]) -> None:
        self.runtime, self.kernel = runtime, kernel
        self._met: dict[Layout, int] = {}
        self._noted: dict[Layout, tuple[Launches, bool]] = {}
        self._refused = False

    def __call__(self, *buffers: Buffer, **given: Any) -> Any:
        if self._refused or self.runtime.recorder is not None:
            return self.kernel(*buffers, **given)
        touched, out = buffers, given.get("out")
        if out is not None:
            touched += out if isinstance(out, tuple) else (out,)
        layout = tuple([(x.strides, x.offset) for x in touched])
        noted = self._noted.get(layout)
        if noted is None:
            if self._is_new(layout):
                return self.kernel(*buffers, **given)
            return self._note(layout, touched, buffers, given)
        launches, several = noted
        if not launches.suits(touched) or os.environ.get("HAL_OPENCL_SYNC", "") not in ("", "0"):
            return self.kernel(*buffers, **given)
        results = launches.run(touched)
        return results if several else results[0]

    def _is_new(self, layout: Layout) -> bool:
        if len(self._noted) == MOST_LAYOUTS:
            return True
        if len(self._met) == MOST_MET:
            self._met.clear()
        met = self._met[layout] = self._met.get(layout, 0) + 1
        return met <= WATCHED

    def _note(self, layout: Layout, touched: tuple[Buffer, ...], buffers: tuple[Buffer, ...], given: Any) -> Any:
        runtime = self.runtime
        with runtime.lock:
            recorder = runtime.recorder = Recorder()
            try:
                result = self.kernel(*buffers, **given)
            finally:
                runtime.recorder = None
        several = isinstance(result, tuple)
        self._refused = recorder.refused or not recorder.launches
        if not self._refused:
            launches = Launches(runtime, recorder, touched, result if several else (result,), own=False)
            self._refused = launches.shared or launches.fixed
            self._noted[layout] = launches, several
        return result
