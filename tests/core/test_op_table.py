"""Everything that the op table promises, derived from the table: an added op is tested without a line here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import hal
from hal import dtypes, ops
from hal.decision import decision_for
from hal.dtypes import DType
from hal.op import Array, Cost, Op, Sample
from hal.testing.accuracy import cast_inputs, judge, specs_of
from hal.testing.fake import Fake

EVERY_OP = [pytest.param(op, id=name) for name, op in sorted(ops.TABLE.items())]
FLOATS = [dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16]
COMPOSITES = [pytest.param(op, id=name) for name, op in sorted(ops.TABLE.items()) if op.decompose is not None]
SMALL = 3000  # elements; finite differences of more say nothing new


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def samples(op: Op, dtype: DType = dtypes.float32) -> Iterator[tuple[int, Sample, tuple[Array, ...]]]:
    for i, sample in enumerate(op.samples(np.random.default_rng(0))):
        if sample.exact and dtype is not dtypes.float32:
            continue  # their dtypes are their own: once is enough
        yield i, sample, cast_inputs(sample, dtype)


def call(function: Any, op: Op, inputs: tuple[Array, ...], settings: dict[str, Any]) -> tuple[hal.Tensor, ...]:
    """Run on tensors that share the arrays' memory, negative strides and all."""
    if "device" in settings:
        settings = {**settings, "device": hal.device("cpu")}
    result = function(*(hal.from_numpy(np.asarray(x)) for x in inputs), **settings)
    return result if isinstance(result, tuple) else (result,)


def inferred(op: Op, inputs: tuple[Array, ...], settings: dict[str, Any]) -> tuple[Any, ...]:
    out = op.infer(*specs_of(op, inputs, settings), **settings)
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize("op", EVERY_OP)
def test_agrees_with_the_reference(op: Op, dtype: DType) -> None:
    for i, sample, inputs in samples(op, dtype):
        settings = op.bind(len(inputs), sample.settings)
        specs = inferred(op, inputs, settings)
        got = call(op, op, inputs, settings)
        assert tuple(t.spec for t in got) == specs, f"sample {i}: {got} is not as inferred"
        verdict = judge(op, inputs, settings, tuple(t.numpy() for t in got), specs)
        assert verdict.passed, f"sample {i} {[x.shape for x in inputs]} {settings}: {verdict}"


@pytest.mark.parametrize("op", COMPOSITES)
def test_decomposition_agrees_with_the_reference(op: Op) -> None:
    """With primitives that round once: how far they themselves may be off is not the decomposition's business."""
    assert op.decompose is not None
    primitive = [o.name for o in ops.TABLE.values() if o.is_primitive]
    with Fake("exact", dtypes=dtypes.ALL, only=primitive).registered():
        device = hal.device("exact")
        for i, sample, inputs in samples(op):
            settings = op.bind(len(inputs), sample.settings)
            if "device" in settings:
                settings["device"] = device
            if op.promote is not None:  # dispatch casts before it decomposes
                wanted = op.promote(*(dtypes.of(x.dtype) for x in inputs))
                inputs = tuple(x.astype(w.numpy) for x, w in zip(inputs, wanted, strict=True))
            with hal.no_grad():
                got = op.decompose(*(hal.tensor(x, device=device) for x in inputs), **settings)
            results = tuple(t.cpu().numpy() for t in (got if isinstance(got, tuple) else (got,)))
            verdict = judge(op, inputs, settings, results, inferred(op, inputs, settings))
            assert verdict.passed, f"sample {i} {[x.shape for x in inputs]} {settings}: {verdict}"


@pytest.mark.parametrize("op", COMPOSITES)
def test_decomposes_into_the_primitives(op: Op) -> None:
    primitive = [o.name for o in ops.TABLE.values() if o.is_primitive]
    with Fake("exact", dtypes=dtypes.ALL, only=primitive).registered():
        device = hal.device("exact")
        for i, sample, inputs in samples(op):
            settings = op.bind(len(inputs), sample.settings)
            if "device" in settings:
                settings["device"] = device
            decision = decision_for(op, device, specs_of(op, inputs, settings), settings)
            assert decision.share == 1.0, (
                f"sample {i}: {decision.share} of {op.name} stays on a device with the primitives"
            )


def test_primitives_are_few() -> None:
    primitive = sorted(op.name for op in ops.TABLE.values() if op.is_primitive)
    assert primitive == sorted([
        "add", "mul", "div", "floor_divide", "less", "equal", "where", "exp", "log", "sin", "cos", "sqrt", "tanh",
        "floor", "pow", "sum", "max", "matmul", "reshape", "permute", "broadcast_to", "slice", "pad", "take",
        "index_add", "cast", "iota", "full", "bitwise_and", "bitwise_right_shift",
    ])  # fmt: skip
    assert len(primitive) <= 30


@pytest.mark.parametrize("op", EVERY_OP)
def test_record_is_whole(op: Op) -> None:
    assert op.doc, "a record says what its op is"
    assert op.name.isidentifier()
    assert op.gradient or op.decompose or op.no_gradient, f"{op.name} says neither its gradient nor why it has none"
    assert sum(1 for _ in samples(op)) > 0
    for i, sample, inputs in samples(op):
        settings = op.bind(len(inputs), sample.settings)
        specs = specs_of(op, inputs, settings)
        cost = op.cost(*specs, out=op.infer(*specs, **settings), **settings)
        assert isinstance(cost, Cost), f"sample {i}"
        assert cost.flops >= 0
        assert cost.bytes >= 0


def differentiable(op: Op) -> bool:
    return (op.gradient is not None or op.decompose is not None) and not op.no_gradient


def floating_inputs(inputs: tuple[Array, ...]) -> list[int]:
    return [i for i, x in enumerate(inputs) if dtypes.of(x.dtype).is_floating]


def project(outs: tuple[hal.Tensor, ...], weights: list[Array]) -> hal.Tensor:
    """A single number that depends on every floating result."""
    total = hal.zeros((), dtype=hal.float64)
    for out, weight in zip(outs, weights, strict=True):
        if out.dtype.is_floating:
            total = total + (out * hal.tensor(weight)).sum()
    return total


@pytest.mark.parametrize("op", EVERY_OP)
def test_gradient_agrees_with_finite_differences(op: Op) -> None:
    if not differentiable(op):
        for _, sample, inputs in samples(op):
            tensors = [hal.tensor(x, requires_grad=dtypes.of(x.dtype).is_floating) for x in inputs]
            out = op(*tensors, **sample.settings)
            assert not any(o.requires_grad for o in (out if isinstance(out, tuple) else (out,)))
            return
        return
    rng = np.random.default_rng(1)
    checked = 0
    for i, sample, inputs in samples(op, dtypes.float64):
        chosen = floating_inputs(inputs)
        if not sample.smooth or not chosen or sum(x.size for x in inputs) > SMALL:
            continue
        settings = op.bind(len(inputs), sample.settings)
        if not any(s.dtype.is_floating for s in inferred(op, inputs, settings)):
            continue
        weights = [rng.normal(size=s.shape) for s in inferred(op, inputs, settings)]

        def value(arrays: list[Array], settings: Any = settings, weights: list[Array] = weights) -> float:
            with hal.no_grad():
                return project(call(op, op, tuple(arrays), settings), weights).item()

        tensors = [hal.tensor(x, requires_grad=k in chosen) for k, x in enumerate(inputs)]
        result = op(*tensors, **settings)
        outs = result if isinstance(result, tuple) else (result,)
        total = project(outs, weights)
        if not total.requires_grad:
            continue
        grads = hal.grad(total, [tensors[k] for k in chosen], allow_unused=True)
        for k, g in zip(chosen, grads, strict=True):
            checked += 1
            if inputs[k].size == 0:
                assert g is None or g.shape == inputs[k].shape
                continue
            direction = rng.normal(size=inputs[k].shape)
            h = 1e-6
            ahead, behind = list(inputs), list(inputs)
            ahead[k], behind[k] = inputs[k] + h * direction, inputs[k] - h * direction
            want = (value(ahead) - value(behind)) / (2 * h)
            got = 0.0 if g is None else float((g.numpy() * direction).sum())
            assert g is None or g.shape == inputs[k].shape
            scale = max(1.0, abs(want), float(np.abs(direction).sum()) * 1e-2)
            assert abs(got - want) <= 2e-5 * scale, (
                f"sample {i}, input {k} {settings}: gradient {got}, differences {want}"
            )
    assert checked or op.kind == "random", f"no sample of {op.name} is smooth, so its gradient was never checked"


@pytest.mark.parametrize("op", [entry for entry in EVERY_OP if differentiable(entry.values[0])])
def test_second_order_agrees_with_finite_differences(op: Op) -> None:
    rng = np.random.default_rng(2)
    for i, sample, inputs in samples(op, dtypes.float64):
        chosen = floating_inputs(inputs)
        if not sample.smooth or not chosen or sum(x.size for x in inputs) > SMALL // 10:
            continue
        settings = op.bind(len(inputs), sample.settings)
        specs = inferred(op, inputs, settings)
        if not any(s.dtype.is_floating for s in specs):
            continue
        weights = [rng.normal(size=s.shape) for s in specs]
        directions = {k: rng.normal(size=inputs[k].shape) for k in chosen}

        def slope(
            arrays: list[Array], create_graph: bool, settings: Any = settings, weights: Any = weights,
            chosen: list[int] = chosen, directions: Any = directions,
        ) -> tuple[hal.Tensor | None, list[hal.Tensor]]:  # fmt: skip
            tensors = [hal.tensor(x, requires_grad=k in chosen) for k, x in enumerate(arrays)]
            result = op(*tensors, **settings)
            total = project(result if isinstance(result, tuple) else (result,), weights)
            if not total.requires_grad:
                return None, tensors
            grads = hal.grad(total, [tensors[k] for k in chosen], create_graph=create_graph, allow_unused=True)
            along = [(g * hal.tensor(directions[k])).sum() for k, g in zip(chosen, grads, strict=True) if g is not None]
            return (sum(along[1:], along[0]) if along else None), tensors

        s, tensors = slope(list(inputs), True)
        if s is None or not s.requires_grad:
            continue
        seconds = hal.grad(s, [tensors[k] for k in chosen], allow_unused=True)
        h = 1e-6
        for k, g in zip(chosen, seconds, strict=True):
            if inputs[k].size == 0:
                continue
            direction = rng.normal(size=inputs[k].shape)
            ahead, behind = list(inputs), list(inputs)
            ahead[k], behind[k] = inputs[k] + h * direction, inputs[k] - h * direction
            up, down = slope(ahead, False)[0], slope(behind, False)[0]
            assert up is not None
            assert down is not None
            want = (up.item() - down.item()) / (2 * h)
            got = 0.0 if g is None else float((g.numpy() * direction).sum())
            scale = max(1.0, abs(want), abs(got), abs(up.item()))
            assert abs(got - want) <= 2e-4 * scale, (
                f"sample {i}, input {k} {settings}: second order {got}, differences {want}"
            )
