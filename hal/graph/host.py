"""Numbers that a traced function reads from tensors: what Python does with them is done again on each call.

A `Number` is no int or float on purpose. Whoever takes it for one has to ask (`__float__`, `__index__`, `__bool__`),
and what is asked for is noted: from there on the function may do something else for another answer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hal.op import Array

if TYPE_CHECKING:
    from hal.device import Device
    from hal.graph.graph import Value
    from hal.graph.split import Splitter
    from hal.spec import Spec
    from hal.tensor import Tensor

Calculation = Callable[[list[Any]], Any]


class Board:
    """What is known on the host in the present call of a function: contents that were read, and what follows from them.

    Attributes:
        arrays: contents of values of the graph.
        values: results of the calculations that a trace noted, one after another.
    """

    def __init__(self) -> None:
        self.arrays: dict[Value, Array] = {}
        self.values: list[Any] = []

    def clear(self) -> None:
        """Forget the call."""
        self.arrays.clear()
        self.values.clear()

    def value(self, slot: int, steps: list[Calculation]) -> Any:
        """The result of a calculation, after those before it."""
        while len(self.values) <= slot:
            self.values.append(steps[len(self.values)](self.values))
        return self.values[slot]


def answer_key(value: Any) -> tuple[Any, ...]:
    """Equal for equal answers, bit for bit: a nan equals itself, and 0.0 is not -0.0."""
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    return type(value), repr(value)


class Number:
    """A number that was read from a tensor in a trace, or computed from such. In a replay it is computed anew.

    As an operand of tensors it becomes an input of the graph. Comparisons and conversions make plain Python values of
    it, and ask: a call with another answer goes another way.
    """

    __slots__ = ("__weakref__", "slot", "splitter")
    __hash__ = None  # type: ignore[assignment]  # a key of a dictionary, or a setting, is a plain number

    def __init__(self, splitter: Splitter, slot: int) -> None:
        self.splitter = splitter
        self.slot = slot

    def asked(self) -> Any:
        """What it is, as a plain Python number; a call in which it is another one goes another way from here on."""
        return self.splitter.ask(self.slot)

    def sample(self) -> Any:
        """What it is in the call that is traced, of which only the type may matter."""
        return self.splitter.value(self.slot)

    def operand(self, spec: Spec, device: Device) -> Tensor:
        """It as a 0-d tensor of the graph."""
        return self.splitter.operand(self.slot, spec, device)

    def __bool__(self) -> bool:
        return bool(_derived(bool, self).asked())

    def __int__(self) -> int:
        return int(_derived(int, self).asked())

    def __index__(self) -> int:
        return operator.index(self.asked())

    def __float__(self) -> float:
        return float(self.asked())

    def __complex__(self) -> complex:
        return complex(self.asked())

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.asked(), digits)

    def __pow__(self, other: Any) -> Any:
        return self.asked() ** (other.asked() if isinstance(other, Number) else other)

    def __rpow__(self, other: Any) -> Any:
        return other ** self.asked()

    def __repr__(self) -> str:
        return repr(self.asked())

    def __format__(self, how: str) -> str:
        return format(self.asked(), how)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.asked(), dtype)

    def __reduce__(self) -> Any:
        return _same, (self.asked(),)

    def __getattr__(self, name: str) -> Any:  # is_integer(), real, ...
        if not hasattr(int, name) and not hasattr(float, name):
            raise AttributeError(name)
        return getattr(self.asked(), name)

    # fmt: off
    def __add__(self, other: Any) -> Any: return _derived(operator.add, self, other)
    def __radd__(self, other: Any) -> Any: return _derived(operator.add, other, self)
    def __sub__(self, other: Any) -> Any: return _derived(operator.sub, self, other)
    def __rsub__(self, other: Any) -> Any: return _derived(operator.sub, other, self)
    def __mul__(self, other: Any) -> Any: return _derived(operator.mul, self, other)
    def __rmul__(self, other: Any) -> Any: return _derived(operator.mul, other, self)
    def __truediv__(self, other: Any) -> Any: return _derived(operator.truediv, self, other)
    def __rtruediv__(self, other: Any) -> Any: return _derived(operator.truediv, other, self)
    def __floordiv__(self, other: Any) -> Any: return _derived(operator.floordiv, self, other)
    def __rfloordiv__(self, other: Any) -> Any: return _derived(operator.floordiv, other, self)
    def __mod__(self, other: Any) -> Any: return _derived(operator.mod, self, other)
    def __rmod__(self, other: Any) -> Any: return _derived(operator.mod, other, self)
    def __neg__(self) -> Any: return _derived(operator.neg, self)
    def __pos__(self) -> Any: return _derived(operator.pos, self)
    def __abs__(self) -> Any: return _derived(operator.abs, self)
    def __lt__(self, other: Any) -> Any: return _derived(operator.lt, self, other)
    def __le__(self, other: Any) -> Any: return _derived(operator.le, self, other)
    def __gt__(self, other: Any) -> Any: return _derived(operator.gt, self, other)
    def __ge__(self, other: Any) -> Any: return _derived(operator.ge, self, other)
    def __eq__(self, other: object) -> Any: return _derived(operator.eq, self, other)
    def __ne__(self, other: object) -> Any: return _derived(operator.ne, self, other)
    # fmt: on


def _same(x: Any) -> Any:
    return x


def _derived(function: Callable[..., Any], *args: Any) -> Any:
    """The number that `function` gives for these, of which one or more are numbers of a trace."""
    if not all(isinstance(x, (Number, int, float, complex)) for x in args):
        return NotImplemented
    first = next(x for x in args if isinstance(x, Number))
    slots = [x.slot if isinstance(x, Number) else None for x in args]
    plain = [None if isinstance(x, Number) else x for x in args]  # a calculation must not keep a number alive

    def calculate(values: list[Any]) -> Any:
        return function(*[p if s is None else values[s] for s, p in zip(slots, plain, strict=True)])

    return first.splitter.note(calculate, first.splitter.who(first.slot))
