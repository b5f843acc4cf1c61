"""A small GPT: predicts the next token of a sequence, with the names that GPT-2 gives its weights."""

from __future__ import annotations

from math import sqrt

import hal
import nn
from hal.errors import ShapeError
from hal.tensor import Tensor
from nn import functional as F
from nn.models.weights import begin, normal
from nn.module import Module


class CausalSelfAttention(Module):
    """Attention in which each position sees those before it, and itself."""

    def __init__(self, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.c_attn = nn.Linear(width, 3 * width, bias=bias)
        self.c_proj = nn.Linear(width, width, bias=bias)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        parts = self.c_attn(x).reshape(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts[0], parts[1], parts[2]
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        out: Tensor = self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(n, length, width)))
        return out


class FeedForward(Module):
    """Two linear layers, four times wider in the middle."""

    def __init__(self, width: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width, bias=bias)
        self.gelu = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(4 * width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.c_proj(self.gelu(self.c_fc(x))))
        return out


class Block(Module):
    """Attention and a feed-forward network, each after a layer normalisation and around a shortcut."""

    def __init__(self, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, bias=bias)
        self.attn = CausalSelfAttention(width, heads, dropout, bias)
        self.ln_2 = nn.LayerNorm(width, bias=bias)
        self.mlp = FeedForward(width, dropout, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class GPT(Module):
    """A decoder-only transformer: integer tokens (N, T) -> scores (N, T, vocab_size) of the token that follows each.

    Args:
        vocab_size: how many different tokens there are.
        block_size: the longest sequence.
        n_layer, n_head, n_embd: blocks, attention heads, features; the heads divide the features.
        dropout: everywhere.
        bias: whether linear layers and normalisations have one.

    The output layer shares its weight with the token embedding.

    Raises:
        ValueError: the heads do not divide the features.

    Source: Radford and others, "Language Models are Unsupervised Multitask Learners", 2019.
    """

    def __init__(
        self, vocab_size: int, block_size: int = 128, n_layer: int = 4, n_head: int = 4, n_embd: int = 256,
        dropout: float = 0.0, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if n_embd % n_head:
            raise ValueError(f"GPT needs n_head= that divides n_embd= {n_embd}, got {n_head}")
        self.block_size = block_size
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(vocab_size, n_embd),
            "wpe": nn.Embedding(block_size, n_embd),
            "drop": nn.Dropout(dropout),
            "h": nn.ModuleList([Block(n_embd, n_head, dropout, bias) for _ in range(n_layer)]),
            "ln_f": nn.LayerNorm(n_embd, bias=bias),
        })  # fmt: skip
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                residual = name.endswith("c_proj")  # adds to what 2 * n_layer others add to
                begin(module, normal(0.02 / sqrt(2 * n_layer) if residual else 0.02))
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        if length > self.block_size:
            raise ShapeError(f"GPT takes sequences of up to block_size= {self.block_size} tokens, got {length}")
        parts = self.transformer
        x = parts["wte"](tokens) + parts["wpe"](hal.arange(length, device=tokens.device))
        x = parts["drop"](x)
        for block in parts["h"]:
            x = block(x)
        out: Tensor = self.lm_head(parts["ln_f"](x))
        return out

    def generate(
        self, tokens: Tensor, count: int, temperature: float = 1.0, top_k: int | None = None,
        generator: hal.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """`tokens` (N, T) and `count` more, each drawn by the scores for it: (N, T + count).

        Args:
            temperature: below 1 prefers likely tokens more; 0 always takes the likeliest.
            top_k: draw only from that many of the likeliest.
        """
        with hal.no_grad():
            for _ in range(count):
                scores = self(tokens[:, -self.block_size :])[:, -1]
                if temperature == 0:
                    following = scores.argmax(dim=-1, keepdim=True)
                else:
                    scores = scores / temperature
                    if top_k is not None:
                        least = scores.topk(min(top_k, scores.shape[-1]))[0][:, -1:]
                        scores = hal.where(scores < least, -hal.inf, scores)
                    following = hal.multinomial(scores.softmax(dim=-1), 1, replacement=True, generator=generator)
                tokens = hal.cat([tokens, following.to(tokens.dtype)], dim=1)
        return tokens
