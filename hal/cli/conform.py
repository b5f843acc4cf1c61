"""`hal conform`: what a device does right, what wrong, and what still falls back; runs of the suite compared."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hal.cli.console import print_paragraph, print_table
from hal.errors import DataError

if TYPE_CHECKING:
    from hal.testing.report import Report, Result

COLOURS = {
    "native": "green", "decomposed": "cyan", "fallback": "yellow", "declined": "bright_black", "wrong": "red",
    "crash": "magenta", "not run": "bright_black",
}  # fmt: skip
SHOWN = 20  # failures, and ops that fall back, that are listed
NEAREST = 5  # entries of the certificate
SHOW_EVERY = 0.1  # seconds between looks at the progress


@click.command()
@click.argument("device", required=False)
@click.option("--level", "levels", multiple=True, help="Only this level; may be given several times.")
@click.option("--op", "ops", multiple=True, help="Only cases about this op; may be given several times.")
@click.option("--case", "cases", multiple=True, help="Only this case, or those that fit a pattern with *.")
@click.option("--list", "listing", is_flag=True, help="List the cases without running them.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as JSON.")
@click.option("--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it as a page.")
@click.option("--compare", nargs=2, type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
              help="Compare two JSON reports, the older one first.")  # fmt: skip
@click.option("--register", multiple=True, metavar="MODULE:ATTRIBUTE", help="Register a device first.")
@click.option("--in-process", is_flag=True, help="Run the cases in this process, for a debugger.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=120.0, show_default=True,
              help="Seconds for a case, after which it counts as a crash.")  # fmt: skip
@click.option("--self-test", "testing_itself", is_flag=True, help="Test the suite: it must find every planted fault.")
@click.option("--fault", "faults", multiple=True, help="With --self-test: only this planted fault.")
@click.option("--quiet", is_flag=True, help="No progress.")
def conform(
    device: str | None, levels: tuple[str, ...], ops: tuple[str, ...], cases: tuple[str, ...], listing: bool,
    json_file: Path | None, html_file: Path | None, compare: tuple[Path, Path] | None, register: tuple[str, ...],
    in_process: bool, timeout: float, testing_itself: bool, faults: tuple[str, ...], quiet: bool,
) -> None:  # fmt: skip
    """Run the conformance suite on DEVICE. Exit code 1 if anything is wrong or crashed.

    Every op of the table, in every dtype that the device declares, against the float64 references; gradients, views,
    random bits, memory, errors and more. It ends in an accuracy certificate.
    """
    if compare is not None:
        _compare(*compare)
        return
    if testing_itself:
        _self_test(faults, json_file, quiet)
        return
    if device is None:
        raise click.UsageError("conform needs a device, such as `hal conform cpu`; `hal devices` lists them")
    from hal.testing import suite

    if listing:
        _list(device, register, levels)
        return
    progress = None if quiet else _Progress()
    try:
        report = suite.run(
            device, levels or None, ops or None, in_process, progress, cases=cases or None, register=register,
            timeout=timeout,
        )  # fmt: skip
    finally:
        if progress is not None:
            progress.end()
    if json_file is not None:
        _write(json_file, report.to_json())
    if html_file is not None:
        from hal.testing.page import page

        _write(html_file, page(report))
    _summarise(report)
    for path in (json_file, html_file):
        if path is not None:
            click.echo(f"written: {path}")
    if not report.passed:
        sys.exit(1)


class _Progress:
    """One line on a terminal that says what runs, and a line for each level elsewhere; on stderr."""

    def __init__(self) -> None:
        self.level = ""
        self.shown = 0.0
        self.bad = 0
        self.live = sys.stderr.isatty()

    def __call__(self, level: str, done: int, total: int, result: Result | None) -> None:
        self.bad += result is not None and result.outcome.failed
        if level != self.level and not self.live:
            click.echo(f"{level}: {total:,} cases", err=True)
        now = time.monotonic()
        if self.live and (now - self.shown > SHOW_EVERY or done == total):
            self.shown = now
            bad = f", {self.bad} failed" if self.bad else ""
            click.echo(f"\r\x1b[K{level}: {done:,} of {total:,}{bad}", err=True, nl=False)
        self.level = level

    def end(self) -> None:
        """Take the line away."""
        if self.live:
            click.echo("\r\x1b[K", err=True, nl=False)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _list(device: str, register: tuple[str, ...], levels: tuple[str, ...]) -> None:
    from hal.testing import suite

    for found in suite.listed(device, register, levels).values():
        for case in found:
            click.echo(case.id)


def _summarise(report: Report) -> None:
    from hal.testing.report import count

    statuses = [s for s, n in report.counts.items() if n]
    rows = []
    left_out = {n.level: n.count for n in report.not_run}
    by_level = report.by_level()
    for level in dict.fromkeys([*by_level, *left_out]):
        counts = count(by_level.get(level, [])) | {"not run": left_out.get(level, 0)}
        rows.append([level, *(f"{counts[s]:,}" if counts[s] else "" for s in statuses)])
    print_table(["level", *statuses], rows, align="<" + ">" * len(statuses))
    click.echo()
    _list_failures(report)
    _list_fallbacks(report)
    _list_worst(report)
    shown = ", ".join(click.style(f"{n:,} {s}", fg=COLOURS[s]) for s, n in report.counts.items() if n)
    verdict = "conforms" if report.passed else "does not conform"
    click.echo(f"{click.style(report.device, bold=True)} {verdict}: {shown}; {report.seconds:.0f} s")


def _list_failures(report: Report) -> None:
    groups = report.failure_groups()
    for result, *others in groups[:SHOWN]:
        more = f", and {len(others):,} more of this op and dtype" if others else ""
        click.echo(click.style(f"{result.status}: {result.id}", fg=COLOURS[result.status]) + more)
        print_paragraph("  " + result.outcome.detail.strip().splitlines()[0] if result.outcome.detail else "", "  ")
        click.echo(f"  again: {report.rerun(result)}")
    if len(groups) > SHOWN:
        click.echo(f"and {sum(map(len, groups[SHOWN:])):,} more failures; --json or --html has them all")
    for left_out in report.not_run:
        click.echo(f"not run: {left_out.count:,} cases of {left_out.level}: {left_out.reason}")
    if groups or report.not_run:
        click.echo()


def _list_fallbacks(report: Report) -> None:
    found = sorted({r.op for r in report.results if r.status == "fallback" and r.op})
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        print_paragraph(f"falls back in {len(found)} ops: {', '.join(found[:SHOWN])}{more}", "  ")
        click.echo()


def _list_worst(report: Report) -> None:
    """The entries of the certificate that use most of what they are allowed."""
    entries = [e for e in sorted(report.certificate(), key=lambda e: -e.share) if e.share][:NEAREST]
    if not entries:
        return
    rows = [[e.op, e.dtype, f"{e.error:.3g}", f"{e.allowed:.3g}", e.unit, e.source] for e in entries]
    print_table(["nearest to its limit", "", "error", "allowed", "unit", "table"], rows, align="<<>><<")
    click.echo()


def _compare(before: Path, after: Path) -> None:
    from hal.testing.compare import compare
    from hal.testing.report import Report

    reports = []
    for path in (before, after):
        try:
            reports.append(Report.from_json(path.read_text(encoding="utf-8")))
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: {error}; write one with `hal conform DEVICE --json FILE`") from None
    found = compare(*reports)
    click.echo(str(found))
    if found.regressions:
        sys.exit(1)


def _self_test(faults: tuple[str, ...], json_file: Path | None, quiet: bool) -> None:
    from hal.cli.self_test import end_progress, show_progress, show_self_test
    from hal.testing.self_test import self_test

    try:
        result = self_test(faults, None if quiet else show_progress)
    finally:
        end_progress()
    show_self_test(result)
    if json_file is not None:
        _write(json_file, json.dumps(result.as_dict(), indent=1) + "\n")
    if not result.passed:
        sys.exit(1)
