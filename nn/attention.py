"""Attention with several heads, as a layer."""

from __future__ import annotations

from typing import Any

import hal
from hal import ops
from hal.creation import DeviceLike
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn import functional as F
from nn import init
from nn.functional.attention import attention_weights
from nn.linear import Linear
from nn.module import Module
from nn.parameter import Parameter


class NonDynamicallyQuantizableLinear(Linear):
    """A `Linear` under the name by which torch shows the last map of its attention layer."""


class MultiheadAttention(Module):
    """Several attentions beside each other, between linear maps of queries, keys and values and one of the results.

    Inputs are (time, batch, features), (batch, time, features) with `batch_first`, or (time, features).

    Args:
        dropout: probability with which an attention weight is dropped, in training.
        add_bias_kv: a learned key and value that every query may attend to.
        add_zero_attn: a key and value of zeros that every query may attend to.
        kdim, vdim: features of keys and values; those of the queries if not given.

    Raises:
        SettingError: `num_heads` does not divide `embed_dim`.

    Source: torch.nn.MultiheadAttention; Vaswani et al., "Attention Is All You Need", 2017.
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
        add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
        device: DeviceLike = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise SettingError(
                f"MultiheadAttention needs embed_dim that num_heads divides, got {embed_dim} and {num_heads}"
            )
        super().__init__()
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn

        def values(*shape: int) -> Parameter:
            return Parameter(hal.empty(*shape, device=device, dtype=dtype))

        same = self.kdim == self.vdim == embed_dim
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        self.register_parameter("in_proj_weight", values(3 * embed_dim, embed_dim) if same else None)
        for name, size in zip(names, (embed_dim, self.kdim, self.vdim), strict=True):
            self.register_parameter(name, None if same else values(embed_dim, size))
        self.register_parameter("in_proj_bias", values(3 * embed_dim) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, device, dtype)
        self.register_parameter("bias_k", values(1, 1, embed_dim) if add_bias_kv else None)
        self.register_parameter("bias_v", values(1, 1, embed_dim) if add_bias_kv else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith("weight"):
                init.xavier_uniform_(parameter)
            elif name == "in_proj_bias":
                init.zeros_(parameter)
            else:
                init.xavier_normal_(parameter)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The results, of the query's shape, and the attention weights (batch, queries, keys) if wanted.

        Args:
            key_padding_mask: (batch, keys), True for keys that are padding.
            need_weights: whether the weights are given; without them it is faster.
            attn_mask: (queries, keys) or (batch * heads, queries, keys), True where a query may not attend to a key, or
                floats that are added to the scores.
            average_attn_weights: the mean over the heads instead of (batch, heads, queries, keys).
            is_causal: a promise that `attn_mask` is causal; it needs one.
        """
        if is_causal and attn_mask is None:
            raise SettingError("MultiheadAttention with is_causal=True needs the mask as well: attn_mask=")
        single = query.ndim == 2
        if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
            raise ShapeError(
                f"MultiheadAttention needs three inputs of 2 or 3 axes, got {query.shape}, {key.shape}, {value.shape}"
            )
        same = query is key is value
        if single:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._together(query) if same else self._projected(query, key, value)
        batch, n = q.shape[:2]
        k, v, more = self._extended(k, v)
        mask = self._mask(key_padding_mask, attn_mask, batch, n, k.shape[1], more)
        q, k, v = (self._heads(x) for x in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            weights = attention_weights(q, k, mask, False, None)
            weights = F.dropout(weights, dropout) if dropout else weights
            out = weights @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.out_proj(ops.reshape(out.transpose(1, 2), shape=(batch, n, self.embed_dim)))
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if single:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of one and the same input, by one product instead of three."""
        if self.in_proj_weight is None:
            return self._projected(x, x, x)
        all_three, size = F.linear(x, self.in_proj_weight, self.in_proj_bias), self.embed_dim
        return all_three[..., :size], all_three[..., size : 2 * size], all_three[..., 2 * size :]

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = self.embed_dim
        if self.in_proj_weight is None:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        else:
            weights = [self.in_proj_weight[i * size : (i + 1) * size] for i in range(3)]
        bias = self.in_proj_bias
        biases = [None if bias is None else bias[i * size : (i + 1) * size] for i in range(3)]
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        return q, k, v

    def _extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Keys and values with those that every query may attend to, and how many these are."""
        more = 0
        batch = k.shape[0]
        if self.bias_k is not None and self.bias_v is not None:
            shape = (batch, 1, self.embed_dim)
            k = ops.concat(k, ops.broadcast_to(self.bias_k, shape=shape), axis=1)
            v = ops.concat(v, ops.broadcast_to(self.bias_v, shape=shape), axis=1)
            more += 1
        if self.add_zero_attn:
            k, v = (ops.pad(x, padding=((0, 0), (0, 1), (0, 0))) for x in (k, v))
            more += 1
        return k, v, more

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, time, features) as (batch, heads, time, features of a head)."""
        return ops.reshape(x, shape=(*x.shape[:2], self.num_heads, self.head_dim)).transpose(1, 2)

    def _mask(
        self, padding: Tensor | None, mask: Tensor | None, batch: int, n: int, m: int, more: int
    ) -> Tensor | None:
        """Both masks as one that is added to the scores (batch, heads, n, m)."""
        parts = []
        if padding is not None:
            parts.append(ops.reshape(_added(padding), shape=(batch, 1, 1, m - more)))
        if mask is not None:
            shape = (batch, self.num_heads, n, m - more) if mask.ndim == 3 else (1, 1, n, m - more)
            parts.append(ops.reshape(_added(mask), shape=shape))
        if not parts:
            return None
        whole: Tensor = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        if more:
            whole = ops.pad(whole, padding=((0, 0), (0, 0), (0, 0), (0, more)))
        return whole


def _added(mask: Tensor) -> Tensor:
    """A mask as numbers that are added to scores: minus infinity where a bool says True."""
    return hal.where(mask, -float("inf"), 0.0) if mask.dtype is hal.bool else mask
