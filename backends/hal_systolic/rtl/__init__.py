"""The arrays in Verilog, and Icarus to run them: what the PE level is held to where `iverilog` is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hal.plugin import Array, ConfigError
from hal_systolic.pe import Inputs

HERE = Path(__file__).parent


def installed() -> bool:
    """Whether Icarus Verilog is on the path."""
    return shutil.which("iverilog") is not None and shutil.which("vvp") is not None


def simulate(inputs: Sequence[Inputs], folder: Path, *, buffers: int | None) -> Array:
    """All sums after every clock edge, of shape (edges, rows, cols), as the Verilog array has them.

    Args:
        inputs: of 8-bit values, one for each edge.
        folder: empty, for the program and its files.
        buffers: of weights; None is the output-stationary array.

    Raises:
        ConfigError: Icarus is not installed.
    """
    if not installed():
        raise ConfigError("the Verilog arrays need Icarus: install iverilog, such as with apt-get install iverilog")
    rows, cols, edges = len(inputs[0].left), len(inputs[0].top), len(inputs)
    _write(folder, inputs)
    module = "output_stationary" if buffers is None else "weight_stationary"
    own = "" if buffers is None else f", .BUFFERS({buffers})"
    ports = ", ".join(f".{name}({name})" for name in ("clk", "left", "top", "switch_in", "capture", "all_sums"))
    array = f"{module} #(.ROWS(ROWS), .COLS(COLS){own}) array({ports});"
    parameters = [f"-Ptestbench.{name}={value}" for name, value in (("ROWS", rows), ("COLS", cols), ("EDGES", edges))]
    sources = [str(HERE / "testbench.v"), str(HERE / f"{module}.v")]
    compiler = ["iverilog", "-g2005", "-s", "testbench", *parameters, f"-DARRAY={array}", "-o", "program", *sources]
    subprocess.run(compiler, cwd=folder, check=True, capture_output=True)
    result = subprocess.run(["vvp", "-n", "program"], cwd=folder, check=True, capture_output=True, text=True)
    return np.array(result.stdout.split(), np.int64).reshape(edges, rows, cols)


def _write(folder: Path, inputs: Sequence[Inputs]) -> None:
    """The files that the testbench reads: the last row or column stands first in a line."""

    def hexadecimal(values: Array) -> str:
        return "".join(f"{int(value) & 0xFF:02x}" for value in values[::-1])

    def binary(values: Array) -> str:
        return "".join("1" if value else "0" for value in values[::-1])

    for name, texts in (
        ("left", (hexadecimal(i.left) for i in inputs)),
        ("top", (hexadecimal(i.top) for i in inputs)),
        ("switch", (binary(i.switch) for i in inputs)),
        ("capture", (binary(i.capture) for i in inputs)),
    ):
        (folder / name).write_text("\n".join(texts) + "\n", encoding="ascii")
