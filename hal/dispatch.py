"""The one path by which an op runs: look up the decision for (op, device, specs, settings), act on it, record it.

A decision is made once and kept. The usual one is a kernel; the others cast the inputs to what the op wants,
break the op into simpler ones, or send it to another device. Settings that change on every call would make the
table of decisions grow, so what changes goes in as data.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from hal import config, methods, ops, registry, report
from hal import op as op_module
from hal.abstract import ABSTRACT, Call, StaleBackend, evaluate, recording_calls
from hal.autodiff import Node, mode, no_grad
from hal.device import Device
from hal.dtypes import result_type, with_scalar
from hal.errors import CopyError, DeviceError, DTypeError, FallbackError, HalError, SettingError
from hal.interop import as_operand
from hal.op import Op
from hal.plugin import Kernel
from hal.policy import copies, fallback
from hal.source import describe, user_line
from hal.spec import Spec
from hal.tensor import CONSTANT, Origin, Storage, Tensor
from hal.transfer import move
from hal.views import VIEWS, is_stretched, link

Settings = dict[str, Any]
MAX_DECISIONS = 16384
NATIVE, DECOMPOSED, ELSEWHERE = "native", "decomposed", "fallback"


class Decision:
    """How one op runs on one device for one tuple of specs and settings.

    Attributes:
        kernel: for the usual case, the backend's function; else None, and `execute` does it.
        spec: of the one result; None when there are several.
        specs: of all results.
        settings: all of them, defaults filled in.
        how: `native`, `decomposed` or `fallback`.
        share: which part of the work (by flops) stays on the device.
        records: whether the result may require a gradient.
        view: whether this is a movement op whose result is a view of its input.
        out: whether the kernel can write into given buffers.
        reason: why the op does not run natively.
    """

    __slots__ = ("execute", "how", "kernel", "out", "reason", "records", "settings", "share", "spec", "specs", "view")

    def __init__(
        self, op: Op, specs: tuple[Spec, ...], single: bool, settings: Settings, kernel: Kernel | None
    ) -> None:
        self.kernel: Callable[..., Any] | None = kernel.run if kernel else None
        self.out = kernel is not None and kernel.out
        self.spec = specs[0] if single else None
        self.specs = specs
        self.settings = settings
        self.how = NATIVE
        self.share = 1.0
        self.reason = ""
        self.view = op.name in VIEWS
        differentiable = (op.gradient is not None or op.decompose is not None) and not op.no_gradient
        self.records = differentiable and any(s.dtype.is_inexact for s in specs)
        self.execute: Callable[[Op, tuple[Tensor, ...]], Any] | None = None


_decisions: dict[tuple[Any, ...], Decision] = {}
_constants: dict[tuple[Any, ...], Tensor] = {}
_scalars: dict[tuple[Any, ...], Tensor] = {}  # the same, found by what `binary` has at hand
_NUMBERS = frozenset((int, float, bool, complex))


def forget_decisions() -> None:
    """Forget all cached decisions, because a backend, kernel or op was added."""
    _decisions.clear()
    _constants.clear()
    _scalars.clear()


registry.on_change(forget_decisions)


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
            args, device = _onto_one_device(op, args)
            break
        device = x.device
    if device is None:
        device = settings.get("device") or registry.default_device()
        settings["device"] = device
    count = len(args)
    try:
        if count == 1:
            key: tuple[Any, ...] = (
                (op, device, args[0].spec, *settings.items()) if settings else (op, device, args[0].spec)
            )
        else:
            key = (op, device, *[x.spec for x in args], *settings.items())
        decision = _decisions.get(key)
    except TypeError:  # a list where a tuple belongs
        settings = {name: _hashable(op, name, value) for name, value in settings.items()}
        return run(op, args, settings)
    if decision is None:
        decision = _decide(op, device, args, settings, key)
    if decision.kernel is None:
        assert decision.execute is not None
        return decision.execute(op, args)
    given = decision.settings
    try:
        if count == 1:
            x = args[0]
            buffer = x._buffer if x._generation == x.storage.generation else x.refresh()
            result = decision.kernel(buffer, **given) if given else decision.kernel(buffer)
        else:
            buffers = [x._buffer if x._generation == x.storage.generation else x.refresh() for x in args]
            result = decision.kernel(*buffers, **given)
    except HalError:
        raise
    except Exception as error:
        raise _kernel_failed(op, device, args, given, error) from error
    if decision.spec is None:
        outs = tuple(Tensor(b, s, device, args[0].origin) for b, s in zip(result, decision.specs, strict=True))
        if decision.records and mode.enabled and any(x.tracked for x in args):
            _record(op, args, outs, decision)
        return outs
    out = Tensor(result, decision.spec, device, args[0].origin if args else _origin_here(device))
    if decision.view:
        link(out, args[0], op, given)
    if decision.records:
        for x in args:
            if x.tracked:
                if mode.enabled:
                    _record(op, args, (out,), decision)
                break
    return out


def binary(op: Op, a: Tensor, b: Any) -> Any:
    """`run` for two inputs, for Python's operators: the same in fewer steps."""
    device = a.device
    spec = a.spec
    if not isinstance(b, Tensor):
        scalar = b
        b = _scalars.get((scalar, scalar.__class__, spec.dtype, device)) if scalar.__class__ in _NUMBERS else None
        if b is None:
            if not isinstance(scalar, (int, float, complex)):
                scalar = as_operand(scalar)
                return scalar if scalar is NotImplemented else run(op, (a, scalar), {})
            b = constant(scalar, Spec((), with_scalar(spec.dtype, scalar)), device)
            if scalar != 0:  # 0.0 and -0.0 are one key and two constants
                _scalars[scalar, scalar.__class__, spec.dtype, device] = b
    if device is b.device:
        decision = _decisions.get((op, device, spec, b.spec))
        if decision is not None and decision.kernel is not None:
            try:
                result = decision.kernel(
                    a._buffer if a._generation == a.storage.generation else a.refresh(),
                    b._buffer if b._generation == b.storage.generation else b.refresh(),
                )
            except Exception as error:
                raise _kernel_failed(op, device, (a, b), {}, error) from error
            out = Tensor(result, decision.spec, device, a.origin)  # type: ignore[arg-type]
            if (a.tracked or b.tracked) and mode.enabled and decision.records:
                _record(op, (a, b), (out,), decision)
            return out
    return run(op, (a, b), {})


def _record(op: Op, args: tuple[Tensor, ...], outs: tuple[Tensor, ...], decision: Decision) -> None:
    device = outs[0].device
    if not device.backend.training:
        raise DeviceError(
            f"{op.name} on {device} would record a gradient, but {device.type} devices only infer: "
            "use hal.no_grad(), or move the tensors that require gradients to a device that trains"
        )
    for x in args:
        if x.parent is not None:
            x.renew_history()
    node = Node(op, args, outs, decision.settings)
    for index, out in enumerate(outs):
        if out.spec.dtype.is_inexact:
            out.node, out.index, out.tracked = node, index, True


def run_into(targets: tuple[Tensor, ...], op: Op, args: tuple[Any, ...], settings: Settings) -> None:
    """Run `op` and let its results replace the contents of `targets`, which keep their shape, dtype and device.

    Where the kernel can, it writes straight into the targets' buffers; a target may be one of the inputs.

    Raises:
        GradientError: a target is a leaf that requires a gradient, and gradients are being recorded.
        ShapeError, DTypeError: a result does not fit its target.
    """
    from hal.inplace import assign, check_target, fit, saved_contents

    for target in targets:
        check_target(op.name, target)
    recording = mode.enabled and (
        any(t.tracked for t in targets) or any(isinstance(x, Tensor) and x.tracked for x in args)
    )
    device = targets[0].device
    if not recording and all(
        isinstance(x, Tensor) and x.device is device and x.parent is None for x in (*args, *targets)
    ):
        key = (op, device, *[x.spec for x in args], *settings.items())
        decision = _decisions.get(key) or _decide(op, device, args, settings, key)
        if decision.out and decision.specs == tuple(t.spec for t in targets):
            assert decision.kernel is not None
            buffers = [x.buffer for x in args]
            outs = tuple(t.buffer for t in targets)
            out = outs if decision.spec is None else outs[0]
            try:
                decision.kernel(*buffers, **decision.settings, out=out)
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
    if isinstance(error, (HalError, MemoryError, IndexError)):
        return error
    took = ", ".join([repr(x.spec) for x in args] + [f"{k}={v!r}" for k, v in settings.items()])
    return DeviceError(f"the kernel for {op.name} failed on {device}: {error!r}; it was given {took}")


def _hashable(op: Op, name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_hashable(op, name, v) for v in value)
    try:
        hash(value)
    except TypeError:
        raise SettingError(f"{op.name}: setting {name}= must be a plain value, got {type(value).__name__}") from None
    return value


# Decisions.


def _decide(op: Op, device: Device, args: tuple[Tensor, ...], settings: Settings, key: tuple[Any, ...]) -> Decision:
    if isinstance(device.backend, StaleBackend):
        device.backend.refuse(args)
    specs = tuple(x.spec for x in args)
    decision = _make_decision(op, device, specs, settings)
    if len(_decisions) >= MAX_DECISIONS:
        _decisions.clear()
    _decisions[key] = decision
    return decision


def _make_decision(op: Op, device: Device, specs: tuple[Spec, ...], settings: Settings) -> Decision:
    full = op.bind(len(specs), settings)
    if op.promote is not None:
        wanted = op.promote(*(s.dtype for s in specs))
        if any(w is not s.dtype for w, s in zip(wanted, specs, strict=True)):
            return _casting(op, device, specs, full, wanted)
    inferred = op.infer(*specs, **full)
    outs = inferred if isinstance(inferred, tuple) else (inferred,)
    single = not isinstance(inferred, tuple)
    if device is ABSTRACT:
        decision = Decision(op, outs, single, full, None)
        decision.execute = lambda op, args: evaluate(op, args, outs, single, full)
        return decision
    backend = device.backend
    foreign = [s.dtype.name for s in (*specs, *outs) if s.dtype not in backend.dtypes]
    kernel = None if foreign else backend.kernels.find(op, specs, full)
    decision = Decision(op, outs, single, full, kernel)
    if kernel is not None:
        decision.kernel = backend.prepare(op, kernel, specs, outs, full)
        _log_decision(op, device, specs, decision)
        return decision
    if foreign:
        decision.reason = f"{device.type} has no {foreign[0]}"
    elif op in backend.kernels:
        decision.reason = f"no kernel of {device.type} takes {', '.join(map(repr, specs))} {full or ''}".rstrip()
    else:
        decision.reason = f"{device.type} has no kernel for {op.name}"
    decision.share = 0.0 if op.decompose is None or foreign else _native_share(op, device, specs, full)
    other = None if decision.share == 1.0 else _other_device(op, device, specs, full)
    if decision.share == 1.0 or (decision.share >= 0.5 or other is None) and op.decompose is not None and not foreign:
        decision.how = DECOMPOSED
        decision.execute = _decomposed(decision)
    else:
        decision.how = ELSEWHERE
        decision.execute = _elsewhere(decision, device, other)
    _log_decision(op, device, specs, decision)
    return decision


def _log_decision(op: Op, device: Device, specs: tuple[Spec, ...], decision: Decision) -> None:
    if config.logs("kernels"):
        why = f" ({decision.reason})" if decision.reason else ""
        print(f"hal: {op.name}{specs} on {device}: {decision.how}{why}", file=sys.stderr)


def explain(op: Op, device: Device, specs: tuple[Spec, ...], settings: Settings) -> Decision:
    """The decision for a call, without running it."""
    return _make_decision(op, device, specs, settings)


def _casting(op: Op, device: Device, specs: tuple[Spec, ...], settings: Settings, wanted: tuple[Any, ...]) -> Decision:
    outs = op.infer(*(s.with_dtype(w) for s, w in zip(specs, wanted, strict=True)), **settings)
    single = not isinstance(outs, tuple)
    decision = Decision(op, (outs,) if single else outs, single, settings, None)

    def execute(op: Op, args: tuple[Tensor, ...]) -> Any:
        cast = [x if x.dtype is w else run(ops.cast, (x,), {"dtype": w}) for x, w in zip(args, wanted, strict=True)]
        return run(op, tuple(cast), dict(settings))

    decision.execute = execute
    return decision


def calls_of(op: Op, specs: tuple[Spec, ...], settings: Settings) -> list[Call]:
    """The ops that the decomposition of a call consists of, found without running anything."""
    assert op.decompose is not None
    with recording_calls() as calls, no_grad():
        op.decompose(*(Tensor(None, s, ABSTRACT, CONSTANT) for s in specs), **settings)
    return calls


def _native_share(op: Op, device: Device, specs: tuple[Spec, ...], settings: Settings) -> float:
    """Which part of the decomposition's work has kernels on `device`."""
    total = native = 0.0
    whole = True
    for call in calls_of(op, specs, settings):
        given = {**call.settings, "device": device} if "device" in call.settings else call.settings
        share = explain(call.op, device, call.inputs, given).share
        work = max(1, call.op.cost(*call.inputs, out=call.result, **call.settings).flops)
        total += work
        native += share * work
        whole = whole and share == 1.0
    return 1.0 if whole else min(native / total, 0.999)


def _decomposed(decision: Decision) -> Callable[[Op, tuple[Tensor, ...]], Any]:
    settings = decision.settings

    def execute(op: Op, args: tuple[Tensor, ...]) -> Any:
        assert op.decompose is not None
        own = op.gradient is not None and decision.records and mode.enabled and any(x.tracked for x in args)
        if not own:
            return _with_own_memory(op.decompose(*args, **settings), args)
        with no_grad():
            result = _with_own_memory(op.decompose(*args, **settings), args)
        outs = result if isinstance(result, tuple) else (result,)
        _record(op, args, outs, decision)
        return outs if isinstance(result, tuple) else outs[0]

    return execute


def _with_own_memory(result: Any, args: tuple[Tensor, ...]) -> Any:
    """What a decomposition gave, copied where it is an input or a view of one: only a movement op may share memory.

    A kernel gives a flipped array of its own; so must the slice that flip is made of. Nor may elements share memory.
    """
    if isinstance(result, tuple):
        return tuple(_with_own_memory(r, args) for r in result)
    shared = is_stretched(result) or any(result.storage is x.storage for x in args)
    return run(ops.cast, (result,), {"dtype": result.dtype}) if shared else result


def _other_device(op: Op, device: Device, specs: tuple[Spec, ...], settings: Settings) -> Device | None:
    """A device that can run the call: one in host memory if possible, since copies to it are cheapest."""
    backends = sorted(registry.registry().backends.values(), key=lambda b: (not b.host_memory, -b.priority, b.name))
    for backend in backends:
        if backend is device.backend or backend.priority < 0:  # those below zero are chosen by name only
            continue
        try:
            candidates = backend.devices()
        except Exception:  # unavailable or broken: no candidate
            continue
        dtypes_fit = all(s.dtype in backend.dtypes for s in specs)
        if candidates and dtypes_fit:
            kernel = backend.kernels.find(op, specs, settings)
            if kernel is not None or (
                op.decompose is not None and _native_share(op, candidates[0], specs, settings) == 1.0
            ):
                return candidates[0]
    return None


def _elsewhere(decision: Decision, device: Device, target: Device | None) -> Callable[[Op, tuple[Tensor, ...]], Any]:
    settings = decision.settings

    def execute(op: Op, args: tuple[Tensor, ...]) -> Any:
        policy = fallback.current()
        if target is None:
            raise FallbackError(f"{op.name} cannot run: {decision.reason}, and no other device can take it")
        if policy == "error" or (isinstance(policy, frozenset) and op.name not in policy):
            raise FallbackError(
                f"{op.name} would fall back from {device} to {target}, which the fallback policy forbids: {decision.reason}; "
                f"write a kernel, move the tensors with .to({str(target)!r}), or allow it with hal.fallback('warn')"
            )
        given = {**settings, "device": target} if "device" in settings else dict(settings)
        with no_grad():
            moved = tuple(_moved(x, target) for x in args)
            result = run(op, moved, given)
            results = result if isinstance(result, tuple) else (result,)
            outs = tuple(_moved(r, device) if r.dtype in device.backend.dtypes else r for r in results)
        nbytes = sum(x.spec.nbytes for x in args) + sum(o.spec.nbytes for o in outs if o.device is device)
        report.note_fallback(op.name, device, target, decision.reason, nbytes)
        if decision.view:
            link(outs[0], args[0], op, settings)
        if decision.records and mode.enabled and any(x.tracked for x in args):
            _record(op, args, outs, decision)
        return outs if isinstance(result, tuple) else outs[0]

    return execute


# Getting the inputs onto one device.


def _moved(x: Tensor, target: Device) -> Tensor:
    return Tensor(move(x.buffer, x.spec, x.device, target), x.spec, target, x.origin)


def _origin_here(device: Device) -> Origin:
    return Origin(1, user_line(3))


def constant(value: bool | int | float | complex, spec: Spec, device: Device) -> Tensor:
    """A 0-d tensor with the value of a Python scalar. Kept, since the same few are asked for all the time."""
    key = (value, math.copysign(1, value) if isinstance(value, float) else 0, type(value), spec, device)
    found = _constants.get(key)
    if found is None:
        if isinstance(device.backend, StaleBackend):
            device.backend.refuse(())
        if device is ABSTRACT:
            buffer = None
        else:
            from hal.creation import scalar_array
            from hal.transfer import upload

            buffer = upload(scalar_array(value, spec), spec, device)
        found = Tensor(buffer, spec, device, CONSTANT)
        if len(_constants) >= 4096:
            _constants.clear()
            _scalars.clear()
        _constants[key] = found
    return found


def _onto_one_device(op: Op, args: tuple[Any, ...]) -> tuple[tuple[Tensor, ...], Device]:
    """The inputs as tensors on the device that pulls most; what is elsewhere is copied there, and counted."""
    given, args = args, tuple(x if isinstance(x, (Tensor, int, float, complex)) else as_operand(x) for x in args)
    tensors = [x for x in args if isinstance(x, Tensor)]
    for x, was in zip(args, given, strict=True):
        if not isinstance(x, (Tensor, int, float, complex)):
            raise DTypeError(
                f"{op.name} takes tensors and Python numbers by position, got {type(was).__name__}: "
                "make a tensor of it with hal.tensor(...)"
            )
    if not tensors:
        raise DTypeError(f"{op.name} needs at least one tensor to know its device, got only Python numbers")
    for x in tensors:
        if isinstance(x.device.backend, StaleBackend):
            x.device.backend.refuse(tuple(tensors))
    # 0-d tensors never pull while there is anything else; ties go to the first
    puller = max(tensors, key=lambda x: (x.ndim > 0 or len(tensors) == 1, x.origin.strength))
    device = puller.device
    odd = [x for x in tensors if x.device is not device]
    if any(x.origin is not CONSTANT for x in odd) and copies.current() == "error":
        raise CopyError(_mismatch(op, args, device))
    dtype = result_type(*(x.dtype for x in tensors))
    ready = []
    for x in args:
        if not isinstance(x, Tensor):
            x = constant(x, Spec((), with_scalar(dtype, x)), device)
        elif x.device is not device:
            if x.origin is not CONSTANT:
                report.note_copy(op.name, x.device, device, "inputs on different devices", x.spec.nbytes)
            x = to_device(x, device)
        ready.append(x)
    return tuple(ready), device


def _mismatch(op: Op, args: tuple[Any, ...], device: Device) -> str:
    lines = [f"{op.name} needs its inputs on one device, and HAL_COPIES=error forbids copies:"]
    for i, (x, name) in enumerate(zip(args, _names(op, len(args)), strict=True)):
        if isinstance(x, Tensor):
            lines.append(f"  {name} (input {i}) is on {x.device}, put there at {describe(x.origin.line)}")
    lines.append(f"move the odd one with .to({str(device)!r}), or allow copies with hal.copies('allow')")
    return "\n".join(lines)


def _names(op: Op, count: int) -> list[str]:
    names = [n.strip("?*") for n in op.input_names]
    return [names[min(i, len(names) - 1)] for i in range(count)]


class _Copy:
    """The gradient of a copy between devices: a copy back."""

    name = "to_device"

    @staticmethod
    def gradient(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
        return (to_device(g, x.device),)


def to_device(x: Tensor, device: Device) -> Tensor:
    """`x` on `device`: itself if it is there, else a copy through which gradients flow back."""
    if x.device is device:
        return x
    if isinstance(x.device.backend, StaleBackend):
        x.device.backend.refuse((x,))
    out = Tensor(move(x.buffer, x.spec, x.device, device), x.spec, device, Origin(2, user_line()))
    if x.tracked and mode.enabled:
        if x.parent is not None:
            x.renew_history()
        out.node, out.tracked = Node(_Copy, (x,), (out,), {}), True  # type: ignore[arg-type]
    return out


op_module.runner = run
methods.binary = binary
__all__ = [
    "Decision",
    "Storage",
    "binary",
    "calls_of",
    "constant",
    "explain",
    "forget_decisions",
    "run",
    "run_into",
    "to_device",
]
