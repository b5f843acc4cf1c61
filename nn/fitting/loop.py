"""The training loop: batches, steps, epochs, validation and checkpoints; everything it needs is handed to it."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import hal
from hal.dtypes import DType
from hal.errors import HalError, SettingError
from hal.tensor import Tensor
from nn.amp import GradScaler
from nn.data import DataLoader
from nn.fitting.callback import Callback, Logs
from nn.fitting.history import History, Row
from nn.metrics import Mean, Metric
from nn.module import Module
from nn.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from nn.optim.optimizer import Optimizer
from nn.optim.swa_utils import AveragedModel
from nn.utils import clip_grad_norm_

Loss = Callable[[Any, Any], Tensor]
SHOW_EVERY = 0.2  # seconds between looks at the loss: each waits for the device


class DivergedError(HalError, ArithmeticError):
    """The training loss is no longer a finite number."""


class Fit:
    """A training run. `fit` makes one and runs it; callbacks are given it.

    Attributes:
        model, optimizer, loss_fn, train, validation: as they were given.
        epochs: how many are wanted in all.
        done: how many epochs are done.
        batches: how many batches of the present epoch are done.
        steps: how many steps the optimizer has made.
        inputs: those of the last batch, on the device.
        loss: of the last batch, on the device.
        history: the figures of the epochs that are done.
    """

    def __init__(
        self, model: Module, optimizer: Optimizer, loss: Loss, train: Iterable[Any], *, epochs: int,
        validation: Iterable[Any] | None, metrics: Mapping[str, Metric], schedule: Any, schedule_every: str,
        accumulate: int, clip_norm: float | None, penalty: Callable[[Module], Tensor] | None,
        average: AveragedModel | None, precision: DType | None, compile: bool, callbacks: Sequence[Callback],
        monitor: str | None, mode: str, device: Any, quiet: bool,
    ) -> None:  # fmt: skip
        for name, value in (("epochs", epochs), ("accumulate", accumulate)):
            if value < 1:
                raise SettingError(f"fit needs {name}= of 1 or more, got {value}")
        if schedule_every not in ("epoch", "step") or mode not in ("min", "max"):
            raise SettingError(
                f"fit needs schedule_every= 'epoch' or 'step', and mode= 'min' or 'max', "
                f"got {schedule_every!r} and {mode!r}"
            )
        if compile and (accumulate > 1 or precision is hal.float16):
            raise SettingError("fit compiles whole steps: compile= goes with neither accumulate= nor hal.float16")
        taken = {"epoch", "loss", "lr", "seconds", "items_per_second"} & metrics.keys()
        if taken:
            raise SettingError(f"fit has figures of these names itself, so no metric can have them: {sorted(taken)}")
        self.model, self.optimizer, self.loss_fn, self.train, self.validation = (
            model,
            optimizer,
            loss,
            train,
            validation,
        )
        self.epochs, self.schedule, self.schedule_every = epochs, schedule, schedule_every
        self.accumulate, self.clip_norm, self.penalty, self.average = accumulate, clip_norm, penalty, average
        self.precision = precision
        self.scaler = GradScaler(enabled=precision is hal.float16)
        self.monitor = monitor or ("loss" if validation is None else "val_loss")
        self.mode = mode
        self.callbacks = list(callbacks)
        self.device = device
        self.quiet = quiet
        self.done = self.batches = self.steps = 0
        self.items = 0
        self.seconds = 0.0
        self.inputs: Any = None
        self.loss: Any = None
        self.history = History()
        self.order: dict[str, Any] = {}  # what the loader needs to begin this epoch again
        self.figures: dict[str, Metric] = {"loss": Mean(), **{name: deepcopy(m) for name, m in metrics.items()}}
        self._metrics = metrics
        self._compiled = hal.compile(self._whole) if compile else None
        self._why = ""

    def stop(self, why: str) -> None:
        """End training after this batch, or after the epoch that has just ended."""
        self._why = self._why or why

    def run(self) -> History:
        """Train until `epochs` epochs are done, or something stops it."""
        with _asked_to_stop(self):
            self._tell("begin")
            try:
                while self.done < self.epochs and not self._why:
                    self._epoch()
            finally:
                self.history.stopped = self._why
                self._tell("end")
        return self.history

    def _tell(self, what: str, *about: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, what)(self, *about)

    def _epoch(self) -> None:
        from nn.fitting.progress import showing

        skip = self.batches
        if skip == 0:
            self.optimizer.zero_grad()
            state = getattr(self.train, "state_dict", None)
            self.order = state() if state is not None else {}
            for metric in self.figures.values():
                metric.reset()
            self.items, self.seconds = 0, 0.0
        self.model.train()
        total = len(self.train) if isinstance(self.train, Sized) else 0
        title = f"epoch {self.done + 1:>{len(str(self.epochs))}}/{self.epochs}"
        start = shown = time.perf_counter() - self.seconds
        with showing(title, total, self.quiet) as show:
            for batch in _passed(self.train, skip, self.device):
                last = self.batches + 1 == total
                self._batch(batch, last)
                now = time.perf_counter()
                self.seconds = now - start
                if not self.quiet and now - shown >= SHOW_EVERY:
                    shown = now
                    show(self.batches, self._shown())
                if self._why:
                    return  # in the middle of an epoch: `batches` says where
            if self.batches % self.accumulate and not total:
                self._step()  # of a loader whose end was not known
            row = self._row()
            show(self.batches, _line(row))
        self.done, self.batches = self.done + 1, 0
        self.history.rows.append(row)
        self._watch(row)
        if self.schedule is not None and self.schedule_every == "epoch":
            self._next_rate(row)
        self._tell("epoch", row)

    def _batch(self, batch: Any, last: bool) -> None:
        """Forward, backward, and a step of the optimizer where enough batches have been seen."""
        self.inputs, targets = _parts(batch, self.device)
        outputs, self.loss = (self._compiled or self._gradients)(self.inputs, targets)
        self.batches += 1
        self.items += _length(targets)
        self.figures["loss"].update(self.loss, targets)
        for name in self._metrics:
            self.figures[name].update(outputs, targets)
        if self.batches % self.accumulate == 0 or last:
            self._step()
        self._tell("batch")

    def _gradients(self, inputs: Any, targets: Any) -> tuple[Any, Tensor]:
        """Forward and backward; gives the outputs and the loss."""
        with hal.autocast(dtype=self.precision or hal.bfloat16, enabled=self.precision is not None):
            outputs = self.model(inputs)
            loss = self.loss_fn(outputs, targets)
        whole = loss if self.penalty is None else loss + self.penalty(self.model)
        self.scaler.scale(whole / self.accumulate if self.accumulate > 1 else whole).backward()
        return outputs, loss.detach()

    def _update(self) -> None:
        """The optimizer's step, with the gradients that are there."""
        if self.clip_norm is not None:
            params = [p for group in self.optimizer.param_groups for p in group["params"]]
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(params, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _whole(self, inputs: Any, targets: Any) -> tuple[Any, Tensor]:
        """A step to be compiled, from inputs to new weights."""
        outputs, loss = self._gradients(inputs, targets)
        self._update()
        self.optimizer.zero_grad()
        return outputs.detach(), loss

    def _step(self) -> None:
        if self._compiled is None:
            self._update()
        self.steps += 1
        if self.average is not None:
            self.average.update_parameters(self.model)
        if self.schedule is not None and self.schedule_every == "step":
            self.schedule.step()
        self._tell("step")
        self.optimizer.zero_grad()

    def _next_rate(self, row: Row) -> None:
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(row[self.monitor])
        else:
            assert isinstance(self.schedule, LRScheduler)
            self.schedule.step()

    def _shown(self) -> str:
        found = {name: metric.compute() for name, metric in self.figures.items() if metric.sums}
        parts = {name: float(value) for name, value in found.items() if value.numel() == 1}
        return _line({**parts, "items_per_second": self.items / max(self.seconds, 1e-9)})

    def _row(self) -> Row:
        """The figures of the epoch that has just ended."""
        row: Row = {"epoch": self.done + 1}
        row |= _values(self.figures)
        if not math.isfinite(row["loss"]):
            raise DivergedError(
                f"the training loss became {row['loss']} in epoch {self.done + 1}, so the model learns no more: try a "
                "smaller learning rate or clip_norm=; hal.detect_anomaly() names the op that made it"
            )
        if self.validation is not None:
            model = self.average if self.average is not None else self.model
            measured = evaluate(model, self.loss_fn, self.validation, metrics=self._metrics, device=self.device)
            row |= {f"val_{name}": value for name, value in measured.items()}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row["seconds"] = self.seconds
        row["items_per_second"] = self.items / max(self.seconds, 1e-9)
        return row

    def _watch(self, row: Row) -> None:
        if self.monitor not in row:
            raise SettingError(f"fit watches {self.monitor!r}, and has no such figure: there is {', '.join(row)}")
        best = self.history.best_epoch
        value = row[self.monitor]
        before = self.history.rows[best - 1][self.monitor] if best else None
        if before is None or (value < before if self.mode == "min" else value > before):
            self.history.best_epoch = self.done


def fit(
    model: Module, optimizer: Optimizer, loss: Loss, train: Iterable[Any], *, epochs: int = 1,
    validation: Iterable[Any] | None = None, metrics: Mapping[str, Metric] | None = None, schedule: Any = None,
    schedule_every: str = "epoch", accumulate: int = 1, clip_norm: float | None = None,
    penalty: Callable[[Module], Tensor] | None = None, average: AveragedModel | None = None,
    precision: DType | None = None, compile: bool = False,
    callbacks: Sequence[Callback] = (), monitor: str | None = None, mode: str = "min", out: str | Path | None = None,
    every: int | None = None, resume: bool = False, device: Any = None, quiet: bool = False,
) -> History:  # fmt: skip
    """Train `model` on the batches of `train`, pairs of inputs and targets, and tell how it went.

    Nothing here is needed: it is the loop that one would write, with what one would forget. Figures are summed up on
    the device, which is waited for at the end of an epoch, and to show progress five times a second.

    Args:
        loss: `loss(outputs, targets)`, a scalar.
        train, validation: iterables of batches, such as `DataLoader`s. A loader with a known length and a state can be
            resumed in the middle of an epoch.
        epochs: how many in all; a resumed run goes on from those that are done.
        metrics: by name; measured on both sets.
        schedule: of the learning rate, stepped after each epoch, or each step with `schedule_every="step"`.
        accumulate: batches whose gradients make one step.
        clip_norm: the largest norm of all gradients together.
        penalty: added to the loss for the gradient, such as `lambda model: 1e-5 * l1_penalty(model.parameters())`.
        average: an `AveragedModel`, updated after each step, and validated in place of the model.
        precision: `hal.bfloat16` or `hal.float16`: the forward pass runs under `hal.autocast`, and for float16 the loss
            is scaled.
        compile: trace a step once, with `hal.compile`, and replay it. Callbacks do not see its gradients.
        monitor, mode: which figure tells the best epoch, and whether it is the smallest ("min") or the largest.
        out: a folder for checkpoints, `history.json`, `history.csv` and `curves.svg`: `last.safetensors` after each
            epoch, `best.safetensors`, and with `every` also after that many steps.
        resume: go on from `last.safetensors` in `out`, if it is there.
        device: where batches are moved; by default they stay where they are.
        quiet: show no progress.

    Returns:
        The figures of each epoch. After Ctrl-C training ends with the batch that it is at, writes its checkpoint, and
        returns with `stopped == "interrupted"`; a second Ctrl-C interrupts at once.

    Raises:
        SettingError: a setting out of its range, or `monitor` is no figure.
        DivergedError: the loss of an epoch is not finite.
        DataError: `resume`, and the checkpoint is damaged or of another model.
    """
    from nn.fitting.checkpoints import Checkpoints

    if out is None and (resume or every is not None):
        raise SettingError("fit needs out=, a folder, for resume= and every=")
    given = list(callbacks)
    if out is not None:
        given = [Checkpoints(out, every, resume), *given, Logs(out)]
    return Fit(
        model, optimizer, loss, train, epochs=epochs, validation=validation, metrics=metrics or {}, schedule=schedule,
        schedule_every=schedule_every, accumulate=accumulate, clip_norm=clip_norm, penalty=penalty, average=average,
        precision=precision, compile=compile, callbacks=given, monitor=monitor, mode=mode, device=device, quiet=quiet,
    ).run()  # fmt: skip


def evaluate(
    model: Module,
    loss: Loss,
    batches: Iterable[Any],
    *,
    metrics: Mapping[str, Metric] | None = None,
    device: Any = None,
) -> dict[str, Any]:
    """The loss and metrics of a model over all batches, in evaluation mode and without gradients.

    Waits for the device once, at the end.
    """
    figures: dict[str, Metric] = {"loss": Mean(), **{name: deepcopy(m).reset() for name, m in (metrics or {}).items()}}
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with hal.no_grad():
            for batch in _passed(batches, 0, device):
                inputs, targets = _parts(batch, device)
                outputs = model(inputs)
                figures["loss"].update(loss(outputs, targets), targets)
                for name in metrics or {}:
                    figures[name].update(outputs, targets)
    finally:
        for module in training:
            module.training = True
    return _values(figures)


def _values(figures: Mapping[str, Metric]) -> dict[str, Any]:
    """What metrics come to, as plain numbers or nested lists."""
    return {name: metric.compute().cpu().tolist() if metric.sums else math.nan for name, metric in figures.items()}


def _line(row: Row) -> str:
    numbers = {k: v for k, v in row.items() if isinstance(v, float) and k not in ("seconds", "items_per_second", "lr")}
    shown = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
    return f"{shown}  {row['items_per_second']:,.0f} items/s"


def _parts(batch: Any, device: Any) -> tuple[Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise SettingError(
            f"fit needs batches that are pairs of inputs and targets, got {type(batch).__name__}: let the loader's "
            "collate_fn make pairs"
        )
    inputs, targets = batch
    return (inputs, targets) if device is None else (_moved(inputs, device), _moved(targets, device))


def _moved(value: Any, device: Any) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _length(targets: Any) -> int:
    return targets.shape[0] if isinstance(targets, Tensor) and targets.ndim else 1


def _passed(loader: Iterable[Any], skip: int, device: Any) -> Iterator[Any]:
    """The batches of a pass without the first `skip`. A loader of ours does not even read these, and puts the others
    on the device itself, ahead of the loop."""
    if isinstance(loader, DataLoader):
        return loader.iterate(skip, device)
    return islice(iter(loader), skip, None)


@contextmanager
def _asked_to_stop(run: Fit) -> Iterator[None]:
    """Let the first Ctrl-C inside the block end training after its batch; the second one is an interrupt as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        run.stop("interrupted")
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
