"""Runs one small call of every op on the OpenCL device and compares it with the CPU: for Oclgrind, which is slow.

`python tests/backends/opencl_cases.py [part of an op's name ...]`: prints one line for each op that differs, and how
many were run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

import hal
from hal import ops
from hal.op import Op, Sample

MOST = 120  # elements of all inputs together
CALLS = 2  # of each op and kind of dtype


def calls(op: Op) -> Iterator[tuple[Op, Sample]]:
    """The first small calls on floats and on other dtypes."""
    counts = {True: 0, False: 0}
    for sample in op.samples(np.random.default_rng(0)):
        sizes = [x.size for x in sample.inputs]
        if 0 < sum(sizes) <= MOST and not any(x.dtype.kind == "c" for x in sample.inputs):
            counts[sample.exact] += 1
            if counts[sample.exact] <= CALLS:
                yield op, sample


def differs(op: Op, sample: Sample, device: hal.Device) -> str:
    """What a call gives on the device that it does not give on the CPU; empty if nothing."""
    results = []
    for where in (hal.device("cpu"), device):
        given = {**sample.settings, "device": where} if "device" in op.settings else dict(sample.settings)
        out = op(*(hal.tensor(x, device=where) for x in sample.inputs), **given)
        outs = out if isinstance(out, tuple) else (out,)
        results.append([o.cpu().detach().to(hal.float64).numpy() for o in outs])
    for want, got in zip(*results, strict=True):
        if not np.allclose(got, want, rtol=1e-4, atol=1e-5, equal_nan=True):
            return f"{op.name} {[x.shape for x in sample.inputs]} {dict(sample.settings)}: {got} instead of {want}"
    return ""


def main(parts: list[str]) -> int:
    """Run the calls; the number of those that differ."""
    device = hal.device("opencl")
    backend = device.backend
    chosen = [op for op in ops.TABLE.values() if op in backend.kernels or op.decompose is not None]
    chosen = [op for op in chosen if not parts or any(p in op.name for p in parts)]
    count = wrong = 0
    for op in chosen:
        for _, sample in calls(op):
            try:
                problem = differs(op, sample, device)
            except hal.errors.DTypeError:  # complex results
                continue
            count += 1
            if problem:
                wrong += 1
                print(problem)
    print(f"{count} calls of {len(chosen)} ops on {backend.describe(device)['device']}, {wrong} differ")
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
