"""Draws random programs from numbers: one for the inputs, then one for each step.

What there is to draw from are the op table and its samples, so that an added op needs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from math import prod
from typing import Any

import numpy as np

from hal import dtypes, ops
from hal.device import Device
from hal.op import Array, Op, Rng
from hal.spec import Shape
from hal.testing.calls import FLOATS, samples_of
from hal.testing.programs import MAGNITUDE, SIZE, Operand, Program, Refused

LONGEST = 30  # steps
TRIES = 20  # at making a step
KINDS = ("elementwise", "elementwise", "movement", "movement", "reduction", "indexing", "contraction", "composite")
SCALARS = (2, 0.5, -1.5, 3.0)


def grown(seeds: Iterable[int], device: Device) -> Program:
    """The program that these numbers make: the first its inputs, each other a step of it, if one is found that fits."""
    program = Program(device)
    first, *others = (np.random.default_rng(seed) for seed in seeds)
    _give_inputs(program, first)
    for rng in others:
        for _ in range(TRIES):
            try:
                _grow(program, rng)
            except Refused:
                continue
            break
    return program


def random_program(seed: int, device: Device, length: int = LONGEST) -> Program:
    """A program of up to `length` steps."""
    return grown(np.random.default_rng(seed).integers(0, 2**32, length + 1).tolist(), device)


def _give_inputs(program: Program, rng: Rng) -> None:
    floats = [d for d in FLOATS if d in program.dtypes]
    program.usual = floats[rng.integers(len(floats))]
    for kind in ("f", *rng.choice(list("ffib"), int(rng.integers(0, 4)))):
        shape = tuple(
            rng.choice((0, 1, 2, 3, 4, 5), int(rng.integers(0, 4)), p=(0.04, 0.16, 0.3, 0.3, 0.1, 0.1)).tolist()
        )
        if kind == "b":
            program.give(rng.random(shape) < 0.5)
        elif kind == "i":
            program.give(rng.integers(-3, 4, shape))
        else:
            program.give(np.asarray(rng.normal(size=shape).round(3)).astype(program.usual.numpy))


def _grow(program: Program, rng: Rng) -> None:
    """Add a step.

    Raises:
        Refused: what was drawn does not fit.
    """
    chosen = _ops(KINDS[rng.integers(len(KINDS))])
    op = chosen[rng.integers(len(chosen))]
    calls = _calls(op.name)
    inputs, settings = calls[rng.integers(len(calls))]
    operands: list[Operand]
    if op.kind in ("contraction", "composite") and rng.random() < 0.7:
        operands = [_like(program, rng, x) for x in inputs]
    else:
        names = list(program.values)
        operands = [names[-1 - i] for i in (rng.exponential(3.0, len(inputs)).astype(int) % len(names)).tolist()]
        if len(operands) > 1 and op.kind == "elementwise" and rng.random() < 0.25:
            operands[int(rng.integers(len(operands)))] = SCALARS[rng.integers(len(SCALARS))]
    first = operands[0]
    if op.name in SETTINGS and isinstance(first, str):
        settings = SETTINGS[op.name](rng, program.values[first].spec.shape)
    if op.name == "cast":
        settings = {"dtype": sorted(program.dtypes, key=lambda d: d.name)[rng.integers(len(program.dtypes))]}
    program.add(op, operands, settings)


def _ops(kind: str) -> list[Op]:
    return [op for op in ops.TABLE.values() if op.kind == kind and not op.host_only]


@cache
def _calls(name: str) -> list[tuple[tuple[Array, ...], dict[str, Any]]]:
    """Inputs and settings of an op's samples, small ones where there are."""
    samples = samples_of(name)
    few = [s for s in samples if s.smooth and not s.exact and sum(np.size(x) for x in s.inputs) <= SIZE] or samples
    return [(tuple(map(np.asarray, s.inputs)), dict(s.settings)) for s in few]


def _like(program: Program, rng: Rng, x: Array) -> Operand:
    """A tensor that can stand for a sample's input, or the input itself."""
    if dtypes.of(x.dtype).kind != "float" or not x.ndim:  # it means something: indices, a learning rate
        return x
    fitting = [n for n, v in program.values.items() if v.spec.shape == x.shape and v.spec.dtype in FLOATS]
    if fitting and rng.random() < 0.8:
        return fitting[rng.integers(len(fitting))]
    if not np.abs(x).max(initial=0) <= MAGNITUDE:
        raise Refused("large, or not finite")
    return x.astype(program.usual.numpy)


def _slice(rng: Rng, shape: Shape) -> dict[str, Any]:
    """Parts, backwards, with gaps."""
    found = []
    for n in shape:
        ends = [int(i) if rng.random() < 0.5 else None for i in rng.integers(-n, n + 1, 2)]
        found.append(slice(ends[0], ends[1], int(rng.choice((1, 1, 2, -1, -2)))).indices(n))
    return dict(zip(("start", "stop", "step"), zip(*found, strict=True) if found else ((), (), ()), strict=True))


def _reshape(rng: Rng, shape: Shape) -> dict[str, Any]:
    """Axes joined, split, or new."""
    size = prod(shape)
    choices = [(size,), (1, *shape), (*shape, 1), tuple(n for n in shape if n > 1)]
    choices += [(*shape[:i], shape[i] * shape[i + 1], *shape[i + 2 :]) for i in range(len(shape) - 1)]
    choices += [(n, size // n) for n in (2, 3, 4) if size % n == 0]
    return {"shape": choices[rng.integers(len(choices))]}


def _broadcast_to(rng: Rng, shape: Shape) -> dict[str, Any]:
    front = (2,) if rng.random() < 0.5 else ()
    return {"shape": (*front, *(int(rng.integers(1, 4)) if n == 1 else n for n in shape))}


def _permute(rng: Rng, shape: Shape) -> dict[str, Any]:
    return {"axes": tuple(rng.permutation(len(shape)).tolist())}


def _pad(rng: Rng, shape: Shape) -> dict[str, Any]:
    return {
        "padding": tuple(map(tuple, rng.integers(0, 3, (len(shape), 2)).tolist())),
        "value": int(rng.integers(-1, 2)),
    }


# The settings of ops whose samples' settings fit the samples' shapes alone.
SETTINGS: dict[str, Callable[[Rng, Shape], dict[str, Any]]] = {
    "slice": _slice, "reshape": _reshape, "broadcast_to": _broadcast_to, "permute": _permute, "pad": _pad,
}  # fmt: skip
