"""What HAL promises of every device, asked of template. `hal conform template` shows the same as a table."""

from hal.testing.suite import run


def test_template_keeps_its_promises() -> None:
    report = run("template")
    failures = [f"{found.id}: {found.outcome.detail}\n    {report.rerun(found)}" for found in report.failures]
    assert report.passed, "\n".join(failures) or "the suite found nothing to run"
