"""Convolutions by cuDNN, through NVIDIA's front end: each is planned once, and then run on raw addresses."""

# The front end is not installed where types are checked.
# pyright: reportMissingImports=false
from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hal_cuda.driver import Address, Convolution, Failure, Handle, Layout, Refused

KINDS = {"float16": "HALF", "bfloat16": "BFLOAT16", "float32": "FLOAT"}
WORKSPACE = 1 << 30  # bytes that a plan may ask for
NUMBERS = {"x": 1, "w": 2, "y": 3, "bias": 4}  # of the tensors of a graph

# Properties of engines that HAL does without. The same call gives the same bits in every run, and factors are rounded
# to nothing narrower than their dtype; float32 that is to be exact is not transformed (Winograd, FFT), which costs
# digits, and not rounded to TF32, which is what an engine on tensor cores does with it.
NEVER = ("NONDETERMINISTIC", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION")
INEXACT = ("TENSOR_CORE", "FFT", "WINOGRAD", "WINOGRAD_TILE_4x4", "WINOGRAD_TILE_6x6", "WINOGRAD_TILE_13x13")


@cache
def front_end() -> Any:
    """The front end; a library that Python's path leads to and it would not look for is loaded first."""
    folders = [sysconfig.get_path("purelib"), *sys.path]
    files = [f for folder in folders for f in sorted(Path(folder, "nvidia", "cudnn", "lib").glob("libcudnn.so.*"))]
    if files:
        ctypes.CDLL(str(files[0]))
    import cudnn

    return cudnn


def described(wanted: Convolution, **where: Any) -> Any:
    """The graph of a convolution, not planned yet.

    Args:
        where: what it is for: `handle`, or `device_property` of a GPU that is not there.
    """
    cudnn = front_end()
    kind, wide = getattr(cudnn.data_type, KINDS[wanted.dtype]), cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=kind, intermediate_data_type=wide, compute_data_type=wide, **where)

    def tensor(name: str, layout: Layout) -> Any:
        sizes, strides = map(list, layout)
        return graph.tensor(dim=sizes, stride=strides, data_type=kind, name=name, uid=NUMBERS[name])

    settings = {
        "pre_padding": list(wanted.padding), "post_padding": list(wanted.padding), "stride": list(wanted.stride),
        "dilation": list(wanted.dilation), "compute_data_type": wide,
    }  # fmt: skip
    given = {name: tensor(name, getattr(wanted, name)) for name in "xwy" if name != wanted.made}
    if wanted.made == "y":
        out = graph.conv_fprop(image=given["x"], weight=given["w"], **settings)
    elif wanted.made == "x":
        out = graph.conv_dgrad(loss=given["y"], filter=given["w"], **settings)
    else:
        out = graph.conv_wgrad(image=given["x"], loss=given["y"], **settings)
    sizes, strides = map(list, wanted.result)
    out.set_dim(sizes).set_stride(strides)
    if wanted.bias:
        ones = (1,) * (len(sizes) - 2)
        out = graph.bias(input=out, bias=tensor("bias", Layout((1, sizes[1], *ones), (sizes[1], 1, *ones))))
    out.set_output(True).set_data_type(kind).set_uid(NUMBERS[wanted.made])
    out.set_dim(sizes).set_stride(strides)
    return graph


def planned(wanted: Convolution, **where: Any) -> tuple[Any, int]:
    """The graph, ready to be run by the engine that cuDNN expects to be quickest, and the bytes of its workspace.

    Raises:
        Refused: cuDNN has no engine for it that may be used here.
    """
    cudnn = front_end()
    try:
        graph = described(wanted, **where)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        exact = wanted.dtype == "float32" and wanted.precision == "highest"
        notes = NEVER + INEXACT if exact else NEVER
        graph.deselect_numeric_notes([getattr(cudnn.numerical_note, name) for name in notes])
        graph.deselect_workspace_greater_than(WORKSPACE)
        graph.check_support()
        graph.build_plans()
        return graph, int(graph.get_workspace_size())
    except Exception as error:  # of several types, some of them RuntimeError itself
        raise Refused(" ".join(str(error).split())[:300] or type(error).__name__) from None


def version() -> str:
    """cuDNN and its front end with their versions, or "" where one of them is not installed."""
    try:
        cudnn = front_end()
        return f"cuDNN {cudnn.backend_version()}, front end {cudnn.__version__}"
    except (ImportError, OSError, RuntimeError, AttributeError):  # no package; one that finds no library
        return ""


class CuDNN:
    """cuDNN on one stream of the GPU that is the current one."""

    def __init__(self, stream: Handle) -> None:
        cudnn = front_end()
        try:
            self.handle = cudnn.create_handle()
            cudnn.set_stream(self.handle, stream)
        except RuntimeError as error:
            raise Refused(f"cuDNN does not start: {error}") from None

    def planned(self, wanted: Convolution) -> tuple[Any, int]:
        """What runs a convolution, and the bytes that it works in. Raises Refused."""
        graph, nbytes = planned(wanted, handle=self.handle)
        return (self, graph), nbytes

    def run(self, graph: Any, addresses: Mapping[str, Address], workspace: Address) -> None:
        """Enqueue a planned convolution."""
        try:
            graph.execute({NUMBERS[name]: a for name, a in addresses.items()}, workspace, handle=self.handle)
        except RuntimeError as error:
            raise Failure("cudnnBackendExecute", str(error)) from None
