"""Catches the operation that makes a NaN, forward or backward: with its line, its module, and what it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dispatch
from hal.errors import AnomalyError
from hal.recording import mode
from hal.scopes import current_scope, listening
from hal.source import describe, user_line

if TYPE_CHECKING:
    from hal.op import Array, Op
    from hal.tensor import Tensor

COMPUTES_NOTHING = ("creation", "movement", "random")  # kinds of ops that hand a NaN on, or were asked for one


@contextmanager
def detect_anomaly(check_nan: bool = True) -> Iterator[None]:
    """Raise where a NaN comes into being: in all threads, in the forward and the backward pass, inside the block.

    Every result is looked at on the host, so this is for finding a fault, not for training.

    >>> import hal
    >>> x = hal.tensor([1.0, -1.0])
    >>> with hal.detect_anomaly():
    ...     x.log()
    Traceback (most recent call last):
    hal.errors.AnomalyError: log made NaN in 1 of 2 elements, the first at (1,)...

    Args:
        check_nan: whether to look at results; without, only the lines of operations are noted.

    Raises:
        AnomalyError: the operation, the line of the user that called it (in the backward pass, of the operation whose
            gradient it computes), the module it belongs to, and what it was given.

    Source: torch.autograd.detect_anomaly, which looks at the backward pass only.
    """
    lines, mode.lines = mode.lines, True
    try:
        with listening():
            if not check_nan:
                yield
                return
            with dispatch.watching(_check):
                yield
    finally:
        mode.lines = lines


def _check(op: Op, inputs: tuple[Tensor, ...], settings: dict[str, Any], outs: tuple[Tensor, ...]) -> None:
    if op.kind in COMPUTES_NOTHING:
        return
    for out in outs:
        if not out.spec.dtype.is_inexact:
            continue
        bad = np.isnan(_host(out))
        if bad.any():
            raise AnomalyError(_message(op, inputs, settings, bad))


def _host(x: Tensor) -> Array:
    backend = x.device.backend
    seen = backend.expose(x.buffer, x.spec)
    return backend.download(x.buffer, x.spec) if seen is None else seen


def _message(op: Op, inputs: tuple[Tensor, ...], settings: dict[str, Any], bad: Array) -> str:
    node, scope = mode.gradient_of, current_scope()
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    what = f"{op.name} made NaN in {int(bad.sum())} of {bad.size} elements, the first at {first}"
    if node is None:
        where = f"called at {describe(user_line(4))}"
    else:
        where = f"in the gradient of {node.name}, which was called at {describe(node.line)}"
    given = [f"  input {i}: {_described(x)}" for i, x in enumerate(inputs)]
    if settings:
        given.append("  settings: " + ", ".join(f"{name}={value!r}" for name, value in settings.items()))
    return "\n".join([f"{what}; {where}" + (f", in {scope}" if scope else ""), *given])


def _described(x: Tensor) -> str:
    values = _host(x)
    if not values.size or not x.spec.dtype.is_inexact:
        return f"{x.spec!r}"
    finite = values[np.isfinite(values)].astype(np.complex128 if np.iscomplexobj(values) else np.float64)
    spread = f" from {finite.real.min():.6g} to {finite.real.max():.6g}" if finite.size else ""
    odd = {"NaN": int(np.isnan(values).sum()), "infinite": int(np.isinf(values).sum())}
    counts = "".join(f", {count} {name}" for name, count in odd.items() if count)
    already = ": it was there before" if odd["NaN"] else ""
    return f"{x.spec!r}{spread}{counts}{already}"
