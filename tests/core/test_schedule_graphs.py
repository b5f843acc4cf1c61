"""Graphs that are placed: the same results anywhere, within memory, the user's word first, and a report of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest

import hal
import nn
from hal.device import Device
from hal.errors import ConfigError, DeviceError, GraphError, OutOfMemoryError
from hal.graph.graph import COPY, Graph, Node
from hal.graph.planner import plan_of
from hal.schedule import trial
from hal.schedule.calibrate import calibration_of, known_calibration, measure
from hal.schedule.machine import Machine, Unit, here, machine_from, presets, quantity
from hal.schedule.offers import Freedom, offers
from hal.schedule.placing import Placed, moved_to, place_on
from hal.schedule.queues import overlapped, runs_apart
from hal.schedule.report import report
from hal.schedule.speed import FORMAT, Calibration, Link, Speed
from hal.schedule.timeline import crosses, peak_memory, timeline
from hal.schedule.whatif import what_if
from hal.tensor import Waiting
from hal.testing.fake import Fake

FAST, SLOW = Speed(1e12, {"any": 1e12}, 1e-7), Speed(1e6, {"any": 1e6}, 1e-3)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is measured of the CPU."""
    return tmp_path_factory.mktemp("measured")


@pytest.fixture(autouse=True)
def _measured_roughly(kept: Path, measured_roughly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_CACHE_DIR", str(kept))


@contextmanager
def fakes(*names: str, **limits: dict) -> Iterator[list[Device]]:
    """Fake devices of a declared speed, and one that is the host's memory, which is slow: `host`."""
    with ExitStack() as stack:
        host = Fake("host", host_memory=True, speed=SLOW, bandwidth=1e11)
        for backend in (host, *(Fake(n, **{"speed": FAST, "bandwidth": 1e11, **limits.get(n, {})}) for n in names)):
            stack.enter_context(backend.registered())
        yield [hal.device(n) for n in (*names, "host")]


def machine(devices: list[Device], speeds: dict[str, Speed] | None = None, link: Link | None = None) -> Machine:
    """Devices of given speeds, whatever they really are; the last one is the host."""
    link = link or Link(1e9)
    units = tuple(Unit(d, (speeds or {}).get(str(d), FAST), inf, link, link) for d in devices)
    return Machine("a test", units, len(devices) - 1)


def traced(function: Callable, *args: hal.Tensor) -> Graph:
    """The graph of a function, where it runs eagerly."""
    compiled = hal.compile(function)
    compiled(*args)
    return compiled.plans[-1].graph


def spread(graph: Graph, devices: list[Device]) -> Placed:
    """A placement on all devices in turn, whatever it costs."""
    count = len(devices)

    class Turns(Unit):
        def seconds(self, node: object, training: bool = False) -> float:
            mine = devices.index(self.device)
            wanted = order.setdefault(id(node), len(order) % count)
            return 1.0 if wanted == mine else 1e6

    order: dict[int, int] = {}
    units = tuple(Turns(d, FAST, inf, Link(1e12), Link(1e12)) for d in devices)
    return place_on(graph, Machine("turns", units, count - 1))


def network(x: hal.Tensor, w: hal.Tensor) -> tuple[hal.Tensor, hal.Tensor]:
    y = (x @ w).relu()
    return (y @ w + x).sum(), y.T


def test_any_placement_gives_the_same_bits_in_queues_and_one_by_one() -> None:
    rng = np.random.default_rng(0)
    with fakes("fa", "fb") as devices:
        x, w = (hal.tensor(rng.normal(size=(8, 8)).astype("f4"), device="fa") for _ in range(2))
        graph = traced(network, x, w)
        want = network(x, w)
        found = spread(graph, devices)
        found.graph.check()
        assert len({n.device for n in found.graph.nodes}) == 3
        plain = plan_of(found.graph)
        apart = overlapped(plain)
        assert runs_apart(apart)
        assert not runs_apart(plain)
        for run in (plain.run, apart.run, plain.run, apart.run):
            results = run(x.buffer, w.buffer)
            for value, buffer, one in zip(graph.outputs, results, want, strict=True):
                assert value.device is one.device
                np.testing.assert_array_equal(value.device.backend.download(buffer, value.spec), one.cpu().numpy())


def test_copies_of_a_placed_graph_are_never_made_twice() -> None:
    with fakes("fa", "fb") as devices:
        x = hal.ones(4, 4, device="fa")
        graph = traced(lambda a: sum((a * (i + 1.0)).exp() for i in range(6)), x)
        found = spread(graph, devices)
        pairs = [(id(n.inputs[0]), n.device) for n in found.graph.nodes if crosses(n)]
        assert pairs
        assert len(set(pairs)) == len(pairs)
        made = {n.outputs[0]: n.inputs[0] for n in found.graph.nodes if crosses(n)}
        assert not any(x in made for x in made.values()), "a copy was copied on, though the first was there"


def training(device: str, count: int, policy: str) -> tuple[list[float], hal.graph.plan.Plan]:
    """Losses of a few compiled steps of Adam on a deep, narrow network with a large batch."""
    hal.manual_seed(0)
    layers = [m for _ in range(12) for m in (nn.Linear(16, 16), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(16, 4)).to(device)
    optimizer = nn.optim.Adam(model.parameters(), lr=1e-2)
    loss_of = nn.CrossEntropyLoss()

    @hal.compile
    def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    rng = np.random.default_rng(0)
    losses = []
    with hal.placement(policy, devices=["host"]):
        for _ in range(count):
            x = hal.tensor(rng.normal(size=(1024, 16)).astype("f4"), device=device)
            y = hal.tensor(rng.integers(0, 4, 1024), device=device)
            losses.append(step(x, y).item())
            del x, y
    return losses, step.plans[-1]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_training_in_half_the_memory_it_needs_gives_the_same_losses(asynchronous: bool) -> None:
    with fakes("small"):
        want, plan = training("small", 3, "follow")
        need = peak_memory(plan.graph)[hal.device("small")]
    limits = {"memory": need // 2, "asynchronous": asynchronous}
    with fakes("small", small=limits):
        losses, plan = training("small", 3, "auto")  # the device counts its bytes, and raises where they are too many
        assert losses == want
        assert {n.device for n in plan.graph.nodes if n.op is not COPY} == {hal.device("small")}
        told = plan.report()
        assert sum(r.how == "evict" for r in told.rows) >= 3
        assert "make room on a full device" in str(told)
        assert told.peak["small"] <= need // 2


class Wide:
    """A network with more state than activations, and a compiled step of Adam."""

    def __init__(self, policy: str) -> None:
        hal.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 4))
        self.model.to("small")
        self.optimizer = nn.optim.Adam(self.model.parameters(), lr=1e-2)
        loss_of = nn.CrossEntropyLoss()
        self.policy = policy

        @hal.compile
        def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
            self.optimizer.zero_grad()
            loss = loss_of(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        self.step = step

    def train(self, count: int) -> list[float]:
        """The losses of so many steps on small batches."""
        rng, losses = np.random.default_rng(0), []
        with hal.placement(self.policy, devices=["host"]):
            for _ in range(count):
                x = hal.tensor(rng.normal(size=(8, 48)).astype("f4"), device="small")
                y = hal.tensor(rng.integers(0, 4, 8), device="small")
                losses.append(self.step(x, y).item())
                del x, y
        return losses

    def state(self) -> list[np.ndarray]:
        """Parameters, their gradients, and all that the optimizer keeps."""
        held = [t for p in self.model.parameters() for t in (p.detach(), p.grad, *self.optimizer.state[p].values())]
        return [t.cpu().numpy() for t in held if isinstance(t, hal.Tensor)]


@pytest.mark.parametrize(("share", "habits"), [(0.5, {}), (0.3, {"asynchronous": True}), (0.3, {"views": True})])
def test_state_waits_on_the_host_where_it_alone_is_too_much(share: float, habits: dict) -> None:
    """Half of all that a step needs; and little more than half of parameters, gradients and moments."""
    with fakes("small", small=habits):
        whole = Wide("follow")
        losses = whole.train(3)
        device = hal.device("small")
        want = whole.state()
        need = 2 * sum(a.nbytes for a in want)  # old and new
        assert device.backend.most[device] >= need
    limit = int(share * need)
    with fakes("small", small={**habits, "memory": limit}):  # which raises where a byte is too much
        tried = Wide("auto")
        assert tried.train(3) == losses
        plan = tried.step.plans[-1]
        small = hal.device("small")
        assert all(p.device is small for p in tried.model.parameters())
        for a, b in zip(tried.state(), want, strict=True):
            np.testing.assert_array_equal(a, b)
        assert re.search(r"\d+ inputs \(.*B\) live on host between calls, .* not on small", str(plan.report()))
        small.backend.fail_after = small.backend.calls + 20
        with pytest.raises(DeviceError, match="small failed at"):
            tried.train(1)
        small.backend.fail_after = None
        for a, b in zip(tried.state(), want, strict=True):
            np.testing.assert_array_equal(a, b)
        first = next(tried.model.parameters())
        assert type(first.storage.buffer) is Waiting
        with hal.no_grad():
            assert np.isfinite((first * 2).cpu().numpy()).all()  # whoever computes with it gets it back
        assert type(first.storage.buffer) is not Waiting
        assert np.isfinite(tried.train(1)).all()


def test_what_can_never_fit_is_an_error_with_op_and_line() -> None:
    with fakes("small", small={"memory": 2000}), hal.placement("auto", devices=["host"]):
        x = hal.ones(16, 16, device="small")
        f = hal.compile(lambda a: a * 2.0)
        told = r"mul at .*test_schedule_graphs.py:\d+ needs 2,04\d bytes .* small"
        with hal.device("small"), pytest.raises(OutOfMemoryError, match=told):  # elsewhere it could run on the host
            f(x)


def test_one_device_is_left_as_it_is() -> None:
    x = hal.ones(3, 3)
    with hal.placement("auto", devices=[]):
        f = hal.compile(network)
        f(x, x)
        plan = f.plans[-1]
    assert not runs_apart(plan)
    graph = plan.graph
    assert [offer.graph for offer in offers(graph, Freedom(), [])] == [graph]


@pytest.mark.parametrize(("times", "devices"), [([2.0, 1.0], {"fa", "fb"}), ([1.0, 0.99], {"fa"})])
def test_auto_uses_two_devices_where_that_is_predicted_and_then_seen_to_help(
    times: list[float], devices: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def timed(runs: list[Callable]) -> list[float]:
        """They run; how long that takes on a busy machine must not decide a test."""
        for run in runs:
            tried.append(run())
        return [*times, *[3.0] * (len(runs) - 2)]

    monkeypatch.setattr("hal.schedule.trial._times", timed)
    half = {"speed": Speed(1e9, {"any": 1e6})}
    with fakes("fa", "fb", fa=half, fb=half):
        x = hal.ones(8, 8, device="fa")

        def two(a: hal.Tensor) -> hal.Tensor:
            b, c = a, a
            for _ in range(4):
                b, c = (b @ a).tanh(), (c @ a).sin()
            return b + c

        want = hal.compile(two)(x).cpu().numpy()
        with hal.placement("auto", devices=["fb"]):
            f = hal.compile(two)
            for _ in range(2):
                out = f(x)
                np.testing.assert_array_equal(out.cpu().numpy(), want)
        assert out.device is x.device
        assert {str(s.device) for s in f.plans[-1].steps if s.how != "copy"} == devices
        assert runs_apart(f.plans[-1]) == (len(devices) == 2)
    assert len(tried) == 3, "nothing moved, the scheduler's answer, and all on the other device"


def test_plans_are_timed_in_turn_and_what_is_far_behind_or_fails_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("hal.schedule.trial.time.perf_counter", lambda: now[0])
    calls: list[str] = []

    def taking(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            calls.append(name)
            now[0] += seconds
            if name == "fails":
                raise DeviceError("it fails")

        return run

    times = trial._times([taking("a", 1e-3), taking("b", 1.2e-3), taking("far", 3e-2), taking("fails", 1e-3)])
    assert times == pytest.approx([1e-3, 1.2e-3, 3e-2, inf])
    assert calls[:7] == ["a", "b", "far", "fails", "a", "a", "a"]
    assert (calls.count("far"), calls.count("fails")) == (1 + trial.BURST, 1)
    assert calls.count("a") == calls.count("b") == 1 + trial.BURST * trial.TRIES[1]
    calls.clear()
    trial._times([taking("a", 1.0), taking("b", 1.0)])
    assert calls == ["a", "b"] * (1 + trial.TRIES[0])


def test_what_was_measured_holds_while_the_device_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    with Fake("fa", only=("add", "exp")).registered():
        device = hal.device("fa")
        backend = device.backend
        assert known_calibration(device) is None
        measured = calibration_of(device)
        assert known_calibration(device) == measured
        told = backend.describe(device)
        monkeypatch.setattr(backend, "describe", lambda device: {**told, "in use": "4 bytes"})
        assert known_calibration(device) is None
        monkeypatch.setattr(backend, "identity", lambda device: told)
        assert known_calibration(device) == measured


def test_a_device_that_is_full_is_measured_with_what_room_it_has() -> None:
    with Fake("fa", only=("add", "exp"), memory=3000).registered():
        held = hal.zeros(300, device="fa")
        found = measure(hal.device("fa"))
        assert found.speed.seconds("add", "elementwise", "float32", 16, 192) > 0
        assert found.upload.bandwidth > 0
        assert held.shape == (300,)


def test_the_users_word_wins() -> None:
    """`.to()` is a word about that tensor, `with hal.device` about all that runs on that device inside."""

    def freely(a: hal.Tensor) -> hal.Tensor:
        return (a * 2.0).to("fb").exp().to("fa") + 1.0

    def asked(a: hal.Tensor) -> hal.Tensor:
        with hal.device("fb"):
            return freely(a)

    with fakes("fa", "fb", fb={"speed": SLOW}) as (fa, fb, _host), hal.placement("auto", devices=["host"]):
        x = hal.ones(4, 4, device="fa")
        for function, device, why in ((freely, fa, "fastest there"), (asked, fb, "the user's word")):
            f = hal.compile(function)
            f(x)
            nodes = f.plans[-1].graph.nodes
            assert {n.op.name: n.device for n in nodes}["exp"] is device
            assert why in f.plans[-1].explain("exp")
            assert any(crosses(n) and n.device is fb for n in nodes)


def test_another_word_is_another_plan() -> None:
    half = {"speed": Speed(1e9, {"any": 1e6})}
    with fakes("fa", "fb", fa=half) as (fa, fb, _host):
        x = hal.ones(16, 16, device="fa")
        f = hal.compile(lambda a: (a @ a).tanh().sum())
        words = [hal.placement("follow"), hal.placement("auto", devices=[]), hal.placement("auto", devices=["fb"])]
        for word in [*words, *words]:
            with word:
                f(x)
        assert f.counters.traces == 3
        assert f.counters.replays == 3
        model = nn.Sequential(nn.ReLU(), nn.Sigmoid())
        g = hal.compile(model)
        assert g(x).device is fa
        hal.place(model, {"1": "fb"})  # it has no parameters that could tell
        assert g(x).device is fb
        hal.place(model, {"1": "fa"})  # the latest word counts
        assert g(x).device is fa


def test_placed_modules_run_where_they_were_put() -> None:
    with fakes("fa", "fb", fb={"speed": SLOW}) as (fa, fb, _):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).to("fa")
        with pytest.raises(DeviceError, match=r"no submodule fits 'three'.*0, 1, 2"):
            hal.place(model, {"0": "fa", "three": "fb"})
        assert hal.place(model, {"": "fa", "2": "fb"}) is model
        assert model(hal.ones(1, 4)).device is fb
        f = hal.compile(model, policy="auto")
        with hal.no_grad():
            assert f(hal.ones(1, 4, device="fa")).device is fb
        where = [n.device for n in f.plans[-1].graph.nodes if n.op.name == "linear"]
        assert where[0] is fa
        assert where[-1] is fb

        @hal.compile(policy="auto")
        def step(x: hal.Tensor) -> hal.Tensor:
            loss = model(x).square().sum()
            loss.backward()
            return loss.detach()

        step(hal.ones(1, 4, device="fa"))
        pinned = [n for n in step.plans[-1].graph.nodes if n.pinned and n.op is not COPY]
        assert {n.op.name for n in pinned if n.device is fb} >= {"linear", "matmul"}, "its gradients as well"
        assert not any(n.pinned for n in step.plans[-1].graph.nodes if n.op.name == "square")


def test_devices_that_only_infer_take_no_part_in_training() -> None:
    poor = {"training": False, "dtypes": [hal.float32]}
    with fakes("fa", "chip", fa={"speed": SLOW}, chip=poor) as (fa, chip, host):
        weight = hal.ones(8, 8, device="fa", requires_grad=True)

        def step(x: hal.Tensor) -> hal.Tensor:
            loss = (x @ weight).tanh().sum()
            loss.backward()
            with hal.no_grad():
                weight.sub_(weight.grad * 0.1)
                weight.grad = None
            return loss.detach()

        x = hal.ones(8, 8, device="fa")
        train, infer = traced(step, x), traced(lambda a: (a @ a).tanh().sum(), x)
        wide = traced(lambda a: (a.long() * 2).sum(), x)
        speeds = {"fa": SLOW, "host": SLOW}
        on = machine([fa, chip, host], speeds)
        assert chip not in {n.device for n in place_on(train, on).graph.nodes}
        assert chip in {n.device for n in place_on(infer, on).graph.nodes}
        assert all(n.device is not chip for n in place_on(wide, on).graph.nodes if hal.int64 in _dtypes(n))


def _dtypes(node: Node) -> set[hal.DType]:
    return {v.spec.dtype for v in (*node.inputs, *node.outputs)}


def test_a_kernel_that_fails_in_a_queue_is_named_and_nothing_changes() -> None:
    with fakes("fa", "fb") as devices:
        weight = hal.ones(4, 4, device="fa")

        def step(x: hal.Tensor) -> hal.Tensor:
            weight.add_((x @ weight).sin().cos())
            return weight.sum()

        x = hal.ones(4, 4, device="fa")
        graph = traced(step, x)
        before = weight.cpu().numpy()
        plan = overlapped(plan_of(spread(graph, devices).graph))
        inputs = [x.buffer if v.name == "x0" else weight.buffer for v in plan.graph.inputs]
        hal.registry.registry().backends["fb"].fail_after = 0
        with pytest.raises(DeviceError, match="fb failed at") as caught:
            plan.run(*inputs)
        assert any(
            re.search(r"called at .*test_schedule_graphs.py:\d+; no parameter", n) for n in caught.value.__notes__
        )
        np.testing.assert_array_equal(weight.cpu().numpy(), before)
        hal.registry.registry().backends["fb"].fail_after = None
        plan.run(*inputs)  # and the queues are still there


def test_a_report_says_where_why_and_what_else() -> None:
    with fakes("fa", "fb") as (fa, fb, host):
        x = hal.ones(64, 64, device="fa")
        graph = traced(lambda a: ((a @ a).exp() @ a).sum(), x)
        speeds = {"fa": SLOW, "host": Speed(1.0, {"any": 1.0})}
        found = place_on(graph, machine([fa, fb, host], speeds, Link(1e9, 1e-6)))
        told = report(found.graph, found.machine)
        assert told.seconds == pytest.approx(timeline(found.graph, found.machine).seconds)
        assert told.seconds == pytest.approx(found.placement.layout.seconds)
        text = str(told)
        row = next(r for r in told.rows if r.op == "exp")
        assert (row.device, row.why) == ("fb", "fastest there")
        assert row.alternatives["fa"].seconds > row.seconds
        assert row.alternatives["fa"].copies > 0
        assert row.line.split(":")[0].endswith("test_schedule_graphs.py")
        assert [r.moved for r in told.rows if r.how == "copy"] == [64 * 64 * 4, 4]
        assert "matmul" in text
        assert "fa → fb: busy" in text
        assert "on fa: " in told.explain("exp")
        assert told.explain(row.index) == told.explain("exp")
        with pytest.raises(GraphError, match=r"has no 'tanh'; it has .*exp"):
            told.explain("tanh")
        assert json.loads(told.to_json())["rows"][row.index]["op"] == "exp"
        page = told.html()
        assert page.count("data-step=") == 3 * len(told.rows)
        assert "http" not in page.replace("http://www.w3.org", "")
        assert "fastest there" in page


def test_queues_share_a_wire_if_the_machine_says_so(tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    path.write_text(
        'name = "a box"\nhost = "host"\n[devices.host]\nbandwidth = "1 GB/s"\nrates = { any = "1 Gop/s" }\n'
        '[devices.chip]\ncount = 2\nmemory = "1 MiB"\nbandwidth = "100 GB/s"\nrates = { any = 1e12, matmul = 2e12 }\n'
        'launch = "5 us"\nlink = { bandwidth = "2 GB/s", latency = "10 us", wire = "bus" }\n'.replace("Gop", "Gflop")
    )
    box = machine_from(path)
    assert [str(d) for d in box.devices] == ["host", "chip:0", "chip:1"]
    routes = box.routes()
    assert routes[0][1] == routes[0][2]
    assert routes[0][1].seconds(2000) == pytest.approx(11e-6)
    assert box.units[1].memory == 2**20
    told = what_if(traced(lambda a: (a @ a).exp(), hal.ones(64, 64)), path)
    assert told.machine == "a box"
    assert "lie on" in str(told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("devices = 3 4", "is no TOML"),
        ("", r"describes no \[devices.NAME\]"),
        ("[devices.a]\nrates = {}\n", "device a needs bandwidth"),
        ("[devices.a]\nbandwidth = '3 parsec'\nrates = {}\n", "'3 parsec' is no quantity"),
        ("[devices.a]\nbandwidth = 1\nrates = {}\nspeed = 1\n", "device a has no setting speed"),
        ("host = 'b'\n[devices.a]\nbandwidth = 1\nrates = {}\n", "host = 'b' is none of its devices a"),
        ("[devices.a]\nbandwidth = 1\nrates = {}\ndtypes = ['float31']\n", "no dtype 'float31'; did you mean float32"),
        ("[devices.a]\nbandwidth = 1\nrates = {}\n[[links]]\nbetween = ['a']\n", "a link is between two of a"),
    ],
)
def test_a_machine_that_makes_no_sense_is_told_why(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        machine_from(path)


def test_quantities() -> None:
    for text, value in {"80 GiB": 80 * 2**30, "3.35 TB/s": 3.35e12, "67 Tflop/s": 67e12, "5 us": 5e-6, 7: 7.0}.items():
        assert quantity("here", text) == pytest.approx(value)
    with pytest.raises(ConfigError, match=r"no file and no preset 'dgxx'.*did you mean dgx"):
        machine_from("dgxx")


@pytest.mark.parametrize("name", presets())
def test_presets_take_a_model_that_fits(name: str) -> None:
    x = hal.ones(256, 256)
    graph = traced(lambda a: ((a @ a).relu() @ a).sum(), x)
    told = what_if(graph, name)
    assert 0 < told.seconds < 1
    assert told.bottleneck in told.busy


def test_what_does_not_fit_on_one_imagined_device_is_streamed_from_its_host() -> None:
    box = machine_from("laptop")
    small = replace(box, units=tuple(replace(u, memory=70_000) if str(u.device) == "opencl" else u for u in box.units))
    ws = [hal.ones(64, 64) for _ in range(8)]

    def chain(x: hal.Tensor) -> hal.Tensor:
        for w in ws:
            x = x @ w
        return x

    told = what_if(traced(chain, ws[0]), small)
    assert told.peak.get("opencl", 0) <= 70_000
    slow = replace(small, units=tuple(replace(u, speed=SLOW) if str(u.device) == "cpu" else u for u in small.units))
    told = what_if(moved_to(traced(chain, ws[0]), hal.device("cpu")), slow)
    assert 0 < told.peak["opencl"] <= 70_000
    assert sum(r.op == "matmul" and r.device == "opencl" for r in told.rows) == 8


def test_a_calibration_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    cpu = hal.device("cpu")
    assert known_calibration(cpu) is None
    found = calibration_of(cpu)
    assert found.speed.launch > 0
    assert found.speed.seconds("matmul", "contraction", "float32", 1e9, 0) > found.speed.launch
    assert known_calibration(cpu) == found == Calibration.from_dict(json.loads(json.dumps(found.to_dict())))
    (kept,) = (tmp_path / "calibrations").iterdir()
    before = {"device": "cpu", "speed": {"bandwidth": 1e9, "rates": {"any": 1e9}, "launch": 1e-6, "launches": {}}}
    for text in ("{", "[]", json.dumps(before), json.dumps({**found.to_dict(), "format": FORMAT - 1})):
        kept.write_text(text)  # half a file, another file, and those of other versions
        assert known_calibration(cpu) is None
        assert calibration_of(cpu) == known_calibration(cpu)
    with fakes("fa") as (fa, _):
        assert calibration_of(fa).speed is calibration_of(fa, anew=True).speed is FAST  # as declared


def test_here_has_a_host_whatever_is_asked_for() -> None:
    with fakes("fa") as (fa, host):
        assert here([fa, host]).devices == (fa, host)
        assert here([fa, host]).host == 1


def test_a_device_that_cannot_be_measured_is_left_out(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAL_LOG", "placement")
    broken = Fake("broken", speed=None, fail_after=0)
    broken.priority = 0
    with broken.registered(), hal.placement("auto"):
        f = hal.compile(lambda a: (a * 2).sum())
        assert f(hal.ones(3, device="cpu")).item() == 6
        assert {str(s.device) for s in f.plans[-1].steps} == {"cpu"}
    assert "broken is left out, since it could not be measured" in capsys.readouterr().err
