"""The HTML page of a conformance report says all that a reader needs, opens without a network, and is sound HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

import hal
from hal import dtypes, registry
from hal.testing import suite
from hal.testing.case import Outcome
from hal.testing.fake import Fake
from hal.testing.page import page
from hal.testing.report import NotRun, Report, Result

VOID = {"meta", "input", "br", "hr", "link", "img", "line", "rect", "col"}
BIN_COUNTS = (900, 60, 30, 5, 2, 1, 1, 1, 0)


class Reader(HTMLParser):
    """Reads a page: its words, the attributes of its tags, and what is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def titles(self) -> list[str]:
        return [value for _, name, value in self.attributes if name == "title"]


def result(status: str, i: str, **given: Any) -> Result:
    level, op, dtype, _ = i.split("/")
    return Result(i, level, Outcome(status, **given), op, dtype, 0.01)


@pytest.fixture
def report() -> Report:
    """One case of each outcome."""
    ulp = {"unit": "ulp", "source": "the table of elementary functions"}
    return Report(
        "chip:0", {"backend": "chips.Chip", "kernels": 3}, {"hal": "1.2.3", "chip-driver": "4.5.6"},
        {"composites": "what is made of others", "gradients": "slopes"},
        [
            result("native", "composites/exp/float32/0", error=1.25, allowed=3.0, ulps=1.25, histogram=BIN_COUNTS,
                   bits=("0x3f800000",), **ulp),
            result("decomposed", "composites/tanh/float16/0", error=0.4, allowed=2.0, ulps=0.4, **ulp),
            result("fallback", "composites/sort/int32/0", reason="chip has no kernel for sort", bytes=4096,
                   unit="exact", source="exact"),
            result("declined", "composites/erf/float64/0", detail="chip has no float64"),
            result("wrong", "composites/log/float32/7", error=19.5, allowed=3.0, ulps=19.5, detail="at (3,) got 1 < 2",
                   **ulp),
            result("crash", "composites/cos/bfloat16/1", detail="the process died of SIGSEGV"),
            result("wrong", "gradients/mul/float32/0", detail="the gradient is doubled"),
        ],
        [NotRun("gradients", 12, "the gradients were given up")],
        "2030-01-02T03:04:05+00:00", 12.0,
    )  # fmt: skip


def assert_sound(text: str) -> None:
    """Valid nesting, and nothing that is fetched from anywhere."""
    found = Reader(text)
    assert found.wrong == []
    assert found.open == []
    assert [a for a in found.attributes if a[1] in ("src", "href", "srcset", "action", "data")] == []
    assert re.findall(r"https?:|@import|url\(|fetch\(|XMLHttpRequest", text) == []


def test_the_page_is_sound_html_and_fetches_nothing(report: Report) -> None:
    text = page(report)
    assert text.lower().startswith("<!doctype html>")
    assert_sound(text)
    assert "prefers-color-scheme: dark" in text


def test_failures_come_first_and_say_how_to_run_them_again(report: Report) -> None:
    shown = Reader(page(report)).shown
    for failure in report.failures:
        assert failure.outcome.detail in shown
        assert report.rerun(failure) in shown
        assert shown.index(failure.outcome.detail) < shown.index("Ops and dtypes")


def test_it_names_the_device_the_verdict_counts_and_versions(report: Report) -> None:
    shown = Reader(page(report)).shown
    assert "chip:0 does not conform" in shown
    assert "2 wrong" in shown
    assert "12 not run" in shown
    assert "2030-01-02 03:04:05" in shown
    assert "4.5.6" in shown
    report.results = [r for r in report.results if not r.outcome.failed]
    shown = Reader(page(report)).shown
    assert "chip:0 conforms" in shown
    assert "does not" not in shown.partition("Ops and dtypes")[0]


def test_what_was_not_run_says_why(report: Report) -> None:
    assert "the gradients were given up" in Reader(page(report)).shown


def test_a_known_failure_says_its_reason(report: Report) -> None:
    report.results.append(
        Result(
            "composites/sin/float32/0", "composites", Outcome("declined"), "sin", "float32", 0, "errata 7 of the chip"
        )
    )
    assert "errata 7 of the chip" in Reader(page(report)).shown


def test_cells_have_the_colour_of_their_worst_case_and_tell_the_error(report: Report) -> None:
    for status, start in (
        ("native", "exp"), ("decomposed", "tanh"), ("fallback", "sort"), ("declined", "erf"), ("wrong", "log"),
        ("crash", "cos"),
    ):  # fmt: skip
        cell = re.search(rf'<td class="([^"]*)"[^>]*title="{start}[ ,][^"]*"', page(report))
        assert cell is not None
        assert status in cell[1].split()
    told = next(t for t in Reader(page(report)).titles if t.startswith("exp"))
    assert "1.25" in told
    assert "allowed 3" in told
    assert report.rerun(report.results[0]) in told


def test_gradients_have_a_column_of_their_own(report: Report) -> None:
    found = next(t for t in Reader(page(report)).titles if "gradient" in t and "mul" in t)
    assert "1 wrong" in found
    assert "the gradient is doubled" in found


def test_what_falls_back_says_why_and_how_much_it_moves(report: Report) -> None:
    shown = Reader(page(report)).shown.partition("What falls back")[2]
    assert "chip has no kernel for sort" in shown
    assert re.search(r"4(\.0|\.1|,096)? ?(KiB|KB|B)", shown)


def test_histograms_have_a_bar_for_each_bin(report: Report) -> None:
    text = page(report)
    assert 'viewBox="0 0' in text
    assert "900" in " ".join(Reader(text).words)


def test_what_others_wrote_is_shown_as_text(report: Report) -> None:
    evil = "</pre><script>alert('1')</script>\"><b>"
    report.results.append(result("wrong", "composites/sin/float32/0", detail=evil))
    report.results.append(result("fallback", "composites/tan/float32/0", reason=evil))
    report.facts["backend"] = evil
    report.versions["evil"] = evil
    report.device = "chip<0>"
    text = page(report)
    assert_sound(text)
    assert "<script>alert" not in text
    assert Reader(text).shown.count(" ".join(evil.split())) >= 4


def test_an_infinite_error_and_a_report_of_nothing_have_pages() -> None:
    one = result("wrong", "composites/sin/float32/0", error=float("inf"), allowed=4.0, ulps=float("inf"), unit="ulp")
    assert_sound(page(Report("chip", results=[one])))
    assert_sound(page(Report("chip")))


@pytest.fixture
def chip() -> Iterator[hal.Device]:
    """A device without kernels for two ops."""
    backend = Fake("pagechip", dtypes=dtypes.ALL, missing={"tanh", "sort"})
    registry.register(backend, backend.name)
    yield hal.Device(backend.devices()[0])
    registry.unregister(backend.name)


def test_a_real_run_has_a_row_for_each_op_and_is_the_same_page_from_its_json(chip: hal.Device) -> None:
    wanted = ["exp", "tanh", "sort", "matmul"]
    run = suite.run(chip, ["primitives", "composites", "gradients"], wanted, in_process=True)
    text = page(run)
    assert_sound(text)
    assert sorted(re.findall(r'data-op="(\w+)"', text)) == sorted(wanted)
    assert "pagechip has no kernel for tanh" in Reader(text).shown
    assert page(Report.from_json(run.to_json())).count("<svg") == text.count("<svg") >= 4
