"""Fixtures for the layers: the same layer in torch and here, from the same weights, compared forward and backward."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import slow_dataset

import hal
import nn


def close(ours: Any, theirs: Any, tolerance: float = 2e-5) -> None:
    """Our tensors (or tuples of them) hold what torch's hold, up to rounding."""
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            close(a, b, tolerance)
        return
    if theirs is None:
        assert ours is None
        return
    want = theirs.detach().numpy()
    assert ours.shape == want.shape
    assert ours.dtype.name == want.dtype.name
    scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0)))
    np.testing.assert_allclose(ours.detach().numpy(), want, rtol=tolerance, atol=tolerance * scale)


def flat(out: Any) -> list[Any]:
    return [t for part in out for t in flat(part)] if isinstance(out, (tuple, list)) else [out]


@pytest.fixture
def parity(torch: ModuleType) -> Callable[..., None]:
    """Checks a layer of ours against torch's: state, result, gradients, and state again after the step."""

    def check(ours: nn.Module, theirs: Any, *inputs: Any, tolerance: float = 2e-5) -> None:
        state = {name: value.numpy().copy() for name, value in theirs.state_dict().items()}
        assert list(ours.state_dict()) == list(state)
        ours.load_state_dict(state)
        floats = [i for i, x in enumerate(inputs) if np.issubdtype(x.dtype, np.floating)]
        xs = [hal.tensor(x, requires_grad=i in floats) for i, x in enumerate(inputs)]
        ys = [torch.tensor(x, requires_grad=i in floats) for i, x in enumerate(inputs)]

        got, want = ours(*xs), theirs(*ys)

        close(got, want, tolerance)
        rng = np.random.default_rng(1)
        pairs = [(a, b) for a, b in zip(flat(got), flat(want), strict=True) if b is not None and b.requires_grad]
        total_a, total_b = 0.0, 0.0
        for a, b in pairs:
            g = rng.normal(size=b.shape).astype(b.detach().numpy().dtype)
            total_a, total_b = total_a + (a * hal.tensor(g)).sum(), total_b + (b * torch.tensor(g)).sum()
        if pairs:
            total_a.backward()
            total_b.backward()
        for i in floats:
            close(xs[i].grad, ys[i].grad, tolerance)
        named = dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            close(parameter.grad, named[name].grad, tolerance)
        after = theirs.state_dict()
        for name, value in ours.state_dict().items():
            close(value, after[name], tolerance)

    return check


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """The loaders of the test have ended their threads."""
    slow_dataset.before.clear()
    slow_dataset.before.update(threading.enumerate())
    yield
    assert not slow_dataset.workers()
