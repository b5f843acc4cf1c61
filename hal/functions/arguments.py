"""What the functions ask of their arguments: which axis is meant by `dim` or `axis`, which sizes by `*size`."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from hal.errors import DTypeError, SettingError, ShapeError
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from hal.tensor import Tensor

Axes = int | tuple[int, ...] | None
AxesLike = int | tuple[int, ...] | list[int] | None
Scalar = bool | int | float | complex


class ValuesAndIndices(NamedTuple):
    """What sort, topk, max and min along a dimension give: the values, and where each was found.

    Source: torch.return_types.
    """

    values: Tensor
    indices: Tensor


def is_tensor(x: object) -> TypeIs[Tensor]:
    """Whether `x` is a tensor of hal. Source: torch.is_tensor."""
    return isinstance(getattr(x, "spec", None), Spec)  # by what it has: Tensor's methods need this module first


def need_tensor(who: str, x: object) -> Tensor:
    """`x`, which must be a tensor.

    Raises:
        DTypeError: it is something else.
    """
    if not is_tensor(x):
        raise DTypeError(f"{who} needs a tensor, got {type(x).__name__}: make one with hal.tensor(...)")
    return x


def tensors_of(who: str, tensors: Any) -> list[Tensor]:
    """The tensors of a list or tuple.

    Raises:
        DTypeError: it is no list, or something in it is no tensor.
        ShapeError: it is empty.
    """
    if is_tensor(tensors):
        return list(tensors)
    if not isinstance(tensors, (list, tuple)):
        raise DTypeError(f"{who} needs a list or tuple of tensors, got {type(tensors).__name__}")
    if not tensors:
        raise ShapeError(f"{who} needs one tensor or more, got none")
    return [need_tensor(who, x) for x in tensors]


def either(who: str, dim: AxesLike, axis: AxesLike) -> Axes:
    """The axes meant by a call that may say `dim` or `axis`.

    Raises:
        SettingError: it says both.
    """
    if dim is not None and axis is not None:
        raise SettingError(f"{who} got dim={dim} and axis={axis}, which are two words for one thing: give one of them")
    chosen = dim if axis is None else axis
    return tuple(chosen) if isinstance(chosen, list) else chosen


def one_axis(who: str, dim: AxesLike, axis: AxesLike, default: int) -> int:
    """The one axis meant by a call that may say `dim` or `axis`.

    Raises:
        SettingError: it says both, or several axes.
    """
    chosen = either(who, dim, axis)
    if chosen is None:
        return default
    if isinstance(chosen, tuple):
        raise SettingError(f"{who} works along one axis, got {chosen}")
    return index_of(who, chosen)


def index_of(who: str, number: Any) -> int:
    """`number` as a Python integer.

    Raises:
        SettingError: it is none.
    """
    try:
        return int(number.__index__())
    except AttributeError:
        raise SettingError(f"{who} needs a whole number, got {number!r}") from None


def integers(who: str, given: tuple[Any, ...]) -> tuple[int, ...]:
    """The whole numbers meant by `f(1, 2)`, `f((1, 2))` or `f([1, 2])`."""
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = tuple(given[0])
    for n in given:
        if n.__class__ is not int:  # which nearly all are
            return tuple(index_of(who, n) for n in given)
    return given


def whole_shape(who: str, sizes: tuple[int, ...], size: int) -> Shape:
    """`sizes` with the one -1 among them replaced by what is left of `size` elements.

    Raises:
        ShapeError: more than one -1, or nothing whole is left for it.
    """
    if -1 not in sizes:
        return sizes
    rest = prod(n for n in sizes if n != -1)
    if sizes.count(-1) > 1 or rest == 0 or size % rest:
        raise ShapeError(
            f"{who} of {size} elements to {sizes}: needs at most one -1, and a size that fits in its place"
        )
    return tuple(size // rest if n == -1 else n for n in sizes)
