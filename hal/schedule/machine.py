"""The devices that a graph may be placed on, with speeds, memories and links: those that are here, or imagined ones."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import Any

from hal import config, dtypes, registry
from hal.config import did_you_mean
from hal.device import Device
from hal.dtypes import DType
from hal.errors import ConfigError, DTypeError
from hal.graph.graph import COPY, Group, Node
from hal.op import Cost
from hal.plugin import Array, Backend, Buffer, Kernels, Unavailable
from hal.schedule.calls import GROUP
from hal.schedule.problem import NEVER, Route
from hal.schedule.speed import Calibration, Link, Speed
from hal.views import VIEWS

HANDOFF = 1e-4  # seconds until a thread that waits for a copy goes on; 30 to 300 µs with six queues on two processors
PRESETS = "hal.schedule.presets"
UNITS = {
    "": 1.0,
    "k": 1e3,
    "m": 1e6,
    "g": 1e9,
    "t": 1e12,
    "p": 1e15,
    "ki": 2.0**10,
    "mi": 2.0**20,
    "gi": 2.0**30,
    "ti": 2.0**40,
}


@dataclass(frozen=True)
class Unit:
    """One device of a machine.

    Attributes:
        device: itself.
        speed: how fast it computes.
        memory: bytes that it holds; infinite if nobody knows.
        upload, download: how fast copies from and to the host are.
        works: whether it may run ops, or only takes what others have no room for.
    """

    device: Device
    speed: Speed
    memory: float
    upload: Link
    download: Link
    works: bool = True

    def seconds(self, node: Node, training: bool = False) -> float:
        """What a node takes here; `NEVER` if it cannot run."""
        if not self.works or (training and not self.device.backend.training):
            return NEVER
        if isinstance(node.op, Group):
            return self._together(node)
        if node.op is COPY:
            return 0.0
        return self._alone(node)

    def _together(self, node: Node) -> float:
        """A group: what it consists of, without what is not launched, written and read in between.

        Optimizer steps stay apart inside. The contraction or reduction of another group takes what it takes, and all
        elementwise ops with it what one of them would that did all their operations.
        """
        assert isinstance(node.op, Group)
        inside = node.op.graph.nodes
        alone = {n: self._alone(n) for n in inside}
        if NEVER in alone.values():
            return NEVER
        dtype = node.outputs[0].spec.dtype
        if node.op.kind == "updates":
            return sum(self._of(GROUP.format("updates"), n.op.kind, dtype, n.cost) for n in inside)
        main = [n for n in inside if n.op.kind != "elementwise"]
        flops = node.cost.flops - sum(n.cost.flops for n in main)
        nbytes = max(0, node.cost.bytes - sum(n.cost.bytes for n in main))
        name = GROUP.format("elementwise")
        work = self._of(name, "elementwise", dtype, Cost(flops, nbytes))
        started = self.speed.start(name, "elementwise") if main else 0.0
        return sum(alone[n] for n in main) + max(0.0, work - started)

    def _alone(self, node: Node) -> float:
        backend = self.device.backend
        assert not isinstance(node.op, Group)
        needed = {v.spec.dtype for v in (*node.inputs, *node.outputs)}
        if not needed <= backend.dtypes:
            return NEVER
        if isinstance(backend, Imagined):
            return self._of(node.op.name, node.op.kind, node.outputs[-1].spec.dtype, node.cost)
        return _real_seconds(self, node)

    def _of(self, op: str, kind: str, dtype: DType, cost: Cost) -> float:
        if op in VIEWS and self.device.backend.views:  # nothing is launched
            return self.speed.paces[op].start if op in self.speed.paces else 0.0
        return self.speed.seconds(op, kind, dtype.name, cost.flops, cost.bytes)


def _real_seconds(unit: Unit, node: Node) -> float:
    """On a device that is here: by a kernel, or by those of the decomposition; not by falling back to another."""
    from hal.decision import DECOMPOSED, NATIVE, calls_of, decision_for

    assert not isinstance(node.op, Group)
    settings = dict(node.settings)
    if "device" in settings:
        settings["device"] = unit.device
    specs = tuple(x.spec for x in node.inputs)
    try:
        decision = decision_for(node.op, unit.device, specs, settings)
    except DTypeError:
        return NEVER
    dtype = node.outputs[0].spec.dtype
    if decision.kernel is not None and decision.how == NATIVE:
        outs = tuple(x.spec for x in node.outputs)
        known = unit.device.backend.seconds(node.op, specs, outs, settings, unit.device)
        return known if known is not None else unit._of(node.op.name, node.op.kind, dtype, node.cost)
    if decision.how != DECOMPOSED or node.op.decompose is None:
        return NEVER
    calls = calls_of(node.op, specs, {k: v for k, v in settings.items() if k != "device"})
    return sum(unit._of(c.op.name, c.op.kind, dtype, c.op.cost(*c.inputs, out=c.result, **c.settings)) for c in calls)


@dataclass(frozen=True)
class Machine:
    """Devices and the ways between them.

    Attributes:
        name: for reports.
        units: the devices.
        host: place of the one that takes what others have no room for.
        direct: links that do not lead through the host, by places of devices.
    """

    name: str
    units: tuple[Unit, ...]
    host: int = 0
    direct: Mapping[tuple[int, int], Link] = field(default_factory=dict)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices, in the order of `units`."""
        return tuple(u.device for u in self.units)

    def place_of(self, device: Device) -> int:
        """The place of a device in `units`."""
        return self.devices.index(device)

    def link(self, source: int, target: int) -> Link:
        """The way from one device to another: their own, or through the host."""
        direct = self.direct.get((source, target))
        if direct is not None:
            return direct
        if source == self.host:
            return self.units[target].upload
        if target == self.host:
            return self.units[source].download
        return self.units[source].download.then(self.units[target].upload)

    def routes(self) -> tuple[tuple[Route | None, ...], ...]:
        """The ways between all devices, as the scheduler wants them."""
        queues: dict[object, int] = {}
        rows = []
        for a in range(len(self.units)):
            row: list[Route | None] = []
            for b in range(len(self.units)):
                if a == b:
                    row.append(None)
                    continue
                link = self.link(a, b)
                queue = queues.setdefault(link.wire or (a, b), len(queues))
                row.append(Route(link.latency, 1 / link.bandwidth, queue))
            rows.append(tuple(row))
        return tuple(rows)

    def queue_name(self, source: Device, target: Device) -> str:
        """What people call the link between two devices."""
        link = self.link(self.place_of(source), self.place_of(target))
        return link.wire or f"{source} → {target}"


def here(devices: Iterable[Device]) -> Machine:
    """The machine of real devices, measured or declared; the host is the first whose memory is the host's.

    Where none is among them, one comes in that takes what others push out and runs nothing.
    """
    from hal.schedule.calibrate import calibration_of

    found = list(dict.fromkeys(devices))
    hosts = [d for d in found if d.backend.host_memory and d.backend.max_memory(d) is None]
    asked = len(found)
    if not hosts:
        hosts = [host_device()]
        found.append(hosts[0])
    units = []
    for i, device in enumerate(found):
        known = calibration_of(device) if i < asked else Calibration(str(device), Speed(inf, {}), Link(inf), Link(inf))
        limit = device.backend.max_memory(device)
        upload, download = (replace(x, latency=x.latency + HANDOFF) for x in (known.upload, known.download))
        units.append(Unit(device, known.speed, inf if limit is None else limit, upload, download, i < asked))
    direct = {}
    for a, source in enumerate(found):
        for b, target in enumerate(found):
            link = None if a == b else source.backend.link(source, target)
            if link is not None:
                direct[a, b] = link
    return Machine("this machine", tuple(units), found.index(hosts[0]), direct)


def host_device() -> Device:
    """The device whose memory is the host's."""
    backends = registry.registry().backends.values()
    for backend in sorted(backends, key=lambda b: (-b.priority, b.name)):
        if backend.host_memory and backend.priority >= 0:
            try:
                return next(d for d in backend.devices() if backend.max_memory(d) is None)
            except (Unavailable, StopIteration):
                continue
    raise ConfigError("no device has the host's memory; the CPU backend was left out: see `hal devices`")


def candidates(used: Iterable[Device], measure: bool = True) -> list[Device]:
    """The devices that `auto` may use: those that a graph uses already, and all that are chosen by themselves.

    Args:
        measure: those of which nobody knows how fast they are; otherwise they are left out.
    """
    from hal.schedule.calibrate import calibration_of, known_calibration

    found = list(dict.fromkeys(used))
    for device in registry.devices():
        if device.backend.priority < 0 or device in found:
            continue
        try:
            if not measure and known_calibration(device) is None:
                continue
            calibration_of(device)
        except Exception as error:  # nobody asked for it by name, so it harms nobody
            if config.logs("placement"):
                print(f"hal: {device} is left out, since it could not be measured: {error!r}", file=sys.stderr)
            continue
        found.append(device)
    return found


# Machines that are not here.


class Imagined(Backend):
    """The devices of one kind of a machine that is described in a file. They cannot run anything."""

    kernels = Kernels()
    priority = -100
    views = True

    def __init__(self, name: str, count: int, has: frozenset[DType], training: bool) -> None:
        self.name = name
        self.count = count
        self.dtypes = has
        self.training = training

    def devices(self) -> list[Device]:
        return [Device(self)] if self.count == 1 else [Device(self, i) for i in range(self.count)]

    def upload(self, array: Array, device: Device) -> Buffer:
        return None


def presets() -> list[str]:
    """The names of the machines that come with hal."""
    return sorted(f.name.removesuffix(".toml") for f in files(PRESETS).iterdir() if f.name.endswith(".toml"))


def machine_from(which: str | Path) -> Machine:
    """A machine from a TOML file, or one of the `presets()`.

    Raises:
        ConfigError: no such preset or file, or something in it makes no sense.
    """
    if str(which) in presets():
        text = files(PRESETS).joinpath(f"{which}.toml").read_text("utf-8")
    else:
        path = Path(which)
        if not path.is_file():
            near = did_you_mean(str(which), presets())
            raise ConfigError(f"no file and no preset {str(which)!r}; the presets are {', '.join(presets())}{near}")
        text = path.read_text("utf-8")
    return _parsed(text, str(which))


@lru_cache(maxsize=32)
def _parsed(text: str, which: str) -> Machine:
    try:
        known = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{which} is no TOML: {error}") from None
    devices: dict[str, list[Device]] = {}
    units: list[Unit] = []
    for name, row in known.get("devices", {}).items():
        unknown = set(row) - {"count", "memory", "bandwidth", "launch", "rates", "share", "dtypes", "training", "link"}
        if unknown:
            raise ConfigError(f"{which}: device {name} has no setting {', '.join(sorted(unknown))}")
        share = float(row.get("share", 1.0))
        rates = {k: share * quantity(which, v) for k, v in _needed(which, name, row, "rates").items()}
        speed = Speed(
            share * quantity(which, _needed(which, name, row, "bandwidth")),
            rates,
            quantity(which, row.get("launch", 0)),
        )
        has = frozenset(_dtype(which, d) for d in row["dtypes"]) if "dtypes" in row else frozenset(dtypes.ALL)
        backend = Imagined(name, int(row.get("count", 1)), has, bool(row.get("training", True)))
        devices[name] = backend.devices()
        link = _link(which, row["link"]) if "link" in row else Link(speed.bandwidth)
        limit = quantity(which, row["memory"]) if "memory" in row else inf
        units += [Unit(d, speed, limit, link, link) for d in devices[name]]
    if not units:
        raise ConfigError(f"{which} describes no [devices.NAME]")
    host = known.get("host", next(iter(devices)))
    if host not in devices:
        raise ConfigError(f"{which}: host = {host!r} is none of its devices {', '.join(devices)}")
    places = {u.device: i for i, u in enumerate(units)}
    direct = {}
    for row in known.get("links", ()):
        between = row.get("between", ())
        if len(between) != 2 or any(n not in devices for n in between):
            raise ConfigError(f"{which}: a link is between two of {', '.join(devices)}, got {between!r}")
        link = _link(which, {k: v for k, v in row.items() if k != "between"})
        for a, b in ((x, y) for x in devices[between[0]] for y in devices[between[1]] if x is not y):
            direct[places[a], places[b]] = direct[places[b], places[a]] = link
    return Machine(str(known.get("name", which)), tuple(units), places[devices[host][0]], direct)


def _needed(which: str, name: str, row: Mapping[str, Any], key: str) -> Any:
    if key not in row:
        raise ConfigError(f"{which}: device {name} needs {key}")
    return row[key]


def _dtype(which: str, name: str) -> DType:
    for d in dtypes.ALL:
        if d.name == name:
            return d
    raise ConfigError(f"{which}: there is no dtype {name!r}{did_you_mean(name, [d.name for d in dtypes.ALL])}")


def _link(which: str, row: Mapping[str, Any]) -> Link:
    if "bandwidth" not in row:
        raise ConfigError(f"{which}: a link needs bandwidth")
    return Link(quantity(which, row["bandwidth"]), quantity(which, row.get("latency", 0)), str(row.get("wire", "")))


def quantity(which: str, value: Any) -> float:
    """A number, or a text such as `80 GiB`, `3.35 TB/s`, `5 us`, `67 Tflop/s`.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    number, _, unit = str(value).partition(" ")
    unit = unit.strip().removesuffix("/s")
    times = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
    for base in ("flops", "flop", "B"):
        if unit.endswith(base):
            prefix = unit.removesuffix(base).lower()
            break
    else:
        prefix = "?" if unit else ""
    try:
        return float(number) * (times[unit] if unit in times else UNITS[prefix])
    except (ValueError, KeyError):
        raise ConfigError(
            f"{which}: {value!r} is no quantity; write a number, or one like '80 GiB', '3 TB/s', '67 Tflop/s', '5 us'"
        ) from None
