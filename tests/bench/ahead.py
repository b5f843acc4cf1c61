"""Compiles, on all processors and without a GPU, the programs that the op table needs on one, and keeps them on disk.

    python tests/bench/ahead.py sm_90 [--cache DIR]

A conformance run on a GPU compiles thousands of small programs, one after another; with these it loads them. They are
in the folder `cuda` of HAL_CACHE_DIR (or DIR), and hold for all GPUs of the architecture and all toolkits of CUDA 13.
"""
# ruff: noqa: E402  # what is imported is found in the folders that come first

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for _folder in (ROOT, ROOT / "backends", ROOT / "tests" / "backends"):
    sys.path.insert(0, str(_folder))

from cuda_sources import build, nvrtc, sources

from hal.codegen.kernels.programs import key_of
from hal.plugin import cache_dir
from hal_cuda.driver import OPTIONS
from hal_cuda.programs import identity

TOOLKIT = 13000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", help="such as sm_90")
    parser.add_argument("--cache", type=Path, help="default: HAL_CACHE_DIR, or the user's cache folder")
    given = parser.parse_args()
    library = nvrtc()
    if library is None:
        print("needs NVRTC: pip install nvidia-cuda-nvrtc", file=sys.stderr)
        return 1
    start = time.monotonic()
    found = sources()
    print(f"{len(found):,} programs, found in {time.monotonic() - start:.0f} s", flush=True)
    folder = (given.cache or cache_dir()) / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    name = identity(given.architecture, TOOLKIT)

    def kept(source: str) -> bool:
        file = folder / f"{key_of(name, source)}.bin"
        if file.is_file():
            return True
        code, _ = build(library, source, [f"--gpu-architecture={given.architecture}", *OPTIONS])
        if code is not None:
            file.write_bytes(code)
        return code is not None

    start, missing = time.monotonic(), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for i, fine in enumerate(pool.map(kept, found), 1):
            missing += not fine
            if i % 250 == 0 or i == len(found):
                print(f"{i:,} of {len(found):,} after {time.monotonic() - start:.0f} s", flush=True)
    size = sum(f.stat().st_size for f in folder.glob("*.bin"))
    print(f"{folder}: {size / 1e6:.0f} MB" + (f"; {missing} do not compile" if missing else ""))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
