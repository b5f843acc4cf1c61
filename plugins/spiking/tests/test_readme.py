"""What the README shows runs, and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import hal
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_programs_run_on_the_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(printed), hal.fallback("error"):
        for block in re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
            exec(compile(block, "README.md", "exec"), names)
    accuracy, table = printed.getvalue().split("\n", 1)
    assert float(accuracy) >= 0.9
    shown = re.search(r"^```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert shown is not None
    layers = [line.split("  ")[0].strip("-") for line in shown[1].splitlines()[:-1]]
    assert [line.split("  ")[0].strip("-") for line in table.splitlines()[: len(layers)]] == layers


def test_the_table_of_ops_names_what_there_is() -> None:
    from hal_spiking.all_kernels import kernels

    families = {re.sub(r"(_?pool)?\d?d?$", r"\1", name) for name in kernels}
    assert {name for name in families if f"`{name}" not in README} <= {"adaptive_avg_pool"}
