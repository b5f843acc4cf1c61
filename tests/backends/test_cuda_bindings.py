"""What hal_cuda calls of CuPy, nvmath-python and cuDNN's front end, without a GPU: every call exists as it is made.

Kernels are compiled, messages read, graphs described. That the calls do what they should is seen on a GPU alone.
"""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import pytest

from hal.codegen.dialect import CUDA
from hal.codegen.kernels.layout import row_strides
from hal.plugin import Unavailable
from hal_cuda import cublaslt_driver, cudnn_driver, discovery
from hal_cuda.driver import Convolution, Failure, Layout, Refused

pytestmark = pytest.mark.oracle
pytest.importorskip("cupy_backends", reason="needs CuPy: pip install cupy-cuda13x")
driver_api = pytest.importorskip("cupy_backends.cuda.api.driver")
runtime_api = pytest.importorskip("cupy_backends.cuda.api.runtime")
nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
cupy_driver = pytest.importorskip("hal_cuda.cupy_driver")
cublasLt = pytest.importorskip("nvmath.bindings.cublasLt", reason="needs nvmath: pip install nvmath-python")
cudnn = pytest.importorskip("cudnn", reason="needs its front end: pip install --no-deps nvidia-cudnn-frontend")

TEXT = (
    "HAL_KERNEL twice(HAL_GLOBAL f32 *p, const i64 n) { for (i64 i = HAL_INDEX; i < n; i += HAL_TOTAL) p[i] *= 2; }\n"
)
DRIVERS: list[tuple[Any, dict[str, Any], int]] = [  # with what they call their modules, and how much of these, at least
    (cupy_driver, {"_runtime": runtime_api, "_driver": driver_api, "nvrtc": nvrtc}, 26),
    (cublaslt_driver, {"library": cublasLt, "cublasLt": cublasLt}, 13),
]


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


def calls(driver: Any, modules: dict[str, Any]) -> list[tuple[str, str, int | None]]:
    """Module, function and number of arguments of each call that a driver makes; None where it is open."""
    found = []
    tree = ast.parse(inspect.getsource(driver))

    def named(node: ast.expr) -> tuple[str, str] | None:
        if not isinstance(node, ast.Attribute):
            return None
        owner = node.value
        module = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
        return (module, node.attr) if module in modules else None

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


@pytest.mark.parametrize(("driver", "modules", "least"), DRIVERS, ids=["CuPy", "cuBLASLt"])
def test_every_call_exists_and_takes_so_many_arguments(driver: Any, modules: dict[str, Any], least: int) -> None:
    seen: list[Any] = calls(driver, modules)
    assert len({name for _, name, _ in seen}) >= least
    for module, name, count in seen:
        function = getattr(modules[module], name, None)
        assert function is not None, f"{module}.{name}"
        said = re.match(rf"{name}\((.*?)\)", function.__doc__ or "")
        if count is None or said is None:
            continue
        parameters = [p for p in said[1].split(",") if p.strip()]
        needed = sum("=" not in p for p in parameters)
        assert needed <= count <= len(parameters), f"{module}.{name}{said[0]} is given {count} arguments"


def test_attributes_of_products_are_those_of_cublaslt() -> None:
    named = {k.arg for n in ast.walk(ast.parse(inspect.getsource(cublaslt_driver))) if isinstance(n, ast.Call)
             for k in n.keywords if k.arg is not None and k.arg.isupper()}  # fmt: skip
    named |= {f"MIN_ALIGNMENT_{x}_BYTES" for x in "ABCD"}
    known = {a.name for kind in ("MatmulDesc", "MatrixLayout", "MatmulPreference")
             for a in getattr(cublasLt, f"{kind}Attribute")}  # fmt: skip
    assert len(named) > 10
    assert named <= known
    assert (cublasLt.Epilogue.BIAS, cublasLt.ReductionScheme.COMPUTE_TYPE) == (4, 2)
    assert cublasLt.matmul_heuristic_result_dtype.itemsize == 8 * cublaslt_driver.RESULT
    assert cublasLt.matmul_heuristic_result_dtype.fields["algo"][1] == 0


# cuDNN's front end.


def layout(*sizes: int) -> Layout:
    """A tensor whose elements lie row by row."""
    return Layout(sizes, row_strides(sizes))


NODES = {"y": ("CONV_FPROP", {"image": 1, "weight": 2}), "x": ("CONV_DGRAD", {"loss": 3, "filter": 2}),
         "w": ("CONV_WGRAD", {"image": 1, "loss": 3})}  # fmt: skip


@pytest.mark.parametrize(("made", "bias"), [("y", False), ("y", True), ("x", False), ("w", False)])
def test_a_graph_says_what_was_asked_for(made: str, bias: bool) -> None:
    wanted = Convolution(
        made, "float16", layout(2, 6, 9, 8), layout(4, 3, 3, 2), layout(2, 4, 5, 9), (1, 2), (2, 1), (1, 3), bias
    )
    graph = cudnn_driver.described(wanted)
    node, *added = graph.nodes
    kind, inputs = NODES[made]
    assert node.node_type.name == kind
    assert {name: x.uid for name, x in node.inputs.items() if x is not None} == inputs
    given = {name: list(node.params[name]) for name in ("pre_padding", "post_padding", "stride", "dilation")}
    assert given == {"pre_padding": [1, 2], "post_padding": [1, 2], "stride": [2, 1], "dilation": [1, 3]}
    assert len(added) == bias
    if bias:
        assert [t.uid for t in graph.get_inputs()] == [1, 2, 4]
        assert next(t for t in graph.get_inputs() if t.uid == 4).dim == [1, 4, 1, 1]
    (out,) = graph.get_outputs()
    assert (out.uid, tuple(out.dim), tuple(out.stride)) == (cudnn_driver.NUMBERS[made], *wanted.result)
    assert {t.data_type for t in [*graph.get_inputs(), out]} == {cudnn.data_type.HALF}


def test_notes_about_engines_are_known_to_the_front_end() -> None:
    for name in (*cudnn_driver.NEVER, *cudnn_driver.INEXACT):
        assert getattr(cudnn.numerical_note, name).name == name
    transformed = {n for n in dir(cudnn.numerical_note) if n.startswith(("WINOGRAD", "FFT"))}
    assert transformed <= set(cudnn_driver.INEXACT)


def test_a_machine_without_cudnn_declines_to_plan() -> None:
    images, weights = layout(1, 2, 4, 4), layout(2, 2, 1, 1)
    wanted = Convolution("y", "float32", images, weights, images, (0, 0), (1, 1), (1, 1))
    if cudnn_driver.version() and runtime_api.driverGetVersion() > 0:
        assert cudnn_driver.CuDNN(0).planned(wanted)[1] >= 0
        return
    with pytest.raises(Refused):
        cudnn_driver.planned(wanted)
