"""Tensors in Python: operators with numbers and arrays, conversions, copies, protocols, histories."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import CopyError, DeviceError, DTypeError, GradientError, SettingError, ShapeError
from hal.testing.fake import Fake

NUMBERS = [2, 2.5, True, np.float32(2.5), np.float64(2.5), np.int64(3), np.int8(3)]
OPERATORS = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
    operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne,
]  # fmt: skip


@pytest.fixture(params=["cpu", "fake"])
def kind_of_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HAL_BACKEND", request.param)
    return str(request.param)


# Operators.


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{type(n).__name__} {n}")
@pytest.mark.parametrize("op", OPERATORS, ids=lambda f: f.__name__)
def test_operators_with_numbers_on_either_side(op: Callable[[Any, Any], Any], number: Any) -> None:
    array = np.array([[0.5, 1.0], [2.0, 3.0]], np.float32)
    x = hal.tensor(array)
    plain = number.item() if isinstance(number, np.generic) else number
    for got, want in ((op(x, number), op(array, plain)), (op(number, x), op(plain, array))):
        assert got.dtype.numpy == want.dtype
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("op", OPERATORS, ids=lambda f: f.__name__)
def test_operators_with_arrays_on_either_side(op: Callable[[Any, Any], Any]) -> None:
    array = np.array([[0.5, 1.0], [2.0, 3.0]], np.float32)
    x = hal.tensor(array[::-1].copy())
    for got, want in ((op(x, array), op(array[::-1], array)), (op(array, x), op(array, array[::-1]))):
        assert isinstance(got, hal.Tensor)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)


def test_functions_of_numpy_take_tensors_as_arrays() -> None:
    x = hal.tensor([1.0, 4.0])
    assert np.sqrt(x).tolist() == [1, 2]
    assert np.concatenate([x, np.zeros(1)]).tolist() == [1, 4, 0]
    with pytest.raises(GradientError, match="detach"):
        np.sqrt(x.requires_grad_())


def test_operators_with_anything_else_ask_the_other_side() -> None:
    class Other:
        def __radd__(self, x: hal.Tensor) -> str:
            return "asked"

    x = hal.ones(2)
    assert x + Other() == "asked"
    assert (x == "a") is False
    assert (x != None) is True  # noqa: E711  # the operator is what is tested
    with pytest.raises(TypeError, match="unsupported operand"):
        x * {}
    with pytest.raises(TypeError, match="not supported between"):
        _ = x < "a"


def test_an_integer_tensor_with_a_float_becomes_the_default_float() -> None:
    assert (hal.arange(3) * 0.5).dtype is hal.float32
    assert (hal.arange(3) / 2).dtype is hal.float32
    assert (hal.arange(3) * True).dtype is hal.int64
    assert (hal.tensor([1.0], dtype=hal.float16) * 1e-3).dtype is hal.float16


def test_equality_compares_elements_and_hashes_are_of_the_object() -> None:
    x, y = hal.ones(2), hal.ones(2)
    assert (x == y).tolist() == [True, True]
    assert {x: 1, y: 2}[y] == 2
    assert len({x, y}) == 2


# Values for Python.


def test_conversions_to_numbers(kind_of_device: str) -> None:
    x = hal.tensor([[2.0]])
    assert (float(x), int(x), bool(x), complex(x), x.item()) == (2.0, 2, True, 2 + 0j, 2.0)
    assert ["a", "b", "c"][hal.tensor(1)] == "b"
    assert isinstance(hal.tensor(2).item(), int)
    assert isinstance(hal.tensor(True).item(), bool)
    assert isinstance(hal.tensor(1.5, dtype="bfloat16").item(), float)


@pytest.mark.parametrize("convert", [float, int, bool, complex, operator.index, lambda x: x.item()])
@pytest.mark.parametrize("shape", [(2,), (0,), (1, 2)])
def test_one_number_is_asked_of_several(convert: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="needs a tensor with one element"):
        convert(hal.ones(shape, dtype=hal.int64))


def test_a_float_is_no_index() -> None:
    with pytest.raises(DTypeError, match="float32"):
        operator.index(hal.tensor(1.0))


def test_len_iteration_membership() -> None:
    x = hal.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1, 2], [3, 4]]
    assert [row.tolist() for row in reversed(list(x))] == [[3, 4], [1, 2]]
    assert reversed(x).tolist() == [[3, 4], [1, 2]]
    assert 4 in x
    assert 5 not in x
    a, _ = x
    a += 10.0  # iteration gives views
    assert x.tolist() == [[11, 12], [3, 4]]
    for f in (len, iter):
        with pytest.raises(TypeError, match="single value"):
            f(hal.tensor(1.0))


def test_waiting_for_a_device_is_counted_where_it_is_one(kind_of_device: str) -> None:
    x = hal.ones(3)
    with hal.placement_report() as report:
        for _ in range(4):
            x.sum().item()
        bool(x[0] > 0)
        repr(x)
        x.tolist()
    counts = {entry.what: entry.count for entry in report.syncs.values()}
    waits = {"item()": 4, "bool()": 1, "printing": 1, "tolist()": 1}
    assert counts == ({} if kind_of_device == "cpu" else waits)


def test_contents_that_are_not_known_yet_are_not_read() -> None:
    from hal.abstract import ABSTRACT
    from hal.spec import Spec
    from hal.tensor import CONSTANT

    x = hal.Tensor(None, Spec((), hal.float32), ABSTRACT, CONSTANT)
    with pytest.raises(DeviceError, match="only shape and dtype are known"):
        x.item()
    assert "size=()" in repr(x)


# To NumPy and other libraries.


def test_numpy_shares_memory() -> None:
    x = hal.zeros(2, 3)
    view = x[:, 1].numpy()
    view[:] = 5
    assert x.tolist() == [[0, 5, 0], [0, 5, 0]]
    array = np.zeros(3, np.float32)
    y = hal.from_numpy(array)
    y += 1
    assert array.tolist() == [1, 1, 1]
    assert np.shares_memory(np.asarray(x), x.numpy())
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(x, copy=True), x.numpy())
    with pytest.raises(CopyError, match="copy=False"):
        np.asarray(x, dtype=np.float64, copy=False)


def test_an_array_that_may_not_be_written_is_copied() -> None:
    array = np.zeros(3)
    array.flags.writeable = False
    x = hal.from_numpy(array)
    x += 1
    assert (x.tolist(), array.tolist()) == ([1, 1, 1], [0, 0, 0])


def test_numpy_refuses_what_it_would_lose() -> None:
    x = hal.ones(2, requires_grad=True)
    for convert in (lambda t: t.numpy(), np.asarray):
        with pytest.raises(GradientError, match="detach"):
            convert(x)
        with pytest.raises(DeviceError, match=r"\.cpu\(\)"):
            convert(hal.ones(2, device="fake"))
    with pytest.raises(BufferError, match="detach"):
        np.from_dlpack(x)
    with pytest.raises(BufferError, match="host memory"):
        np.from_dlpack(hal.ones(2, device="fake"))
    assert x.numpy(force=True).tolist() == hal.ones(2, device="fake").numpy(force=True).tolist() == [1, 1]


def test_dlpack_shares_the_memory_of_devices_that_lend_theirs() -> None:
    class Lent:
        def __init__(self, buffer: Any, spec: Any, index: int) -> None:
            self.given, self.index = (buffer, spec), index

        def __dlpack__(self, **options: Any) -> Any:
            return self.given

        def __dlpack_device__(self) -> tuple[int, int]:
            return 8, self.index

    class Lending(Fake):
        dlpack_type = 8

        def lend(self, buffer: Any, spec: Any) -> Any:
            return Lent(buffer, spec, self.devices().index(buffer.device))

        def borrow(self, lender: Any, device: hal.Device) -> Any:
            return lender.__dlpack__()

    with Lending("lending", count=2, views=True).registered():
        x = hal.zeros(3, device="lending:1")
        assert x.__dlpack_device__() == (8, 1)
        y, z = hal.from_dlpack(x), hal.asarray(Lent(x.buffer, x.spec, 1))
        x += 2
        assert y.tolist() == z.tolist() == [2, 2, 2]
        assert y.device is z.device is x.device
        assert hal.from_dlpack(x, device="cpu").tolist() == [2, 2, 2]
        with pytest.raises(hal.errors.DeviceError, match=r"type 8, number 5, which no backend"):
            hal.from_dlpack(Lent(x.buffer, x.spec, 5))


def test_dlpack_shares_memory() -> None:
    x = hal.zeros(3)
    array = np.from_dlpack(x)
    x += 2
    assert array.tolist() == [2, 2, 2]
    y = hal.from_dlpack(np.zeros(3))
    assert y.dtype is hal.float64
    assert hal.from_dlpack(x).tolist() == [2, 2, 2]
    assert x.__dlpack_device__() == (1, 0)


def test_asarray_copies_only_if_it_must() -> None:
    array = np.zeros(2, np.float32)
    x = hal.ones(2)
    assert hal.asarray(hal.asarray(x)) is x
    assert hal.asarray(x, copy=True) is not x
    hal.asarray(array).add_(1.0)
    hal.asarray(array, copy=True).add_(1.0)
    hal.asarray(array, dtype=hal.float64).add_(1.0)
    assert array.tolist() == [1.0, 1.0]
    assert hal.asarray(x, device="fake").device == hal.device("fake")
    assert hal.asarray(np.float64(2.0)).dtype is hal.float64


# To other dtypes and devices.


def test_to_understands_dtypes_devices_and_tensors() -> None:
    x = hal.ones(2)
    fake = hal.ones(1, dtype=hal.float16, device="fake")
    assert x.to(hal.float32) is x.to("cpu") is x.to(x) is x.to(device=x.device) is x.to() is x.cpu() is x
    assert x.to("cpu", copy=True) is not x
    assert x.to(hal.float64).dtype is x.to(dtype="double").dtype is x.to(float).to(np.float64).dtype is hal.float64
    assert str(x.to("fake").device) == str(x.to(hal.device("fake")).device) == "fake"
    moved = x.to("fake", hal.float16)
    assert (str(moved.device), moved.dtype) == ("fake", hal.float16)
    like = x.to(fake)
    assert (str(like.device), like.dtype) == ("fake", hal.float16)
    assert x.type() == "hal.float32"
    assert x.to_device(hal.device("fake")).tolist() == [1, 1]
    with pytest.raises(SettingError, match="by name"):
        x.to(0)
    with pytest.raises(DeviceError, match="nowhere"):
        x.to("nowhere")


def test_what_a_device_does_not_have_is_converted_before_it_goes_there() -> None:
    x = hal.ones(2, dtype=hal.float64)
    assert x.to("fake", hal.float32).dtype is hal.float32
    with pytest.raises(DTypeError, match="no float64"):
        x.to("fake")
    assert hal.ones(2, device="fake").to("cpu", hal.float64).dtype is hal.float64


def test_gradients_flow_back_through_conversions_and_copies() -> None:
    x = hal.ones(2, requires_grad=True)
    y = x.double().float().to("fake").half().to("cpu").clone().float()
    (y * 3.0).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3, 3]
    assert x.grad.device is x.device


def test_detached_tensors_share_memory_and_clones_do_not(kind_of_device: str) -> None:
    x = hal.ones(2, 2)
    shared, own, view = x.detach(), x.clone(), x.T
    x *= 5.0
    assert shared.tolist() == view.tolist() == [[5, 5], [5, 5]]
    assert own.tolist() == [[1, 1], [1, 1]]
    assert x.contiguous() is x
    assert x.T.contiguous() is not x.T
    copied = x.T.contiguous()
    copied.zero_()
    assert x.sum().item() == 20


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "bfloat16", "complex64"])
def test_a_clone_has_every_bit(dtype: str) -> None:
    values = [0, 1, 1, 0] if dtype == "bool" else [0, 1, 7, 100]
    x = hal.tensor(values, dtype=dtype)
    y = x.clone()
    assert y.numpy().tobytes() == x.numpy().tobytes()
    y.zero_()
    assert x.tolist() == hal.tensor(values, dtype=dtype).tolist()


# Copies of objects.


def test_deepcopy_shares_nothing(kind_of_device: str) -> None:
    x = hal.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    model = {"a": x, "tied": x, "view": hal.arange(4)[1:3]}
    other = copy.deepcopy(model)
    y = other["a"]
    assert other["tied"] is y
    assert y is not x
    assert y.requires_grad
    assert y.is_leaf
    assert y.grad is not None
    assert x.grad is not None
    assert y.grad.tolist() == [2, 4]
    y.data.zero_()
    y.grad.zero_()
    assert (x.tolist(), x.grad.tolist()) == ([1, 2], [2, 4])
    assert other["view"].tolist() == [1, 2]
    with pytest.raises(GradientError, match="detach"):
        copy.deepcopy(x * 2)


def test_a_shallow_copy_shares_the_memory() -> None:
    x = hal.zeros(2, requires_grad=True)
    y = copy.copy(x)
    y.data += 1.0
    assert y is not x
    assert y.requires_grad
    assert x.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int16", "bool"])
def test_pickling_goes_by_way_of_numpy(dtype: str) -> None:
    x = hal.tensor([0, 1, 1], dtype=dtype)
    y = pickle.loads(pickle.dumps(x))
    assert (y.tolist(), y.dtype, y.device) == (x.tolist(), x.dtype, x.device)
    w = hal.ones(2, device="fake", requires_grad=True)
    again = pickle.loads(pickle.dumps(w))
    assert again.requires_grad
    assert again.device == hal.device("fake")
    with pytest.raises(GradientError, match="detach"):
        pickle.dumps(w * 2)


def test_a_subclass_stays_one() -> None:
    class Named(hal.Tensor):
        def __init__(self, data: hal.Tensor, name: str) -> None:
            super().__init__(None, data.spec, data.device, data.origin)
            self.data = data
            self.name = name

    x = Named(hal.ones(2), "weight")
    y = copy.deepcopy(x)
    assert isinstance(y, Named)
    assert y.name == "weight"
    y += 1.0
    assert x.tolist() == [1, 1]


# Histories.


def test_requires_grad_is_switched_on_leaves() -> None:
    x = hal.ones(2).requires_grad_()
    assert x.requires_grad
    assert not x.requires_grad_(False).requires_grad
    with pytest.raises(GradientError, match="floating-point"):
        hal.arange(2).requires_grad_()
    y = x.requires_grad_() * 2
    with pytest.raises(GradientError, match="leaf"):
        y.requires_grad = False
    assert not y.detach_().requires_grad
    assert y.is_leaf


def test_retain_grad_keeps_the_gradient_of_a_computed_tensor() -> None:
    x = hal.ones(2, requires_grad=True)
    y = x * 3.0
    y.retain_grad()
    y.retain_grad()
    (y * y).sum().backward()
    assert y.retains_grad
    assert y.grad is not None
    assert y.grad.tolist() == [6, 6]
    with pytest.raises(GradientError, match="requires a gradient"):
        hal.ones(2).retain_grad()


def test_hooks_see_and_change_gradients() -> None:
    seen: list[Any] = []
    x = hal.ones(2, requires_grad=True)
    x.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: seen.append(g.tolist()))
    y = x * 3.0
    handle = y.register_hook(lambda g: g + 1)
    y.retain_grad()
    (y * 2.0).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [3, 3]
    assert seen == [[90, 90]]
    assert x.grad is not None
    assert x.grad.tolist() == [90, 90]
    handle.remove()
    handle.remove()
    assert hal.grad((x * 3.0).sum(), x)[0].tolist() == [30, 30]
    with pytest.raises(GradientError, match="register_hook"):
        hal.ones(2).register_hook(print)


def test_numpy_arrays_and_lists_are_read_as_torch_reads_them() -> None:
    assert hal.tensor([1.0, 2.0]).dtype is hal.float32
    assert hal.tensor([1, 2]).dtype is hal.int64
    assert hal.tensor([True]).dtype is hal.bool
    assert hal.tensor(np.array([1.0])).dtype is hal.float64
    assert hal.tensor([[hal.tensor(1.0), hal.tensor(2.0)]]).tolist() == [[1, 2]]
    assert hal.tensor(np.arange(3).astype(">i4")).tolist() == [0, 1, 2]
    source = np.zeros(2)
    x = hal.tensor(source)
    x += 1.0
    assert source.tolist() == [0, 0]
    for ragged in ([[1, 2], [3]], [["a"]], [object()]):
        with pytest.raises((ShapeError, DTypeError)):
            hal.tensor(ragged)
