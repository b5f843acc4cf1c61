"""The trainer: the same as a loop by hand, resumed bit for bit, interrupted without loss, not waiting per batch."""

import json
import math
import os
import signal
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import DataError, SettingError
from nn import fitting, metrics, optim
from nn import functional as F
from nn.data import DataLoader, TensorDataset
from nn.fitting.curves import svg
from nn.optim.lr_scheduler import ExponentialLR, OneCycleLR, ReduceLROnPlateau
from nn.optim.swa_utils import AveragedModel, get_ema_avg_fn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)


def made(device: Any = None, dropout: float = 0.2, lr: float = 0.05, shuffle: bool = True) -> Any:
    hal.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2))
    net.to(device or "cpu")
    data = TensorDataset(hal.tensor(X, device=device), hal.tensor(Y, device=device))
    loader = DataLoader(data, batch_size=8, shuffle=shuffle, generator=1)
    return net, optim.Adam(net.parameters(), lr=lr), loader


def run(setup: Any, **more: Any) -> Any:
    net, optimizer, loader = setup
    return nn.fit(net, optimizer, F.cross_entropy, loader, **{"epochs": 3, "quiet": True, **more})


def weights(net: nn.Module) -> list[bytes]:
    return [p.detach().cpu().numpy().tobytes() for p in net.state_dict().values()]


def test_it_is_the_loop_that_one_would_write(each_device: hal.Device) -> None:
    by_fit = made(each_device)
    history = run(by_fit, metrics={"accuracy": metrics.Accuracy()}, validation=by_fit[2])
    net, optimizer, loader = made(each_device)
    for epoch in range(3):
        total, right = 0.0, 0
        net.train()
        for x, y in loader:
            optimizer.zero_grad()
            scores = net(x)
            loss = F.cross_entropy(scores, y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
            right += int((scores.argmax(dim=1) == y).sum())
        assert history["loss"][epoch] == pytest.approx(total / 40, rel=1e-5)
        assert history["accuracy"][epoch] == pytest.approx(right / 40)
        net.eval()
        with hal.no_grad():
            for _ in loader:  # a pass for validation
                pass
    assert weights(net) == weights(by_fit[0])
    assert history["val_accuracy"][-1] >= 0.5
    assert len(history) == 3
    assert not history.stopped


def test_nothing_waits_for_the_device_while_batches_go_by(each_device: hal.Device) -> None:
    setup = made(each_device)
    figures = {"accuracy": metrics.Accuracy(), "f1": metrics.F1Score(2)}
    counts = []
    for epochs in (1, 3):
        setup = made(each_device)
        with hal.placement_report() as report:
            run(setup, epochs=epochs, metrics=figures, validation=setup[2])
        counts.append(sum(entry.count for entry in report.syncs.values()))
    per_epoch = (counts[1] - counts[0]) / 2
    assert per_epoch <= 2 * (1 + len(figures)) + 2  # the figures of two sets of five batches each


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_goes_on_in_the_middle_of_an_epoch_bit_for_bit(tmp_path: Path, accumulate: int) -> None:
    whole = made()
    straight = run(whole, epochs=4, accumulate=accumulate, metrics={"accuracy": metrics.Accuracy()})

    class StopAt(fitting.Callback):
        def __init__(self, batches: int) -> None:
            self.left = batches

        def batch(self, fit: fitting.Fit) -> None:
            self.left -= 1
            if self.left == 0:
                fit.stop("interrupted")

    for stop in (3, 2, 4):
        parts = made()
        more: dict[str, Any] = {"accumulate": accumulate, "metrics": {"accuracy": metrics.Accuracy()}, "out": tmp_path}
        stopped = run(parts, epochs=4, callbacks=[StopAt(stop)], resume=True, **more)
        assert stopped.stopped == "interrupted"
    parts = made()
    hal.manual_seed(99)  # the checkpoint brings its own
    resumed = run(parts, epochs=4, resume=True, **more)
    assert weights(parts[0]) == weights(whole[0])
    assert resumed["loss"] == straight["loss"]
    assert resumed["accuracy"] == straight["accuracy"]
    assert run(made(), epochs=4, resume=True, **more)["loss"] == straight["loss"]  # nothing is left to do


def test_the_best_and_every_so_many_steps_are_kept(tmp_path: Path) -> None:
    seen: list[int] = []

    class Look(fitting.Callback):
        def step(self, fit: fitting.Fit) -> None:
            if (tmp_path / "last.safetensors").exists():
                seen.append(hal.load(tmp_path / "last.safetensors")["steps"])

    setup = made(lr=1.0)
    history = run(setup, epochs=4, every=2, out=tmp_path, callbacks=[Look()], validation=setup[2], monitor="val_loss")
    assert {2, 4} <= set(seen)
    best = hal.load(tmp_path / "best.safetensors")
    losses = history["val_loss"]
    assert best["done"] == history.best_epoch == losses.index(min(losses)) + 1
    assert hal.load(tmp_path / "last.safetensors")["done"] == 4
    kept = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
    assert [row["val_loss"] for row in kept["rows"]] == losses
    lines = (tmp_path / "history.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("epoch,loss,val_loss")
    picture = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert picture.count("<polyline") == 2


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [0.5],
        [2.3, 0.7, 0.011],
        [1.0] * 3,
        [1e20] * 2,
        [-3.0, 5.0, float("nan"), 0.0],
        [0.97**i for i in range(700)],
    ],
)
def test_curves_are_named_and_stay_in_their_fields(losses: list[float]) -> None:
    rows = [{"epoch": i, "loss": v, "accuracy": i / 700, "val_accuracy": 0.5} for i, v in enumerate(losses)]
    root = ElementTree.fromstring(svg("a <run> & more", rows))
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a <run> & more", "epoch"} <= set(texts)
    assert any(str(t).startswith("loss ") for t in texts) == bool(losses)
    assert any(str(t).endswith("(logarithmic)") for t in texts) == (len(losses) in (3, 700) and losses != [1.0] * 3)
    _, _, wide, tall = map(float, root.attrib["viewBox"].split())
    dots = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(dots) == sum(map(math.isfinite, losses)) + 2 * len(losses)
    assert all(0 < x < wide and 0 < y < tall for x, y in dots)
    assert len(texts) < 60


def test_ctrl_c_ends_with_the_batch_and_keeps_it(tmp_path: Path) -> None:
    class Press(fitting.Callback):
        def step(self, fit: fitting.Fit) -> None:
            if fit.steps == 7:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    setup = made()
    history = run(setup, epochs=4, out=tmp_path, callbacks=[Press()])
    assert history.stopped == "interrupted"
    assert len(history) == 1
    state = hal.load(tmp_path / "last.safetensors")
    assert (state["done"], state["batches"], state["steps"]) == (1, 2, 7)
    assert signal.getsignal(signal.SIGINT) is before

    class PressTwice(fitting.Callback):
        def step(self, fit: fitting.Fit) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(made(), callbacks=[PressTwice()])


def test_gradients_of_several_batches_make_one_step() -> None:
    whole, parts = made(dropout=0.0, shuffle=False), made(dropout=0.0, shuffle=False)
    for setup in (whole, parts):
        setup[0][1] = nn.Identity()
    data = TensorDataset(hal.tensor(X[:32]), hal.tensor(Y[:32]))
    nn.fit(whole[0], optim.SGD(whole[0].parameters(), lr=0.1), F.cross_entropy, DataLoader(data, 16), quiet=True)
    nn.fit(
        parts[0], optim.SGD(parts[0].parameters(), lr=0.1), F.cross_entropy, DataLoader(data, 8), accumulate=2,
        quiet=True,
    )  # fmt: skip
    a, b = whole[0].state_dict(), parts[0].state_dict()
    for name in a:
        np.testing.assert_allclose(a[name].numpy(), b[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_clipping_penalties_and_averages_are_applied() -> None:
    net, optimizer, loader = made(dropout=0.0)
    largest: list[float] = []

    class Norm(fitting.Callback):
        def step(self, fit: fitting.Fit) -> None:
            largest.append(float(nn.utils.get_total_norm([p.grad for p in net.parameters()])))

    average = AveragedModel(net, avg_fn=get_ema_avg_fn(0.9))
    nn.fit(
        net, optimizer, F.cross_entropy, loader, epochs=2, clip_norm=0.01, average=average, validation=loader,
        penalty=lambda model: nn.utils.l2_penalty(model.parameters()) * 10.0, callbacks=[Norm()], quiet=True,
    )  # fmt: skip
    assert max(largest) <= 0.01 * (1 + 1e-4)
    assert min(largest) > 0.009  # the penalty alone is far above the limit
    assert average.n_averaged.item() == 10
    assert weights(average.module) != weights(net)


@pytest.mark.parametrize("precision", [hal.bfloat16, hal.float16], ids=str)
def test_a_lower_precision_comes_to_nearly_the_same_and_is_resumed(tmp_path: Path, precision: Any) -> None:
    plain, mixed = run(made(), epochs=4), run(made(), epochs=4, precision=precision, clip_norm=5.0)
    np.testing.assert_allclose(mixed["loss"], plain["loss"], rtol=0.1)
    assert mixed["loss"] != plain["loss"]
    for epochs in (2, 4):
        again = run(made(), epochs=epochs, precision=precision, clip_norm=5.0, out=tmp_path, resume=True)
    assert again["loss"] == mixed["loss"]


def test_penalties() -> None:
    p, q = nn.Parameter(hal.tensor([1.0, -2.0])), nn.Parameter(hal.tensor(3.0))
    assert nn.utils.l1_penalty([p, q]).item() == 6
    assert nn.utils.l2_penalty([p, q]).item() == 7
    nn.utils.l2_penalty([p, q]).backward()
    assert p.grad is not None
    assert p.grad.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("when", ["epoch", "step"])
def test_schedules_are_stepped(when: str) -> None:
    setup = made()
    schedule: Any = ExponentialLR(setup[1], 0.5) if when == "epoch" else OneCycleLR(setup[1], 0.1, 15)
    history = run(setup, schedule=schedule, schedule_every=when)
    assert schedule.last_epoch == (3 if when == "epoch" else 15)
    if when == "epoch":
        assert history["lr"] == [0.05, 0.025, 0.0125]
    plateau = made(lr=0.0)
    run(plateau, schedule=ReduceLROnPlateau(plateau[1], patience=0, factor=0.5), monitor="loss")


def test_it_stops_early_when_nothing_gets_better() -> None:
    setup = made(lr=0.0)
    history = run(
        setup, epochs=50, validation=setup[2], callbacks=[fitting.EarlyStopping("val_loss", 2, min_delta=1.0)]
    )
    assert history.stopped == "early"
    assert len(history) == 4


def test_a_loss_that_is_no_number_is_an_error_that_keeps_the_last_epoch(tmp_path: Path) -> None:
    setup = made(lr=0.05)

    def loss(outputs: hal.Tensor, targets: hal.Tensor) -> hal.Tensor:
        value: hal.Tensor = F.cross_entropy(outputs, targets)
        return value * float("nan") if hal.load(tmp_path / "x")["done"] else value

    hal.save({"done": 0}, tmp_path / "x")

    class Spoil(fitting.Callback):
        def epoch(self, fit: fitting.Fit, row: Any) -> None:
            hal.save({"done": 1}, tmp_path / "x")

    with pytest.raises(fitting.DivergedError, match=r"became nan in epoch 2.*smaller learning rate"):
        nn.fit(setup[0], setup[1], loss, setup[2], epochs=3, out=tmp_path, callbacks=[Spoil()], quiet=True)
    for name in ("best", "last"):
        state = hal.load(tmp_path / f"{name}.safetensors")
        assert (state["done"], state["batches"]) == (1, 0)


def test_an_evaluation_leaves_the_model_as_it_was() -> None:
    net, _, loader = made()
    net[1].eval()
    figures = fitting.evaluate(net, F.cross_entropy, loader, metrics={"matrix": metrics.ConfusionMatrix(2)})
    assert sum(map(sum, figures["matrix"])) == 40
    assert net.training
    assert not net[1].training
    assert net[0].weight.grad is None


def test_tensorboard_gets_figures_histograms_images_and_the_graph(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="pip install 'hal-runtime[tensorboard]'")
    from tensorboardX.proto import event_pb2, graph_pb2
    from tensorboardX.record_writer import RecordWriter

    assert RecordWriter
    setup = made()
    board = fitting.TensorBoard(tmp_path, every=2, images=hal.rand(9, 3, 4, 4))
    run(setup, epochs=2, validation=setup[2], callbacks=[board])
    [file] = tmp_path.glob("events*")
    events, data = [], file.read_bytes()
    while data:  # length, its checksum, the event, its checksum
        size = int.from_bytes(data[:8], "little")
        events.append(event_pb2.Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    tags = {value.tag for event in events for value in event.summary.value}
    assert {"training/loss", "validation/loss", "step/loss", "weights/0.weight", "gradients/4.bias"} <= tags
    assert any(tag.startswith("images") for tag in tags)
    [graph] = [graph_pb2.GraphDef.FromString(e.graph_def) for e in events if e.graph_def]
    nodes = {node.name: node for node in graph.node}
    [linear] = [node for node in graph.node if node.op == "linear" and node.name.startswith("0/")]
    assert {"0/weight", "0/bias"} <= set(linear.input)
    assert all(source in nodes for node in graph.node for source in node.input)


ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"epochs": 0}, SettingError, "epochs= of 1 or more, got 0"),
    ({"accumulate": 0}, SettingError, "accumulate= of 1 or more"),
    ({"accumulate": 2, "compile": True}, SettingError, "compiles whole steps"),
    ({"mode": "least"}, SettingError, "got 'epoch' and 'least'"),
    ({"metrics": {"loss": metrics.Accuracy()}}, SettingError, r"itself, so no metric can have them: \['loss'\]"),
    ({"resume": True}, SettingError, "needs out=, a folder"),
    ({"monitor": "val_loss"}, SettingError, "watches 'val_loss', and has no such figure: there is epoch, loss"),
]


@pytest.mark.parametrize(("settings", "error", "text"), ERRORS, ids=[str(e[0])[:24] for e in ERRORS])
def test_error(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        run(made(), **settings)


def test_a_batch_that_is_no_pair_and_a_foreign_checkpoint(tmp_path: Path) -> None:
    net, optimizer, _ = made()
    with pytest.raises(SettingError, match="batches that are pairs of inputs and targets, got Tensor"):
        nn.fit(net, optimizer, F.cross_entropy, DataLoader(hal.zeros(4, 6), 2), quiet=True)
    hal.save({"format": 1, "done": 1}, tmp_path / "last.safetensors")
    with pytest.raises(DataError, match="no checkpoint of a run like this one: it has no batches"):
        run(made(), out=tmp_path, resume=True)
    with pytest.raises(KeyError, match="no epoch has a figure 'accuracy'; there is epoch"):
        run(made())["accuracy"]
    with pytest.raises(ValueError, match="mode= 'min' or 'max', got 'up'"):
        fitting.EarlyStopping(mode="up")
