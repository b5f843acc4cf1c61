"""How a kernel of the machine is called: in its number formats, without NumPy's warnings, and recorded if asked to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hal.plugin import Array, Kernel, Op, Spec, dtypes
from hal_systolic import recording
from hal_systolic.accuracy import setting
from hal_systolic.describing import describe
from hal_systolic.products import ON_ARRAY

if TYPE_CHECKING:
    from hal_systolic.backend import Chip

COMPUTING = ("elementwise", "reduction", "composite", "indexing", "random")  # kinds of ops that do arithmetic


def call(
    chip: Chip, op: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
) -> Callable[..., Any]:
    """What is called for every call of `op` on these specs."""
    run = _on_array(chip, kernel) if ON_ARRAY.get(op.name) is kernel.run else _on_vector_unit(op, kernel, specs, outs)

    def recorded(*buffers: Array, **given: Any) -> Any:
        result = run(*buffers, **given)
        recorder = recording.active
        if recorder is not None:
            asked = describe(chip.machine, setting.passes, op, specs, outs, settings)
            if asked is not None:
                recorder.note(chip.machine, op.name, asked, buffers, result if isinstance(result, tuple) else (result,))
        return result

    return recorded


def _on_array(chip: Chip, kernel: Kernel) -> Callable[..., Any]:
    """A kernel that is given how the array computes at the moment."""

    def run(*buffers: Array, **given: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(kernel.run(chip.numerics, *buffers, **given))

    return run


def _on_vector_unit(op: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...]) -> Callable[..., Any]:
    """A kernel that computes in float32 where elements are bfloat16, and whose results have the dtypes inferred."""
    wanted = tuple(o.dtype.numpy for o in outs)
    single = len(outs) == 1
    narrow = op.kind in COMPUTING and any(s.dtype is dtypes.bfloat16 for s in (*specs, *outs))

    def fitted(result: Any, dtype: np.dtype[Any]) -> Array:
        array = result if type(result) is np.ndarray else np.asarray(result)
        return array if array.dtype == dtype else array.astype(dtype)

    def run(*buffers: Array, out: Any = None, **given: Any) -> Any:
        with np.errstate(all="ignore"):
            if narrow:
                buffers = tuple(b.astype(np.float32) if b.dtype == dtypes.bfloat16.numpy else b for b in buffers)
            elif out is not None:
                return kernel.run(*buffers, out=out, **given)
            result = kernel.run(*buffers, **given)
            if single:
                result = fitted(result, wanted[0])
            elif isinstance(result, tuple):
                result = tuple(fitted(r, w) for r, w in zip(result, wanted, strict=True))
            else:
                result = (fitted(result, wanted[0]),)
            if out is None:
                return result
            for target, value in zip(
                out if isinstance(out, tuple) else (out,),
                result if isinstance(result, tuple) else (result,),
                strict=True,
            ):
                np.copyto(target, value)
            return out

    return run
