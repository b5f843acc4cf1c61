"""What HAL promises of every device, asked of this one. `hal conform spiking` shows the same as a table."""

from __future__ import annotations

import pytest
from hal.testing.report import Report
from hal.testing.suite import run


@pytest.fixture(scope="module")
def report() -> Report:
    return run("spiking", in_process=True)  # here, so that the plugin need not be installed


LAYERS = (  # those whose neurons round to rates
    "ReLU", "ReLU6", "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
    "TransformerEncoderLayer",
)  # fmt: skip


def test_spiking_keeps_its_promises(report: Report) -> None:
    failures = [f"{found.id}: {found.outcome.detail}\n    {report.rerun(found)}" for found in report.failures]
    assert report.passed, "\n".join(failures) or "the suite found nothing to run"


def test_neurons_are_judged_by_the_accuracy_that_the_device_states(report: Report) -> None:
    judged = [r.outcome for r in report.results if r.op == "relu" and r.outcome.status == "native" and r.outcome.error]
    assert judged
    assert {outcome.source for outcome in judged} == {"rates of spikes in 64 steps: half a spike"}
    assert max(outcome.error for outcome in judged) > 1000, "nothing as coarse as a rate was measured"


def test_only_the_rounding_of_whole_layers_is_excused(report: Report) -> None:
    excused = {r.id for r in report.results if r.known}
    assert excused == {f"nn/layer/{layer}" for layer in LAYERS}


def test_what_has_no_kernel_falls_back_in_the_open(report: Report) -> None:
    outcomes = {r.op: r.outcome for r in report.results if r.dtype == "float32" and r.level == "primitives"}
    assert outcomes["exp"].status == "fallback"
    assert outcomes["exp"].reason == "spiking has no kernel for exp"
    assert outcomes["exp"].bytes > 0
