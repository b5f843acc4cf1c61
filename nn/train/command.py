"""`hal train`: trains a classifier on real images, shows how it goes, and keeps what it learned."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, TextColumn

if TYPE_CHECKING:  # the command is listed by `hal --help`, which should not import all of nn
    from nn.train.run import Run, Score, Show

TASKS = ("digits", "mnist", "cifar10")


@click.command()
@click.argument("task", type=click.Choice(TASKS), default="digits")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with the official files of mnist or cifar10.")
@click.option("--backend", metavar="NAME", help="Device to train on, as HAL_BACKEND.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training set.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images in a step.")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="Adam's learning rate.")
@click.option("--seed", type=click.IntRange(min=0), default=None, help="Decides every random number. Default: 0.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for a checkpoint after each epoch, curve.svg and result.json.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option("--curve", type=click.Path(path_type=Path, dir_okay=False), help="Write the loss curve as an SVG picture.")
@click.option("--download/--no-download", default=True, help="Fetch files of mnist or cifar10 that are missing.")
@click.option("--workers", type=click.IntRange(min=0), default=1, help="Threads that read batches ahead.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of a summary.")
def train(
    task: str, data: Path | None, backend: str | None, epochs: int | None, batch_size: int | None, lr: float | None,
    seed: int | None, out: Path | None, resume: bool, curve: Path | None, download: bool, workers: int, quiet: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Train on the handwritten digits that ship with HAL, or on mnist or cifar10."""
    import hal

    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder with the checkpoint")
    with hal.device(backend) if backend else contextlib.nullcontext():
        run = _prepared(task, data, out, resume, download, workers, batch_size=batch_size, lr=lr, seed=seed)
        wanted = epochs or run.task.epochs
        try:
            _train(run, wanted, out, quiet)
        except KeyboardInterrupt:
            kept = f"; the checkpoint of epoch {run.epoch} is in {out}: go on with --resume" if out and run.epoch else ""
            raise click.ClickException(f"interrupted in epoch {run.epoch + 1} of {wanted}{kept}") from None
        score = run.evaluate()
        result = _result(run, score)
    if out is not None:
        (out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for picture in (curve, out / "curve.svg" if out is not None else None):
        if picture is not None:
            _draw(picture, run)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _summarise(run, score, result, out)


def _prepared(task: str, data: Path | None, out: Path | None, resume: bool, download: bool, workers: int, **given: Any) -> Run:
    from hal.errors import ConfigError
    from nn.train import checkpoint
    from nn.train.run import Run, Settings
    from nn.train.tasks import TASKS as known

    chosen = known[task]
    settings = {"task": task, "seed": 0, "batch_size": chosen.batch_size, "lr": chosen.lr}
    state = checkpoint.read(out) if resume and out is not None else None
    if state is not None:
        settings = state["settings"]
        for name, value in {"task": task, **given}.items():
            if value is not None and value != settings[name]:
                raise ConfigError(
                    f"the checkpoint in {out} is of a run with {name} {settings[name]}, got {value}: a resumed run keeps its "
                    "settings; leave the option out, or begin anew in another folder"
                )
    else:
        settings |= {name: value for name, value in given.items() if value is not None}
    run = Run.begin(chosen, Settings(**settings), chosen.sets(data, download), workers)
    if state is not None:
        checkpoint.restore(run, state)
    return run


def _train(run: Run, epochs: int, out: Path | None, quiet: bool) -> None:
    from nn.train import checkpoint

    while run.epoch < epochs:
        with _showing(run, epochs, quiet) as show:
            run.train_epoch(show)
        if out is not None:
            checkpoint.save(run, out)


@contextlib.contextmanager
def _showing(run: Run, epochs: int, quiet: bool) -> Iterator[Show]:
    """A progress bar on a terminal, a line for each epoch elsewhere; both on stderr."""
    total = len(run.train_set)
    title = f"epoch {run.epoch + 1:>{len(str(epochs))}}/{epochs}"
    figures = "loss {:.4f}  accuracy {:6.2%}  {:,.0f} images/s"
    if quiet:
        yield lambda done, loss, accuracy, speed: None
        return
    if not sys.stderr.isatty():
        last: list[Any] = []

        def remember(done: int, loss: float, accuracy: float, speed: float) -> None:
            last[:] = [loss, accuracy, speed]

        yield remember
        click.echo(f"{title}  {figures.format(*last)}", err=True)
        return
    from rich.console import Console

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        bar = progress.add_task(title, total=total, figures="")
        yield lambda done, loss, accuracy, speed: progress.update(
            bar, completed=done, figures=figures.format(loss, accuracy, speed)
        )


def _result(run: Run, score: Score) -> dict[str, Any]:
    device = next(run.model.parameters()).device
    return {
        "task": run.task.name,
        "device": str(device),
        "test_accuracy": score.accuracy,
        "seconds": run.seconds,
        "images_per_second": run.images / run.seconds if run.seconds else 0.0,
        "epochs": run.epoch,
        "losses": run.losses,
        "train_accuracies": run.accuracies,
        "class_accuracies": {name: score.of_class(i) for i, name in enumerate(run.task.classes)},
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "seed": run.settings.seed,
        "batch_size": run.settings.batch_size,
        "lr": run.settings.lr,
    }


def _draw(path: Path, run: Run) -> None:
    from nn.train import curve

    path.parent.mkdir(parents=True, exist_ok=True)
    curve.write(path, f"hal train {run.task.name}: training loss", run.losses, run.accuracies)


def _summarise(run: Run, score: Score, result: dict[str, Any], out: Path | None) -> None:
    from rich.table import Table

    from hal.cli.console import console_for

    console = console_for(sys.stdout)
    table = Table(box=None, pad_edge=False)
    for title in ("class", "right", "of", "accuracy"):
        table.add_column(title, justify="left" if title == "class" else "right")
    for i, name in enumerate(run.task.classes):
        table.add_row(name, str(score.right[i]), str(score.count[i]), f"{score.of_class(i):.1%}")
    console.print(table)
    console.print(
        f"\n{run.task.title} on {result['device']}: test accuracy [bold]{score.accuracy:.2%}[/] after {run.epoch} epochs, "
        f"{result['seconds']:.1f} s, {result['images_per_second']:,.0f} images/s"
    )
    if out is not None:
        console.print(f"checkpoint, curve.svg and result.json are in {out}")
