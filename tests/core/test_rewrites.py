"""Each rewrite alone: the text of a graph before, and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from textwrap import dedent

import numpy as np
import pytest

import hal
from hal import ops
from hal.errors import GraphError
from hal.graph import memory
from hal.graph.graph import Graph, Group, Value
from hal.graph.planner import plan_of
from hal.graph.rewrite import SIMPLIFICATIONS, changes_rounding, optimized, simplified
from hal.graph.rewrites.algebra import algebra, rounding_algebra
from hal.graph.rewrites.common import common_subexpressions
from hal.graph.rewrites.dead import dead_code
from hal.graph.rewrites.decomposition import decomposed
from hal.graph.rewrites.folding import constant_folding
from hal.graph.rewrites.fusion import elementwise_fusion
from hal.graph.rewrites.joins import joins
from hal.graph.rewrites.neighbours import epilogue_fusion, reduction_fusion
from hal.graph.rewrites.outputs import KEPT, own_memory
from hal.graph.rewrites.pairs import pairs
from hal.graph.rewrites.patterns import patterns
from hal.graph.rewrites.shapes import shape_cleanup
from hal.graph.rewrites.updates import optimizer_updates
from hal.graph.text import parse
from hal.plugin import hookimpl
from hal.registry import registry
from hal.testing.fake import Fake


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def text(body: str) -> str:
    return dedent(body).strip()


def check(rewrite: Callable[[Graph], Graph], before: str, after: str) -> None:
    graph = parse(text(before))
    assert graph.text() == text(before)  # what the test says is how graphs are written
    result = rewrite(graph)
    result.check()
    assert result.text() == text(after)


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
    assert [r for r in SIMPLIFICATIONS if changes_rounding(r)] == [rounding_algebra, patterns, joins]
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


def test_patterns() -> None:
    """What a user wrote out becomes one op; not where something on the way is needed, or an axis is not a last one."""
    check(
        patterns,
        """
        graph(x: float32[2, 3], w: float32[3], b: float32[3])
            two: float32[] = constant(2.0)
            eps: float32[] = constant(0.5)
            v0: float32[2, 1] = max(x, axis=-1, keepdims=True)
            v1: float32[2, 3] = sub(x, v0)
            v2: float32[2, 3] = exp(v1)
            v3: float32[2] = sum(v2, axis=1)
            v4: float32[2, 1] = reshape(v3, shape=(2, 1))
            v5: float32[2, 3] = div(v2, v4)
            v6: float32[2, 1] = mean(v5, axis=1, keepdims=True)
            v7: float32[2, 3] = sub(v5, v6)
            v8: float32[2, 3] = pow(v7, two)
            v9: float32[2, 1] = mean(v8, axis=1, keepdims=True)
            v10: float32[2, 1] = add(v9, eps)
            v11: float32[2, 1] = rsqrt(v10)
            v12: float32[2, 3] = mul(v7, v11)
            v13: float32[2, 3] = mul(w, v12)
            v14: float32[2, 3] = add(v13, b)
            v15: float32[2, 3] = mul(v14, v14)
            v16: float32[2, 1] = mean(v15, axis=1, keepdims=True)
            v17: float32[2, 1] = add(eps, v16)
            v18: float32[2, 1] = sqrt(v17)
            v19: float32[2, 3] = div(v14, v18)
            v20: float32[2, 1] = logsumexp(v19, axis=1, keepdims=True)
            v21: float32[2, 3] = sub(v19, v20)
            v22: float32[1, 3] = max(v21, axis=0, keepdims=True)
            v23: float32[2, 3] = sub(v21, v22)
            v24: float32[2, 3] = exp(v23)
            v25: float32[1, 3] = sum(v24, axis=0, keepdims=True)
            v26: float32[2, 3] = div(v24, v25)
            v27: float32[2, 3] = square(x)
            v28: float32[1, 3] = mean(v27, axis=0, keepdims=True)
            v29: float32[1, 3] = add(v28, eps)
            v30: float32[1, 3] = sqrt(v29)
            v31: float32[2, 3] = div(x, v30)
            return v26, v24, v31
        """,
        """
        graph(x: float32[2, 3], w: float32[3], b: float32[3])
            two: float32[] = constant(2.0)
            eps: float32[] = constant(0.5)
            v5: float32[2, 3] = softmax(x, axis=1)
            v14: float32[2, 3] = layer_norm(v5, w, b, eps=0.5, dims=1)
            v19: float32[2, 3] = rms_norm(v14, eps=0.5, dims=1)
            v21: float32[2, 3] = log_softmax(v19, axis=1)
            v22: float32[1, 3] = max(v21, axis=0, keepdims=True)
            v23: float32[2, 3] = sub(v21, v22)
            v24: float32[2, 3] = exp(v23)
            v25: float32[1, 3] = sum(v24, axis=0, keepdims=True)
            v26: float32[2, 3] = div(v24, v25)
            v27: float32[2, 3] = square(x)
            v28: float32[1, 3] = mean(v27, axis=0, keepdims=True)
            v29: float32[1, 3] = add(v28, eps)
            v30: float32[1, 3] = sqrt(v29)
            v31: float32[2, 3] = div(x, v30)
            return v26, v24, v31
        """,
    )
    assert changes_rounding(patterns)


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


# fmt: off
WRITTEN_OUT: dict[str, Callable[[hal.Tensor, hal.Tensor, hal.Tensor], hal.Tensor]] = {
    "softmax": lambda x, w, b: (lambda e: e / e.sum(dim=1, keepdim=True))((x - x.max(dim=1, keepdim=True)[0]).exp()),
    "log_softmax": lambda x, w, b: (lambda z: z - z.exp().sum(-1, keepdim=True).log())(x - x.amax(-1, keepdim=True)),
    "layer_norm": lambda x, w, b: w * (x - x.mean(-1, keepdim=True))
                                  / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt() + b,
    "rms_norm": lambda x, w, b: w * (x * hal.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)),
}
# fmt: on


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_patterns_as_they_are_written(name: str) -> None:
    function = WRITTEN_OUT[name]
    given = hal.randn(4, 5, 6), hal.randn(6), hal.randn(6)
    compiled, exact = hal.compile(function), hal.compile(function, exact=True)
    want = function(*given).numpy()
    for _ in range(2):
        np.testing.assert_allclose(compiled(*given).numpy(), want, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(exact(*given).numpy(), want)
    assert [step.node.op.name for step in compiled.plans[0].steps] == [name]
    x = given[0].clone().requires_grad_()  # whose backward pass needs what is on the way
    compiled(x, *given[1:]).sum().backward()
    y = given[0].clone().requires_grad_()
    function(y, *given[1:]).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-5, atol=1e-6)


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


def test_elementwise_fusion() -> None:
    """What needs the group's own result by way of another op stays outside; what others need comes out of it."""
    graph = elementwise_fusion(parse(text("""
        graph(x: float32[2, 3], b: float32[3])
            v0: float32[2, 3] = add(x, b)
            v1: float32[2, 3] = tanh(v0)
            v2: float32[2, 3] = mul(v0, v1)
            s: float32[2, 1] = sum(v2, axis=1, keepdims=True)
            v3: float32[2, 3] = div(v2, s)
            v4: float32[2, 3] = exp(v3)
            v5: float32[3] = neg(b)
            v6: float32[2, 3] = add(v4, v1)
            return v6, v5
    """)))  # fmt: skip
    graph.check()
    assert graph.text() == text("""
        graph(x: float32[2, 3], b: float32[3])
            v1: float32[2, 3], v2: float32[2, 3] = elementwise_add_tanh_mul(x, b)
            |   graph(x: float32[2, 3], b: float32[3])
            |       v0: float32[2, 3] = add(x, b)
            |       v1: float32[2, 3] = tanh(v0)
            |       v2: float32[2, 3] = mul(v0, v1)
            |       return v1, v2
            s: float32[2, 1] = sum(v2, axis=1, keepdims=True)
            v6: float32[2, 3] = elementwise_div_exp_add(v2, s, v1)
            |   graph(v2: float32[2, 3], s: float32[2, 1], v1: float32[2, 3])
            |       v3: float32[2, 3] = div(v2, s)
            |       v4: float32[2, 3] = exp(v3)
            |       v6: float32[2, 3] = add(v4, v1)
            |       return v6
            v5: float32[3] = neg(b)
            return v6, v5
    """)


def test_no_join_is_given_up_in_a_large_graph() -> None:
    """Sums whose parts are used, of a chain of products: from one sum to the next much is between to look through."""
    lines = ["graph(x: float32[2, 2], w: float32[2, 2])"]
    chain, total = "w", "x"
    for i in range(300):
        lines += [f"    p{i} = matmul({chain}, w)", f"    s{i} = add({total}, p{i})", f"    q{i} = matmul(s{i}, w)"]
        chain, total = f"p{i}", f"s{i}"
    graph = parse("\n".join([*lines, f"    return {', '.join(f'q{i}' for i in range(300))}"]))
    fused = elementwise_fusion(graph)
    fused.check()
    assert [len(n.op.graph.nodes) for n in fused.nodes if isinstance(n.op, Group)] == [128, 128, 44]


def test_several_producers_join_one_group() -> None:
    """All that feed a node, unless something that is not elementwise stands between them."""
    graph = elementwise_fusion(parse(text("""
        graph(x: float32[2, 3], y: float32[2, 3], z: float32[2, 3])
            v0: float32[2, 3] = mul(x, y)
            v1: float32[2, 3] = add(v0, z)
            v2: float32[2, 3] = mul(x, z)
            v3: float32[2, 3] = sub(v1, v2)
            v4: float32[2, 3] = exp(v3)
            s: float32[2, 1] = sum(v4, axis=1, keepdims=True)
            v5: float32[2, 3] = neg(y)
            v6: float32[2, 3] = mul(v5, s)
            v7: float32[2, 3] = add(v4, v6)
            return v7
    """)))  # fmt: skip
    graph.check()
    assert graph.text() == text("""
        graph(x: float32[2, 3], y: float32[2, 3], z: float32[2, 3])
            v4: float32[2, 3] = elementwise_mul_add_sub_exp(x, y, z)
            |   graph(x: float32[2, 3], y: float32[2, 3], z: float32[2, 3])
            |       v0: float32[2, 3] = mul(x, y)
            |       v1: float32[2, 3] = add(v0, z)
            |       v2: float32[2, 3] = mul(x, z)
            |       v3: float32[2, 3] = sub(v1, v2)
            |       v4: float32[2, 3] = exp(v3)
            |       return v4
            s: float32[2, 1] = sum(v4, axis=1, keepdims=True)
            v7: float32[2, 3] = elementwise_neg_mul_add(y, s, v4)
            |   graph(y: float32[2, 3], s: float32[2, 1], v4: float32[2, 3])
            |       v5: float32[2, 3] = neg(y)
            |       v6: float32[2, 3] = mul(v5, s)
            |       v7: float32[2, 3] = add(v4, v6)
            |       return v7
            return v7
    """)


def test_neighbours_join_elementwise_ops() -> None:
    """A contraction before them, a reduction after them; not where something else needs what is between."""
    graph = parse(text("""
        graph(x: float32[2, 3], w: float32[4, 3], b: float32[4])
            v0: float32[2, 4] = linear(x, w)
            v1: float32[2, 4] = add(v0, b)
            v2: float32[2, 4] = relu(v1)
            v3: float32[2, 4] = linear(x, w, b)
            v4: float32[2, 4] = mul(v3, v3)
            v5: float32[2] = sum(v4, axis=1)
            v6: float32[2, 3] = exp(x)
            v7: float32[] = max(v6)
            return v2, v3, v5, v7
    """))  # fmt: skip
    graph = reduction_fusion(epilogue_fusion(elementwise_fusion(graph)))
    graph.check()
    assert graph.text() == text("""
        graph(x: float32[2, 3], w: float32[4, 3], b: float32[4])
            v2: float32[2, 4] = epilogue_linear_add_relu(x, w, b)
            |   graph(x: float32[2, 3], w: float32[4, 3], b: float32[4])
            |       v0: float32[2, 4] = linear(x, w)
            |       v1: float32[2, 4] = add(v0, b)
            |       v2: float32[2, 4] = relu(v1)
            |       return v2
            v3: float32[2, 4] = linear(x, w, b)
            v5: float32[2] = reduction_mul_sum(v3)
            |   graph(v3: float32[2, 4])
            |       v4: float32[2, 4] = mul(v3, v3)
            |       v5: float32[2] = sum(v4, axis=1)
            |       return v5
            v7: float32[] = reduction_exp_max(x)
            |   graph(x: float32[2, 3])
            |       v6: float32[2, 3] = exp(x)
            |       v7: float32[] = max(v6)
            |       return v7
            return v2, v3, v5, v7
    """)
    assert changes_rounding(reduction_fusion)
    x, w, b = hal.randn(2, 3), hal.randn(4, 3), hal.randn(4)
    steps = plan_of(graph).steps  # the CPU takes no groups as small: their nodes run one by one
    assert [step.node.op.name for step in steps] == ["linear", "add", "relu", "linear", "mul", "sum", "exp", "max"]
    got = plan_of(graph).run(x.buffer, w.buffer, b.buffer)
    np.testing.assert_array_equal(got[0], ops.relu(ops.linear(x, w) + b).numpy())


def test_optimizer_updates() -> None:
    graph = optimizer_updates(parse(text("""
        graph(p: float32[2], q: float32[3], g: float32[2], h: float32[3], lr: float32[])
            v0: float32[2] = sgd_step(p, g, lr, weight_decay=0.0, maximize=False)
            v1: float32[3] = sgd_step(q, h, lr, weight_decay=0.1, maximize=False)
            v2: float32[] = sum(g)
            update p <- v0
            update q <- v1
            return v2
    """)))  # fmt: skip
    graph.check()
    assert [n.op.name for n in graph.nodes] == ["sum", "updates_sgd_step"]
    plan = plan_of(graph)
    assert plan.steps[-1].how == "fused"
    assert plan.in_place == frozenset(graph.updates)


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


# Text.


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("hello", "begins with graph"),
        ("graph(x: float32[2])\n    return y", "uses 'y' before"),
        ("graph(x: float32[2])\n    v0 = wobble(x)", "no op 'wobble'"),
        ("graph(x: float32[2])\n    v0: float32[3] = exp(x)", "but the op gives"),
        ("graph(x: float32[2])\n    v0 = exp x", "cannot read"),
        ("graph(x)", "needs a dtype"),
    ],
)
def test_what_is_no_graph(bad: str, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        parse(bad)


def test_lines_are_shown() -> None:
    f = hal.compile(lambda x: x.exp())
    f(hal.ones(2))
    line = f.function.__code__.co_firstlineno
    assert f.plans[0].graph.text(lines=True).splitlines()[1].endswith(f"exp(x0)  # {__file__}:{line}")


# Memory.


def test_the_arena_is_as_small_as_it_can_be() -> None:
    """On random graphs of large and small results, at most a tenth above the least that any assignment needs."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(20):
        blocks = []
        for i in range(60):
            size = int(2 ** rng.uniform(6, 14)) // 64 * 64
            blocks.append(memory.Block(i, i + int(rng.integers(1, 12)), size, [object()]))
        offsets, size = memory.assign(blocks)
        least = memory.bound(blocks)
        for a in blocks:
            for b in blocks:
                if a is not b and a.start <= b.stop and b.start <= a.stop:
                    first, second = offsets[a.values[0]], offsets[b.values[0]]
                    assert first + a.nbytes <= second or second + b.nbytes <= first
        worst = max(worst, size / least)
    assert worst <= 1.1


def test_results_share_memory_when_they_are_not_alive_together() -> None:
    f = hal.compile(lambda x, w: ((x @ w).exp() @ w).exp() @ w)
    f(hal.ones(64, 64), hal.ones(64, 64))
    (plan,) = f.plans
    (found,) = plan.memory.values()
    assert found.bytes == found.bound == 2 * 64 * 64 * 4
    assert len(found.offsets) == 4


def test_groups_are_one_node_each() -> None:
    graph = optimized(parse("graph(x: float32[4])\n    v0 = exp(x)\n    v1 = neg(v0)\n    return v1"), exact=False)
    (node,) = graph.nodes
    assert isinstance(node.op, Group)
    assert node.cost.flops == sum(n.cost.flops for n in node.op.graph.nodes)
    assert node.cost.bytes == 2 * 4 * 4
