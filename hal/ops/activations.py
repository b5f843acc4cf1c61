"""Activation functions, element by element, with torch's defaults, and with torch's gradients at their kinks.

Source: torch.nn.functional.
"""

from __future__ import annotations

from functools import partial
from math import pi, sqrt
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.errors import SettingError
from hal.op import Array, Op, in_norm
from hal.ops.common import FLOATS, REAL_NUMBERS, REQUIRED, elementwise, floating, numeric
from hal.ops.special import numpy_erfc
from hal.spec import Spec
from hal.tolerance import webnn

if TYPE_CHECKING:
    from hal.tensor import Tensor


# Bounded below, or on both sides.


def _inside(x: Tensor, low: float, high: float) -> Tensor:
    return ops.logical_and(ops.less(low, x), ops.less(x, high))


def _hardswish_gradient(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
    above = ops.where(ops.less(x, 3), g * (x * (1 / 3) + 0.5), g)
    return ops.where(ops.less_equal(x, -3), 0, above)


# Exponential below zero.

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946  # both from Klambauer et al. 2017, "Self-Normalizing Neural Networks"


def _numpy_elu(x: Array, *, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(x))


def _numpy_celu(x: Array, *, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(x / alpha))


def _elu(x: Tensor, *, alpha: float) -> Tensor:
    return ops.where(ops.less(0, x), x, alpha * ops.expm1(x))


def _celu(x: Tensor, *, alpha: float) -> Tensor:
    return ops.where(ops.less(0, x), x, alpha * ops.expm1(x / alpha))


# Smooth ones.


def _numpy_log_sigmoid(x: Array) -> Array:
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def _log_sigmoid(x: Tensor) -> Tensor:
    return ops.minimum(x, 0) - ops.log1p(ops.exp(-ops.abs(x)))


def _numpy_softplus(x: Array, *, beta: float, threshold: float) -> Array:
    return np.where(x * beta > threshold, x, np.log1p(np.exp(x * beta)) / beta)


def _softplus(x: Tensor, *, beta: float, threshold: float) -> Tensor:
    z = x if beta == 1 else x * beta
    y = ops.log1p(ops.exp(z))
    return ops.where(ops.less(threshold, z), x, y if beta == 1 else y * (1 / beta))


def _softplus_gradient(g: Tensor, y: Tensor, x: Tensor, *, beta: float, threshold: float) -> Tensor:
    z = x if beta == 1 else x * beta
    return ops.where(ops.less(threshold, z), g, g * ops.sigmoid(z))


def _numpy_mish(x: Array) -> Array:
    return x * np.tanh(np.where(x > 40, x, np.log1p(np.exp(x))))


def _tanh_of_softplus(x: Tensor) -> Tensor:
    # tanh(log(1 + e)) is (e*e + 2 e) / (e*e + 2 e + 2), which is 1 from e = exp(20) on.
    e = ops.exp(ops.minimum(x, 20))
    n = e * (e + 2)
    return n / (n + 2)


def _mish_gradient(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
    t = _tanh_of_softplus(x)
    return g * (t + (x * ops.sigmoid(x)) * (1 - t * t))


def _softsign_gradient(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
    return g / ops.square(1 + ops.abs(x))


# gelu: x times the normal distribution, or times an approximation of it by tanh.

CUBE = 0.044715  # Hendrycks and Gimpel 2016, "Gaussian Error Linear Units"
LINE = 2 * sqrt(2 / pi)
FLAT = 20.0  # from where on gelu is 0 or x to the last digit, and infinity times 0 would come in


def _check_gelu(x: Spec, *, approximate: str) -> None:
    if approximate not in ("none", "tanh"):
        raise SettingError(f"gelu takes approximate='none' or 'tanh', got {approximate!r}")


def _numpy_gelu(x: Array, *, approximate: str) -> Array:
    if approximate == "tanh":  # 1 + tanh(z) in the form that keeps its digits far below zero
        return x / (1 + np.exp(-LINE * (x + CUBE * x * x * x)))
    return x * (0.5 * numpy_erfc(x * -sqrt(0.5)))


def _normal(x: Tensor) -> Tensor:
    return 0.5 * ops.erfc(x * -sqrt(0.5))  # accurate far below zero, as 1 + erf is not


def _normal_by_tanh(x: Tensor) -> Tensor:
    return ops.sigmoid((LINE * x) * (1 + CUBE * (x * x)))


def _gelu(x: Tensor, *, approximate: str) -> Tensor:
    return x * (_normal_by_tanh(x) if approximate == "tanh" else _normal(x))


def _numpy_gelu_slope(x: Array, *, approximate: str) -> Array:
    x = np.clip(x, -FLAT, FLAT)
    if approximate == "tanh":
        s = 1 / (1 + np.exp(-LINE * (x + CUBE * x * x * x)))
        return s * (1 + (1 - s) * (LINE * x + 3 * LINE * CUBE * x * x * x))
    return 0.5 * numpy_erfc(x * -sqrt(0.5)) + x * np.exp(-0.5 * x * x) / sqrt(2 * pi)


def _gelu_slope(x: Tensor, *, approximate: str) -> Tensor:
    x = ops.clip(x, low=-FLAT, high=FLAT)
    if approximate == "tanh":
        s = _normal_by_tanh(x)
        return s * (1 + (1 - s) * (x * (LINE + (3 * LINE * CUBE) * (x * x))))
    return _normal(x) + x * ((1 / sqrt(2 * pi)) * ops.exp(-0.5 * (x * x)))


_activation = partial(elementwise, promote=floating, kinds=FLOATS, domain=(-6.0, 6.0), flops=4)
_exact = partial(_activation, wide=False, flops=2)
_exact_number = partial(_exact, promote=numeric, kinds=REAL_NUMBERS)

# fmt: off
relu        = _exact_number("relu", lambda x: np.maximum(x, 0),
                            lambda g, y, x: ops.where(ops.less(0, y), g, 0),
                            decompose=lambda x: ops.maximum(x, 0), doc="max(x, 0).")
relu6       = _exact_number("relu6", lambda x: np.minimum(np.maximum(x, 0), 6),
                            lambda g, y, x: ops.where(_inside(x, 0, 6), g, 0),
                            decompose=lambda x: ops.clip(x, low=0, high=6), domain=(-3.0, 9.0),
                            doc="min(max(x, 0), 6).")
hardtanh    = _exact("hardtanh", lambda x, *, low, high: np.minimum(np.maximum(x, low), high),
                     lambda g, y, x, *, low, high: ops.where(_inside(x, low, high), g, 0),
                     decompose=lambda x, *, low, high: ops.clip(x, low=low, high=high),
                     settings={"low": -1.0, "high": 1.0}, variants=({}, {"low": -0.5, "high": 1.75}),
                     doc="x, but not below `low` and not above `high`.")
hardsigmoid = _activation("hardsigmoid", lambda x: np.minimum(np.maximum(x + 3, 0), 6) / 6,
                          lambda g, y, x: ops.where(_inside(x, -3, 3), g * (1 / 6), 0),
                          decompose=lambda x: ops.clip(x + 3, low=0, high=6) * (1 / 6),
                          tolerance=webnn("hardSigmoid"), doc="min(max(x + 3, 0), 6) / 6: a sigmoid of straight lines.")
hardswish   = _activation("hardswish", lambda x: x * (np.minimum(np.maximum(x + 3, 0), 6) / 6),
                          _hardswish_gradient,
                          decompose=lambda x: x * (ops.clip(x + 3, low=0, high=6) * (1 / 6)),
                          tolerance=webnn("hardSwish"), doc="x times hardsigmoid(x).")
threshold   = _exact("threshold", lambda x, *, threshold, value: np.where(x <= threshold, value, x),
                     lambda g, y, x, *, threshold, value: ops.where(ops.less_equal(x, threshold), 0, g),
                     decompose=lambda x, *, threshold, value: ops.where(ops.less_equal(x, threshold), value, x),
                     settings={"threshold": REQUIRED, "value": REQUIRED},
                     variants=({"threshold": 0.5, "value": -2.0}, {"threshold": -1.0, "value": 3.0}),
                     doc="x where it is above `threshold` (or NaN), `value` elsewhere.")
hardshrink  = _exact("hardshrink", lambda x, *, lambd: np.where(np.abs(x) <= lambd, 0, x),
                     lambda g, y, x, *, lambd: ops.where(ops.less_equal(ops.abs(x), lambd), 0, g),
                     decompose=lambda x, *, lambd: ops.where(ops.less_equal(ops.abs(x), lambd), 0, x),
                     settings={"lambd": 0.5}, variants=({}, {"lambd": 1.25}),
                     doc="x where its magnitude is above `lambd`, 0 elsewhere.")
softshrink  = _exact("softshrink", lambda x, *, lambd: x - np.minimum(np.maximum(x, -lambd), lambd),
                     lambda g, y, x, *, lambd: ops.where(ops.equal(y, 0), 0, g),
                     decompose=lambda x, *, lambd: x - ops.clip(x, low=-lambd, high=lambd),
                     settings={"lambd": 0.5}, variants=({}, {"lambd": 1.25}),
                     doc="x moved towards zero by `lambd`, and 0 where it would cross it.")

leaky_relu  = _activation("leaky_relu", lambda x, *, negative_slope: np.where(x > 0, x, x * negative_slope),
                          lambda g, y, x, *, negative_slope: ops.where(ops.less(0, x), g, g * negative_slope),
                          decompose=lambda x, *, negative_slope: ops.where(ops.less(0, x), x, x * negative_slope),
                          settings={"negative_slope": 0.01},
                          variants=({}, {"negative_slope": 0.2}, {"negative_slope": 1.5}, {"negative_slope": 0.0}),
                          tolerance=webnn("leakyRelu"), doc="x above zero, `negative_slope` x below.")
elu         = _activation("elu", _numpy_elu,
                          lambda g, y, x, *, alpha: ops.where(ops.less(0, x), g, g * (y + alpha)),
                          decompose=_elu, settings={"alpha": 1.0}, variants=({}, {"alpha": 0.5}), flops=12,
                          tolerance=webnn("elu"), doc="x above zero, alpha (exp(x) - 1) below.")
celu        = _activation("celu", _numpy_celu,
                          lambda g, y, x, *, alpha: ops.where(ops.less(0, x), g, g * (y * (1 / alpha) + 1)),
                          decompose=_celu, settings={"alpha": 1.0}, variants=({}, {"alpha": 0.5}), flops=12,
                          tolerance=webnn("elu"), doc="x above zero, alpha (exp(x / alpha) - 1) below.")
selu        = _activation("selu", lambda x: SELU_SCALE * _numpy_elu(x, alpha=SELU_ALPHA),
                          lambda g, y, x: g * ops.where(ops.less(0, x), SELU_SCALE, y + SELU_SCALE * SELU_ALPHA),
                          decompose=lambda x: SELU_SCALE * _elu(x, alpha=SELU_ALPHA), flops=12,
                          tolerance=webnn("elu"), doc="elu, with the alpha and scale that keep mean 0 and variance 1.")

sigmoid     = _activation("sigmoid", lambda x: 1 / (1 + np.exp(-x)),
                          lambda g, y, x: g * (y * (1 - y)),
                          decompose=lambda x: 1 / (1 + ops.exp(-x)), flops=12,
                          tolerance=webnn("sigmoid"), doc="1 / (1 + exp(-x)).")
log_sigmoid = _activation("log_sigmoid", _numpy_log_sigmoid,
                          lambda g, y, x: g * ops.sigmoid(-x),
                          decompose=_log_sigmoid, flops=25,
                          tolerance=webnn("softplus"), doc="log(sigmoid(x)), accurate at both ends.")
softplus    = _activation("softplus", _numpy_softplus, _softplus_gradient,
                          decompose=_softplus, settings={"beta": 1.0, "threshold": 20.0},
                          variants=({}, {"beta": 2.0}, {"beta": 0.5, "threshold": 1.5}), flops=25,
                          tolerance=webnn("softplus"), doc="log(1 + exp(beta x)) / beta; x where beta x > threshold.")
silu        = _activation("silu", lambda x: x / (1 + np.exp(-x)),
                          lambda g, y, x: (lambda s: g * (s + y * (1 - s)))(ops.sigmoid(x)),
                          decompose=lambda x: x / (1 + ops.exp(-x)), flops=13,
                          tolerance=webnn("sigmoid"), doc="x sigmoid(x), also known as swish.")
mish        = _activation("mish", _numpy_mish, _mish_gradient,
                          decompose=lambda x: x * _tanh_of_softplus(x), flops=17,
                          tolerance=webnn("softplus"), doc="x tanh(softplus(x)).")
gelu        = _activation("gelu", _numpy_gelu,
                          lambda g, y, x, *, approximate: g * ops.gelu_slope(x, approximate=approximate),
                          decompose=_gelu, check=_check_gelu, settings={"approximate": "none"},
                          variants=({}, {"approximate": "tanh"}), domain=(-3.0, 6.0), flops=45,
                          tolerance=webnn("gelu"), doc="x times the normal distribution's share below x.")
gelu_slope  = _activation("gelu_slope", _numpy_gelu_slope,
                          decompose=_gelu_slope, check=_check_gelu, settings={"approximate": "none"},
                          variants=({}, {"approximate": "tanh"}), flops=50,
                          tolerance=in_norm(8), magnitude=lambda x, *, approximate: 1.0,
                          doc="The derivative of gelu.")
softsign    = _activation("softsign", lambda x: x / (1 + np.abs(x)), _softsign_gradient,
                          decompose=lambda x: x / (1 + ops.abs(x)),
                          tolerance=webnn("softsign"), doc="x / (1 + abs(x)).")
tanhshrink  = _activation("tanhshrink", lambda x: x - np.tanh(x),
                          lambda g, y, x: g * ops.square(x - y),
                          decompose=lambda x: x - ops.tanh(x), flops=11,
                          tolerance=in_norm(8), magnitude=lambda x: np.abs(x[np.isfinite(x)]).max(initial=0.0),
                          doc="x - tanh(x).")
# fmt: on


def _infer_both(x: Spec, /, *, approximate: str = "none") -> tuple[Spec, Spec]:
    found = gelu.infer(x, approximate=approximate)
    assert isinstance(found, Spec)
    return found, found


def _numpy_both(x: Array, *, approximate: str) -> tuple[Array, Array]:
    return gelu.reference(x, approximate=approximate), gelu_slope.reference(x, approximate=approximate)


gelu_with_slope = Op(
    "gelu_with_slope", _infer_both, _numpy_both, gelu_slope.samples, None,
    lambda x, *, approximate: (ops.gelu(x, approximate=approximate), ops.gelu_slope(x, approximate=approximate)),
    promote=floating, tolerance=in_norm(8),
    magnitude=lambda x, **settings: max(1.0, np.abs(x[np.isfinite(x)]).max(initial=0.0)),
    doc="gelu and its derivative, for what computes both at once.",
)  # fmt: skip
