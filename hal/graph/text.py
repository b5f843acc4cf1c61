"""Graphs as text, for people and for tests, and back: a line for each node.

    graph(x: float32[2, 3], w: float32[3])
        c0: float32[] = constant(2.0)
        v0: float32[2, 3] = mul(x, c0)
        v1: float32[2, 3] = add(v0, w)
        update w <- v2
        return v1

What is on another device than the rest has `@ device` behind it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hal import dtypes, ops
from hal.device import Device
from hal.dtypes import DType
from hal.errors import GraphError
from hal.graph.graph import COPY, Graph, Group, Node, Value
from hal.source import describe
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

_SHOWN = 16  # elements of a constant that are written out


def text_of(graph: Graph, lines: bool = False) -> str:
    """The graph as text; `lines` adds the user's line of each node."""
    return "\n".join(_Writer(graph, lines).write())


class _Writer:
    def __init__(self, graph: Graph, lines: bool) -> None:
        self.graph = graph
        self.lines = lines
        self.names: dict[Value, str] = {}
        taken: set[str] = set()
        counts = dict.fromkeys("icv", 0)
        inputs, constants = set(graph.inputs), set(graph.constants)
        for v in graph.values():
            name = v.name if v.name.isidentifier() or re.fullmatch(r"[A-Za-z_][\w.]*", v.name) else ""
            letter = "i" if v in inputs else "c" if v in constants else "v"
            while not name or name in taken:
                name = f"{letter}{counts[letter]}"
                counts[letter] += 1
            taken.add(name)
            self.names[v] = name
        devices = [n.device for n in graph.nodes] or [v.device for v in graph.values()]
        self.common = max(set(devices), key=devices.count) if devices else None

    def write(self) -> Iterator[str]:
        yield f"graph({', '.join(self.declared(v) + self.place(v.device) for v in self.graph.inputs)})"
        for v, tensor in self.graph.constants.items():
            yield f"    {self.declared(v)} = constant({_contents(tensor)}){self.place(v.device)}"
        for node in self.graph.nodes:
            yield f"    {self.node(node)}"
            if isinstance(node.op, Group):
                yield from (f"    |   {line}" for line in _Writer(node.op.graph, self.lines).write())
        for v, new in self.graph.updates.items():
            yield f"    update {self.names[v]} <- {self.names[new]}"
        yield f"    return {', '.join(self.names[v] for v in self.graph.outputs)}".rstrip()

    def declared(self, v: Value) -> str:
        return f"{self.names[v]}: {v.spec.dtype.name}{list(v.spec.shape)}"

    def place(self, device: Device) -> str:
        return "" if device is self.common else f" @ {device}"

    def node(self, node: Node) -> str:
        given = [self.names[x] for x in node.inputs]
        defaults = {} if isinstance(node.op, Group) else node.op.defaults
        given += [f"{k}={_setting(v)}" for k, v in node.settings.items() if not _is_default(defaults, k, v)]
        where = f"  # {describe(node.where)}" if self.lines and node.where is not None else ""
        outs = ", ".join(map(self.declared, node.outputs))
        return f"{outs} = {node.op.name}({', '.join(given)}){self.place(node.device)}{where}"


def _is_default(defaults: dict[str, Any], name: str, value: Any) -> bool:
    return name in defaults and type(defaults[name]) is type(value) and defaults[name] == value


def _setting(value: Any) -> str:
    if isinstance(value, DType):
        return value.name
    if isinstance(value, Device):
        return repr(str(value))
    if isinstance(value, tuple):
        return f"({', '.join(map(_setting, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def _contents(tensor: Tensor) -> str:
    if tensor.spec.size > _SHOWN:
        return "..."
    return _setting(tensor.detach().tolist())


_DECLARED = re.compile(r"(?P<name>[\w.]+)\s*(?::\s*(?P<dtype>\w+)\[(?P<shape>[\d, ]*)\])?\s*(?:@ (?P<device>[\w:]+))?")


def parse(text: str, device: Device | str | None = None) -> Graph:
    """The graph that `text` describes, on `device` (default: the default device) where it names no other.

    Groups cannot be read, nor constants that were not written out.

    Raises:
        GraphError: a line that is no part of a graph, an unknown op or name.
        ShapeError, DTypeError, SettingError: an op does not take what it is given.
    """
    return _Reader(Device(device)).read([line for line in text.splitlines() if line.strip()])


class _Reader:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.values: dict[str, Value] = {}

    def read(self, lines: list[str]) -> Graph:
        head = re.fullmatch(r"\s*graph\((.*)\)\s*", lines[0])
        if head is None:
            raise GraphError(f"the text of a graph begins with graph(...), got {lines[0].strip()!r}")
        inputs = tuple(self.declare(part) for part in _parts(head.group(1)))
        constants: dict[Value, Tensor] = {}
        nodes: list[Node] = []
        updates: dict[Value, Value] = {}
        outputs: tuple[Value, ...] = ()
        for line in lines[1:]:
            line = line.partition("#")[0].strip()
            if line.startswith("return"):
                outputs = tuple(self.value(n.strip()) for n in line[6:].split(",") if n.strip())
            elif line.startswith("update "):
                old, _, new = line[7:].partition("<-")
                updates[self.value(old.strip())] = self.value(new.strip())
            else:
                left, _, right = line.partition(" = ")
                if right.startswith("constant("):
                    value, tensor = self.constant(left, right)
                    constants[value] = tensor
                else:
                    nodes.append(self.node(left, right))
        graph = Graph(inputs, tuple(nodes), outputs, constants, updates)
        graph.check()
        return graph

    def value(self, name: str) -> Value:
        if name not in self.values:
            raise GraphError(f"the text of a graph uses {name!r} before it says what that is")
        return self.values[name]

    def declare(self, text: str, spec: Spec | None = None, device: Device | None = None) -> Value:
        found = _DECLARED.fullmatch(text.strip())
        if found is None:
            raise GraphError(f"cannot read {text.strip()!r}: a value is declared as `name: float32[2, 3]`")
        if found["dtype"] is not None:
            shape = tuple(int(n) for n in found["shape"].split(",") if n.strip())
            stated = Spec(shape, dtypes.dtype(found["dtype"]))
            if spec is not None and stated is not spec:
                raise GraphError(f"the text says {text.strip()!r}, but the op gives {spec!r}")
            spec = stated
        if spec is None:
            raise GraphError(f"{text.strip()!r} needs a dtype and a shape: `name: float32[2, 3]`")
        where = Device(found["device"]) if found["device"] else device or self.device
        self.values[found["name"]] = value = Value(spec, where, found["name"])
        return value

    def constant(self, left: str, right: str) -> tuple[Value, Tensor]:
        from hal.creation import tensor  # makes tensors, which this file only has as contents

        call, device = self.placed(right)
        (given,) = call.args
        value = self.declare(left, device=device)
        made = tensor(_literal(given), dtype=value.spec.dtype, device=value.device)
        if made.spec is not value.spec:
            raise GraphError(f"constant {left.strip()!r} has contents of shape {made.shape}")
        return value, made

    def node(self, left: str, right: str) -> Node:
        call, device = self.placed(right)
        name = ast.unparse(call.func)
        op = COPY if name == COPY.name else ops.TABLE.get(name)
        if op is None:
            raise GraphError(f"there is no op {name!r}")
        inputs = tuple(self.value(ast.unparse(a)) for a in call.args)
        given = {k.arg: _literal(k.value) for k in call.keywords if k.arg is not None}
        if "device" in op.settings:
            given["device"] = Device(given.get("device") or device)
        settings = op.bind(len(inputs), given)
        inferred = op.infer(*(x.spec for x in inputs), **settings)
        specs = inferred if isinstance(inferred, tuple) else (inferred,)
        where = settings["device"] if op is COPY else device
        outputs = tuple(self.declare(t, s, where) for t, s in zip(_parts(left), specs, strict=True))
        return Node(op, inputs, settings, outputs, None, device)

    def placed(self, text: str) -> tuple[ast.Call, Device]:
        body, _, device = text.partition(" @ ")
        try:
            call = ast.parse(body.strip(), mode="eval").body
        except SyntaxError:
            call = None
        if not isinstance(call, ast.Call):
            raise GraphError(
                f"cannot read {text.strip()!r}: a node is written as `v: float32[2] = op(a, b, setting=1)`"
            )
        return call, Device(device.strip()) if device else self.device


def _parts(text: str) -> list[str]:
    """The parts between the commas that stand in no bracket."""
    return [part for part in re.split(r",\s*(?![^\[]*\])", text) if part.strip()]


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        if node.id in ("inf", "nan"):
            return float(node.id)
        return dtypes.dtype(node.id)
    if isinstance(node, ast.Tuple):
        return tuple(_literal(e) for e in node.elts)
    if isinstance(node, ast.List):
        return [_literal(e) for e in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_literal(node.operand)
    return ast.literal_eval(node)
