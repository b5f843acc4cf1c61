"""What tensors look like: the same text as in torch, with the facts that the numbers do not show."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal

VALUES: list[Any] = [
    1.0, 1.5, -0.001, 3, True, float("nan"), float("inf"), float("-inf"), 1e10, 1e-10, 0.0, -0.0, 123456.0,
    [1.0, 2.0], [1.0, 2.5], [[1.0, 2.0], [3.0, 4.0]], [0.1, 1000.0], [0.1, 200.0], [1e-5, 1.0], [1.0, 1e9], [1, -200],
    [True, False], [[True], [False]], [0.0, 0.0], [0.0, -1.5], [float("nan"), 1.0], [float("nan"), 1.5],
    [float("inf"), -1.0], [float("-inf"), 1.5, float("nan")], [1e-3, 1e-2], [99999.0, 1.0], [1e20, 1e21],
    [-1.0, 1.0], [[-1.5, 100.25], [3.0, 4.0]], [[[1.0, 2.0]], [[3.0, 4.5]]], [[[[1]]]], [1.0], [1.5], [[], []],
    [1e-5], [1e-4], [0.99995], [1001.0, 1.0], [1000.5, 1.0], [65504.0],
    np.arange(30, dtype=np.float32), np.arange(200), np.linspace(0, 1, 40).astype(np.float32),
    np.arange(1001, dtype=np.float32), np.arange(3000).reshape(100, 30), np.arange(2000.0).astype(np.float32) / 7,
    np.arange(1200).reshape(10, 10, 12), np.arange(4004).reshape(4, 1001), np.arange(24).reshape(2, 3, 4),
    np.arange(1001) * 1000, np.zeros((0, 3), np.float32), np.zeros((0,), np.int64), np.zeros((2, 0), bool),
    np.array([1.5], np.float64), np.array([1], np.uint8), np.zeros((0, 2), np.int32), np.array(2.0),
    np.array([1.25, 3.0], np.float16), np.arange(9).reshape(1, 1, 9) / 3, np.arange(1500).reshape(1500, 1),
    np.array([1 + 2j, 3 - 4j], np.complex64), np.array([1.5 + 2j], np.complex64), np.arange(1001) % 2 == 0,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda v: str(v)[:30])
@pytest.mark.parametrize("tracked", [False, True], ids=["plain", "requires_grad"])
def test_a_tensor_prints_as_in_torch(torch: ModuleType, value: Any, tracked: bool) -> None:
    ours, theirs = hal.tensor(value), torch.tensor(value)
    if tracked and not ours.dtype.is_inexact:
        return
    ours.requires_grad, theirs.requires_grad = tracked, tracked
    assert repr(ours) == repr(theirs).replace("torch.", "hal.").replace("torch.Size", "")


TEXTS = [
    ("hal.tensor([[1.0, 2.0], [3.0, 4.0]])", "tensor([[1., 2.],\n        [3., 4.]])"),
    ("hal.tensor([1.0, 2.5])", "tensor([1.0000, 2.5000])"),
    ("hal.tensor([1, 20])", "tensor([ 1, 20])"),
    ("hal.tensor(True)", "tensor(True)"),
    ("hal.tensor([1e-5, 1.0])", "tensor([1.0000e-05, 1.0000e+00])"),
    ("hal.tensor([1.0], dtype='bfloat16')", "tensor([1.], dtype=hal.bfloat16)"),
    ("hal.ones(2, device='fake')", "tensor([1., 1.], device='fake')"),
    ("hal.ones(2, device='fake', dtype='int8')", "tensor([1, 1], device='fake', dtype=hal.int8)"),
    ("hal.ones(0, 2, device='fake')", "tensor([], device='fake', size=(0, 2))"),
    ("hal.ones(2, requires_grad=True)", "tensor([1., 1.], requires_grad=True)"),
    ("hal.ones(2, requires_grad=True) + 1", "tensor([2., 2.], grad_fn=<add>)"),
    ("hal.arange(1001)", "tensor([   0,    1,    2,  ...,  998,  999, 1000])"),
    ("f'{hal.tensor(1.2345):.2f} {hal.tensor(7):>3} {hal.ones(1)}'", "'1.23   7 tensor([1.])'"),
    ("f'{hal.tensor(2.5)}'", "'2.5'"),
]


@pytest.mark.parametrize(("call", "text"), TEXTS, ids=[row[0] for row in TEXTS])
def test_text(call: str, text: str) -> None:
    assert repr(eval(call, {"hal": hal})) == text


def test_the_device_is_named_where_it_is_not_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = hal.ones(1)
    monkeypatch.setenv("HAL_BACKEND", "fake")
    assert repr(hal.ones(1)) == "tensor([1.])"
    assert repr(x) == "tensor([1.], device='cpu')"
    monkeypatch.setenv("HAL_BACKEND", "nowhere")
    assert repr(x) == "tensor([1.], device='cpu')"


def test_only_the_edges_of_a_large_tensor_are_read() -> None:
    x = hal.ones(300, 400, device="fake")
    with hal.placement_report() as report:
        text = repr(x)
    (entry,) = report.syncs.values()
    assert entry.bytes == 7 * 7 * 4
    assert text.count("...") == 7
    assert x.storage.version == 0


def test_printing_records_nothing() -> None:
    x = hal.ones(2000, requires_grad=True) * 2.0
    before = x.node
    assert "grad_fn=<mul>" in repr(x)
    assert x.node is before
