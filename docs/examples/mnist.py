"""Classify handwritten digits in both styles: layers as objects with a loop by hand, and functions with `nn.fit`.

python mnist.py                       # the digits that ship with HAL, in seconds
python mnist.py --data FOLDER         # MNIST from its four official files
HAL_BACKEND=opencl python mnist.py    # the same on another device
"""

from __future__ import annotations

import argparse

import hal
import nn
from nn import functional as F
from nn import metrics, optim
from nn.data import MNIST, DataLoader, Digits


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


def by_hand(train: DataLoader, test: DataLoader, pixels: int, epochs: int) -> float:
    """The first style: the loop is yours."""
    net = Net(pixels)
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(epochs):
        net.train()
        for images, labels in train:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
        print(f"by hand, epoch {epoch + 1}: last loss {loss.item():.4f}")
    net.eval()
    right = count = 0
    with hal.no_grad():
        for images, labels in test:
            _, best = net(images).topk(1, dim=1)
            right += int((best.squeeze(1) == labels).sum())
            count += len(labels)
    return right / count


def by_fit(train: DataLoader, test: DataLoader, pixels: int, epochs: int) -> float:
    """The second style: the same network as a list of layers, and the loop of `nn.fit`."""
    net = nn.models.MLP([pixels, 128, 64, 10])
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    history = nn.fit(
        net, optimizer, F.cross_entropy, train, epochs=epochs, validation=test,
        metrics={"accuracy": metrics.Accuracy()}, quiet=True,
    )  # fmt: skip
    for row in history:
        print(f"by fit, epoch {row['epoch']}: loss {row['loss']:.4f}, test accuracy {row['val_accuracy']:.2%}")
    accuracy: float = history["val_accuracy"][-1]
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with the official files of MNIST; without it, the digits of HAL")
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args()
    hal.manual_seed(0)
    sets = [MNIST(given.data, train=t) if given.data else Digits(train=t) for t in (True, False)]
    pixels = sets[0][0][0].numel()
    train = DataLoader(sets[0], batch_size=32 if not given.data else 64, shuffle=True, generator=0, num_workers=1)
    test = DataLoader(sets[1], batch_size=500)
    for name, style in (("by hand", by_hand), ("by fit", by_fit)):
        print(f"{name}: test accuracy {style(train, test, pixels, given.epochs):.2%} on {hal.zeros(1).device}")


if __name__ == "__main__":
    main()
