"""Measures how fast a device is, in a second or two, and keeps the answer on disk.

Kernels are called as a compiled plan calls them: without dispatch. Each op of the table that takes one or two arrays
element by element is measured by itself, and of the others those below; what has no rate of its own has that of its
kind, the median of those measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hal import config, dtypes, ops
from hal.decision import decision_for
from hal.device import Device
from hal.errors import OutOfMemoryError
from hal.op import Op
from hal.schedule.speed import ANY, Calibration, Link, Speed
from hal.spec import Spec

PATIENCE = 0.001  # seconds for which each call is repeated
ROUNDS, PASSES = 2, 3  # what a busy moment slowed down is measured again later
SMALL, MEDIUM, LARGE = 16, 1 << 16, 1 << 20  # elements: for the launch, for rates, for the memory's speed
BYTES = (1 << 10, 1 << 23)  # of the copies that tell a link's latency and bandwidth
Shapes = tuple[tuple[int, ...], ...]
LINE = (128, 512)
IMAGES = (8, 16, 16, 16)
PIXELS = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
WINDOWS = {"kernel": (2, 2), "stride": (2, 2)}
SHORT, DOT = (4, 8), (1, 2, 4, 4)
# fmt: off
CALLS: dict[str, tuple[Shapes, dict[str, Any], Shapes]] = {  # by op: shapes of float32 inputs, settings, small shapes
    "sum":           ((LINE,), {"axis": (1,)}, (SHORT,)),
    "mean":          ((LINE,), {"axis": (1,)}, (SHORT,)),
    "max":           ((LINE,), {"axis": (1,)}, (SHORT,)),
    "var":           ((LINE,), {"axis": (1,)}, (SHORT,)),
    "matmul":        (((256, 256), (256, 256)), {}, (SHORT, (8, 4))),
    "linear":        (((256, 256), (256, 256), (256,)), {}, (SHORT, SHORT, (4,))),
    "attention":     (((4, 4, 64, 32),) * 3, {}, ((1, 1, 4, 8),) * 3),
    "attention_gradient": (((4, 4, 64, 32),) * 5, {}, ((1, 1, 4, 8),) * 5),
    "conv2d":        ((IMAGES, (16, 16, 3, 3)), PIXELS, (DOT, (2, 2, 3, 3))),
    "conv2d_weight_gradient": ((IMAGES, IMAGES), {**PIXELS, "weight_shape": (16, 16, 3, 3)}, ()),
    "conv_transpose2d": ((IMAGES, (16, 16, 3, 3)), {"padding": (1, 1)}, (DOT, (2, 2, 3, 3))),
    "max_pool2d":    ((IMAGES,), WINDOWS, (DOT,)),
    "max_pool2d_gradient": (((8, 16, 8, 8), IMAGES), WINDOWS, ((1, 2, 2, 2), DOT)),
    "softmax":       ((LINE,), {"axis": 1}, (SHORT,)),
    "log_softmax":   ((LINE,), {"axis": 1}, (SHORT,)),
    "gelu":          ((LINE,), {}, (SHORT,)),
    "gelu_with_slope": ((LINE,), {}, (SHORT,)),
    "layer_norm":    ((LINE,), {"dims": 1, "eps": 1e-5}, (SHORT,)),
    "layer_norm_gradient": ((LINE, LINE), {"dims": 1, "eps": 1e-5}, (SHORT, SHORT)),
    "batch_norm_train": ((IMAGES,), {"eps": 1e-5}, (DOT,)),
    "permute":       ((LINE,), {"axes": (1, 0)}, (SHORT,)),
    "concat":        ((LINE, LINE), {"axis": 0}, (SHORT, SHORT)),
    "pad":           ((LINE,), {"padding": ((1, 1), (1, 1))}, (SHORT,)),
    "adam_step":     ((LINE,) * 4 + ((),) * 3, {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0,
                                                 "decoupled": False, "maximize": False}, (SHORT,) * 4 + ((),) * 3),
    "sgd_step":      ((LINE, LINE, ()), {"weight_decay": 0.0, "maximize": False}, (SHORT, SHORT, ())),
}
# fmt: on


def calibration_of(device: Device, *, anew: bool = False) -> Calibration:
    """What is known of `device`: declared by its backend, kept on disk, or measured now.

    Args:
        anew: let the backend tune its kernels and measure, whatever is on disk.
    """
    known = None if anew else known_calibration(device)
    if known is not None:
        return known
    if config.logs("placement") or sys.stderr.isatty():
        print(f"hal: measuring how fast {device} is, once: see `hal calibrate`", file=sys.stderr)
    if anew:
        device.backend.tune(device)
    found = measure(device)
    _keep(_path(found.facts), found)
    return found


def known_calibration(device: Device) -> Calibration | None:
    """What is known of `device` without measuring it."""
    declared = device.backend.speed(device)
    if declared is not None:
        link = device.backend.link(device) or Link(declared.bandwidth)
        return Calibration(str(device), declared, link, link, {"declared by": device.type})
    path = _path(_facts(device))
    if not path.exists():
        return None
    try:
        return Calibration.from_dict(json.loads(path.read_text("utf-8")))
    except (ValueError, KeyError, TypeError):  # an older version's
        return None


def _facts(device: Device) -> dict[str, str]:
    import hal

    return {
        "what is measured": "2", "device": str(device), "host": platform.node(), "processor": platform.machine(),
        "processors": str(os.cpu_count()), "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "python": platform.python_version(), "numpy": np.__version__, "hal": hal.__version__,
        **device.backend.identity(device),
    }  # fmt: skip


def _path(facts: Mapping[str, str]) -> Path:
    key = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:20]
    return config.cache_dir() / "calibrations" / f"{key}.json"


def _keep(path: Path, found: Calibration) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            json.dump(found.to_dict(), file, indent=1)
        os.replace(file.name, path)  # whole or not at all, whoever else measures meanwhile
    except OSError as error:
        print(f"hal: the calibration of {found.device} was not kept: {error}", file=sys.stderr)


def measure(device: Device) -> Calibration:
    """Measure `device` now. Takes a few seconds."""
    calls = {op.name: (op, shapes, settings, small) for op, shapes, settings, small in _calls()}
    least: dict[str, float] = {}

    def note(name: str, seconds: float | None) -> None:
        if seconds is not None:
            least[name] = min(seconds, least.get(name, seconds))

    for _ in range(PASSES):
        note("launch", _seconds(device, ops.add, ((SMALL,), (SMALL,)), {}))
        note("memory", _seconds(device, ops.add, ((LARGE,), (LARGE,)), {}))
        for name, (op, shapes, settings, small) in calls.items():
            note(name, _seconds(device, op, shapes, settings))
            if small:
                note(f"small {name}", _seconds(device, op, small, settings))
    launch = least.get("launch", 1e-6)
    bandwidth = 12 * LARGE / max(least["memory"] - launch, 1e-9) if "memory" in least else 1e9
    rates: dict[str, list[float]] = {}
    launches: dict[str, list[float]] = {}
    for name, (op, shapes, settings, _) in calls.items():
        if name not in least:
            continue
        seconds, start = least[name], max(launch, min(least.get(f"small {name}", launch), least[name]))
        specs = tuple(Spec(s, dtypes.float32) for s in shapes)
        given = op.bind(len(specs), settings)
        flops = op.cost(*specs, out=op.infer(*specs, **given), **given).flops
        for key in (name, op.kind):
            launches.setdefault(key, []).append(start)
            if flops:  # or it only moves
                rates.setdefault(key, []).append(flops / max(seconds - start, 0.05 * seconds))
    rates[ANY] = [r for name, found in rates.items() if name in calls for r in found] or [bandwidth / 4]
    speed = Speed(_rounded(bandwidth), _medians(rates), _rounded(launch), _medians(launches))
    upload, download = _links(device)
    return Calibration(str(device), speed, upload, download, _facts(device))


def _medians(found: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: _rounded(statistics.median(numbers)) for name, numbers in found.items()}


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def _calls() -> Iterator[tuple[Op, Shapes, dict[str, Any], Shapes]]:
    """Ops with the shapes and settings that tell how fast they are, and those that tell what any call takes."""
    for op in ops.TABLE.values():
        if op.name in CALLS:
            yield op, *CALLS[op.name]
        elif op.kind == "elementwise" and not op.defaults and len(op.settings) == 0:
            count = len([n for n in op.input_names if not n.endswith("?")])
            if count in (1, 2) and not op.input_names[0].startswith("*"):
                yield op, ((MEDIUM,),) * count, {}, ((SMALL,),) * count


def _seconds(device: Device, op: Op, shapes: Shapes, settings: dict[str, Any]) -> float | None:
    """The least time of a call; None where the device has no kernel for it, or at the moment no room."""
    specs = tuple(Spec(s, dtypes.float32) for s in shapes)
    if dtypes.float32 not in device.backend.dtypes:
        return None
    try:
        decision = decision_for(op, device, specs, dict(settings))
    except Exception:  # an op that takes no floats
        return None
    kernel = decision.kernel
    if kernel is None:
        return None
    rng = np.random.default_rng(0)
    given = decision.settings
    try:
        buffers = [device.backend.upload(np.asarray(rng.uniform(0.1, 0.9, s.shape), np.float32), device) for s in specs]
        return _time(lambda: kernel(*buffers, **given), lambda: device.backend.synchronize(device))
    except OutOfMemoryError:
        return None


def _time(call: Callable[[], object], wait: Callable[[], None]) -> float:
    call()
    wait()
    best = float("inf")
    calls = 1
    for _ in range(ROUNDS):
        while True:
            start = time.perf_counter()
            for _ in range(calls):
                call()
            wait()
            seconds = time.perf_counter() - start
            if seconds >= PATIENCE or calls >= 4096:
                break
            calls *= 4
        best = min(best, seconds / calls)
    return best


def _links(device: Device) -> tuple[Link, Link]:
    """How fast copies from and to the host are, by a short and a long one: shorter on a device that is nearly full."""
    few, many = BYTES
    while many > few:
        try:
            (up, down), (long_up, long_down) = (_there_and_back(device, nbytes) for nbytes in (few, many))
        except OutOfMemoryError:
            many //= 16
            continue
        return _link(many - few, up, long_up), _link(many - few, down, long_down)
    return Link(1e9), Link(1e9)


def _there_and_back(device: Device, nbytes: int) -> tuple[float, float]:
    """The times of a copy from the host, and to it."""
    backend, array = device.backend, np.zeros(nbytes // 4, np.float32)
    spec = Spec(array.shape, dtypes.float32)
    buffer = backend.upload(array, device)
    up = _time(lambda: backend.upload(array, device), lambda: backend.synchronize(device))
    return up, _time(lambda: backend.download(buffer, spec), lambda: None)


def _link(more: int, short: float, long: float) -> Link:
    return Link(_rounded(more / max(long - short, 1e-9)), _rounded(short))
