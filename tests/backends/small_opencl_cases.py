"""Small products, convolutions and fused groups on an OpenCL device, for a checker that watches every memory access.

Run by `test_opencl_oclgrind.py` in a process of its own, whose environment tells Oclgrind what to look for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import hal
from hal import ops
from hal.codegen.kernels.fuse import fuse
from hal.codegen.kernels.products import Tiles
from hal.graph.graph import Group
from hal.graph.text import parse
from hal_opencl import gemm_launch
from hal_opencl.gemm_shapes import Panels, Shape

SHAPES = [((3, 5), (5, 7)), ((2, 9, 4), (4, 17)), ((1, 6), (6, 1)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 18), (2, 18, 19))]
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 2, 5, 4), (3, 2, 3, 3), {"padding": (1, 1)}),
    ((1, 2, 5, 5), (2, 1, 2, 3), {"stride": (2, 2), "groups": 2}),
    ((1, 1, 4, 4), (2, 1, 1, 1), {}),
    ((2, 1, 2, 3), (50, 1, 3, 3), {"padding": (1, 1)}),
    ((1, 1, 4, 17), (2, 1, 3, 3), {"padding": (1, 1), "stride": (1, 2)}),
]
GROUPS = [
    ("elementwise", """graph(x: float32[5, 7], y: float32[7], z: float32[5, 1])
    a: float32[5, 7] = mul(x, y)
    b: float32[5, 7] = tanh(a)
    c: float32[5, 7] = add(b, z)
    return c, a"""),
    ("reduction", """graph(x: float32[6, 70], y: float32[70])
    a: float32[6, 70] = mul(x, y)
    b: float32[6] = sum(a, axis=(1,), keepdims=False)
    c: float32[6] = exp(b)
    return c"""),
    ("reduction", """graph(x: float32[30, 9], y: float32[9])
    a: float32[30, 9] = mul(x, x)
    b: float32[9] = max(a, axis=(0,), keepdims=False)
    c: float32[9] = add(b, y)
    return c"""),
    ("updates", """graph(p: float32[3, 4], g: float32[3, 4], q: float32[5], h: float32[5])
    a: float32[3, 4] = sub(p, g)
    b: float32[5] = sub(q, h)
    return a, b"""),
]  # fmt: skip


def near(found: Any, wanted: Any) -> None:
    """Raise unless two arrays agree to a few roundings."""
    np.testing.assert_allclose(found.cpu().numpy(), wanted, rtol=2e-5, atol=2e-5)


def drawn(shape: tuple[int, ...]) -> Any:
    """A tensor on the device."""
    return hal.tensor(np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32), device="opencl")


def products() -> None:
    """Matrix products."""
    for a, b in SHAPES:
        x, y = drawn(a), drawn(b)
        near(x @ y, x.cpu().numpy() @ y.cpu().numpy())
    x, y, c = drawn((3, 70)), drawn((4, 70)), drawn((4,))
    near(ops.linear(x, y, c), x.cpu().numpy() @ y.cpu().numpy().T + c.cpu().numpy())


def convolution(number: int) -> None:
    """A convolution, its transpose and the gradient of its weights."""
    of_x, of_weight, settings = CONVOLUTIONS[number]
    x, weight = drawn(of_x), drawn(of_weight)
    given = {**ops.conv2d.defaults, **settings}
    y = ops.conv2d(x, weight, **settings)
    near(y, ops.conv2d.reference(x.cpu().numpy(), weight.cpu().numpy(), **given))
    g = drawn(y.shape)
    given = {**given, "weight_shape": of_weight}
    found = ops.conv2d_weight_gradient(x, g, weight_shape=of_weight, **settings)
    near(found, ops.conv2d_weight_gradient.reference(x.cpu().numpy(), g.cpu().numpy(), **given))
    given = {**ops.conv_transpose2d.defaults, **settings}
    found = ops.conv_transpose2d(g, weight, **settings)
    near(found, ops.conv_transpose2d.reference(g.cpu().numpy(), weight.cpu().numpy(), **given))


def group(number: int) -> None:
    """A fused group."""
    kind, text = GROUPS[number]
    graph = parse(text, device="opencl")
    run = fuse(drawn((1,)).storage.buffer.memory.runtime, Group("group", kind, graph))
    assert run is not None, text
    run(*(drawn(v.spec.shape).storage.buffer for v in graph.inputs))


def scans() -> None:
    """Running sums and products, in chunks and without."""
    for shape, axis in [((2, 300), 1), ((150, 2), 0), ((3, 5), 1)]:
        x = drawn(shape)
        near(ops.cumsum(x, axis=axis), np.cumsum(x.cpu().numpy(), axis=axis))
        near(ops.cumprod(x, axis=axis), np.cumprod(x.cpu().numpy(), axis=axis))


def statistics() -> None:
    """Means and variances of few channels with many elements, whose parts are merged, and what is made of them."""
    for shape in ((3, 2, 400), (5, 40)):
        x, weight = drawn(shape), drawn(shape[1:2])
        for op, settings in ((ops.batch_norm_train, {}), (ops.group_norm, {"groups": 2})):
            found = op(x, weight, eps=0.1, **settings)
            wanted = op.reference(x.cpu().numpy(), weight.cpu().numpy(), eps=0.1, **settings)
            for got, want in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, wanted)), strict=True):
                near(got, want)


TILES: dict[str, Shape] = {"tiles": Tiles(4, 2, 2, 2, 4), "panels": Panels(2, 2, 2, 4, 4)}
CASES: dict[str, Callable[[], None]] = {
    "products": products,
    "scans": scans,
    "statistics": statistics,
    **{f"convolution {i}": partial(convolution, i) for i in range(len(CONVOLUTIONS))},
    **{f"group {i}": partial(group, i) for i in range(len(GROUPS))},
}


def main(case: str, shape: str) -> None:
    """Run a case with tiles or panels, and check what it gives as well."""
    if shape in TILES:
        gemm_launch.shape_of = lambda runtime: TILES[shape]
    CASES[case]()
    runtime = drawn((1,)).storage.buffer.memory.runtime
    runtime.finish()
    print(f"{case} ran on {runtime.title}")


if __name__ == "__main__":
    main(*sys.argv[1:])
