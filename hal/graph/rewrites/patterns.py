"""Patterns: softmax and normalisations that a user wrote out in simpler ops become the ops that compute them in one go.

Only where nothing else needs what is computed on the way, which a backward pass does: there the ops stay as written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from hal import ops
from hal.decision import decision_for
from hal.graph.graph import Graph, Node, Value
from hal.op import Op

Nodes = tuple[Node, ...]


class _Found(NamedTuple):
    """The op that several nodes amount to, the last of which gives its result."""

    op: Op
    inputs: tuple[Value, ...]
    settings: dict[str, Any]
    nodes: Nodes


class _Reduced(NamedTuple):
    """A reduction of `x` over `axes`, in a shape that broadcasts to that of `x`."""

    x: Value
    axes: tuple[int, ...]
    nodes: Nodes


def patterns(graph: Graph) -> Graph:
    """The graph with softmax, log_softmax, layer_norm and rms_norm for what amounts to them."""
    look = _Look(graph)
    readers = graph.consumers()
    leaving = set(graph.results)
    gone: set[Node] = set()
    instead: dict[Node, Node] = {}
    for node in reversed(graph.nodes):  # the last of a pattern has the most of it
        for found in look.all(node) if node not in gone else ():
            inner = {*found.nodes} - {node}
            alone = all(
                n not in gone and n.device is node.device
                and not leaving.intersection(n.outputs)
                and all(r in inner or r is node for out in n.outputs for r in readers[out])
                for n in inner
            )  # fmt: skip
            settings = found.op.bind(len(found.inputs), found.settings)
            if alone and _is_native(found, settings, node):
                gone |= inner
                instead[node] = Node(
                    found.op, found.inputs, settings, node.outputs, node.where, node.device, node.pinned
                )
                break
    return graph.with_nodes(instead.get(n, n) for n in graph.nodes if n not in gone) if instead else graph


patterns.changes_rounding = True  # type: ignore[attr-defined]  # a mark on a function


def _is_native(found: _Found, settings: dict[str, Any], node: Node) -> bool:
    """Whether the op gives what the nodes give, by a kernel of the device."""
    specs = tuple(x.spec for x in found.inputs)
    out = node.outputs[0].spec
    if any(s.dtype is not out.dtype for s in specs) or found.op.infer(*specs, **settings) is not out:
        return False
    return decision_for(found.op, node.device, specs, settings).kernel is not None


class _Look:
    """Finds patterns among the nodes that make values."""

    def __init__(self, graph: Graph) -> None:
        self.made = graph.producers()
        self.constants = graph.constants

    def all(self, node: Node) -> Iterator[_Found]:
        """What a node could be the last of."""
        if node.single and node.outputs[0].spec.dtype.kind == "float":
            for rule in (self.softmax, self.log_softmax, self.norm):
                found = rule(node)
                if found is not None:
                    yield found

    def by(self, v: Value, *among: Op) -> Node | None:
        """The node that makes a value, if it is one of these ops."""
        node = self.made.get(v)
        return node if node is not None and node.op in among else None

    def pairs(self, node: Node) -> Iterator[tuple[Value, Value]]:
        """The operands of a sum or product in both orders; of anything else as they are."""
        a, b = node.inputs
        yield a, b
        if node.op is ops.add or node.op is ops.mul:
            yield b, a

    def reduced(self, v: Value, op: Op, **wanted: Any) -> _Reduced | None:
        """A reduction by `op`, with kept axes or reshaped as if, and with these settings."""
        last = self.by(v, ops.reshape)
        node = self.by(v if last is None else last.inputs[0], op)
        if node is None or any(node.settings[k] != value for k, value in wanted.items()):
            return None
        (x,), axis = node.inputs, node.settings["axis"]
        axes = range(x.spec.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        found = tuple(sorted(a % x.spec.ndim for a in axes)) if x.spec.ndim else ()
        kept = tuple(1 if i in found else n for i, n in enumerate(x.spec.shape))
        return _Reduced(x, found, (node,) if last is None else (node, last)) if v.spec.shape == kept else None

    def largest(self, v: Value) -> _Reduced | None:
        """The maximum, or what stands where it was found."""
        node = self.by(v, ops.gather)
        if node is None:
            return self.reduced(v, ops.max)
        where = self.reduced(node.inputs[1], ops.argmax)
        same = where is not None and where.x is node.inputs[0] and where.axes == (node.settings["axis"] % v.spec.ndim,)
        return where._replace(nodes=(*where.nodes, node)) if where is not None and same else None

    def shifted(self, v: Value, axes: tuple[int, ...]) -> tuple[Value, Nodes] | None:
        """x, of x - max(x) along one axis."""
        node = self.by(v, ops.sub)
        top = None if node is None else self.largest(node.inputs[1])
        if node is None or top is None or top.x is not node.inputs[0] or top.axes != axes or len(axes) != 1:
            return None
        return top.x, (*top.nodes, node)

    def softmax(self, node: Node) -> _Found | None:
        """exp(x - max(x)) / sum(exp(x - max(x)))."""
        if node.op is not ops.div:
            return None
        total = self.reduced(node.inputs[1], ops.sum)
        power = self.by(node.inputs[0], ops.exp)
        if total is None or power is None or total.x is not node.inputs[0]:
            return None
        inside = self.shifted(power.inputs[0], total.axes)
        if inside is None:
            return None
        nodes = (*inside[1], power, *total.nodes, node)
        return _Found(ops.softmax, (inside[0],), {"axis": total.axes[0]}, nodes)

    def log_softmax(self, node: Node) -> _Found | None:
        """z - log(sum(exp(z))) of z = x - max(x), or x - logsumexp(x)."""
        if node.op is not ops.sub:
            return None
        whole = self.reduced(node.inputs[1], ops.logsumexp)
        if whole is not None and whole.x is node.inputs[0] and len(whole.axes) == 1:
            return _Found(ops.log_softmax, (whole.x,), {"axis": whole.axes[0]}, (*whole.nodes, node))
        log = self.by(node.inputs[1], ops.log)
        total = None if log is None else self.reduced(log.inputs[0], ops.sum)
        power = None if total is None else self.by(total.x, ops.exp)
        if log is None or total is None or power is None or power.inputs[0] is not node.inputs[0]:
            return None
        inside = self.shifted(power.inputs[0], total.axes)
        if inside is None:
            return None
        nodes = (*inside[1], power, *total.nodes, log, node)
        return _Found(ops.log_softmax, (inside[0],), {"axis": total.axes[0]}, nodes)

    def norm(self, node: Node) -> _Found | None:
        """A normalisation over the last axes, times a weight, plus a bias; both, the weight alone, or neither."""
        if node.op is ops.add:
            for product, bias in self.pairs(node):
                inner = self.made.get(product)
                found = None if inner is None else self.norm(inner)
                if found is None or found.op is not ops.layer_norm or len(found.inputs) != 2:
                    continue
                if bias.spec.shape == found.inputs[1].spec.shape:
                    return found._replace(inputs=(*found.inputs, bias), nodes=(*found.nodes, node))
        elif node.op is ops.mul:
            for normal, weight in self.pairs(node):
                inner = self.made.get(normal)
                found = None if inner is None else self.normal(inner)
                if found is not None and self._is_weight(found, weight):
                    return found._replace(inputs=(*found.inputs, weight), nodes=(*found.nodes, node))
        return self.normal(node)

    def _is_weight(self, found: _Found, weight: Value) -> bool:
        shape = found.inputs[0].spec.shape
        return len(found.inputs) == 1 and weight.spec.shape == shape[len(shape) - found.settings["dims"] :]

    def normal(self, node: Node) -> _Found | None:
        """x * rsqrt(mean(x * x) + eps), or x / sqrt(...), where x may be what is left without its mean."""
        if node.op not in (ops.mul, ops.div):
            return None
        for above, below in self.pairs(node):
            root = self.by(below, ops.rsqrt if node.op is ops.mul else ops.sqrt)
            plus = None if root is None else self.by(root.inputs[0], ops.add)
            if root is None or plus is None:
                continue
            for spread, eps in self.pairs(plus):
                constant = self.constants.get(eps)
                if constant is None or eps.spec.size != 1:
                    continue
                scaled = self.by(above, ops.mul)  # a weight may come first
                for x, weight in ((above, None), *(self.pairs(scaled) if scaled is not None else ())):
                    found = self.over(x, spread, float(constant.detach().item()))
                    if found is None or (weight is not None and not self._is_weight(found, weight)):
                        continue
                    extra = () if weight is None or scaled is None else (scaled,)
                    inputs = found.inputs if weight is None else (*found.inputs, weight)
                    nodes = (*found.nodes, *extra, plus, root, node)
                    return found._replace(inputs=inputs, nodes=nodes)
        return None

    def over(self, x: Value, spread: Value, eps: float) -> _Found | None:
        """The norm that divides `x` by the root of `spread`, the mean of its squares."""
        centred = self.by(x, ops.sub)
        mean = None if centred is None else self.reduced(centred.inputs[1], ops.mean)
        if centred is not None and (mean is None or mean.x is not centred.inputs[0]):
            centred = mean = None
        squares = self.reduced(spread, ops.mean)
        square = None if squares is None else self.by(squares.x, ops.mul, ops.square, ops.pow)
        if squares is not None and square is not None and self._squares(square, x):
            axes, nodes = squares.axes, (square, *squares.nodes)
        else:
            variance = self.reduced(spread, ops.var, correction=0)
            if variance is None or mean is None or variance.x is not mean.x:
                return None
            axes, nodes = variance.axes, variance.nodes
        ndim = x.spec.ndim
        if not axes or axes != tuple(range(ndim - len(axes), ndim)):
            return None
        settings = {"dims": len(axes), "eps": eps}
        if centred is None or mean is None or mean.axes != axes:
            return _Found(ops.rms_norm, (x,), settings, nodes) if square is not None else None
        return _Found(ops.layer_norm, (mean.x,), settings, (*mean.nodes, centred, *nodes))

    def _squares(self, node: Node, x: Value) -> bool:
        if node.op is ops.pow:
            power = self.constants.get(node.inputs[1])
            two = power is not None and power.spec.size == 1 and power.detach().item() == 2
            return two and node.inputs[0] is x
        return all(v is x for v in node.inputs)
