"""Checkpoints of training runs: everything that decides what comes next, in one file that is always whole."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import hal
from hal.errors import DataError
from nn.train.run import Run

FILE = "checkpoint.safetensors"
FORMAT = 1


def save(run: Run, folder: Path) -> Path:
    """Write the state of `run` into `folder`, over an earlier one, in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    state = {
        "format": FORMAT,
        "settings": asdict(run.settings),
        "epoch": run.epoch,
        "losses": run.losses,
        "accuracies": run.accuracies,
        "seconds": run.seconds,
        "images": run.images,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "loader": run.loader.state_dict(),
        "random": hal.get_rng_state(),
    }
    hal.save(state, path)
    return path


def read(folder: Path) -> dict[str, Any]:
    """The state in `folder`.

    Raises:
        DataError: there is none, or the file is not a checkpoint of a run.
    """
    path = folder / FILE
    if not path.exists():
        raise DataError(f"there is no checkpoint to resume from: {path} does not exist; leave out --resume to begin anew")
    state = hal.load(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT or "settings" not in state:
        raise DataError(f"{path} is not a checkpoint of hal train: it was expected to hold format {FORMAT} with settings")
    return state


def restore(run: Run, state: dict[str, Any]) -> None:
    """Bring `run`, begun with the same settings, to where the checkpoint was written."""
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.loader.load_state_dict(state["loader"])
    hal.set_rng_state(state["random"])
    run.epoch, run.losses, run.accuracies = state["epoch"], list(state["losses"]), list(state["accuracies"])
    run.seconds, run.images = state["seconds"], state["images"]
