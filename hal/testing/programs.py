"""Random programs: ops in a row on random shapes, views and dtypes, beside their references in float64.

A program is data: it runs on any device, prints as a script, and is cut down to the fewest steps that still fail. How
far a device may end from the reference is found by running the reference several times, each result rounded many times
as coarsely as its op's record allows: errors then grow and cancel as they do on a device. Where rounding decides what
comes out (a comparison of nearly equal numbers, a floor close to a whole one) the step is left out of the program, so
that a sound device raises no alarm.

Source: stochastic arithmetic, J. Vignes, "A stochastic arithmetic for reliable scientific computation", 1993.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

import hal
from hal import dtypes
from hal.decision import decision_for
from hal.device import Device
from hal.errors import HalError
from hal.op import Array, Op
from hal.policy import fallback
from hal.recording import no_grad
from hal.spec import Spec
from hal.tensor import Tensor
from hal.testing.accuracy import expected, ulp, unit_roundoff
from hal.testing.calls import FLOATS, fetch, stated_by, states_its_own
from hal.testing.inputs import widened

WORLDS = 4  # runs of the reference with coarse rounding
COARSE = 16.0  # how many times as coarsely they round as a device may
DECIDES = 0.2  # how far they may come apart, as a share of the largest element or of 1
SIZE, MAGNITUDE = 300, 1e3  # elements of a tensor, and the largest of them
QUOTIENTS = ("floor_divide", "remainder", "fmod")  # what an integer divided by zero is, the device decides
SHIFTS = ("bitwise_left_shift", "bitwise_right_shift")
TYPES = frozenset((*FLOATS, dtypes.bool_, dtypes.int32, dtypes.int64))


Operand = str | float | Array


class Refused(Exception):
    """A step that does not fit, or on which rounding decides."""


@dataclass(frozen=True, eq=False)
class Step:
    """A call: the names of its results and operands, which may also be Python numbers, and its settings."""

    results: tuple[str, ...]
    op: Op
    operands: tuple[str | float, ...]
    settings: dict[str, Any]

    def __str__(self) -> str:
        settings = [f"{name}={value!r}" for name, value in self.settings.items()]
        return f"{', '.join(self.results)} = ops.{self.op.name}({', '.join([*map(str, self.operands), *settings])})"


@dataclass(frozen=True, eq=False)
class Value:
    """What a tensor should be: by the reference, what coarse rounding makes of it, and how far a device may be off."""

    spec: Spec
    exact: Array
    coarse: tuple[Array, ...]
    allowed: float = 0.0

    def difference(self, spec: Spec, got: Array) -> str:
        """What is wrong about `got`; nothing if it is within what is allowed."""
        if spec is not self.spec or got.shape != spec.shape:
            return f"is {spec} with contents of shape {got.shape}, and should be {self.spec}"
        with np.errstate(all="ignore"):
            error = np.abs(widened(got) - self.exact.astype(np.float64))
        if not self.exact.size or float(error.max()) <= self.allowed:
            return ""
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
        says = f"got {got[at]}, the reference says {self.exact[at]}"
        return f"is off by {error[at]:.3g} at {at}, where {self.allowed:.3g} is allowed: {says}"


class Program:
    """Inputs, steps, and what each name should be in the end.

    Args:
        device: whose dtypes the program may have, and whose stated accuracy counts.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.dtypes = TYPES & device.backend.dtypes
        self.usual = next((d for d in FLOATS if d in self.dtypes), dtypes.float32)  # of floating inputs
        self.inputs: dict[str, Array] = {}
        self.steps: list[Step] = []
        self.values: dict[str, Value] = {}

    def give(self, array: Array, name: str = "") -> str:
        """Add an input; gives its name."""
        name = name or f"x{len(self.values)}"
        self.inputs[name] = array
        self.values[name] = _given(array)
        return name

    def add(self, op: Op, operands: Sequence[Operand], settings: dict[str, Any], results: tuple[str, ...] = ()) -> None:
        """Add a step. Operands are names of tensors, Python numbers, and arrays, which become inputs.

        Raises:
            Refused: it does not fit, its result is large or not finite, or rounding decides what it is.
        """
        values = [self._value_of(x, operands) for x in operands]
        given = [v.spec.dtype for v in values]
        try:
            bound = op.bind(len(values), settings)
            wanted = op.promote(*given) if op.promote is not None else given
            promoted = tuple(v.spec.with_dtype(w) for v, w in zip(values, wanted, strict=True))
            inferred = op.infer(*promoted, **bound)
            specs = inferred if isinstance(inferred, tuple) else (inferred,)
            if not {*given, *wanted, *(s.dtype for s in specs)} <= self.dtypes or max(s.size for s in specs) > SIZE:
                raise Refused("another dtype, or large")
            if any(
                w.is_floating and d.is_floating and w.itemsize < d.itemsize for w, d in zip(wanted, given, strict=True)
            ):
                raise Refused("rounded on the way in")
            _check_certain(op, values, specs, bound)
            first = len(self.values) + sum(isinstance(x, np.ndarray) for x in operands)
            results = results or tuple(f"x{first + i}" for i in range(len(specs)))
            seed = int(results[0][1:])  # the same when other steps are left out
            with np.errstate(all="ignore"):
                exact = expected(op, tuple(v.exact for v in values), bound)
                rooms = self._rooms(op, values, promoted, bound, exact, specs)
                coarse = [self._coarse(op, values, bound, rooms, (seed, world)) for world in range(WORLDS)]
        except (HalError, ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise Refused(str(error)) from error
        made = [_made(s, exact[i], [c[i] for c in coarse], rooms[i]) for i, s in enumerate(specs)]
        names = tuple(self.give(x) if isinstance(x, np.ndarray) else x for x in operands)
        self.steps.append(Step(results, op, names, settings))
        self.values.update(zip(results, made, strict=True))

    def _value_of(self, x: Operand, beside: Sequence[Operand]) -> Value:
        if isinstance(x, str):
            return self.values[x]
        if isinstance(x, np.ndarray):
            return _given(x)
        found = [self._value_of(y, ()).spec.dtype for y in beside if isinstance(y, (str, np.ndarray))]
        dtype = dtypes.with_scalar(dtypes.result_type(*found), x)
        return _given(np.asarray(x, dtype.numpy))

    def _rooms(
        self, op: Op, values: list[Value], given: tuple[Spec, ...], settings: dict[str, Any],
        exact: tuple[Array, ...], specs: tuple[Spec, ...],
    ) -> list[Any]:  # fmt: skip
        """How far each result may be from the reference on exact inputs, by the op's tolerance, or the device's."""
        if decision_for(op, self.device, given, settings).how == "decomposed" and states_its_own(
            op, self.device, given, tuple(settings.items())
        ):
            raise Refused("it consists of ops for which the device states an accuracy of its own")
        rooms: list[Any] = []
        inputs = tuple(v.exact for v in values)
        for i, (want, spec) in enumerate(zip(exact, specs, strict=True)):
            if spec.dtype not in FLOATS:
                rooms.append(0.0)
                continue
            limit = stated_by(self.device, op, given, settings) or op.tolerance
            u, allowed = unit_roundoff(spec.dtype), float(getattr(limit, spec.dtype.name))
            once = 0.5 * ulp(want, spec.dtype)
            if limit.unit == "norm":
                largest = float(np.abs(want).max(initial=0.0))
                if op.magnitude is not None:
                    largest = max(largest, float(op.magnitude(*inputs, **settings)))
                rooms.append(once + allowed * u * largest)
            elif limit.unit == "terms":
                assert op.terms is not None
                terms = max(1, op.terms(*(v.spec for v in values), **settings))
                sizes = expected(op, tuple(np.abs(x) if x.dtype.kind == "f" else x for x in inputs), settings)[i]
                rooms.append(once + (min(terms, 8 + 2 * sqrt(terms)) + 1 + allowed) * u * np.abs(sizes))
            else:
                moved = not allowed and op.kind in ("movement", "indexing")
                rooms.append(0.0 if moved else once * max(1.0, 2 * allowed))
        return rooms

    def _coarse(
        self, op: Op, values: list[Value], settings: dict[str, Any], rooms: list[Any], seed: tuple[int, int]
    ) -> tuple[Array, ...]:
        """The results in one of the worlds that round coarsely."""
        rng = np.random.default_rng(seed)

        def rough(x: Array, room: Any) -> Array:
            size = rng.uniform(0.5, 1.0, x.shape) * rng.choice((-1.0, 1.0), x.shape)
            return np.asarray(x + COARSE * room * size) if x.dtype.kind == "f" else x

        inputs = tuple(v.coarse[seed[1]] for v in values)
        if op.tolerance.conditioned:  # then a device may also have rounded its inputs
            inputs = tuple(
                rough(x, ulp(x, v.spec.dtype)) if v.spec.dtype in FLOATS else x
                for x, v in zip(inputs, values, strict=True)
            )
        results = expected(op, inputs, settings)
        return tuple(rough(widened(r), room) for r, room in zip(results, rooms, strict=True))

    def run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run the steps on tensors for the inputs: all tensors, by name."""
        found = dict(tensors)
        for step in self.steps:
            given = [found[x] if isinstance(x, str) else x for x in step.operands]
            result = step.op(*given, **step.settings)
            found.update(zip(step.results, result if isinstance(result, tuple) else (result,), strict=True))
        return found

    def difference(self, device: Device) -> str:
        """Run on a device and look at all tensors in the end: what is wrong about the first that is, or nothing."""
        try:
            with fallback("allow"), no_grad():
                found = self.run({name: hal.tensor(x, device=device) for name, x in self.inputs.items()})
                arrays = {name: fetch(x) for name, x in found.items()}
        except Exception as error:  # a stranger's code
            return f"{type(error).__name__}: {error}"
        for name, value in self.values.items():
            wrong = value.difference(found[name].spec, arrays[name])
            if wrong:
                return f"{name} {wrong}"
        return ""

    def without(self, number: int) -> Program:
        """The program without a step: what it gave is an input, if it is needed.

        Raises:
            Refused: rounding decides then.
        """
        kept = [step for i, step in enumerate(self.steps) if i != number]
        used = {x for step in kept for x in step.operands}
        results = {name: self.values[name] for name in self.steps[number].results}
        arrays = {**self.inputs, **{name: v.exact.astype(v.spec.dtype.numpy) for name, v in results.items()}}
        other = Program(self.device)
        for name, array in arrays.items():
            if name in used:
                other.give(array, name)
        for step in kept:
            other.add(step.op, step.operands, step.settings, step.results)
        return other

    def code(self, device: Device) -> str:
        """The program as a script that runs as it stands."""
        inputs = [f"{name} = {_literal(array, device)}" for name, array in self.inputs.items()]
        return "\n".join(["import hal", "from hal import ops", "", *inputs, *map(str, self.steps)])


def smallest(program: Program, fails: Callable[[Program], object]) -> Program:
    """A failing program cut down until no step can be left out of it."""
    shrinks = True
    while shrinks:
        shrinks = False
        for i in reversed(range(len(program.steps))):
            try:
                shorter = program.without(i)
            except Refused:
                continue
            if fails(shorter):
                program, shrinks = shorter, True
    return program


def _given(array: Array) -> Value:
    """The value of an input."""
    wide = widened(array)
    return Value(Spec(array.shape, dtypes.of(array.dtype)), wide, (wide,) * WORLDS)


def _check_certain(op: Op, values: list[Value], specs: tuple[Spec, ...], settings: dict[str, Any]) -> None:
    """Raise Refused where a device may decide, or rounding, even if it leaves the reference's result as it is.

    Numbers that are all but equal may round to the same one; what is all but zero, or a whole quotient, likewise.
    """
    if settings.get("stable") is False or (op.name in SHIFTS and (values[1].exact < 0).any()):
        raise Refused("the device decides")
    if all(s.dtype in FLOATS for s in specs) and op.name not in QUOTIENTS:
        return
    worlds = list(zip(*((v.exact, *v.coarse) for v in values), strict=True))
    with np.errstate(all="ignore"):
        if op.name in QUOTIENTS:
            told = [[np.floor(np.true_divide(a, np.where(np.abs(b) > values[1].allowed, b, 0)))] for a, b in worlds]
        elif op.name in ("equal", "not_equal"):
            told = [[np.sign(np.subtract(a, b, dtype=np.float64))] for a, b in worlds]
        else:
            told = [[np.sign(x) for x in inputs if x.dtype.kind == "f"] for inputs in worlds]
            if any(((np.abs(v.exact) <= v.allowed) & (v.exact != 0)).any() for v in values):
                raise Refused("rounding decides what is zero")
    if not all(np.isfinite(x).all() and np.array_equal(x, y) for t in told for x, y in zip(t, told[0], strict=True)):
        raise Refused("rounding decides")


def _made(spec: Spec, exact: Array, coarse: list[Array], room: Any) -> Value:
    """What a step gives.

    Raises:
        Refused: it is large or not finite, or the worlds come apart.
    """
    largest = float(np.abs(exact).max(initial=0))
    if not largest <= MAGNITUDE:
        raise Refused("large, or not finite")
    if spec.dtype not in FLOATS:
        if any((c != exact).any() for c in coarse):
            raise Refused("rounding decides")
        whole = exact.astype(spec.dtype.numpy)
        return Value(spec, whole, (whole,) * WORLDS)
    smallest_number = float(ulp(np.zeros(()), spec.dtype))
    allowed = max((float(np.abs(c - exact).max(initial=0)) for c in coarse), default=0.0)
    allowed += COARSE / 4 * float(np.max(room, initial=0)) + (smallest_number if np.any(room) else 0)
    if not allowed <= DECIDES * max(1.0, largest):
        raise Refused("rounding decides")
    return Value(spec, widened(exact), tuple(coarse), allowed)


def _literal(array: Array, device: Device) -> str:
    """A tensor in source code: each number as short as its dtype lets it be."""
    spec = Spec(array.shape, dtypes.of(array.dtype))
    dtype, place = f"hal.{spec.dtype.name}", f'device="{device}"'
    if not array.size:
        return f"hal.zeros({spec.shape}, dtype={dtype}, {place})"
    flat = [float(str(x)) if spec.dtype.is_floating else x.item() for x in array.reshape(-1)]
    return f"hal.tensor({np.array(flat).reshape(array.shape).tolist()}, dtype={dtype}, {place})"
