"""TensorFlow's CIFAR-10 tutorial, data-parallel: every device has a copy of the network and a part of each batch.

Gradients are averaged on the first device, which makes the step and hands the new weights out. The rate falls in a
staircase, weights are averaged over the steps, and figures, checkpoints and curves are kept.

    python cifar10.py --data FOLDER                        # the official binary files; some hours on a CPU
    python cifar10.py --data FOLDER --devices cpu,opencl
    python cifar10.py --small                              # the digits of HAL, enlarged, in seconds
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import hal
from nn import functional as F
from nn import metrics, models, optim
from nn.data import CIFAR10, ArrayDataset, DataLoader, Digits, transforms
from nn.fitting import History, evaluate
from nn.optim.lr_scheduler import StepLR
from nn.optim.swa_utils import AveragedModel, get_ema_avg_fn

SIZE = 24


class Towers:
    """Copies of one network, each on its device; the first is the one that learns."""

    def __init__(self, make: Any, devices: list[hal.Device]) -> None:
        self.devices = devices
        self.copies = [make().to(device) for device in devices]
        self.hand_out()

    @property
    def first(self) -> Any:
        return self.copies[0]

    def hand_out(self) -> None:
        """Give every copy the weights of the first."""
        state = self.first.state_dict()
        for copy in self.copies[1:]:
            copy.load_state_dict(state)

    def gradients(self, images: hal.Tensor, labels: hal.Tensor) -> hal.Tensor:
        """Forward and backward on each device with its part of the batch; averages the gradients on the first.

        Returns:
            The mean loss, on the first device.
        """
        count, parts = len(labels), len(self.devices)
        edges = [count * i // parts for i in range(parts + 1)]
        total: Any = 0.0
        for copy, device, a, b in zip(self.copies, self.devices, edges, edges[1:], strict=False):
            if a == b:
                continue
            copy.zero_grad()
            loss = F.cross_entropy(copy(images[a:b].to(device)), labels[a:b].to(device)) * ((b - a) / count)
            loss.backward()
            total = loss.detach().to(self.devices[0]) + total
        for params in zip(*(copy.parameters() for copy in self.copies), strict=True):
            own = params[0]
            for other in params[1:]:
                if other.grad is not None:
                    own.grad = own.grad + other.grad.to(own.device)
        mean: hal.Tensor = total
        return mean


def data(given: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The network, the training set with random crops, flips and light, and the test set with its middle."""
    change = transforms.Compose([
        transforms.RandomCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.25, 0.5),
        transforms.Standardize(),
    ])  # fmt: skip
    plain = transforms.Compose([transforms.CenterCrop(SIZE), transforms.Standardize()])
    if not given.small:
        return models.TutorialCNN, CIFAR10(given.data, True, change), CIFAR10(given.data, False, plain)
    sets = []
    for train in (True, False):
        digits = Digits(train)
        large = np.repeat(np.repeat(np.repeat(digits.images[:600], 3, 1), 4, 2), 4, 3).astype(np.float32) / 16
        mild = transforms.Compose([transforms.RandomCrop(SIZE), transforms.Standardize()])
        sets.append(ArrayDataset(large, digits.labels[:600], transform=mild if train else plain))
    return lambda: models.LeNet5(channels=3, padding=4), *sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the official binary files of CIFAR-10")
    parser.add_argument("--devices", default="", help="a comma list; the default device if not given")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--out", type=Path, default=Path("cifar10-run"))
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    if not given.small and given.data is None:
        parser.error("name the folder of CIFAR-10 with --data, or try it with --small")
    epochs, batch = given.epochs or (3 if given.small else 30), given.batch_size or (20 if given.small else 128)

    hal.manual_seed(0)
    devices = [hal.device(name) for name in given.devices.split(",") if name] or [hal.zeros(1).device]
    make, train, test = data(given)
    towers = Towers(make, devices)
    optimizer = optim.SGD(towers.first.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = StepLR(optimizer, step_size=max(1, epochs // 3), gamma=0.1)  # the staircase
    average = AveragedModel(towers.first, avg_fn=get_ema_avg_fn(0.9 if given.small else 0.999))
    loader = DataLoader(train, batch_size=batch, shuffle=True, generator=0, num_workers=1, device="cpu")
    tests = DataLoader(test, batch_size=200, device=devices[0])
    history = History()
    given.out.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, epochs + 1):
        loss = metrics.Mean()
        towers.first.train()
        start, seen = time.perf_counter(), 0
        for images, labels in loader:
            loss.update(towers.gradients(images, labels), labels)
            optimizer.step()
            towers.hand_out()
            average.update_parameters(towers.first)
            seen += len(labels)
        seconds = time.perf_counter() - start
        found = evaluate(average, F.cross_entropy, tests, metrics={"accuracy": metrics.Accuracy()})
        row = {"epoch": epoch, "loss": float(loss.compute()), "val_loss": found["loss"]}
        row |= {"val_accuracy": found["accuracy"], "lr": optimizer.param_groups[0]["lr"], "seconds": seconds}
        schedule.step()
        history.rows.append(row)
        print(f"epoch {epoch}: loss {row['loss']:.4f}, test accuracy {row['val_accuracy']:.2%}, "
              f"{seen / seconds:,.0f} examples/s on {', '.join(map(str, devices))}")  # fmt: skip
        hal.save({"model": towers.first.state_dict(), "average": average.state_dict()}, given.out / "last.safetensors")
        history.write_csv(given.out / "history.csv")
        history.write_curves(given.out / "curves.svg", "CIFAR-10")
    print(json.dumps({"test_accuracy": history["val_accuracy"][-1], "devices": [str(d) for d in devices]}))


if __name__ == "__main__":
    main()
