"""The six applications by which the TPU v1 was measured, as work for any machine, and its published numbers.

Jouppi et al., ISCA 2017, Tables 1 and 3. The paper gives layers, weights, batch and products a weight byte, and no
shapes: those here are the squares that come nearest, and for CNN0 a 19 x 19 board, whose 361 points times its batch of
8 are the 2888 products a weight byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hal_systolic.config import BYTES, Machine
from hal_systolic.simulation import Simulation, simulate
from hal_systolic.work import Matmul, Operand, Pause, Transfer, Work


@dataclass(frozen=True)
class Application:
    """One application.

    Attributes:
        layers: of its products, as (k, n) and how many there are in a row.
        gates: products of a layer that share their input; the next layer takes the result of the last.
        rows: of the streamed operand: the batch, or the batch times output pixels.
        inputs: elements of the input a row.
        dtype: format of its products.
        table3: percent of cycles: array active, weight stall, weight shift, non-matrix.
        tops: measured.
    """

    layers: tuple[tuple[int, int, int], ...]
    gates: int
    rows: int
    inputs: int
    dtype: str
    table3: tuple[float, float, float, float]
    tops: float


# LSTM0 and LSTM1 use 8-bit weights with 16-bit activations, at half rate. LSTM1's matrices are 600 x 600, here the four
# gates of 24 cells. Of CNN1 only the fully connected layers are here; their rows of Table 3 are those of all of CNN1.
# fmt: off
APPLICATIONS = {
  "MLP0":    Application(((2048, 2048, 5),),               1, 200,  2048, "int8",       (12.7, 53.9, 15.9, 17.5), 12.3),
  "MLP1":    Application(((1024, 1280, 4),),               1, 168,  1024, "int8",       (10.6, 44.2, 13.4, 31.9), 9.7),
  "LSTM0":   Application(((1024, 2048, 25),),              1, 64,   1024, "int8xint16", (8.2, 58.1, 15.8, 17.9),  3.7),
  "LSTM1":   Application(((600, 600, 24),),                4, 96,   600,  "int8xint16", (10.5, 62.1, 17.1, 10.3), 2.8),
  "CNN0":    Application(((2304, 256, 13), (256, 256, 3)), 1, 2888, 256,  "int8",       (78.2, 0.0, 0.0, 21.8),   86.0),
  "CNN1 FC": Application(((4096, 4096, 4),),               1, 32,   4096, "int8",       (46.2, 28.1, 7.0, 18.7),  14.1),
}
# fmt: on


def work(application: Application) -> Iterator[Work]:
    """Input from the host, the layers one after another, the result to the host."""
    app, element = application, BYTES[application.dtype]
    x, width, index = Operand(0, app.rows * app.inputs * element), app.inputs, 0
    yield Transfer(x, to_device=True, layer="input")
    for k, n, count in app.layers:
        for _ in range(count):
            # The image of a convolution has fewer elements than its patches.
            a = Operand(x.key, app.rows * min(width, k) * element)
            for _ in range(app.gates):
                index += 1
                out, weights = Operand(index, app.rows * n * element), Operand(-index, k * n, weight=True)
                yield Matmul(app.rows, k, n, a, weights, out, app.dtype, layer=f"layer {index}")
            x, width = out, n
    yield Transfer(x, to_device=False, layer="output")


def run(name: str, machine: Machine, *, non_matrix_pct: float | None = None) -> Simulation:
    """Run an application.

    Args:
        non_matrix_pct: share of all cycles in which there was no product to do. What the stream itself does not explain
            of it is host time, after the last result. Default: none is added.
    """
    app = APPLICATIONS[name]
    pieces = list(work(app))
    alone = simulate(pieces, machine)
    if non_matrix_pct is None:
        return alone
    matrix = matrix_cycles(alone)
    missing = matrix / (1 - non_matrix_pct / 100) - alone.cycles
    return simulate([*pieces, Pause(max(missing, 0.0))], machine)


def matrix_cycles(simulation: Simulation) -> float:
    """Cycles in which the array was active, or waited for weights: rows 1, 4 and 5 of the paper's table."""
    columns = simulation.total.cycles
    return columns["active"] + columns["weight_stall"] + columns["weight_shift"]
