"""Decides how an op runs on a device: by a kernel, on cast inputs, in simpler ops, or on another device.

A decision is made once for each (op, device, specs, settings) and kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from hal import config, ops, registry, report
from hal.abstract import ABSTRACT, Call, evaluate, recording_calls
from hal.device import Device
from hal.errors import FallbackError
from hal.op import Op
from hal.plugin import Kernel
from hal.policy import fallback
from hal.recording import mode, no_grad, record
from hal.spec import Spec
from hal.tensor import CONSTANT, Tensor
from hal.transfer import moved
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
        alone: whether the kernel is for single calls; see `hal.plugin.Kernel`.
        reason: why the op does not run natively.
    """

    __slots__ = (
        "alone", "execute", "how", "kernel", "out", "reason", "records", "settings", "share", "spec", "specs", "view",
    )  # fmt: skip

    def __init__(
        self, op: Op, specs: tuple[Spec, ...], single: bool, settings: Settings, kernel: Kernel | None
    ) -> None:
        self.kernel: Callable[..., Any] | None = kernel.run if kernel else None
        self.out = kernel is not None and kernel.out
        self.alone = kernel is not None and kernel.alone
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


decisions: dict[tuple[Any, ...], Decision] = {}
instrument: Callable[[Op, Device, tuple[Spec, ...], Decision], None] | None = None  # a profile: it wraps what is called
begin_trace: Callable[[], None] | None = None  # begins the profile that HAL_TRACE asks for


def key_of(op: Op, device: Device, specs: tuple[Spec, ...], settings: Settings) -> tuple[Any, ...]:
    """What a decision is kept under."""
    return (op, device, *specs, *settings.items())


def decision_for(op: Op, device: Device, specs: tuple[Spec, ...], settings: Settings) -> Decision:
    """How a call would run, without running it.

    Raises:
        ShapeError, DTypeError, SettingError: the inputs do not fit the op.
    """
    key = key_of(op, device, specs, settings)
    decision = decisions.get(key)
    if decision is None:
        decision = _decide(op, device, specs, settings)
        if instrument is None and begin_trace is not None and config.get("HAL_TRACE"):
            begin_trace()
        if instrument is not None:
            instrument(op, device, specs, decision)
        if len(decisions) >= MAX_DECISIONS:
            decisions.clear()
        decisions[key] = decision
    return decision


registry.on_change(decisions.clear)  # a backend, kernel or op was added


def _decide(op: Op, device: Device, specs: tuple[Spec, ...], settings: Settings) -> Decision:
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
    can_decompose = op.decompose is not None and not foreign
    if decision.share == 1.0 or (can_decompose and (decision.share >= 0.5 or other is None)):
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


def _casting(op: Op, device: Device, specs: tuple[Spec, ...], settings: Settings, wanted: tuple[Any, ...]) -> Decision:
    outs = op.infer(*(s.with_dtype(w) for s, w in zip(specs, wanted, strict=True)), **settings)
    several = isinstance(outs, tuple)
    decision = Decision(op, outs if isinstance(outs, tuple) else (outs,), not several, settings, None)

    def execute(op: Op, args: tuple[Tensor, ...]) -> Any:
        cast = [x if x.dtype is w else ops.cast(x, dtype=w) for x, w in zip(args, wanted, strict=True)]
        return op(*cast, **settings)

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
        share = decision_for(call.op, device, call.inputs, given).share
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
        record(op, args, outs, settings)
        return outs if isinstance(result, tuple) else outs[0]

    return execute


def _with_own_memory(result: Any, args: tuple[Tensor, ...]) -> Any:
    """What a decomposition gave, copied where it is an input or a view of one: only a movement op may share memory.

    A kernel gives a flipped array of its own; so must the slice that flip is made of. Nor may elements share memory.
    """
    if isinstance(result, tuple):
        return tuple(_with_own_memory(r, args) for r in result)
    shared = is_stretched(result) or any(result.storage is x.storage for x in args)
    return ops.cast(result, dtype=result.dtype) if shared else result


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
                f"{op.name} would fall back from {device} to {target}, which the fallback policy forbids: "
                f"{decision.reason}; "
                f"write a kernel, move the tensors with .to({str(target)!r}), or allow it with hal.fallback('warn')"
            )
        given = {**settings, "device": target} if "device" in settings else dict(settings)
        with no_grad():
            brought = tuple(moved(x, target) for x in args)
            result = op(*brought, **given)
            results = result if isinstance(result, tuple) else (result,)
            outs = tuple(moved(r, device) if r.dtype in device.backend.dtypes else r for r in results)
        nbytes = sum(x.spec.nbytes for x in args) + sum(o.spec.nbytes for o in outs if o.device is device)
        report.note_fallback(op.name, device, target, decision.reason, nbytes)
        if decision.view:
            link(outs[0], args[0], op, settings)
        if decision.records and mode.enabled and any(x.tracked for x in args):
            record(op, args, outs, settings)
        return outs if isinstance(result, tuple) else outs[0]

    return execute
