"""EmbeddingBag: a table of vectors, of which those that a bag of indices names are reduced to one."""

from __future__ import annotations

from typing import Any

from hal.creation import DeviceLike
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn import functional as F
from nn.embedding import Embedding
from nn.functional.bags import MODES


class EmbeddingBag(Embedding):
    """The sum, mean or maximum of the rows of `weight` that each bag names: (bags, size) to (bags, embedding_dim).

    Bags of different sizes lie behind each other in one axis, and `offsets` say where each begins.

    Args:
        max_norm, norm_type: rows that are looked up and have a larger norm are scaled down to it.
        scale_grad_by_freq: not offered.
        mode: `sum`, `mean` or `max`.
        sparse: accepted for torch's sake: gradients are dense.
        include_last_offset: whether the last offset is the end of the last bag.
        padding_idx: a row that counts as if it were not in the bag.

    Raises:
        SettingError: a mode that there is not.

    Source: torch.nn.EmbeddingBag.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, _weight: Tensor | None = None,
        include_last_offset: bool = False, padding_idx: int | None = None, device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        if mode not in MODES:
            raise SettingError(f"EmbeddingBag needs mode= one of {', '.join(MODES)}, got {mode!r}")
        if scale_grad_by_freq:
            raise SettingError("EmbeddingBag takes scale_grad_by_freq=False only: divide the gradient yourself")
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            False,
            sparse,
            _weight,
            False,
            device,
            dtype,
        )
        self.mode = mode
        self.include_last_offset = include_last_offset

    @classmethod
    def from_pretrained(  # type: ignore[override]  # torch's order, which is not Embedding's
        cls, embeddings: Tensor, freeze: bool = True, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
        include_last_offset: bool = False, padding_idx: int | None = None,
    ) -> EmbeddingBag:  # fmt: skip
        """An embedding with these rows, which are not trained unless `freeze` is False.

        Raises:
            ShapeError: not a matrix.
        """
        if embeddings.ndim != 2:
            raise ShapeError(f"EmbeddingBag.from_pretrained needs a matrix (rows, features), got {embeddings.shape}")
        rows, features = embeddings.shape
        made = cls(
            rows, features, max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings, include_last_offset,
            padding_idx,
        )  # fmt: skip
        made.weight.requires_grad = not freeze
        return made

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, False, self.mode, self.sparse,
            per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        text += "" if self.max_norm is None else f", max_norm={self.max_norm}"
        text += "" if self.norm_type == 2 else f", norm_type={self.norm_type}"
        text += f", mode={self.mode!r}"
        return text + ("" if self.padding_idx is None else f", padding_idx={self.padding_idx}")
