"""Tells how many registers each kernel of CUDA takes, and whether any spills: no GPU is needed, only NVRTC.

    python tests/bench/registers.py [--few] [--json FILE] [sm_75 sm_80 sm_90 ...]

Every source that the ops of the table have hal_cuda compile, in all dtypes, is compiled to machine code; ptxas says
what came of it. Of the kernels of one name, which differ in dtypes and strides, the largest figures are shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "backends"))
sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))

from cuda_sources import Built, all_compiled, nvrtc, sources


def table(built: Sequence[Built]) -> list[str]:
    """A line of a table for each name of a kernel."""
    lines = ["| kernel | architecture | sources | registers | shared bytes | stack bytes | spilled bytes |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|")
    for key in sorted({(b.name, b.architecture) for b in built}):
        same = [b for b in built if (b.name, b.architecture) == key]
        most = [max(getattr(b, figure) for b in same) for figure in ("registers", "shared", "stack", "spilled")]
        lines.append(f"| {key[0]} | {key[1]} | {len(same)} | {' | '.join(map(str, most))} |")
    return lines


def main() -> None:
    """Compile, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=["sm_75", "sm_80", "sm_90"])
    parser.add_argument("--few", action="store_true", help="one sample of each op: most ways through the kernels")
    parser.add_argument("--json", type=Path, help="write what is known of each kernel, too")
    given = parser.parse_args()
    library = nvrtc()
    if library is None:
        sys.exit("needs NVRTC: pip install nvidia-cuda-nvrtc")
    start = time.monotonic()
    found = sources(most=1 if given.few else None)
    built = [b for architecture in given.architectures for b in all_compiled(library, found, architecture)]
    print(*table(built), sep="\n")
    spilled = sum(b.spilled > 0 for b in built)
    print(f"\n{len(found)} sources, {len(built)} kernels, {spilled} spill; {time.monotonic() - start:.0f} s")
    if given.json:
        given.json.write_text(json.dumps([asdict(b) for b in built], indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if spilled else 0)


if __name__ == "__main__":
    main()
