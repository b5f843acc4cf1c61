"""The one path by which an op runs: look up the decision for (op, device, specs, settings), act on it, record it.

Settings that change on every call would make the table of decisions grow, so what changes goes in as data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hal import methods, registry, tracing
from hal import op as op_module
from hal.abstract import StaleBackend
from hal.decision import Decision, Settings, decision_for, decisions
from hal.device import Device
from hal.dtypes import with_scalar
from hal.errors import DeviceError, GraphError, HalError, OutOfMemoryError, SettingError
from hal.graph.graph import Value
from hal.graph.host import Number
from hal.inplace import assign, check_target, fit, saved_contents
from hal.interop import MADE_IN_A_TRACE, as_operand
from hal.op import Op
from hal.placement import constant, onto_one_device, scalars
from hal.recording import mode, record
from hal.source import user_line
from hal.spec import Spec
from hal.tensor import Origin, Tensor
from hal.views import link

Watch = Callable[[Op, tuple[Tensor, ...], Settings, tuple[Tensor, ...]], None]
watch: Watch | None = None  # called after every kernel with (op, inputs, settings, results), if there is one
_NUMBERS = frozenset((int, float, bool, complex))
AS_THEY_ARE = (HalError, IndexError)  # errors of kernels that need no explanation


def run(op: Op, args: tuple[Any, ...], settings: Settings) -> Any:
    """Run `op` on tensors (and Python scalars, which become 0-d constants of a fitting dtype).

    Raises:
        ShapeError, DTypeError, SettingError: the inputs do not fit the op.
        CopyError, FallbackError: the policy forbids what it would take.
        DeviceError: the device failed.
    """
    device: Device | None = None
    for x in args:
        if not isinstance(x, Tensor) or (device is not None and x.device is not device):
            args, device = onto_one_device(op, args)
            break
        device = x.device
    if device is None:
        if "device" not in op.settings:
            raise SettingError(f"{op.name} got 0 inputs; it takes {op.signature}")
        chosen: Device = settings.get("device") or registry.default_device()
        settings["device"] = device = chosen
    count = len(args)
    try:
        if count == 1:
            key: tuple[Any, ...] = (
                (op, device, args[0].spec, *settings.items()) if settings else (op, device, args[0].spec)
            )
        else:
            key = (op, device, *[x.spec for x in args], *settings.items())
        decision = decisions.get(key)
    except TypeError:  # a list where a tuple belongs
        settings = {name: _hashable(op, name, value) for name, value in settings.items()}
        return run(op, args, settings)
    if decision is None:
        decision = _first(op, device, args, settings)
    if decision.kernel is None:
        assert decision.execute is not None
        return decision.execute(op, args)
    given = decision.settings
    if tracing.tracer is not None and (tracer := tracing.active()) is not None:
        return tracer.emit(op, device, args, decision)
    try:
        if count == 1:
            x = args[0]
            buffer = x._buffer if x._generation == x.storage.generation else x.refresh()
            result = decision.kernel(buffer, **given) if given else decision.kernel(buffer)
        else:
            buffers = [x._buffer if x._generation == x.storage.generation else x.refresh() for x in args]
            result = decision.kernel(*buffers, **given)
    except AS_THEY_ARE:
        raise
    except Exception as error:
        raise _kernel_failed(op, device, args, given, error) from error
    if decision.spec is None:
        outs = tuple(Tensor(b, s, device, args[0].origin) for b, s in zip(result, decision.specs, strict=True))
        if decision.records and mode.enabled and any(x.tracked for x in args):
            record(op, args, outs, given)
        if watch is not None:
            watch(op, args, given, outs)
        return outs
    out = Tensor(result, decision.spec, device, args[0].origin if args else Origin(1, user_line()))
    if decision.view:
        link(out, args[0], op, given)
    if decision.records:
        for x in args:
            if x.tracked:
                if mode.enabled:
                    record(op, args, (out,), given)
                break
    if watch is not None:
        watch(op, args, given, (out,))
    return out


def binary(op: Op, a: Tensor, b: Any) -> Any:
    """`run` for two inputs, for Python's operators: the same in fewer steps."""
    device = a.device
    spec = a.spec
    if not isinstance(b, Tensor):
        scalar = b
        b = scalars.get((scalar, scalar.__class__, spec.dtype, device)) if scalar.__class__ in _NUMBERS else None
        if b is None:
            if not isinstance(scalar, (int, float, complex)):
                scalar = as_operand(scalar)
                return scalar if scalar is NotImplemented else run(op, (a, scalar), {})
            b = constant(scalar, Spec((), with_scalar(spec.dtype, scalar)), device)
            if scalar != 0:  # 0.0 and -0.0 are one key and two constants
                scalars[scalar, scalar.__class__, spec.dtype, device] = b
    if device is b.device:
        decision = decisions.get((op, device, spec, b.spec))
        if decision is not None and decision.kernel is not None and tracing.tracer is None:
            try:
                result = decision.kernel(
                    a._buffer if a._generation == a.storage.generation else a.refresh(),
                    b._buffer if b._generation == b.storage.generation else b.refresh(),
                )
            except AS_THEY_ARE:
                raise
            except Exception as error:
                raise _kernel_failed(op, device, (a, b), {}, error) from error
            out = Tensor(result, decision.spec, device, a.origin)  # type: ignore[arg-type]  # a kernel has a spec
            if (a.tracked or b.tracked) and mode.enabled and decision.records:
                record(op, (a, b), (out,), decision.settings)
            if watch is not None:
                watch(op, (a, b), decision.settings, (out,))
            return out
    return run(op, (a, b), {})


def run_into(targets: tuple[Tensor, ...], op: Op, args: tuple[Any, ...], settings: Settings) -> None:
    """Run `op` and let its results replace the contents of `targets`, which keep their shape, dtype and device.

    Where the kernel can, it writes straight into the targets' buffers; a target may be one of the inputs.

    Raises:
        GradientError: a target is a leaf that requires a gradient, and gradients are being recorded.
        ShapeError, DTypeError: a result does not fit its target.
    """
    for target in targets:
        check_target(op.name, target)
    recording = mode.enabled and (
        any(t.tracked for t in targets) or any(isinstance(x, Tensor) and x.tracked for x in args)
    )
    device = targets[0].device
    if (
        not recording
        and watch is None
        and tracing.active() is None
        and all(isinstance(x, Tensor) and x.device is device and x.parent is None for x in (*args, *targets))
    ):
        key = (op, device, *[x.spec for x in args], *settings.items())
        decision = decisions.get(key) or _first(op, device, args, settings)
        if decision.out and decision.specs == tuple(t.spec for t in targets):
            assert decision.kernel is not None
            buffers = [x.buffer for x in args]
            outs = tuple(t.buffer for t in targets)
            out = outs if decision.spec is None else outs[0]
            try:
                decision.kernel(*buffers, **decision.settings, out=out)
            except AS_THEY_ARE:
                raise
            except Exception as error:
                raise _kernel_failed(op, device, args, decision.settings, error) from error
            for target in targets:
                target.storage.version += 1
            return
    results = run(op, saved_contents(op, targets, args, settings) if recording else args, settings)
    outs = results if isinstance(results, tuple) else (results,)
    fitted = [fit(op.name, target, result) for target, result in zip(targets, outs, strict=True)]
    for target, result in zip(targets, fitted, strict=True):
        assign(target, result)


def _kernel_failed(op: Op, device: Device, args: tuple[Tensor, ...], settings: Settings, error: Exception) -> Exception:
    if any(type(x._buffer) is Value for x in args):
        return GraphError(f"{op.name} was given a tensor that has no contents: it was {MADE_IN_A_TRACE}")
    took = ", ".join([repr(x.spec) for x in args] + [f"{k}={v!r}" for k, v in settings.items()])
    if isinstance(error, MemoryError):
        return OutOfMemoryError(
            f"{op.name} found not enough memory on {device}: {error}; it was given {took}; "
            "free tensors, or use smaller batches"
        )
    return DeviceError(f"the kernel for {op.name} failed on {device}: {error!r}; it was given {took}")


def _hashable(op: Op, name: str, value: Any) -> Any:
    if isinstance(value, Number):
        return value.asked()
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(op, name, v) for v in value)
    try:
        hash(value)
    except TypeError:
        raise SettingError(f"{op.name}: setting {name}= must be a plain value, got {type(value).__name__}") from None
    return value


def _first(op: Op, device: Device, args: tuple[Tensor, ...], settings: Settings) -> Decision:
    """The decision for a call that was not met before."""
    if isinstance(device.backend, StaleBackend):
        device.backend.refuse(args)
    return decision_for(op, device, tuple(x.spec for x in args), settings)


@contextmanager
def watching(function: Watch) -> Iterator[None]:
    """Call `function(op, inputs, settings, results)` after every kernel that runs inside the block, in any thread.

    In-place calls are then made of a call and an assignment, so that the inputs are still what they were.
    """
    global watch
    before, watch = watch, function
    try:
        yield
    finally:
        watch = before


op_module.runner = run
methods.binary = binary
