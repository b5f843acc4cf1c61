"""MobileNetV2, with torchvision's layout: its weights load as they are."""

from __future__ import annotations

import nn
from hal.tensor import Tensor
from nn.models.weights import begin, he_fan_out, normal
from nn.module import Module

# Of each stage: how much wider the blocks are inside, the channels that leave it, its blocks, the stride of the first.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _rounded(channels: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth below."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class InvertedResidual(Module):
    """A depthwise convolution between a widening and a narrowing 1 x 1 one, around a shortcut where sizes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand_ratio: int) -> None:
        super().__init__()
        wide = round(inputs * expand_ratio)
        self.use_res_connect = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_convolution(inputs, wide, 1)] if expand_ratio != 1 else []),
            _convolution(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.use_res_connect else out


class MobileNetV2(Module):
    """MobileNetV2: (N, 3, H, W) -> (N, num_classes); 224 x 224 is what it was made for.

    Args:
        num_classes: how many.
        width_mult: a factor on all channels.
        dropout: the probability before the classifier.

    Source: Sandler and others, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018; torchvision.models.
    """

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.2) -> None:
        super().__init__()
        channels, last = _rounded(32 * width_mult), _rounded(1280 * max(1.0, width_mult))
        layers: list[Module] = [_convolution(3, channels, 3, 2)]
        for ratio, outputs, count, stride in STAGES:
            for i in range(count):
                wide = _rounded(outputs * width_mult)
                layers.append(InvertedResidual(channels, wide, stride if i == 0 else 1, ratio))
                channels = wide
        self.features = nn.Sequential(*layers, _convolution(channels, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                begin(module, he_fan_out)
            elif isinstance(module, nn.Linear):
                begin(module, normal(0.01))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return out


def mobilenet_v2(num_classes: int = 1000) -> MobileNetV2:
    """MobileNetV2: 3.5 million parameters. Source: torchvision.models.mobilenet_v2."""
    return MobileNetV2(num_classes)
