"""Devices as values, the default device, and what HAL_BACKEND can say."""

from __future__ import annotations

import pickle
import threading

import pytest

import hal
from hal.errors import DeviceError
from hal.plugin import Backend, Device, Kernels, Unavailable
from hal.registry import default_device
from hal.testing.fake import Fake


class Gone(Backend):
    name = "gone"
    kernels = Kernels()

    def devices(self) -> list[Device]:
        raise Unavailable("the library libgone is not installed", 'pip install "gone[all]"')


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAL_BACKEND", raising=False)


def test_a_device_is_a_value() -> None:
    with Fake("pair", count=2).registered():
        first, second = hal.device("pair:0"), hal.device("pair", 1)
        assert (first.type, first.index, str(first)) == ("pair", 0, "pair:0")
        assert (second.type, second.index, repr(second)) == ("pair", 1, "device('pair:1')")
        assert first == hal.device("pair") == hal.device("pair:0")
        assert first != second
        assert len({first, second, hal.device("pair:1")}) == 2
        assert pickle.loads(pickle.dumps(second)) is second
        assert isinstance(first, hal.device)
    cpu = hal.device("cpu")
    assert (str(cpu), cpu.index, cpu == hal.device("cpu:0")) == ("cpu", 0, True)


def test_a_device_is_a_context() -> None:
    with Fake("ctx").registered(), hal.device("ctx") as device:
        assert hal.zeros(2).device is device
        with hal.device("cpu"):
            assert hal.zeros(2).device.type == "cpu"
        assert hal.tensor([1.0]).device is device
    assert hal.zeros(2).device.type == "cpu"


def test_a_context_holds_for_its_thread_alone() -> None:
    seen = []
    with Fake("ctx").registered(), hal.device("ctx"):
        thread = threading.Thread(target=lambda: seen.append(default_device().type))
        thread.start()
        thread.join()
    assert seen == ["cpu"]


@pytest.mark.parametrize(
    ("value", "name"), [("pair", "pair:0"), ("pair:1", "pair:1"), ("pair:1,cpu", "pair:1"), (" cpu ", "cpu")]
)
def test_hal_backend_is_the_default(monkeypatch: pytest.MonkeyPatch, value: str, name: str) -> None:
    with Fake("pair", count=2).registered():
        monkeypatch.setenv("HAL_BACKEND", value)
        assert str(hal.zeros(1).device) == name


def test_hal_backend_is_read_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hal.zeros(1).device.type == "cpu"
    monkeypatch.setenv("HAL_BACKEND", "fake")
    assert hal.zeros(1).device.type == "fake"


def test_a_list_allows_only_those(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "fake,fake")
    with pytest.raises(DeviceError, match="device 'cpu' is not allowed: HAL_BACKEND=fake,fake names only those"):
        hal.device("cpu")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cpuu", r"HAL_BACKEND=cpuu: there is no backend 'cpuu'; there are .*cpu.*did you mean cpu\?"),
        ("cpu:7", r"HAL_BACKEND=cpu:7: there is no device 'cpu:7'; backend 'cpu' has cpu"),
        ("gone", r"HAL_BACKEND=gone: device 'gone' was asked for, but the library libgone is not installed; "
                 r'pip install "gone\[all\]"'),
    ],
)  # fmt: skip
def test_an_impossible_choice_says_the_cure(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    hal.register(Gone)
    try:
        monkeypatch.setenv("HAL_BACKEND", value)
        with pytest.raises(DeviceError, match=message):
            hal.zeros(1)
    finally:
        hal.unregister("gone")


def test_unset_takes_the_best_available_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    better = Fake("better")
    better.priority = 50
    hal.register(Gone)
    try:
        assert hal.zeros(1).device.type == "cpu"
        with better.registered():
            assert hal.zeros(1).device.type == "better"
    finally:
        hal.unregister("gone")
    assert capfd.readouterr().err == ""


def test_device_count() -> None:
    with Fake("trio", count=3).registered():
        assert hal.device_count("trio") == 3
        assert len(hal.devices("trio")) == 3
    assert hal.device_count("trio") == 0
    assert hal.device_count() == len(hal.devices()) >= 1
