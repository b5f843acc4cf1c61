"""embedding: rows of a table, looked up by index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.errors import DTypeError, SettingError, ShapeError
from hal.op import Array, Grads, Op, Rng, Sample
from hal.ops.common import INTEGERS, uniform
from hal.ops.steps import zeros
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _infer(weight: Spec, indices: Spec, *, padding_idx: int | None = None) -> Spec:
    if weight.ndim != 2:
        raise ShapeError(f"embedding needs a table of shape (rows, features), got {weight.shape}")
    if indices.dtype.kind not in INTEGERS:
        raise DTypeError(f"embedding needs integer indices, got {indices.dtype.name}; convert them with .long()")
    rows = weight.shape[0]
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise SettingError(f"embedding got padding_idx={padding_idx}, but its table has {rows} rows")
    return Spec((*indices.shape, weight.shape[1]), weight.dtype)


def _gradient(g: Tensor, out: Tensor, weight: Tensor, indices: Tensor, *, padding_idx: int | None) -> Grads:
    def by_weight() -> Tensor:
        rows, features = weight.shape
        flat = ops.reshape(indices, shape=(indices.spec.size,))
        updates = ops.reshape(g, shape=(indices.spec.size, features))
        if padding_idx is not None:
            padding = ops.equal(flat, padding_idx % rows)
            updates = ops.where(ops.reshape(padding, shape=(indices.spec.size, 1)), 0.0, updates)
        return ops.index_add(zeros(weight, weight.shape), flat, updates, axis=0)

    return by_weight, None


def _reference(weight: Array, indices: Array, *, padding_idx: int | None = None) -> Array:
    return weight[indices.astype(np.int64)]


def _samples(rng: Rng) -> Iterator[Sample]:
    for shape in ((4,), (), (0,), (2, 3), (3, 1, 2)):
        yield Sample((uniform(rng, (5, 3)), rng.integers(0, 5, shape)))
    for dtype in (np.int32, np.uint8):
        yield Sample((uniform(rng, (5, 3)), rng.integers(0, 5, (4,)).astype(dtype)))
    yield Sample((uniform(rng, (3, 5)).T, rng.integers(0, 5, (6,))[::2]))
    yield Sample((uniform(rng, (5, 0)), rng.integers(0, 5, (4,))))
    repeated = np.array([[1, 1, 0], [1, 4, 1]])
    yield Sample((uniform(rng, (5, 3)), repeated))
    yield Sample((uniform(rng, (5, 3)), repeated), {"padding_idx": 0}, smooth=False)  # its row gets no gradient
    yield Sample((uniform(rng, (5, 3)), repeated), {"padding_idx": -1}, smooth=False)
    yield Sample((uniform(rng, (1000, 65)), rng.integers(0, 1000, (40, 50))), smooth=False)


embedding = Op(
    "embedding", _infer, _reference, _samples, _gradient,
    lambda weight, indices, *, padding_idx: ops.take(weight, indices, axis=0), kind="indexing",
    doc="""The rows of `weight` (rows, features) at `indices` (...), of shape (..., features).

    The row padding_idx gets no gradient. Source: torch.nn.functional.embedding.""",
)  # fmt: skip
