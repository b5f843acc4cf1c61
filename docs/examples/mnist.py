"""Classify handwritten digits in both styles: a class with a loop by hand, and a list of layers with `nn.fit`.

python mnist.py                                # the digits that ship with HAL, in seconds
python mnist.py --data FOLDER                  # MNIST from its four official files
python mnist.py --data FOLDER --net lenet      # a convolutional network instead of linear layers
HAL_BACKEND=opencl python mnist.py             # the same on another device
"""

from __future__ import annotations

import argparse

import hal
import nn
from nn import functional as F
from nn import metrics, optim
from nn.data import MNIST, DataLoader, Digits
from nn.optim.lr_scheduler import CosineAnnealingLR


class Net(nn.Module):
    """Two hidden layers, written as a class: what happens to an image stands in `forward`."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(pixels, 128)
        self.hidden2 = nn.Linear(128, 64)
        self.output = nn.Linear(64, 10)

    def forward(self, images: hal.Tensor) -> hal.Tensor:
        x = images.flatten(1)
        x = F.relu(self.hidden1(x))
        x = F.relu(self.hidden2(x))
        scores: hal.Tensor = self.output(x)
        return scores


def layers(pixels: int) -> nn.Sequential:
    """The same network as a list of layers."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def by_hand(net: nn.Module, train: DataLoader, test: DataLoader, epochs: int) -> float:
    """The first style: the loop is yours."""
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    schedule = CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        net.train()
        for images, labels in train:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
        schedule.step()
        print(f"by hand, epoch {epoch + 1}: last loss {loss.item():.4f}")
    net.eval()
    right = count = 0
    with hal.no_grad():
        for images, labels in test:
            right += int((net(images).argmax(dim=1) == labels).sum())
            count += len(labels)
    return right / count


def by_fit(net: nn.Module, train: DataLoader, test: DataLoader, epochs: int) -> float:
    """The second style: the same network as a list of layers, and the loop of `nn.fit`."""
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    history = nn.fit(
        net, optimizer, F.cross_entropy, train, epochs=epochs, validation=test,
        metrics={"accuracy": metrics.Accuracy()}, schedule=CosineAnnealingLR(optimizer, epochs), quiet=True,
    )  # fmt: skip
    for row in history:
        print(f"by fit, epoch {row['epoch']}: loss {row['loss']:.4f}, test accuracy {row['val_accuracy']:.2%}, "
              f"{row['items_per_second']:,.0f} images/s")  # fmt: skip
    accuracy: float = history["val_accuracy"][-1]
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with the official files of MNIST; without it, the digits of HAL")
    parser.add_argument("--net", choices=("mlp", "lenet"), default="mlp", help="lenet needs --data")
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    if given.net == "lenet" and not given.data:
        parser.error("LeNet is for the 28 x 28 pixels of MNIST: name its folder with --data")
    hal.manual_seed(0)
    sets = [MNIST(given.data, train=t) if given.data else Digits(train=t) for t in (True, False)]
    train = DataLoader(sets[0], batch_size=32 if not given.data else 64, shuffle=True, generator=0, num_workers=1)
    test = DataLoader(sets[1], batch_size=500)
    pixels = sets[0][0][0].numel()
    nets = (nn.models.LeNet5(), nn.models.LeNet5()) if given.net == "lenet" else (Net(pixels), layers(pixels))
    for name, style, net in zip(("by hand", "by fit"), (by_hand, by_fit), nets, strict=True):
        accuracy = style(net, train, test, given.epochs)
        print(f"{name}: test accuracy {accuracy:.2%} on {hal.zeros(1).device}")


if __name__ == "__main__":
    main()
