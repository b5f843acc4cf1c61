"""Two conformance reports compared: every way of getting worse is a regression, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hal.testing.case import STATUSES, Outcome, Status
from hal.testing.compare import compare
from hal.testing.report import NotRun, Report, Result


def result(
    status: Status = "native", i: str = "composites/exp/float32/0", error: float = 1.0, known: str = ""
) -> Result:
    level, op, dtype, _ = i.split("/")
    detail = "the answer is wrong" if status in ("wrong", "crash") else ""
    outcome = Outcome(status, error, 4.0, "ulp", "the table", ("0x0",), detail, error, reason="no kernel")
    return Result(i, level, outcome, op, dtype, 0.01, known)


def report(*results: Result, **given: Any) -> Report:
    return Report("chip", results=list(results), **given)


OTHER = result(i="composites/log/float32/0")


@pytest.mark.parametrize("before", STATUSES)
@pytest.mark.parametrize("after", STATUSES)
def test_a_worse_status_is_a_regression_and_a_better_one_is_none(before: Status, after: Status) -> None:
    found = compare(report(OTHER, result(before)), report(OTHER, result(after)))
    worse = STATUSES.index(after) > STATUSES.index(before)
    assert bool(found.regressions) == worse
    assert ("composites/exp/float32/0" in str(found)) == (before != after)
    assert "composites/log/float32/0" not in str(found)


def test_a_new_failure_says_what_is_wrong() -> None:
    found = compare(report(result()), report(result("wrong")))
    assert "the answer is wrong" in str(found)


@pytest.mark.parametrize(
    ("before", "after", "grown"),
    [(1.0, 1.0, False), (1.0, 1.1, False), (0.5, 0.6, False), (1.0, 3.0, True), (0.0, 3.5, True), (3.0, 1.0, False)],
)
def test_an_error_grows_beyond_noise(before: float, after: float, grown: bool) -> None:
    found = compare(report(result(error=before)), report(result(error=after)))
    assert bool(found.regressions) == grown
    assert ("exp" in str(found)) == grown


def test_a_case_that_is_gone_is_a_regression() -> None:
    found = compare(report(OTHER, result()), report(OTHER))
    assert found.regressions
    assert "composites/exp/float32/0" in str(found)
    left_out = compare(report(OTHER, result()), report(OTHER, not_run=[NotRun("composites", 1, "it crashed")]))
    assert left_out.regressions


def test_what_a_narrower_run_left_out_is_not_gone() -> None:
    found = compare(report(OTHER, result()), report(OTHER, chosen={"ops": ["log"]}))
    assert not found.regressions
    assert "float32/0" not in str(found)


def test_a_case_that_is_new_is_a_regression_only_if_it_fails() -> None:
    assert not compare(report(OTHER), report(OTHER, result())).regressions
    found = compare(report(OTHER), report(OTHER, result("crash")))
    assert found.regressions
    assert "composites/exp/float32/0" in str(found)


def test_a_report_is_no_different_from_what_its_json_says() -> None:
    whole = report(OTHER, result("fallback"), result("wrong", "composites/sin/float32/0", float("inf")))
    again = Report.from_json(whole.to_json())
    assert not compare(whole, again).regressions
    assert not compare(again, whole).regressions


def test_many_cases_of_one_op_are_told_once() -> None:
    names = [f"composites/exp/float32/{i}" for i in range(500)]
    found = compare(report(*(result(i=i) for i in names)), report(*(result("fallback", i) for i in names)))
    assert str(found).count("composites/exp/float32") <= 3
    assert "500" in str(found)


def test_the_devices_and_times_are_named() -> None:
    before, after = report(OTHER, started="2030-01-01"), report(OTHER, started="2031-01-01")
    said = str(compare(before, replace(after, device="otherchip")))
    assert "2030-01-01" in said
    assert "2031-01-01" in said
    assert "otherchip" in said
