"""A backend that states its accuracy is held to what it states, where its own kernels run, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import hal
from hal import dtypes, ops
from hal.op import Op
from hal.plugin import DType, Kernel, Spec, Tolerance
from hal.testing.calls import call_of, check_call
from hal.testing.case import Outcome
from hal.testing.fake import Fake

EIGHTH = Tolerance(float32=2.0**21 * 1.001, unit="norm", source="three bits of everything")  # 1/8 in units of 2^-24


class Coarse(Fake):
    """A device whose rectifier has a resolution of a quarter of its largest result."""

    honest = True

    def prepare(
        self, op: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        def coarse(x: Any) -> Any:
            result = kernel.run(x)
            unit = result.contents.max(initial=0) / 4 or 1
            result.contents[...] = np.round(result.contents / unit) * unit
            return result

        return coarse if op.name == "relu" else kernel.run

    def tolerance(self, op: Op, dtype: DType) -> Tolerance | None:
        return EIGHTH if self.honest and op.name == "relu" and dtype is dtypes.float32 else None


@pytest.fixture
def coarse() -> Iterator[Coarse]:
    with Coarse("coarse", missing=("rnn_cell", "linear", "permute")).registered() as backend:
        assert isinstance(backend, Coarse)
        yield backend


def outcome(name: str, number: int) -> Outcome:
    device = hal.device("coarse")
    return check_call(device, call_of(name, number, dtypes.float32, device))


def test_what_is_stated_holds_instead_of_the_record(coarse: Coarse) -> None:
    found = outcome("relu", 4)
    assert found.status == "native", found.detail
    assert found.source == "three bits of everything"
    assert 0 < found.error <= found.allowed == EIGHTH.float32
    coarse.honest = False
    assert outcome("relu", 4).status == "wrong"


def test_a_statement_that_is_not_kept_is_wrong(coarse: Coarse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Coarse, "tolerance", lambda self, op, dtype: Tolerance(float32=2.0**18, unit="norm", source="x")
    )
    assert outcome("relu", 4).status == "wrong"


def rectifying() -> int:
    """The number of a sample of a recurrent cell that rectifies."""
    cells = enumerate(ops.rnn_cell.samples(np.random.default_rng(0)))
    return next(i for i, s in cells if s.settings.get("nonlinearity") == "relu" and all(x.size for x in s.inputs))


def test_a_composition_inherits_what_its_parts_state(coarse: Coarse) -> None:
    found = outcome("rnn_cell", rectifying())
    assert found.status == "fallback", found.detail  # its permute ran elsewhere, its relu did not
    assert "permute fell back" in found.reason
    assert "what its parts are allowed" in found.source


def test_a_composition_of_parts_that_state_nothing_is_held_to_its_record(coarse: Coarse) -> None:
    coarse.honest = False
    assert outcome("rnn_cell", rectifying()).status == "wrong"


def test_a_statement_says_nothing_about_what_another_device_computed(
    coarse: Coarse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Coarse, "tolerance", lambda self, op, dtype: EIGHTH)
    coarse.missing |= {"relu", "maximum", "where"}
    found = outcome("relu", 4)
    assert found.status == "fallback"
    assert found.allowed < 1
    assert found.source == ops.relu.tolerance.source
