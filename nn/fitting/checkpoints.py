"""Checkpoints of a training run: everything that decides what comes next, in files that are always whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hal
from hal.errors import DataError
from nn.fitting.callback import Callback
from nn.fitting.history import Row

if TYPE_CHECKING:
    from nn.fitting.loop import Fit

LAST, BEST = "last.safetensors", "best.safetensors"
FORMAT = 1


class Checkpoints(Callback):
    """Writes the run to `last.safetensors` after each epoch and at the end, and to `best.safetensors` when it is best.

    Args:
        folder: where to.
        every: also write `last.safetensors` after this many steps.
        resume: begin with what is in `last.safetensors`, if there is one.

    Each file is written beside the old one and put in its place in one step, so that one of them is always whole.
    """

    def __init__(self, folder: str | Path, every: int | None = None, resume: bool = False) -> None:
        self.folder, self.every, self.resume = Path(folder), every, resume

    def begin(self, fit: Fit) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.resume and (self.folder / LAST).exists():
            restore(fit, self.folder / LAST)

    def step(self, fit: Fit) -> None:
        if self.every and fit.steps % self.every == 0:
            hal.save(state_of(fit), self.folder / LAST)

    def epoch(self, fit: Fit, row: Row) -> None:
        state = state_of(fit)
        hal.save(state, self.folder / LAST)
        if fit.history.best_epoch == fit.done:
            hal.save(state, self.folder / BEST)

    def end(self, fit: Fit) -> None:
        if fit.batches and fit.history.stopped:  # in the middle of an epoch, and not by an error
            hal.save(state_of(fit), self.folder / LAST)


def _kept(fit: Fit) -> dict[str, Any]:
    """What has a state of its own, by name."""
    found = {"model": fit.model, "optimizer": fit.optimizer, "schedule": fit.schedule, "average": fit.average}
    if fit.scaler.is_enabled():
        found["scaler"] = fit.scaler
    return {name: value for name, value in found.items() if value is not None}


def state_of(fit: Fit) -> dict[str, Any]:
    """Everything that decides how the run goes on."""
    return {
        "format": FORMAT,
        "done": fit.done,
        "batches": fit.batches,
        "steps": fit.steps,
        "items": fit.items,
        "seconds": fit.seconds,
        "rows": fit.history.rows,
        "best_epoch": fit.history.best_epoch,
        "order": fit.order if fit.batches else _order(fit),
        "figures": {name: metric.state_dict() for name, metric in fit.figures.items()},
        "gradients": _gradients(fit),
        "random": hal.get_rng_state(),
        **{name: value.state_dict() for name, value in _kept(fit).items()},
    }


def _order(fit: Fit) -> dict[str, Any]:
    state = getattr(fit.train, "state_dict", None)
    return state() if state is not None else {}


def _gradients(fit: Fit) -> dict[str, Any]:
    """Those that are summed up for a step that is not made yet."""
    if fit.accumulate == 1 or fit.batches % fit.accumulate == 0:
        return {}
    return {name: p.grad for name, p in fit.model.named_parameters() if p.grad is not None}


def restore(fit: Fit, path: Path) -> None:
    """Bring a run, made with the same settings, to where the checkpoint was written.

    Raises:
        DataError: the file is damaged, or no checkpoint of a run like this one.
    """
    state = hal.load(path)
    wanted = {"format", "done", "batches", "steps", "rows", "order", "figures", "random", *_kept(fit)}
    missing = sorted(wanted - state.keys()) if isinstance(state, dict) else sorted(wanted)
    if missing or state["format"] != FORMAT:
        wrong = f"it has no {', '.join(missing)}" if missing else f"its format is {state['format']!r}, not {FORMAT}"
        raise DataError(f"{path} is no checkpoint of a run like this one: {wrong}; resume with the same settings")
    take_up(fit, state)


def take_up(fit: Fit, state: dict[str, Any]) -> None:
    """Bring a run to where `state_of` was called.

    Raises:
        StateError: the state is of another model.
    """
    for name, value in _kept(fit).items():
        value.load_state_dict(state[name])
    loader: Any = fit.train
    if hasattr(loader, "load_state_dict"):
        loader.load_state_dict(state["order"])
    fit.order = state["order"]
    for name, metric in fit.figures.items():
        metric.load_state_dict(state["figures"].get(name, {}))
    fit.optimizer.zero_grad()
    params = dict(fit.model.named_parameters())
    for name, gradient in state["gradients"].items():
        params[name].grad = gradient.to(params[name].device)
    hal.set_rng_state(state["random"])
    fit.done, fit.batches, fit.steps = state["done"], state["batches"], state["steps"]
    fit.items, fit.seconds = state["items"], state["seconds"]
    fit.history.rows, fit.history.best_epoch = list(state["rows"]), state["best_epoch"]
