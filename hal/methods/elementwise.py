"""The elementwise ops as methods: a line each, with torch's names. What each does is in its record in the op table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hal import ops
from hal.functions import comparing, elementwise, selecting

if TYPE_CHECKING:
    from hal.tensor import Tensor


class Elementwise:
    """Elementwise methods of `Tensor`."""

    __slots__ = ()

    # fmt: off
    def abs(self) -> Tensor: return ops.abs(self)
    def neg(self) -> Tensor: return ops.neg(self)
    def sign(self) -> Tensor: return ops.sign(self)
    def square(self) -> Tensor: return ops.square(self)
    def sqrt(self) -> Tensor: return ops.sqrt(self)
    def rsqrt(self) -> Tensor: return ops.rsqrt(self)
    def reciprocal(self) -> Tensor: return ops.reciprocal(self)
    def exp(self) -> Tensor: return ops.exp(self)
    def exp2(self) -> Tensor: return ops.exp2(self)
    def expm1(self) -> Tensor: return ops.expm1(self)
    def log(self) -> Tensor: return ops.log(self)
    def log2(self) -> Tensor: return ops.log2(self)
    def log10(self) -> Tensor: return ops.log10(self)
    def log1p(self) -> Tensor: return ops.log1p(self)
    def sin(self) -> Tensor: return ops.sin(self)
    def cos(self) -> Tensor: return ops.cos(self)
    def tan(self) -> Tensor: return ops.tan(self)
    def asin(self) -> Tensor: return ops.asin(self)
    def acos(self) -> Tensor: return ops.acos(self)
    def atan(self) -> Tensor: return ops.atan(self)
    def sinh(self) -> Tensor: return ops.sinh(self)
    def cosh(self) -> Tensor: return ops.cosh(self)
    def tanh(self) -> Tensor: return ops.tanh(self)
    def asinh(self) -> Tensor: return ops.asinh(self)
    def acosh(self) -> Tensor: return ops.acosh(self)
    def atanh(self) -> Tensor: return ops.atanh(self)
    def erf(self) -> Tensor: return ops.erf(self)
    def erfc(self) -> Tensor: return ops.erfc(self)
    def floor(self) -> Tensor: return ops.floor(self)
    def ceil(self) -> Tensor: return ops.ceil(self)
    def trunc(self) -> Tensor: return ops.trunc(self)
    def isnan(self) -> Tensor: return ops.isnan(self)
    def isinf(self) -> Tensor: return ops.isinf(self)
    def isfinite(self) -> Tensor: return ops.isfinite(self)
    def signbit(self) -> Tensor: return ops.signbit(self)
    def sigmoid(self) -> Tensor: return ops.sigmoid(self)
    def relu(self) -> Tensor: return ops.relu(self)
    def conj(self) -> Tensor: return ops.conj(self)
    def logical_not(self) -> Tensor: return ops.logical_not(self)
    def bitwise_not(self) -> Tensor: return ops.bitwise_invert(self)

    def floor_divide(self, other: Any) -> Tensor: return ops.floor_divide(self, other)
    def remainder(self, other: Any) -> Tensor: return ops.remainder(self, other)
    def fmod(self, other: Any) -> Tensor: return ops.fmod(self, other)
    def mul(self, other: Any) -> Tensor: return ops.mul(self, other)
    def pow(self, exponent: Any) -> Tensor: return ops.pow(self, exponent)
    def atan2(self, other: Any) -> Tensor: return ops.atan2(self, other)
    def hypot(self, other: Any) -> Tensor: return ops.hypot(self, other)
    def logaddexp(self, other: Any) -> Tensor: return ops.logaddexp(self, other)
    def copysign(self, other: Any) -> Tensor: return ops.copysign(self, other)
    def nextafter(self, other: Any) -> Tensor: return ops.nextafter(self, other)
    def maximum(self, other: Any) -> Tensor: return ops.maximum(self, other)
    def minimum(self, other: Any) -> Tensor: return ops.minimum(self, other)
    def eq(self, other: Any) -> Tensor: return ops.equal(self, other)
    def ne(self, other: Any) -> Tensor: return ops.not_equal(self, other)
    def lt(self, other: Any) -> Tensor: return ops.less(self, other)
    def le(self, other: Any) -> Tensor: return ops.less_equal(self, other)
    def gt(self, other: Any) -> Tensor: return ops.greater(self, other)
    def ge(self, other: Any) -> Tensor: return ops.greater_equal(self, other)
    def logical_and(self, other: Any) -> Tensor: return ops.logical_and(self, other)
    def logical_or(self, other: Any) -> Tensor: return ops.logical_or(self, other)
    def logical_xor(self, other: Any) -> Tensor: return ops.logical_xor(self, other)
    def bitwise_and(self, other: Any) -> Tensor: return ops.bitwise_and(self, other)
    def bitwise_or(self, other: Any) -> Tensor: return ops.bitwise_or(self, other)
    def bitwise_xor(self, other: Any) -> Tensor: return ops.bitwise_xor(self, other)
    def bitwise_left_shift(self, other: Any) -> Tensor: return ops.bitwise_left_shift(self, other)
    def bitwise_right_shift(self, other: Any) -> Tensor: return ops.bitwise_right_shift(self, other)
    # fmt: on

    absolute, negative, multiply, bitwise_invert = abs, neg, mul, bitwise_not
    arcsin, arccos, arctan, arctan2 = asin, acos, atan, atan2
    arcsinh, arccosh, arctanh = asinh, acosh, atanh
    not_equal, less, less_equal, greater, greater_equal = ne, lt, le, gt, ge
    add, sub, div = elementwise.add, elementwise.sub, elementwise.div
    subtract, divide, true_divide = sub, div, div
    clamp = clip = elementwise.clip
    clamp_min, clamp_max, round = elementwise.clamp_min, elementwise.clamp_max, elementwise.round
    lerp, addcmul, addcdiv = elementwise.lerp, elementwise.addcmul, elementwise.addcdiv
    frac, logit, nan_to_num = elementwise.frac, elementwise.logit, elementwise.nan_to_num
    hardshrink = elementwise.hardshrink
    softmax, log_softmax = elementwise.softmax, elementwise.log_softmax
    where, masked_fill = selecting.choose, selecting.masked_fill
    isclose, allclose, equal = comparing.isclose, comparing.allclose, comparing.same

    @property
    def real(self) -> Tensor:
        """The real parts; the tensor itself if it is not complex."""
        return ops.real(self)

    @property
    def imag(self) -> Tensor:
        """The imaginary parts."""
        return ops.imag(self)


for _name, _op in ops.TABLE.items():  # the record's own words, for help() and editors
    _method = vars(Elementwise).get(_name)
    if _method is not None and not getattr(_method, "__doc__", "docstring"):
        _method.__doc__ = _op.doc
