"""Compiled functions: each op, and its gradient, gives the bits of the eager call when it is traced and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hal import ops
from hal.autodiff import grad
from hal.creation import ones_like
from hal.device import Device
from hal.dtypes import DType
from hal.graph.compiler import compile as compiled
from hal.op import Array, Op
from hal.policy import fallback
from hal.recording import enable_grad
from hal.tensor import Tensor
from hal.testing.calls import (
    Call,
    call_of,
    dtype_for,
    fetch,
    foreign_result,
    has_floats,
    roundtrip_of,
    samples_of,
    why_declined,
)
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, same_bits
from hal.testing.levels.strides import upload

LARGEST = 2000  # elements of the inputs of a call
CALLS = 3  # of each op


def _numbers(op: Op, dtype: DType) -> list[int]:
    samples = enumerate(samples_of(op.name))
    fitting = [i for i, s in samples if has_floats(s) == dtype.is_floating and sum(x.size for x in s.inputs) <= LARGEST]
    return fitting[:CALLS]


def _results(function: Callable[..., Any], call: Call, device: Device, tracked: bool) -> list[Array]:
    inputs = [upload(x, device) for x in call.inputs]
    for x in inputs:
        x.tracked = tracked and x.dtype.is_inexact
    with enable_grad():
        result = function(*inputs)
        outs: list[Tensor] = list(result) if isinstance(result, tuple) else [result]
        starts, leaves = [o for o in outs if o.tracked], [x for x in inputs if x.tracked]
        if starts and leaves:
            gs = grad(starts, leaves, [ones_like(o) for o in starts], allow_unused=True)
            outs += [g for g in gs if g is not None]
    return [fetch(o.detach()) for o in outs]


def _case(op: Op, dtype: DType) -> Case:
    def check(device: Device) -> str:
        looked = 0
        for i in _numbers(op, dtype):
            call = call_of(op.name, i, dtype, device)
            if why_declined(device, call) or foreign_result(device, call):
                continue
            looked += 1
            tracked = device.backend.training and samples_of(op.name)[i].smooth and not op.no_gradient

            def run(*xs: Tensor, settings: dict[str, Any] = call.settings) -> Any:
                return op(*xs, **settings)

            with fallback("allow"):
                want = _results(run, call, device, tracked)
                replayed = compiled(run, exact=True, policy="follow")
                for turn in ("first", "second"):
                    got = _results(replayed, call, device, tracked)
                    for a, b in zip(got, want, strict=True):
                        problem = same_bits(f"the {turn} compiled {call}", a, b)
                        if problem:
                            return problem
        if not looked:
            raise Declined(f"no sample of {op.name} has a dtype that the device declares")
        return ""

    return case(f"compiled/{op.name}/{dtype.name}", check, op=op.name, dtype=dtype.name, needs=(roundtrip_of(dtype),))


def cases(device: Device) -> Iterator[Case]:
    """Each op, in one floating dtype, or in its own."""
    for _, op in sorted(ops.TABLE.items()):
        dtype = dtype_for(op, device)
        if _numbers(op, dtype):
            yield _case(op, dtype)


LEVEL = Level("compiled", "a traced and replayed call gives the bits of the eager one, gradients included", 76, cases)
