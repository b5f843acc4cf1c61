"""Methods that change a tensor in place, for all that share its memory: their names end in an underscore, as in torch.

Each goes through `dispatch.run_into`: a kernel that can write into the tensor's own buffer does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hal import ops
from hal.dtypes import DEFAULT_FLOAT, DEFAULT_INT
from hal.errors import GradientError, SettingError, ShapeError
from hal.functions import elementwise, selecting, shaping
from hal.functions.arguments import Scalar, is_tensor
from hal.interop import as_operand
from hal.op import Op
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.random import Generator
    from hal.tensor import Tensor


def into(target: Any, op: Op, *args: Any, **settings: Any) -> Tensor:
    """Run `op` and let the result be the contents of `target`; Python numbers among the inputs are weakly typed."""
    from hal.dispatch import run_into
    from hal.placement import NUMBERS, operand

    ready = []
    for x in args:
        if not is_tensor(x):
            if not isinstance(x, (int, float, complex)):
                x = as_operand(x) if as_operand(x) is not NotImplemented else x
            if isinstance(x, NUMBERS):
                x = operand(x, target.dtype, target.device)
        ready.append(x)
    run_into((target,), op, tuple(ready), settings)
    return target


def replace(target: Any, who: str, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Let what `change` makes of `target`, broadcast and cast, be its contents."""
    from hal.inplace import assign, before, check_target, fit

    check_target(who, target)
    assign(target, fit(who, target, change(before(target))))
    return target


def become(x: Any, who: str, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Let `x` be the view that `change` makes of it: another shape of the same memory, under the same name."""
    from hal.recording import mode

    if x.tracked and x.node is None and mode.enabled:
        raise GradientError(f"{who} would change the shape of a leaf that requires a gradient; drop the underscore")
    before = x.detach()
    before.node, before.index, before.tracked = x.node, x.index, x.tracked
    if x.parent is not None:
        before.seen = x.seen
    after = change(before)
    if after.node is None:  # nothing was recorded: what was a leaf is one
        after.tracked = x.tracked
    for name in ("spec", "storage", "_buffer", "_generation", "node", "index", "tracked", "parent"):
        setattr(x, name, getattr(after, name))
    if after.parent is not None:
        x.made_by, x.seen = after.made_by, after.seen
    return x


class Mutation:
    """Methods of `Tensor` that change it in place and return it."""

    __slots__ = ()

    # fmt: off
    def add_(self, other: Any, *, alpha: Scalar = 1) -> Tensor: return into(self, ops.add, self, _scaled(other, alpha))
    def sub_(self, other: Any, *, alpha: Scalar = 1) -> Tensor: return into(self, ops.sub, self, _scaled(other, alpha))
    def mul_(self, other: Any) -> Tensor: return into(self, ops.mul, self, other)
    def pow_(self, exponent: Any) -> Tensor: return into(self, ops.pow, self, exponent)
    def floor_divide_(self, other: Any) -> Tensor: return into(self, ops.floor_divide, self, other)
    def remainder_(self, other: Any) -> Tensor: return into(self, ops.remainder, self, other)
    def fmod_(self, other: Any) -> Tensor: return into(self, ops.fmod, self, other)
    def abs_(self) -> Tensor: return into(self, ops.abs, self)
    def neg_(self) -> Tensor: return into(self, ops.neg, self)
    def sign_(self) -> Tensor: return into(self, ops.sign, self)
    def square_(self) -> Tensor: return into(self, ops.square, self)
    def sqrt_(self) -> Tensor: return into(self, ops.sqrt, self)
    def rsqrt_(self) -> Tensor: return into(self, ops.rsqrt, self)
    def reciprocal_(self) -> Tensor: return into(self, ops.reciprocal, self)
    def exp_(self) -> Tensor: return into(self, ops.exp, self)
    def expm1_(self) -> Tensor: return into(self, ops.expm1, self)
    def log_(self) -> Tensor: return into(self, ops.log, self)
    def log1p_(self) -> Tensor: return into(self, ops.log1p, self)
    def sin_(self) -> Tensor: return into(self, ops.sin, self)
    def cos_(self) -> Tensor: return into(self, ops.cos, self)
    def tanh_(self) -> Tensor: return into(self, ops.tanh, self)
    def sigmoid_(self) -> Tensor: return into(self, ops.sigmoid, self)
    def relu_(self) -> Tensor: return into(self, ops.relu, self)
    def erf_(self) -> Tensor: return into(self, ops.erf, self)
    def floor_(self) -> Tensor: return into(self, ops.floor, self)
    def ceil_(self) -> Tensor: return into(self, ops.ceil, self)
    def trunc_(self) -> Tensor: return into(self, ops.trunc, self)
    def round_(self) -> Tensor: return into(self, ops.round, self)
    def logical_not_(self) -> Tensor: return into(self, ops.logical_not, self)
    def bitwise_and_(self, other: Any) -> Tensor: return into(self, ops.bitwise_and, self, other)
    def bitwise_or_(self, other: Any) -> Tensor: return into(self, ops.bitwise_or, self, other)
    def bitwise_xor_(self, other: Any) -> Tensor: return into(self, ops.bitwise_xor, self, other)
    # fmt: on

    def div_(self: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """Divide in place. Source: torch.Tensor.div_."""
        if rounding_mode is None:
            return into(self, ops.div, self, other)
        return replace(self, "div_", lambda x: elementwise.div(x, other, rounding_mode=rounding_mode))

    def clamp_(self: Any, min: Any = None, max: Any = None) -> Tensor:
        """Bound the elements in place. Source: torch.Tensor.clamp_."""
        if is_tensor(min) or is_tensor(max) or (min is None and max is None):
            return replace(self, "clamp_", lambda x: elementwise.clip(x, min, max))
        return into(self, ops.clip, self, low=min, high=max)

    clip_ = clamp_
    multiply_, subtract_, divide_ = mul_, sub_, div_

    def lerp_(self: Any, end: Tensor, weight: Any) -> Tensor:
        """Move towards `end` in place. Source: torch.Tensor.lerp_."""
        return replace(self, "lerp_", lambda x: elementwise.lerp(x, end, weight))

    def addcmul_(self: Any, a: Tensor, b: Tensor, *, value: Scalar = 1) -> Tensor:
        """Add value a b in place. Source: torch.Tensor.addcmul_."""
        return into(self, ops.add, self, a * b * value)

    def addcdiv_(self: Any, a: Tensor, b: Tensor, *, value: Scalar = 1) -> Tensor:
        """Add value a / b in place. Source: torch.Tensor.addcdiv_."""
        return into(self, ops.add, self, a / b * value)

    # New contents.

    def fill_(self: Any, value: Any) -> Tensor:
        """The same value everywhere: a number or a 0-d tensor. Source: torch.Tensor.fill_."""
        from hal.placement import constant

        if not is_tensor(value):
            value = constant(value, Spec((), self.dtype), self.device)
        return into(self, ops.full, value if value.dtype is self.dtype else value.to(self.dtype), shape=self.shape)

    def zero_(self) -> Tensor:
        """Zeros everywhere. Source: torch.Tensor.zero_."""
        return self.fill_(0)

    def copy_(self: Any, source: Any, non_blocking: bool = False) -> Tensor:
        """The contents of `source`, broadcast, converted and moved here. Source: torch.Tensor.copy_."""
        from hal.interop import asarray

        value = source if is_tensor(source) else asarray(source, dtype=self.dtype, device=self.device)
        if value.shape != self.shape:
            if value.ndim > self.ndim:
                raise ShapeError(f"copy_ needs a source that broadcasts to {self.shape}, got {value.shape}")
            value = ops.broadcast_to(value, shape=self.shape)
        if value.device is not self.device:
            value = value.to(self.device, self.dtype)
        return into(self, ops.cast, value, dtype=self.dtype)

    def masked_fill_(self: Any, mask: Tensor, value: Any) -> Tensor:
        """`value` where the mask holds. Source: torch.Tensor.masked_fill_."""
        return replace(self, "masked_fill_", lambda x: selecting.masked_fill(x, mask, value))

    def scatter_(self: Any, dim: int, index: Tensor, src: Any = None, *, value: Any = None) -> Tensor:
        """Put the elements of `src` at the places of `index` along `dim`. Source: torch.Tensor.scatter_."""
        return replace(self, "scatter_", lambda x: selecting.scatter(x, dim, index, src, value=value))

    def scatter_add_(self: Any, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """Add the elements of `src` at the places of `index` along `dim`. Source: torch.Tensor.scatter_add_."""
        return into(self, ops.scatter_add, self, index, src, axis=dim)

    def index_add_(self: Any, dim: int, index: Tensor, source: Tensor, *, alpha: Scalar = 1) -> Tensor:
        """Add the slices of `source` at these numbers along `dim`. Source: torch.Tensor.index_add_."""
        return into(self, ops.index_add, self, index, _scaled(source, alpha), axis=dim)

    def index_copy_(self: Any, dim: int, index: Tensor, source: Tensor) -> Tensor:
        """Put the slices of `source` at these numbers along `dim`. Source: torch.Tensor.index_copy_."""
        return into(self, ops.put, self, index, source, axis=dim)

    def index_fill_(self: Any, dim: int, index: Tensor, value: Any) -> Tensor:
        """Put one value into the slices with these numbers along `dim`. Source: torch.Tensor.index_fill_."""
        return replace(self, "index_fill_", lambda x: selecting.index_fill(x, dim, index, value))

    # Random contents; the bits are the same on every device.

    def uniform_(self: Any, low: float = 0.0, high: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Random numbers, uniform in [low, high). Source: torch.Tensor.uniform_."""
        state = _state(self, generator)
        return into(self, ops.uniform, state, shape=self.shape, dtype=self.dtype, low=float(low), high=float(high))

    def normal_(self: Any, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Random numbers of a normal distribution. Source: torch.Tensor.normal_."""
        state = _state(self, generator)
        return into(self, ops.normal, state, shape=self.shape, dtype=self.dtype, mean=float(mean), std=float(std))

    def bernoulli_(self: Any, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
        """1 with probability `p`, a number or a tensor that broadcasts, else 0. Source: torch.Tensor.bernoulli_."""
        chances = p if is_tensor(p) else self.new_full((), p, dtype=DEFAULT_FLOAT)
        drawn = ops.bernoulli(ops.broadcast_to(chances.to(self.device), shape=self.shape), _state(self, generator))
        return self.copy_(drawn)

    def random_(self: Any, low: int = 0, high: int | None = None, *, generator: Generator | None = None) -> Tensor:
        """Random whole numbers in [low, high); with one number below it; with none all that the dtype holds from 0 on.

        Source: torch.Tensor.random_.
        """
        from hal.functions.datatypes import finfo, iinfo

        if self.dtype.kind not in ("int", "uint", "float"):
            raise SettingError(f"random_ fills integer and floating-point tensors, this one is {self.dtype.name}")
        if high is None and low != 0:
            low, high = 0, low
        whole = self.dtype if self.dtype.kind != "float" else DEFAULT_INT
        if high is None:  # every whole number up to there is exact
            high = iinfo(whole).max if whole is self.dtype else round(2 / finfo(self.dtype).eps) + 1
        drawn = ops.randint(_state(self, generator), shape=self.shape, low=low, high=high, dtype=whole)
        return self.copy_(drawn)

    def exponential_(self: Any, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Random numbers of an exponential distribution with rate `lambd`. Source: torch.Tensor.exponential_."""
        state = _state(self, generator)
        unit = ops.uniform(state, shape=self.shape, dtype=self.dtype)
        return self.copy_(-(-unit).log1p() / lambd)

    # Another shape under the same name.

    def squeeze_(self, dim: Any = None) -> Tensor:
        """Lose axes of size 1. Source: torch.Tensor.squeeze_."""
        return become(self, "squeeze_", lambda x: shaping.squeeze(x, dim))

    def unsqueeze_(self, dim: int) -> Tensor:
        """Get a new axis of size 1. Source: torch.Tensor.unsqueeze_."""
        return become(self, "unsqueeze_", lambda x: shaping.unsqueeze(x, dim))

    def transpose_(self, dim0: int, dim1: int) -> Tensor:
        """Exchange two axes. Source: torch.Tensor.transpose_."""
        return become(self, "transpose_", lambda x: shaping.transpose(x, dim0, dim1))

    def t_(self) -> Tensor:
        """Transpose a matrix. Source: torch.Tensor.t_."""
        return become(self, "t_", shaping.t)


def _scaled(other: Any, alpha: Scalar) -> Any:
    return other if alpha == 1 else other * alpha


def _state(x: Any, generator: Generator | None) -> Tensor:
    from hal.random import next_state

    return next_state(x.spec.size, x.device, generator)
