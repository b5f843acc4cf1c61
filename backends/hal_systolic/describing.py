"""What a call asks of the machine, from its specs: the shapes of products, elements and operations of all else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from hal.plugin import DType, Op, Spec
from hal_systolic.config import Machine
from hal_systolic.numerics import limbs
from hal_systolic.work import Matmul, Operand, Vector


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product that a call consists of, all but its operands: see `work.Matmul`.

    Attributes:
        a, b: which of the call's inputs they are.
        gathered: additions that the vector unit makes afterwards, to put overlapping parts of the result together.
    """

    m: int
    k: int
    n: int
    dtype: str
    count: int = 1
    passes: int = 1
    epilogue: int = 0
    a: int = 0
    b: int = 1
    gathered: int = 0
    halo: int = 0


@dataclass(frozen=True, slots=True)
class Steps:
    """Work of the vector unit, all but its operands: see `work.Vector`."""

    op: str
    elements: int
    ops: float


def array_format(machine: Machine, dtype: DType) -> str:
    """The format in which the array multiplies elements of `dtype`; empty if it cannot."""
    if dtype.kind in ("int", "uint", "bool"):
        return "int8" if "int8" in machine.rates else "bfloat16"  # which holds 8-bit integers exactly
    return "bfloat16" if "bfloat16" in machine.rates else ""


def describe(
    machine: Machine, passes: int, op: Op, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
) -> Product | Steps | None:
    """What one call of `op` asks; None for movement that only computes addresses, and where there are no elements."""
    if not any(o.size for o in outs):
        return None
    if op.kind == "contraction":
        return _product(machine, passes, op.name, specs, outs[0], settings)
    if op.name in ("reshape", "permute", "broadcast_to", "slice"):
        return None
    read = op.kind == "reduction" or op.name.endswith("_loss") or op.name in ("cross_entropy", "kl_div")
    elements = specs[0].size if read and specs else sum(o.size for o in outs[:1])
    if not elements:
        return None
    cost = op.cost(*specs, out=outs[0] if len(outs) == 1 else outs, **settings)
    return Steps(op.name, elements, max(1.0, cost.flops / elements))


def estimate(asked: Product | Steps, specs: tuple[Spec, ...], outs: tuple[Spec, ...], machine: Machine) -> float | None:
    """Seconds that the cost model gives what a call asks; None if it does not fit the machine."""
    from hal_systolic.cost import cost

    inputs = tuple(Operand(i, s.nbytes) for i, s in enumerate(specs))
    results = tuple(Operand(-1 - i, s.nbytes) for i, s in enumerate(outs))
    if isinstance(asked, Steps):
        return cost(Vector(asked.op, asked.elements, asked.ops, inputs, results), machine).latency_s
    product = Matmul(
        asked.m, asked.k, asked.n, inputs[asked.a], inputs[asked.b], results[0], dtype=asked.dtype, count=asked.count,
        passes=asked.passes, halo=asked.halo, epilogue=asked.epilogue,
    )  # fmt: skip
    found = cost(product, machine)
    return found.latency_s if found.fits else None


def _product(
    machine: Machine, passes: int, name: str, specs: tuple[Spec, ...], out: Spec, settings: Mapping[str, Any]
) -> Product | None:
    first, second = specs[0], specs[1]
    dtype = array_format(machine, first.dtype)
    name = name.removeprefix("integer_")
    mixed = f"{second.dtype.name}x{first.dtype.name}"
    if mixed in machine.rates:  # such as int8 weights for int16 activations
        return _shaped(name, specs, out, settings, mixed, 1)
    runs = passes if first.dtype.name == "float32" else limbs(first.dtype.numpy) if first.dtype.kind != "float" else 1
    return _shaped(name, specs, out, settings, dtype, runs)


def _shaped(
    name: str, specs: tuple[Spec, ...], out: Spec, settings: Mapping[str, Any], dtype: str, runs: int
) -> Product | None:
    """The sizes of the product that a call is."""
    first, second = specs[0], specs[1]
    bias = int(len(specs) > 2)
    if name.endswith("_weight_gradient"):
        groups = settings["groups"]
        shape = settings["weight_shape"]
        places = second.shape[0] * prod(second.shape[2:])
        return _made(shape[0] // groups, places, prod(shape[1:]), dtype, groups, runs, a=1, b=0)
    if name.startswith("conv_transpose"):
        groups, kernel = settings["groups"], prod(second.shape[2:])
        m, n = first.shape[0] * prod(first.shape[2:]), second.shape[1] * kernel
        gathered = groups * m * n if kernel > 1 else 0
        return _made(m, second.shape[0] // groups, n, dtype, groups, runs, bias, gathered=gathered)
    if name.startswith("conv"):
        groups = settings["groups"]
        m, n = out.shape[0] * prod(out.shape[2:]), second.shape[0] // groups
        common = max(
            0, settings["dilation"][0] * (second.shape[2] - 1) + 1 - settings["stride"][0]
        )  # rows of the image
        halo = common * first.shape[1] * prod(first.shape[3:]) * first.dtype.itemsize
        return _made(m, prod(second.shape[1:]), n, dtype, groups, runs, bias, halo=halo)
    if name == "linear":
        return _made(prod(first.shape[:-1]), first.shape[-1], second.shape[0], dtype, 1, runs, bias)
    left = first.shape if first.ndim > 1 else (1, *first.shape)
    right = second.shape if second.ndim > 1 else (*second.shape, 1)
    if len(right) == 2:  # one right-hand side for all rows of the batch
        return _made(prod(left[:-1]), left[-1], right[-1], dtype, 1, runs)
    batch = out.size // max(1, (left[-2] if first.ndim > 1 else 1) * (right[-1] if second.ndim > 1 else 1))
    return _made(left[-2], left[-1], right[-1], dtype, batch, runs)


def _made(
    m: int, k: int, n: int, dtype: str, count: int, passes: int, epilogue: int = 0, **more: int
) -> Product | None:
    if not m * k * n * count:
        return None
    return Product(m, k, n, dtype, count, passes, epilogue, **more)
