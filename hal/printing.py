"""Tensors as text, as torch prints them: four digits, one format for all elements, large ones without their middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops, registry
from hal.abstract import ABSTRACT, StaleBackend
from hal.errors import HalError
from hal.interop import host_array
from hal.op import Array

if TYPE_CHECKING:
    from hal.tensor import Tensor

DIGITS = 4
WIDTH = 80
SHOWN = 1000  # more elements than this are summarised
EDGE = 3  # elements shown at each end of an axis then
PREFIX = "tensor("
_OBVIOUS = (dtypes.float32, dtypes.int64, dtypes.bool_, dtypes.complex64)  # what the numbers themselves show


def representation(x: Tensor) -> str:
    """What `repr` gives: the elements, and whatever of device, size, dtype and history they do not show."""
    rest = _facts(x)
    if x.device is ABSTRACT or isinstance(x.device.backend, StaleBackend):
        return f"{PREFIX}..., {', '.join([f'size={x.shape}', *rest])})"
    if x.spec.size == 0:
        device = [fact for fact in rest if fact.startswith("device=")]
        size = [f"size={x.shape}"] if x.ndim != 1 else []
        return _joined("[]", device + size + rest[len(device) :])
    summarised = x.spec.size > SHOWN
    array = host_array(_edges(x) if summarised else x, "printing")
    return _joined(_text(array, summarised), rest)


def formatted(x: Any, form: str) -> str:
    """What `format` and f-strings give: a single number in the format asked for, or `repr`."""
    return format(x.item() if x.ndim == 0 else repr(x), form)


def _facts(x: Tensor) -> list[str]:
    facts = []
    try:
        at_home = x.device is registry.default_device()
    except HalError:  # the device asked for is not there, which is no reason not to print
        at_home = False
    if not at_home and x.device is not ABSTRACT:
        facts.append(f"device={str(x.device)!r}")
    if x.dtype not in _OBVIOUS or (x.spec.size == 0 and x.dtype is not dtypes.float32):
        facts.append(f"dtype={x.dtype!r}")
    if x.node is not None:
        facts.append(f"grad_fn=<{x.node.name}>")
    elif x.tracked:
        facts.append("requires_grad=True")
    return facts


def _joined(body: str, facts: list[str]) -> str:
    out = PREFIX + body
    column = len(out) - out.rfind("\n") - 1 + 1
    for fact in facts:
        if column + len(fact) + 2 > WIDTH:
            out += ",\n" + " " * len(PREFIX) + fact
            column = len(PREFIX) + len(fact)
        else:
            out += ", " + fact
            column += len(fact) + 2
    return out + ")"


def _edges(x: Tensor) -> Tensor:
    """Of each long axis only what is printed, and one element that stands for the rest."""
    from hal.recording import no_grad

    with no_grad():
        for axis, n in enumerate(x.shape):
            if n > 2 * EDGE + 1:
                bounds = [(0, EDGE + 1), (n - EDGE, n)]
                x = ops.concat(*(x.narrow(axis, a, b - a) for a, b in bounds), axis=axis)
    return x


def _text(array: Array, summarised: bool) -> str:
    if summarised:
        kept = [[i for i in range(n) if n <= 2 * EDGE or i != EDGE] for n in array.shape]
        visible = array[np.ix_(*kept)]
    else:
        visible = array
    show = _format_of(visible)
    if array.ndim == 0:
        return show(array.item()).strip()
    text = np.array2string(
        array, max_line_width=WIDTH, separator=", ", prefix=PREFIX, suffix="", edgeitems=EDGE,
        threshold=0 if summarised else array.size, formatter={"all": show},
    )  # fmt: skip
    return text.replace(", ...,", ",  ...,")  # the gap of torch


def _format_of(array: Array) -> Callable[[Any], str]:
    """How to print an element: all in one format and of one width."""
    if array.dtype.kind == "c":
        real, imag = _format_of(array.real), _format_of(array.imag)
        return lambda z: f"{real(z.real)}{'' if imag(z.imag).strip().startswith('-') else '+'}{imag(z.imag).strip()}j"
    if array.dtype.kind in "biu":
        width = max((len(str(v)) for v in array.reshape(-1).tolist()), default=0)
        return lambda v: str(v).rjust(width)
    number = _float_format(array.astype(np.float64))
    finite = array[np.isfinite(array) & (array != 0)].astype(np.float64)
    width = max((len(number(float(v))) for v in finite.reshape(-1)), default=1)
    return lambda v: number(float(v)).rjust(width)


def _float_format(array: Array) -> Callable[[float], str]:
    finite = np.abs(array[np.isfinite(array) & (array != 0)])
    if finite.size == 0:
        return lambda v: f"{v:.0f}." if np.isfinite(v) else f"{v:.0f}"
    low, high = finite.min(), finite.max()
    whole = bool((finite == np.ceil(finite)).all())
    with np.errstate(over="ignore"):
        scientific = high / low > 1000 or high > 1e8 or (not whole and low < 1e-4)
    if scientific:
        return lambda v: f"{v:.{DIGITS}e}"
    if whole:
        return lambda v: f"{v:.0f}." if np.isfinite(v) else f"{v:.0f}"
    return lambda v: f"{v:.{DIGITS}f}"
