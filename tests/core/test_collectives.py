"""Sums over devices: the same on each, in memory of their own, by a backend that can or by copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import hal
from hal.errors import DeviceError, GradientError, SettingError, ShapeError
from hal.testing.fake import Fake


def test_every_device_gets_the_sum_or_the_mean() -> None:
    with Fake("one", count=2).registered():
        places = ["cpu", "one:0", "one:1"]
        xs = [hal.tensor([1.0, 2.0], device=d) * (i + 1) for i, d in enumerate(places)]
        for op, wanted in (("sum", [6.0, 12.0]), ("mean", [2.0, 4.0])):
            found = hal.all_reduce(xs, op)
            assert [str(x.device.type) for x in found] == ["cpu", "one", "one"]
            assert all(x.tolist() == wanted for x in found)
        alone = hal.all_reduce(xs[:1])[0]
        alone += 1
        assert xs[0].tolist() == [1.0, 2.0]


def test_a_backend_may_sum_among_its_own_devices() -> None:
    class Ring(Fake):
        asked = 0

        def all_reduce(self, buffers: Sequence[Any], spec: Any, devices: Sequence[hal.Device]) -> list[Any]:
            self.asked += 1
            arrays = [self.download(b, spec) for b in buffers]
            return [self.upload(sum(arrays[1:], arrays[0]), d) for d in devices]

    with (ring := Ring("ring", count=2)).registered():
        xs = [hal.ones(3, device=f"ring:{i}") for i in range(2)]
        assert [x.tolist() for x in hal.all_reduce(xs)] == [[2, 2, 2]] * 2
        assert [x.device for x in hal.all_reduce(xs)] == [x.device for x in xs]
        assert ring.asked == 2
        assert hal.all_reduce([xs[0], hal.ones(3)])[1].tolist() == [2, 2, 2]
        assert ring.asked == 2  # not all of them are its own


def test_what_cannot_be_summed_is_refused() -> None:
    with Fake("one").registered():
        x, y = hal.ones(2), hal.ones(2, device="one")
        with pytest.raises(SettingError, match="'sum' and 'mean', got 'max'"):
            hal.all_reduce([x, y], "max")
        with pytest.raises(SettingError, match="at least one"):
            hal.all_reduce([])
        with pytest.raises(ShapeError, match=r"at 1"):
            hal.all_reduce([x, hal.ones(3, device="one")])
        with pytest.raises(DeviceError, match="one tensor for each device"):
            hal.all_reduce([x, x * 2])
        with pytest.raises(GradientError, match="detach"):
            hal.all_reduce([x, hal.ones(2, device="one", requires_grad=True) * 2])
