"""What can be done beside training: told of every epoch, every step, and the end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from nn.fitting.history import Row

if TYPE_CHECKING:
    from nn.fitting.loop import Fit


class Callback:
    """Is told how training goes. A subclass overrides what it wants to hear of."""

    def begin(self, fit: Fit) -> None:
        """Training begins, or goes on."""

    def batch(self, fit: Fit) -> None:
        """A batch has gone forward and backward, and a step was made if it was time for one."""

    def step(self, fit: Fit) -> None:
        """The optimizer has made a step; gradients are still there. Looking at a value here waits for the device."""

    def epoch(self, fit: Fit, row: Row) -> None:
        """An epoch has ended with these figures. `fit.stop(why)` makes it the last one."""

    def end(self, fit: Fit) -> None:
        """Training has ended, by whatever cause."""


class EarlyStopping(Callback):
    """Ends training when a figure has not become better for some epochs.

    Args:
        monitor: the figure.
        patience: how many epochs without a better one are borne.
        min_delta: what counts as better: by more than this.
        mode: whether smaller ("min") or larger ("max") is better.

    Raises:
        ValueError: another mode.

    Source: Prechelt, "Early Stopping - But When?", 1998.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 5, min_delta: float = 0.0, mode: str = "min") -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"EarlyStopping needs mode= 'min' or 'max', got {mode!r}")
        self.monitor, self.patience, self.min_delta, self.mode = monitor, patience, min_delta, mode

    def epoch(self, fit: Fit, row: Row) -> None:
        sign = 1 if self.mode == "min" else -1
        best, waited = math.inf, 0
        for value in fit.history[self.monitor]:  # from the history, so that a resumed run counts on
            if value is not None and sign * value < best - self.min_delta:
                best, waited = sign * value, 0
            else:
                waited += 1
        if waited > self.patience:
            fit.stop("early")


class Logs(Callback):
    """Keeps `history.json`, `history.csv` and `curves.svg` in a folder up to date, epoch by epoch."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def begin(self, fit: Fit) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def epoch(self, fit: Fit, row: Row) -> None:
        self._write(fit)

    def end(self, fit: Fit) -> None:
        self._write(fit)

    def _write(self, fit: Fit) -> None:
        fit.history.write_json(self.folder / "history.json")
        fit.history.write_csv(self.folder / "history.csv")
        fit.history.write_curves(self.folder / "curves.svg", type(fit.model).__name__)
