"""A backend that states its accuracy is held to what it states, where its own kernels run, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import hal
from hal import dtypes, ops
from hal.decision import decision_for
from hal.op import Op
from hal.plugin import DType, Kernel, Spec, Tolerance
from hal.testing.accuracy import judge, products_cost
from hal.testing.calls import call_of, check_call, stated_by
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


def test_a_statement_holds_for_what_is_decomposed_on_the_device(
    coarse: Coarse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Coarse, "tolerance", lambda self, op, dtype: Tolerance(float32=7, unit="norm", source=f"by {op.name}")
    )
    device = hal.device("coarse")
    call = call_of("softplus", 0, dtypes.float32, device)
    coarse.missing |= {"softplus"}
    hal.registry.changed()
    stated = stated_by(device, call.op, call.promoted, call.settings)
    assert decision_for(call.op, device, call.promoted, call.settings).how == "decomposed"
    assert stated is not None
    assert stated.source == "by softplus"


def test_in_terms_a_statement_comes_on_top_of_the_sum() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((3, 20), (20, 4)))
    specs = (Spec((3, 4), dtypes.float32),)
    got = ((a @ b) * np.float32(1 + 2.0**-12),)
    plain = judge(ops.matmul, (a, b), {}, got, specs)
    stated = judge(ops.matmul, (a, b), {}, got, specs, Tolerance(float32=2.0**12, unit="terms"))
    assert not plain.passed
    assert stated.passed
    assert stated.allowed == plain.allowed + 2.0**12


def test_gradients_may_be_off_by_four_times_what_is_stated(coarse: Coarse) -> None:
    device = hal.device("coarse")
    assert products_cost(device, ops.relu, dtypes.float32) == 4 * EIGHTH.float32
    assert products_cost(device, ops.matmul, dtypes.float32) == 0
    assert products_cost(hal.device("cpu"), ops.matmul, dtypes.float32) == 0
