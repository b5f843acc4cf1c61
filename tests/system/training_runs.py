"""Runs of `hal train`, here or in a process of their own, and small data sets in the official layouts."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from hal.cli import cli

COMMAND = [sys.executable, "-m", "hal", "train"]


def train(*args: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["train", *map(str, args)])


def trained(*args: object) -> dict[str, Any]:
    """What a run without progress says in the end."""
    done = train("--json", "--quiet", *args)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def start(*args: object, **kwargs: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def write_mnist(folder: Path, items: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        labels = (np.arange(items) % 10).astype(np.uint8)
        images = rng.integers(0, 30, (items, 28, 28), np.uint8)
        images[np.arange(items), labels * 2 + 2] = 255  # a line whose height tells the class
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, items, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, items) + labels.tobytes())
    return folder


def write_cifar(folder: Path, items: int = 10) -> Path:
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        labels = (np.arange(items) % 10).astype(np.uint8)
        pixels = rng.integers(0, 256, (items, 3072), np.uint8)
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())
    return folder
