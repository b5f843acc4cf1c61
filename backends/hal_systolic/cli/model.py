"""`hal sim MODEL`: run a script, or a network on random data, and report what a machine would take for it."""

from __future__ import annotations

import json
import runpy
import sys
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from hal.plugin import ConfigError, Device
from hal_systolic.config import Machine
from hal_systolic.presets import load
from hal_systolic.reporting import Report, report


@click.command(short_help="Simulate a script or a network (the word `model` may be left out).")
@click.argument("model")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--preset", "--machine", "which", metavar="NAME|FILE", help="A preset, or a TOML file with a machine.")
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field: --set rows=64.")
@click.option("--input", "shape", metavar="SIZES", help="Shape of one input, such as 3,224,224. Default: a guess.")
@click.option("--tokens", type=int, metavar="N", help="The input is of whole numbers below N.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Inputs at once.")
@click.option("--train", is_flag=True, help="A step of training: forward, backward, and an update by SGD.")
@click.option("--passes", type=click.Choice(["default", "high", "highest"]), help="Passes of a float32 product.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--dump", is_flag=True, help="Print the command stream.")
@click.option("--html", type=click.Path(dir_okay=False), help="Write a page with pictures.")
@click.option("--trace", type=click.Path(dir_okay=False), help="Write the timeline, for ui.perfetto.dev.")
def model(
    model: str, arguments: tuple[str, ...], which: str | None, changes: tuple[str, ...], shape: str | None,
    tokens: int | None, batch: int, train: bool, passes: Any, as_json: bool, dump: bool, html: str | None,
    trace: str | None,
) -> None:  # fmt: skip
    """Run MODEL on a simulated machine, and report cycles, stalls, traffic and energy by layer.

    MODEL is a script (file.py, with its arguments after it), a network (file.py:Name or module:Name, a class, a
    function or an instance), or a name in nn.models (LeNet5, resnet50). A network runs on random data; on a machine
    that only infers it is quantized to int8 first.
    """
    from hal_systolic.accuracy import precision

    machine = changed(load(which), changes)
    with ExitStack() as stack:
        if passes:
            stack.enter_context(precision(passes))
        device = device_of(machine)
        if model.endswith(".py"):
            found = run_script(model, arguments, device)
        else:
            found = run_network(model, device, shape, tokens, batch, train)
        deliver(found, machine, model, as_json, dump, html, trace)


def changed(machine: Machine, changes: tuple[str, ...]) -> Machine:
    """The machine with `field=value` pairs applied; values are as in TOML, or plain words."""
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set needs field=value, got {change!r}")
        try:
            values[name.strip()] = json.loads(text)
        except json.JSONDecodeError:
            values[name.strip()] = text
    return machine.override(**values) if values else machine


def device_of(machine: Machine) -> Device:
    """The device that simulates this machine."""
    device: Device = Device("systolic").backend.door.device(machine)  # type: ignore[attr-defined]  # a Chip
    return device


def run_script(path: str, arguments: tuple[str, ...], device: Device) -> Report:
    """Run a script with the device as its default one, as `HAL_BACKEND` would make it."""
    before = sys.argv
    sys.argv = [path, *arguments]
    try:
        with device, report() as found:
            runpy.run_path(path, run_name="__main__")
    finally:
        sys.argv = before
    return found


def run_network(
    name: str, device: Device, shape: str | None, tokens: int | None, batch: int, train: bool
) -> Report:  # fmt: skip
    """One call of a network on random data, or one step of training."""
    # The network is the user's program: it uses hal and nn as any user does. The backend itself needs neither.
    hal, nn = import_module("hal"), import_module("nn")
    hal.manual_seed(0)
    with Device("cpu"):
        net = network(name)
        x = data(hal, nn, net, shape, tokens, batch)
        if not device.backend.training:
            if train:
                raise ConfigError(f"{device} only infers: leave --train out, or choose another machine")
            net = nn.quantize(net, [x])
    net.to(device=device)
    if not train:
        net.eval()
        with hal.no_grad(), report() as found:
            net(hal.tensor(x.numpy(), device=device))
        return found
    optimizer = nn.optim.SGD(net.parameters(), lr=0.01)
    with report() as found:
        out = net(hal.tensor(x.numpy(), device=device))
        (out[0] if isinstance(out, tuple) else out).square().mean().backward()
        optimizer.step()
    return found


def network(name: str) -> Any:
    """The network that a user named; classes and functions are called without arguments."""
    place, colon, attribute = name.rpartition(":")
    if not colon:
        place, attribute = "nn.models", name
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise ConfigError(f"there is no file {place}")
        holder: Any = runpy.run_path(place)
    else:
        try:
            holder = vars(import_module(place))
        except ImportError as error:
            raise ConfigError(f"{place} cannot be imported: {error}") from error
    if attribute not in holder:
        near = [n for n in holder if n.lower().startswith(attribute.lower()[:4]) and not n.startswith("_")]
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"there is no {attribute!r} in {place}{meant}")
    found = holder[attribute]
    return found() if isinstance(found, type) or not hasattr(found, "parameters") else found


def data(hal: Any, nn: Any, net: Any, shape: str | None, tokens: int | None, batch: int) -> Any:
    """A batch of random data for a network, of a shape that its first layer suggests if none is given."""
    sizes = tuple(int(part) for part in shape.replace("x", ",").split(",")) if shape else guess(nn, net)
    if tokens is not None:
        return hal.randint(0, tokens, (batch, *sizes))
    return hal.randn(batch, *sizes)


def guess(nn: Any, net: Any) -> tuple[int, ...]:
    """The shape that an input of the network may have."""
    for part in net.modules():
        if isinstance(part, nn.Linear):
            return (part.in_features,)
        if isinstance(part, nn.Conv2d):
            return (1, 28, 28) if part.in_channels == 1 else (part.in_channels, 224, 224)
    raise ConfigError("the network does not begin with a layer that tells the shape of its input: say it with --input")


def deliver(
    found: Report, machine: Machine, title: str, as_json: bool, dump: bool, html: str | None, trace: str | None
) -> None:  # fmt: skip
    """Print and write what was asked for."""
    simulation = found.of(machine.name)
    if as_json:
        click.echo(json.dumps(simulation.as_dict(), indent=1))
    elif dump:
        click.echo(simulation.program.text())
    else:
        click.echo(found.text())
    if html:
        found.to_html(html, f"{title} on {machine.name}")
    if trace:
        found.to_trace(trace)
    if not as_json and not dump:
        for path in filter(None, (html, trace)):
            click.echo(f"written: {path}")
