"""`hal train`: trains a classifier on real images, shows how it goes, and keeps what it learned."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # `hal --help` lists this command, and should not import what it trains with
    from nn.train.run import Run, Score

TASKS = ("digits", "mnist", "cifar10")  # as in nn.train.tasks
FOLDER = click.Path(path_type=Path, file_okay=False)


def _svg(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() != ".svg":
        raise click.BadParameter(f"the curve is an SVG picture, so its name must end in .svg, got {str(path)!r}")
    return path


def _finite(context: click.Context, option: click.Parameter, number: float | None) -> float | None:
    if number is not None and not math.isfinite(number):
        raise click.BadParameter(f"{number} is not a finite number")
    return number


@click.command(short_help="Train on handwritten digits, MNIST or CIFAR-10.")
@click.argument("task", type=click.Choice(TASKS), required=False)
@click.option("--data", type=FOLDER, help="Folder with the official files of mnist or cifar10.")
@click.option("--backend", metavar="NAME", help="Device to train on, as HAL_BACKEND.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Passes over the training set.")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Images in a step.")
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    callback=_finite,
    help="Adam's learning rate at first; it falls with each epoch.",
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Decides every random number. Default: 0.")
@click.option("--out", type=FOLDER, help="Folder for a checkpoint after each epoch, curve.svg and result.json.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option(
    "--curve",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    callback=_svg,
    help="Draw loss and accuracy of each epoch.",
)
@click.option(
    "--download/--no-download", default=True, help="Fetch files of mnist or cifar10 that are missing (the default)."
)
@click.option(
    "--workers", type=click.IntRange(min=0), default=1, metavar="N", help="Threads that read batches ahead. Default: 1."
)
@click.option("--compile", "compiled", is_flag=True, help="Trace a training step once, and replay it: faster.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of a summary.")
def train(
    task: str | None, data: Path | None, backend: str | None, epochs: int | None, batch_size: int | None,
    lr: float | None, seed: int | None, out: Path | None, resume: bool, curve: Path | None, download: bool,
    workers: int, compiled: bool, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a classifier on the handwritten digits that ship with HAL, or on mnist or cifar10."""
    import hal
    from nn.fitting.progress import showing
    from nn.train import checkpoint

    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder with the checkpoint")
    asked = {"task": task, "seed": seed, "batch_size": batch_size, "lr": lr}
    run: Run | None = None
    try:
        with hal.device(backend) if backend is not None else contextlib.nullcontext():
            state = checkpoint.read(out) if resume and out is not None else None
            run = _begun(asked, data, epochs, state, out, download, workers)
            if out is not None:
                _note(checkpoint.prepare(out, resume), quiet)
            if state is not None and state["done"] >= run.goal:
                _note(f"nothing is left to train, {state['done']} epochs are done; --epochs N asks for more", quiet)
            pictures = [path for path in (curve, out / "curve.svg" if out is not None else None) if path is not None]
            run.train([checkpoint.Keep(run, out, pictures, state)], compile=compiled, quiet=quiet)
            if run.history.stopped:
                raise KeyboardInterrupt
            with showing("testing", len(run.test_set), quiet, transient=True) as show:
                score = run.evaluate(show)
            result = _result(run, score)
    except KeyboardInterrupt:
        raise click.ClickException(_interrupted(run, out)) from None
    if out is not None:
        (out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(result))
        return
    _summarise(run, score, result, out, curve)


def _begun(
    asked: dict[str, Any], data: Path | None, epochs: int | None, state: dict[str, Any] | None, out: Path | None,
    download: bool, workers: int,
) -> Run:  # fmt: skip
    """A new run, or one like that whose checkpoint `state` was in the folder `out`, on the default device."""
    from hal.errors import ConfigError
    from nn.train.run import Run, Settings
    from nn.train.tasks import TASKS as tasks

    if state is None:
        chosen = tasks[asked["task"] or "digits"]
        settings = Settings(
            chosen.name,
            asked["seed"] or 0,
            asked["batch_size"] or chosen.batch_size,
            asked["lr"] or chosen.lr,
            chosen.decay,
        )
        return Run.begin(chosen, settings, data, epochs or chosen.epochs, download=download, workers=workers)
    for name, value in asked.items():
        kept = state["settings"][name]
        if value is not None and value != kept:
            raise ConfigError(
                f"the checkpoint in {out} is of a run with {name} {kept}, got {value}: a resumed run keeps its "
                "settings; leave that out, or begin anew in another folder"
            )
    settings = Settings(**state["settings"])
    where = Path(state["data"]) if data is None and state["data"] is not None else data
    goal = epochs or state["goal"]
    run = Run.begin(tasks[settings.task], settings, where, goal, download=download, workers=workers)
    if len(run.train_set) != state["images"]:
        raise ConfigError(
            f"the checkpoint in {out} is of a run on {state['images']:,} training images, got "
            f"{len(run.train_set):,}: name the folder that has them with --data"
        )
    return run


def _note(text: str, quiet: bool) -> None:
    if text and not quiet:
        click.echo(f"hal train: {text}", err=True)


def _interrupted(run: Run | None, out: Path | None) -> str:
    """What to tell who has pressed Ctrl-C."""
    if run is None:
        return "interrupted before the first epoch"
    done = f"interrupted after {len(run.history)} of {run.goal} epochs"
    if out is None:
        return f"{done}; nothing was kept (--out FOLDER keeps a checkpoint)"
    return f"{done}; to go on: hal train --out {out} --resume"


def _result(run: Run, score: Score) -> dict[str, Any]:
    return {
        "task": run.task.name,
        "device": str(run.device),
        "test_accuracy": score.accuracy,
        "seconds": run.seconds,
        "images_per_second": len(run.train_set) * len(run.history) / run.seconds if run.seconds else 0.0,
        "epochs": len(run.history),
        "losses": [row["loss"] for row in run.history],
        "train_accuracies": [row["accuracy"] for row in run.history],
        "class_accuracies": {name: score.of_class(i) for i, name in enumerate(run.task.classes)},
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "seed": run.settings.seed,
        "batch_size": run.settings.batch_size,
        "lr": run.settings.lr,
    }


def _summarise(run: Run, score: Score, result: dict[str, Any], out: Path | None, curve: Path | None) -> None:
    from hal.cli.console import print_table

    rows = []
    for i, name in enumerate(run.task.classes):
        part = score.of_class(i)
        rows.append([name, str(score.right[i]), str(score.count[i]), "none" if part is None else f"{part:.1%}"])
    print_table(["class", "right", "of", "accuracy"], rows, align="<>>>")
    click.echo()
    click.echo(f"test accuracy {click.style(f'{score.accuracy:.2%}', bold=True)} of {run.task.title}")
    epochs = f"{result['epochs']} epoch{'s' if result['epochs'] != 1 else ''}"
    speed = f"{result['seconds']:.1f} s, {result['images_per_second']:,.0f} images/s"
    click.echo(f"{epochs} on {result['device']} in {speed}")
    if out is not None:
        click.echo(f"{out} has the checkpoint, curve.svg and result.json")
    if curve is not None:
        click.echo(f"{curve} has the curve")
