"""VGG networks, with torchvision's layout: its weights load as they are."""

from __future__ import annotations

import nn
from hal.tensor import Tensor
from nn.models.weights import begin, he_fan_out, normal
from nn.module import Module

# Filters of the 3 x 3 convolutions; 0 is maximum pooling. The names are those of the paper's table 1.
PLANS = {
    "A": (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "D": (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
}


class VGG(Module):
    """A VGG network: (N, 3, H, W) -> (N, num_classes); 224 x 224 is what it was made for.

    Args:
        plan: a row of `PLANS`.
        num_classes: how many.
        batch_norm: whether a batch normalisation follows each convolution.
        dropout: the probability in the classifier.

    Source: Simonyan, Zisserman, "Very Deep Convolutional Networks", 2015; torchvision.models.VGG.
    """

    def __init__(
        self, plan: tuple[int, ...], num_classes: int = 1000, batch_norm: bool = False, dropout: float = 0.5
    ) -> None:
        super().__init__()
        layers: list[Module] = []
        channels = 3
        for filters in plan:
            if not filters:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers.append(nn.Conv2d(channels, filters, 3, padding=1))
            layers += [nn.BatchNorm2d(filters), nn.ReLU()] if batch_norm else [nn.ReLU()]
            channels = filters
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4096, num_classes),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                begin(module, he_fan_out)
            elif isinstance(module, nn.Linear):
                begin(module, normal(0.01))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return out


def vgg11(num_classes: int = 1000, batch_norm: bool = False) -> VGG:
    """VGG-11: 133 million parameters. Source: torchvision.models.vgg11, vgg11_bn."""
    return VGG(PLANS["A"], num_classes, batch_norm)


def vgg16(num_classes: int = 1000, batch_norm: bool = False) -> VGG:
    """VGG-16: 138 million parameters. Source: torchvision.models.vgg16, vgg16_bn."""
    return VGG(PLANS["D"], num_classes, batch_norm)
