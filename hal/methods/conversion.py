"""Methods that convert and copy: to other dtypes and devices, to Python's numbers, to NumPy; and facts about size."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from hal import dtypes, interop, ops
from hal.device import Device
from hal.dtypes import DType
from hal.errors import DTypeError, GradientError, SettingError, ShapeError
from hal.functions.arguments import is_tensor
from hal.spec import Spec, normalize_axis

if TYPE_CHECKING:
    from hal.op import Array
    from hal.tensor import Tensor

Nested = Any  # a Python number, or lists of lists of them


class Facts:
    """Methods of `Tensor` that answer without looking at the contents."""

    __slots__ = ()

    @property
    def size(self: Any) -> Size:
        """The number of elements, as the Array API says; called, torch's method: the shape, or one axis's size."""
        return Size(self.spec)

    def dim(self: Any) -> int:
        """The number of axes. Source: torch.Tensor.dim."""
        return self.spec.ndim

    def numel(self: Any) -> int:
        """The number of elements. Source: torch.Tensor.numel."""
        return self.spec.size

    nelement, ndimension = numel, dim

    def element_size(self: Any) -> int:
        """Bytes in an element. Source: torch.Tensor.element_size."""
        return self.dtype.itemsize

    @property
    def itemsize(self: Any) -> int:
        """Bytes in an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self: Any) -> int:
        """Bytes in all elements."""
        return self.spec.nbytes

    def stride(self: Any, dim: int | None = None) -> Any:
        """Elements from one to the next along each axis, if they lay row by row: the device may keep them otherwise."""
        steps = tuple(prod(self.shape[i + 1 :]) for i in range(self.ndim))
        return steps if dim is None else steps[normalize_axis("stride", dim, self.ndim)]

    def is_contiguous(self: Any) -> bool:
        """Whether this is no permuted, sliced or broadcast view. Source: torch.Tensor.is_contiguous."""
        view = self
        while view.parent is not None:
            if view.made_by[0] is not ops.reshape:
                return False
            view = view.parent
        return True

    def is_floating_point(self: Any) -> bool:
        """Whether the elements are real floating-point numbers. Source: torch.Tensor.is_floating_point."""
        return self.dtype.is_floating

    def is_complex(self: Any) -> bool:
        """Whether the elements are complex. Source: torch.Tensor.is_complex."""
        return self.dtype.kind == "complex"


class Numbers:
    """Methods of `Tensor` that give its contents to Python. They wait for the device, and that is counted."""

    __slots__ = ()

    numpy = interop.numpy

    def item(self: Any) -> Any:
        """The one element as a Python number.

        Raises:
            ShapeError: there are more, or none.

        Source: torch.Tensor.item.
        """
        return _only(self, "item()")

    def tolist(self: Any) -> Nested:
        """The elements as nested lists of Python numbers; a single one as itself. Source: torch.Tensor.tolist."""
        return interop.host_array(self, "tolist()").tolist()

    def __bool__(self) -> bool:
        return bool(_only(self, "bool()"))

    def __int__(self) -> int:
        return int(_only(self, "int()"))

    def __float__(self) -> float:
        return float(_only(self, "float()"))

    def __complex__(self) -> complex:
        return complex(_only(self, "complex()"))

    def __index__(self: Any) -> int:
        if self.dtype.kind not in ("int", "uint", "bool"):
            raise DTypeError(f"an index must be an integer, this tensor is {self.dtype.name}: use int(x) or .long()")
        return int(_only(self, "use as an index"))


def _only(x: Any, who: str) -> Any:
    if x.spec.size != 1:
        cure = "use .any() or .all()" if who == "bool()" else "index it, or use .tolist()"
        raise ShapeError(f"{who} needs a tensor with one element, got shape {x.shape}: {cure}")
    return interop.element(x, who)


class Conversion(Facts, Numbers):
    """Methods of `Tensor` that give another tensor with the same numbers."""

    __slots__ = ()

    def to(
        self: Any, *args: Any, dtype: Any = None, device: Any = None, copy: bool = False,
        non_blocking: bool = False, memory_format: Any = None,
    ) -> Tensor:  # fmt: skip
        """The tensor in another dtype, on another device, or both, or as another tensor has it.

        It is itself if nothing changes.         Gradients flow back through the conversion and the copy.

        Args:
            copy: a copy even if nothing changes.
            non_blocking, memory_format: accepted, and of no effect.

        Raises:
            DTypeError: the device has no such dtype.
            DeviceError: no such device.

        Source: torch.Tensor.to.
        """
        for given in args:
            if is_tensor(given):
                dtype, device = given.dtype, given.device
            elif isinstance(given, (Device, str)):
                device = given
            elif isinstance(given, int) and not isinstance(given, bool):
                raise SettingError(f"to() takes a device by name, got the number {given}: write 'name:{given}'")
            elif given is not None and not isinstance(given, bool):
                dtype = given
        wanted = self.dtype if dtype is None else dtypes.dtype(dtype)
        where = self.device if device is None else Device(device)
        out = self
        first = wanted in self.device.backend.dtypes  # convert where both dtypes are known
        if wanted is not self.dtype and first:
            out = ops.cast(out, dtype=wanted)
        if where is not self.device:
            from hal.transfer import to_device

            out = to_device(out, where, asked=True)
        if wanted is not self.dtype and not first:
            out = ops.cast(out, dtype=wanted)
        return self.clone() if copy and out is self else out

    def to_device(self: Any, device: Any, /, *, stream: Any = None) -> Tensor:
        """The tensor on another device. Source: Array API, `array.to_device`."""
        return self.to(device)

    def cpu(self: Any) -> Tensor:
        """The tensor in host memory. Source: torch.Tensor.cpu."""
        return self.to(Device("cpu"))

    def cuda(self: Any, index: int | None = None) -> Tensor:
        """The tensor on a CUDA device. Source: torch.Tensor.cuda."""
        return self.to(Device("cuda", index))

    def type_as(self: Any, other: Tensor) -> Tensor:
        """The tensor in the dtype of `other`. Source: torch.Tensor.type_as."""
        return self.to(other.dtype)

    def clone(self: Any, *, memory_format: Any = None) -> Tensor:
        """A copy with memory of its own, through which gradients flow back. Source: torch.clone."""
        out = ops.cast(self, dtype=self.dtype)
        if out is self or (out.buffer is self.buffer and self.device.backend.views):
            raise DTypeError(f"the cast kernel of {self.device} gave its input back, where a copy is promised")
        return out

    def contiguous(self: Any, *, memory_format: Any = None) -> Tensor:
        """Itself, or a copy of a permuted, sliced or broadcast view. Source: torch.Tensor.contiguous."""
        return self if self.is_contiguous() else self.clone()

    def __copy__(self: Any) -> Tensor:
        return self.clone() if self.node is not None else _like(self, self.detach())

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Tensor:
        if id(self) in memo:
            return memo[id(self)]
        if self.node is not None:
            raise GradientError("deepcopy of a computed tensor would lose its history: copy leaves, or detach() first")
        out = _like(self, self.detach().clone())
        memo[id(self)] = out
        if self.grad is not None:
            out.grad = self.grad.__deepcopy__(memo)
        return out

    def __reduce_ex__(self: Any, protocol: Any) -> tuple[Any, ...]:
        """Pickle by way of NumPy: the contents, the device's name and requires_grad, of leaves only."""
        if self.node is not None:
            raise GradientError("a computed tensor cannot be pickled with its history: detach() it first")
        contents = interop.host_array(self.detach(), "pickling").copy()
        return _unpickle, (type(self), contents, str(self.device), self.tracked, getattr(self, "__dict__", None))


def _like(x: Any, contents: Tensor) -> Any:
    """A tensor of the class and with the attributes of `x`, and the memory of `contents`."""
    return _dressed(type(x), contents, x.tracked, getattr(x, "__dict__", None), x.origin)


def _dressed(kind: type, contents: Tensor, tracked: bool, attributes: dict[str, Any] | None, origin: Any) -> Any:
    from hal.tensor import Tensor

    out: Any = object.__new__(kind)
    Tensor.__init__(out, None, contents.spec, contents.device, origin)
    Tensor._take(out, contents)
    out.origin, out.tracked = origin, tracked
    vars(out).update(attributes) if attributes else None
    return out


def _unpickle(kind: type, contents: Array, device: str, tracked: bool, attributes: dict[str, Any] | None) -> Any:
    from hal.creation import tensor

    made = tensor(contents, device=device)
    return _dressed(kind, made, tracked, attributes, made.origin)


class Size(int):
    """How many elements a tensor has, which can be called for its shape.

    >>> import hal
    >>> x = hal.zeros(2, 3)
    >>> x.size == 6, x.size(), x.size(-1)
    (True, (2, 3), 3)
    """

    spec: Spec

    def __new__(cls, spec: Spec) -> Size:
        size = super().__new__(cls, spec.size)
        size.spec = spec
        return size

    def __call__(self, dim: int | None = None) -> Any:
        """The shape, or the size along one axis. Source: torch.Tensor.size."""
        return self.spec.shape if dim is None else self.spec.shape[normalize_axis("size", dim, self.spec.ndim)]


class Casts(Conversion):
    """torch's methods named after dtypes. In a class of their own, since they hide Python's types of these names."""

    __slots__ = ()

    # fmt: off
    def float(self) -> Tensor: return self.to(dtypes.float32)
    def double(self) -> Tensor: return self.to(dtypes.float64)
    def half(self) -> Tensor: return self.to(dtypes.float16)
    def bfloat16(self) -> Tensor: return self.to(dtypes.bfloat16)
    def long(self) -> Tensor: return self.to(dtypes.int64)
    def int(self) -> Tensor: return self.to(dtypes.int32)
    def short(self) -> Tensor: return self.to(dtypes.int16)
    def char(self) -> Tensor: return self.to(dtypes.int8)
    def byte(self) -> Tensor: return self.to(dtypes.uint8)
    def bool(self) -> Tensor: return self.to(dtypes.bool_)
    def type(self, dtype: Any = None) -> Any: return self.to(dtype=dtype) if dtype is not None else _name(self)
    # fmt: on


def _name(x: Any) -> str:
    kept: DType = x.dtype
    return repr(kept)
