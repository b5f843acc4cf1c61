"""Checkpoints of `hal train`: what `nn.fit` keeps of a run, and what was asked for, in one file always whole."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hal
from hal.errors import DataError
from nn.fitting import Callback, Fit
from nn.fitting.checkpoints import FORMAT, state_of, take_up
from nn.fitting.history import Row
from nn.train.run import Run, Settings
from nn.train.tasks import TASKS

FILE = "checkpoint.safetensors"
EARLIER = "earlier-checkpoint.safetensors"
KINDS: dict[str, type | tuple[type, ...]] = {
    "settings": dict, "data": (str, type(None)), "images": int, "goal": int, "done": int, "batches": int, "steps": int,
    "items": int, "seconds": float, "rows": list, "best_epoch": int, "order": dict, "figures": dict, "gradients": dict,
    "model": dict, "optimizer": dict, "schedule": dict, "random": hal.Tensor,
}  # fmt: skip


class Keep(Callback):
    """Keeps everything of a run up to date: its history, its checkpoint, and pictures of its curve.

    Args:
        run: which.
        out: the folder for the checkpoint; None for none.
        pictures: files for the curve.
        state: a checkpoint to go on from.
    """

    def __init__(self, run: Run, out: Path | None, pictures: Sequence[Path], state: dict[str, Any] | None) -> None:
        self.run, self.out, self.pictures, self.state = run, out, pictures, state

    def begin(self, fit: Fit) -> None:
        self.run.history = fit.history
        if self.state is not None:
            take_up(fit, self.state)
        else:
            self._save(fit)  # so that a run that is killed in its first epoch can be resumed, too
        self._draw()

    def epoch(self, fit: Fit, row: Row) -> None:
        self._save(fit)
        self._draw()

    def end(self, fit: Fit) -> None:
        if fit.batches and fit.history.stopped:  # in the middle of an epoch, and not by an error
            self._save(fit)

    def _save(self, fit: Fit) -> None:
        if self.out is None:
            return
        run = self.run
        asked = {
            "settings": asdict(run.settings),
            "data": None if run.data is None else str(run.data.absolute()),
            "images": len(run.train_set),
            "goal": run.goal,
        }
        hal.save(state_of(fit) | asked, self.out / FILE)

    def _draw(self) -> None:
        run = self.run
        for path in self.pictures:
            path.parent.mkdir(parents=True, exist_ok=True)
            run.history.write_curves(path, f"hal train {run.task.name} on {run.device}, seed {run.settings.seed}")


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
