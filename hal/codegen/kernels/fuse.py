"""Runs groups of a compiled graph as one kernel each, or two where many work items share a reduction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal.codegen import loops, reductions
from hal.codegen.chain import Chain
from hal.codegen.expressions import NoExpression
from hal.codegen.folds import Fold
from hal.codegen.group import Parts, parts_of, updates_of
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import collapsed, stretched
from hal.codegen.kernels.overlap import overlaps
from hal.codegen.kernels.table import kernels
from hal.plugin import Op, Spec, dtypes

if TYPE_CHECKING:
    from hal.codegen.kernels.runtime import Runtime
    from hal.plugin import Group
    from hal.plugin import Kernels as Table

Outs = Sequence[Buffer | None] | None
Run = Callable[..., tuple[Buffer, ...]]
ALONE = 1 << 14  # elements up to which one work item of a CPU reduces all
BYTES_PER_ARRAY = 16  # of a kernel's arguments: a pointer and an offset


def fuse(runtime: Runtime, group: Group, table: Table = kernels) -> Run | None:
    """A function that runs a group, or None where its nodes should run one by one.

    Args:
        table: the kernels of the device, of which one makes what comes before elementwise nodes.
    """
    try:
        if group.kind == "updates":
            return Updates(runtime, group)
        parts = parts_of(group)
        run: Run
        if parts.fold is not None and parts.after is not None:
            order = tuple(group.graph.inputs)
            run = FusedReduction(runtime, group.name, parts.before, parts.axes, parts.fold, parts.after, order)
        elif parts.first is not None:
            run = Epilogue(runtime, group.name, parts, tuple(group.graph.inputs), table)
        else:
            run = FusedMap(runtime, group.name, parts.before, tuple(group.graph.inputs))
    except NoExpression:
        return None
    return run


class Kernels:
    """Launches what was generated for one group."""

    def __init__(self, runtime: Runtime, label: str) -> None:
        self.runtime = runtime
        self.label = label

    def launch(
        self, source: str, name: str, items: tuple[int, int], arguments: list[Any], writes: Sequence[Buffer]
    ) -> None:
        """Enqueue a kernel of `items` work items in groups of so many; arguments are memories and NumPy values."""
        kernel = self.runtime.programs.kernel(source, name, self.label)
        count, group = items
        self.runtime.launch(self.label, kernel, (count,), (group,), *arguments, writes=[b.memory for b in writes])


class FusedMap:
    """A chain over the shape of its results."""

    def __init__(self, runtime: Runtime, label: str, chain: Chain, order: tuple[Any, ...]) -> None:
        """`order`: the values of the buffers that the call gets."""
        _check_arguments(runtime, chain)
        self.runtime = runtime
        self.chain = chain
        self.label = label
        self.places = [order.index(v) for v in chain.inputs]
        self.specs = [v.spec for v in chain.outputs]
        self.target = runtime.target
        self.kernels = Kernels(runtime, label)
        self._plans: dict[Any, Any] = {}

    def __call__(self, *buffers: Buffer, out: Outs = None) -> tuple[Buffer, ...]:
        results = results_for(self.runtime, self.label, self.specs, out)
        inputs = [buffers[i] for i in self.places]
        self.run(inputs, results)
        return results

    def run(self, inputs: list[Buffer], results: Sequence[Buffer]) -> None:
        """Enqueue the chain on the buffers of its inputs."""
        arrays = (*inputs, *results)
        key = tuple([x.strides for x in arrays])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._plan(arrays)
        source, items, leading = plan
        arguments = list(leading)
        for x in arrays:
            arguments += (x.memory, np.int64(x.offset))
        self.kernels.launch(source, "fused", items, arguments, results)

    def _plan(self, arrays: tuple[Buffer, ...]) -> tuple[str, tuple[int, int], tuple[Any, ...]]:
        shape = self.chain.shape
        sizes, strides = collapsed(shape, [stretched(x.shape, x.strides, shape) for x in arrays])
        steps = tuple(s[-1] if s[-1] in (0, 1) else None for s in strides)
        source = loops.elementwise(self.chain, len(sizes), steps, self.target)
        count = prod(shape)
        items, per = loops.items_of(self.target, count, loops.is_flat(len(sizes), steps))
        leading = (np.array([sizes, *strides], np.int64), np.int64(count), np.int64(per))
        return source, (items, self.target.group), leading


class Epilogue:
    """A contraction by its own kernel, and then a chain on its result, in its memory where that will do."""

    def __init__(self, runtime: Runtime, label: str, parts: Parts, order: tuple[Any, ...], table: Table) -> None:
        node = parts.first
        assert node is not None
        assert isinstance(node.op, Op)
        found = table.find(node.op, tuple(x.spec for x in node.inputs), node.settings)
        if found is None:
            raise NoExpression(f"{node.op.name} has no kernel on these inputs")
        self.first = found
        self.settings = dict(node.settings)
        self.places = [order.index(x) for x in node.inputs]
        self.after = FusedMap(runtime, label, parts.before, (*order, node.outputs[0]))
        self.spec = node.outputs[0].spec

    def __call__(self, *buffers: Buffer, out: Outs = None) -> tuple[Buffer, ...]:
        given = [buffers[i] for i in self.places]
        here = out[0] if out and len(out) == 1 else None
        fits = self.first.out and here is not None and here.dtype is self.spec.dtype and here.shape == self.spec.shape
        if fits and here is not None and here.contiguous and not overlaps(here, buffers):
            made = self.first.run(*given, out=here, **self.settings)
        else:
            made = self.first.run(*given, **self.settings)
        reuse = out
        if out is None and len(self.after.specs) == 1 and self.after.specs[0] is self.spec:
            reuse = (made,)
        return self.after(*buffers, made, out=reuse)


class FusedReduction:
    """A chain, a reduction of it, and a chain on what comes out."""

    def __init__(
        self,
        runtime: Runtime,
        label: str,
        before: Chain,
        axes: tuple[int, ...],
        fold: Fold,
        after: Chain,
        order: tuple[Any, ...],
    ) -> None:
        """`axes` of the first chain's shape are reduced; `order`: the values of the buffers that the call gets."""
        _check_arguments(runtime, before)
        _check_arguments(runtime, after)
        self.runtime = runtime
        self.label = label
        self.target = runtime.target
        self.kernels = Kernels(runtime, label)
        self.before = before
        self.after = after
        self.axes = axes
        self.fold = fold
        self.generated = reductions.Reduction(before, fold, after, self.target)
        self.places = [order.index(v) for v in before.inputs]
        self.later = [order.index(v) for v in after.inputs[len(fold.results) :]]
        self.specs = [v.spec for v in after.outputs]
        self._plans: dict[Any, Any] = {}

    @cached_property
    def merging(self) -> str:
        """The source of the kernel that puts parts together."""
        return self.generated.merge_source()

    def __call__(self, *buffers: Buffer, out: Outs = None) -> tuple[Buffer, ...]:
        if out is not None:  # results must not be written where elements are still to be read
            apart = [None if o is None or overlaps(o, buffers) or not o.contiguous else o for o in out]
            if any(a is not o for a, o in zip(apart, out, strict=True)):
                return _delivered(self(*buffers, out=apart), out)
        results = results_for(self.runtime, self.label, self.specs, out)
        inputs = [buffers[i] for i in self.places]
        later = [_in_rows_of(buffers[i], self.after.shape) for i in self.later]
        key = tuple([x.strides for x in inputs])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._plan(inputs)
        source, items, layout, count, parts, m = plan
        arguments: list[Any] = [layout, np.int64(count), np.int64(parts), np.int64(m)]
        for x in inputs:
            arguments += (x.memory, np.int64(x.offset))
        ends: list[Any] = []
        for x in (*later, *results):
            ends += (x.memory, np.int64(x.offset))
        if parts == 1:
            self.kernels.launch(source, "reduce", items, arguments + ends, results)
            return results
        kinds = [dtypes.dtype(_NAMES[kind]) for kind, _ in self.fold.state]
        states = [self.runtime.empty((parts, count), kind, self.label) for kind in kinds]
        self.kernels.launch(source, "reduce", items, arguments + [s.memory for s in states], states)
        arguments = [np.int64(count), np.int64(parts), np.int64(m), *(s.memory for s in states), *ends]
        shared, _ = self.target.items(count)
        self.kernels.launch(self.merging, "merge", (shared, self.target.group), arguments, results)
        return results

    def _plan(self, inputs: list[Buffer]) -> tuple[Any, ...]:
        shape, axes = self.before.shape, self.axes
        steps = [stretched(x.shape, x.strides, shape) for x in inputs]
        kept = [i for i in range(len(shape)) if i not in axes]
        outer, outer_steps = collapsed(tuple(shape[i] for i in kept), [tuple(s[i] for i in kept) for s in steps])
        inner, inner_steps = collapsed(tuple(shape[i] for i in axes), [tuple(s[i] for i in axes) for s in steps])
        count, m = prod(outer), prod(inner)
        largest = max(range(len(inputs)), key=lambda i: inputs[i].size) if inputs else 0
        along, across = (abs(s[largest][-1]) if inputs else 1 for s in (inner_steps, outer_steps))
        columns = outer[-1] > 1 and across == 1 and along != 1
        units = (
            count if not columns or not self.target.serial else count // outer[-1] * -(-outer[-1] // reductions.WIDTH)
        )
        wanted = (4 if self.target.serial else 8) * self.target.units
        if not self.target.serial and columns:
            wanted *= self.target.group
        work = ALONE if self.target.serial else 1024
        parts = 1
        if units < wanted and count * m > work:
            parts = max(min(-(-wanted // units), m * max(count // units, 1) // work, m), 1)
        innermost = outer_steps if columns else inner_steps
        walked = tuple(s[-1] if s[-1] in (0, 1) else None for s in innermost)
        walk = reductions.Walk(len(outer), len(inner), columns, walked, parts > 1)
        source = self.generated.source(walk)
        layout = np.array([*outer, *inner, *sum(outer_steps, ()), *sum(inner_steps, ())], np.int64)
        return source, self._items(units * parts, count * m, columns), layout, count, parts, m

    def _items(self, units: int, elements: int, columns: bool) -> tuple[int, int]:
        if self.target.serial:
            return max(1, min(units, 4 * self.target.units, elements // ALONE)), 1
        group = self.target.group
        groups = -(-units // group) if columns else units
        return min(groups, 64 * self.target.units) * group, group


class Updates:
    """Optimizer steps that have nothing to do with each other: as many in one kernel as its arguments allow."""

    def __init__(self, runtime: Runtime, group: Group) -> None:
        order = tuple(group.graph.inputs)
        self.runtime = runtime
        self.label = group.name
        self.target = runtime.target
        self.kernels = Kernels(runtime, group.name)
        made = [v for n in group.graph.nodes for v in n.outputs]
        self.outputs = [made.index(v) for v in group.graph.outputs]
        self.specs = [v.spec for v in made]
        self.targets = {made.index(v): i for i, v in enumerate(group.graph.outputs)}
        self.batches: list[tuple[list[Chain], list[FusedMap], list[list[int]], str]] = []
        room = runtime.argument_bytes - 64
        batch: list[Chain] = []
        used = 0
        chains = updates_of(group)
        for chain in chains:
            need = BYTES_PER_ARRAY * (len(chain.inputs) + len(chain.outputs)) + 8
            if batch and used + need > room:
                self._add(batch, order)
                batch, used = [], 0
            batch.append(chain)
            used += need
        self._add(batch, order)

    def _add(self, chains: list[Chain], order: tuple[Any, ...]) -> None:
        maps = [FusedMap(self.runtime, self.label, chain, order) for chain in chains]
        source = loops.independent(chains, self.target)
        self.batches.append((chains, maps, [m.places for m in maps], source))

    def __call__(self, *buffers: Buffer, out: Outs = None) -> tuple[Buffer, ...]:
        given = [None if out is None or k not in self.targets else out[self.targets[k]] for k in range(len(self.specs))]
        results = results_for(self.runtime, self.label, self.specs, given)
        first = 0
        for chains, maps, places, source in self.batches:
            count = sum(len(c.outputs) for c in chains)
            self._run(chains, maps, places, source, buffers, results[first : first + count])
            first += count
        return tuple(results[k] for k in self.outputs)

    def _run(
        self,
        chains: list[Chain],
        maps: list[FusedMap],
        places: list[list[int]],
        source: str,
        buffers: Sequence[Buffer],
        results: tuple[Buffer, ...],
    ) -> None:
        arguments: list[Any] = []
        at, total, even = 0, 0, True
        for chain, own in zip(chains, places, strict=True):
            made = results[at : at + len(chain.outputs)]
            at += len(chain.outputs)
            arrays = (*(buffers[i] for i in own), *made)
            even = even and all(x.contiguous for x in arrays)
            size = loops.prod_of(chain)
            total += size
            arguments.append(np.int64(size))
            for x in arrays:
                arguments += (x.memory, np.int64(x.offset))
        if even:
            items, per = self.target.items(total)
            leading = [np.int64(total), np.int64(per)]
            self.kernels.launch(source, "fused", (items, self.target.group), leading + arguments, results)
            return
        at = 0
        for chain, one in zip(chains, maps, strict=True):
            one(*buffers, out=results[at : at + len(chain.outputs)])
            at += len(chain.outputs)


_NAMES = {
    "i32": "int32", "i64": "int64", "u32": "uint32", "u64": "uint64", "f32": "float32", "f64": "float64",
    "i8": "int8", "u8": "uint8", "i16": "int16", "u16": "uint16",
}  # fmt: skip


def results_for(runtime: Runtime, label: str, specs: Sequence[Spec], out: Outs) -> tuple[Buffer, ...]:
    """The buffers to write into: those given, and new ones."""
    if out is None:
        return tuple([runtime.empty(s.shape, s.dtype, label) for s in specs])
    pairs = zip(specs, out, strict=True)
    return tuple([runtime.empty(s.shape, s.dtype, label) if o is None else o for s, o in pairs])


def _delivered(results: tuple[Buffer, ...], out: Sequence[Buffer | None]) -> tuple[Buffer, ...]:
    """Results, copied into the memory that was given for them."""
    from hal.codegen.kernels.movement import copy_into

    for result, target in zip(results, out, strict=True):
        if target is not None and target is not result:
            copy_into(result, target)
    return tuple([result if o is None else o for result, o in zip(results, out, strict=True)])


def _in_rows_of(x: Buffer, shape: tuple[int, ...]) -> Buffer:
    """`x` broadcast to `shape`, its elements row by row."""
    if x.contiguous and x.size == prod(shape):
        return x
    from hal.codegen.kernels.movement import copied

    return copied(x.view(shape, stretched(x.shape, x.strides, shape)))


def _check_arguments(runtime: Runtime, chain: Chain) -> None:
    """Raise NoExpression where a kernel would have more arguments than the device takes."""
    arrays = len(chain.inputs) + len(chain.outputs)
    rank = max(len(chain.shape), 1)
    if arrays * (BYTES_PER_ARRAY + 8 * rank) + 8 * rank + 64 > runtime.argument_bytes:
        raise NoExpression(f"{arrays} arrays are more than a kernel takes")
