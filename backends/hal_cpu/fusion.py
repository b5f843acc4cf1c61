"""Groups of ops as one function: elementwise chains in blocks, and all steps of an optimizer in one call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array, Backend, Graph, Group, Node, Op, Spec, Value
from hal_cpu.chains import Chain, Cut, Step, rows_and_columns
from hal_cpu.folds import Fold, Reduction, reduced_cut, summed
from hal_cpu.quiet import quiet

WORTH = 1 << 17  # elements of a result from which blocks gain more than cutting costs (measured)
SMALL = 8192  # elements of a parameter up to which calls take longer than copies (measured)
FOLDS = (ops.sum, ops.max, ops.min, ops.any, ops.all)  # whose results for parts can be taken together by themselves
Run = Callable[..., tuple[Array, ...]]


def fused(backend: Backend, group: Group) -> Run | None:
    """A function for the group, or None where its ops do as well one by one."""
    if group.graph.constants:
        return None
    if group.kind == "updates":
        return _updates(backend, group)
    if group.kind == "elementwise" and group.graph.outputs[0].spec.size >= WORTH:
        return _elementwise(backend, group.graph)
    if group.kind == "reduction" and group.graph.nodes[-1].inputs[0].spec.size >= WORTH:
        return _reduction(backend, group.graph)
    return None  # an epilogue as well: products in blocks that stay in the cache are slower than one product


def _kernel(backend: Backend, node: Node, specs: tuple[Spec, ...]) -> tuple[Callable[..., Any], bool] | None:
    assert isinstance(node.op, Op)
    if not {s.dtype for s in specs} <= backend.dtypes:
        return None
    found = backend.kernels.find(node.op, specs, node.settings)
    return None if found is None else (found.run, found.out)


def _chain(backend: Backend, nodes: Sequence[Node], inputs: Sequence[Value], outputs: Sequence[Value], cut: Cut | None,
           leaving: bool = True) -> Chain | None:  # fmt: skip
    """The nodes as a chain over blocks of `cut`, if they have kernels for such blocks.

    Args:
        leaving: whether the outputs are written as a whole, and not only seen block by block.
    """
    made = [v for node in nodes for v in node.outputs]
    if cut is None or any(v.spec.dtype.kind == "complex" for v in (*inputs, *made)):
        return None
    numbers = {v: i for i, v in enumerate((*inputs, *made))}
    steps = []
    for node in nodes:
        piece = _kernel(backend, node, tuple(cut.block(v.spec) for v in node.inputs))
        whole = _kernel(backend, node, tuple(v.spec for v in node.inputs))
        if piece is None or whole is None or not piece[1]:
            return None
        given, out = tuple(numbers[x] for x in node.inputs), node.outputs[0]
        steps.append(Step(piece[0], whole[0], given, numbers[out], dict(node.settings), out.spec.dtype.numpy))
    results = [numbers[v] for v in outputs]
    return Chain(cut, steps, [v.spec.shape for v in inputs], results, leaving)


def _elementwise(backend: Backend, graph: Graph) -> Run | None:
    shape = graph.outputs[0].spec.shape
    cut = rows_and_columns([v.spec.shape for v in graph.inputs], shape)
    return _chain(backend, graph.nodes, graph.inputs, graph.outputs, cut)


def _reduction(backend: Backend, graph: Graph) -> Run | None:
    """Elementwise nodes and a reduction of the last one's result, if blocks can be reduced for themselves."""
    *nodes, last = graph.nodes
    (given,), (result,) = last.inputs, last.outputs
    partial = ops.sum if last.op is ops.mean else last.op
    axis, shape = last.settings["axis"], given.spec.shape
    if partial not in FOLDS or given.spec.dtype.itemsize == 2 or given is not nodes[-1].outputs[0]:
        return None  # half precision would be rounded for each block
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    reduced = tuple(sorted(a % len(shape) for a in axes))
    cut = reduced_cut([v.spec.shape for v in graph.inputs], shape, reduced)
    chain = _chain(backend, nodes, graph.inputs, [given], cut, leaving=False)
    block = backend.kernels.find(partial, (given.spec,), {"axis": None, "keepdims": False})
    whole = _kernel(backend, last, (given.spec,))
    if chain is None or block is None or whole is None:
        return None
    count = given.spec.size // max(1, result.spec.size) if last.op is ops.mean else 1
    settings = dict(last.settings)
    kernel = whole[0]
    run = summed if partial is ops.sum and given.spec.dtype.is_floating else block.run
    return Fold(chain, Reduction(
        run, lambda x: kernel(x, **settings), reduced, count, result.spec.shape, result.spec.dtype.numpy
    ))  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Update:
    """One step of an optimizer in a group: its kernel, and which of the group's inputs and results are its own."""

    run: Callable[..., Any]
    node: Node
    given: list[int]
    first: int

    @property
    def results(self) -> slice:
        """Which of the group's results it gives."""
        return slice(self.first, self.first + len(self.node.outputs))

    @property
    def bundle(self) -> Hashable:
        """What is equal for steps that can be taken as one; of a large one, which would only be copied, itself."""
        param, rest = self.node.inputs[0].spec, self.node.inputs[1:]
        if param.size > SMALL or any(x.spec.shape not in (param.shape, ()) for x in rest):
            return self
        numbers = [i for i, x in zip(self.given, self.node.inputs, strict=True) if x.spec.ndim == 0]
        dtypes = [x.spec.dtype for x in self.node.inputs]
        return self.run, tuple(numbers), tuple(dtypes), tuple(self.node.settings.items())


def _updates(backend: Backend, group: Group) -> Run | None:
    """All steps, one after another, each in blocks of its own and over the old values if it may; small ones as one."""
    graph = group.graph
    numbers = {v: i for i, v in enumerate(graph.inputs)}
    bundles: dict[Hashable, list[_Update]] = {}
    count = 0
    for node in graph.nodes:
        found = _kernel(backend, node, tuple(v.spec for v in node.inputs))
        if found is None or not found[1]:
            return None
        update = _Update(found[0], node, [numbers[x] for x in node.inputs], count)
        bundles.setdefault(update.bundle, []).append(update)
        count += len(node.outputs)
    steps = [_alone(b[0]) if len(b) == 1 else _together(b) for b in bundles.values()]

    def run(*inputs: Array, out: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
        results: list[Array | None] = [*out] if out is not None else [None] * count
        for step in steps:
            step(inputs, results)
        return tuple(results)  # type: ignore[arg-type]  # each step filled in its own

    return quiet(run)


def _alone(update: _Update) -> Callable[[Sequence[Array], list[Array | None]], None]:
    step, given, settings, mine = update.run, update.given, dict(update.node.settings), update.results
    single = len(update.node.outputs) == 1

    def run(inputs: Sequence[Array], results: list[Array | None]) -> None:
        buffers, targets = [inputs[i] for i in given], results[mine]
        if any(t is None for t in targets):
            made = step(*buffers, **settings)
        else:
            made = step(*buffers, **settings, out=targets[0] if single else tuple(targets))
        results[mine] = (made,) if single else made

    return run


def _together(updates: list[_Update]) -> Callable[[Sequence[Array], list[Array | None]], None]:
    """Small parameters side by side: a dozen calls of NumPy for all of them, and not for each."""
    first = updates[0]
    whole = [n for n, x in enumerate(first.node.inputs) if x.spec.ndim or not first.node.inputs[0].spec.ndim]
    shapes = [u.node.inputs[0].spec.shape for u in updates]
    ends = list(accumulate(map(prod, shapes)))
    places = [(slice(end - prod(shape), end), shape) for end, shape in zip(ends, shapes, strict=True)]
    lines = np.empty((len(whole) + len(first.node.outputs), ends[-1]), first.node.inputs[0].spec.dtype.numpy)
    made: tuple[Array, ...] = tuple(lines[len(whole) :])
    settings = dict(first.node.settings)

    def run(inputs: Sequence[Array], results: list[Array | None]) -> None:
        buffers = [inputs[i] for i in first.given]
        for line, n in zip(lines, whole, strict=False):
            np.concatenate([inputs[u.given[n]].reshape(-1) for u in updates], out=line)
            buffers[n] = line
        first.run(*buffers, **settings, out=made[0] if len(made) == 1 else made)
        for update, (place, shape) in zip(updates, places, strict=True):
            for n, line in enumerate(made, update.first):
                piece, target = line[place].reshape(shape), results[n]
                if target is None:
                    results[n] = piece.copy()
                else:
                    np.copyto(target, piece)

    return run
