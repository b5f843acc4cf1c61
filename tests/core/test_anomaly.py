"""A NaN is caught at the operation and the line that made it, forward and backward."""

import re
from collections.abc import Callable
from typing import Any

import pytest

import hal
import nn
from hal import dispatch
from hal.errors import AnomalyError
from hal.recording import mode

HERE = re.escape(__file__)


def line_of(text: str) -> int:
    """Where in this file a line stands that has this text and the mark behind it."""
    with open(__file__, encoding="utf-8") as file:
        return next(i for i, line in enumerate(file, 1) if text in line and "# the line" in line)


def test_forward_names_the_op_the_line_and_what_it_was_given() -> None:
    x = hal.tensor([[4.0, 1.0], [2.0, -3.0]])
    with hal.detect_anomaly(), pytest.raises(AnomalyError) as caught:
        (x * 2).sqrt().sum()  # the line
    said = str(caught.value)
    assert said.startswith("sqrt made NaN in 1 of 4 elements, the first at (1, 1); called at ")
    assert re.search(rf"{HERE}:{line_of('(x * 2).sqrt()')}\b", said)
    assert "input 0: Spec((2, 2), float32) from -6 to 8" in said


def test_backward_names_the_recorded_op_and_its_line() -> None:
    x = hal.tensor([0.0, 1.0], requires_grad=True)
    with hal.detect_anomaly():
        y = (x.sqrt() * 0.0).sum()  # the line
        with pytest.raises(AnomalyError) as caught:
            y.backward()
    said = str(caught.value)
    assert re.search(rf"in the gradient of sqrt, which was called at {HERE}:{line_of('(x.sqrt() * 0.0)')}\b", said)


class _Root(nn.Module):
    def forward(self, x: hal.Tensor) -> hal.Tensor:
        return x.sqrt()


def test_the_module_is_named() -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.Identity(), _Root()))
    with hal.detect_anomaly(), pytest.raises(AnomalyError, match=r"sqrt made NaN .*, in 1\.1 _Root"):
        model(-hal.ones(2))


def test_a_nan_that_was_there_before_is_said_to_be() -> None:
    x = hal.tensor([1.0, float("nan")])
    with hal.detect_anomaly(), pytest.raises(AnomalyError, match=r"add made NaN(.|\n)*1 NaN: it was there before"):
        x + 1


INNOCENT: list[Callable[[], Any]] = [
    lambda: hal.full((3,), float("nan")),
    lambda: hal.tensor([float("inf")]) * 2,
    lambda: hal.nan_to_num(hal.tensor([float("nan")])),
    lambda: hal.tensor([float("nan")]).reshape(1, 1).isnan().any(),
    lambda: hal.softmax(hal.tensor([0.0, -float("inf")]), dim=0),
    lambda: hal.zeros(0).sqrt(),
    lambda: nn.Linear(3, 2)(hal.randn(4, 3)).sum().backward(),
]


@pytest.mark.parametrize("call", INNOCENT)
def test_what_makes_no_nan_passes(call: Callable[[], Any]) -> None:
    with hal.detect_anomaly():
        call()


def test_in_place() -> None:
    x = hal.tensor([-1.0, 4.0])
    with hal.detect_anomaly(), pytest.raises(AnomalyError, match="sqrt made NaN"):
        x.sqrt_()
    assert x.tolist() == [-1.0, 4.0]


def test_what_is_compiled_runs_op_by_op() -> None:
    compiled = hal.compile(lambda x: x.log() * 2)
    assert compiled(hal.tensor([-1.0])).isnan().all()
    with hal.detect_anomaly(), pytest.raises(AnomalyError, match="log made NaN"):
        compiled(hal.tensor([-1.0]))


def test_nothing_is_left_behind() -> None:
    for check in (True, False):
        with hal.detect_anomaly(check_nan=check):
            assert mode.lines
            assert (dispatch.watch is not None) == check
        assert not mode.lines
        assert dispatch.watch is None
    assert hal.tensor([-1.0]).sqrt().isnan().all()
