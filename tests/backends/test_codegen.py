"""Generated kernels of fused groups: what they compute on PoCL, against the float64 references of their ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.codegen import loops
from hal.codegen.dialect import CUDA, OPENCL
from hal.codegen.expressions import NoExpression
from hal.codegen.group import parts_of
from hal.codegen.kernels.fuse import fuse
from hal.codegen.target import Target
from hal.graph.graph import Graph, Group
from hal.graph.text import parse

CHAIN = """graph(x: float32[40, 33], y: float32[33], z: float32[40, 1])
    a: float32[40, 33] = mul(x, y)
    b: float32[40, 33] = add(a, z)
    c: float32[40, 33] = tanh(b)
    d: bool[40, 33] = greater(c, a)
    e: float32[40, 33] = where(d, c, x)
    return e, c"""
MIXED = """graph(x: float64[7, 5, 3], y: int32[5, 1])
    k: float64[] = constant(2.5)
    a: float64[5, 1] = cast(y, dtype=float64)
    b: float64[7, 5, 3] = mul(x, a)
    c: float64[7, 5, 3] = add(b, k)
    return c"""
HALVES = """graph(x: float16[6, 9], y: bfloat16[9])
    a: float32[9] = cast(y, dtype=float32)
    b: float32[6, 9] = cast(x, dtype=float32)
    c: float32[6, 9] = mul(a, b)
    d: float16[6, 9] = cast(c, dtype=float16)
    return d"""
ROWS = """graph(x: float32[40, 133], y: float32[133])
    a: float32[40, 133] = mul(x, y)
    b: float32[40] = sum(a, axis=(1,), keepdims=False)
    c: float32[40] = square(b)
    return c"""
COLUMNS = """graph(x: float32[400, 130], y: float32[130], w: float32[130])
    a: float32[400, 130] = mul(x, y)
    b: float32[130] = mean(a, axis=(0,), keepdims=False)
    c: float32[130] = add(b, w)
    return c, b"""
WHOLE = """graph(x: float32[300, 400], y: float32[400])
    a: float32[300, 400] = sub(x, y)
    q: float32[300, 400] = square(a)
    b: float32[] = mean(q, axis=None, keepdims=False)
    return b"""
CHANNELS = """graph(x: float32[6, 40, 5, 7])
    a: float32[6, 40, 5, 7] = abs(x)
    b: float32[1, 40, 1, 1] = max(a, axis=(0, 2, 3), keepdims=True)
    return b"""
PLACE = """graph(x: float32[6, 400])
    a: float32[6, 400] = neg(x)
    b: int64[6] = argmax(a, axis=1, keepdims=False)
    return b"""
EPILOGUE = """graph(x: float32[60, 40], w: float32[30, 40], b: float32[30])
    a: float32[60, 30] = linear(x, w, b)
    c: float32[60, 30] = relu(a)
    return c"""
UPDATES = """graph(p: float32[60, 40], g: float32[60, 40], q: float32[7], h: float32[])
    a: float32[60, 40] = mul(p, g)
    b: float32[7] = add(q, h)
    return a, b"""
CASES = [
    (CHAIN, "elementwise"), (MIXED, "elementwise"), (HALVES, "elementwise"), (ROWS, "reduction"),
    (COLUMNS, "reduction"), (WHOLE, "reduction"), (CHANNELS, "reduction"), (PLACE, "reduction"),
    (EPILOGUE, "epilogue"), (UPDATES, "updates"),
]  # fmt: skip
LAYOUTS = ("in rows", "transposed", "reversed")


def evaluated(graph: Graph, arrays: list[Any]) -> list[Any]:
    """What a graph means, node by node, in float64."""
    values: dict[Any, Any] = dict(zip(graph.inputs, arrays, strict=True))
    values |= {v: t.cpu().numpy() for v, t in graph.constants.items()}
    for node in graph.nodes:
        given = [values[x] for x in node.inputs]
        wide = [
            a.astype(np.float64) if x.spec.dtype.is_floating else a for a, x in zip(given, node.inputs, strict=True)
        ]
        found = node.op.reference(*wide, **node.settings)
        values |= dict(zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=True))
    return [np.asarray(values[v]) for v in graph.outputs]


def buffer_of(array: Any, layout: str) -> Any:
    """A buffer on the device whose elements lie in some other way than row by row."""
    if layout == "transposed" and array.ndim > 1:
        other = hal.tensor(np.ascontiguousarray(array.T), device="opencl").storage.buffer
        return other.view(array.shape, other.strides[::-1])
    if layout == "reversed" and array.ndim and array.shape[0]:
        other = hal.tensor(np.ascontiguousarray(array[::-1]), device="opencl").storage.buffer
        strides = (-other.strides[0], *other.strides[1:])
        return other.view(other.shape, strides, other.offset + (other.shape[0] - 1) * other.strides[0])
    return hal.tensor(array, device="opencl").storage.buffer


def check(graph: Graph, kind: str, layout: str = "in rows", seed: int = 0) -> None:
    """Run a group and compare what it gives."""
    device = hal.zeros((1,), device="opencl")
    backend, runtime = device.device.backend, device.storage.buffer.memory.runtime
    run = fuse(runtime, Group("group", kind, graph))
    assert run is not None, str(graph)
    rng = np.random.default_rng(seed)
    arrays = []
    for v in graph.inputs:
        numbers = rng.normal(size=v.spec.shape) * 2
        arrays.append((numbers > 0) if v.spec.dtype.kind == "bool" else numbers.astype(v.spec.dtype.numpy))
    found = run(*(buffer_of(np.asarray(a), layout) for a in arrays))
    for buffer, wanted, v in zip(found, evaluated(graph, arrays), graph.outputs, strict=True):
        given = backend.download(buffer, v.spec)
        assert given.shape == wanted.shape
        if not v.spec.dtype.is_floating:
            np.testing.assert_array_equal(given, wanted, err_msg=str(graph))
            continue
        units = {2: 2**-10, 4: 2**-20, 8: 2**-49}[v.spec.dtype.itemsize]
        scale = max(np.abs(wanted.astype(np.float64)).max(), 1)
        np.testing.assert_allclose(
            given.astype(np.float64), wanted.astype(np.float64), rtol=units, atol=units * scale, err_msg=str(graph)
        )


SOON = (CHAIN, ROWS, COLUMNS, EPILOGUE, UPDATES)  # the others only differ from these in dtypes and axes


@pytest.mark.parametrize(
    ("text", "kind"), [pytest.param(*case, marks=[] if case[0] in SOON else pytest.mark.slow) for case in CASES]
)
def test_groups(text: str, kind: str) -> None:
    check(parse(text, device="opencl"), kind)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize(("text", "kind"), CASES, ids=[kind + text[6:20] for text, kind in CASES])
def test_groups_of_views(text: str, kind: str, layout: str) -> None:
    check(parse(text, device="opencl"), kind, layout)


BINARY = ("add", "sub", "mul", "maximum", "minimum", "less", "greater", "equal")
UNARY = ("neg", "abs", "square", "exp", "tanh", "sigmoid", "floor", "relu", "erf", "sqrt")
SHAPES = ((6, 5, 4), (5, 4), (5, 1), (1, 4), (6, 1, 1), ())


def random_graph(rng: np.random.Generator) -> tuple[Graph, str]:
    """A small graph of elementwise ops over broadcasting inputs of several dtypes, sometimes with a reduction."""
    dtypes = ["float32", "float32", "float64", "int32"]
    names: list[tuple[str, str, tuple[int, ...]]] = []
    for i in range(int(rng.integers(2, 5))):
        shape = SHAPES[0] if i == 0 else SHAPES[int(rng.integers(len(SHAPES)))]
        names.append((f"x{i}", dtypes[int(rng.integers(len(dtypes)))], shape))
    lines = [f"graph({', '.join(f'{n}: {d}{list(s)}' for n, d, s in names)})"]
    values = list(names)

    def write(
        op: str, operands: list[tuple[str, str, tuple[int, ...]]], settings: str = ""
    ) -> tuple[str, str, tuple[int, ...]]:
        specs = [hal.zeros(s, dtype=getattr(hal, d)).spec for _, d, s in operands]
        record = ops.TABLE[op]
        given = {"dtype": getattr(hal, settings)} if op == "cast" else {}
        made: Any = record.infer(*specs, **given)
        name = f"v{len(lines)}"
        call = ", ".join([*(n for n, _, _ in operands), *([f"dtype={settings}"] if op == "cast" else [])])
        lines.append(f"    {name}: {made.dtype.name}{list(made.shape)} = {op}({call})")
        values.append((name, made.dtype.name, made.shape))
        return values[-1]

    latest = values[0]
    for _ in range(int(rng.integers(2, 7))):
        if rng.random() < 0.4:
            if not latest[1].startswith("float"):
                latest = write("cast", [latest], "float32")
            latest = write(UNARY[int(rng.integers(len(UNARY)))], [latest])
            continue
        other = values[int(rng.integers(len(values)))]
        if other[1] != latest[1]:
            other = write("cast", [other], latest[1])
        if latest[1] == "bool":
            latest = write("logical_xor", [latest, other])
            continue
        latest = write(BINARY[int(rng.integers(len(BINARY)))], [latest, other])
    if rng.random() < 0.5:
        lines.append(f"    return {latest[0]}")
        return parse("\n".join(lines), device="opencl"), "elementwise"
    if not latest[1].startswith("float"):
        latest = write("cast", [latest], "float32")
    axis = [(0,), (1,), (2,), (0, 2), (0, 1, 2), (1, 2)][int(rng.integers(6))]
    kept = [n for i, n in enumerate(latest[2]) if i not in axis]
    lines.append(
        f"    r: {latest[1]}{kept} = {rng.choice(['sum', 'max', 'mean'])}({latest[0]}, axis={axis}, keepdims=False)"
    )
    lines.append(f"    s: {latest[1]}{kept} = square(r)")
    lines.append("    return s")
    return parse("\n".join(lines), device="opencl"), "reduction"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_random_graphs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph, kind = random_graph(rng)
    used = {x for n in graph.nodes for x in n.inputs}
    inputs = tuple(v for v in graph.inputs if v in used)
    graph = Graph(inputs, graph.nodes, graph.outputs, graph.constants)
    check(graph, kind, LAYOUTS[seed % 3], seed)


def test_what_cannot_be_generated_is_left_to_the_nodes() -> None:
    runtime = hal.zeros((1,), device="opencl").storage.buffer.memory.runtime
    text = "graph(x: float32[4, 4])\n a: float32[4, 4] = sort(x, axis=0)\n b: float32[4, 4] = exp(a)\n return b"
    graph = parse(text, device="opencl")
    assert fuse(runtime, Group("group", "elementwise", graph)) is None
    with pytest.raises(NoExpression, match="sort"):
        parts_of(Group("group", "elementwise", graph))


def test_results_may_take_the_place_of_inputs() -> None:
    graph = parse("graph(x: float32[9, 8], y: float32[8])\n a: float32[9, 8] = mul(x, y)\n return a", device="opencl")
    x, y = hal.full((9, 8), 3.0, device="opencl"), hal.full((8,), 2.0, device="opencl")
    run = fuse(x.storage.buffer.memory.runtime, Group("group", "elementwise", graph))
    assert run is not None
    (found,) = run(x.storage.buffer, y.storage.buffer, out=(x.storage.buffer,))
    assert found is x.storage.buffer
    assert (x.cpu().numpy() == 6).all()


def test_a_reduction_may_be_given_the_memory_of_its_input() -> None:
    text = """graph(x: float32[1, 8])
        a: float32[1, 8] = mul(x, x)
        b: float32[1, 8] = sum(a, axis=(0,), keepdims=True)
        return b"""
    x = hal.full((1, 8), 3.0, device="opencl")
    run = fuse(x.storage.buffer.memory.runtime, Group("group", "reduction", parse(text, device="opencl")))
    assert run is not None
    (found,) = run(x.storage.buffer, out=(x.storage.buffer,))
    assert found is x.storage.buffer
    assert (x.cpu().numpy() == 9).all()


def test_one_source_speaks_both_dialects() -> None:
    chain = parts_of(Group("group", "elementwise", parse(CHAIN, device="opencl"))).before
    serial, parallel = Target(True, 16, 1, 2), Target(False, 1, 256, 80)
    for target in (serial, parallel):
        body = loops.elementwise(chain, 2, (1, 1, 0, 1, 1), target)
        opencl, cuda = (loops.whole(dialect, body) for dialect in (OPENCL, CUDA))
        assert opencl.endswith(body)
        assert cuda.endswith(body)
        assert "__kernel void" in opencl
        assert "__global__ void" in cuda
        assert "get_group_id" not in body
    assert serial.items(100) == (1, 100)
    assert serial.items(1 << 20) == (8, 1 << 17)
    assert parallel.items(1000) == (1024, 1)
