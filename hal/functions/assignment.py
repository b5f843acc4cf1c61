"""x[...] = value: writes into the memory of x through the views that reading gives, and records it for gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hal import ops
from hal.errors import ShapeError
from hal.functions.arguments import is_tensor
from hal.functions.indexing import Parsed, as_tensor, gathering, is_mask, parse
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """x[key] = value, which is converted to the dtype and device of `x` and broadcast. Of equal numbers the last wins.

    Raises:
        IndexError: as for reading.
        ShapeError: the value does not broadcast to what it replaces.
        GradientError: `x` is a leaf that requires a gradient.

    Source: torch, "Tensor indexing API"; NumPy, "Assigning values to indexed arrays".
    """
    from hal.inplace import assign, check_target

    check_target("x[...] = value", x)
    parsed = parse(x, key)
    given = _given(x, value)
    target = parsed.slice_of(x)
    if not parsed.lists:
        _write(x, target, parsed, ops.reshape(_broadcast(given, tuple(parsed.shape)), shape=target.shape))
        return
    if _by_choice(x, target, parsed, given):
        return
    found = gathering(parsed, x)
    shape = tuple(parsed.shape)
    arranged = found.arrange(target if target.shape == shape else ops.reshape(target, shape=shape))
    wanted = (*arranged.shape[: found.axis], *found.index.shape, *arranged.shape[found.axis + 1 :])
    given = _without_leading_ones(given, len(wanted))
    if arranged is x:
        from hal.dispatch import run_into

        run_into((x,), ops.put, (x, found.index, given), {"axis": found.axis})
        return
    changed = ops.put(arranged, found.index, given, axis=found.axis)
    if arranged.storage is x.storage and arranged.storage is not None:
        assign(arranged, changed)
    else:  # the arrangement was a copy, so what was changed there is brought back
        _write(x, target, parsed, ops.reshape(found.restore(changed, shape), shape=target.shape))


def _write(x: Tensor, target: Tensor, parsed: Parsed, value: Tensor) -> None:
    """Let `value` be the contents of `target`, the slice of `x`."""
    from hal.inplace import assign

    if target.storage is x.storage:
        assign(target, value)
        return
    bounds = {"start": tuple(parsed.start), "stop": tuple(parsed.stop), "step": tuple(parsed.step)}
    assign(x, ops.slice_update(x, value, **bounds))  # a device that copies its slices


def _by_choice(x: Tensor, target: Tensor, parsed: Parsed, given: Tensor) -> bool:
    """Assign where a single mask holds, on the device and without counting: if the value is the same for all places."""
    if len(parsed.lists) != 1 or not is_mask(parsed.lists[0][1]):
        return False
    axis, mask = parsed.lists[0]
    plain = target.ndim == len(parsed.shape) + mask.ndim - 1  # neither numbers nor new axes beside the mask
    if not plain or given.ndim > target.ndim - axis - mask.ndim:
        return False
    from hal.dispatch import run_into

    shape = (*mask.shape, *(1,) * (target.ndim - axis - mask.ndim))
    where = ops.reshape(as_tensor(mask, x), shape=shape)
    if target.storage is x.storage:
        run_into((target,), ops.where, (where, given, target), {})
    else:
        _write(x, target, parsed, ops.where(where, given, target))
    return True


def _given(x: Tensor, value: Any) -> Tensor:
    """The value as a tensor of the dtype and on the device of `x`."""
    from hal.creation import tensor
    from hal.placement import constant

    if isinstance(value, (bool, int, float, complex)):
        return constant(value, Spec((), x.dtype), x.device)
    if not is_tensor(value):
        return tensor(value, dtype=x.dtype, device=x.device)
    return value.to(x.device, x.dtype)


def _without_leading_ones(value: Tensor, ndim: int) -> Tensor:
    extra = value.ndim - ndim
    if extra > 0 and set(value.shape[:extra]) == {1}:
        return ops.reshape(value, shape=value.shape[extra:])
    return value


def _broadcast(value: Tensor, shape: Shape) -> Tensor:
    value = _without_leading_ones(value, len(shape))
    if value.shape == shape:
        return value
    padded = (1,) * (len(shape) - value.ndim) + value.shape
    if value.ndim > len(shape) or any(n not in (1, m) for n, m in zip(padded, shape, strict=True)):
        raise ShapeError(
            f"x[...] = value needs a value that broadcasts to {shape}, the shape of x[...], got {value.shape}"
        )
    return ops.broadcast_to(value, shape=shape)
