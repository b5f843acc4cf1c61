"""Small networks that courses begin with: a multilayer perceptron, LeNet-5, the CIFAR-10 network of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import nn
from hal.tensor import Tensor
from nn.models.weights import begin, truncated
from nn.module import Module


class MLP(nn.Sequential):
    """Linear layers with an activation between them: (N, ...) flattened -> (N, sizes[-1]).

    Args:
        sizes: features at the input, after each hidden layer, and at the output.
        activation: makes the module between two linear layers.
        dropout: the probability of dropping a hidden feature.

    Raises:
        ValueError: fewer than two sizes.

    >>> import hal
    >>> MLP([784, 128, 10])(hal.zeros(2, 1, 28, 28)).shape
    (2, 10)
    """

    def __init__(self, sizes: Sequence[int], activation: Callable[[], Module] = nn.ReLU, dropout: float = 0.0) -> None:
        if len(sizes) < 2:
            raise ValueError(f"MLP needs sizes of the input and the output at least, got {list(sizes)}")
        layers: list[Module] = [nn.Flatten()]
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            layers.append(nn.Linear(inputs, outputs))
            if i + 2 < len(sizes):
                layers.append(activation())
                if dropout:
                    layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


class LeNet5(Module):
    """LeNet-5: (N, channels, 28, 28), or 32 x 32 with `padding=0`, -> (N, num_classes).

    Args:
        num_classes: how many.
        channels: of the images.
        classic: sigmoids and average pooling, as textbooks have it, instead of ReLU and maximum pooling.
        padding: of the first convolution.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.
    """

    def __init__(self, num_classes: int = 10, channels: int = 1, classic: bool = False, padding: int = 2) -> None:
        super().__init__()
        activation: Callable[[], Module] = nn.Sigmoid if classic else nn.ReLU
        pool = nn.AvgPool2d if classic else nn.MaxPool2d
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=padding), activation(), pool(2, 2),
            nn.Conv2d(6, 16, 5), activation(), pool(2, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(400, 120),
            activation(),
            nn.Linear(120, 84),
            activation(),
            nn.Linear(84, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x))
        return out


class TutorialCNN(Module):
    """The network of TensorFlow's CIFAR-10 tutorial: (N, 3, size, size) -> (N, num_classes).

    Two 5 x 5 convolutions of 64 filters, each with 3 x 3 maximum pooling by 2 and local response normalisation, then
    384, 192 and `num_classes` features. Weights begin as truncated normals, as there; the convolutions pad so that
    sizes are halved, rounded up.

    Args:
        num_classes: how many.
        size: height and width of the images; the tutorial cuts 24 x 24 out of 32 x 32.

    Source: TensorFlow, "Convolutional Neural Networks" (tutorials/deep_cnn); Krizhevsky, cuda-convnet, 2011.
    """

    def __init__(self, num_classes: int = 10, size: int = 24) -> None:
        super().__init__()
        side = (size + 3) // 4
        self.conv1 = nn.Conv2d(3, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.norm = nn.LocalResponseNorm(9, alpha=9 * 0.001 / 9.0, beta=0.75, k=1.0)
        self.local3 = nn.Linear(64 * side * side, 384)
        self.local4 = nn.Linear(384, 192)
        self.softmax_linear = nn.Linear(192, num_classes)
        # weights' deviation, and what the biases begin with
        layers = {self.conv1: (5e-2, 0.0), self.conv2: (5e-2, 0.1), self.local3: (0.04, 0.1), self.local4: (0.04, 0.1)}
        for layer, (std, bias) in {**layers, self.softmax_linear: (1 / 192, 0.0)}.items():
            begin(layer, truncated(std), bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.pool(self.conv1(x).relu()))
        x = self.pool(self.norm(self.conv2(x).relu()))
        x = self.local4(self.local3(x.flatten(1)).relu()).relu()
        out: Tensor = self.softmax_linear(x)
        return out
