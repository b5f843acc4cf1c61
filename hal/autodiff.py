"""Reverse-mode differentiation: a walk over what was recorded, from the latest operation to the earliest."""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any

from hal import ops
from hal.errors import GradientError
from hal.recording import Hook, Node, enable_grad, mode, no_grad, set_grad_enabled
from hal.scopes import here
from hal.spec import Spec
from hal.views import is_stretched

if TYPE_CHECKING:
    from hal.tensor import Tensor

Key = tuple[Any, int]


def _propagate(
    roots: Sequence[Tensor], gs: Sequence[Tensor], retain_graph: bool, create_graph: bool, wanted: set[Key] | None,
    *, beyond: bool = True,
) -> dict[Key, Tensor]:  # fmt: skip
    """Gradients at the leaves (or at `wanted`): a walk from the latest recorded operation to the earliest.

    Unless it is to go `beyond`, it ends at `wanted`: what those were computed from gets nothing by way of them.
    """
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
        if isinstance(edge[0], Node) and edge[0] not in queued and (beyond or wanted is None or edge not in wanted):
            queued.add(edge[0])
            heapq.heappush(heap, (-edge[0].order, edge[0]))

    for root, g in zip(roots, gs, strict=True):
        deliver((root.node, root.index) if root.node is not None else (root, 0), g, False)
    while heap:
        _, node = heapq.heappop(heap)
        incoming: list[Tensor | None] = []
        for i in range(len(node.outs) if not node.released else 1):
            total = sums.pop((node, i)) if (node, i) in sums else None
            if total is not None and node.hooks is not None:
                total = _through(node.hooks.get(i, ()), total)
            if total is not None and wanted is not None and (node, i) in wanted:
                kept[(node, i)] = total
            incoming.append(total)
        for tensor in node.retained:
            arrived = incoming[tensor.index]
            if arrived is not None:
                tensor.grad = arrived if tensor.grad is None else tensor.grad + arrived
        outer, mode.gradient_of = mode.gradient_of, node
        place, here.name = here.name, f"{node.scope} (backward)" if node.scope else ""
        try:
            results = node.gradients(incoming, create_graph)
        finally:
            mode.gradient_of, here.name = outer, place
        shared = {id(g.storage) for g in incoming if g is not None}
        shared.update(id(x.storage) for x in node.inputs)
        for edge, result in zip(node.edges, results, strict=True):
            if edge is not None and result is not None:
                own = id(result.storage) not in shared
                shared.add(id(result.storage))
                deliver(edge, result, own)
        if not retain_graph:
            node.release()
    for key, g in sums.items():
        own = key in fresh and not is_stretched(g)
        g = g if own or create_graph else g.clone()
        kept[key] = _through(getattr(key[0], "hooks", ()), g) if beyond else g  # else whoever goes on calls the hooks
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
                f"{who} starts from a tensor that does not require a gradient: none of the tensors it was computed "
                "from does (set requires_grad=True on them before computing), or it was computed under no_grad()"
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
    from hal.placement import constant  # places tensors, whose history this file walks over

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
    given: Any = grad_outputs if isinstance(grad_outputs, (list, tuple, NoneType)) else [grad_outputs]
    if not roots:
        return (None,) * len(xs)
    starts = _check_start(roots, given, "grad()")
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


def grad_within(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], gs: Sequence[Tensor], *, create_graph: bool = False
) -> list[Tensor | None]:
    """The gradients by `inputs` of what was computed from them and `outputs`: no path goes through another input.

    What was recorded is kept. An input that was not used gets None.
    """
    keys = [(x.node, x.index) if x.node is not None else (x, 0) for x in inputs]
    with set_grad_enabled(create_graph):
        found = _propagate(outputs, gs, True, create_graph, set(keys), beyond=False)
    return [found.get(key) for key in keys]


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
            node = Node(_Custom(function.__name__, pull), args, outs, {})
            for i, out in enumerate(outs):
                out.node, out.index, out.tracked = node, i, True
        return outs if isinstance(value, tuple) else outs[0]

    return wrapped
