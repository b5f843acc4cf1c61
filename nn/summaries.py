"""What a model consists of: for each layer its output shape, parameters, operations and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import hal
from hal.dispatch import watching
from hal.op import Op
from hal.tensor import Tensor
from nn.module import Module


@dataclass
class Row:
    """One layer.

    Attributes:
        path: where it is in the model; empty for the model itself.
        kind: its class.
        depth: how many modules it is inside of.
        shape: of its (first) result, the last time that it was called; None if it was not.
        parameters: elements of the parameters that it holds itself; of the whole model for the first row.
        flops: floating-point operations of its own ops, a multiplication and an addition counted as two.
        moved: bytes that its own ops read and write, at least.
        bytes: of its results.
        calls: how often it was called.
    """

    path: str
    kind: str
    depth: int
    shape: tuple[int, ...] | None = None
    parameters: int = 0
    flops: int = 0
    moved: int = 0
    bytes: int = 0
    calls: int = 0


@dataclass
class Summary:
    """What `summary` found. Printed, it is a table.

    Attributes:
        rows: a row for each module, the model itself first, parents before children.
        device: where it ran.
        parameters, trainable: elements of all parameters, each counted once, and of those that require gradients.
        parameter_bytes, buffer_bytes: of parameters and buffers.
        flops, moved: of one forward pass.
        by_op: the flops of each op, by its name.
    """

    rows: list[Row]
    device: str
    parameters: int = 0
    trainable: int = 0
    parameter_bytes: int = 0
    buffer_bytes: int = 0
    flops: int = 0
    moved: int = 0
    by_op: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        head = ["layer", "output", "parameters", "flops", "result"]
        lines = [head]
        for row in self.rows:
            name = "  " * row.depth + (row.path.rpartition(".")[2] or "model") + f": {row.kind}"
            times = f" x {row.calls}" if row.calls > 1 else ""
            shape = "not called" if row.shape is None else str(tuple(row.shape)) + times
            lines.append([name, shape, *(f"{n:,}" if n else "" for n in (row.parameters, row.flops)), _size(row.bytes)])
        wide = [max(len(line[i]) for line in lines) for i in range(len(head))]
        texts = []
        for line in lines:
            cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, wide, strict=True))]
            texts.append("  ".join(cells).rstrip())
        texts.insert(1, "-" * max(map(len, texts)))
        frozen = self.parameters - self.trainable
        return "\n".join([
            *texts,
            "",
            f"{self.parameters:,} parameters ({_size(self.parameter_bytes)}), {frozen:,} of them frozen; "
            f"buffers {_size(self.buffer_bytes) or '0 B'}",
            f"one forward pass on {self.device}: {self.flops:,} flops, {_size(self.moved)} read and written",
        ])  # fmt: skip

    __repr__ = __str__


def summary(
    model: Module, *inputs: Any, input_size: Sequence[int] | None = None, depth: int | None = None,
    device: Any = None,
) -> Summary:  # fmt: skip
    """Call a model once, in evaluation mode and without gradients, and tell what each of its layers did.

    Args:
        inputs: what to call it with.
        input_size: instead of inputs, the shape of one float32 tensor of zeros.
        depth: show modules this deep only; what is below counts for the one that is shown.
        device: where the zeros are; by default where the parameters are.

    Raises:
        ValueError: neither or both of inputs and `input_size`, or a shape among the inputs.

    >>> import nn
    >>> print(nn.summary(nn.Sequential(nn.Linear(8, 4), nn.ReLU()), input_size=(2, 8)))
    layer              output  parameters  flops  result
    ----------------------------------------------------
    model: Sequential  (2, 4)          36    144    32 B
      0: Linear        (2, 4)          36    128    32 B
      1: ReLU          (2, 4)                 16    32 B
    <BLANKLINE>
    36 parameters (144 B), 0 of them frozen; buffers 0 B
    one forward pass on cpu: 144 flops, 304 B read and written
    """
    if bool(inputs) == (input_size is not None):
        raise ValueError("summary needs either inputs to call the model with, or input_size= for a tensor of zeros")
    for x in inputs:
        if isinstance(x, (tuple, list)) and x and all(isinstance(n, int) for n in x):
            raise ValueError(f"summary calls the model with its inputs, got the shape {x}: write input_size={x}")
    if input_size is not None:
        first = next(model.parameters(), None)
        where = device if device is not None else (first.device if first is not None else None)
        inputs = (hal.zeros(tuple(input_size), device=where),)
    rows = {id(module): Row(path, type(module).__name__, path.count(".") + 1 if path else 0)
            for path, module in model.named_modules()}  # fmt: skip
    root = rows[id(model)]
    result = Summary([], "")
    with _tallied(model, rows, result), hal.no_grad():
        training = [module for module in model.modules() if module.training]
        model.eval()
        try:
            out = model(*inputs)
        finally:
            for module in training:
                module.training = True
    result.device = str(next(_tensors(out)).device)
    for path, module in model.named_modules():
        rows[id(module)].parameters = sum(p.numel() for p in module._parameters.values() if p is not None)
        rows[id(module)].path = path
    params, buffers = list(model.parameters()), list(model.buffers())
    result.parameters = sum(p.numel() for p in params)
    result.trainable = sum(p.numel() for p in params if p.requires_grad)
    result.parameter_bytes, result.buffer_bytes = (sum(t.spec.nbytes for t in ts) for ts in (params, buffers))
    shown = [row for row in rows.values() if depth is None or row.depth <= depth]
    for row in rows.values():
        if depth is not None and row.depth > depth:
            prefix = ".".join(row.path.split(".")[:depth])
            above = next(r for r in shown if r.path == prefix)
            for name in ("parameters", "flops", "moved"):
                setattr(above, name, getattr(above, name) + getattr(row, name))
    root.parameters, root.flops, root.moved = result.parameters, result.flops, result.moved
    result.rows = shown
    return result


@contextmanager
def _tallied(model: Module, rows: dict[int, Row], result: Summary) -> Iterator[None]:
    """Let every call of a module and every kernel inside of it be counted in `rows`."""
    inside: list[Row] = []

    def enter(module: Module, args: tuple[Any, ...]) -> None:
        inside.append(rows[id(module)])

    def leave(module: Module, args: tuple[Any, ...], out: Any) -> None:
        row = inside.pop()
        row.calls += 1
        found = list(_tensors(out))
        row.bytes = sum(t.spec.nbytes for t in found)
        row.shape = tuple(found[0].shape) if found else ()

    def count(op: Op, args: tuple[Tensor, ...], settings: dict[str, Any], outs: tuple[Tensor, ...]) -> None:
        specs = tuple(out.spec for out in outs)
        cost = op.cost(*(x.spec for x in args), out=outs[0].spec if len(outs) == 1 else specs, **settings)
        row = inside[-1] if inside else rows[id(model)]
        flops, moved = int(cost.flops), int(cost.bytes)
        row.flops, row.moved = row.flops + flops, row.moved + moved
        result.flops, result.moved = result.flops + flops, result.moved + moved
        result.by_op[op.name] = result.by_op.get(op.name, 0) + flops

    handles = []
    for module in model.modules():
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with watching(count):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def _size(n: int) -> str:
    """Bytes for people."""
    amount, units = float(n), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return "" if not n else f"{n} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"
