"""A course's convolutional CIFAR-10 network: two convolutions, pooling, three linear layers, and a short training."""

import pytest

import hal
import nn
from nn import functional as F
from nn import optim


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: hal.Tensor) -> hal.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = hal.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def batches(n: int, size: int) -> list[tuple[hal.Tensor, hal.Tensor]]:
    """Pictures of noise with a bright square whose place is the class: something to learn without a download."""
    hal.manual_seed(0)
    found = []
    for _ in range(n):
        labels = hal.randint(0, 10, (size,))
        images = hal.randn(size, 3, 32, 32) * 0.1
        for i, label in enumerate(labels.tolist()):
            row, column = 3 + 14 * (label % 2), 2 + 6 * (label // 2)
            images[i, :, row : row + 8, column : column + 5] += 1.5
        found.append((images, labels))
    return found


def test_it_learns(each_device: hal.Device) -> None:
    steps, size = (40, 32) if each_device.type == "cpu" else (2, 4)
    loader = batches(steps, size)
    net = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    running_loss: list[float] = []
    for _, (inputs, labels) in enumerate(loader, 0):
        optimizer.zero_grad()
        outputs = net(inputs)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        running_loss.append(loss.item())

    correct, total = 0, 0
    correct_pred = dict.fromkeys(CLASSES, 0)
    with hal.no_grad():
        for images, labels in loader[:4]:
            outputs = net(images)
            _, predicted = hal.max(outputs.data, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
            for label, prediction in zip(labels, predicted, strict=True):
                if label == prediction:
                    correct_pred[CLASSES[label]] += 1

    assert total == min(4, steps) * size
    assert sum(correct_pred.values()) == correct
    assert 1.8 < running_loss[0] < 2.9
    if each_device.type == "cpu":
        assert running_loss[-1] < 0.3
        assert correct / total > 0.9


def test_all_devices_do_the_same_step(each_device: hal.Device) -> None:
    def run(device: str) -> list[float]:
        hal.manual_seed(3)
        net = Net().to("cpu").to(device)
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        inputs, labels = hal.randn(2, 3, 32, 32).to(device), hal.tensor([3, 7]).to(device)
        losses = []
        for _ in range(2):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    assert run(str(each_device)) == pytest.approx(run("cpu"), rel=1e-4)
