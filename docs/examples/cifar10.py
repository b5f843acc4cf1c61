"""TensorFlow's CIFAR-10 tutorial, data-parallel: every device has the network's weights and a part of each batch.

`nn.DataParallel` lends the weights; the loss is the mean over all parts, so the gradients of all devices come
together in the network's own, where the step is made. The rate falls in a staircase, weights are averaged over the
steps, and figures, curves, summaries and checkpoints are kept.

    python cifar10.py --data FOLDER                        # the official binary files
    python cifar10.py --data FOLDER --resume               # go on where a run was stopped or broken off
    python cifar10.py --data FOLDER --devices cpu,opencl
    python cifar10.py --small                              # the digits of HAL, enlarged, in seconds
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import hal
import nn
from nn import functional as F
from nn import metrics, models, optim
from nn.data import CIFAR10, ArrayDataset, DataLoader, Digits, transforms
from nn.optim.lr_scheduler import StepLR
from nn.optim.swa_utils import AveragedModel, get_ema_avg_fn

SIZE = 24
STAIRS = 6


def data(given: argparse.Namespace) -> tuple[nn.Module, Any, Any]:
    """The network, the training set with random crops and flips, and the test set with its middle.

    Light and contrast are not varied, as they are in the tutorial: each image is standardised, which undoes it.
    """
    plain = transforms.Compose([transforms.CenterCrop(SIZE), transforms.Standardize()])
    if not given.small:
        change = transforms.Compose(
            [transforms.RandomCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.Standardize()]
        )
        return models.TutorialCNN(size=SIZE), CIFAR10(given.data, True, change), CIFAR10(given.data, False, plain)
    mild = transforms.Compose([transforms.RandomCrop(SIZE), transforms.Standardize()])
    sets = []
    for train in (True, False):
        digits = Digits(train)
        large = np.repeat(np.repeat(np.repeat(digits.images[:600], 3, 1), 4, 2), 4, 3).astype(np.float32) / 16
        sets.append(ArrayDataset(large, digits.labels[:600], transform=mild if train else plain))
    return models.LeNet5(channels=3, padding=4), sets[0], sets[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the official binary files of CIFAR-10")
    parser.add_argument("--devices", default="", help="a comma list; the default device if not given")
    parser.add_argument("--epochs", type=int, help="30 if not given; 6 with --small")
    parser.add_argument("--batch-size", type=int, help="128 if not given; 20 with --small")
    parser.add_argument("--lr", type=float, default=0.03, help="at first; halved on each stair")
    parser.add_argument("--out", type=Path, default=Path("cifar10-run"), help="for checkpoints, figures and curves")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--tensorboard", action="store_true", help="write summaries, too; needs tensorboardX")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    if not given.small and given.data is None:
        parser.error("name the folder of CIFAR-10 with --data, or try it with --small")
    epochs, batch = given.epochs or (6 if given.small else 30), given.batch_size or (20 if given.small else 128)

    hal.manual_seed(0)
    devices = [hal.device(name) for name in given.devices.split(",") if name] or [hal.zeros(1).device]
    net, train, test = data(given)
    parallel = nn.DataParallel(net, devices)
    optimizer = optim.SGD(parallel.parameters(), lr=given.lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    history = nn.fit(
        parallel, optimizer, F.cross_entropy,
        DataLoader(train, batch_size=batch, shuffle=True, generator=0, num_workers=1, device=devices[0]),
        epochs=epochs,
        validation=DataLoader(test, batch_size=200, num_workers=1, device=devices[0]),
        metrics={"accuracy": metrics.Accuracy()},
        schedule=StepLR(optimizer, step_size=max(1, epochs // STAIRS), gamma=0.5),
        average=AveragedModel(parallel, avg_fn=get_ema_avg_fn(0.9 if given.small else 0.999)),
        callbacks=[nn.fitting.TensorBoard(given.out / "events")] if given.tensorboard else [],
        out=given.out, every=100, resume=given.resume,
    )  # fmt: skip
    print("epoch  loss    test accuracy  examples/s")
    for row in history:
        print(f"{row['epoch']:5}  {row['loss']:.4f}  {row['val_accuracy']:13.2%}  {row['items_per_second']:10,.0f}")
    print(json.dumps({"test_accuracy": history["val_accuracy"][-1], "devices": [str(device) for device in devices]}))


if __name__ == "__main__":
    main()
