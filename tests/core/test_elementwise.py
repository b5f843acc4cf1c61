"""What the op table cannot say of elementwise ops: kinks, signed zeros, complex numbers, every half, wide ranges."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, nan
from typing import Any

import numpy as np
import pytest

import hal
from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError, SettingError, ShapeError
from hal.op import Array, Op
from hal.spec import Spec
from hal.testing.accuracy import judge
from hal.testing.fake import Fake


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


@pytest.fixture
def exact() -> Iterator[hal.Device]:
    """A device with nothing but the primitives, each of which rounds once."""
    primitive = [op.name for op in ops.TABLE.values() if op.is_primitive]
    with Fake("exact", dtypes=dtypes.ALL, only=primitive).registered():
        yield hal.device("exact")


# Gradients where the function has a kink are torch's.

KINKS: list[tuple[str, dict[str, Any], list[float], list[float]]] = [
    ("abs", {}, [0.0, -0.0], [0, 0]),
    ("sign", {}, [0.0, 2.0], [0, 0]),
    ("floor", {}, [0.0, 0.5], [0, 0]),
    ("sqrt", {}, [0.0], [inf]),
    ("clip", {"low": -1.0, "high": 1.0}, [-1.0, 1.0, 1.5], [1, 1, 0]),
    ("relu", {}, [0.0, -0.0], [0, 0]),
    ("relu6", {}, [0.0, 6.0, 3.0], [0, 0, 1]),
    ("leaky_relu", {"negative_slope": 0.25}, [0.0], [0.25]),
    ("elu", {"alpha": 0.5}, [0.0, -inf], [0.5, 0]),
    ("celu", {"alpha": 0.5}, [0.0], [1]),
    ("hardsigmoid", {}, [-3.0, 3.0], [0, 0]),
    ("hardswish", {}, [-3.0, 3.0, inf, -inf], [0, 1, 1, 0]),
    ("hardtanh", {}, [-1.0, 1.0, 0.0], [0, 0, 1]),
    ("hardshrink", {}, [-0.5, 0.5, 0.0, nan], [0, 0, 0, 1]),
    ("softshrink", {}, [-0.5, 0.5, 0.0, inf], [0, 0, 0, 1]),
    ("threshold", {"threshold": 0.5, "value": 2.0}, [0.5, 1.0, nan], [0, 1, 1]),
    ("softplus", {}, [21.0, inf, -inf], [1, 1, 0]),
    ("log_sigmoid", {}, [inf, -inf], [0, 1]),
    ("softsign", {}, [0.0], [1]),
]


@pytest.mark.parametrize(("name", "settings", "x", "want"), KINKS, ids=lambda v: v if isinstance(v, str) else "")
def test_gradient_at_a_kink(name: str, settings: dict[str, Any], x: list[float], want: list[float]) -> None:
    tensor = hal.tensor(x, requires_grad=True)
    ops.TABLE[name](tensor, **settings).sum().backward()
    assert tensor.grad is not None
    np.testing.assert_array_equal(tensor.grad.numpy(), want)


def test_gradients_of_two_inputs_at_a_kink() -> None:
    a, b = hal.tensor([0.0, 1.0, 3.0], requires_grad=True), hal.tensor([0.0, 2.0, 2.0], requires_grad=True)
    ops.maximum(a, b).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.tolist() == [0.5, 0, 1]
    assert b.grad.tolist() == [0.5, 1, 0]

    origin = [hal.tensor([0.0], requires_grad=True) for _ in range(2)]
    assert [g.tolist() for g in hal.grad(ops.atan2(*origin).sum(), origin)] == [[0], [0]]

    base = hal.tensor([0.0, nan, 0.0, -2.0], requires_grad=True)
    exponent = hal.tensor([0.0, 0.0, 2.0, 3.0])
    (slope,) = hal.grad(ops.pow(base, exponent).sum(), [base])
    assert slope.tolist() == [0, 0, 0, 12]

    base, exponent = hal.tensor([0.0, 2.0]), hal.tensor([2.0, 0.0], requires_grad=True)
    (slope,) = hal.grad(ops.pow(base, exponent).sum(), [exponent])
    np.testing.assert_allclose(slope.numpy(), [0, np.log(2)], rtol=1e-6)


def test_a_gradient_of_zero_is_zero_wherever_the_incoming_one_is_not_finite() -> None:
    x = hal.tensor([1.5, 2.5, -1.0], requires_grad=True)
    (slope,) = hal.grad(ops.floor(x), [x], hal.tensor([inf, nan, -inf]))
    assert slope.tolist() == [0, 0, 0]


# Signed zeros.

ODD = [
    "sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "expm1", "log1p", "trunc", "round", "neg",
    "softsign",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_function_keeps_the_sign_of_zero(name: str, exact: hal.Device) -> None:
    op, zeros = ops.TABLE[name], np.array([0.0, -0.0], np.float32)
    want = [name == "neg", name != "neg"]
    assert np.signbit(op(hal.tensor(zeros)).numpy()).tolist() == want
    assert np.signbit(op(hal.tensor(zeros, device=exact)).cpu().numpy()).tolist() == want


@pytest.mark.parametrize("where", ["cpu", "exact"])
def test_sign_of_zero_is_seen(where: str, exact: hal.Device) -> None:
    x = hal.tensor([0.0, -0.0, 1.0, -1.0, inf, -inf], device=where)
    assert ops.signbit(x).tolist() == [False, True, False, True, False, True]
    copied = ops.copysign(hal.tensor([3.0], device=where), x)
    assert copied.tolist() == [3, -3, 3, -3, 3, -3]
    assert not np.signbit(ops.abs(x).cpu().numpy()).any()
    assert np.signbit(ops.ceil(hal.tensor([-0.5], device=where)).cpu().numpy()).all()
    corners = [hal.tensor(v, device=where) for v in ([0.0, 0.0, -0.0, -0.0], [0.0, -0.0, 0.0, -0.0])]
    pi = float(np.float32(np.pi))
    assert ops.atan2(*corners).tolist() == [0, pi, 0, -pi]


# nextafter depends on the dtype, which its reference in float64 cannot know.


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda d: d.name)
def test_nextafter_steps_in_its_own_dtype(dtype: DType) -> None:
    x = hal.tensor([1.0, 1.0, 0.0, 1.0, nan, -2.0]).to(dtype)
    to = hal.tensor([2.0, 0.0, 1.0, 1.0, 0.0, -inf]).to(dtype)
    y = ops.nextafter(x, to).numpy().astype(np.float64)
    eps = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}[dtype.name]
    np.testing.assert_array_equal(y[[0, 1, 3, 4, 5]], [1 + eps, 1 - eps / 2, 1, nan, -2 - 2 * eps])
    assert 0 < y[2] < 1e-7


# Complex numbers.

PLANE = np.array([0.5 + 0.25j, -0.75 + 0.5j, 1.5 - 2j, -2 - 0.125j, 0.25j, 2 + 0.5j], np.complex64)
ODD_PLANE = np.array([0, complex(inf, 1), complex(1, nan), complex(nan, inf)], np.complex64)
COMPLEX = [
    "conj", "real", "imag", "abs", "sign", "neg", "square", "reciprocal", "sqrt", "rsqrt",
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "isnan", "isinf", "isfinite",
]  # fmt: skip


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers(name: str) -> None:
    op = ops.TABLE[name]
    values = ODD_PLANE if name.startswith("is") else PLANE
    want = op.reference(values.astype(np.complex128))
    x = hal.tensor(values)
    got = op(x)
    assert got.spec is op.infer(x.spec)
    np.testing.assert_allclose(got.numpy(), want, rtol=2e-6)
    if op.decompose is not None and name not in ("real", "imag"):
        np.testing.assert_allclose(op.decompose(x).numpy(), want, rtol=2e-6)


def test_a_device_with_complex_numbers_must_take_them_apart(exact: hal.Device) -> None:
    with pytest.raises(DTypeError, match="must have kernels for real and imag"):
        ops.conj(hal.tensor(PLANE, device=exact))


def test_a_real_number_is_its_own_conjugate() -> None:
    x = hal.tensor([1.0, -2.0], requires_grad=True)
    assert ops.conj(x.detach()).tolist() == ops.real(x.detach()).tolist() == [1, -2]
    assert ops.imag(x.detach()).tolist() == [0, 0]
    (slope,) = hal.grad((ops.conj(x) * ops.real(x)).sum(), [x])
    assert slope.tolist() == [2, -4]


# Integers.


@pytest.mark.parametrize("where", ["cpu", "exact"])
@pytest.mark.parametrize("dtype", [hal.int8, hal.int32, hal.uint8, hal.uint32], ids=lambda d: d.name)
def test_integer_arithmetic_wraps_around(dtype: DType, where: str, exact: hal.Device) -> None:
    info = np.iinfo(dtype.numpy)
    values = np.array([info.min, info.max, 0, 1, 77], dtype.numpy)
    x = hal.tensor(values, device=where)
    with np.errstate(over="ignore"):
        for op in (ops.neg, ops.bitwise_invert, ops.square, ops.abs):
            assert op(x).tolist() == op.reference(values).tolist(), op.name
        for op in (ops.add, ops.sub, ops.mul, ops.bitwise_or, ops.bitwise_xor):
            assert op(x, 3).tolist() == op.reference(values, values.dtype.type(3)).tolist(), op.name
    assert ops.bitwise_left_shift(x, 3).tolist() == (values << 3).tolist()
    clipped = np.clip(values.astype(np.int64), -5, 300)
    assert ops.clip(x, low=-5, high=300).tolist() == clipped.tolist()


def test_division_of_integers_by_zero_says_nothing() -> None:
    x, zero = hal.tensor([7, -7, 0]), hal.tensor([0, 0, 0])
    for op in (ops.floor_divide, ops.remainder, ops.fmod):
        assert op(x, zero).dtype is hal.int64


# Accuracy beyond the samples.

REACH = [
    "exp2", "expm1", "log2", "log10", "log1p", "rsqrt", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh",
    "atanh", "erf", "erfc", "elu", "celu", "selu", "softplus", "log_sigmoid", "softsign", "hardswish", "hardsigmoid",
]  # fmt: skip


def reach(dtype: DType) -> Array:
    """Numbers of every size that the dtype has, dense where functions change their formula."""
    rng = np.random.default_rng(0)
    most = 80 if dtype is dtypes.float32 else 690
    sizes = np.exp(rng.uniform(-most, most, 20_000)) * rng.choice([-1, 1], 20_000)
    near = np.exp(rng.uniform(-8, 6, 20_000)) * rng.choice([-1, 1], 20_000)
    one = 1 + rng.uniform(-1e-3, 1e-3, 5_000)
    return np.concatenate([sizes, near, rng.uniform(-10, 10, 20_000), one, -one]).astype(dtype.numpy)


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=lambda d: d.name)
@pytest.mark.parametrize("name", REACH)
def test_decomposition_is_accurate_everywhere(name: str, dtype: DType, exact: hal.Device) -> None:
    op, x = ops.TABLE[name], reach(dtype)
    assert op.decompose is not None
    with hal.no_grad():
        y = op.decompose(hal.tensor(x, device=exact), **op.defaults).cpu().numpy()
    verdict = judge(op, (x,), op.defaults, (y,), (Spec(x.shape, dtype),))
    assert verdict.passed, verdict


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=lambda d: d.name)
@pytest.mark.parametrize("name", ["hypot", "atan2"])
def test_decomposition_of_two_inputs_is_accurate_everywhere(name: str, dtype: DType, exact: hal.Device) -> None:
    op, a = ops.TABLE[name], reach(dtype)
    b = np.random.default_rng(1).permutation(a)
    assert op.decompose is not None
    with hal.no_grad():
        y = op.decompose(hal.tensor(a, device=exact), hal.tensor(b, device=exact)).cpu().numpy()
    verdict = judge(op, (a, b), {}, (y,), (Spec(a.shape, dtype),))
    assert verdict.passed, verdict


def test_remainder_is_exact_while_the_quotient_is_moderate(exact: hal.Device) -> None:
    rng = np.random.default_rng(0)
    b = (rng.uniform(0.1, 10, 20_000) * rng.choice([-1, 1], 20_000)).astype(np.float32)
    a = (b * rng.uniform(-4000, 4000, 20_000)).astype(np.float32)
    for op in (ops.fmod, ops.remainder):
        got = op(hal.tensor(a, device=exact), hal.tensor(b, device=exact)).cpu().numpy()
        np.testing.assert_array_equal(got, op.reference(a, b), err_msg=op.name)


# Below, their results are so near to zero that what exp loses in its range or its rounding shows.
TAILS = {"gelu": -5.0, "sigmoid": -80.0, "silu": -80.0}
UNARY = [
    op
    for name, op in sorted(ops.TABLE.items())
    if op.kind == "elementwise"
    and len(op.input_names) == 1
    and name != "bitwise_invert"
    and len(op.settings) == len(op.defaults)
]


@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=lambda d: d.name)
def test_every_half(op: Op, dtype: DType) -> None:
    """All 65,536 numbers, on the CPU."""
    x = np.arange(65536, dtype=np.uint16).view(dtype.numpy)
    settings = op.bind(1, {})
    wide = x.astype(np.float32)
    x = x[np.isfinite(wide) & (wide > TAILS.get(op.name, -inf))]
    y = op(hal.tensor(x), **settings)
    verdict = judge(op, (x,), settings, (y.numpy(),), (op.infer(Spec(x.shape, dtype), **settings),))
    assert verdict.passed, verdict


# Errors.


def test_errors_name_the_cure() -> None:
    x = hal.tensor([[1.0, 2.0, 3.0]])
    with pytest.raises(SettingError, match="approximate='none' or 'tanh'"):
        ops.gelu(x, approximate="fast")
    with pytest.raises(DTypeError, match="use whole bounds"):
        ops.clip(hal.tensor([1, 2]), low=0.5)
    with pytest.raises(DTypeError, match="bool condition, got float32"):
        ops.where(x, x, x)
    with pytest.raises(ShapeError, match="each of the 3 channels"):
        ops.prelu(x, hal.tensor([0.1, 0.2]))
    with pytest.raises(ShapeError, match="must be even"):
        ops.glu(x)
    with pytest.raises(DTypeError, match="convert with"):
        ops.bitwise_and(x, x)
    with pytest.raises(SettingError, match="threshold"):
        ops.threshold(x, value=1.0)
