"""Each simplification alone: the text of a graph before, and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from before_after import check, text

import hal
from hal import ops
from hal.graph.graph import Graph, Value
from hal.graph.planner import plan_of
from hal.graph.rewrite import SIMPLIFICATIONS, changes_rounding, simplified
from hal.graph.rewrites.algebra import algebra, rounding_algebra
from hal.graph.rewrites.common import common_subexpressions
from hal.graph.rewrites.dead import dead_code
from hal.graph.rewrites.decomposition import alone, decomposed
from hal.graph.rewrites.folding import constant_folding
from hal.graph.rewrites.joins import joins
from hal.graph.rewrites.outputs import KEPT, own_memory
from hal.graph.rewrites.pairs import pairs
from hal.graph.rewrites.patterns import patterns
from hal.graph.rewrites.shapes import shape_cleanup
from hal.graph.text import parse
from hal.plugin import hookimpl
from hal.registry import registry
from hal.testing.fake import Fake


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def test_dead_code() -> None:
    check(
        dead_code,
        """
        graph(x: float32[3], unused: float32[3])
            c0: float32[] = constant(2.0)
            c1: float32[] = constant(5.0)
            v0: float32[3] = mul(x, c0)
            v1: float32[3] = add(v0, c1)
            a: float32[1], b: int64[1] = topk(v0, k=1)
            update x <- v0
            return b
        """,
        """
        graph(x: float32[3], unused: float32[3])
            c0: float32[] = constant(2.0)
            v0: float32[3] = mul(x, c0)
            a: float32[1], b: int64[1] = topk(v0, k=1)
            update x <- v0
            return b
        """,
    )


def test_common_subexpressions() -> None:
    check(
        common_subexpressions,
        """
        graph(x: float32[3])
            c0: float32[] = constant(2.0)
            c1: float32[] = constant(2.0)
            c2: float64[] = constant(2.0)
            v0: float32[3] = mul(x, c0)
            v1: float32[3] = mul(x, c1)
            v2: float32[] = sum(v0)
            v3: float32[] = sum(v1)
            v4: float32[1] = sum(v1, keepdims=True)
            v5: float32[3] = copy_to(x, device='cpu')
            v6: float32[3] = mul(v5, c0)
            return v2, v3, v4, c2, v6
        """,
        """
        graph(x: float32[3])
            c0: float32[] = constant(2.0)
            c1: float32[] = constant(2.0)
            c2: float64[] = constant(2.0)
            v0: float32[3] = mul(x, c0)
            v2: float32[] = sum(v0)
            v4: float32[1] = sum(v0, keepdims=True)
            v5: float32[3] = copy_to(x, device='cpu')
            v6: float32[3] = mul(v5, c0)
            return v2, v2, v4, c2, v6
        """,
    )


def test_what_another_device_has_no_kernel_for_is_taken_apart_for_it() -> None:
    before = """
        graph(x: float32[2, 3])
            v0: float32[2, 3] = silu(x)
            v1: float32[2] = mean(v0, axis=(1,))
            v2: float32[2] = exp(v1)
            return v0, v2
        """
    with Fake("poor", missing=("silu", "mean")).registered():
        check(
            lambda graph: decomposed(graph, hal.device("poor")),
            before,
            """
            graph(x: float32[2, 3])
                c0: float32[] = constant(1.0)
                c1: float32[] = constant(3.0)
                v0: float32[2, 3] = neg(x)
                v1: float32[2, 3] = exp(v0)
                v2: float32[2, 3] = add(v1, c0)
                v3: float32[2, 3] = div(x, v2)
                v4: float32[2] = sum(v3, axis=(1,))
                v5: float32[2] = div(v4, c1)
                v6: float32[2] = exp(v5)
                return v3, v6
            """,
        )
        graph = parse(text(before))
        assert decomposed(graph, hal.device("cpu")) is graph
        x = hal.randn(2, 3)
        pairs_of = plan_of(decomposed(graph, hal.device("poor"))).run(x.buffer), plan_of(graph).run(x.buffer)
        for got, want in zip(*pairs_of, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)


def test_constant_folding() -> None:
    check(
        constant_folding,
        """
        graph(x: float32[3])
            c0: float32[] = constant(2.0)
            c1: float32[] = constant(3.0)
            v0: float32[] = mul(c0, c1)
            v1: float32[] = neg(v0)
            v2: float32[3] = iota(device='cpu', size=3, dtype=float32)
            v3: float32[3] = full(v1, shape=(3,))
            v4: float32[3] = mul(v3, x)
            return v2, v4
        """,
        """
        graph(x: float32[3])
            c0: float32[] = constant(2.0)
            c1: float32[] = constant(3.0)
            v0: float32[] = constant(6.0)
            v1: float32[] = constant(-6.0)
            v2: float32[3] = constant([0.0, 1.0, 2.0])
            v3: float32[3] = full(v1, shape=(3,))
            v4: float32[3] = mul(v3, x)
            return v2, v4
        """,
    )


def test_algebra_keeps_every_bit() -> None:
    check(
        algebra,
        """
        graph(x: float32[3], m: bool[3], y: float32[1])
            one: float32[] = constant(1.0)
            zero: float32[] = constant(0.0)
            minus: float32[] = constant(-0.0)
            v0: float32[3] = mul(x, one)
            v1: float32[3] = div(v0, one)
            v2: float32[3] = sub(v1, zero)
            v3: float32[3] = sub(v2, minus)
            v4: float32[3] = add(v3, zero)
            v5: float32[3] = neg(v4)
            v6: float32[3] = neg(v5)
            v7: float32[3] = cast(v6, dtype=float32)
            v8: float32[3] = where(m, v7, v7)
            v9: float32[3] = where(m, y, y)
            return v8, v9
        """,
        """
        graph(x: float32[3], m: bool[3], y: float32[1])
            one: float32[] = constant(1.0)
            zero: float32[] = constant(0.0)
            minus: float32[] = constant(-0.0)
            v3: float32[3] = sub(x, minus)
            v4: float32[3] = add(v3, zero)
            v5: float32[3] = neg(v4)
            v9: float32[3] = where(m, y, y)
            return v4, v9
        """,
    )


def test_the_sign_of_a_zero_can_be_kept() -> None:
    before = """
        graph(x: float32[3])
            zero: float32[] = constant(0.0)
            v0: float32[3] = add(zero, x)
            return v0
        """
    check(rounding_algebra, before, "graph(x: float32[3])\n    zero: float32[] = constant(0.0)\n    return x")
    assert changes_rounding(rounding_algebra)
    assert [r for r in SIMPLIFICATIONS if changes_rounding(r)] == [alone, rounding_algebra, patterns, joins]
    assert len(simplified(parse(text(before)), exact=True).nodes) == 1
    assert len(simplified(parse(text(before)), exact=False).nodes) == 0
    x = hal.tensor([-0.0])
    assert not np.signbit(hal.compile(lambda x: x + 0.0, exact=True)(x).numpy())[0]


def test_what_was_padded_to_lie_side_by_side_is_joined() -> None:
    check(
        joins,
        """
        graph(a: float32[2, 1], b: float32[2, 3], c: float32[2, 2], d: float32[2, 4], e: float32[6])
            v0: float32[2, 6] = pad(b, padding=((0, 0), (1, 2)))
            v1: float32[2, 6] = pad(c, padding=((0, 0), (4, 0)))
            v2: float32[2, 6] = add(v1, v0)
            v3: float32[2, 6] = pad(a, padding=((0, 0), (0, 5)))
            v4: float32[2, 6] = add(v2, v3)
            v5: float32[2, 6] = pad(d, padding=((0, 0), (2, 0)))
            v6: float32[2, 6] = add(v0, v5)
            v7: float32[2, 6] = pad(d, value=1, padding=((0, 0), (2, 0)))
            v8: float32[2, 6] = pad(c, padding=((0, 0), (0, 4)))
            v9: float32[2, 6] = add(v7, v8)
            v10: float32[2, 6] = add(v3, e)
            return v4, v6, v9, v10
        """,
        """
        graph(a: float32[2, 1], b: float32[2, 3], c: float32[2, 2], d: float32[2, 4], e: float32[6])
            v0: float32[2, 6] = pad(b, padding=((0, 0), (1, 2)))
            v1: float32[2, 6] = pad(c, padding=((0, 0), (4, 0)))
            v2: float32[2, 6] = add(v1, v0)
            v3: float32[2, 6] = pad(a, padding=((0, 0), (0, 5)))
            v4: float32[2, 6] = concat(a, b, c, axis=1)
            v5: float32[2, 6] = pad(d, padding=((0, 0), (2, 0)))
            v6: float32[2, 6] = add(v0, v5)
            v7: float32[2, 6] = pad(d, value=1, padding=((0, 0), (2, 0)))
            v8: float32[2, 6] = pad(c, padding=((0, 0), (0, 4)))
            v9: float32[2, 6] = add(v7, v8)
            v10: float32[2, 6] = add(v3, e)
            return v4, v6, v9, v10
        """,
    )
    x = hal.tensor(np.arange(12, dtype=np.float32).reshape(2, 6))
    x.requires_grad_()

    def step(x: hal.Tensor) -> hal.Tensor:
        (x[:, :1].exp().sum() + x[:, 1:4].tanh().sum() + x[:, 4:].sin().sum()).backward()
        assert x.grad is not None
        return x.grad

    expected = step(x).numpy().copy()
    x.grad = None
    compiled = hal.compile(step)
    np.testing.assert_array_equal(compiled(x).numpy(), expected)
    assert [s.node.op.name for s in compiled.plans[0].steps].count("concat") == 1


def test_shape_cleanup() -> None:
    check(
        shape_cleanup,
        """
        graph(x: float32[2, 3, 4])
            v0: float32[6, 4] = reshape(x, shape=(6, 4))
            v1: float32[24] = reshape(v0, shape=(24,))
            v2: float32[2, 3, 4] = reshape(v1, shape=(2, 3, 4))
            v3: float32[3, 4, 2] = permute(v2, axes=(1, 2, 0))
            v4: float32[2, 3, 4] = permute(v3, axes=(2, 0, 1))
            v5: float32[2, 3, 4] = slice(v4, start=(0, 0, 0), stop=(2, 3, 4), step=(1, 1, 1))
            v6: float32[2, 3, 4] = slice(v5, start=(1, 0, 0), stop=(-1, 3, 4), step=(-1, 1, 1))
            v7: float32[5, 2, 3, 4] = broadcast_to(v6, shape=(5, 2, 3, 4))
            return v1, v7
        """,
        """
        graph(x: float32[2, 3, 4])
            v0: float32[6, 4] = reshape(x, shape=(6, 4))
            v1: float32[24] = reshape(x, shape=(24,))
            v3: float32[3, 4, 2] = permute(x, axes=(1, 2, 0))
            v6: float32[2, 3, 4] = slice(x, start=(1, 0, 0), stop=(-1, 3, 4), step=(-1, 1, 1))
            v7: float32[5, 2, 3, 4] = broadcast_to(v6, shape=(5, 2, 3, 4))
            return v1, v7
        """,
    )


def test_pairs() -> None:
    """A function and its derivative at one value; not with other settings, nor where the device has no kernel."""
    check(
        pairs,
        """
        graph(x: float32[3], g: float32[3])
            v0: float32[3] = gelu(x)
            v1: float32[3] = gelu_slope(x, approximate='tanh')
            v2: float32[3] = mul(v0, v1)
            v3: float32[3] = gelu_slope(x)
            v4: float32[3] = mul(g, v3)
            return v2, v4
        """,
        """
        graph(x: float32[3], g: float32[3])
            v0: float32[3], v3: float32[3] = gelu_with_slope(x)
            v1: float32[3] = gelu_slope(x, approximate='tanh')
            v2: float32[3] = mul(v0, v1)
            v4: float32[3] = mul(g, v3)
            return v2, v4
        """,
    )
    x = hal.tensor([*np.linspace(-16, 16, 2000), np.inf, -np.inf, np.nan, -0.0], dtype=hal.float32)
    for approximate in ("none", "tanh"):
        both = ops.gelu_with_slope(x, approximate=approximate)
        apart = ops.gelu(x, approximate=approximate), ops.gelu_slope(x, approximate=approximate)
        for got, want in zip(both, apart, strict=True):
            np.testing.assert_array_equal(got.numpy(), want.numpy())


def test_memory_of_its_own() -> None:
    """Views of inputs, constants and of one another become copies, unless they go nowhere or belong together."""
    check(
        lambda graph: own_memory(graph, [0, 1, 1, 2, 3, KEPT, KEPT]),
        """
        graph(x: float32[2, 3], w: float32[2])
            c0: float32[] = constant(1.0)
            v0: float32[2, 3] = exp(x)
            v1: float32[6] = reshape(v0, shape=(6,))
            v2: float32[6] = reshape(x, shape=(6,))
            update w <- w
            return v2, v0, v1, v1, c0, x, w
        """,
        """
        graph(x: float32[2, 3], w: float32[2])
            c0: float32[] = constant(1.0)
            v0: float32[2, 3] = exp(x)
            v1: float32[6] = reshape(v0, shape=(6,))
            v2: float32[6] = reshape(x, shape=(6,))
            v3: float32[6] = cast(v2, dtype=float32)
            v4: float32[6] = cast(v1, dtype=float32)
            v5: float32[] = cast(c0, dtype=float32)
            v6: float32[2] = cast(w, dtype=float32)
            v7: float32[2] = cast(w, dtype=float32)
            update w <- v7
            return v3, v0, v1, v4, v5, x, v6
        """,
    )


def test_a_plugin_adds_rewrites(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        @hookimpl
        def hal_rewrites(self) -> list[Callable[[Graph], Graph]]:
            return [halved]

    def halved(graph: Graph) -> Graph:
        """Divisions by two as multiplications by a half."""
        nodes = []
        half = hal.tensor(0.5)
        constants = dict(graph.constants)
        for node in graph.nodes:
            if node.op is ops.div and constants.get(node.inputs[1]) is not None:
                value = Value(half.spec, half.device)
                constants[value] = half
                node = replace(node, op=ops.mul, inputs=(node.inputs[0], value))
            nodes.append(node)
        return replace(graph, nodes=tuple(nodes), constants=constants)

    monkeypatch.setattr(registry(), "_plugins", list(registry()._plugins))
    hal.register(Plugin())
    f = hal.compile(lambda x: x / 2)
    assert f(hal.ones(3)).tolist() == [0.5, 0.5, 0.5]
    assert [n.op.name for n in f.plans[0].graph.nodes] == ["mul"]
