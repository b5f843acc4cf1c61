"""In-place methods and operators: they change the memory that others see, on devices with views and without."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import DTypeError, GradientError, ShapeError

ROWS = """
    add_(y)  add_(2)  add_(y,alpha=3)  sub_(y)  sub_(1,alpha=2)  mul_(y)  div_(y)  div_(y,rounding_mode="floor")
    pow_(2)  pow_(y)  floor_divide_(y)  remainder_(y)  fmod_(y)  abs_()  neg_()  sign_()  square_()  sqrt_()  rsqrt_()
    reciprocal_()  exp_()  expm1_()  log_()  log1p_()  sin_()  cos_()  tanh_()  sigmoid_()  relu_()  erf_()  floor_()
    ceil_()  trunc_()  round_()  clamp_(0.5,1)  clamp_(min=y)  clip_(max=1)  lerp_(y,0.5)  addcmul_(y,y,value=2)
    addcdiv_(y,y,value=2)  fill_(3)  zero_()  copy_(y)  masked_fill_(y>1,0.0)  scatter_(0,g,y)  scatter_(0,g,7.0)
    scatter_add_(0,g,y)  index_add_(0,i,y)  index_add_(0,i,y,alpha=2)  index_copy_(0,i,y)  index_fill_(1,i,5.0)
    multiply_(y)  subtract_(y)  divide_(y)
"""
NO_SLOPE = {  # torch has none, or zeros where nothing is left of what there was, or chooses another of equal places
    "floor_divide_(y)", "scatter_(0,g,y)", "fill_(3)", "zero_()",
}  # fmt: skip


@pytest.fixture(params=["cpu", "fake"])
def kind_of_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HAL_BACKEND", request.param)
    return str(request.param)


def arguments() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.uniform(0.2, 2, (2, 3)).astype(np.float32),
        "y": rng.uniform(0.2, 2, (2, 3)).astype(np.float32),
        "g": np.array([[0, 1, 0], [1, 0, 1]]),
        "i": np.array([1, 0]),
    }


@pytest.mark.parametrize("row", ROWS.split())
def test_a_method_with_an_underscore_does_in_place_what_it_does_without(row: str, kind_of_device: str) -> None:
    names = {name: hal.tensor(x) for name, x in arguments().items()}
    x = names["x"]
    alias, view, version = x.detach(), x.T, x.storage.version
    if row.startswith(("fill_", "zero_", "copy_")):
        expected = {"f": x * 0 + 3, "z": x * 0, "c": names["y"]}[row[0]].clone()
    else:
        expected = eval("x." + row.replace("_(", "(", 1), {}, names)
    returned = eval("x." + row, {}, names)
    assert returned is x
    for seen in (x, alias, view.T):
        np.testing.assert_allclose(seen.cpu().numpy(), expected.cpu().numpy(), rtol=1e-6)
    assert x.storage.version > version


@pytest.mark.parametrize("row", ROWS.split())
def test_a_view_changed_in_place_changes_only_its_part(row: str, kind_of_device: str) -> None:
    names = {name: hal.tensor(x) for name, x in arguments().items()}
    base = hal.zeros(4, 3)
    part = base[1:3]
    part.copy_(names["x"])
    eval("x." + row, {}, names)
    eval("p." + row, {}, {**names, "p": part})
    np.testing.assert_allclose(base[1:3].cpu().numpy(), names["x"].cpu().numpy(), rtol=1e-6)
    assert not base[::3].any()


@pytest.mark.parametrize("row", [r for r in ROWS.split() if r not in NO_SLOPE])
def test_the_gradient_goes_through_an_in_place_change(torch: ModuleType, row: str) -> None:
    found = []
    for make in (hal.tensor, torch.tensor):
        names = {name: make(x) for name, x in arguments().items()}
        for name in "xy":
            names[name].requires_grad_()
        leaf = names["x"]
        names["x"] = leaf * 1.5
        (eval("x." + row, {}, names) * make(np.arange(6, dtype=np.float32).reshape(2, 3))).sum().backward()
        found.append([g if g is None else np.asarray(g) for g in (leaf.grad, names["y"].grad)])
    for ours, theirs in zip(*found, strict=True):
        zero = np.zeros((2, 3), np.float32)
        ours, theirs = zero if ours is None else ours, zero if theirs is None else theirs
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("x += 2", [3, 4, 5]), ("x -= 1", [0, 1, 2]), ("x *= 2", [2, 4, 6]), ("x //= 2", [0, 1, 1]),
        ("x %= 2", [1, 0, 1]), ("x **= 2", [1, 4, 9]), ("x &= 2", [0, 2, 2]), ("x |= 4", [5, 6, 7]),
        ("x ^= 1", [0, 3, 2]), ("x <<= 1", [2, 4, 6]), ("x >>= 1", [0, 1, 1]), ("x += x", [2, 4, 6]),
        ("x += np.int64(1)", [2, 3, 4]), ("x += np.arange(3)", [1, 3, 5]), ("x *= hal.tensor([1, 0, 1])", [1, 0, 3]),
    ],
)  # fmt: skip
def test_augmented_assignment_changes_the_tensor_itself(
    statement: str, expected: list[int], kind_of_device: str
) -> None:
    x = hal.tensor([1, 2, 3])
    other = x.detach()
    names = {"x": x, "np": np, "hal": hal}
    exec(statement, names)
    assert names["x"] is x
    assert other.tolist() == x.tolist() == expected
    assert x.dtype is hal.int64


def test_division_in_place_of_integers_is_refused() -> None:
    x = hal.tensor([1, 2])
    for change in (lambda: x.div_(2), lambda: x.add_(0.5), lambda: x.sqrt_()):
        with pytest.raises(DTypeError, match="in place"):
            change()
    assert x.tolist() == [1, 2]


def test_what_does_not_fit_changes_nothing(kind_of_device: str) -> None:
    x = hal.ones(2)
    with pytest.raises(ShapeError, match="in place"):
        x.add_(hal.ones(3, 2))
    with pytest.raises(ShapeError):
        x.copy_(hal.ones(3))
    with pytest.raises(ShapeError):
        x.expand(3, 2).add_(1.0)
    assert x.tolist() == [1, 1]
    assert x.storage.version == 0


@pytest.mark.parametrize(
    "change", ["x.add_(1)", "x.zero_()", "x[0].mul_(2)", "x.normal_()", "x.copy_(y)", "x.squeeze_()"]
)
def test_a_leaf_that_requires_a_gradient_is_only_changed_without_recording(change: str) -> None:
    names = {"x": hal.ones(2, requires_grad=True), "y": hal.zeros(2)}
    with pytest.raises(GradientError, match="leaf"):
        eval(change, names)
    assert names["x"].tolist() == [1, 1]
    with hal.no_grad():
        eval(change, names)
    assert names["x"].requires_grad
    assert names["x"].is_leaf


def test_a_constant_is_never_changed() -> None:
    x = hal.ones(2)
    y = x * 2.0  # 2.0 is kept for the next time
    y.fill_(9.0)
    hal.full((), 2.0).add_(1.0)
    assert (x * 2.0).tolist() == [2, 2]


def test_a_change_of_something_saved_is_noticed() -> None:
    x = hal.ones(2, requires_grad=True)
    y = x * 2.0
    z = y * y
    y += 1.0
    with pytest.raises(GradientError, match="changed in place"):
        z.sum().backward()


def test_copy_converts_broadcasts_and_moves(kind_of_device: str) -> None:
    x = hal.zeros(2, 3, dtype=hal.int32)
    x.copy_(hal.tensor([1.9, 2.9, -3.9], device="cpu"))
    assert x.tolist() == [[1, 2, -3], [1, 2, -3]]
    assert x.dtype is hal.int32
    x.copy_(np.ones((2, 3)))
    assert x.sum().item() == 6
    assert str(x.device) == kind_of_device


def test_a_shape_changed_in_place_keeps_the_memory(kind_of_device: str) -> None:
    x = hal.arange(6).reshape(2, 3).clone()
    other = x.detach()
    assert x.unsqueeze_(0).shape == (1, 2, 3)
    assert x.transpose_(1, 2).shape == (1, 3, 2)
    assert x.squeeze_().shape == (3, 2)
    assert x.t_().shape == (2, 3)
    x += 10
    x.T.mul_(2)
    assert other.tolist() == x.tolist() == [[20, 22, 24], [26, 28, 30]]


def test_a_shape_changed_in_place_keeps_the_history() -> None:
    x = hal.ones(2, 3, requires_grad=True)
    y = x * 2.0
    y.t_()
    (y * hal.arange(6).reshape(3, 2)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 4, 8], [2, 6, 10]]


def test_data_can_be_replaced_and_is_seen_by_those_who_share(kind_of_device: str) -> None:
    x = hal.ones(2, requires_grad=True)
    x.data.mul_(3.0)
    x.data += 1.0
    assert x.tolist() == [4, 4]
    x.data = hal.zeros(3)
    assert x.shape == (3,)
    assert x.requires_grad


def test_kernels_write_into_the_buffer_of_the_target() -> None:
    x = hal.ones(1000)
    where = x.numpy().__array_interface__["data"]
    for change in (
        lambda: x.add_(1.0),
        lambda: x.mul_(x),
        lambda: x.fill_(2.0),
        lambda: x.copy_(x + 1),
        lambda: x.exp_(),
    ):
        change()
        assert x.numpy().__array_interface__["data"] == where
