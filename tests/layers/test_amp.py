"""Mixed precision: which ops run in which dtype, that training comes to the same, and the scaling of losses."""

import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import SettingError
from nn import functional as F
from nn import optim
from nn.amp import GradScaler

X = hal.tensor(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))


def test_products_run_in_16_bits_and_what_would_suffer_in_32(each_device: hal.Device) -> None:
    x = X.to(each_device)
    weight, half = hal.ones(3, 4, device=each_device), x.to(hal.bfloat16)
    with hal.autocast(dtype=hal.bfloat16):
        assert hal.is_autocast_enabled()
        low = [x @ x.T, F.linear(x, weight), hal.einsum("ij,kj->ik", x, x), x.reshape(1, 6, 4) @ x.T]
        low.append(F.conv2d(x.reshape(1, 1, 6, 4), hal.ones(1, 1, 2, 2, device=each_device)))
        wide = [half.softmax(dim=1), half.sum(), half.exp(), half**2, F.layer_norm(half, (4,)), F.mse_loss(half, half)]
        same = [half + half, half.relu(), x + x, half.max()]
        with hal.autocast(enabled=False):
            assert (x @ x.T).dtype is hal.float32
        with hal.autocast(dtype=hal.float16):
            assert (x @ x.T).dtype is hal.float16
        assert (x @ x.T).dtype is hal.bfloat16
    assert [t.dtype for t in low] == [hal.bfloat16] * len(low)
    assert [t.dtype for t in wide] == [hal.float32] * len(wide)
    assert [t.dtype for t in same] == [hal.bfloat16, hal.bfloat16, hal.float32, hal.bfloat16]
    assert (x @ x.T).dtype is hal.float32
    assert not hal.is_autocast_enabled()


def test_integers_and_float64_are_left_alone() -> None:
    whole, double = hal.ones(2, 2, dtype=hal.int32), hal.ones(2, 2, dtype=hal.float64)
    with hal.autocast():
        assert (whole @ whole).dtype is hal.int32
        assert (double @ double).dtype is hal.float64


def test_a_function_is_decorated_and_other_threads_are_not_meant() -> None:
    found: list[Any] = []

    @hal.autocast(dtype=hal.float16)
    def inside() -> Any:
        other = threading.Thread(target=lambda: found.append((X @ X.T).dtype))
        other.start()
        other.join()
        return (X @ X.T).dtype

    assert inside() is hal.float16
    assert found == [hal.float32]


def trained(dtype: Any) -> tuple[list[float], nn.Module]:
    hal.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 2))
    optimizer, scaler = optim.Adam(net.parameters(), lr=0.02), GradScaler(enabled=dtype is hal.float16)
    wanted = (X[:, 0] > X[:, 1]).long()
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        with hal.autocast(dtype=dtype or hal.bfloat16, enabled=dtype is not None):
            loss = F.cross_entropy(net(X), wanted)
        assert loss.dtype is hal.float32
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses, net


@pytest.mark.parametrize("dtype", [hal.bfloat16, hal.float16], ids=str)
def test_training_comes_to_the_same(dtype: Any) -> None:
    mixed, net = trained(dtype)
    plain, _ = trained(None)
    np.testing.assert_allclose(mixed, plain, rtol=0.1, atol=0.01)
    assert mixed != plain
    assert {p.dtype for p in net.parameters()} == {hal.float32}
    assert all(p.grad is not None and p.grad.dtype is hal.float32 for p in net.parameters())


def test_the_same_dtypes_as_torch(torch: ModuleType) -> None:
    x, y = X, torch.tensor(X.numpy())
    a, b = x.to(hal.bfloat16), y.to(torch.bfloat16)
    with hal.autocast(dtype=hal.bfloat16), torch.autocast("cpu", dtype=torch.bfloat16):
        pairs = [
            (x @ x.T, y @ y.T), (F.linear(x, x), torch.nn.functional.linear(y, y)), (x + x, y + y), (a * a, b * b),
            (F.mse_loss(a, a), torch.nn.functional.mse_loss(b, b)),
        ]  # fmt: skip
    assert [mine.dtype.name for mine, _ in pairs] == [str(theirs.dtype).removeprefix("torch.") for _, theirs in pairs]


def test_an_overflow_leaves_the_step_out_and_makes_the_factor_smaller() -> None:
    p = nn.Parameter(hal.tensor([1.0, 2.0]))
    optimizer = optim.SGD([p], lr=0.1)
    scaler = GradScaler(init_scale=8.0, growth_interval=2)
    scales = []
    for factor in (1.0, float("inf"), 1.0, 1.0, 1.0):
        before = p.tolist()
        optimizer.zero_grad()
        scaler.scale((p * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        if factor == 1.0:
            assert p.tolist() == pytest.approx([v - 0.1 for v in before])
        else:
            assert p.tolist() == before
    assert scales == [8.0, 4.0, 4.0, 8.0, 8.0]
    again = GradScaler()
    again.load_state_dict(scaler.state_dict())
    assert again.state_dict() == scaler.state_dict()


def test_gradients_can_be_clipped_between_unscaling_and_the_step(torch: ModuleType) -> None:
    p, q = nn.Parameter(hal.tensor([3.0, 4.0])), torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    a, b = optim.SGD([p], lr=1.0), torch.optim.SGD([q], lr=1.0)
    mine, theirs = GradScaler(init_scale=1024.0), torch.amp.GradScaler("cpu", init_scale=1024.0)
    mine.scale((p * p).sum()).backward()
    theirs.scale((q * q).sum()).backward()
    mine.unscale_(a)
    theirs.unscale_(b)
    assert p.grad is not None
    assert p.grad.tolist() == q.grad.tolist() == [6.0, 8.0]
    nn.utils.clip_grad_norm_([p], 1.0)
    torch.nn.utils.clip_grad_norm_([q], 1.0)
    mine.step(a)
    theirs.step(b)
    np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-6)
    with pytest.raises(RuntimeError, match="unscale_ was called already"):
        mine.unscale_(a)


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: hal.autocast(dtype=hal.float32), SettingError, "hal.bfloat16 or hal.float16, got hal.float32"),
    (lambda: GradScaler(growth_factor=0.5), SettingError, "growth_factor= above 1"),
    (lambda: GradScaler().update(), RuntimeError, "update needs a step"),
])  # fmt: skip
def test_error(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
