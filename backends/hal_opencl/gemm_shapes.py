"""How large the tiles of a product are on each device: a few candidates, and the choice that timing them has made.

`calibrate` times the candidates once and keeps the choice on disk; until then the first one is used.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from hal.codegen.kernels.products import TILES, Factor, Product, Result, Tiles
from hal.plugin import Array, DType, Spec, cache_dir, dtypes

if TYPE_CHECKING:
    from pathlib import Path

    from hal.codegen.kernels.buffer import Buffer
    from hal_opencl.runtime import OpenCLRuntime


@dataclass(frozen=True)
class Panels:
    """Tiles in a processor's registers.

    Attributes:
        rows: of a tile.
        vectors, width: columns of a tile, as so many vectors of `width` elements of 4 bytes (half as many of 8).
        terms: how many are summed before the next block of A and B.
        block: rows of A whose terms stay in the second cache.
    """

    rows: int
    vectors: int
    width: int
    terms: int = 288
    block: int = 96


Shape = Panels | Tiles

# 12 sums of 32 bytes fit the 16 registers of AVX2, and 24 of 64 bytes the 32 of AVX-512; of neither has NEON as many.
PANELS = (Panels(6, 2, 8), Panels(4, 3, 8), Panels(8, 2, 16), Panels(12, 2, 16), Panels(6, 1, 16), Panels(8, 2, 4))
SIZE = 512  # of the square products that are timed
ROUNDS = 5

_chosen: dict[OpenCLRuntime, Shape] = {}


def candidates(runtime: OpenCLRuntime) -> tuple[Shape, ...]:
    """The shapes that a device can run: panels for processors, tiles for all that have groups of items."""
    if runtime.is_cpu:
        return PANELS
    items = int(runtime.device.max_work_group_size)
    return tuple(s for s in TILES if s.across * s.down <= items and s.nbytes(8) <= runtime.local_memory) or (
        Tiles(1, 1, 4, 4),
    )


def shape_of(runtime: OpenCLRuntime) -> Shape:
    """The shape that products have on a device: what `calibrate` found, in this process or an earlier one."""
    found = _chosen.get(runtime)
    if found is None:
        there = candidates(runtime)
        kept = _read().get(_identity(runtime))
        found = _chosen[runtime] = next((s for s in there if asdict(s) == kept), there[0])
    return found


def calibrate(runtime: OpenCLRuntime) -> dict[Shape, float]:
    """Time the candidates, keep the best for this and all later processes, and tell the seconds that each took.

    The rounds are interleaved, so that what else the machine does meets all of them alike.
    """
    from hal_opencl.gemm_launch import multiply  # which asks this module for a shape

    rng = np.random.default_rng(0)
    a, b = (_uploaded(runtime, rng.normal(size=(SIZE, SIZE)), dtypes.float32) for _ in range(2))
    out = runtime.empty((SIZE, SIZE), dtypes.float32, "a calibration")
    left, right = (Factor(x.memory, 0, SIZE, 1) for x in (a, b))
    work = Product(dtypes.float32, left, right, Result(out.memory, 0, SIZE), (SIZE, SIZE, SIZE))
    times: dict[Shape, list[float]] = {shape: [] for shape in candidates(runtime)}
    for turn in range(ROUNDS + 1):
        for shape in times:
            start = perf_counter()
            multiply(runtime, "calibration", work, shape)
            runtime.finish()
            if turn:  # the first is compiling
                times[shape].append(perf_counter() - start)
    found = {shape: median(t) for shape, t in times.items()}
    best = min(found, key=found.__getitem__)
    _chosen[runtime] = best
    _keep(_identity(runtime), best)
    return found


def _uploaded(runtime: OpenCLRuntime, array: Array, dtype: DType) -> Buffer:
    return runtime.upload(array.astype(dtype.numpy), Spec(array.shape, dtype))


def _identity(runtime: OpenCLRuntime) -> str:
    """What a choice holds for: the device and its driver."""
    return f"{runtime.title} / {runtime.device.driver_version} / {runtime.units} units"


def _file() -> Path:
    return cache_dir() / "opencl" / "products.json"


def _read() -> dict[str, dict[str, int]]:
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(identity: str, shape: Shape) -> None:
    file = _file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(_read() | {identity: asdict(shape)}, indent=1))
        part.replace(file)
    except OSError:  # then the choice holds for this process
        pass
