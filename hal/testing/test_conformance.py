"""The conformance suite, a test for each case: `pytest --pyargs hal.testing --hal-device NAME` collects it."""

from __future__ import annotations

from typing import Any

import pytest

from hal.testing.report import Report, Result
from hal.testing.suite import run


@pytest.fixture(scope="session")
def hal_report(request: pytest.FixtureRequest) -> dict[str, Result]:
    """The whole run, made at the first case: the suite knows best how to share and revive its worker."""
    option: Any = request.config.getoption
    items: list[Any] = request.session.items
    chosen = [item.callspec.params["hal_case"] for item in items if hasattr(item, "callspec")]
    report: Report = run(option("--hal-device"), option("--hal-level"), cases=chosen, register=option("--hal-register"))
    return {result.id: result for result in report.results}


def test_conformance(hal_case: str, hal_report: dict[str, Result]) -> None:
    """The case ended right; what it says if not is the suite's own report."""
    result = hal_report.get(hal_case)
    if result is None:
        pytest.fail("not run: a case that this one builds on failed", pytrace=False)
    if result.outcome.failed:
        pytest.fail(f"{result.status}: {result.outcome.detail}", pytrace=False)
    if result.status == "declined":
        pytest.skip(result.known or result.outcome.detail or "the device declares that it does not do this")
