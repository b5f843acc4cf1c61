"""SCALE-Sim's counting, in closed form: what version 3.0.0 reports for a layer, its conventions and quirks included.

A layer is a product (M, K) @ (K, N): M output pixels of one image, K weights of one filter, N filters. The array holds
K x N (`ws`), K x M (`is`) or M x N (`os`) in folds of its size, one after the other, and memory is never waited for.
Every formula was found by comparing numbers; none of its program is in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from hal.plugin import ConfigError

GIVEN = (
    "id", "layer", "kind", "M", "N", "K", "conv", "dataflow", "rows", "cols", "mode", "sram_kb", "bandwidth",
)  # fmt: skip
SETS = 100  # equal parts of each of its buffers; half of them are read while the others are filled
DRAM_WORDS_PER_CYCLE = 10  # at which it fills its buffers before the first cycle when it estimates the bandwidth


@dataclass(frozen=True, slots=True)
class Convolution:
    """The ten numbers of a convolution's shape: the image has its padding already."""

    height: int
    width: int
    kernel_height: int
    kernel_width: int
    channels: int
    filters: int
    stride: int

    @property
    def gemm(self) -> tuple[int, int, int]:
        """M, N and K. Windows that reach over the far edge count: its output is the ceiling."""
        rows = ceil((self.height - self.kernel_height + self.stride) / self.stride)
        cols = ceil((self.width - self.kernel_width + self.stride) / self.stride)
        return rows * cols, self.filters, self.kernel_height * self.kernel_width * self.channels

    @property
    def pixels_read(self) -> int:
        """Different words of the image that some window covers."""
        down = _covered(self.height, self.kernel_height, self.stride)
        return down * _covered(self.width, self.kernel_width, self.stride) * self.channels


def _covered(size: int, kernel: int, stride: int) -> int:
    """Positions of one axis that lie in some window."""
    windows = ceil((size - kernel + stride) / stride)
    if kernel >= stride:
        return min((windows - 1) * stride + kernel, size)
    return (windows - 1) * kernel + min(kernel, size - (windows - 1) * stride)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer on an array: one row of the left columns of the table.

    Attributes:
        m: output pixels.
        n: filters.
        k: weights of a filter.
        words: words of the image that are read; m * k where there is none.
        sram: words of the buffers of image, filters and output.
        line: words that are written to memory together: as many as the array is wide, unless the bandwidth is given.
    """

    m: int
    n: int
    k: int
    words: int
    dataflow: str
    rows: int
    cols: int
    sram: tuple[int, int, int] = (65536, 65536, 65536)
    line: int = 0


def read_layer(row: Mapping[str, str]) -> Layer:
    """The layer of one row of a table whose columns are `GIVEN`.

    Raises:
        ConfigError: a column is missing, or means nothing.
    """
    who = f"row {row.get('id') or '?'}"
    conv = _convolution(row["conv"], who) if row.get("conv") else None
    sizes = [_whole(row, name, who) for name in ("M", "N", "K")] if row.get("M") or conv is None else [*conv.gemm]
    m, n, k = sizes
    if conv is not None and (m, n, k) != conv.gemm:
        raise ConfigError(f"{who}: conv {row['conv']} is the product M, N, K = {conv.gemm}, the row says {(m, n, k)}")
    dataflow = row.get("dataflow", "")
    if dataflow not in ("ws", "os", "is"):
        raise ConfigError(f"{who}: dataflow must be ws, os or is, got {dataflow!r}")
    sram = _sram(row.get("sram_kb") or "64/64/64", who)
    words = m * k if conv is None else conv.pixels_read
    rows, cols = _whole(row, "rows", who), _whole(row, "cols", who)
    line = _whole(row, "bandwidth", who) if row.get("mode") == "USER" else cols
    return Layer(m, n, k, words, dataflow, rows, cols, sram, line)


def _whole(row: Mapping[str, str], name: str, who: str) -> int:
    text = (row.get(name) or "").strip()
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{who}: {name} needs a whole number of 1 or more, got {text!r}")
    return int(text)


def _convolution(text: str, who: str) -> Convolution:
    parts = text.split("x")
    if len(parts) != 7 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"{who}: conv is HxWxKHxKWxCHANNELSxFILTERSxSTRIDE, got {text!r}")
    conv = Convolution(*map(int, parts))
    if conv.kernel_height > conv.height or conv.kernel_width > conv.width:
        raise ConfigError(f"{who}: the kernel of conv {text} is larger than its image, padding included")
    return conv


def _sram(text: str, who: str) -> tuple[int, int, int]:
    parts = text.split("/")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"{who}: sram_kb is IFMAP/FILTER/OFMAP in kilobytes, got {text!r}")
    ifmap, filters, ofmap = (1024 * int(part) for part in parts)
    return ifmap, filters, ofmap


@dataclass(frozen=True, slots=True)
class Counts:
    """What is reported for a layer; the names are those of the table's columns."""

    total_cycles_incl_prefetch: int
    total_cycles: int
    stall_cycles: int
    compute_cycles: int
    overall_util_pct: float
    mapping_eff_pct: float
    compute_util_pct: float
    sram_ifmap_reads: int
    sram_filter_reads: int
    sram_ofmap_writes: int
    dram_ifmap_reads: int
    dram_filter_reads: int
    dram_ofmap_writes: int
    avg_ifmap_sram_bw: float
    avg_filter_sram_bw: float
    avg_ofmap_sram_bw: float
    folds: int


def count(layer: Layer) -> Counts:
    """Cycles, utilizations and traffic of `layer` as SCALE-Sim counts them.

    Its cycles are the index of the last one, so one less than their number; `compute_util_pct` divides by C - 1 cycles
    too many for `ws` and `is`; `os` adds R + C writes a fold, and leaves out the cycles of its drain.
    """
    m, n, k, rows, cols = layer.m, layer.n, layer.k, layer.rows, layer.cols
    ifmap, filters, ofmap = m * k, n * k, m * n
    if layer.dataflow == "os":
        held, across, streamed = m, n, k
    elif layer.dataflow == "ws":
        held, across, streamed = k, n, m
    else:
        held, across, streamed = k, m, n
    down_folds, across_folds = -(-held // rows), -(-across // cols)
    folds = down_folds * across_folds
    cells = rows * cols
    mapping = 100 * held * across / (folds * cells)
    if layer.dataflow == "os":
        cycles = folds * (streamed + rows + cols - 2) - 1
        busy = mapping * streamed / (streamed + rows + cols - 2)
        ifmap_reads, filter_reads, quirk = ifmap * across_folds, filters * down_folds, folds * (rows + cols)
    else:
        cycles = folds * (2 * rows + cols + streamed - 2) - 1
        busy = mapping * streamed / (2 * rows + 2 * cols + streamed - 3)
        ws = layer.dataflow == "ws"
        ifmap_reads, filter_reads = (ifmap * across_folds, filters) if ws else (ifmap, filters * across_folds)
        ofmap, quirk = ofmap * down_folds, 0
    cycles = max(cycles, 1)
    dram_ifmap = _dram_reads(layer.words, ifmap_reads, layer.sram[0])
    if layer.dataflow == "os":
        dram_filters = _dram_reads_by_columns(layer, down_folds)
    else:
        dram_filters = _dram_reads(filters, filter_reads, layer.sram[1])
    line = layer.line or cols
    dram_ofmap, left = _dram_writes(ofmap, line, layer.sram[2])
    before = _cycles_before(layer)
    return Counts(
        cycles + before + max(-(-left // line) - 1, 0),
        cycles, 0, cycles,
        100 * m * n * k / (cycles * cells), mapping, busy,
        ifmap_reads, filter_reads, ofmap + quirk,
        dram_ifmap, dram_filters, dram_ofmap,
        ifmap_reads / cycles, filter_reads / cycles, (ofmap + quirk) / cycles,
        folds,
    )  # fmt: skip


def _window(sram: int) -> int:
    """Different words that are remembered: when they are full, all of them are forgotten at once."""
    return SETS // 2 * (sram // SETS)


def _dram_reads(words: int, reads: int, sram: int) -> int:
    """Words read over and over in the same order: each once if they fit, else each time."""
    return words if words < _window(sram) else reads


def _dram_reads_by_columns(layer: Layer, passes: int) -> int:
    """Filter words with `os`: a block of columns is read `passes` times before the next, and a full window is emptied.

    A window that is emptied inside the first pass over a block makes the part before that place be read again.
    """
    k, window = layer.k, _window(layer.sram[1])
    words = k * layer.n
    if words < window or passes == 1:
        return words
    full, last = divmod(layer.n, layer.cols)
    reads = filled = 0
    for blocks, size in ((full, k * layer.cols), (1 if last else 0, k * last)):
        if size >= window:
            reads, filled = reads + blocks * size * passes, (filled + blocks * size * passes) % window
            continue
        while blocks:
            fitting = min((window - filled - 1) // size, blocks)
            reads, filled, blocks = reads + fitting * size, filled + fitting * size, blocks - fitting
            if blocks:
                reads, filled, blocks = reads + size + window - filled, size, blocks - 1
    return reads


def _dram_writes(words: int, line: int, sram: int) -> tuple[int, int]:
    """Words written, and those of them that are left when the last result is there.

    Half the buffer is written at a time, in lines as wide as the array. The word that makes it full opens a line of its
    own when the width divides that half, and the empty rest of this line is counted too.
    """
    half = sram // 2
    if words <= half:
        return words, words
    padding = line - 1 if half % line == 0 else 0
    written = half if padding else half + 1
    drains = (words - 1) // half if padding else (words - 1) // written
    return words + padding, words + padding - drains * written


def _cycles_before(layer: Layer) -> int:
    """Cycles before the first one, in which the two read buffers are filled, or as much of them as is needed.

    A buffer that is filled whole is full when its first word is asked for; a smaller one at cycle 0.
    """
    stationary, streamed = layer.rows - min(layer.k, layer.rows), layer.rows
    first = {"os": (0, 0), "ws": (streamed, stationary), "is": (stationary, streamed)}[layer.dataflow]
    cycles = []
    for words, sram, asked in zip((layer.words, layer.n * layer.k), layer.sram, first, strict=False):
        size, half = sram // SETS, SETS // 2
        sets = min(-(-words // size), half)
        fill = -(-sets * size // DRAM_WORDS_PER_CYCLE)
        cycles.append(fill - asked if words >= half * size else fill)
    return max(cycles)
