"""Checkpoints of training runs: everything that decides what comes next, in one file that is always whole."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hal
from hal.errors import DataError
from nn.train.run import Run, Settings
from nn.train.tasks import TASKS

FILE = "checkpoint.safetensors"
EARLIER = "earlier-checkpoint.safetensors"
FORMAT = 1
KINDS: dict[str, type | tuple[type, ...]] = {
    "settings": dict, "data": (str, type(None)), "items": int, "goal": int, "epoch": int, "losses": list,
    "accuracies": list, "seconds": float, "images": int, "model": dict, "optimizer": dict, "loader": dict,
    "random": hal.Tensor,
}  # fmt: skip


def prepare(folder: Path, resumed: bool) -> str:
    """Make sure that checkpoints can be kept in `folder`, and keep apart the one of an earlier run that is there.

    Returns:
        What people should know of it, if anything.

    Raises:
        DataError: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{FILE}.probe"
        probe.touch()
        probe.unlink()
        for left in folder.glob(f".{FILE}.*.tmp"):  # of a run that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        if resumed or not (folder / FILE).exists():
            return ""
        # A copy and not a rename, so that whatever happens now there is a checkpoint.
        shutil.copyfile(folder / FILE, folder / EARLIER)
    except OSError as error:
        raise DataError(
            f"--out {folder} cannot be written to: {error.strerror or error}; name another folder"
        ) from error
    return f"the checkpoint that was in {folder} is kept there as {EARLIER} (--resume would have gone on from it)"


def save(run: Run, folder: Path) -> None:
    """Write the state of `run` into `folder`, over an earlier one, in one step."""
    state = {
        "format": FORMAT,
        "settings": asdict(run.settings),
        "data": None if run.data is None else str(run.data.absolute()),
        "items": len(run.train_set),
        "goal": run.goal,
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
    hal.save(state, folder / FILE)


def read(folder: Path) -> dict[str, Any]:
    """The state in `folder`.

    Raises:
        DataError: there is none, or the file is not a checkpoint of a run.
    """
    path = folder / FILE
    if not path.exists():
        raise DataError(
            f"there is no checkpoint to resume from: {path} does not exist; leave out --resume to begin anew"
        )
    state = hal.load(path)
    wrong = "it has no format"
    if isinstance(state, dict) and "format" in state:
        wrong = f"its format is {state['format']!r}, not {FORMAT}" if state["format"] != FORMAT else _wrong(state)
    if wrong:
        raise DataError(f"{path} is not a checkpoint that this hal train wrote: {wrong}; begin anew without --resume")
    return state


def _wrong(state: dict[str, Any]) -> str:
    """What is missing in a state, or is not of its kind; empty if nothing."""
    for name, kind in KINDS.items():
        if name not in state:
            return f"it has no {name!r}"
        if not isinstance(state[name], kind):
            return f"its {name!r} is of type {type(state[name]).__name__}"
    with contextlib.suppress(TypeError):
        if Settings(**state["settings"]).task in TASKS:
            return ""
    return f"its settings are {state['settings']}"


def restore(run: Run, state: dict[str, Any]) -> None:
    """Bring `run`, begun with the same settings, to where the checkpoint was written.

    Raises:
        StateError: the state is of another network.
    """
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.loader.load_state_dict(state["loader"])
    hal.set_rng_state(state["random"])
    run.epoch, run.losses, run.accuracies = state["epoch"], list(state["losses"]), list(state["accuracies"])
    run.seconds, run.images = state["seconds"], state["images"]
