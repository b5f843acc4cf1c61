"""The methods and operators of tensors, in torch's habits. What they do is in `hal.functions` and the op table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hal import ops
from hal.functions import assignment, indexing, joining
from hal.interop import as_array, as_operand, dlpack, dlpack_device
from hal.methods.conversion import Casts
from hal.methods.elementwise import Elementwise
from hal.methods.history import History
from hal.methods.making import Making
from hal.methods.mutation import Mutation, into
from hal.methods.shapes import Shapes
from hal.methods.values import Values
from hal.op import Op
from hal.printing import formatted, representation

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _binary_later(op: Op, a: Any, b: Any) -> Any:
    import hal.dispatch  # replaces `binary`: dispatch needs Tensor, so Tensor's methods cannot import it first

    return hal.dispatch.binary(op, a, b)


binary: Callable[[Op, Any, Any], Any] = _binary_later


def reflected(op: Op, a: Any, b: Any) -> Any:
    """`a op b` where `a` is no tensor: a Python number, or one of NumPy's scalars and arrays."""
    if not isinstance(a, (int, float, complex)):
        a = as_operand(a)
    return NotImplemented if a is NotImplemented else op(a, b)


class Methods(Elementwise, Values, Shapes, Mutation, History, Making, Casts):
    """What `Tensor` inherits: here the operators and protocols of Python, in its bases the methods by subject."""

    __slots__ = ()
    __hash__ = object.__hash__  # == compares elements, so tensors are told apart by identity in dictionaries
    __array_priority__ = 1000  # NumPy's operators leave `array + tensor` to the tensor

    # fmt: off
    def __add__(self, other: Any) -> Tensor: return binary(ops.add, self, other)
    def __radd__(self, other: Any) -> Tensor: return binary(ops.add, self, other)
    def __sub__(self, other: Any) -> Tensor: return binary(ops.sub, self, other)
    def __rsub__(self, other: Any) -> Tensor: return reflected(ops.sub, other, self)
    def __mul__(self, other: Any) -> Tensor: return binary(ops.mul, self, other)
    def __rmul__(self, other: Any) -> Tensor: return binary(ops.mul, self, other)
    def __truediv__(self, other: Any) -> Tensor: return binary(ops.div, self, other)
    def __rtruediv__(self, other: Any) -> Tensor: return reflected(ops.div, other, self)
    def __floordiv__(self, other: Any) -> Tensor: return binary(ops.floor_divide, self, other)
    def __rfloordiv__(self, other: Any) -> Tensor: return reflected(ops.floor_divide, other, self)
    def __mod__(self, other: Any) -> Tensor: return binary(ops.remainder, self, other)
    def __rmod__(self, other: Any) -> Tensor: return reflected(ops.remainder, other, self)
    def __pow__(self, other: Any) -> Tensor: return binary(ops.pow, self, other)
    def __rpow__(self, other: Any) -> Tensor: return reflected(ops.pow, other, self)
    def __matmul__(self, other: Any) -> Tensor: return binary(ops.matmul, self, other)
    def __rmatmul__(self, other: Any) -> Tensor: return reflected(ops.matmul, other, self)
    def __and__(self, other: Any) -> Tensor: return binary(ops.bitwise_and, self, other)
    def __rand__(self, other: Any) -> Tensor: return binary(ops.bitwise_and, self, other)
    def __or__(self, other: Any) -> Tensor: return binary(ops.bitwise_or, self, other)
    def __ror__(self, other: Any) -> Tensor: return binary(ops.bitwise_or, self, other)
    def __xor__(self, other: Any) -> Tensor: return binary(ops.bitwise_xor, self, other)
    def __rxor__(self, other: Any) -> Tensor: return binary(ops.bitwise_xor, self, other)
    def __lshift__(self, other: Any) -> Tensor: return binary(ops.bitwise_left_shift, self, other)
    def __rlshift__(self, other: Any) -> Tensor: return reflected(ops.bitwise_left_shift, other, self)
    def __rshift__(self, other: Any) -> Tensor: return binary(ops.bitwise_right_shift, self, other)
    def __rrshift__(self, other: Any) -> Tensor: return reflected(ops.bitwise_right_shift, other, self)
    def __neg__(self) -> Tensor: return ops.neg(self)
    def __pos__(self: Any) -> Tensor: return self
    def __abs__(self) -> Tensor: return ops.abs(self)
    def __invert__(self) -> Tensor: return ops.bitwise_invert(self)
    def __eq__(self, other: object) -> Tensor: return binary(ops.equal, self, other)  # type: ignore[override]  # elementwise
    def __ne__(self, other: object) -> Tensor: return binary(ops.not_equal, self, other)  # type: ignore[override]  # elementwise
    def __lt__(self, other: Any) -> Tensor: return binary(ops.less, self, other)
    def __le__(self, other: Any) -> Tensor: return binary(ops.less_equal, self, other)
    def __gt__(self, other: Any) -> Tensor: return binary(ops.greater, self, other)
    def __ge__(self, other: Any) -> Tensor: return binary(ops.greater_equal, self, other)

    # x += y changes the memory of x, which its views and other names see; it is never x = x + y.
    def __iadd__(self, other: Any) -> Tensor: return into(self, ops.add, self, other)
    def __isub__(self, other: Any) -> Tensor: return into(self, ops.sub, self, other)
    def __imul__(self, other: Any) -> Tensor: return into(self, ops.mul, self, other)
    def __itruediv__(self, other: Any) -> Tensor: return into(self, ops.div, self, other)
    def __ifloordiv__(self, other: Any) -> Tensor: return into(self, ops.floor_divide, self, other)
    def __imod__(self, other: Any) -> Tensor: return into(self, ops.remainder, self, other)
    def __ipow__(self, other: Any) -> Tensor: return into(self, ops.pow, self, other)
    def __iand__(self, other: Any) -> Tensor: return into(self, ops.bitwise_and, self, other)
    def __ior__(self, other: Any) -> Tensor: return into(self, ops.bitwise_or, self, other)
    def __ixor__(self, other: Any) -> Tensor: return into(self, ops.bitwise_xor, self, other)
    def __ilshift__(self, other: Any) -> Tensor: return into(self, ops.bitwise_left_shift, self, other)
    def __irshift__(self, other: Any) -> Tensor: return into(self, ops.bitwise_right_shift, self, other)
    # fmt: on

    __getitem__ = indexing.getitem
    __setitem__ = assignment.setitem
    __array__ = as_array
    __dlpack__ = dlpack
    __dlpack_device__ = dlpack_device
    __format__ = formatted

    def __repr__(self: Any) -> str:
        return representation(self)

    def __len__(self: Any) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a tensor without axes: it is a single value")
        return int(self.shape[0])

    def __iter__(self: Any) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("a tensor without axes cannot be iterated over: it is a single value")
        return iter(joining.unbind(self, 0))

    def __reversed__(self: Any) -> Tensor:
        return ops.flip(self, axis=0) if self.ndim else self

    def __contains__(self: Any, value: Any) -> bool:
        return bool(ops.any(ops.equal(self, value)).item())

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """The module `hal`. Source: Array API, `array.__array_namespace__`."""
        from hal.namespace import namespace

        return namespace(api_version)
