"""`hal explain`: what the plans of a script or model do, why, and what they would do on another machine."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hal.config import PLACEMENTS
from hal.errors import ConfigError

if TYPE_CHECKING:
    from hal.graph.plan import Plan


@click.command(
    short_help="What compiled functions run where, and why.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True},
)
@click.argument("what", metavar="SCRIPT|MODEL")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--input", "inputs", multiple=True, metavar="SHAPE", help="For a MODEL: float32[64, 784] or 64,784.")
@click.option("--placement", type=click.Choice(PLACEMENTS), help="As HAL_PLACEMENT.")
@click.option("--devices", metavar="FILE|PRESET", help="Plan for a machine that is not here: a TOML file or a preset.")
@click.option("--op", metavar="NAME", help="Tell everything about the steps of one op.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with timeline and graph.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list; what a script prints goes to stderr.")
def explain(
    what: str, arguments: tuple[str, ...], inputs: tuple[str, ...], placement: str | None, devices: str | None,
    op: str | None, html: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Run SCRIPT, or compile MODEL (`file.py:name` or `package.module:name`) on inputs of zeros.

    Tells of each plan that ran: which op runs on which device, why, what the others would have cost, what is copied,
    and how long a call should take. MODEL is a module, a function, or a class that is made without arguments.
    """
    from hal.policy import placement as policy
    from hal.schedule.whatif import what_if

    with redirect_stdout(sys.stderr) if as_json else nullcontext(), policy(placement) if placement else nullcontext():
        plans = _of_model(what, inputs) if inputs else _of_script(what, arguments)
    if not plans:
        cure = "compile something with hal.compile, or name a MODEL and its --input"
        raise ConfigError(f"{what} ran no compiled function, so there is no plan to explain: {cure}")
    reports = [what_if(plan, devices) if devices else plan.report() for plan in plans]
    if html is not None:
        longest = max(reports, key=lambda r: r.seconds)
        html.write_text(longest.html(), "utf-8")
        click.echo(f"wrote {html}", err=as_json)
    if as_json:
        click.echo(json.dumps([r.to_dict() for r in reports]))
        return
    for i, told in enumerate(reports):
        if len(reports) > 1:
            click.echo(f"{chr(10) if i else ''}plan {i + 1} of {len(reports)}")
        click.echo(told.explain(op) if op else str(told))


@contextmanager
def _noting() -> Iterator[list[Plan]]:
    """The plans that run inside the block, each once."""
    from hal.graph import plan as hooks

    found: dict[Plan, None] = {}

    def note(plan: Plan) -> Callable[..., Any]:
        found[plan] = None
        return plan.run

    plans: list[Plan] = []
    before, hooks.timed = hooks.timed, note
    try:
        yield plans
    finally:
        hooks.timed = before
        plans.extend(found)


def _of_script(what: str, arguments: tuple[str, ...]) -> list[Plan]:
    path = Path(what)
    if not path.is_file():
        if ":" in what:
            raise ConfigError(f"the model {what} needs an --input, such as --input 64,784")
        raise ConfigError(f"there is no script {what}; a model is named file.py:name or package.module:name")
    before = sys.argv, list(sys.path)
    sys.argv, sys.path[:0] = [what, *arguments], [str(path.parent.resolve())]
    try:
        with _noting() as plans:
            runpy.run_path(what, run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before[0], before[1]
    return plans


def _of_model(what: str, inputs: tuple[str, ...]) -> list[Plan]:
    import hal

    where, _, name = what.rpartition(":")
    if not where:
        raise ConfigError(f"a model is named file.py:name or package.module:name, got {what!r}")
    if where.endswith(".py"):
        found = runpy.run_path(where)
    else:
        sys.path.insert(0, "")
        try:
            found = vars(importlib.import_module(where))
        finally:
            sys.path.remove("")
    if name not in found:
        raise ConfigError(f"{where} has no {name!r}")
    model = found[name]
    if isinstance(model, type):
        model = model()
    given = [hal.zeros(shape, dtype=dtype) for shape, dtype in map(_shape, inputs)]
    with _noting() as plans, hal.no_grad():
        hal.compile(model)(*given)
    return plans


def _shape(text: str) -> tuple[tuple[int, ...], Any]:
    """A shape such as `64,784`, or a spec such as `int64[64]`."""
    from hal import dtypes

    name, bracket, rest = text.rpartition("[")
    dtype = next((d for d in dtypes.ALL if d.name == (name or "float32")), None)
    try:
        shape = tuple(int(n) for n in rest.removesuffix("]" if bracket else "").split(",") if n.strip())
    except ValueError:
        dtype = None
        shape = ()
    if dtype is None:
        raise ConfigError(f"--input takes a shape such as 64,784 or int64[64], got {text!r}")
    return shape, dtype
