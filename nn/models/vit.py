"""Vision transformers, with torchvision's layout: its weights load as they are."""

from __future__ import annotations

from collections import OrderedDict

import hal
import nn
from hal.errors import ShapeError
from hal.tensor import Tensor
from nn.models.weights import begin, truncated
from nn.module import Module


class EncoderBlock(Module):
    """Attention and a two-layer perceptron, each after a layer normalisation and around a shortcut."""

    def __init__(self, heads: int, width: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.ln_1(x)
        x = x + self.dropout(self.self_attention(inner, inner, inner, need_weights=False)[0])
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Encoder(Module):
    """Blocks on a sequence whose positions are marked."""

    def __init__(self, length: int, layers: int, heads: int, width: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(hal.randn(1, length, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        blocks = [(f"encoder_layer_{i}", EncoderBlock(heads, width, mlp_width, dropout)) for i in range(layers)]
        self.layers = nn.Sequential(OrderedDict(blocks))
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ln(self.layers(self.dropout(x + self.pos_embedding)))
        return out


class VisionTransformer(Module):
    """An image as a sequence of patches: (N, 3, image_size, image_size) -> (N, num_classes).

    Args:
        image_size, patch_size: in pixels; the patch divides the image.
        num_layers, num_heads, hidden_dim, mlp_dim: of the encoder.
        num_classes: how many.
        dropout: everywhere in the encoder.

    Raises:
        ValueError: the patches do not fill the image.

    Source: Dosovitskiy and others, "An Image is Worth 16x16 Words", 2021; torchvision.models.VisionTransformer.
    """

    def __init__(
        self, image_size: int, patch_size: int, num_layers: int, num_heads: int, hidden_dim: int, mlp_dim: int,
        num_classes: int = 1000, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"VisionTransformer needs patches that fill {image_size} pixels, got {patch_size}")
        self.image_size = image_size
        self.class_token = nn.Parameter(hal.zeros(1, 1, hidden_dim))
        self.conv_proj = nn.Conv2d(3, hidden_dim, patch_size, patch_size)
        patches = (image_size // patch_size) ** 2
        self.encoder = Encoder(patches + 1, num_layers, num_heads, hidden_dim, mlp_dim, dropout)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(hidden_dim, num_classes)))
        begin(self.conv_proj, truncated((3 * patch_size**2) ** -0.5))
        for module in self.encoder.modules():
            if isinstance(module, nn.Linear) and module.out_features in (mlp_dim, hidden_dim):
                begin(module, nn.init.xavier_uniform_)
        begin(self.heads.head, nn.init.zeros_)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.image_size, self.image_size):
            raise ShapeError(
                f"VisionTransformer needs images of {self.image_size} x {self.image_size} pixels, got shape {x.shape}"
            )
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = self.class_token.expand(x.shape[0], -1, -1)
        out: Tensor = self.heads(self.encoder(hal.cat([tokens, patches], dim=1))[:, 0])
        return out


def vit_b_16(num_classes: int = 1000, image_size: int = 224) -> VisionTransformer:
    """ViT-B/16: 86.6 million parameters. Source: torchvision.models.vit_b_16."""
    return VisionTransformer(image_size, 16, 12, 12, 768, 3072, num_classes)
