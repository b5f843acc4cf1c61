"""The calls by which a device's speed is known: ops of each family on a few sizes, derived from the op table or listed.

An op that takes arrays element by element, and no settings, needs no row here; of those, one size is enough. Inputs are
written as their sizes, with a dtype if it is not float32: `64x10 64:int64`, `-` for a single number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hal import dtypes, ops
from hal.device import Device
from hal.dtypes import DType
from hal.graph.graph import Node, Value
from hal.graph.groups import grouped
from hal.graph.rewrites.updates import STEPS
from hal.op import Op
from hal.schedule.speed import ANY
from hal.spec import Spec
from hal.views import VIEWS

SIZE = 1 << 15  # elements of ops that take them one by one
Settings = Mapping[str, Any]

LAST, FIRST, MAPS = {"axis": (-1,)}, {"axis": (0,)}, {"axis": (0, 2, 3)}
NORM = {"dims": 1, "eps": 1e-5}
PADDED = {"padding": (1, 1)}
HALVED = {"kernel": (2, 2), "stride": (2, 2)}
LAPPED = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)}
# fmt: off
ROWS: tuple[tuple[str, Settings, tuple[str, ...]], ...] = (  # op, settings, and the inputs of some calls
    ("add", {}, ("16 16",)),
    ("matmul", {}, ("8x8 8x8", "64x16 16x64", "64x64 64x64", "64x256 256x128", "128x1024 1024x32", "256x256 256x256",
                    "16x32x32 16x32x16")),
    ("linear", {}, ("8x8 8x8 8", "64x64 10x64 10", "8x32x64 64x64 64", "64x256 128x256 128", "64x784 256x784 256")),
    ("conv2d", PADDED, ("1x2x4x4 2x2x3x3", "8x3x32x32 16x3x3x3", "8x16x16x16 16x16x3x3", "8x32x8x8 64x32x3x3")),
    ("conv2d", {}, ("32x1x28x28 6x1x5x5 6", "32x6x14x14 16x6x5x5 16", "8x32x16x16 32x32x1x1")),
    ("conv_transpose2d", PADDED, ("1x2x4x4 2x2x3x3", "8x16x16x16 16x16x3x3", "8x64x8x8 64x32x3x3")),
    ("conv_transpose2d", {}, ("32x16x10x10 16x6x5x5", "8x32x16x16 32x32x1x1")),
    ("conv2d_weight_gradient", {**PADDED, "weight_shape": (2, 2, 3, 3)}, ("1x2x4x4 1x2x4x4",)),
    ("conv2d_weight_gradient", {**PADDED, "weight_shape": (16, 3, 3, 3)}, ("8x3x32x32 8x16x32x32",)),
    ("conv2d_weight_gradient", {**PADDED, "weight_shape": (16, 16, 3, 3)}, ("8x16x16x16 8x16x16x16",)),
    ("conv2d_weight_gradient", {**PADDED, "weight_shape": (64, 32, 3, 3)}, ("8x32x8x8 8x64x8x8",)),
    ("conv2d_weight_gradient", {"weight_shape": (16, 6, 5, 5)}, ("32x6x14x14 32x16x10x10",)),
    ("attention", {}, ("1x1x4x8 " * 3, "4x2x32x16 " * 3, "4x4x64x32 " * 3)),
    ("attention_gradient", {}, ("1x1x4x8 " * 5, "4x2x32x16 " * 5, "4x4x64x32 " * 5)),
    ("sum", LAST, ("4x8", "128x64", "256x512")),
    ("sum", FIRST, ("64x10", "256x64")),
    ("sum", MAPS, ("32x16x10x10",)),
    ("mean", LAST, ("4x8", "128x64", "256x512")),
    ("max", LAST, ("4x8", "128x64", "256x512")),
    ("var", LAST, ("4x8", "128x64", "256x512")),
    ("argmax", {"axis": 1}, ("4x8", "128x64")),
    ("cumsum", {"axis": 1}, ("4x8", "128x64")),
    ("reshape", {"shape": (32, 256)}, ("128x64",)),
    ("permute", {"axes": (1, 0)}, ("128x64",)),
    ("slice", {"start": (0, 0), "stop": (64, 64), "step": (1, 1)}, ("128x64",)),
    ("broadcast_to", {"shape": (32, 64)}, ("64",)),
    ("concat", {"axis": 0}, ("4x8 4x8", "32x64 " * 4, "256x256 256x256")),
    ("stack", {"axis": 0}, ("4x8 4x8", "32x64 " * 16)),
    ("pad", {"padding": ((1, 1), (0, 0))}, ("4x8", "128x64", "256x256")),
    ("slice_update", {"start": (0, 0), "stop": (2, 4), "step": (1, 1)}, ("4x8 2x4", "256x256 2x4")),
    ("embedding", {}, ("10x8 4:int64", "64x64 256:int64", "1000x128 1024:int64")),
    ("take", {"axis": 0}, ("10x8 4:int64", "64x64 256:int64")),
    ("gather", {"axis": 1}, ("10x8 10x4:int64", "256x64 256x8:int64")),
    ("index_add", {"axis": 0}, ("10x8 4:int64 4x8", "64x64 256:int64 256x64", "1000x128 1024:int64 1024x128")),
    ("one_hot", {"classes": 10}, ("4:int64", "1024:int64")),
    ("argsort", {"axis": 1}, ("4x8", "64x64")),
    ("dropout", {"p": 0.5}, ("16 4:uint32", "16384 4:uint32", "131072 4:uint32")),
    ("uniform", {"shape": (16,)}, ("4:uint32",)),
    ("uniform", {"shape": (1 << 16,)}, ("4:uint32",)),
    ("normal", {"shape": (16,)}, ("4:uint32",)),
    ("normal", {"shape": (1 << 16,)}, ("4:uint32",)),
    ("full", {"shape": (16,)}, ("-",)),
    ("full", {"shape": (1 << 16,)}, ("-",)),
    ("where", {}, ("16:bool 16 16", "65536:bool 65536 65536")),
    ("cast", {"dtype": dtypes.float32}, ("16:int64", "65536:int64")),
    ("clip", {"low": 0.0, "high": 0.5}, ("16", "65536")),
    ("gelu_slope", {}, ("4x8", "256x256")),
    ("gelu_with_slope", {}, ("4x8", "128x64", "256x256")),
    ("softmax", {"axis": 1}, ("4x8", "128x64", "256x512")),
    ("softmax_gradient", {"axis": 1}, ("4x8 4x8", "128x64 128x64")),
    ("log_softmax", {"axis": 1}, ("4x8", "128x64", "256x512")),
    ("log_softmax_gradient", {"axis": 1}, ("4x8 4x8", "128x64 128x64")),
    ("cross_entropy", {}, ("4x8 4:int64", "64x10 64:int64", "512x64 512:int64")),
    ("cross_entropy_gradient", {}, ("- 4x8 4:int64", "- 64x10 64:int64", "- 512x64 512:int64")),
    ("mse_loss", {}, ("4x8 4x8", "256x64 256x64")),
    ("layer_norm", NORM, ("4x8 8 8", "256x64 64 64", "256x512 512 512")),
    ("layer_norm_gradient", NORM, ("4x8 4x8 8", "256x64 256x64 64", "256x512 256x512 512")),
    ("batch_norm", {}, ("2x4x4x4 4 4 4 4", "16x16x16x16 16 16 16 16")),
    ("batch_norm_train", {}, ("2x4x4x4 4 4", "16x16x16x16 16 16", "8x16x32x32 16 16")),
    ("batch_norm_train_gradient", {}, ("2x4x4x4 2x4x4x4 4 4 4", "16x16x16x16 16x16x16x16 16 16 16",
                                       "8x16x32x32 8x16x32x32 16 16 16")),
    ("group_norm", {"groups": 4, "eps": 1e-5}, ("2x4x4x4", "16x16x16x16")),
    ("max_pool2d", HALVED, ("1x2x4x4", "16x16x10x10", "32x6x28x28")),
    ("max_pool2d", LAPPED, ("8x16x16x16",)),
    ("max_pool2d_gradient", HALVED, ("1x2x2x2 1x2x4x4", "16x16x5x5 16x16x10x10", "32x6x14x14 32x6x28x28")),
    ("max_pool2d_gradient", LAPPED, ("8x16x8x8 8x16x16x16",)),
    ("avg_pool2d", HALVED, ("1x2x4x4", "16x16x10x10", "32x6x28x28")),
    ("avg_pool2d_gradient", {**HALVED, "sizes": (4, 4)}, ("1x2x2x2",)),
    ("avg_pool2d_gradient", {**HALVED, "sizes": (28, 28)}, ("32x6x14x14",)),
    ("adaptive_avg_pool2d", {"output": (1, 1)}, ("2x4x4x4", "16x64x8x8")),
    ("adaptive_avg_pool2d_gradient", {"sizes": (4, 4)}, ("2x4x1x1",)),
    ("adaptive_avg_pool2d_gradient", {"sizes": (8, 8)}, ("16x64x1x1",)),
    ("adam_step", {}, ("16 16 16 16 - - -", "16384 16384 16384 16384 - - -", "131072 131072 131072 131072 - - -")),
    ("sgd_step", {}, ("16 16 -", "131072 131072 -")),
    ("sgd_momentum_step", {}, ("16 16 16 -", "131072 131072 131072 -")),
    ("lstm_gates", {}, ("4x32 4x8", "64x256 64x64")),
    ("gru_gates", {}, ("4x24 4x24 4x8", "64x192 64x192 64x64")),
    ("lstm_sequence", {}, ("2x4x32 4x8 4x8 32x8", "8x32x256 32x64 32x64 256x64")),
    ("lstm_sequence_gradient", {}, ("2x4x8 2x4x32 2x4x8 4x8 32x8", "8x32x64 8x32x256 8x32x64 32x64 256x64")),
    ("gru_sequence", {}, ("2x4x24 4x8 24x8 24", "8x32x192 32x64 192x64 192")),
)
# fmt: on
CHAINS = (("mul", "add"), ("mul", "add", "tanh", "sub", "mul", "tanh"))  # of two inputs, for groups
CHAINED = (16, 1 << 14, 1 << 18)  # elements of both
UPDATED = 4  # parameters in a group of optimizer steps
GROUP = "{} group"  # what the pace of what runs in a group is called


@dataclass(frozen=True, eq=False)
class Call:
    """Something to time, of which a plan can hold several.

    Attributes:
        tells: the names of the paces that it tells of: its op, its kind, `any`, or its group.
        inputs: their specs.
        node: makes another node, given inputs.
        parts: how many calls that node counts for.
    """

    tells: tuple[str, ...]
    inputs: tuple[Spec, ...]
    node: Callable[[tuple[Value, ...]], Node]
    parts: int = 1

    def on(self, device: Device) -> Node:
        """A node on a device, with inputs of its own."""
        return self.node(tuple(Value(spec, device) for spec in self.inputs))


def calls() -> Iterator[Call]:
    """All that is timed to know how fast a device is: the smallest first."""
    for name, settings, several in ROWS:
        for texts in several:
            inputs = tuple(map(_spec, texts.split()))
            yield _of(ops.TABLE[name], inputs, settings)
            if name in STEPS:
                yield Call((GROUP.format("updates"),), inputs, partial(_steps, ops.TABLE[name], settings), UPDATED)
    for op in ops.TABLE.values():
        if op.kind == "elementwise" and not op.settings:
            sample = next(op.samples(np.random.default_rng(0)))
            if len(sample.inputs) <= 2:
                yield _of(op, tuple(Spec((SIZE,), _dtype(x.dtype)) for x in sample.inputs), {})
    for size in CHAINED:
        for names in CHAINS:
            both = (Spec((size,), dtypes.float32),) * 2
            yield Call((GROUP.format("elementwise"),), both, partial(_chain, names))


def _of(op: Op, inputs: tuple[Spec, ...], settings: Settings) -> Call:
    tells = (op.name,) if op.name in VIEWS else (op.name, op.kind, ANY)
    return Call(tells, inputs, partial(_node, op, settings))


def _node(op: Op, settings: Settings, inputs: tuple[Value, ...]) -> Node:
    device = inputs[0].device
    given = op.bind(len(inputs), settings)
    made = op.infer(*(x.spec for x in inputs), **given)
    outs = tuple(Value(s, device) for s in (made if isinstance(made, tuple) else (made,)))
    return Node(op, inputs, given, outs, None, device)


def _chain(names: tuple[str, ...], inputs: tuple[Value, ...]) -> Node:
    """A group of ops, each on what the one before it gives."""
    x, y = inputs
    members = []
    for name in names:
        op = ops.TABLE[name]
        members.append(_node(op, {}, (x, y)[: len(op.input_names)]))
        (x,) = members[-1].outputs
    return grouped(members, "elementwise", (x,))


def _steps(op: Op, settings: Settings, inputs: tuple[Value, ...]) -> Node:
    """A group of optimizer steps."""
    return grouped([_node(op, settings, inputs) for _ in range(UPDATED)], "updates")


def _dtype(of: Any) -> DType:
    found = dtypes.of(of)
    return dtypes.float32 if found.kind == "float" else found


def _spec(text: str) -> Spec:
    sizes, _, dtype = text.partition(":")
    shape = () if sizes == "-" else tuple(map(int, sizes.split("x")))
    return Spec(shape, dtypes.dtype(dtype or "float32"))
