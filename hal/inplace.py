"""In-place changes: new contents for a tensor and everything that shares its memory, and the history they get."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from hal import ops, tracing
from hal.abstract import ABSTRACT, StaleBackend
from hal.device import Device
from hal.errors import DTypeError, GradientError, HalError, ShapeError
from hal.op import Op
from hal.recording import mode, no_grad
from hal.spec import Spec
from hal.tensor import CONSTANT, Tensor
from hal.views import VIEWS, reshaped


def check_target(who: str, target: Tensor) -> None:
    """Raise GradientError or ShapeError if `target` may not be changed in place."""
    if mode.enabled and target.tracked and target.node is None:
        raise GradientError(
            f"{who} would change in place a leaf tensor that requires a gradient; "
            "do it under hal.no_grad(), or on its .data"
        )
    view: Tensor | None = target
    while view is not None and view.parent is not None:
        if VIEWS[view.made_by[0].name] is None and view.spec.size != view.parent.spec.size:
            raise ShapeError(
                f"{who} would change a broadcast view in place, where several elements are one in memory; "
                "clone() it first"
            )
        view = view.parent
        if mode.enabled and view.tracked and view.node is None:
            raise GradientError(
                f"{who} would change in place a view of a leaf tensor that requires a gradient; "
                "do it under hal.no_grad(), or on its .data"
            )


@lru_cache(maxsize=1024)
def _gradient_reads_inputs(op: Op, specs: tuple[Spec, ...], settings: tuple[tuple[str, Any], ...]) -> bool:
    """Whether the gradient of a call needs the contents of its inputs, found by trying it on inputs without any."""
    if op.gradient is None:
        return True
    nowhere = Device(StaleBackend("contents are not there"))
    inputs = [Tensor(None, spec, nowhere, CONSTANT) for spec in specs]
    given = op.bind(len(specs), dict(settings))
    inferred = op.infer(*specs, **given)
    if isinstance(inferred, tuple):
        return True
    g, out = (Tensor(None, inferred, ABSTRACT, CONSTANT) for _ in range(2))
    try:
        with no_grad():
            for entry in op.gradient(g, out, *inputs, **given):
                if callable(entry):
                    entry()
    except HalError:
        return True
    return False


def saved_contents(
    op: Op, targets: tuple[Tensor, ...], args: tuple[Any, ...], settings: dict[str, Any]
) -> tuple[Any, ...]:
    """The inputs of a recorded in-place call: those that it will overwrite as copies, if its gradient needs them."""
    storages = [target.storage for target in targets]
    if not any(isinstance(x, Tensor) and x.storage in storages for x in args):
        return args
    plain = all(isinstance(x, Tensor) for x in args)
    if plain and not _gradient_reads_inputs(op, tuple(x.spec for x in args), tuple(settings.items())):
        return args
    return tuple(before(x) if isinstance(x, Tensor) and x.storage in storages else x for x in args)


def before(x: Tensor) -> Tensor:
    """What `x` is now, history included, kept from the change that comes. Itself where nothing is recorded."""
    if not mode.enabled or (x.tracked and x.node is None):  # a leaf's copy would not be that leaf
        return x
    if x.parent is not None and x.tracked:
        x.renew_history()
    with no_grad():
        kept = x.clone()
    kept.node, kept.index, kept.tracked = x.node, x.index, x.tracked
    return kept


def fit(who: str, target: Tensor, result: Tensor) -> Tensor:
    """`result` broadcast, cast and moved to what `target` is.

    Raises:
        ShapeError: the shape does not broadcast to that of the target.
        DTypeError: a floating result for an integer target, or the like.
    """
    if result.dtype is not target.dtype:
        order = ("bool", "uint", "int", "float", "complex")
        if order.index(result.dtype.kind) > order.index(target.dtype.kind) and result.dtype.kind != "int":
            raise DTypeError(
                f"{who} gives {result.dtype.name}, which cannot be put into a {target.dtype.name} tensor in place; "
                "convert the tensor with .to(dtype) first"
            )
        result = ops.cast(result, dtype=target.dtype)
    if result.shape != target.shape:
        padded = (1,) * (target.ndim - result.ndim) + result.shape
        if result.ndim > target.ndim or any(n not in (1, m) for n, m in zip(padded, target.shape, strict=True)):
            raise ShapeError(
                f"{who} gives shape {result.shape}, which cannot be put into a tensor of shape {target.shape} in "
                "place; use the operation that makes a new tensor"
            )
        result = ops.broadcast_to(result, shape=target.shape)
    if result.device is not target.device:
        from hal.transfer import to_device

        result = to_device(result, target.device)
    return result


def assign(target: Tensor, value: Tensor) -> None:
    """Let `value`, of the target's spec and device, be the new contents (and history) of `target`."""
    record = mode.enabled and (target.tracked or value.tracked)
    history = _new_histories(target, value) if record else []
    _store(target, value)
    tracer = tracing.active()
    for tensor, changed in history:
        if tracer is not None:
            tracer.remember(tensor)
        tensor.node, tensor.index, tensor.tracked = changed.node, changed.index, changed.tracked
        if tensor.parent is not None:
            tensor.seen = tensor.parent.node


def _new_histories(target: Tensor, value: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The tensors from the storage's root to `target`, each with one whose history it takes over."""
    if target.parent is None:
        return [(target, value)]
    op, settings = target.made_by
    carry_back = VIEWS[op.name] or reshaped  # a broadcast view that may be changed only has more axes
    parent = target.parent
    above = _new_histories(parent, carry_back(parent, value, settings))
    again = op(above[-1][1], **settings)
    return [*above, (target, again)]


def _store(target: Tensor, value: Tensor) -> None:
    backend, storage = target.device.backend, target.storage
    tracer = tracing.active()
    if backend.views and tracer is None:
        backend.write(target.buffer, value.buffer, target.spec)
        storage.version += 1
        return
    new = value
    with no_grad():
        while target.parent is not None:
            op, settings = target.made_by
            carry_back = VIEWS[op.name] or reshaped
            new = carry_back(target.parent, new, settings)
            target = target.parent
    if tracer is not None:
        tracer.store(target, new)
        return
    storage.buffer = new.buffer
    storage.version += 1
    storage.generation += 1
