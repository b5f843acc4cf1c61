"""Embedding: a table of vectors, looked up by index."""

from __future__ import annotations

from typing import Any

import hal
from hal.creation import DeviceLike
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn import functional as F
from nn import init
from nn.module import Module
from nn.parameter import Parameter


class Embedding(Module):
    """The rows of `weight` (num_embeddings, embedding_dim) that integers name: (...) to (..., embedding_dim).

    The weight begins normal with mean 0 and variance 1; the row `padding_idx` begins as zeros and gets no gradient.

    Args:
        max_norm: rows that are looked up and have a larger norm are scaled down to it.
        norm_type: the p of that norm.
        scale_grad_by_freq: divide a row's gradient by how often it was looked up in a batch.
        sparse: accepted for torch's sake: gradients are dense.

    Raises:
        SettingError: `padding_idx` is not a row.

    Source: torch.nn.Embedding.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
        _weight: Tensor | None = None, _freeze: bool = False, device: DeviceLike = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise SettingError(f"Embedding needs padding_idx= within its {num_embeddings} rows, got {padding_idx}")
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        if _weight is None:
            self.weight = Parameter(hal.empty(num_embeddings, embedding_dim, device=device, dtype=dtype), not _freeze)
            self.reset_parameters()
        else:
            self.weight = Parameter(_weight, not _freeze)

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
    ) -> Embedding:  # fmt: skip
        """An embedding with these rows, which are not trained unless `freeze` is False.

        Raises:
            ShapeError: not a matrix.
        """
        if embeddings.ndim != 2:
            raise ShapeError(f"Embedding.from_pretrained needs a matrix (rows, features), got shape {embeddings.shape}")
        rows, features = embeddings.shape
        settings = padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse
        return cls(rows, features, *settings, _weight=embeddings, _freeze=freeze)

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with hal.no_grad():
                self.weight[self.padding_idx].fill_(0)

    def forward(self, input: Tensor) -> Tensor:
        settings = self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq
        return F.embedding(input, self.weight, *settings)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        text += f", norm_type={self.norm_type}" if self.norm_type != 2 else ""
        text += f", scale_grad_by_freq={self.scale_grad_by_freq}" if self.scale_grad_by_freq else ""
        return text + (", sparse=True" if self.sparse else "")
