"""The sources that run on PoCL are CUDA C as well: NVRTC compiles them for three generations of GPUs, without one.

Nothing is run: what the kernels compute is checked on PoCL, with the same text.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hal import ops
from hal.codegen import loops, reductions
from hal.codegen.chain import Chain
from hal.codegen.dialect import CUDA
from hal.codegen.expressions import NoExpression, elementwise_ops
from hal.codegen.group import parts_of, updates_of
from hal.codegen.target import Target
from hal.device import Device
from hal.dtypes import DType, dtype
from hal.errors import HalError
from hal.graph.graph import Group, Node, Value
from hal.graph.text import parse
from hal.op import Op
from hal.spec import Spec

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


@pytest.fixture(scope="module")
def nvrtc() -> Any:
    """NVIDIA's compiler as a library, from the package nvidia-cuda-nvrtc."""
    found = [
        f for p in sys.path for f in sorted(Path(p).glob("nvidia/*/lib/libnvrtc.so.*")) if "builtins" not in f.name
    ]
    if not found:
        pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc")
    return ctypes.CDLL(str(found[0]))


@pytest.fixture
def compiles(nvrtc: Any) -> Callable[..., None]:
    """Compile a source for an architecture, or fail with the compiler's words."""

    def compiled(source: str, architecture: str = "sm_80") -> None:
        program = ctypes.c_void_p()
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
        options = (ctypes.c_char_p * 1)(f"--gpu-architecture={architecture}".encode())
        status = nvrtc.nvrtcCompileProgram(program, 1, options)
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        assert status == 0, log.value.decode()

    return compiled


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("kind", "text"), GROUPS)
def test_groups(kind: str, text: str, architecture: str, compiles: Callable[..., None]) -> None:
    parts = parts_of(Group("group", kind, parse(text, device="cpu")))  # type: ignore[arg-type]
    if parts.reduction is None:
        for rank, steps in [(1, (1, 1, 0, 1, 1)), (2, (1, None, 0, 1, None))]:
            compiles(loops.whole(CUDA, loops.elementwise(parts.before, rank, steps, GPU)), architecture)
        return
    assert parts.fold is not None
    assert parts.after is not None
    kind_of = parts.reduction.outputs[0].spec.dtype
    made = reductions.Reduction(parts.before, parts.fold, kind_of, parts.after, GPU)
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


def chain_of(op: Op, kind: DType) -> Chain | None:
    """The chain of one elementwise op on inputs of one dtype, if it takes them."""
    count = sum(not name.endswith("?") for name in op.input_names)
    specs = [Spec((8,), kind)] * count
    if op is ops.where:
        specs[0] = Spec((8,), dtype("bool"))
    try:
        settings = op.bind(count, {})
        wanted = op.promote(*(s.dtype for s in specs)) if op.promote else tuple(s.dtype for s in specs)
        specs = [s.with_dtype(d) for s, d in zip(specs, wanted, strict=True)]
        made = op.infer(*specs, **settings)
        device = Device("cpu")
        inputs = tuple(Value(s, device) for s in specs)
        outputs = tuple(Value(s, device) for s in (made if isinstance(made, tuple) else (made,)))
        chain = Chain([Node(op, inputs, settings, outputs, None, device)], inputs, outputs)
    except (HalError, NoExpression):
        return None
    return None if any(d.kind == "complex" for d in (*chain.given, *chain.made)) else chain


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool"])
def test_every_elementwise_op(kind: str, compiles: Callable[..., None]) -> None:
    kernels = []
    for op in elementwise_ops():
        chain = chain_of(op, dtype(kind))
        if chain is not None:
            text = loops.elementwise(chain, 1, (1,) * (len(chain.inputs) + len(chain.outputs)), GPU)
            kernels.append(text.replace("layout", f"layout_of_{op.name}").replace("fused(", f"fused_{op.name}("))
    assert len(kernels) > 60
    compiles(loops.whole(CUDA, "\n".join(kernels)))
