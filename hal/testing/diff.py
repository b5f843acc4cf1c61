"""Finds the first op, forward or backward, whose result on one device is beyond tolerance, and says what another gives.

Every kernel call of a program is judged by itself: the float64 reference is given the very inputs that the device
had, so that small differences do not add up along the way, and the op that is named is the one that is wrong.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import hal
from hal import dispatch
from hal.device import Device
from hal.op import Array, Op
from hal.recording import mode, no_grad
from hal.source import describe, user_line
from hal.tensor import Tensor
from hal.testing.accuracy import Verdict, judge

SHOWN = 6  # elements of each array that are shown


@dataclass(frozen=True)
class Divergence:
    """One call whose result is beyond the tolerance of its op.

    Attributes:
        op, phase, gradient_of: what ran, in the `forward` or `backward` pass, and for the gradient of which op.
        line: the user's line; in the backward pass, that of the op whose gradient it is.
        inputs, settings: what it was given.
        error, allowed, unit: how far the device is from the reference, and how far it may be.
        reference_error: how far the other device is, on the same inputs.
        ulps: how far the device is in units in the last place, whatever `unit` is.
        detail: where the largest differences are.
        got, other: elements from the first that differs, on the device and on the other.
        call: which call of the program it was, counted from 1.
    """

    op: str
    phase: str
    gradient_of: str
    line: str
    inputs: tuple[str, ...]
    settings: dict[str, str]
    error: float
    allowed: float
    unit: str
    reference_error: float
    ulps: float
    detail: str
    got: list[float]
    other: list[float]
    call: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class Result:
    """What a comparison found.

    Attributes:
        calls: kernel calls that were judged.
        divergences: those beyond tolerance, in the order in which they ran.
        failure: the error that ended the program, if one did.
    """

    ref: str
    dut: str
    calls: int = 0
    divergences: list[Divergence] = field(default_factory=list)
    failure: str = ""


class _Enough(BaseException):
    """Ends the program at the first divergence; no `except Exception` of the program stops it."""


def compare(program: Callable[[], Any], ref: Device, dut: Device, *, every: bool = False) -> Result:
    """Run `program` with `dut` as its default device, and judge every kernel that runs there.

    Args:
        ref: the device whose result is shown beside a wrong one.
        every: go on after the first divergence.
    """
    result = Result(str(ref), str(dut))

    def judged(op: Op, inputs: tuple[Tensor, ...], settings: dict[str, Any], outs: tuple[Tensor, ...]) -> None:
        if outs[0].device is not dut:
            return
        result.calls += 1
        found = _judge(op, inputs, settings, outs, ref, result.calls)
        if found is not None:
            result.divergences.append(found)
            if not every:
                raise _Enough

    lines, mode.lines = mode.lines, True
    try:
        with dut, dispatch.watching(judged):
            program()
    except _Enough:
        pass
    finally:
        mode.lines = lines
    return result


def compare_script(path: Path, arguments: Sequence[str], ref: Device, dut: Device, *, every: bool = False) -> Result:
    """`compare` for a Python script, run as `python path arguments` would. What it raises ends up in `failure`."""
    failure = ""

    def program() -> None:
        nonlocal failure
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as error:
            failure = f"SystemExit: {error.code}" if error.code else ""
        except Exception as error:  # the program's own business; what was found up to there still counts
            failure = f"{type(error).__name__}: {error}"

    before = sys.argv, list(sys.path)
    sys.argv, sys.path[:0] = [str(path), *arguments], [str(path.parent.resolve())]
    try:
        result = compare(program, ref, dut, every=every)
    finally:
        sys.argv, sys.path[:] = before[0], before[1]
    result.failure = failure
    return result


def _host(x: Tensor) -> Array:
    array: Array = x.device.backend.download(x.buffer, x.spec)
    return array


def _judge(
    op: Op, inputs: tuple[Tensor, ...], settings: dict[str, Any], outs: tuple[Tensor, ...], ref: Device, call: int
) -> Divergence | None:
    arrays = tuple(_host(x) for x in inputs)
    got = tuple(_host(out) for out in outs)
    specs = tuple(out.spec for out in outs)
    verdict = judge(op, arrays, settings, got, specs, outs[0].device.backend.tolerance(op, specs[0].dtype))
    if verdict.passed:
        return None
    node = mode.gradient_of
    line = user_line(4) if node is None else node.line
    other = _on(ref, op, arrays, inputs, settings)
    theirs = judge(op, arrays, settings, other, specs) if other is not None else Verdict(np.inf, 0, verdict.unit)
    flat, beside = got[0].reshape(-1), other[0].reshape(-1) if other is not None else np.zeros(0)
    first = _first_difference(flat, beside)
    return Divergence(
        op.name,
        "forward" if node is None else "backward",
        "" if node is None else node.name,
        describe(line),
        tuple(repr(x.spec) for x in inputs),
        {k: repr(v) for k, v in settings.items()},
        verdict.error,
        verdict.allowed,
        verdict.unit,
        theirs.error,
        verdict.ulps,
        verdict.detail,
        [float(np.real(v)) for v in flat[first : first + SHOWN]],
        [float(np.real(v)) for v in beside[first : first + SHOWN]],
        call,
    )


def _first_difference(a: Array, b: Array) -> int:
    if a.shape != b.shape:
        return 0
    differs = np.flatnonzero(~((a == b) | ((a != a) & (b != b))))
    return int(differs[0]) if differs.size else 0


def _on(
    device: Device, op: Op, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], settings: dict[str, Any]
) -> tuple[Array, ...] | None:
    """The same call on another device; None if it cannot take it."""
    given = {**settings, "device": device} if "device" in settings else settings
    quiet, dispatch.watch = dispatch.watch, None
    try:
        with no_grad():
            result = op(*(hal.tensor(a, device=device) for a in arrays), **given)
    except hal.errors.HalError:
        return None
    finally:
        dispatch.watch = quiet
    return tuple(_host(r) for r in (result if isinstance(result, tuple) else (result,)))


__all__ = ["Divergence", "Result", "compare", "compare_script"]
