"""The simulated machines as devices: which there are, what they refuse, what is recorded of what they run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hal
import nn
from hal import ops
from hal.errors import DeviceError, DTypeError
from hal.plugin import Unavailable
from hal.spec import Spec
from hal_systolic import PRESETS, precision, recording
from hal_systolic.accuracy import tolerance_of
from hal_systolic.describing import Product, Steps, describe
from hal_systolic.presets import DEFAULT
from hal_systolic.work import Matmul, Transfer, Vector


def test_each_preset_is_a_device() -> None:
    names = [str(d) for d in hal.devices("systolic")]
    assert names == ["systolic", *(f"systolic:{name}" for name in PRESETS)]
    assert hal.device("systolic:tpu-v1") is hal.device("systolic:tpu-v1")
    assert hal.device("systolic").backend.machine is PRESETS[DEFAULT]


def test_a_file_says_what_the_machine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "tpu-v2-core"\nrows = 64\n')
    monkeypatch.setenv("HAL_SYSTOLIC", str(file))
    (first, *_) = hal.registry.registry().backend("systolic").devices()
    assert (first.backend.machine.name, first.backend.machine.rows) == ("mine", 64)


def test_a_file_that_is_no_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_SYSTOLIC", "nowhere.toml")
    with pytest.raises(Unavailable, match=r"nowhere.toml.*correct HAL_SYSTOLIC"):
        hal.registry.registry().backend("systolic").devices()


def test_what_a_machine_has_no_format_for_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"has no float64.*float32"):
        hal.tensor(np.zeros(2), device="systolic")


def test_chips_that_only_infer_record_no_gradient() -> None:
    x = hal.ones(2, device="systolic:tpu-v1", requires_grad=True)
    with pytest.raises(DeviceError, match="only infer"):
        x * 2
    with hal.no_grad():
        assert (x * 2).tolist() == [2, 2]


def test_an_integer_array_multiplies_no_floats() -> None:
    a = hal.ones(2, 3, device="systolic:tpu-v1")
    with hal.fallback("error"), pytest.raises(hal.errors.FallbackError, match="float32"):
        a @ a.T
    small = hal.ones(2, 3, dtype=hal.int8, device="systolic:tpu-v1")
    with hal.fallback("error"):
        assert (small @ small.T).tolist() == [[3, 3], [3, 3]]


def test_the_scheduler_is_told_the_speed_of_the_machine() -> None:
    device = hal.device("systolic:tpu-v2-core")
    speed, link = device.backend.speed(device), device.backend.link(device)
    assert speed.rate("conv2d", "contraction", "float32") == 2 * 128 * 128 * 700e6
    assert speed.rate("add", "elementwise", "float32") == 1024 * 700e6
    assert (speed.bandwidth, link.bandwidth) == (358e9, 14e9)
    v1 = hal.device("systolic:tpu-v1")
    assert v1.backend.speed(v1).rate("integer_linear", "contraction", "int32") == 2 * 65536 * 700e6


def test_precision_is_a_matter_of_passes() -> None:
    x = hal.tensor([[1.0, 2.0**-10]], device="systolic")
    y = hal.tensor([[1.0 + 2.0**-9, 1.0]], device="systolic")
    want = 1 + 2.0**-9 + 2.0**-10
    errors = []
    for passes in ("default", "high", "highest"):
        with precision(passes):
            errors.append(abs((x @ y.T).item() - want))
    assert errors[0] > errors[1] >= errors[2] == 0
    with precision(exact=True):
        assert abs((x @ y.T).item() - want) == errors[0]


def test_a_stated_tolerance_is_that_of_rounded_operands_and_of_nothing_else() -> None:
    machine = PRESETS["tpu-v3-core"]
    for op, stated in (
        (ops.matmul, True),
        (ops.conv2d, True),
        (ops.lstm_cell, True),
        (ops.add, False),
        (ops.sum, False),
    ):
        assert (tolerance_of(machine, op, hal.float32) is not None) is stated
    assert tolerance_of(machine, ops.matmul, hal.bfloat16) is None
    with precision("highest"):
        highest = tolerance_of(machine, ops.matmul, hal.float32)
    assert highest is not None
    assert highest.float32 < 16


def test_the_results_of_a_training_are_the_same_bits_each_time() -> None:
    def train() -> list[bytes]:
        hal.manual_seed(3)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        net.to(device="systolic")
        optimizer = nn.optim.Adam(net.parameters(), lr=0.01)
        x = hal.tensor(np.random.default_rng(0).random((16, 1, 8, 8), np.float32), device="systolic")
        y = hal.tensor(np.arange(16) % 5, device="systolic")
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        return [p.detach().cpu().numpy().tobytes() for p in net.parameters()]

    with hal.fallback("error"):
        assert train() == train()


# fmt: off
F32 = hal.float32
SIZES = [
    ("matmul", [(3, 4), (4, 5)], {}, (3, 4, 5, 1)),
    ("matmul", [(4,), (4, 5)], {}, (1, 4, 5, 1)),
    ("matmul", [(2, 3, 4), (4, 5)], {}, (6, 4, 5, 1)),
    ("matmul", [(2, 3, 4), (2, 4, 5)], {}, (3, 4, 5, 2)),
    ("matmul", [(3, 4), (2, 4, 5)], {}, (3, 4, 5, 2)),
    ("matmul", [(2, 3, 4), (4,)], {}, (6, 4, 1, 1)),
    ("linear", [(2, 3, 4), (5, 4)], {}, (6, 4, 5, 1)),
    ("conv2d", [(2, 4, 8, 8), (6, 2, 3, 3)], {"groups": 2}, (72, 18, 3, 2)),
    ("conv2d_weight_gradient", [(2, 4, 8, 8), (2, 6, 6, 6)], {"weight_shape": (6, 4, 3, 3)}, (6, 72, 36, 1)),
    ("conv_transpose2d", [(2, 6, 6, 6), (6, 4, 3, 3)], {}, (72, 6, 36, 1)),
]
# fmt: on


@pytest.mark.parametrize(("name", "shapes", "given", "want"), SIZES)
def test_the_sizes_of_products(
    name: str, shapes: list[tuple[int, ...]], given: dict[str, object], want: object
) -> None:
    op = ops.TABLE[name]
    specs = tuple(Spec(s, F32) for s in shapes)
    settings = op.bind(len(specs), given)
    out = op.infer(*specs, **settings)
    assert isinstance(out, Spec)
    found = describe(PRESETS["tpu-v2-core"], 3, op, specs, (out,), settings)
    assert isinstance(found, Product)
    assert (found.m, found.k, found.n, found.count) == want
    assert (found.dtype, found.passes) == ("bfloat16", 3)
    cost = op.cost(*specs, out=out, **settings).flops
    if not name.endswith("_gradient"):
        assert cost == 2 * found.m * found.k * found.n * found.count


def test_what_the_vector_unit_is_asked() -> None:
    machine = PRESETS["tpu-v2-core"]
    x = Spec((8, 16), F32)
    assert describe(machine, 1, ops.add, (x, x), (x,), {}) == Steps("add", 128, 1.0)
    total = describe(machine, 1, ops.sum, (x,), (Spec((), F32),), {"axis": None, "keepdims": False})
    assert isinstance(total, Steps)
    assert total.elements == 128
    assert describe(machine, 1, ops.permute, (x,), (Spec((16, 8), F32),), {"axes": (1, 0)}) is None
    assert describe(machine, 1, ops.relu, (Spec((0,), F32),), (Spec((0,), F32),), {}) is None


def test_what_is_recorded_has_operands_and_scopes() -> None:
    device = hal.device("systolic")
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU()).to(device=device)
    with hal.scopes.listening(), recording.recording() as recorder:
        x = hal.tensor(np.ones((3, 6), np.float32), device=device)
        net(x).sum().backward()
    works = recorder.finished(device.backend.machine)
    upload, linear, relu = works[0], works[1], works[2]
    assert isinstance(upload, Transfer)
    assert isinstance(linear, Matmul)
    assert isinstance(relu, Vector)
    assert upload.to_device
    assert (linear.a.key, linear.b.weight, linear.a.weight) == (upload.operand.key, True, False)
    assert relu.inputs[0].key == linear.out.key
    assert (linear.layer, relu.layer) == ("0 Linear", "1 ReLU")
    products = [w for w in works if isinstance(w, Matmul)]
    assert [w.layer for w in products] == ["0 Linear", "0 Linear (backward)"]  # the input needs no gradient
    assert products[1].macs == products[0].macs
    others = {w.layer for w in works if isinstance(w, Vector)}
    assert others == {"1 ReLU", "sum", "full", "1 ReLU (backward)", "0 Linear (backward)"}
    assert recording.active is None


def test_views_are_the_same_operand() -> None:
    with recording.recording() as recorder:
        x = hal.ones(4, 6, device="systolic")
        y = x[1:3].T.exp()
        (y * 2).cpu()
    works = recorder.finished(PRESETS[DEFAULT])
    exp = next(w for w in works if isinstance(w, Vector) and w.op == "exp")
    first = works[0]
    made = first.operand.key if isinstance(first, Transfer) else first.outputs[0].key
    assert exp.inputs[0].key == made
    assert exp.inputs[0].nbytes == 2 * 6 * 4
    assert isinstance(works[-1], Transfer)
    assert not works[-1].to_device
