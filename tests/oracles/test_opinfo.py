"""Torch's own samples of its functions: hal in float32 beside torch in float64, and both gradients in float64.

What is judged how is said in `opinfo_map`, line by line; what hal does not have in `opinfo_absent`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import opinfo_samples as samples
import pytest
from opinfo_absent import ABSENT, reason
from opinfo_calls import REFUSED
from opinfo_map import LINES
from opinfo_tally import TALLY

import hal
from hal.errors import HalError
from nn import functional as F

pytest.importorskip("torch", reason="the oracle is torch: pip install 'hal-runtime[oracles]'")
pytest.importorskip("expecttest", reason="torch's samples need it: pip install 'hal-runtime[oracles]'")

CORE = 5934  # float32 samples that the project once set itself
FEW = 6  # samples of an entry, on the devices that are slow
LARGE = [  # entries with hundreds of samples: all of them only in the slow run
    "max_pool2d_with_indices_backward", "nn.functional.max_pool1d", "nn.functional.max_pool2d",
    "nn.functional.max_pool3d", "unique", "searchsorted", "linalg.vector_norm", "linspace:tensor_overload",
]  # fmt: skip
MANY = 60  # samples of these in the plain run
EVERY_LINE = [pytest.param(key, id=key) for key in LINES]
DEVICE_SHORT = {
    ("fake", "nextafter"): "computes by the float64 reference, whose neighbours are nearer",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def refused(key: str, error: Exception, device: str) -> str | None:
    """The known difference that an error of hal comes from, or None."""
    if re.search("has no float64", str(error)) and hal.float64 not in hal.device(device).backend.dtypes:
        return f"{device} has no float64"
    for why, (entry, pattern) in REFUSED.items():
        if entry in ("", key) and isinstance(error, HalError) and re.search(pattern, str(error)):
            return why
    return None


def check(key: str, device: str, few: int | None = None) -> None:
    """All samples of an entry, or so many of them, on a device."""
    line, info = LINES[key], samples.entries()[key]
    drawn = samples.drawn(info)
    wrong = []
    for i, sample in samples.chosen(drawn, few or len(drawn)):
        args, kwargs = samples.arguments(sample)
        why = line.absent(*args, **kwargs) or DEVICE_SHORT.get((device, key))
        if why:
            TALLY.left_out(device, key, i, why)
            continue
        try:
            verdicts = samples.compare(line, info, sample, device)
        except Exception as error:
            why = refused(key, error, device)
            if why is None:
                raise AssertionError(f"sample {i} of {key} on {device}: {_told(args, kwargs)}") from error
            TALLY.left_out(device, key, i, why)
            continue
        TALLY.judged(device, key, i, verdicts)
        wrong += [f"sample {i} {_told(args, kwargs)}: {v}" for v in verdicts if not v.passed]
    assert not wrong, f"{key} on {device}, {len(wrong)} over the limit:\n" + "\n".join(wrong[:5])


def _told(args: Any, kwargs: Any) -> str:
    def short(value: Any) -> Any:
        return f"{str(value.dtype)[6:]}{list(value.shape)}" if hasattr(value, "shape") else value

    return f"{samples.each(args, short)} {samples.each(kwargs, short)}"


@pytest.mark.parametrize("key", EVERY_LINE)
def test_the_cpu_agrees_with_torch_in_float64(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")
    check(key, "cpu", MANY if key in LARGE else None)


@pytest.mark.slow
@pytest.mark.parametrize("key", LARGE)
def test_the_cpu_agrees_with_torch_on_every_sample(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")
    check(key, "cpu")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The devices beside the CPU, or the one that `--device` names."""
    if "other_device" in metafunc.fixturenames:
        named = metafunc.config.getoption("--device", "")
        metafunc.parametrize("other_device", [named] if named else ["fake", "primitive", "template"])


@pytest.mark.slow
@pytest.mark.parametrize("key", EVERY_LINE)
def test_each_device_agrees_with_torch_in_float64(key: str, other_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if key not in samples.entries():
        pytest.skip("this version of torch has no such samples")
    monkeypatch.setenv("HAL_BACKEND", other_device)
    monkeypatch.setenv("HAL_FALLBACK", "allow")
    check(key, other_device, FEW)


@pytest.mark.parametrize("key", [key for key in LINES if not LINES[key].no_gradient])
def test_gradients_agree_with_torch(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")
    if not samples.entries()[key].supports_autograd:
        pytest.skip("needs a gradient of torch's to compare with")
    check_gradients(key, MANY if key in LARGE else None)


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in LARGE if "max_pool" in key and "backward" not in key])
def test_gradients_agree_with_torch_on_every_sample(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")
    check_gradients(key)


def check_gradients(key: str, few: int | None = None) -> None:
    """The gradients of all samples of an entry, or of so many of them."""
    line, info = LINES[key], samples.entries()[key]
    drawn = samples.drawn(info, requires_grad=True)
    wrong = []
    for i, sample in samples.chosen(drawn, few or len(drawn)):
        args, kwargs = samples.arguments(sample)
        if line.absent(*args, **kwargs):
            continue
        try:
            verdicts = samples.compare_gradients(line, info, sample)
        except Exception as error:
            if refused(key, error, "cpu") is None:
                raise AssertionError(f"sample {i} of {key}: {_told(args, kwargs)}") from error
            continue
        TALLY.judged("gradients", key, i, verdicts)
        wrong += [f"sample {i} {_told(args, kwargs)}: {v}" for v in verdicts if not v.passed]
    assert not wrong, f"{key}, {len(wrong)} gradients differ:\n" + "\n".join(wrong[:5])


# That the oracle sees: results that are wrong by little.

# fmt: off
WRONG: dict[str, Any] = {
    "exp":                      lambda x: hal.exp(x) * (1 + 2.0**-20),
    "sum":                      lambda x, *args, **kwargs: hal.sum(x, *args, **kwargs) * (1 + 2.0**-18),
    "matmul":                   lambda x, y: hal.matmul(x.to(hal.float64).bfloat16().float(), y),
    "softmax":                  lambda x, dim: hal.softmax(x, dim) + 2.0**-18,
    "nn.functional.layer_norm": lambda *args, eps=1e-5: F.layer_norm(*args, eps=eps * 1.01),
    "flip":                     lambda x, dims: x,
    "argmax":                   lambda x, *args, **kwargs: hal.argmax(x, *args, **kwargs).int(),
    "maximum":                  lambda x, y: hal.maximum(x, y).to(hal.float64),
}
# fmt: on


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_result_is_seen(key: str) -> None:
    line, info = replace(LINES[key], call=WRONG[key]), samples.entries()[key]
    verdicts = [v for s in samples.drawn(info) if s.input.ndim for v in samples.compare(line, info, s, "cpu")]
    assert any(not v.passed for v in verdicts)


def test_a_wrong_gradient_is_seen() -> None:
    line, info = replace(LINES["mul"], call=lambda x, y: x * y.detach()), samples.entries()["mul"]
    verdicts = [v for s in samples.drawn(info, requires_grad=True) for v in samples.compare_gradients(line, info, s)]
    assert any(not v.passed for v in verdicts)


# The account: every entry is a line or has a reason, and both are true.


def test_every_entry_is_a_line_or_has_a_reason() -> None:
    unknown = [key for key in samples.entries() if key not in LINES and reason(key) is None]
    assert not unknown, "torch has entries that are neither in opinfo_map nor in opinfo_absent"
    both = [key for key in LINES if reason(key)]
    assert not both, "entries that are said to be absent have a line"
    gone = [key for key in LINES if key not in samples.entries()]
    assert not gone, "lines without an entry of torch"


def test_each_reason_has_an_entry() -> None:
    keys = list(samples.entries())
    for why, names in ABSENT.items():
        for name in names.split():
            hit = [k for k in keys if k == name or (name.endswith("*") and k.startswith(name[:-1]))]
            assert hit, f"{name} is said to be absent ({why}), but torch has no such entry"


def test_the_lines_cover_the_core_list() -> None:
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, line in LINES.items():
            for sample in samples.drawn(samples.entries()[key]):
                args, kwargs = samples.arguments(sample)
                count += not line.absent(*args, **kwargs)
    assert count >= CORE, f"the lines cover {count} float32 samples"
