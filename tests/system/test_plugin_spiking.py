"""The spiking plugin as its users meet it: installed by pip beside others, inferring, refusing to train, reporting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the plugin and two others, with their entry points."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    sources = [str(PLUGINS / name) for name in ("spiking", "template", "primitive")]
    subprocess.run([*command, "--target", str(folder), *sources], check=True)
    return folder


def run(site: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("HAL_")}
    env |= {"PYTHONPATH": str(site), "PYTHONWARNINGS": "error", **variables}
    command = [sys.executable, *args]
    return subprocess.run(command, cwd=site, env=env, capture_output=True, text=True, timeout=600, check=False)


def told(done: subprocess.CompletedProcess[str]) -> object:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_device_is_listed_with_what_it_is(site: Path) -> None:
    rows = told(run(site, "-m", "hal", "devices", "--json", HAL_SPIKING_STEPS="32"))
    assert isinstance(rows, list)
    (row,) = [row for row in rows if row["name"] == "spiking"]
    assert row["status"] == "PASS"
    assert row["source"] == "plugin spiking of hal-spiking 0.1.0"
    assert not row["default"]
    assert row["facts"]["time steps"].startswith("32 ")
    assert "float64" not in row["dtypes"]


def test_finding_devices_imports_no_kernel_and_no_layer(site: Path) -> None:
    program = """
import json, sys, hal
hal.devices()
print(json.dumps([name for name in sys.modules if name.startswith("hal_spiking") or name == "nn"]))
"""
    modules = told(run(site, "-c", program))
    assert isinstance(modules, list)
    assert "hal_spiking" in modules
    assert not {"hal_spiking.all_kernels", "hal_spiking.conversion"} & set(modules)


def test_training_is_refused_in_one_line(site: Path) -> None:
    done = run(site, "-m", "hal", "train", "--epochs", "1", HAL_BACKEND="spiking", HAL_FALLBACK="allow")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "would record a gradient, but spiking devices only infer: use hal.no_grad()" in " ".join(done.stderr.split())


TRAINED = """
import json, hal, nn
from nn import functional as F
from nn.data import DataLoader, Digits

hal.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = nn.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(5):
    for images, labels in DataLoader(Digits(train=True), batch_size=32, shuffle=True, generator=0):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
images, labels = next(iter(DataLoader(Digits(train=False), batch_size=360)))
"""


def test_a_network_trained_on_the_cpu_infers_in_spikes(site: Path) -> None:
    """The ordinary program: nothing of it names the plugin."""
    program = f"""{TRAINED}
def right(device):
    with hal.no_grad():
        named = model.to(device)(images.to(device)).argmax(dim=1)
    return (named.cpu() == labels).sum().item() / 360

print(json.dumps({{name: right(name) for name in ("cpu", "spiking", "cpu")}}))
"""
    right = told(run(site, "-c", program, HAL_FALLBACK="error"))
    assert isinstance(right, dict)
    assert right["cpu"] > 0.9
    assert abs(right["spiking"] - right["cpu"]) <= 0.02


def test_devices_of_four_kinds_work_together_in_one_process(site: Path) -> None:
    """Layers on each of them; between them tensors are copied, with `.to` and by themselves, and the report says so."""
    program = f"""{TRAINED}
import hal_spiking
wanted = model(images).detach()
model.requires_grad_(False)
model[1].to("spiking")
model[2].to("spiking")
model[3].to("primitive")
with hal.placement_report() as placed, hal_spiking.report() as spikes, hal_spiking.steps(256), hal.fallback("error"):
    hidden = model[2](model[1](model[0](images)))  # an input on the CPU goes to the weights
    outputs = model[3](hidden)
    tripled = hidden.to("template").to("primitive").to("cpu")
print(json.dumps({{
    "devices": [str(hidden.device), str(outputs.device)],
    "error": (outputs.cpu() - wanted).abs().max().item() / wanted.abs().max().item(),
    "same": bool((tripled == hidden.cpu()).all()),
    "copies": sorted({{f"{{e.source}} -> {{e.target}}" for e in placed.copies.values()}}),
    "fallbacks": len(placed.fallbacks),
    "layers": [row.layer for row in spikes.rows],
}}))
"""
    found = told(run(site, "-c", program))
    assert isinstance(found, dict)
    assert found["devices"] == ["spiking", "primitive"]
    assert found["error"] < 0.02
    assert found["same"]
    assert found["copies"] == ["cpu -> spiking", "spiking -> primitive"]
    assert found["fallbacks"] == 0
    assert found["layers"] == ["1 linear 64x64"]


def test_the_suite_finds_nothing_wrong_and_tells_what_accuracy_is_stated(site: Path) -> None:
    program = """
import json
from hal.testing.suite import run

if __name__ == "__main__":
    report = run("spiking", ops=["relu", "linear", "exp"])
    outcomes = [(r.op, r.outcome.status, r.outcome.source) for r in report.results if r.dtype == "float32"]
    print(json.dumps({"passed": report.passed, "outcomes": outcomes}))
"""
    found = told(run(site, "-c", program, HAL_SPIKING_STEPS="20"))
    assert isinstance(found, dict)
    assert found["passed"]
    assert ["relu", "native", "rates of spikes in 20 steps: half a spike"] in found["outcomes"]
    statuses = {(op, status) for op, status, _ in found["outcomes"]}
    assert {("linear", "native"), ("exp", "fallback")} <= statuses
    assert ("relu", "wrong") not in statuses


@pytest.mark.slow
def test_its_own_tests_pass_where_it_is_installed(site: Path) -> None:
    tests = PLUGINS / "spiking" / "tests"
    done = run(site, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(tests))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
