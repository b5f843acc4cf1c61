"""Running ops: promotion, scalars, copies between devices, fallback and its report, and errors of kernels."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.errors import ConfigError, CopyError, DeviceError, DTypeError, FallbackError, SettingError
from hal.plugin import Backend, Buffer, Device, Kernels, Spec
from hal.testing.fake import Fake


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HAL_FALLBACK", "HAL_COPIES", "HAL_LOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HAL_BACKEND", "cpu")


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        (hal.float32, 2, hal.float32), (hal.float32, 2.5, hal.float32), (hal.int32, 2, hal.int32),
        (hal.int32, 2.5, hal.float32), (hal.float16, 1e3, hal.float16), (hal.int8, True, hal.int8),
        (hal.bool, 1, hal.int64), (hal.float64, 1, hal.float64), (hal.bfloat16, 0.5, hal.bfloat16),
    ],
)  # fmt: skip
def test_python_scalars_are_weakly_typed(a: hal.DType, b: float, dtype: hal.DType) -> None:
    assert (hal.ones(3, dtype=a) + b).dtype is dtype
    assert (b + hal.ones(3, dtype=a)).dtype is dtype


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        ("float32", "float64", "float64"), ("int8", "uint8", "int16"), ("int32", "float32", "float32"),
        ("uint32", "int32", "int64"), ("float16", "bfloat16", "float32"), ("bool", "uint8", "uint8"),
        ("int64", "float16", "float16"),
    ],
)  # fmt: skip
def test_tensors_promote_as_the_array_api_says(a: str, b: str, dtype: str) -> None:
    assert (hal.ones(2, dtype=a) + hal.ones(2, dtype=b)).dtype.name == dtype
    assert (hal.ones(2, dtype=b) * hal.ones(2, dtype=a)).dtype.name == dtype


def test_signed_zeros_are_not_mixed_up() -> None:
    x = hal.tensor([1.0])
    assert (1.0 / (x * 0.0)).item() == np.inf
    assert (1.0 / (x * -0.0)).item() == -np.inf
    assert (1.0 / (x * 0.0)).item() == np.inf


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ops.softmax(x, dims=1), SettingError, r"softmax has no setting dims; it takes .*\(x, axis=-1\)"),
        (lambda x: ops.reshape(x), SettingError, r"reshape needs shape=; it takes reshape\(x, shape=\)"),
        (lambda x: ops.exp(x, x), SettingError, r"exp got 2 inputs; it takes exp\(x\)"),
        (lambda x: ops.add(x, "one"), DTypeError, r"add takes tensors and Python numbers by position, got str"),
        (lambda x: ops.exp(), SettingError, r"exp got 0 inputs; it takes exp\(x\)"),
        (lambda x: ops.add(1, 2), DTypeError, r"add needs at least one tensor"),
        (lambda x: ops.sum(x, axis={"a": 1}), SettingError, r"sum: setting axis= must be a plain value, got dict"),
    ],
)  # fmt: skip
def test_bad_calls_say_what_was_needed(call: Callable[..., Any], error: type[Exception], message: str) -> None:
    with pytest.raises((error, TypeError), match=message):
        call(hal.ones(2, 3))


def test_lists_as_settings_become_tuples() -> None:
    assert ops.reshape(hal.ones(2, 3), shape=[3, 2]).shape == (3, 2)


def test_inputs_on_two_devices_are_brought_together_and_counted() -> None:
    with Fake("far").registered(), hal.placement_report() as report:
        x = hal.ones(4, device="far")
        y = hal.ones(4)
        assert (x + y).device.type == "far"  # placed on purpose, so it pulls
        assert (y + x).device.type == "far"
        assert (x * 2).device.type == "far"
    entry, other = report.copies.values()
    assert (entry.what, entry.source, entry.target, entry.count, entry.bytes) == ("add", "cpu", "far", 1, 16)
    assert "test_dispatch.py" in entry.line
    assert other.line != entry.line


def test_zero_dimensional_tensors_do_not_pull() -> None:
    with Fake("far").registered():
        assert (hal.ones(4) * hal.tensor(2.0, device="far")).device.type == "cpu"


def test_copies_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with Fake("far").registered():
        x = hal.ones(4, device="far")
        y = hal.ones(4)
        with hal.copies("error"), pytest.raises(CopyError) as caught:
            x + y
        text = str(caught.value)
        assert "a (input 0) is on far, put there at" in text
        assert "b (input 1) is on cpu, put there at" in text
        assert text.count("test_dispatch.py:") == 2
        assert ".to('far')" in text
        monkeypatch.setenv("HAL_COPIES", "error")
        with pytest.raises(CopyError):
            x + y
        with hal.copies("allow"):
            x + y


def test_gradients_flow_back_through_copies() -> None:
    with Fake("far").registered():
        x = hal.ones(4, device="far", requires_grad=True)
        y = hal.ones(4, requires_grad=True)
        (x * y).sum().backward()
        assert x.grad is not None
        assert y.grad is not None
        assert (x.grad.device.type, y.grad.device.type) == ("far", "cpu")


def test_a_missing_op_falls_back_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with Fake("poor", missing=["exp"]).registered(), hal.placement_report() as report:
        x = hal.ones(4, device="poor", requires_grad=True)
        y = hal.exp(x)
        assert y.device.type == "poor"
        y.sum().backward()
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.cpu().numpy(), np.e, rtol=1e-6)
    (entry,) = report.fallbacks.values()
    assert (entry.what, entry.source, entry.target, entry.count, entry.bytes) == ("exp", "poor", "cpu", 1, 32)
    assert entry.reason == "poor has no kernel for exp"
    assert "test_dispatch.py" in entry.line
    assert "1 calls of 1 ops fell back (poor -> cpu, 32 bytes copied): exp" in capsys.readouterr().err
    assert json.loads(report.to_json())["fallbacks"][0]["what"] == "exp"
    assert "exp" in str(report)


def test_a_missing_op_is_decomposed_where_its_parts_are() -> None:
    with Fake("parts", missing=["softmax"]).registered(), hal.placement_report() as report:
        x = hal.tensor([[1.0, 2.0]], device="parts")
        np.testing.assert_allclose(hal.ops.softmax(x).cpu().numpy(), [[0.26894143, 0.7310586]], rtol=1e-6)
    assert not report.fallbacks


def test_the_policy_can_forbid_or_allow_fallbacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fake("poor", missing=["exp", "log"]).registered():
        x = hal.ones(4, device="poor")
        with (
            hal.fallback("error"),
            pytest.raises(FallbackError, match=r"exp would fall back from poor to cpu.*\.to\('cpu'\)"),
        ):
            hal.exp(x)
        with hal.fallback(["exp"]):
            hal.exp(x)
            with pytest.raises(FallbackError, match="log would fall back"):
                hal.log(x)
        monkeypatch.setenv("HAL_FALLBACK", "error")
        with pytest.raises(FallbackError):
            hal.exp(x)
        monkeypatch.setenv("HAL_FALLBACK", "allow")
        capsys.readouterr()
        with hal.placement_report() as report:
            hal.exp(x)
        assert len(report.fallbacks) == 1
        assert capsys.readouterr().err == ""


def test_a_policy_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"hal.fallback takes warn, allow, error, got 'eror'; did you mean error\?"):
        hal.fallback("eror")
    monkeypatch.setenv("HAL_COPIES", "never")
    with (
        Fake("far").registered(),
        pytest.raises(ConfigError, match="HAL_COPIES must be one of allow, error, got 'never'"),
    ):
        hal.ones(2) + hal.ones(2, device="far")


def test_a_dtype_that_the_device_lacks_is_declined() -> None:
    with Fake("poor").registered(), pytest.raises(DTypeError, match="device poor has no float64; it has bfloat16"):
        hal.zeros(2, dtype=hal.float64, device="poor")


def test_log_placement_speaks_as_it_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HAL_LOG", "placement,copies")
    with Fake("poor", missing=["exp"]).registered():
        hal.exp(hal.ones(4, device="poor")) + hal.ones(4)
    said = capsys.readouterr().err
    assert "hal: exp fell back from poor to cpu: poor has no kernel for exp" in said
    assert "hal: copied 16 B from cpu to poor" in said


def test_a_failing_kernel_is_named_with_what_it_was_given() -> None:
    class Broken(Backend):
        name = "broken"
        kernels = Kernels()

        def devices(self) -> list[Device]:
            return [Device(self)]

        def upload(self, array: Buffer, device: Device) -> Buffer:
            return array.copy()

        def download(self, buffer: Buffer, spec: Spec) -> Buffer:
            return buffer.copy()

    @Broken.kernels.register(ops.exp)
    def exp(x: Buffer) -> Buffer:
        raise RuntimeError("unit 3 is on fire")

    hal.register(Broken)
    try:
        with pytest.raises(
            DeviceError,
            match=r"kernel for exp failed on broken: RuntimeError\('unit 3 is on fire'\); "
            r"it was given Spec\(\(2,\), float32\)",
        ):
            hal.exp(hal.tensor([1.0, 2.0], device="broken"))
    finally:
        hal.unregister("broken")


def test_a_device_that_only_infers_refuses_to_record() -> None:
    with Fake("infer", training=False).registered():
        w = hal.ones(2, device="infer", requires_grad=True)
        with pytest.raises(DeviceError, match="mul on infer would record a gradient, but infer devices only infer"):
            w * 2.0
        with hal.no_grad():
            assert (w * 2.0).device.type == "infer"


def test_a_device_that_fails_says_after_what() -> None:
    with Fake("frail", fail_after=2).registered():
        x = hal.tensor([1.0], device="frail")
        x = x + x
        x = x + x
        with pytest.raises(DeviceError, match="frail failed at add: it was declared to fail after 2 calls"):
            x + x


def test_memory_of_a_fake_device_is_counted_and_freed() -> None:
    with Fake("tiny", memory=1000).registered():
        x = hal.tensor(np.zeros(200, np.float32), device="tiny")
        with pytest.raises(
            hal.errors.OutOfMemoryError, match="tiny has 1,000 bytes of memory, 800 in use by 1 buffers"
        ):
            x + x
        del x
        hal.tensor(np.zeros(250, np.float32), device="tiny")
