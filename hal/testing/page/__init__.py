"""A report of the suite as one HTML page that needs no network: matrix, histograms, fallbacks, certificate, facts."""

from __future__ import annotations

from importlib.resources import files

from hal.testing.page.charts import histograms, legend, levels_table, strip
from hal.testing.page.markup import Markup, section, tag
from hal.testing.page.matrix import matrix
from hal.testing.page.tables import certificate, facts, failures, fallbacks
from hal.testing.report import Report


def page(report: Report) -> str:
    """The page. It follows the reader's choice of light or dark, and can be printed."""
    ours = files(__package__)
    style = Markup(ours.joinpath("style.css").read_text(encoding="utf-8"))
    script = Markup(ours.joinpath("script.js").read_text(encoding="utf-8"))
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"{report.device} {_verdict(report)}"),
        tag("style", style),
    )
    main = tag(
        "main",
        _head(report),
        failures(report),
        section("Levels", tag("p", "What was tried, in this order."), levels_table(report)),
        matrix(report),
        histograms(report),
        fallbacks(report),
        certificate(report),
        facts(report),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', main, tag('script', script)), lang='en')}\n"


def _verdict(report: Report) -> str:
    return "conforms" if report.passed else "does not conform"


def _head(report: Report) -> Markup:
    when = report.started.replace("T", " ").replace("+00:00", " UTC")
    about = [f"{len(report.results):,} cases in {report.seconds:.0f} s", when, f"hal {report.versions.get('hal', '')}"]
    about += [f"only {kind} {', '.join(names)}" for kind, names in report.chosen.items()]
    verdict = tag("span", _verdict(report), cls="good" if report.passed else "bad")
    return tag(
        "header",
        tag("p", "hal conformance", cls="over"),
        tag("h1", report.device, " ", verdict),
        tag("p", ", ".join(filter(None, about)), cls="about"),
        strip(report.counts, "whole"),
        legend(report.counts),
    )
