"""Reverse-mode differentiation over the gradients of the op table, and the switches that say when to record."""

from __future__ import annotations

import functools
import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from hal import ops
from hal.abstract import StaleBackend
from hal.device import Device
from hal.errors import GradientError
from hal.op import Op
from hal.views import is_stretched

if TYPE_CHECKING:
    from hal.tensor import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])
Hook = Callable[["Tensor"], "Tensor | None"]
_count = itertools.count()


class _Mode(threading.local):
    """Whether this thread records operations."""

    enabled = True


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

    def __call__(self, function: Function) -> Function:
        @functools.wraps(function)
        def switched(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return switched  # type: ignore[return-value]

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


class Node:
    """One recorded operation: what it was called with, and where its inputs came from.

    Attributes:
        op: the op (or anything with a name and a `gradient`).
        inputs, versions: the input tensors, and how often each one's memory had been changed when they were saved.
        edges: for each input the node that made it, the leaf that it is, or None if it needs no gradient.
        order: later operations have higher numbers.
    """

    __slots__ = ("edges", "hooks", "inputs", "op", "order", "outs", "released", "retained", "settings", "versions")

    def __init__(self, op: Op, inputs: tuple[Tensor, ...], outs: tuple[Tensor, ...], settings: dict[str, Any]) -> None:
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
        if self.op.gradient is None:
            return self._through_decomposition(gs, inputs, create_graph)
        if len(outs) == 1:
            entries = self.op.gradient(gs[0], outs[0], *inputs, **self.settings)
        else:
            entries = self.op.gradient(tuple(gs), outs, *inputs, **self.settings)
        found: list[Tensor | None] = []
        for entry, edge in zip(entries, self.edges, strict=True):
            if edge is None:
                found.append(None)
            else:
                found.append(entry() if callable(entry) else entry)
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
        self, gs: list[Tensor | None], inputs: tuple[Tensor, ...], create_graph: bool
    ) -> Sequence[Tensor | None]:
        if self.op.decompose is None:
            raise GradientError(f"{self.op.name} has no gradient: {self.op.no_gradient or 'its record gives none'}")
        with enable_grad():
            if create_graph:  # same values, and a history that leads back to the inputs
                copies = [ops.reshape(x, shape=x.shape) for x in inputs]
            else:
                copies = [x.detach() for x in inputs]
                for copy, edge in zip(copies, self.edges, strict=True):
                    copy.tracked = edge is not None
            result = self.op.decompose(*copies, **self.settings)
        outs = result if isinstance(result, tuple) else (result,)
        pairs = [(o, g) for o, g in zip(outs, gs, strict=True) if g is not None and o.tracked]
        needed = [c for c, edge in zip(copies, self.edges, strict=True) if edge is not None]
        found = iter(
            grad([o for o, _ in pairs], needed, [g for _, g in pairs], create_graph=create_graph, allow_unused=True)
        )
        return [None if edge is None else next(found) for edge in self.edges]


Key = tuple[Any, int]


def _propagate(
    roots: Sequence[Tensor], gs: Sequence[Tensor], retain_graph: bool, create_graph: bool, wanted: set[Key] | None
) -> dict[Key, Tensor]:
    """Gradients at the leaves (or at `wanted`): a walk from the latest recorded operation to the earliest."""
    sums: dict[Key, Tensor] = {}
    kept: dict[Key, Tensor] = {}
    fresh: set[Key] = set()  # sums that nothing else shares, so that they can be given away without a copy
    heap: list[tuple[int, Node]] = []
    queued: set[Node] = set()

    def deliver(edge: tuple[Any, int], g: Tensor, own: bool) -> None:
        key = edge
        before = sums.get(key)
        sums[key] = g if before is None else before + g
        if own or before is not None:
            fresh.add(key)
        else:
            fresh.discard(key)
        if isinstance(edge[0], Node) and edge[0] not in queued:
            queued.add(edge[0])
            heapq.heappush(heap, (-edge[0].order, edge[0]))

    for root, g in zip(roots, gs, strict=True):
        deliver((root.node, root.index) if root.node is not None else (root, 0), g, False)
    while heap:
        _, node = heapq.heappop(heap)
        incoming: list[Tensor | None] = []
        for i in range(len(node.outs) if not node.released else 1):
            g = sums.pop((node, i), None)
            if g is not None and node.hooks is not None:
                g = _through(node.hooks.get(i, ()), g)
            if g is not None and wanted is not None and (node, i) in wanted:
                kept[(node, i)] = g
            incoming.append(g)
        for tensor in node.retained:
            g = incoming[tensor.index]
            if g is not None:
                tensor.grad = g if tensor.grad is None else tensor.grad + g
        results = node.gradients(incoming, create_graph)
        shared = {id(g.storage) for g in incoming if g is not None}
        shared.update(id(x.storage) for x in node.inputs)
        for edge, g in zip(node.edges, results, strict=True):
            if edge is not None and g is not None:
                own = id(g.storage) not in shared
                shared.add(id(g.storage))
                deliver(edge, g, own)
        if not retain_graph:
            node.release()
    for key, g in sums.items():
        own = key in fresh and not is_stretched(g)
        g = g if own or create_graph else g.clone()
        kept[key] = _through(getattr(key[0], "hooks", ()), g)
    return kept


def _through(hooks: Sequence[Hook], g: Tensor) -> Tensor:
    """A gradient as the hooks on its tensor change it, one after another; None leaves it as it is."""
    for hook in tuple(hooks):
        changed = hook(g)
        g = g if changed is None else changed
    return g


def _check_start(roots: Sequence[Tensor], gs: Sequence[Tensor | None] | None, who: str) -> list[Tensor]:
    starts: list[Tensor] = []
    for i, root in enumerate(roots):
        if not root.tracked:
            raise GradientError(
                f"{who} starts from a tensor that does not require a gradient: none of the tensors it was computed from "
                "does (set requires_grad=True on them before computing), or it was computed under no_grad()"
            )
        g = gs[i] if gs is not None else None
        if g is None:
            if root.spec.size != 1:
                raise GradientError(
                    f"{who} without a gradient needs a single number, got shape {root.shape}: sum() it, or pass one"
                )
            g = ops.full(_one(root), shape=root.shape)
        if g.shape != root.shape:
            raise GradientError(f"{who} got a gradient of shape {g.shape} for a tensor of shape {root.shape}")
        starts.append(g)
    return starts


def _one(like: Tensor) -> Tensor:
    from hal.dispatch import constant
    from hal.spec import Spec

    return constant(1.0, Spec((), like.dtype), like.device)


def backward(
    root: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add the gradient of `root` to `.grad` of every leaf that it was computed from.

    Args:
        gradient: what to start from, of the root's shape; may be left out for a single number.
        retain_graph: keep what was saved, so that another backward can go through. Default: `create_graph`.
        create_graph: record the gradients' own operations, for higher derivatives.

    Raises:
        GradientError: nothing requires a gradient, or something saved was changed in place.

    Source: torch.Tensor.backward.
    """
    starts = _check_start([root], None if gradient is None else [gradient], "backward()")
    keep = create_graph if retain_graph is None else retain_graph
    with set_grad_enabled(create_graph):
        found = _propagate([root], starts, keep, create_graph, None)
        for (leaf, _), g in found.items():
            leaf.grad = g if leaf.grad is None else leaf.grad + g


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`, without touching any `.grad`.

    Returns:
        One tensor per input; None for one that was not used, if that is allowed.

    Raises:
        GradientError: an input does not require a gradient, or was not used.

    Source: torch.autograd.grad.
    """
    roots: list[Any] = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    xs: list[Any] = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    given = [grad_outputs] if grad_outputs is not None and not isinstance(grad_outputs, (list, tuple)) else grad_outputs
    if not roots:
        return (None,) * len(xs)
    starts = _check_start(roots, given, "grad()")  # type: ignore[arg-type]
    keys: list[Key] = []
    for i, x in enumerate(xs):
        if not x.tracked:
            raise GradientError(
                f"grad() input {i} does not require a gradient: set requires_grad=True before computing with it"
            )
        keys.append((x.node, x.index) if x.node is not None else (x, 0))
    keep = create_graph if retain_graph is None else retain_graph
    with set_grad_enabled(create_graph):
        found = _propagate(roots, starts, keep, create_graph, set(keys))
    result = tuple(found.get(key) for key in keys)
    if not allow_unused:
        for i, g in enumerate(result):
            if g is None:
                raise GradientError(
                    f"grad() input {i} was not used in computing the outputs; allow_unused=True gives None for it"
                )
    return result


def value_and_grad(function: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., tuple[Any, Any]]:
    """A function that gives `function`'s value (a single number) and its gradient by the chosen arguments.

    Source: jax.value_and_grad.
    """
    which = (argnums,) if isinstance(argnums, int) else argnums

    @functools.wraps(function)
    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        fresh = list(args)
        with enable_grad():
            for i in which:
                fresh[i] = args[i].detach()
                fresh[i].requires_grad = True
            value = function(*fresh, **kwargs)
            gs = grad(value, [fresh[i] for i in which], allow_unused=True)
        gs = tuple(g if g is not None else fresh[i].zeros_like() for i, g in zip(which, gs, strict=True))
        return value.detach(), gs[0] if isinstance(argnums, int) else gs

    return both


class _Custom:
    """Stands in a node where an op would: a gradient that the user wrote."""

    def __init__(self, name: str, pull: Callable[..., Any]) -> None:
        self.name = name
        self.pull = pull

    def gradient(self, g: Any, out: Any, *inputs: Tensor) -> tuple[Any, ...]:
        result = self.pull(*g) if isinstance(g, tuple) else self.pull(g)
        return result if isinstance(result, tuple) else (result,)


def custom_gradient(function: Callable[..., tuple[Any, Callable[..., Any]]]) -> Callable[..., Any]:
    """Decorate a function that gives its value and its own gradient function.

    `function(*tensors)` returns `(y, pull)`; `pull(g)` returns one gradient (or None) for each tensor.
    The operations inside `function` are not recorded.

    >>> import hal
    >>> @hal.custom_gradient
    ... def straight_through(x):
    ...     return x.round(), lambda g: g
    >>> x = hal.tensor([0.4, 0.6], requires_grad=True)
    >>> straight_through(x).sum().backward()
    >>> x.grad.tolist()
    [1.0, 1.0]
    """

    @functools.wraps(function)
    def wrapped(*args: Tensor) -> Any:
        with no_grad():
            value, pull = function(*args)
        outs = value if isinstance(value, tuple) else (value,)
        outs = tuple(o.detach() if any(o is x for x in args) else o for o in outs)
        if mode.enabled and any(x.tracked for x in args):
            node = Node(_Custom(function.__name__, pull), args, outs, {})  # type: ignore[arg-type]
            for i, out in enumerate(outs):
                out.node, out.index, out.tracked = node, i, True
        return outs if isinstance(value, tuple) else outs[0]

    return wrapped
