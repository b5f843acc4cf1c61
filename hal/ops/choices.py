"""Random choices: bernoulli draws a 0 or 1 for each probability, dropout keeps or drops each element."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import SettingError
from hal.op import Array, Cost, Grads, Op, Rng, Sample, Specs, Tolerance
from hal.ops.common import FLOATS, check_kind, floating
from hal.ops.common import uniform as drawn
from hal.ops.random import (
    OPS_PER_WORD,
    WORD,
    check_shape,
    check_state,
    fractions,
    reference_fractions,
    reference_stream,
    sample_state,
    working,
)  # fmt: skip
from hal.ops.steps import zeros
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def threshold(p: float) -> int:
    """Below how many of the 2**32 words an element is dropped with probability `p`."""
    return round(p * WORD)


def _beside_state(x: DType, state: DType) -> tuple[DType, ...]:
    return (*floating(x), state)


def _infer_choice(who: str, x: Spec, state: Spec) -> Spec:
    check_kind(who, x, FLOATS)
    check_state(who, state)
    check_shape(who, x.shape)
    return x


def _cost_choice(x: Spec, state: Spec, *, out: Specs, **settings: Any) -> Cost:
    return Cost((OPS_PER_WORD + 2) * x.size, 2 * x.nbytes + state.nbytes)


def _infer_bernoulli(p: Spec, state: Spec) -> Spec:
    return _infer_choice("bernoulli", p, state)


def _decompose_bernoulli(p: Tensor, state: Tensor) -> Tensor:
    unit = ops.cast(fractions(ops.random_bits(state, shape=p.shape), dtypes.float32), dtype=working(p.dtype))
    chosen = ops.less(unit, ops.cast(p, dtype=working(p.dtype)))
    return ops.cast(chosen, dtype=p.dtype)


def _reference_bernoulli(p: Array, state: Array) -> Array:
    unit = reference_fractions(reference_stream(state, p.size), dtypes.float32).reshape(p.shape)
    return (unit < p).astype(np.float64)


def _sample_bernoulli(rng: Rng) -> Iterator[Sample]:
    for shape in ((), (0,), (7,), (3, 4), (5001,)):
        yield Sample((drawn(rng, shape, 0, 1), sample_state(rng)), smooth=False)
    yield Sample((drawn(rng, (4, 3), 0, 1).T, sample_state(rng)), smooth=False)
    yield Sample((np.array([0.0, 1.0] * 8, np.float32), sample_state(rng)), smooth=False)  # never and always


bernoulli = Op(
    "bernoulli", _infer_bernoulli, _reference_bernoulli, _sample_bernoulli, None, _decompose_bernoulli, _cost_choice,
    "random", _beside_state, no_gradient="a choice between 0 and 1 has no slope in its probability",
    doc="""1 with the probability that `p` holds for this element, else 0, in the dtype of `p`.

    An element is 1 where the top 24 bits of its word / 2**24 are less than p: never for p = 0, always for p = 1.
    n elements consume (n + 1) // 2 counters; advance by `counters(n)`.""",
)  # fmt: skip


def _infer_dropout(x: Spec, state: Spec, *, p: float) -> Spec:
    if not 0 <= p <= 1:
        raise SettingError(f"dropout needs a probability p between 0 and 1, got p={p}")
    return _infer_choice("dropout", x, state)


def _gradient_dropout(g: Tensor, out: Tensor, x: Tensor, state: Tensor, *, p: float) -> Grads:
    return ops.dropout(g, state, p=p), None  # the same state drops the same elements


def _decompose_dropout(x: Tensor, state: Tensor, *, p: float) -> Tensor:
    if threshold(p) == WORD:
        return zeros(x, x.shape)
    dropped = ops.less(ops.random_bits(state, shape=x.shape), threshold(p))
    wide = working(x.dtype)
    return ops.cast(ops.where(dropped, 0.0, ops.cast(x, dtype=wide) * (1 / (1 - p))), dtype=x.dtype)


def _reference_dropout(x: Array, state: Array, *, p: float) -> Array:
    kept = reference_stream(state, x.size).reshape(x.shape) >= threshold(p)
    return np.where(kept, x / (1 - p if p < 1 else 1), 0)


def _sample_dropout(rng: Rng) -> Iterator[Sample]:
    for shape in ((), (0,), (7,), (3, 4), (2, 0, 3)):
        yield Sample((drawn(rng, shape), sample_state(rng)), {"p": 0.5})
    yield Sample((drawn(rng, (4, 3)).T, sample_state(rng)), {"p": 0.3})
    yield Sample((drawn(rng, (40_001,)), sample_state(rng)), {"p": 0.9}, smooth=False)
    for p in (0.0, 1.0, 0.25, 1e-12):
        yield Sample((drawn(rng, (2, 3, 4)), sample_state(rng)), {"p": p})
    yield Sample(
        (np.array([np.nan, np.inf, -np.inf, -0.0] * 4, np.float32), sample_state(rng)), {"p": 0.5}, smooth=False
    )


dropout = Op(
    "dropout", _infer_dropout, _reference_dropout, _sample_dropout, _gradient_dropout, _decompose_dropout,
    _cost_choice, "random", _beside_state,
    tolerance=Tolerance(2, 1, 2, 1, source="two roundings: of 1 / (1 - p) and of the product"),
    doc="""Zeros with probability `p` where `x` was, and x / (1 - p) elsewhere. With p = 1 all is zero.

    An element becomes zero, even if it was infinite, where its word is less than p * 2**32, rounded to an integer.
    n elements consume (n + 1) // 2 counters; advance by `counters(n)`.

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15 (2014).""",
)  # fmt: skip
