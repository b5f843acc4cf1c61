"""The layers, losses and optimizers that the conformance levels of nn try on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import hal
import nn
from hal import Tensor

Build = Callable[[], nn.Module]
Shape = tuple[int, ...]
IMAGE, SIGNAL, ROWS, STEPS = (2, 4, 6, 5), (2, 4, 7), (4, 6), (3, 2, 4)


class _Twice(nn.Module):
    """A layer of two inputs on one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x * 0.5)


class _Itself(_Twice):
    """A sequence that attends to itself."""

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x, x)[0]


class _Words(_Twice):
    """An embedding of fixed words, scaled by the input."""

    def forward(self, x: Tensor) -> Any:
        words = hal.tensor(np.array([[0, 4, 1], [1, 3, 3]]), device=x.device)
        return self.layer(words) * x[:2, :3].sum()


class _Unpooled(nn.Module):
    """Maxima, put back to where they were."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Any:
        return self.unpool(*self.pool(x))


class _Aligned(nn.Module):
    """The classes (6) as labels of two sequences, aligned with the scores (6, 5) as steps of both."""

    def forward(self, scores: Tensor, target: Tensor) -> Any:
        steps = hal.log_softmax(scores, 1).unsqueeze(1)
        labels = hal.where(target == 0, 3, target)[:4].reshape(2, 2)
        return nn.functional.ctc_loss(hal.concat([steps, steps * 0.9], axis=1), labels, (6, 5), (2, 1))


# fmt: off
LAYERS: dict[str, tuple[Build, Shape]] = {
    "Linear": (lambda: nn.Linear(6, 3), ROWS),
    "Linear-no-bias": (lambda: nn.Linear(6, 3, bias=False), ROWS),
    "Bilinear": (lambda: _Twice(nn.Bilinear(6, 6, 3)), ROWS),
    "Conv1d": (lambda: nn.Conv1d(4, 3, 3, padding=1), SIGNAL),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), IMAGE),
    "Conv2d-grouped": (lambda: nn.Conv2d(4, 6, (3, 2), dilation=(1, 2), groups=2), IMAGE),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 3, 3, stride=2), SIGNAL),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1), IMAGE),
    "MaxPool1d": (lambda: nn.MaxPool1d(2), SIGNAL),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1), IMAGE),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d((2, 3)), IMAGE),
    "AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d((2, 3)), IMAGE),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(6), ROWS),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), IMAGE),
    "BatchNorm2d-eval": (lambda: nn.BatchNorm2d(4).eval(), IMAGE),
    "LayerNorm": (lambda: nn.LayerNorm((6, 5)), IMAGE),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True), IMAGE),
    "RMSNorm": (lambda: nn.RMSNorm(5), IMAGE),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3), IMAGE),
    "ReLU": (lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)), ROWS),
    "GELU": (nn.GELU, SIGNAL),
    "SiLU": (nn.SiLU, SIGNAL),
    "ELU": (nn.ELU, SIGNAL),
    "Softplus": (nn.Softplus, SIGNAL),
    "Tanh": (nn.Tanh, SIGNAL),
    "Sigmoid": (nn.Sigmoid, SIGNAL),
    "Mish": (nn.Mish, SIGNAL),
    "PReLU": (lambda: nn.PReLU(4), SIGNAL),
    "GLU": (lambda: nn.GLU(1), SIGNAL),
    "Softmax": (lambda: nn.Softmax(1), SIGNAL),
    "LogSoftmax": (lambda: nn.LogSoftmax(-1), SIGNAL),
    "ReflectionPad2d": (lambda: nn.ReflectionPad2d(1), IMAGE),
    "CircularPad2d": (lambda: nn.CircularPad2d(2), IMAGE),
    "ZeroPad2d": (lambda: nn.ZeroPad2d(1), IMAGE),
    "Flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(120, 2)), IMAGE),
    "RNN": (lambda: nn.RNN(4, 3), STEPS),
    "LSTM": (lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True), STEPS),
    "GRU": (lambda: nn.GRU(4, 3), STEPS),
    "MultiheadAttention": (lambda: _Itself(nn.MultiheadAttention(8, 2)), (3, 2, 8)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), (3, 2, 8)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2, stride=2), (2, 2, 3, 2, 3)),
    "MaxPool3d": (lambda: nn.MaxPool3d(2), (2, 2, 4, 4, 2)),
    "MaxUnpool2d": (_Unpooled, (2, 4, 6, 4)),
    "LPPool2d": (lambda: nn.LPPool2d(2, 2), IMAGE),
    "Upsample-bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "Upsample-bicubic": (lambda: nn.Upsample((5, 9), mode="bicubic", align_corners=True), IMAGE),
    "Unfold": (lambda: nn.Unfold((3, 2), padding=1, stride=2), IMAGE),
    "Fold": (lambda: nn.Fold((4, 3), 2), (2, 8, 6)),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), IMAGE),
    "WeightNorm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), ROWS),
    "SpectralNorm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 3, 2)), IMAGE),
    "RotaryPositions": (lambda: nn.RotaryPositions(4), STEPS),
    "LSTM-projected": (lambda: nn.LSTM(4, 3, proj_size=2), STEPS),
    "EmbeddingBag": (lambda: _Words(nn.EmbeddingBag(5, 3, mode="max")), ROWS),
    "Embedding": (lambda: _Words(nn.Embedding(5, 3, padding_idx=1)), ROWS),
}
LOSSES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "CrossEntropyLoss": (lambda: nn.CrossEntropyLoss(label_smoothing=0.1), "classes"),
    "NLLLoss": (nn.NLLLoss, "classes"),
    "MSELoss": (nn.MSELoss, "numbers"),
    "L1Loss": (nn.L1Loss, "numbers"),
    "SmoothL1Loss": (nn.SmoothL1Loss, "numbers"),
    "HuberLoss": (lambda: nn.HuberLoss(delta=0.7), "numbers"),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, "shares"),
    "MultiMarginLoss": (nn.MultiMarginLoss, "classes"),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, "shares"),
    "MultiLabelSoftMarginLoss": (nn.MultiLabelSoftMarginLoss, "shares"),
    "CTCLoss": (_Aligned, "classes"),
    "KLDivLoss": (lambda: nn.KLDivLoss(reduction="batchmean"), "shares"),
}
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: nn.optim.SGD(p, lr=0.1),
    "SGD-momentum": lambda p: nn.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "Adam": lambda p: nn.optim.Adam(p, lr=0.02),
    "AdamW": lambda p: nn.optim.AdamW(p, lr=0.02),
    "RMSprop": lambda p: nn.optim.RMSprop(p, lr=0.01),
    "Adagrad": lambda p: nn.optim.Adagrad(p, lr=0.05),
}
# fmt: on
