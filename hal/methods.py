"""The methods and operators of tensors, in torch's habits; what they do is in `hal.functions` and the op table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hal import ops
from hal.op import Op

if TYPE_CHECKING:
    from hal.tensor import Tensor

binary: Callable[[Op, Any, Any], Any]  # hal.dispatch.binary, put here by hal.dispatch: it needs Tensor first


def reflected(op: Op, a: Any, b: Tensor) -> Any:
    """`a op b` where `a` is a Python number."""
    return op(a, b) if isinstance(a, (int, float, complex)) else NotImplemented


class Methods:
    """What `Tensor` inherits. Split from it so that each file holds one idea."""

    __slots__ = ()
    __hash__ = object.__hash__  # == compares elements, so tensors are told apart by identity in dictionaries

    # fmt: off
    def __add__(self, other: Any) -> Tensor: return binary(ops.add, self, other)
    def __radd__(self, other: Any) -> Tensor: return binary(ops.add, self, other)
    def __sub__(self, other: Any) -> Tensor: return binary(ops.sub, self, other)
    def __rsub__(self, other: Any) -> Tensor: return reflected(ops.sub, other, self)  # type: ignore[arg-type]
    def __mul__(self, other: Any) -> Tensor: return binary(ops.mul, self, other)
    def __rmul__(self, other: Any) -> Tensor: return binary(ops.mul, self, other)
    def __truediv__(self, other: Any) -> Tensor: return binary(ops.div, self, other)
    def __rtruediv__(self, other: Any) -> Tensor: return reflected(ops.div, other, self)  # type: ignore[arg-type]
    def __pow__(self, other: Any) -> Tensor: return binary(ops.pow, self, other)
    def __rpow__(self, other: Any) -> Tensor: return reflected(ops.pow, other, self)  # type: ignore[arg-type]
    def __matmul__(self, other: Any) -> Tensor: return binary(ops.matmul, self, other)
    def __neg__(self) -> Tensor: return ops.neg(self)
    def __eq__(self, other: object) -> Tensor: return binary(ops.equal, self, other)  # type: ignore[override]
    # fmt: on
