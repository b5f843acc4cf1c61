"""The suite as a pytest plugin: `pytest --pyargs hal.testing --hal-device NAME`, from any folder.

Without `--hal-device` it collects nothing and starts no device.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SUITE = Path(__file__).with_name("test_conformance.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--hal-device`, `--hal-level` and `--hal-op`."""
    group = parser.getgroup("hal", "conformance of hal's devices")
    group.addoption("--hal-device", metavar="NAME", help="run hal's conformance suite on this device")
    group.addoption("--hal-level", metavar="LEVEL", action="append", help="only this level; may be given several times")
    group.addoption("--hal-op", metavar="OP", action="append", help="only cases about this op")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without a device there is nothing to collect in the suite's own module."""
    return True if collection_path == SUITE and not config.getoption("--hal-device") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case of the device."""
    if Path(str(metafunc.module.__file__)) != SUITE or "hal_case" not in metafunc.fixturenames:
        return
    from hal.testing.suite import listed

    device = metafunc.config.getoption("--hal-device")
    levels, ops = metafunc.config.getoption("--hal-level"), metafunc.config.getoption("--hal-op")
    found = [
        case.id
        for level, cases in listed(device).items()
        for case in cases
        if (not levels or level in levels) and (not ops or case.op in ops)
    ]
    metafunc.parametrize("hal_case", found, ids=found)
