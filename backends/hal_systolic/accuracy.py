"""How many passes a float32 product takes, in which order sums are made, and how far results may be from exact ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from hal.plugin import DType, Op, Tolerance
from hal_systolic.config import Machine
from hal_systolic.numerics import Numerics, Passes

Precision = Literal["default", "high", "highest"]
ALL = 1 << 62
PASSES: dict[str, Passes] = {"default": 1, "high": 3, "highest": 6}
PRODUCTS_INSIDE = (
    "attention", "attention_gradient", "einsum", "gru_cell", "gru_sequence", "gru_sequence_gradient", "lstm_cell",
    "lstm_sequence", "lstm_sequence_gradient", "rnn_cell", "rnn_sequence", "rnn_sequence_gradient", "tensordot",
)  # fmt: skip


@dataclass
class _Setting:
    passes: Passes = 1
    exact: bool = False


setting = _Setting()


@contextmanager
def precision(passes: Precision | None = None, exact: bool | None = None) -> Iterator[None]:
    """Set how products are computed inside the block, in all threads.

    Args:
        passes: of float32 products on an array that multiplies bfloat16: `default` takes one pass, `high` three
            passes of operands split in two parts, `highest` six of operands split in three; each pass takes its time.
        exact: whether to add in the order of the array, to the last bit as its cells do, which takes much longer, or
            in that of BLAS (the default).

    >>> import hal, hal_systolic
    >>> x = hal.tensor([[1.0, 0.001]], device="systolic")
    >>> with hal_systolic.precision("highest"):
    ...     (x @ x.T).item()
    1.0000009536743164
    """
    before = (setting.passes, setting.exact)
    setting.passes = setting.passes if passes is None else PASSES[passes]
    setting.exact = setting.exact if exact is None else exact
    try:
        yield
    finally:
        setting.passes, setting.exact = before


def numerics_of(machine: Machine) -> Numerics:
    """How the array of a machine multiplies and adds at the moment."""
    rows = ALL if machine.dataflow == "os" else machine.rows  # there, sums stay in their cells until they are whole
    return _numerics(rows, machine.acc_group, machine.ftz, setting.passes, setting.exact)


_numerics = lru_cache(maxsize=64)(Numerics)


def tolerance_of(machine: Machine, op: Op, dtype: DType) -> Tolerance | None:
    """What rounding operands to bfloat16 costs, for ops that multiply on the array; None for all others.

    Two factors, each off by at most 2^-8 of itself, make a product that is off by 2^-7 (and 2^-16) of itself: that is
    2^17 of the units u |a| |b| of float32. Ops with several products, one on the results of another, get 8 times that.
    """
    inside = op.name in PRODUCTS_INSIDE
    if "bfloat16" not in machine.rates or not (inside or op.kind == "contraction"):
        return None
    units = {1: 2.0**17 * (1 + 2.0**-9), 3: 2.0**9, 6: 8.0}[setting.passes] * (8 if inside else 1)
    source = f"operands rounded to bfloat16, {setting.passes} pass{'es' if setting.passes > 1 else ''}"
    if dtype.name == "float32":
        return replace(op.tolerance, float32=op.tolerance.float32 + units, source=source)
    if dtype.name == "bfloat16" and inside and op.tolerance.unit == "terms":  # what one product hands to the next
        return replace(op.tolerance, bfloat16=units, source=source)
    return None
