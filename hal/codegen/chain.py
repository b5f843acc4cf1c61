"""What a group of nodes computes for one element: lines of C, from the values that it loads to those that it stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hal.codegen.expressions import NoExpression, Writer, literal
from hal.codegen.trace import Symbol, TracedCall, traced
from hal.dtypes import DType
from hal.errors import SettingError, ShapeError
from hal.graph.graph import Node, Value
from hal.op import Op
from hal.spec import Shape, Spec, broadcast_shapes

_AS_THEY_ARE = ("broadcast_to",)  # ops that move elements only in ways that broadcasting does anyway


class Chain:
    """Elementwise nodes over one shape.

    Attributes:
        inputs: values that are loaded, each of which broadcasts to `shape`.
        outputs: values that are stored, all of `shape`.
        shape: what is looped over.

    Raises:
        NoExpression: a node is not elementwise, or the results have several shapes.
    """

    def __init__(
        self,
        nodes: Sequence[Node | TracedCall],
        inputs: Sequence[Value | Symbol],
        outputs: Sequence[Value | Symbol],
        numbers: Mapping[Any, Any] | None = None,
        shape: Shape | None = None,
    ) -> None:
        """`numbers` are values that are the same on every call; `shape` is that of the outputs if it is not given."""
        self.nodes = tuple(nodes)
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.numbers = dict(numbers or {})
        shapes = {v.spec.shape for v in self.outputs}
        if shape is None:
            if len(shapes) != 1:
                raise NoExpression(f"the results have several shapes: {sorted(shapes)}")
            shape = shapes.pop()
        self.shape: Shape = shape
        for v in self.inputs:
            if broadcast_shapes("a fused group", v.spec.shape, shape) != shape:
                raise NoExpression(f"an input of {v.spec.shape} does not broadcast to {shape}")
        self.body([f"x{i}" for i in range(len(self.inputs))])  # so that what cannot be written is known now

    @property
    def given(self) -> tuple[DType, ...]:
        """The dtypes of the inputs."""
        return tuple(v.spec.dtype for v in self.inputs)

    @property
    def made(self) -> tuple[DType, ...]:
        """The dtypes of the outputs."""
        return tuple(v.spec.dtype for v in self.outputs)

    def body(self, names: Sequence[str], prefix: str = "v") -> tuple[list[str], list[str]]:
        """The lines that compute one element, and what the results are called.

        Args:
            names: of the loaded inputs.
            prefix: of the variables that are declared.
        """
        writer = Writer(prefix)
        known: dict[Value | Symbol, str] = dict(zip(self.inputs, names, strict=True))
        known |= {v: literal(number, v.spec.dtype) for v, number in self.numbers.items()}
        for node in self.nodes:
            operands = [known[x] for x in node.inputs]
            if isinstance(node.op, Op) and node.op.name in _AS_THEY_ARE:
                results: tuple[str, ...] = (operands[0],)
            elif isinstance(node.op, Op):
                specs = [Spec((), x.spec.dtype) for x in node.inputs]
                try:
                    results = writer.apply(node.op, specs, operands, node.settings)
                except (ShapeError, SettingError) as error:  # it needs more axes than one element has
                    raise NoExpression(f"{node.op.name} works on more than one element of each input") from error
            else:
                raise NoExpression("a group within a group")
            known |= dict(zip(node.outputs, results, strict=True))
        return writer.lines, [known[v] for v in self.outputs]


def chain_of(function: Callable[..., Any], specs: Sequence[Spec], shape: Shape | None = None) -> Chain:
    """The chain that a function of tensors is, which calls elementwise ops only.

    Raises:
        NoExpression: it calls others.
    """
    found = traced(function, specs)
    symbols = {x for call in found.calls for x in call.inputs} | set(found.outputs)
    numbers = {x: x.value for x in symbols if x.value is not None}
    return Chain(found.calls, found.inputs, found.outputs, numbers, shape)
