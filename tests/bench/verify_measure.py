"""Times a device beside its peers on the same hardware: hal, hal.compile, torch, torch.compile, CuPy, JAX.

Run by `verify.py`, one part at a time. Contenders of a row are timed in turn within one run: in each round every one
does a batch of calls between two waits for the device, and what is told is the median of the rounds. Their results are
compared with each other's first. Every finished row, and before it every attempt, is a line of JSON in the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from verify_peers import PEERS, Peer
from verify_steps import steps

Call = Callable[[], Any]
UNITS = {"TFLOP/s": 1e12, "GB/s": 1e9}
BATCH = 0.03  # seconds that a batch of calls takes, about
ROUNDS = (3, 25)
COMPILING = 120  # seconds that torch.compile may take for a network
KINDS = {"float32": 2e-4, "tf32": 5e-2, "float16": 5e-2, "bfloat16": 2e-1}  # what results may differ by, in norm


@dataclass
class Row:
    """One workload.

    Attributes:
        build: makes a contender's call from a peer, or None where the peer has no such thing.
        work: operations or bytes of a call, in `rate` (`TFLOP/s` or `GB/s`).
        goal: the peer that hal should be as quick as, and how nearly; on a GPU.
        differ: how much results may differ from each other, relative to their norm.
    """

    name: str
    build: Callable[[Peer], Call | None]
    work: float = 0
    rate: str = ""
    goal: tuple[str, float] | None = None
    differ: float = 2e-4
    note: str = ""


@dataclass
class Found:
    """What came of a row: medians and quartiles in seconds, and by how much results differ from the first one's."""

    name: str
    times: dict[str, float] = field(default_factory=dict)
    quartiles: dict[str, tuple[float, float]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    work: float = 0
    rate: str = ""
    goal: tuple[str, float] | None = None
    note: str = ""
    rounds: int = 0


def norm_of_difference(a: Any, b: Any) -> float:
    """How far two results are apart, relative to the norm of the first; whole numbers are equal or not."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return float("inf")
    scale = float(np.linalg.norm(a.ravel())) or 1.0
    return float(np.linalg.norm((a - b).ravel())) / scale


def measured(row: Row, peers: list[Peer], seconds: float, left: float, trying: Callable[[str, str], bool]) -> Found:
    """Time one row for at most so many seconds, apart from what compiling takes, for which there are `left` seconds."""
    begun = time.monotonic()
    found = Found(row.name, work=row.work, rate=row.rate, goal=row.goal, note=row.note)
    calls: dict[str, tuple[Peer, Call, int]] = {}
    reference: tuple[str, Any] | None = None
    for peer in peers:
        if not trying(row.name, peer.name):
            found.errors[peer.name] = "left out: it took the process down"
            continue
        if peer.name == "torch.compile" and time.monotonic() - begun > left - (15 if row.rate else COMPILING):
            found.errors[peer.name] = "left out: too little time is left to compile"
            continue
        try:
            start = time.perf_counter()
            call = row.build(peer)
            if call is None:
                continue
            result = peer.array(call())
            peer.wait()
            found.first[peer.name] = time.perf_counter() - start
            if reference is None:
                reference = peer.name, result
            else:
                apart = found.differences[peer.name] = norm_of_difference(reference[1], result)
                if not apart <= row.differ:
                    raise ValueError(f"its result differs from that of {reference[0]} by {apart:.2g}")
            call()
            peer.wait()
            start = time.perf_counter()
            call()
            peer.wait()
            took = time.perf_counter() - start
            calls[peer.name] = (peer, call, max(1, min(1000, int(BATCH / max(took, 1e-7)))))
        except Exception as error:  # a peer that cannot is told of; the others are timed
            found.errors[peer.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            with suppress(Exception):
                peer.wait()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while found.rounds < ROUNDS[1] and (found.rounds < ROUNDS[0] or time.perf_counter() < end):
        for name, (peer, call, count) in calls.items():
            peer.wait()
            start = time.perf_counter()
            for _ in range(count):
                call()
            peer.wait()
            times[name].append((time.perf_counter() - start) / count)
        found.rounds += 1
    for name, values in times.items():
        found.times[name] = statistics.median(values)
        parts = statistics.quantiles(values, n=4)
        found.quartiles[name] = (parts[0], parts[2])
    return found


def told(found: Found) -> str:
    """A row as text."""
    mine = found.times.get("hal.compile") or found.times.get("hal")
    figures = []
    for name, seconds in found.times.items():
        rate = f" = {found.work / seconds / UNITS[found.rate]:,.3g} {found.rate}" if found.rate else ""
        ratio = f" ({seconds / mine:.2f})" if mine and not name.startswith("hal") else ""
        figures.append(f"{name} {seconds * 1e3:,.3f} ms{rate}{ratio}")
    errors = [f"{name}: {words}" for name, words in found.errors.items()]
    return f"{found.name}: {'; '.join([*figures, *errors])}"


# What is timed.


def normal(*shape: int, seed: int = 0) -> Any:
    """The same numbers for everyone."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def memory(gpu: bool, quick: bool) -> Iterator[Row]:
    """Copies, which are what bandwidth is measured by: read and written bytes."""
    for size in [1 << 22] if quick else [1 << 24, 1 << 28] if gpu else [1 << 22, 1 << 25]:
        data = normal(size)
        yield Row(f"copy of 2^{size.bit_length() - 1} float32", lambda p, x=data: p.copy(x), 8 * size, "GB/s")


def matmul(gpu: bool, quick: bool) -> Iterator[Row]:
    """Products of square matrices, and of a batch of small ones."""
    sizes = [512, 1024] if quick else [512, 1024, 2048, 4096, 8192] if gpu else [512, 1024, 2048]
    for kind in ("float32", "tf32", "bfloat16", "float16") if gpu else ("float32",):
        for n in sizes:
            a, b = normal(n, n), normal(n, n, seed=1)
            yield Row(
                f"{n} x {n} x {n} {kind}", lambda p, a=a, b=b, kind=kind: p.matmul(a, b, kind), 2 * n**3, "TFLOP/s",
                ("torch", 0.95), KINDS[kind],
            )  # fmt: skip
    a, b = normal(64, 256, 128), normal(64, 128, 256, seed=1)
    yield Row(
        "64 x (256 x 128 x 256) float32", lambda p: p.matmul(a, b, "float32"), 2 * 64 * 256**2 * 128, "TFLOP/s",
        ("torch", 0.95),
    )  # fmt: skip


def elementwise(gpu: bool, quick: bool) -> Iterator[Row]:
    """Chains of elementwise ops: what they need to move at least, over the time."""
    chains: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
        "(x a + b) c - d": (lambda x, lib: (x * 1.5 + 0.25) * 0.5 - 0.125, 2),
        "tanh, sigmoid, relu": (lambda x, lib: lib.relu(lib.sigmoid(lib.tanh(x))), 2),
        "x * sigmoid(x) + tanh(x)": (lambda x, lib: x * lib.sigmoid(x) + lib.tanh(x), 2),
    }
    for size in [1 << 20] if quick else [1 << 20, 1 << 26] if gpu else [1 << 20, 1 << 24]:
        x = normal(size)
        for name, (chain, passes) in chains.items():
            yield Row(
                f"{name}, 2^{size.bit_length() - 1} float32", lambda p, f=chain, x=x: p.chain(f, x), 4 * passes * size,
                "GB/s", ("memory", 0.9) if size > 1 << 20 else None,
            )  # fmt: skip


def rows(gpu: bool, quick: bool) -> Iterator[Row]:
    """Reductions, softmax and layer normalisation."""
    shape = (512, 1024) if quick else (16384, 4096) if gpu else (2048, 2048)
    x, size = normal(*shape), shape[0] * shape[1]
    functions: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
        "sum of all": (lambda x, lib: lib.sum(x, None), 1),
        "sum of rows": (lambda x, lib: lib.sum(x, 1), 1),
        "sum of columns": (lambda x, lib: lib.sum(x, 0), 1),
        "softmax of rows": (lambda x, lib: lib.softmax(x), 2),
        "layer norm of rows": (lambda x, lib: lib.layer_norm(x), 2),
    }
    for name, (function, passes) in functions.items():
        yield Row(
            f"{name}, {shape[0]} x {shape[1]} float32", lambda p, f=function: p.chain(f, x), 4 * passes * size, "GB/s",
            ("torch", 0.9), 2e-3,
        )  # fmt: skip


def convolution(gpu: bool, quick: bool) -> Iterator[Row]:
    """Convolutions, forward and with both gradients."""
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
        "LeNet 1": ((64, 1, 28, 28), (6, 1, 5, 5), 2),
        "CIFAR 5x5": ((128, 64, 12, 12), (64, 64, 5, 5), 2),
        "ResNet 56": ((64 if gpu else 4, 64, 56, 56), (64, 64, 3, 3), 1),
        "ResNet 14": ((64 if gpu else 4, 256, 14, 14), (256, 256, 3, 3), 1),
    }
    for name, (of_x, of_w, padding) in list(shapes.items())[: 1 if quick else None]:
        x, w = normal(*of_x), normal(*of_w, seed=1) * 0.1
        places = (of_x[2] + 2 * padding - of_w[2] + 1) * (of_x[3] + 2 * padding - of_w[3] + 1)
        flops = 2 * of_x[0] * places * int(np.prod(of_w))
        for times, words in ((1, "forward"), (3, "forward and backward")):
            yield Row(
                f"{name} float32, {words}",
                lambda p, x=x, w=w, padding=padding, times=times: p.convolution(x, w, padding, times == 3),
                times * flops, "TFLOP/s", ("torch", 0.9), 1e-3,
            )  # fmt: skip


def attention(gpu: bool, quick: bool) -> Iterator[Row]:
    """Scaled dot-product attention, causal, forward and with its gradients."""
    for batch, heads, n, d in (
        [(2, 4, 128, 32)] if quick else [(8, 4, 128, 64), (8, 16, 1024, 64)] if gpu else [(8, 4, 128, 64)]
    ):
        q, k, v = (normal(batch, heads, n, d, seed=s) for s in range(3))
        flops = 2 * batch * heads * n * n * d  # half of the scores
        for times, words in ((2, "forward"), (7, "forward and backward")):
            yield Row(
                f"{batch} x {heads} heads, {n} of {d}, causal, float32, {words}",
                lambda p, qkv=(q, k, v), back=times == 7: p.attention(*qkv, back), times * flops / 2, "TFLOP/s",
                ("torch", 0.9), 1e-3,
            )  # fmt: skip


def training(gpu: bool, quick: bool) -> Iterator[Row]:
    """Training steps with Adam; what is compared is the loss after a few of them."""
    for name, build, goal in steps(gpu, quick):
        yield Row(name, build, goal=goal, differ=5e-3)


PARTS: dict[str, Callable[[bool, bool], Iterator[Row]]] = {
    "memory": memory, "matmul": matmul, "elementwise": elementwise, "rows": rows, "convolution": convolution,
    "attention": attention, "steps": training,
}  # fmt: skip


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("device")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--skip", action="append", default=[], help="ROW|CONTENDER")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    start = time.monotonic()
    gpu = given.device.partition(":")[0] == "cuda"
    done = set()
    if given.rows.is_file():
        done = {e["name"] for e in map(json.loads, given.rows.read_text().splitlines()) if "times" in e}
    with given.rows.open("a") as file:

        def put(event: dict[str, Any]) -> None:
            file.write(json.dumps(event) + "\n")
            file.flush()

        def trying(row: str, contender: str) -> bool:
            if f"{row}|{contender}" in given.skip:
                return False
            put({"trying": row, "contender": contender})
            return True

        peers = [peer for make in PEERS if (peer := make(given.device)) is not None]
        for row in PARTS[given.part](gpu, given.quick):
            if row.name in done:
                continue
            if time.monotonic() - start > given.seconds:
                print(f":: {row.name} and what comes after it: no time left", flush=True)
                put(asdict(Found(row.name, note="no time was left", goal=row.goal)))
                break
            left = given.seconds - (time.monotonic() - start)
            found = measured(row, peers, 0.5 if given.quick else 3.0, left, trying)
            put(asdict(found))
            print(":: " + told(found), flush=True)


if __name__ == "__main__":
    main()
