"""Makes a plan of a placed graph: how each node runs, where its results lie, and the function that replays it all."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any, NoReturn

from hal.decision import decision_for
from hal.device import Device
from hal.errors import DeviceError, HalError, OutOfMemoryError
from hal.graph import memory
from hal.graph.arenas import Arenas
from hal.graph.graph import COPY, Graph, Group, Node, Value
from hal.graph.groups import grouped
from hal.graph.plan import How, Memory, Plan, Step
from hal.op import Op
from hal.recording import no_grad
from hal.source import describe
from hal.tensor import CONSTANT, Tensor
from hal.transfer import move

_numbers = itertools.count()
Buffers = tuple[Any, ...]


def plan_of(graph: Graph, arenas: Arenas | None = None) -> Plan:
    """The plan of a graph whose nodes have their devices, and whose copies are nodes.

    Groups that a backend does not want run as the nodes that they consist of.

    Args:
        arenas: memory that it may share with plans that never run while it does.

    Raises:
        GraphError: the graph is none.
    """
    graph.check()
    steps: list[Step] = []
    nodes: list[Node] = []
    for node in graph.nodes:
        for step in _steps(node):
            steps.append(step)
            nodes.append(step.node)
    whole = graph.with_nodes(nodes)
    return Replay(whole, tuple(steps), arenas).plan


def run_now(nodes: Sequence[Node], known: dict[Value, Any]) -> None:
    """Run nodes, none of which is a group, one after another, and add the buffers of their results to `known`.

    Raises:
        DeviceError: a kernel failed; the message names the op, the device and the user's line.
    """
    for node in nodes:
        (step,) = _steps(node)
        try:
            result = step.call(*[known[x] for x in node.inputs], **step.settings)
        except Exception as error:
            _raise(error, step)
        known.update(zip(node.outputs, (result,) if node.single else result, strict=True))


def _steps(node: Node) -> list[Step]:
    if node.op is COPY:
        return [_copy(node)]
    if isinstance(node.op, Group):
        run = node.device.backend.fuse(node.op, node.device)
        if run is not None:
            return [Step(node, "fused", "", run, {}, True)]
        return [step for part in _pieces(node) for step in _steps(part)]
    specs = tuple([x.spec for x in node.inputs])
    decision = decision_for(node.op, node.device, specs, dict(node.settings))
    if decision.kernel is not None:
        return [Step(node, "native", "", decision.kernel, decision.settings, decision.out)]
    how: How = "fallback" if decision.how == "fallback" else "decomposed"
    return [Step(node, how, decision.reason, _through_dispatch(node), {}, False)]


def _written_last(node: Node, x: Value, out: Value) -> bool:
    """Whether a node, which may be a group, reads `x` for the last time when it makes `out`, or before."""
    if not isinstance(node.op, Group):
        return True
    inner = node.op.graph
    read, made = inner.inputs[node.inputs.index(x)], inner.outputs[node.outputs.index(out)]
    at = next(i for i, n in enumerate(inner.nodes) if made in n.outputs)
    return not any(read in n.inputs for n in inner.nodes[at + 1 :])


def _pieces(node: Node) -> list[Node]:
    """What runs instead of a group that a backend declined: for two kinds, a smaller group and the node that was too
    much; otherwise its nodes."""
    assert isinstance(node.op, Group)
    nodes = unfused(node)
    if node.op.kind == "reduction" and len(nodes) > 2:
        return [grouped(nodes[:-1], "elementwise", nodes[-1].inputs[:1]), nodes[-1]]
    if node.op.kind == "epilogue" and len(nodes) > 2:
        return [nodes[0], grouped(nodes[1:], "elementwise", node.outputs)]
    return nodes


def unfused(node: Node) -> list[Node]:
    """The nodes of a group, on the values of the graph that it stands in."""
    assert isinstance(node.op, Group)
    inner = node.op.graph
    if inner.constants:
        raise HalError(f"{node.op.name} has constants of its own, so only a backend that fuses it can run it")
    outside = dict(zip((*inner.inputs, *inner.outputs), (*node.inputs, *node.outputs), strict=True))
    return [
        Node(
            n.op, tuple(outside.get(x, x) for x in n.inputs), n.settings,
            tuple(outside.get(x, x) for x in n.outputs), n.where, node.device, n.pinned,
        )
        for n in inner.nodes
    ]  # fmt: skip


def _copy(node: Node) -> Step:
    source, target = node.inputs[0].device, node.device
    spec = node.inputs[0].spec

    def copy(buffer: Any) -> Any:
        return buffer if source is target else move(buffer, spec, source, target)

    return Step(node, "copy", "", copy, {}, False)


def _through_dispatch(node: Node) -> Callable[..., Any]:
    """A call of an op that has no kernel there: in simpler ops, or elsewhere, as it would run eagerly."""
    assert isinstance(node.op, Op)
    op, device, settings = node.op, node.device, dict(node.settings)
    specs = tuple([x.spec for x in node.inputs])

    def run(*buffers: Any) -> Any:
        with no_grad():
            result = op(*[Tensor(b, s, device, CONSTANT) for b, s in zip(buffers, specs, strict=True)], **settings)
        return tuple(r.buffer for r in result) if isinstance(result, tuple) else result.buffer

    return run


class Replay:
    """The function that runs the steps of a plan.

    The first call takes them one by one, and asks each backend for memory like that which its kernel brought: how a
    result lies in memory can decide how a later sum is rounded. All other calls run a function that was written for
    this plan: one line for each step, names for the buffers, memory given where a kernel takes it.
    """

    def __init__(self, graph: Graph, steps: tuple[Step, ...], arenas: Arenas | None = None) -> None:
        self.graph = graph
        self.steps = steps
        self.constants = {v: t.buffer for v, t in graph.constants.items()}
        self.buffers: dict[Value, Any] = {}
        self.arenas = arenas or Arenas()
        self.single = [step.node.single for step in steps]
        memories = self._memory()
        self.last = memory.last_uses(graph.nodes)
        self.code: Callable[..., Buffers] | None = None
        self.name = ""
        self.rows: list[int] = []
        self.in_place = self._in_place()
        self.plan = Plan(graph, steps, memories, self.run, frozenset(self.in_place))

    def run(self, *inputs: Any) -> Buffers:
        """The buffers of the graph's results, given those of its inputs.

        Raises:
            DeviceError: a kernel failed; the message names the op, the device and the user's line.
        """
        if self.code is None:
            return self._first(inputs)
        try:
            return self.code(*inputs)
        except Exception as error:
            step = self._failed(error)
            if step is None:
                raise
            _raise(error, step)

    def let_go(self) -> None:
        """Forget its places in the arenas; the next call is like the first, and takes new ones."""
        self.code = None
        self.buffers = {}

    def _failed(self, error: Exception) -> Step | None:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self.name:
                return self.steps[self.rows[trace.tb_lineno - 1]]
            trace = trace.tb_next
        return None

    # Memory.

    def _memory(self) -> dict[Device, Memory]:
        """Decide which results lie in an arena: those of kernels that take memory, unless they leave the plan."""
        root = memory.roots(self.graph.nodes)
        last = memory.last_uses(self.graph.nodes)
        leaving = {root.get(v, v) for v in self.graph.results}
        blocks: dict[Device, list[memory.Block]] = {}
        at: dict[Value, memory.Block] = {}
        for i, step in enumerate(self.steps):
            taken: set[int] = set()
            for out in step.node.outputs:
                if not step.out or out in leaving or out.spec.size == 0:
                    continue
                stop = last.get(out, i)
                block = self._taken_over(step, out, i, at, last, root, taken)
                if block is not None:
                    block.values.append(out)
                    block.stop = stop
                    taken.add(id(block))
                else:
                    block = memory.Block(i, stop, memory.aligned(out.spec.nbytes), [out])
                    blocks.setdefault(step.device, []).append(block)
                at[out] = block
        found = {}
        for device, parts in blocks.items():
            offsets, size = memory.assign(parts)
            if self.arenas.reserve(size, device, self):
                found[device] = Memory(offsets, size, memory.bound(parts))
        self.offsets = {v: offset for m in found.values() for v, offset in m.offsets.items()}
        return found

    def _taken_over(
        self, step: Step, out: Value, i: int, at: Mapping[Value, memory.Block], last: Mapping[Value, int],
        root: Mapping[Value, Value], taken: set[int],
    ) -> memory.Block | None:  # fmt: skip
        """The memory of an input that is not needed after this step, if an elementwise kernel may write over it."""
        if step.node.op.kind != "elementwise":
            return None
        for x in step.node.inputs:
            block = at.get(x)
            if (
                block is not None and x.spec is out.spec and last[x] == i and block.values[-1] is x
                and id(block) not in taken and block.stop == i and _written_last(step.node, x, out)
            ):  # fmt: skip
                return block
        return None

    def _in_place(self) -> dict[Value, Value]:
        """Updates of state that the last step computes straight into its memory: from the input to its new value."""
        if not self.steps:
            return {}
        step = self.steps[-1]
        if step.how != "fused" or not isinstance(step.node.op, Group) or step.node.op.kind != "updates":
            return {}
        if not step.device.backend.views:
            return {}
        root = memory.roots(self.graph.nodes)
        seen_elsewhere = {root[v] for v in (*self.graph.outputs, *step.node.inputs) if v in root}
        made = set(step.node.outputs)
        return {
            old: new
            for old, new in self.graph.updates.items()
            if new in made and old in step.node.inputs and old not in seen_elsewhere
            and old not in self.graph.outputs and new not in self.graph.outputs
            and old.device is step.device
        }  # fmt: skip

    # The first call.

    def _first(self, inputs: Sequence[Any]) -> Buffers:
        known = dict(zip(self.graph.inputs, inputs, strict=True)) | self.constants
        self.buffers = {}
        kept = {*self.graph.inputs, *self.constants, *self.graph.results}
        overwritten = {new: known[old] for old, new in self.in_place.items()}
        for i, step in enumerate(self.steps):
            given = [known[x] for x in step.node.inputs]
            outs = [overwritten.get(o) for o in step.node.outputs]
            settings = {**step.settings, "out": tuple(outs)} if any(o is not None for o in outs) else step.settings
            try:
                result = step.call(*given, **settings)
            except Exception as error:
                _raise(error, step)
            results = (result,) if self.single[i] else result
            for out, buffer in zip(step.node.outputs, results, strict=True):
                known[out] = buffer
                if out in self.offsets:
                    self.buffers[out] = self.arenas.carve(step.device, self.offsets[out], out.spec, buffer)
            for x in (*step.node.inputs, *step.node.outputs):
                if self.last.get(x, i) <= i and x not in kept:
                    known.pop(x, None)
        written = self._written()
        self.code = self._captured(written) or written
        return tuple([known[v] for v in self.graph.results])

    # The others.

    def _captured(self, replay: Callable[..., Buffers]) -> Callable[..., Buffers] | None:
        """What the backend makes of the whole plan, if it is the only one and does."""
        backends = {step.device.backend for step in self.steps}
        return backends.pop().capture(self.plan, replay) if len(backends) == 1 else None

    def _written(self) -> FunctionType:
        """The function for all calls but the first, from its source."""
        names: dict[Value, str] = {}
        scope: dict[str, Any] = {}
        for i, v in enumerate(self.graph.inputs):
            names[v] = f"i{i}"
        for i, (v, buffer) in enumerate(self.constants.items()):
            names[v] = f"c{i}"
            scope[f"c{i}"] = buffer
        lines = [f"def replay({', '.join(names[v] for v in self.graph.inputs)}):"]
        self.rows = [0]
        kept = set(self.graph.results)
        target = {new: names[old] for old, new in self.in_place.items()}
        counter = itertools.count()
        for i, step in enumerate(self.steps):
            scope[f"f{i}"] = step.call
            given = [names[x] for x in step.node.inputs]
            for setting, value in step.settings.items():
                scope[f"s{i}_{setting}"] = value
                given.append(f"{setting}=s{i}_{setting}")
            memories = []
            for out in step.node.outputs:
                names[out] = f"v{next(counter)}"
                if out in target:
                    memories.append(target[out])
                elif out in self.buffers:
                    scope[f"m{names[out]}"] = self.buffers[out]
                    memories.append(f"m{names[out]}")
                else:
                    memories.append("None")
            if step.out and (step.how == "fused" or "None" not in memories):
                given.append(f"out={memories[0]}" if self.single[i] else f"out=({', '.join(memories)},)")
            lines.append(f"    {', '.join(names[o] for o in step.node.outputs)}{'' if self.single[i] else ','} = "
                         f"f{i}({', '.join(given)})")  # fmt: skip
            self.rows.append(i)
            done = {
                names[x] for x in (*step.node.inputs, *step.node.outputs)
                if self.last.get(x, i) <= i and x not in kept and names[x][0] == "v" and x not in self.buffers
            }  # fmt: skip
            if done:
                lines.append(f"    {' = '.join(sorted(done))} = None")
                self.rows.append(i)
        lines.append(f"    return ({''.join(names[v] + ', ' for v in self.graph.results)})")
        self.rows.append(max(0, len(self.steps) - 1))
        compiled = _compiled("\n".join(lines))
        self.name = compiled.co_filename
        exec(compiled, scope)
        code: FunctionType = scope["replay"]
        return code


@functools.lru_cache(maxsize=256)
def _compiled(source: str) -> CodeType:
    """The code of a replay: the same for a graph of other sizes, which is told from this one by its scope only."""
    return compile(source, f"<plan {next(_numbers)}>", "exec")


def _raise(error: Exception, step: Step) -> NoReturn:
    better = explained(error, step)
    if better is error:
        raise error
    raise better from error


def explained(error: Exception, step: Step) -> Exception:
    """The error of a kernel, with the op, the device and the user's line."""
    node = step.node
    where = f"{node.op.name} on {node.device}, called at {describe(node.where)}"
    if isinstance(error, (HalError, IndexError)):
        error.add_note(f"in a compiled function: {where}; no parameter and no state was changed")
        return error
    took = ", ".join(repr(x.spec) for x in node.inputs)
    kind = OutOfMemoryError if isinstance(error, MemoryError) else DeviceError
    return kind(f"{where}, failed: {error!r}; it was given {took}; no parameter and no state was changed")
