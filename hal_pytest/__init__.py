"""The conformance suite as a pytest plugin: `pytest --pyargs hal.testing --hal-device NAME`, from any folder.

pytest imports this package in every environment that HAL is installed in, so it lies outside `hal` and imports nothing
of it until a device is named: without `--hal-device`, nothing is collected, and no one's tests take longer.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--hal-device`, and what narrows the suite."""
    group = parser.getgroup("hal", "conformance of a device of hal")
    group.addoption("--hal-device", metavar="NAME", help="run hal's conformance suite on this device")
    group.addoption("--hal-level", metavar="LEVEL", action="append", help="only this level; may be given several times")
    group.addoption("--hal-op", metavar="OP", action="append", help="only cases about this op; likewise")
    group.addoption(
        "--hal-register",
        metavar="MODULE:ATTRIBUTE",
        action="append",
        default=[],
        help="register a device first; likewise",
    )


@cache
def suite() -> Path:
    """The file that pytest collects the suite from."""
    found = find_spec("hal")  # which does not import it
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).with_name("testing") / "test_conformance.py"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without a device there is nothing to collect in the suite's own file."""
    if config.getoption("--hal-device") or collection_path.name != "test_conformance.py":
        return None
    return True if collection_path == suite() else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case of the device."""
    if not metafunc.config.getoption("--hal-device") or metafunc.definition.path != suite():
        return
    from hal.testing.suite import listed

    option: Any = metafunc.config.getoption
    levels, ops = option("--hal-level"), option("--hal-op")
    found = [
        case.id
        for cases in listed(option("--hal-device"), option("--hal-register"), levels).values()
        for case in cases
        if not ops or case.op in ops
    ]
    metafunc.parametrize("hal_case", found, ids=found)
