"""Measures how fast a device is, in some seconds, and keeps the answer on disk.

Calls are timed where they will run: several of each in a compiled plan, which the device may record or capture, less
what a plan takes anyway. Of a few sizes of an op comes its pace; what has none of its own has that of its kind, which
comes of all calls of that kind.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from pathlib import Path

import numpy as np

from hal import config, dtypes
from hal.device import Device
from hal.errors import OutOfMemoryError
from hal.schedule.calls import calls
from hal.schedule.fitting import Point, fitted
from hal.schedule.speed import Calibration, Link, Pace, Speed
from hal.schedule.timing import Bench, Timed, least_time
from hal.spec import Spec

PASSES = 3  # what a busy moment slowed down is measured again later
EVERY = 20  # plans between two looks at what any plan takes
LEAST = 1e-9  # seconds of what takes no time that can be measured
BYTES = (1 << 10, 1 << 23)  # of the copies that tell a link's latency and bandwidth
Progress = Callable[[int, int], None]


def _silent(done: int, of: int) -> None:
    """No progress."""


def calibration_of(device: Device, *, anew: bool = False, progress: Progress = _silent) -> Calibration:
    """What is known of `device`: declared by its backend, kept on disk, or measured now.

    Args:
        anew: let the backend tune its kernels and measure, whatever is on disk; what is declared still counts.
        progress: told while it is measured how many steps are done, and of how many.
    """
    known = known_calibration(device)
    if known is not None and (not anew or device.backend.speed(device) is not None):
        return known
    if config.logs("placement") or sys.stderr.isatty():
        print(f"hal: measuring how fast {device} is, once: see `hal calibrate`", file=sys.stderr)
    if anew:
        device.backend.tune(device)
    found = measure(device, progress)
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
    except (ValueError, KeyError, TypeError):  # of another version
        return None


def _facts(device: Device) -> dict[str, str]:
    import hal

    return {
        "device": str(device), "host": platform.node(), "processor": platform.machine(),
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


def measure(device: Device, progress: Progress = _silent) -> Calibration:
    """Measure `device` now. Takes some seconds.

    Args:
        progress: see `calibration_of`.
    """
    paces = {name: fitted(points) for name, points in _points(Bench(device), progress).items()}
    add = paces.get("add", Pace(1e-6, 0.0, 1e-9))
    bandwidth = _rounded(12 / max(add.flop + 12 * add.byte, LEAST**2))  # of float32: each operation moves 12 bytes
    return Calibration(str(device), Speed(bandwidth, {}, add.start, paces), *_links(device), _facts(device))


def _points(bench: Bench, progress: Progress) -> dict[str, list[Point]]:
    """Of each pace the calls that tell of it: what they cost and take. Where that is one, a small call tells more."""
    able = [call for call in calls() if bench.takes(call)]
    if not able:
        return {}
    empty, timed = Timed(bench, able[0]), []
    for call in able:
        with suppress(OutOfMemoryError):
            timed.append((call, Timed(bench, able[0], call)))
    for done in range(PASSES):
        for i, (_, one) in enumerate(timed):
            if i % EVERY == 0:
                empty.measure()
            one.measure()
            progress(done * len(timed) + i + 1, PASSES * len(timed))
    points: dict[str, list[Point]] = {}
    for call, one in timed:
        if max(one.seconds, empty.seconds) < inf:
            seconds = max(one.seconds - empty.seconds, LEAST) / one.copies
            for name in call.tells:
                points.setdefault(name, []).append((*one.cost, seconds))
    first = next(iter(points.values()), [])[:1]
    return {name: found + first if len(found) == 1 else found for name, found in points.items()}


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


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
    up, _ = least_time(lambda: backend.upload(array, device), lambda: backend.synchronize(device))
    down, _ = least_time(lambda: backend.download(buffer, spec), lambda: None)
    return up, down


def _link(more: int, short: float, long: float) -> Link:
    return Link(_rounded(more / max(long - short, 1e-9)), _rounded(short))
