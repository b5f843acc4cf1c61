"""What runs as one: the text of a graph before it is grouped, and after."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import text

import hal
from hal import ops
from hal.graph.graph import Group
from hal.graph.planner import plan_of
from hal.graph.rewrite import changes_rounding, optimized
from hal.graph.rewrites.fusion import elementwise_fusion
from hal.graph.rewrites.neighbours import epilogue_fusion, reduction_fusion
from hal.graph.rewrites.updates import optimizer_updates
from hal.graph.text import parse


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


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


def test_groups_are_one_node_each() -> None:
    graph = optimized(parse("graph(x: float32[4])\n    v0 = exp(x)\n    v1 = neg(v0)\n    return v1"), exact=False)
    (node,) = graph.nodes
    assert isinstance(node.op, Group)
    assert node.cost.flops == sum(n.cost.flops for n in node.op.graph.nodes)
    assert node.cost.bytes == 2 * 4 * 4
