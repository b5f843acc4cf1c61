"""What the pages on the plugins show runs where they are installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hal_onednn
import pytest

import hal

DOCS = Path(__file__).parents[2] / "docs" / "how-to"


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        pytest.param("use-onednn", rf"{hal_onednn.status().available} True\n", id="use-onednn"),
        pytest.param("run-in-spikes", r"0\.9\d+\nper input(.|\n)*64 time steps each(.|\n)*", id="run-in-spikes"),
    ],
)
def test_what_a_page_shows_runs(page: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    with hal.fallback("error"):
        for block in re.findall(r"^```py\n(.*?)^```$", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL):
            exec(compile(block, page, "exec"), names)
    assert names
    assert re.fullmatch(printed, capsys.readouterr().out)
