"""Mixed precision: inside `autocast`, products run in 16 bits and what would lose too much by that in float32."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from hal import dtypes, methods, ops
from hal import op as op_module
from hal.dtypes import DType
from hal.errors import SettingError
from hal.op import Op
from hal.tensor import Tensor

Given = ParamSpec("Given")
Result = TypeVar("Result")
# Which ops run in float32 whatever they are given. Source: torch's autocast op reference. All contractions run in the
# lower precision, and so do cells; everything else takes what it is given.
WIDE = frozenset((
    "acos", "asin", "cosh", "cross_entropy", "cumprod", "cumsum", "erf", "erfc", "exp", "exp2", "expm1", "group_norm",
    "hypot", "huber_loss", "instance_norm", "kl_div", "l1_loss", "layer_norm", "log", "log10", "log1p", "log2",
    "log_sigmoid", "log_softmax", "logaddexp", "logsumexp", "bce_with_logits", "binary_cross_entropy", "mse_loss",
    "nll_loss", "pow", "prod", "reciprocal", "rms_norm", "rsqrt", "sinh", "smooth_l1_loss", "softmax", "softplus",
    "sum", "mean", "var", "std", "tan",
))  # fmt: skip
CELLS = frozenset(f"{cell}_{part}" for cell in ("gru", "lstm", "rnn") for part in ("cell", "sequence"))


class _State(threading.local):
    """The precision of products in this thread, None outside of `autocast`; and whether an op is being run by it."""

    dtype: DType | None = None
    inside = False


_state = _State()
_users = 0  # blocks that are open in any thread; the hooks are in place only while there are some
_lock = threading.Lock()
_plain: tuple[Any, Any] = (None, None)


class autocast:  # used like a function, as in torch
    """Run products in 16 bits inside a `with` block or a decorated function.

    float32 inputs of matrix products, convolutions, attention and recurrent cells are converted to `dtype`, so their
    results have it too; softmax, normalisations over features, losses, sums, powers and exponentials convert 16-bit
    inputs to float32. Parameters stay what they are, and get gradients of their own dtype. Use it for the forward pass
    and the loss; with float16, scale the loss by `nn.amp.GradScaler`.

    Args:
        device_type: taken for torch's sake; every device is meant.
        dtype: bfloat16 or float16.
        enabled: False makes a block in which nothing is converted, inside of another one too.

    Raises:
        SettingError: another dtype.

    >>> import hal
    >>> a = hal.ones(2, 2)
    >>> with hal.autocast(dtype=hal.bfloat16):
    ...     product = a @ a
    ...     total = product.sum()
    >>> product.dtype, total.dtype
    (hal.bfloat16, hal.float32)

    Source: torch.autocast; Micikevicius and others, "Mixed Precision Training", 2018.
    """

    def __init__(self, device_type: Any = None, dtype: DType = dtypes.bfloat16, enabled: bool = True) -> None:
        if dtype not in (dtypes.bfloat16, dtypes.float16):
            raise SettingError(f"autocast needs dtype= hal.bfloat16 or hal.float16, got {dtype!r}")
        self.dtype = dtype if enabled else None
        self._before: list[DType | None] = []

    def __enter__(self) -> autocast:
        global _users, _plain
        with _lock:
            if _users == 0:
                import hal.dispatch  # puts its own functions there, if nothing has run yet

                assert hal.dispatch.run is not None
                _plain = (op_module.runner, methods.binary)
                op_module.runner, methods.binary = _run, _binary
            _users += 1
        self._before.append(_state.dtype)
        _state.dtype = self.dtype
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _users
        _state.dtype = self._before.pop()
        with _lock:
            _users -= 1
            if _users == 0:
                op_module.runner, methods.binary = _plain

    def __call__(self, function: Callable[Given, Result]) -> Callable[Given, Result]:
        @functools.wraps(function)
        def inside(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            with autocast(None, self.dtype or dtypes.bfloat16, self.dtype is not None):
                return function(*args, **kwargs)

        return inside


def precision() -> DType | None:
    """The dtype of products in this thread; None outside of `autocast`."""
    return _state.dtype


def is_autocast_enabled() -> bool:
    """Whether this thread is inside of `autocast`. Source: torch.is_autocast_enabled."""
    return _state.dtype is not None


def _run(op: Op, args: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    """What ops are run by while a block is open in some thread."""
    target = _state.dtype
    if target is None or _state.inside:
        return _plain[0](op, args, settings)
    wanted = None
    if op.kind == "contraction" or op.name in CELLS:
        wanted = target
    elif op.name in WIDE:
        wanted = dtypes.float32
    _state.inside = True  # what an op is decomposed into is its own business
    try:
        if wanted is not None:
            args = tuple(_converted(x, wanted) for x in args)
        return _plain[0](op, args, settings)
    finally:
        _state.inside = False


def _binary(op: Op, a: Tensor, b: Any) -> Any:
    if _state.dtype is None or not (op.kind == "contraction" or op.name in WIDE):
        return _plain[1](op, a, b)
    return _run(op, (a, b), {})


def _converted(x: Any, dtype: DType) -> Any:
    if isinstance(x, Tensor) and x.dtype is not dtype and x.dtype in (dtypes.float32, dtypes.float16, dtypes.bfloat16):
        return ops.cast(x, dtype=dtype)
    return x
