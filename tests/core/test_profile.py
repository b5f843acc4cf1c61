"""Profiles: what ran, eagerly and compiled, on which track, with its prediction, and nothing once they have ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import hal
from hal import decision
from hal.errors import HalError
from hal.graph import plan as plans
from hal.schedule.speed import Speed
from hal.testing.fake import Fake

SPEED = Speed(1e9, {"any": 1e9}, 1e-5)


@pytest.fixture
def devices(tmp_path: Path, measured_roughly: None, monkeypatch: pytest.MonkeyPatch) -> object:
    """Two fake devices of a declared speed; of the CPU little is known."""
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    with ExitStack() as stack:
        for name in ("fa", "fb"):
            backend = Fake(name, speed=SPEED, bandwidth=1e9, missing=("cosh", "exp") if name == "fb" else ())
            stack.enter_context(backend.registered())
        yield hal.device("fa"), hal.device("fb")


def test_eager_ops_and_copies_are_on_the_tracks_of_devices_and_links(devices: tuple, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with hal.fallback("allow"), hal.profile(path) as p:
        x = hal.ones(8, 8, device="fa")
        y = (x @ x).to("fb").cosh()
    assert {(s.track, s.name, s.how) for s in p.slices} >= {
        ("fa", "matmul", "native"), ("fa → fb", "copy", "copy"), ("fb", "cosh", "fallback"),
    }  # fmt: skip
    assert np.isfinite(y.cpu().numpy()).all()
    events = json.loads(path.read_text("utf-8"))["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {"fa", "fb", "fa → fb"} <= set(tracks.values())
    product = next(e for e in events if e["name"] == "matmul")
    assert tracks[product["tid"]] == "fa"
    assert product["args"]["predicted_us"] == pytest.approx(10 + 1.024, abs=0.01)
    assert product["dur"] >= 10
    assert product["args"]["line"].split(":")[0].endswith("test_profile.py")
    fallen = next(e for e in events if e.get("cat") == "fallback")
    assert fallen["cname"]
    assert "no kernel for cosh" in fallen["args"]["reason"]
    copied = next(e for e in events if e["ph"] == "C" and e["name"] == "bytes fa → fb")
    assert copied["args"] == {"bytes": 256}
    assert "matmul" in p.summary()


def test_compiled_steps_are_noted_beside_what_was_predicted(devices: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hal.schedule.trial._times", lambda runs: [1.0, *[2.0] * (len(runs) - 1)])  # nothing is moved
    f = hal.compile(lambda a: ((a @ a).to("fb").sin()).to("fa").sum(), policy="auto")
    x = hal.ones(8, 8, device="fa")
    with hal.placement("auto", devices=[]):
        want = f(x).item()
        with hal.profile() as p:
            assert f(x).item() == want
    steps = [s for s in p.slices if s.track in ("fa", "fb")]
    assert [s.name for s in sorted(steps, key=lambda s: s.start)] == ["matmul", "sin", "sum"]
    assert all(s.predicted and s.predicted > 1e-5 for s in steps)
    events = p.to_dict()["traceEvents"]
    predicted = [e for e in events if e["ph"] == "X" and e["pid"] == 2]
    assert [e["name"] for e in predicted] == ["matmul", "copy_to", "sin", "copy_to", "sum"]
    assert all(a["ts"] + a["dur"] <= b["ts"] + 0.01 for a, b in pairwise(predicted))


def test_a_simulated_device_has_its_own_time_on_a_track_of_its_own(devices: tuple) -> None:
    fa, fb = devices
    fb.backend.simulated = True
    f = hal.compile(lambda a: (a @ a).tanh())
    x = hal.ones(8, 8, device=fa)
    f(x.to(fb))
    with hal.profile() as p:
        y = x.to(fb)
        f(y), y + 1.0
    want = [("fa → fb", 256e-9), ("fb", 1e-5 + 1.024e-6), ("fb", 1e-5 + 6.4e-7), ("fb", 1e-5 + 5.16e-7)]
    done = [s for s in p.slices if s.simulated is not None]
    assert [s.name for s in done] == ["copy", "matmul", "tanh", "add"]
    at = 0.0
    for s, (track, seconds) in zip(done, want, strict=True):
        assert (s.track, s.simulated) == (track, pytest.approx((at, seconds), rel=1e-3))
        at += seconds
    events = p.to_dict()["traceEvents"]
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} >= {"measured", "simulated clock"}
    clock = [e for e in events if e["ph"] == "X" and e["pid"] == 3]
    assert [(e["name"], e["ts"]) for e in clock] == [(s.name, round(s.simulated[0] * 1e6, 3)) for s in done]
    assert all("measured_by_predicted" not in e["args"] for e in events if "simulated_us" in e["args"])


def test_after_a_profile_nothing_is_noted_or_wrapped(devices: tuple) -> None:
    f = hal.compile(lambda a: a * 2 + 1)
    x = hal.ones(4, device="fa")
    with hal.profile() as p:
        f(x), x + 1
    count = len(p.slices)
    assert count
    f(x), x + 1
    assert len(p.slices) == count
    assert decision.instrument is None
    assert plans.timed is None
    assert not any(hasattr(d.kernel, "__wrapped__") for d in decision.decisions.values())


def test_one_profile_at_a_time(devices: tuple) -> None:
    with hal.profile() as p:
        with pytest.raises(HalError, match="running already"), hal.profile():
            pass
        _ = hal.ones(2) + 1
    assert p.slices


def test_a_failure_inside_still_writes_the_trace(devices: tuple, tmp_path: Path) -> None:
    def fails() -> None:
        with hal.profile(tmp_path / "t.json"):
            raise ZeroDivisionError(hal.ones(2) + 1)

    with pytest.raises(ZeroDivisionError):
        fails()
    assert any(e["name"] == "add" for e in json.loads((tmp_path / "t.json").read_text("utf-8"))["traceEvents"])


def test_hal_trace_writes_one_of_the_whole_process(tmp_path: Path) -> None:
    path = tmp_path / "whole.json"
    program = "import hal; x = hal.ones(3, 3); hal.compile(lambda a: (a @ a).sum())(x).item(); (x + 1).exp()"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "HAL_TRACE": str(path)}, check=True)
    names = {e["name"] for e in json.loads(path.read_text("utf-8"))["traceEvents"] if e["ph"] == "X"}
    assert {"matmul", "sum", "add", "exp"} <= names
