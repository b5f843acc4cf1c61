"""CuPy's side of the CUDA backend, as far as it goes without a GPU: compiling, messages, and that every call exists.

That the calls do what they should is seen on a GPU alone.
"""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import pytest

from hal.codegen.dialect import CUDA
from hal.plugin import Unavailable
from hal_cuda import discovery
from hal_cuda.driver import Failure, Refused

pytestmark = pytest.mark.oracle
pytest.importorskip("cupy_backends", reason="needs CuPy: pip install cupy-cuda13x")
driver_api = pytest.importorskip("cupy_backends.cuda.api.driver")
runtime_api = pytest.importorskip("cupy_backends.cuda.api.runtime")
nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
cupy_driver = pytest.importorskip("hal_cuda.cupy_driver")

TEXT = (
    "HAL_KERNEL twice(HAL_GLOBAL f32 *p, const i64 n) { for (i64 i = HAL_INDEX; i < n; i += HAL_TOTAL) p[i] *= 2; }\n"
)
MODULES = {"_runtime": runtime_api, "_driver": driver_api, "nvrtc": nvrtc}


@pytest.fixture(scope="module")
def driver() -> cupy_driver.CuPyDriver:
    return cupy_driver.CuPyDriver()


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
def test_sources_become_machine_code(driver: cupy_driver.CuPyDriver, architecture: str) -> None:
    code = driver.build(CUDA.prelude(TEXT) + TEXT, architecture)
    assert code[:4] == b"\x7fELF"
    assert b"twice" in code


def test_what_the_compiler_says_is_passed_on(driver: cupy_driver.CuPyDriver) -> None:
    with pytest.raises(Refused, match=r"kernel\.cu\(1\).*error"):
        driver.build("not a program", "sm_90")


def test_a_machine_without_a_gpu_is_told_why(driver: cupy_driver.CuPyDriver) -> None:
    there = runtime_api.driverGetVersion() > 0
    if there:
        assert driver.count() >= 0
        return
    with pytest.raises(Failure, match="cudaGetDeviceCount"):
        driver.count()
    with pytest.raises(Unavailable, match=r"no CUDA driver that works.*nvidia-smi"):
        discovery.count_devices(driver)


def calls() -> list[tuple[str, str, int | None]]:
    """Module, function and number of arguments of each call of CuPy's that the driver makes; None where it is open."""
    found = []
    tree = ast.parse(inspect.getsource(cupy_driver))

    def named(node: ast.expr) -> tuple[str, str] | None:
        if not isinstance(node, ast.Attribute):
            return None
        owner = node.value
        module = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
        return (module, node.attr) if module in MODULES else None

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := named(node)) is not None:
            found.append((*name, None))
        if not isinstance(node, ast.Call):
            continue
        direct = named(node.func)
        passed = named(node.args[1]) if len(node.args) > 1 else None
        arguments = node.args if direct else node.args[2:] if passed else []
        open_ = any(isinstance(a, ast.Starred) for a in arguments)
        if direct or passed:
            found.append((*(direct or passed), None if open_ else len(arguments)))
    return found


def test_every_call_exists_and_takes_so_many_arguments() -> None:
    seen: list[Any] = calls()
    assert len({name for _, name, _ in seen}) > 25
    for module, name, count in seen:
        function = getattr(MODULES[module], name, None)
        assert function is not None, f"{module}.{name}"
        said = re.match(rf"{name}\((.*?)\)", function.__doc__ or "")
        if count is None or said is None:
            continue
        parameters = [p for p in said[1].split(",") if p.strip()]
        least = sum("=" not in p for p in parameters)
        assert least <= count <= len(parameters), f"{module}.{name}{said[0]} is given {count} arguments"
