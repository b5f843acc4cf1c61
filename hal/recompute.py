"""Recomputation: what a part of a network computed is forgotten, and computed again for its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hal import ops, tracing
from hal.autodiff import grad_within
from hal.errors import GradientError
from hal.graph.structure import mapped
from hal.random import same_numbers
from hal.recording import Node, enable_grad, mode, next_order
from hal.tensor import Tensor


def checkpoint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What `function(*args, **kwargs)` gives, without keeping what its gradient needs: for that, it is called again.

    A network of n equal parts, each called through here, keeps the inputs of the parts and what one part needs, rather
    than what all parts need, for one more forward pass. In a compiled function it is computed again as well.

    The second call draws the same numbers from the default generator as the first. What else the function does happens
    twice: a batch norm in it moves its statistics two times.

    Raises:
        GradientError: when the gradient is computed, if the second call gave another number of results.

    Source: torch.utils.checkpoint.checkpoint; Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
    """
    if not mode.enabled:
        return function(*args, **kwargs)
    stream = same_numbers()
    start = next_order()
    given: list[Tensor] = []
    first, inner = _called(function, args, kwargs, given)
    results = _tensors(first)
    outer = _taken(results, start, inner)
    if not any(x.tracked for x in (*given, *outer)):
        return mapped(first, lambda x: x.detach())
    again = _Again(function, args, kwargs, outer, stream, len(results))
    outs = {id(x): x.detach() for x in results}
    made = [x for x in results if x.tracked]
    node = Node(again, (*given, *outer), tuple(outs[id(x)] for x in made), {})
    for i, x in enumerate(made):
        out = outs[id(x)]
        out.node, out.index, out.tracked = node, i, True
    return mapped(first, lambda x: outs[id(x)])


def _called(
    function: Callable[..., Any], args: Any, kwargs: Any, given: list[Tensor], again: bool = False
) -> tuple[Any, list[Tensor]]:
    """What the function gives for its arguments without their histories, and these.

    When it is called `again` in a trace, what it computes must not be taken for what was computed before; and where
    gradients of gradients are wanted, the arguments do have their histories.
    """
    inner: list[Tensor] = []
    tracer = tracing.active() if again else None
    linked = again and mode.enabled

    def alone(x: Tensor) -> Tensor:
        given.append(x)
        if linked:
            out: Tensor = ops.reshape(x, shape=x.shape)
        else:
            out = x.detach() if tracer is None else tracer.barrier(x)
            out.tracked = x.tracked
        inner.append(out)
        return out

    with enable_grad():
        return function(*mapped(args, alone), **mapped(kwargs, alone)), inner


def _tensors(x: Any) -> list[Tensor]:
    found: list[Tensor] = []
    mapped(x, found.append)
    return found


def _taken(results: list[Tensor], start: int, inner: list[Tensor]) -> list[Tensor]:
    """The tensors besides its arguments that a function took from outside: parameters, and what was computed before."""
    found: dict[tuple[Any, int], Tensor] = {}
    known = {id(x) for x in inner}
    waiting = [x.node for x in results if x.node is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        for edge, x in zip(node.edges, node.inputs, strict=True):
            if edge is None or id(x) in known:
                continue
            if isinstance(edge[0], Node) and edge[0].order > start:
                if edge[0] not in seen:
                    seen.add(edge[0])
                    waiting.append(edge[0])
            else:
                found.setdefault(edge, x)
    return list(found.values())


class _Again:
    """Stands in a recorded operation where an op would: its gradient calls the function again."""

    name = "checkpoint"

    def __init__(
        self, function: Callable[..., Any], args: Any, kwargs: Any, outer: list[Tensor], stream: Any, results: int
    ) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.outer, self.stream, self.results = outer, stream, results

    def gradient(self, g: Any, out: Any, *inputs: Tensor) -> list[Tensor | None]:
        with self.stream:
            result, inner = _called(self.function, self.args, self.kwargs, [], again=True)
        outs = _tensors(result)
        if len(outs) != self.results:
            raise GradientError(
                f"checkpoint: the function gave {self.results} tensors, and {len(outs)} when it was called again for "
                "its gradient: it must do the same both times"
            )
        gs = g if isinstance(g, tuple) else (g,)
        pairs = [(x, d) for x, d in zip([x for x in outs if x.tracked], gs, strict=True) if d is not None]
        wanted = [x for x in (*inner, *self.outer) if x.tracked]
        found = iter(grad_within([x for x, _ in pairs], wanted, [d for _, d in pairs], create_graph=mode.enabled))
        return [next(found) if x.tracked else None for x in (*inner, *self.outer)]
