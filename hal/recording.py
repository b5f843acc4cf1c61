"""Recording: which operations made a tensor, what they saved for their gradients, and the switches that say when."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from hal import ops, tracing
from hal.abstract import StaleBackend
from hal.device import Device
from hal.errors import DeviceError, GradientError
from hal.op import Op
from hal.scopes import here
from hal.source import user_line

if TYPE_CHECKING:
    from hal.tensor import Tensor

Given = ParamSpec("Given")
Result = TypeVar("Result")
Hook = Callable[["Tensor"], "Tensor | None"]
_count = itertools.count()


def next_order() -> int:
    """A number higher than those of all operations recorded so far, and lower than of those to come."""
    return next(_count)


class _Mode(threading.local):
    """What this thread is at.

    Attributes:
        enabled: whether it records operations.
        gradient_of: the recorded operation whose gradient is being computed, if any.
        lines: whether it also notes the user's line of each recorded operation, which takes a microsecond.
    """

    enabled = True
    gradient_of: Node | None = None
    lines = False


mode = _Mode()


class set_grad_enabled:  # used like a function, as in torch
    """Switch recording on or off: at once, for a `with` block, or for a decorated function.

    Source: torch.set_grad_enabled.
    """

    def __init__(self, enabled: bool) -> None:
        self.before = mode.enabled
        self.enabled = enabled
        mode.enabled = enabled

    def __enter__(self) -> None:
        mode.enabled = self.enabled

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mode.enabled = self.before


class _Switch:
    """Recording on or off for a `with` block or a decorated function."""

    enabled: bool

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        self.before: list[bool] = []

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        self.before = []
        return self if function is None else self(function)

    def __call__(self, function: Callable[Given, Result]) -> Callable[Given, Result]:
        @functools.wraps(function)
        def switched(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            with type(self)():
                return function(*args, **kwargs)

        return switched

    def __enter__(self) -> None:
        self.before.append(mode.enabled)
        mode.enabled = self.enabled

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mode.enabled = self.before.pop()


class no_grad(_Switch):
    """Do not record operations: `with no_grad():` or `@no_grad()`. Source: torch.no_grad."""

    enabled = False


class enable_grad(_Switch):
    """Record operations: `with enable_grad():` or `@enable_grad()`. Source: torch.enable_grad."""

    enabled = True


def is_grad_enabled() -> bool:
    """Whether operations are being recorded in this thread."""
    return mode.enabled


class HasGradient(Protocol):
    """What may stand in a recorded operation where an op would."""

    @property
    def name(self) -> str: ...

    @property
    def gradient(self) -> Callable[..., Any]: ...


class Node:
    """One recorded operation: what it was called with, and where its inputs came from.

    Attributes:
        op: the op, or what has a gradient of its own.
        inputs, versions: the input tensors, and how often each one's memory had been changed when they were saved.
        edges: for each input the node that made it, the leaf that it is, or None if it needs no gradient.
        order: later operations have higher numbers.
        line: the user's line, if lines are noted.
        scope: the name of the part of the program that it belongs to.
    """

    __slots__ = (
        "edges",
        "hooks",
        "inputs",
        "line",
        "op",
        "order",
        "outs",
        "released",
        "retained",
        "scope",
        "settings",
        "versions",
    )

    def __init__(
        self, op: Op | HasGradient, inputs: tuple[Tensor, ...], outs: tuple[Tensor, ...], settings: dict[str, Any]
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.settings = settings
        self.versions = [x.storage.version for x in inputs]
        self.edges = [((x.node, x.index) if x.node is not None else (x, 0)) if x.tracked else None for x in inputs]
        self.outs = [(o.storage, o._buffer, o.spec, o.device, o.origin, o.storage.version) for o in outs]
        self.order = next(_count)
        self.released = False
        self.retained: list[Tensor] = []
        self.hooks: dict[int, list[Hook]] | None = None
        self.line = user_line() if mode.lines else None
        if tracing.tracer is not None and (tracer := tracing.active()) is not None:
            tracer.recorded(inputs)
        self.scope = here.name

    def __repr__(self) -> str:
        return f"<recorded {self.op.name}>"

    @property
    def name(self) -> str:
        """Name of the op."""
        return self.op.name

    def gradients(self, gs: list[Tensor | None], create_graph: bool) -> Sequence[Tensor | None]:
        """The gradient of each input that needs one, given those of the results."""
        if self.released:
            raise GradientError(
                f"the graph was freed by an earlier backward() (at {self.op.name}); "
                "call that one with retain_graph=True to go through it again"
            )
        inputs = tuple(self._saved(i) for i in range(len(self.inputs)))
        outs = tuple(self._result(i) for i in range(len(self.outs)))
        gradient = self.op.gradient
        if gradient is None:
            assert isinstance(self.op, Op)
            return self._through_decomposition(self.op, gs, inputs, create_graph)
        if len(outs) == 1:
            entries = gradient(gs[0], outs[0], *inputs, **self.settings)
        else:
            entries = gradient(tuple(gs), outs, *inputs, **self.settings)
        found: list[Tensor | None] = []
        for entry, edge, x in zip(entries, self.edges, self.inputs, strict=True):
            g = None if edge is None else entry() if callable(entry) else entry
            if g is not None and g.device is not x.device:  # the result has a dtype that its input's device lacks
                from hal.transfer import to_device  # built on this file

                g = to_device(g, x.device)
            found.append(g)
        return found

    def release(self) -> None:
        """Let go of everything that was saved."""
        self.inputs, self.outs, self.released = (), [], True

    def _saved(self, i: int) -> Tensor:
        x = self.inputs[i]
        if x.storage.version == self.versions[i]:
            return x
        return self._stale(x.spec, f"input {i}", x)

    def _result(self, i: int) -> Tensor:
        from hal.tensor import Tensor

        storage, buffer, spec, device, origin, version = self.outs[i]
        if storage.version != version:
            return self._stale(spec, "the result", None)
        out = Tensor(buffer, spec, device, origin)
        out.storage, out._generation = storage, storage.generation
        out.node, out.index, out.tracked = self, i, True
        return out

    def _stale(self, spec: Any, what: str, x: Tensor | None) -> Tensor:
        from hal.tensor import CONSTANT, Tensor

        message = (
            f"the gradient of {self.op.name} needs the contents of {what}, shape {spec.shape}, "
            "but they were changed in place after the forward pass; clone() before changing, or do not change in place"
        )
        stale = Tensor(None, spec, Device(StaleBackend(message)), CONSTANT)
        return stale

    def _through_decomposition(
        self, op: Op, gs: list[Tensor | None], inputs: tuple[Tensor, ...], create_graph: bool
    ) -> Sequence[Tensor | None]:
        if op.decompose is None:
            raise GradientError(f"{op.name} has no gradient: {op.no_gradient or 'its record gives none'}")
        with enable_grad():
            if create_graph:  # same values, and a history that leads back to the inputs
                copies = [ops.reshape(x, shape=x.shape) for x in inputs]
            else:
                copies = [x.detach() for x in inputs]
                for copy, edge in zip(copies, self.edges, strict=True):
                    copy.tracked = edge is not None
            result = op.decompose(*copies, **self.settings)
        outs = result if isinstance(result, tuple) else (result,)
        pairs = [(o, g) for o, g in zip(outs, gs, strict=True) if g is not None and o.tracked]
        needed = [c for c, edge in zip(copies, self.edges, strict=True) if edge is not None]
        from hal.autodiff import grad  # walks over nodes, so it is built on this file

        found = iter(
            grad([o for o, _ in pairs], needed, [g for _, g in pairs], create_graph=create_graph, allow_unused=True)
        )
        return [None if edge is None else next(found) for edge in self.edges]


def record(op: Op, args: tuple[Tensor, ...], outs: tuple[Tensor, ...], settings: dict[str, Any]) -> None:
    """Note that `op` made `outs` of `args`, so that gradients find their way back.

    Raises:
        DeviceError: the device can only infer.
    """
    device = outs[0].device
    if not device.backend.training:
        raise DeviceError(
            f"{op.name} on {device} would record a gradient, but {device.type} devices only infer: "
            "use hal.no_grad(), or move the tensors that require gradients to a device that trains"
        )
    for x in args:
        if x.parent is not None:
            x.renew_history()
    node = Node(op, args, outs, settings)
    for index, out in enumerate(outs):
        if out.spec.dtype.is_inexact:
            out.node, out.index, out.tracked = node, index, True
