"""Parameters: tensors that a module trains, and those whose shape is known only after the first forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

import hal
from hal.creation import DeviceLike
from hal.dtypes import DType
from hal.errors import DTypeError, StateError
from hal.source import user_line
from hal.spec import Shape, Spec
from hal.tensor import Origin, Storage, Tensor

if TYPE_CHECKING:
    _Mixin = Tensor
else:
    _Mixin = object  # a tensor can only take over the class of its own first base
_SPEC: Any = Tensor.__dict__["spec"]  # the slot itself, which uninitialised tensors hide behind an error
PARAMETER = 3  # strength of a parameter's origin: an op runs where its parameters are, rather than its activations


class Parameter(Tensor):
    """A tensor that a `Module` registers by itself when it is assigned to an attribute.

    It shares the memory of `data`, and requires a gradient unless told otherwise.

    >>> Parameter(hal.tensor([1.0, 2.0]))
    Parameter containing:
    tensor([1., 2.], requires_grad=True)

    Raises:
        DTypeError: `data` is no tensor.
        GradientError: integers cannot require a gradient.

    Source: torch.nn.Parameter.
    """

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        if data is None:
            data = hal.empty(0)
        if not isinstance(data, Tensor):
            raise DTypeError(f"Parameter needs a tensor, got {type(data).__name__}: make one with hal.tensor(...)")
        super().__init__(None, data.spec, data.device, data.origin)
        self.data = data
        self.requires_grad = requires_grad

    def _take(self, value: Tensor) -> None:
        super()._take(value)
        self.origin = Origin(PARAMETER, value.origin.line or user_line())

    def _replace(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Let the contents, and the gradient's, be what `fn` makes of them."""
        before = self.data
        after = fn(before)
        if after is not before:
            self.data = after
        if self.grad is not None:
            self.grad = fn(self.grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) in memo:
            known: Parameter = memo[id(self)]
            return known
        memo[id(self)] = copied = type(self)(self.data.clone(), self.requires_grad)
        return copied


class _Uninitialized(_Mixin):
    """What an uninitialised parameter and buffer have in common: a device and a dtype, but no shape yet."""

    __slots__ = ()
    becomes: ClassVar[type[Tensor]]

    @property
    def spec(self) -> Spec:  # type: ignore[override]  # there is none to be read or set
        """Raises StateError: neither shape nor contents are known before the first forward pass."""
        raise StateError(
            f"this {type(self).__name__} has no shape yet, so nothing can be done with it: run the module's forward "
            "pass once on an example of the input, or load initialised weights"
        )

    @property
    def dtype(self) -> DType:
        """Element type that it will have."""
        held: Spec = _SPEC.__get__(self)
        return held.dtype

    def _begin(self, dtype: Any, device: DeviceLike) -> None:
        example = hal.empty(0, dtype=dtype, device=device)
        _SPEC.__set__(self, example.spec)
        self.storage, self._buffer, self._generation = Storage(None), None, 0
        self.device, self.origin = example.device, Origin(PARAMETER, user_line(3))
        self.node, self.grad, self.parent, self.index = None, None, None, 0

    def materialize(self, shape: Shape | list[int], device: DeviceLike = None, dtype: Any = None) -> None:
        """Give it a shape and memory, whose contents are not set yet; it is an ordinary tensor from now on."""
        memory = hal.empty(*shape, dtype=self.dtype if dtype is None else dtype, device=device or self.device)
        self.__class__ = self.becomes  # type: ignore[assignment]  # what it was meant to be
        self.data = memory

    def _replace(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Let the device and dtype that it will have be what `fn` makes of them."""
        example = fn(hal.empty(0, dtype=self.dtype, device=self.device))
        self._begin(example.dtype, example.device)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter whose shape follows from the first input of its module.

    Its dtype and device are known; anything that needs its shape or contents raises a StateError.

    Source: torch.nn.parameter.UninitializedParameter.
    """

    becomes = Parameter

    def __init__(self, requires_grad: bool = True, device: DeviceLike = None, dtype: Any = None) -> None:
        self._begin(dtype, device)
        self.tracked = requires_grad

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        if id(self) in memo:
            known: UninitializedParameter = memo[id(self)]
            return known
        memo[id(self)] = copied = type(self)(self.requires_grad, self.device, self.dtype)
        return copied


class UninitializedBuffer(_Uninitialized, Tensor):
    """A buffer whose shape follows from the first input of its module.

    Source: torch.nn.parameter.UninitializedBuffer.
    """

    __slots__ = ()
    becomes = Tensor

    def __init__(self, requires_grad: bool = False, device: DeviceLike = None, dtype: Any = None) -> None:
        self._begin(dtype, device)
        self.tracked = requires_grad

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedBuffer:
        memo[id(self)] = copied = type(self)(self.requires_grad, self.device, self.dtype)
        return copied


def is_lazy(tensor: Tensor | None) -> TypeGuard[_Uninitialized]:
    """Whether this is a parameter or buffer that has no shape yet."""
    return isinstance(tensor, _Uninitialized)
