"""Groups of ops as one function: elementwise chains in blocks, and all steps of an optimizer in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hal.plugin import Array, Backend, Group, Node, Op, Spec
from hal_cpu.chains import Chain, Step, rows_and_columns
from hal_cpu.quiet import quiet

WORTH = 1 << 17  # elements of a result from which blocks gain more than cutting costs (measured)
Run = Callable[..., tuple[Array, ...]]


def fused(backend: Backend, group: Group) -> Run | None:
    """A function for the group, or None where its ops do as well one by one."""
    if group.graph.constants:
        return None
    if group.kind == "updates":
        return _updates(backend, group)
    if group.kind == "elementwise" and group.graph.outputs[0].spec.size >= WORTH:
        return _chain(backend, group)
    return None


def _kernel(backend: Backend, node: Node, specs: tuple[Spec, ...]) -> tuple[Callable[..., Any], bool] | None:
    assert isinstance(node.op, Op)
    if not {s.dtype for s in specs} <= backend.dtypes:
        return None
    found = backend.kernels.find(node.op, specs, node.settings)
    return None if found is None else (found.run, found.out)


def _chain(backend: Backend, group: Group) -> Run | None:
    graph = group.graph
    shape = graph.outputs[0].spec.shape
    cut = rows_and_columns([v.spec.shape for v in graph.inputs], shape)
    if cut is None or any(v.spec.dtype.kind == "complex" for v in graph.values()):
        return None
    numbers = {v: i for i, v in enumerate(graph.values())}
    steps = []
    for node in graph.nodes:
        out = node.outputs[0]
        piece = _kernel(backend, node, tuple(cut.block(v.spec) for v in node.inputs))
        whole = _kernel(backend, node, tuple(v.spec for v in node.inputs))
        if piece is None or whole is None or not piece[1]:
            return None
        inputs = tuple(numbers[x] for x in node.inputs)
        steps.append(Step(piece[0], whole[0], inputs, numbers[out], dict(node.settings), out.spec.dtype.numpy))
    return Chain(cut, steps, [v.spec.shape for v in graph.inputs], [numbers[v] for v in graph.outputs])


def _updates(backend: Backend, group: Group) -> Run | None:
    """All steps, one after another: each kernel cuts its own arrays into blocks, and writes over them if it may."""
    graph = group.graph
    numbers = {v: i for i, v in enumerate(graph.inputs)}
    calls = []
    for node in graph.nodes:
        found = _kernel(backend, node, tuple(v.spec for v in node.inputs))
        if found is None or not found[1]:
            return None
        calls.append((found[0], [numbers[x] for x in node.inputs], dict(node.settings), len(node.outputs)))

    def run(*inputs: Array, out: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
        results: list[Array] = []
        for step, given, settings, count in calls:
            targets = None if out is None else out[len(results) : len(results) + count]
            buffers = [inputs[i] for i in given]
            if targets is None or any(t is None for t in targets):
                made = step(*buffers, **settings)
            else:
                made = step(*buffers, **settings, out=targets if count > 1 else targets[0])
            results += made if count > 1 else (made,)
        return tuple(results)

    return quiet(run)
