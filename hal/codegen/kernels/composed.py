"""Composites as few kernels: functions of tensors become maps over elements, and folds with a map before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hal import ops
from hal.codegen.chain import chain_of
from hal.codegen.folds import Fold
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.fuse import FusedMap, FusedReduction
from hal.codegen.kernels.layout import Shape, row_strides
from hal.codegen.kernels.movement import copy_into
from hal.codegen.kernels.overlap import overlaps
from hal.codegen.kernels.prepared import Prepared
from hal.codegen.kernels.rows import wide_of
from hal.codegen.kernels.runtime import Runtime
from hal.codegen.kernels.table import kernels
from hal.plugin import Op, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

Out = Sequence[Buffer | None]  # memory for each result, or None where it is to be brought
Run = Callable[..., tuple[Buffer, ...]]  # run(*buffers, out=…)


def widely(x: Tensor) -> Tensor:
    """A tensor in the dtype that composites of it are computed in."""
    return ops.cast(x, dtype=wide_of(x.dtype))


def shaped(x: Buffer, shape: Shape) -> Buffer:
    """A buffer whose elements lie row by row, in another shape."""
    return x.view(shape, row_strides(shape))


def mapped(runtime: Runtime, label: str, specs: Sequence[Spec], function: Callable[..., Any]) -> FusedMap:
    """One kernel for a function of tensors of these specs that calls elementwise ops only."""
    chain = chain_of(function, specs)
    return FusedMap(runtime, label, chain, chain.inputs)


def folded(
    runtime: Runtime,
    label: str,
    specs: Sequence[Spec],
    axes: tuple[int, ...],
    fold: Fold,
    before: Callable[..., Any],
    after: Callable[..., Any],
    later: Sequence[Spec] = (),
) -> FusedReduction:
    """One kernel (two where few results have many elements each) that reduces what a function of tensors gives.

    Args:
        axes: those that are reduced, of the shape that `before` gives.
        before: from the tensors to as many as the fold takes, in the dtype that it is computed in.
        after: from what the fold gives, and arrays of the specs `later`, to the results.
        later: of arrays that the call is given behind the others, which have an element for each result.
    """
    first = chain_of(before, specs)
    kept = tuple(n for i, n in enumerate(first.shape) if i not in axes)
    made = [Spec(kept, first.made[0])] * len(fold.results)
    last = chain_of(after, [*made, *(s.with_shape(kept) for s in later)], kept)
    return FusedReduction(runtime, label, first, axes, fold, last, (*first.inputs, *last.inputs[len(made) :]))


class Composite(Prepared):
    """The kernel of an op, made by `make(runtime, *specs, **settings)` for each tuple of specs and settings."""

    def __init__(self, op: Op, make: Callable[..., Run]) -> None:
        super().__init__(op)
        self.make = make

    def prepare(
        self, runtime: Runtime, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        run, nothing = self.make(runtime, *specs, **settings), (None,) * len(outs)
        if len(outs) == 1:
            return lambda *xs, out=None, **settings: _apart(run, xs, nothing if out is None else (out,), nothing)[0]
        return lambda *xs, out=None, **settings: _apart(run, xs, out or nothing, nothing)


def _apart(run: Run, xs: Sequence[Buffer], out: Out, nothing: Out) -> tuple[Buffer, ...]:
    """Run, writing into `out` where no input is read from it and the kernel can, and copying there where not."""
    if out is nothing:
        return run(*xs, out=nothing)
    made = run(*xs, out=nothing if any(o is not None and overlaps(o, xs) for o in out) else out)
    for result, target in zip(made, out, strict=True):
        if target is not None and (result.memory is not target.memory or result.offset != target.offset):
            copy_into(result, target)
    return tuple(r if o is None else o for r, o in zip(made, out, strict=True))


def _has_elements(*specs: Spec, **settings: Any) -> bool:
    return all(s.size for s in specs)


def composite(
    op: Op, when: Callable[..., bool] = _has_elements, alone: bool = False
) -> Callable[[Callable[..., Run]], Callable[..., Run]]:
    """Register the decorated `make` as the kernel of an op; see `Composite` and, for `alone`, `hal.plugin.Kernel`."""

    def register(make: Callable[..., Run]) -> Callable[..., Run]:
        kernels.register(op, when=when, out=True, alone=alone)(Composite(op, make))
        return make

    return register
