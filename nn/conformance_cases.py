"""The layers, losses and optimizers that the conformance levels of nn try on every device."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import hal
import nn
from hal import Tensor

Build = Callable[[], nn.Module]
Shape = tuple[int, ...]
IMAGE, SIGNAL, ROWS, STEPS = (2, 4, 6, 5), (2, 4, 7), (4, 6), (3, 2, 4)
AXES: dict[int, Shape] = {1: SIGNAL, 2: IMAGE, 3: (2, 4, 4, 3, 5)}


class _Twice(nn.Module):
    """A layer of two inputs on one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x * 0.5)


class _Half(_Twice):
    """A layer of two inputs on the halves of one."""

    def forward(self, x: Tensor) -> Any:
        return self.layer(*hal.split(x, x.shape[0] // 2))


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

    def __init__(self, n: int) -> None:
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{n}d")(2, return_indices=True)
        self.unpool = getattr(nn, f"MaxUnpool{n}d")(2)

    def forward(self, x: Tensor) -> Any:
        return self.unpool(*self.pool(x), output_size=x.shape)


class _With(nn.Module):
    """A loss of three inputs, the third made of the first."""

    def __init__(self, loss: nn.Module, third: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.loss, self.third = loss, third

    def forward(self, x: Tensor, target: Tensor) -> Any:
        return self.loss(x, target, self.third(x))


def _sign(x: Tensor) -> Tensor:
    return hal.where(x.detach() > 0, 1.0, -1.0)


def _near(x: Tensor) -> Tensor:
    return x.detach() * 0.5


class _Squashed(nn.Module):
    """A loss of probabilities."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: Tensor, target: Tensor) -> Any:
        return self.loss(hal.sigmoid(x), target)


class _Signs(_Squashed):
    """A loss whose targets are 1 or -1."""

    def forward(self, x: Tensor, target: Tensor) -> Any:
        return self.loss(x, hal.where(target > 0, 1.0, -1.0))


class _Labels(_Squashed):
    """A loss whose targets are several classes each, the end marked by -1."""

    def forward(self, x: Tensor, target: Tensor) -> Any:
        labels = hal.stack([target, (target + 2) % 5, target * 0 - 1, target * 0, target * 0], axis=1)
        return self.loss(x, labels)


class _Adaptive(_Twice):
    """The loss of fixed classes, whose scores are in clusters by how frequent they are."""

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, hal.tensor(np.array([0, 4, 2, 3]), device=x.device)).loss


class _Aligned(nn.Module):
    """The classes (6) as labels of two sequences, aligned with the scores (6, 5) as steps of both."""

    def forward(self, scores: Tensor, target: Tensor) -> Any:
        steps = hal.log_softmax(scores, 1).unsqueeze(1)
        labels = hal.where(target == 0, 3, target)[:4].reshape(2, 2)
        return nn.functional.ctc_loss(hal.concat([steps, steps * 0.9], axis=1), labels, (6, 5), (2, 1))


def _decoder() -> nn.Module:
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0), 1)


def _activations() -> dict[str, tuple[Build, Shape]]:
    """Those that need no setting."""
    kinds = [v for v in vars(nn.activations).values() if getattr(v, "__module__", "") == "nn.activations"]
    return {
        kind.__name__: (kind, IMAGE if kind is nn.Softmax2d else SIGNAL)
        for kind in kinds
        if kind.__name__ in nn.__all__ and not _needs(kind)
    }


def _needs(kind: type) -> bool:
    """Whether there is a setting that has to be given."""
    return any(
        p.default is p.empty and p.name not in ("args", "kwargs") for p in inspect.signature(kind).parameters.values()
    )


def _over_axes() -> dict[str, tuple[Build, Shape]]:
    """What there is for one, two and three spatial axes."""
    families: dict[str, tuple[Any, ...]] = {
        "AdaptiveAvgPool": (2,), "AdaptiveMaxPool": (2,), "AvgPool": (2, 2, 1), "BatchNorm": (4,),
        "CircularPad": (1,), "ConstantPad": (1, 0.5), "Conv": (4, 3, 3, 1, 1), "ConvTranspose": (4, 3, 3, 2),
        "InstanceNorm": (4,), "LPPool": (2, 2), "MaxPool": (2,), "ReflectionPad": (1,), "ReplicationPad": (2,),
        "ZeroPad": (1,),
    }  # fmt: skip
    rows: dict[str, tuple[Build, Shape]] = {
        f"{family}{n}d": (partial(getattr(nn, f"{family}{n}d"), *args), shape)
        for n, shape in AXES.items()
        for family, args in families.items()
    }
    return rows | {f"MaxUnpool{n}d": (partial(_Unpooled, n), shape) for n, shape in AXES.items()}


# fmt: off
LAYERS: dict[str, tuple[Build, Shape]] = _activations() | _over_axes() | {
    "Linear": (lambda: nn.Linear(6, 3), ROWS),
    "Linear-no-bias": (lambda: nn.Linear(6, 3, bias=False), ROWS),
    "Bilinear": (lambda: _Twice(nn.Bilinear(6, 6, 3)), ROWS),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), IMAGE),
    "Conv2d-grouped": (lambda: nn.Conv2d(4, 6, (3, 2), dilation=(1, 2), groups=2), IMAGE),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1), IMAGE),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(6), ROWS),
    "BatchNorm2d-eval": (lambda: nn.BatchNorm2d(4).eval(), IMAGE),
    "LayerNorm": (lambda: nn.LayerNorm((6, 5)), IMAGE),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True), IMAGE),
    "RMSNorm": (lambda: nn.RMSNorm(5), IMAGE),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3), IMAGE),
    "ReLU": (lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)), ROWS),
    "PReLU": (lambda: nn.PReLU(4), SIGNAL),
    "GLU": (lambda: nn.GLU(1), SIGNAL),
    "Softmax": (lambda: nn.Softmax(1), SIGNAL),
    "LogSoftmax": (lambda: nn.LogSoftmax(-1), SIGNAL),
    "Flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(120, 2)), IMAGE),
    "RNN": (lambda: nn.RNN(4, 3), STEPS),
    "LSTM": (lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True), STEPS),
    "GRU": (lambda: nn.GRU(4, 3), STEPS),
    "MultiheadAttention": (lambda: _Itself(nn.MultiheadAttention(8, 2)), (3, 2, 8)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), (3, 2, 8)),
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
    "RReLU": (lambda: nn.RReLU(0.2, 0.2), SIGNAL),
    "Threshold": (lambda: nn.Threshold(0.1, -2.0), SIGNAL),
    "Softmin": (lambda: nn.Softmin(1), SIGNAL),
    "ChannelShuffle": (lambda: nn.ChannelShuffle(2), IMAGE),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(2), (2, 3, 4, 6)),
    "Identity": (lambda: nn.Sequential(nn.Identity(), nn.Linear(6, 2)), ROWS),
    "Unflatten": (lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 2)), ROWS),
    "UpsamplingNearest2d": (lambda: nn.UpsamplingNearest2d((3, 8)), IMAGE),
    "UpsamplingBilinear2d": (lambda: nn.UpsamplingBilinear2d(scale_factor=2), IMAGE),
    "FractionalMaxPool2d": (lambda: nn.FractionalMaxPool2d(2, 3), IMAGE),
    "FractionalMaxPool3d": (lambda: nn.FractionalMaxPool3d(2, 2), AXES[3]),
    "CosineSimilarity": (lambda: _Twice(nn.CosineSimilarity()), SIGNAL),
    "PairwiseDistance": (lambda: _Half(nn.PairwiseDistance()), ROWS),
    "RNNCell": (lambda: nn.RNNCell(6, 3), ROWS),
    "GRUCell": (lambda: nn.GRUCell(6, 3), ROWS),
    "LSTMCell": (lambda: nn.LSTMCell(6, 3), ROWS),
    "SinusoidalPositions": (lambda: nn.Sequential(nn.SinusoidalPositions(4), nn.Linear(4, 2)), STEPS),
    "TransformerEncoder": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0), 2), (3, 2, 8)),
    "TransformerDecoderLayer": (lambda: _Twice(nn.TransformerDecoderLayer(8, 2, 16, 0.0)), (3, 2, 8)),
    "TransformerDecoder": (lambda: _Twice(_decoder()), (3, 2, 8)),
    "Transformer": (lambda: _Twice(nn.Transformer(8, 2, 1, 1, 16, 0.0)), (3, 2, 8)),
    "AdaptiveLogSoftmaxWithLoss": (lambda: _Adaptive(nn.AdaptiveLogSoftmaxWithLoss(6, 5, [2, 3])), ROWS),
    "Orthogonal": (lambda: nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)), STEPS),
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
    "BCELoss": (lambda: _Squashed(nn.BCELoss()), "shares"),
    "GaussianNLLLoss": (lambda: _With(nn.GaussianNLLLoss(), lambda x: _near(x).square() + 0.5), "numbers"),
    "HingeEmbeddingLoss": (lambda: _Signs(nn.HingeEmbeddingLoss()), "numbers"),
    "SoftMarginLoss": (lambda: _Signs(nn.SoftMarginLoss()), "numbers"),
    "MultiLabelMarginLoss": (lambda: _Labels(nn.MultiLabelMarginLoss()), "classes"),
    "MarginRankingLoss": (lambda: _With(nn.MarginRankingLoss(0.5), _sign), "numbers"),
    "TripletMarginLoss": (lambda: _With(nn.TripletMarginLoss(), _near), "numbers"),
    "TripletMarginWithDistanceLoss": (lambda: _With(nn.TripletMarginWithDistanceLoss(), _near), "numbers"),
    "CosineEmbeddingLoss": (lambda: _With(nn.CosineEmbeddingLoss(), lambda x: _sign(x[:, 0])), "numbers"),
}
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: nn.optim.SGD(p, lr=0.1),
    "SGD-momentum": lambda p: nn.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "Adam": lambda p: nn.optim.Adam(p, lr=0.02),
    "AdamW": lambda p: nn.optim.AdamW(p, lr=0.02),
    "RMSprop": lambda p: nn.optim.RMSprop(p, lr=0.01),
    "Adagrad": lambda p: nn.optim.Adagrad(p, lr=0.05),
    "Adadelta": lambda p: nn.optim.Adadelta(p, lr=0.5),
    "Adamax": lambda p: nn.optim.Adamax(p, lr=0.02),
    "RAdam": lambda p: nn.optim.RAdam(p, lr=0.02, betas=(0.8, 0.9)),
    "Rprop": lambda p: nn.optim.Rprop(p, lr=0.01),
    "Lion": lambda p: nn.optim.Lion(p, lr=0.01),
}
# fmt: on
