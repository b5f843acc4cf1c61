"""NVRTC compiles every source of CUDA for three generations of GPUs, without one, and no kernel spills registers.

Nothing is run: what the kernels compute is checked on PoCL, with the same text, and on the host.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cuda_sources import all_compiled, compiled, nvrtc, sources

from hal import dtypes
from hal.codegen import loops, reductions
from hal.codegen.dialect import CUDA
from hal.codegen.group import parts_of, updates_of
from hal.codegen.target import Target
from hal.dtypes import DType
from hal.graph.graph import Group
from hal.graph.text import parse
from hal.testing.calls import FLOATS

SOURCES = Path(loops.__file__).parent
GPU = Target(False, 1, 256, 80)
ARCHITECTURES = ["sm_80", *(pytest.param(a, marks=pytest.mark.slow) for a in ("sm_75", "sm_90"))]
GROUPS = [
    ("elementwise", """graph(x: float32[40, 33], y: float16[33], z: bfloat16[40, 1])
    a: float32[33] = cast(y, dtype=float32)
    b: float32[40, 1] = cast(z, dtype=float32)
    c: float32[40, 33] = mul(x, a)
    d: float32[40, 33] = tanh(c)
    e: float32[40, 33] = add(d, b)
    f: float16[40, 33] = cast(e, dtype=float16)
    return f, c"""),
    ("reduction", """graph(x: float32[40, 130], y: float32[130])
    a: float32[40, 130] = mul(x, y)
    b: float32[40] = sum(a, axis=(1,), keepdims=False)
    c: float32[40] = exp(b)
    return c"""),
    ("reduction", """graph(x: float64[400, 13])
    a: float64[400, 13] = erf(x)
    b: int64[13] = argmax(a, axis=0, keepdims=False)
    return b"""),
]  # fmt: skip
UPDATES = """graph(p: float32[60, 40], g: float32[60, 40], q: float32[7], h: float32[])
    a: float32[60, 40] = mul(p, g)
    b: float32[7] = sub(q, h)
    return a, b"""


FEW = 1  # samples of each op, of which there is one for most ways through the kernels


@pytest.fixture(scope="module")
def library() -> Any:
    """NVIDIA's compiler."""
    return nvrtc() or pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc")


@pytest.fixture
def compiles(library: Any) -> Callable[..., None]:
    """Compile a source for an architecture: it must, and no kernel may spill."""

    def check(source: str, architecture: str = "sm_80") -> None:
        built = compiled(library, source, architecture)
        assert built
        assert not [b for b in built if b.spilled]

    return check


def test_what_every_op_compiles(library: Any) -> None:
    kernels = [text for text in sources([dtypes.float32], FEW) if "HAL_KERNEL map(" not in text]  # of which most are
    built = all_compiled(library, kernels, "sm_80")
    assert {"reduce", "rows"} <= {b.name for b in built}
    assert not [b for b in built if b.spilled]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "floats"), [("sm_75", FLOATS[:1]), ("sm_80", FLOATS), ("sm_90", (dtypes.float32, dtypes.float16))]
)
def test_what_every_op_compiles_in_more_dtypes(library: Any, architecture: str, floats: Sequence[DType]) -> None:
    built = all_compiled(library, sources(floats, FEW), architecture)
    assert len(built) > 100
    assert "attention" in {b.name for b in built}
    assert not [b for b in built if b.spilled]


def test_spilling_is_seen(library: Any) -> None:
    lines = "".join(f"const double x{i} = p[{i} * n];" for i in range(48))
    total = " + ".join(f"x{i} * x{(i * 37) % 48}" for i in range(48))
    source = f"""extern "C" __global__ void __launch_bounds__(1024) many(double *p, int n) {{
        {lines} __syncthreads(); p[threadIdx.x] = {total}; }}"""
    (built,) = compiled(library, source, "sm_80")
    assert built.name == "many"
    assert built.spilled > 0


def test_sources_are_told_apart_when_compiled_together(library: Any) -> None:
    text = "#define T {}\nHAL_KERNEL same(HAL_GLOBAL T *p) {{ HAL_LOCAL T s[32]; s[HAL_ITEM(0)] = *p; *p = s[1]; }}\n"
    built = all_compiled(library, [CUDA.prelude(text.format(t)) + text.format(t) for t in ("f32", "f64")], "sm_80")
    assert [b.shared for b in sorted(built, key=lambda b: b.shared)] == [128, 256]
    with pytest.raises(AssertionError, match="undefined"):
        compiled(library, 'extern "C" __global__ void wrong() { nothing(); }', "sm_80")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("kind", "text"), GROUPS)
def test_groups(kind: str, text: str, architecture: str, compiles: Callable[..., None]) -> None:
    parts = parts_of(Group("group", kind, parse(text, device="cpu")))
    if parts.reduction is None:
        for rank, steps in [(1, (1, 1, 0, 1, 1)), (2, (1, None, 0, 1, None))]:
            compiles(loops.whole(CUDA, loops.elementwise(parts.before, rank, steps, GPU)), architecture)
        return
    assert parts.fold is not None
    assert parts.after is not None
    made = reductions.Reduction(parts.before, parts.fold, parts.after, GPU)
    for columns, parted in itertools.product((False, True), repeat=2):
        walk = reductions.Walk(1, 1, columns, (1,) * len(parts.before.inputs), parted)
        compiles(loops.whole(CUDA, made.source(walk)), architecture)
    compiles(loops.whole(CUDA, made.merge_source()), architecture)


def test_updates(compiles: Callable[..., None]) -> None:
    chains = updates_of(Group("group", "updates", parse(UPDATES, device="cpu")))
    compiles(loops.whole(CUDA, loops.independent(chains, GPU)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tiled_products(architecture: str, compiles: Callable[..., None]) -> None:
    text = (SOURCES / "kernels" / "tiled_product.c").read_text()
    for tables, bias in [((), 0), ((), 2), (("A_TERMS", "B_TERMS", "PLACES"), 1), (("B_COLUMNS",), 0)]:
        macros = {
            "T": "float",
            "SUM": "float",
            "INDEX": "int",
            "TX": 16,
            "TY": 16,
            "RM": 4,
            "RN": 4,
            "TK": 16,
            "BIAS": bias,
        }
        defined = "".join(f"#define {k} {v}\n" for k, v in {**macros, **dict.fromkeys(tables, 1)}.items())
        compiles(CUDA.prelude(text) + defined + text, architecture)
