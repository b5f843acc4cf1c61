"""Work descriptions: what a kernel asked of the machine, as values. Kernels record them, the compiler reads them.

They say what is computed, on which operands, and nothing of how: no tile, buffer or cycle stands here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor as the machine sees it.

    Attributes:
        key: one for each piece of device memory: two operands with equal keys are the same tensor.
        nbytes: its size in the format in which the machine keeps it.
        weight: whether it is a parameter, which lies in weight memory and which nothing in the stream writes.
    """

    key: int
    nbytes: int
    weight: bool = False


@dataclass(frozen=True, slots=True)
class Matmul:
    """`count` products (m, k) @ (k, n) -> (m, n), each with operands of its own; a convolution is one too.

    For a convolution m counts output pixels (batch included), k is channels times kernel size, n is filters, and
    `a.nbytes` is the size of the image, smaller than m * k elements: the patches are formed by the addresses.
    A grouped convolution has `count` groups.

    Attributes:
        a: what m runs over: activations.
        b: the (k, n) side: weights, or activations in attention and in gradients.
        dtype: the format of the products, a key of `Machine.rates`: "int8", "int8xint16", "bfloat16", ...
        passes: how often the array is run over the operands: 1, 3 or 6 for float32 from bfloat16 parts.
        halo: bytes of `a` that the blocks of two neighbouring output rows have in common, in a convolution.
        epilogue: vector operations an output element that are done on its way out of the accumulators
            (bias, activation, scaling).
        layer: what reports call it.
    """

    m: int
    k: int
    n: int
    a: Operand
    b: Operand
    out: Operand
    dtype: str = "bfloat16"
    count: int = 1
    passes: int = 1
    halo: int = 0
    epilogue: int = 0
    layer: str = ""

    @property
    def macs(self) -> int:
        """Multiplications of the result; more passes do not make it more."""
        return self.count * self.m * self.k * self.n


@dataclass(frozen=True, slots=True)
class Vector:
    """Work of the vector unit: `elements` elements, `ops` operations each.

    A reduction counts the elements that it reads, an update of weights the elements that it writes.

    Attributes:
        op: what the command stream calls it: "add", "softmax", "adam_step".
    """

    op: str
    elements: int
    ops: float
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A tensor that crosses the host link, onto the device or off it."""

    operand: Operand
    to_device: bool
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """The machine waits for the host: `cycles` in which nothing starts, after all that went before is done."""

    cycles: float
    layer: str = "host"


Work = Matmul | Vector | Transfer | Pause
