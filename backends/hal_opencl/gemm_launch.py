"""Launches products: which kernel, in which blocks, with which arguments, for factors that lie anywhere."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hal.codegen.dialect import OPENCL
from hal.codegen.expressions import memory_type
from hal.plugin import Array, DType, Spec, dtypes
from hal_opencl.gemm_shapes import Panels, Shape, Tiles, shape_of

if TYPE_CHECKING:
    from hal_opencl.memory import Memory
    from hal_opencl.runtime import Runtime

Triple = tuple[int, int, int]


class Index(NamedTuple):
    """The type of offsets, in C and in NumPy."""

    name: str
    type: type[np.signedinteger[Any]]


_INDEX = {False: Index("int", np.int32), True: Index("long", np.int64)}
PACKED_A = 1 << 17  # elements of A from which its rows are copied into panels first (measured)
IN_PLACE_B = 1 << 17  # elements of B up to which its rows are read where they lie (measured)
SHORT_DOTS = 1 << 19  # elements of both factors up to which products of rows with rows need no panels (measured)
FEW_ROWS = 128  # and rows up to which that holds
MANY_ROWS = 64  # from which columns in a table are worth copying into panels
WIDE = 128  # columns whose panels stay in the second cache
ALONE = 1 << 18  # multiplications up to which one thread does it all
LARGEST = (1 << 31) - 1


class Factor(NamedTuple):
    """Where the elements of one factor lie: those of A by row and term, those of B by term and column.

    Attributes:
        memory, offset: where the first is.
        row, column: elements from one to the next; or memory that holds the offset of each (see `offsets`).
        batch: elements from one to the next along each of three axes of a batch.
    """

    memory: Memory
    offset: int
    row: int | Memory
    column: int | Memory
    batch: Triple = (0, 0, 0)


class Places(NamedTuple):
    """Which columns are places of the result, and where it has them: column j is place (z, y, x) of an image.

    Attributes:
        sizes: of the result's places along z, y and x.
        all_sizes: of all that columns run over.
        strides: of the result: from image to image, and along z, y and x.
    """

    sizes: Triple
    all_sizes: Triple
    strides: tuple[int, int, int, int]


class Result(NamedTuple):
    """Where the result goes: rows apart, columns together or at places, matrices of the batch one after another."""

    memory: Memory
    offset: int
    row: int
    batch: int = 0
    places: Places | None = None


class Bias(NamedTuple):
    """What is added to each row (`axis` 0) or column (1); `batch` on along the last axis of the batch."""

    memory: Memory
    offset: int
    stride: int
    axis: int
    batch: int = 0


@cache
def _file(name: str) -> str:
    package = "hal.codegen" if name.endswith(".c") else "hal_opencl"
    return resources.files(package).joinpath(name).read_text()


@cache
def source(name: str, macros: tuple[tuple[str, Any], ...], dtype: DType) -> str:
    """The source of a kernel file with its macros defined, for elements of `dtype`."""
    text = "".join(f"#define {key} {value}\n" for key, value in macros) + _file(name)
    needs = memory_type(dtype) if dtype in (dtypes.float64, dtypes.float16) else ""
    return OPENCL.prelude(needs + "HAL_" if name.endswith(".c") else needs) + text


@cache
def c_type(dtype: DType) -> str:
    """OpenCL's name of an element type."""
    return OPENCL.types[memory_type(dtype)]


def multiply(
    runtime: Runtime,
    label: str,
    dtype: DType,
    a: Factor,
    b: Factor,
    out: Result,
    sizes: Triple,
    *,
    batch: Triple = (1, 1, 1),
    bias: Bias | None = None,
    parts: int = 1,
    shape: Shape | None = None,
    wide: bool | None = None,
) -> None:
    """Enqueue out[g, i, j] = bias + sum over k of A(g, i, k) B(g, k, j).

    Args:
        sizes: rows, columns, terms; none of them 0.
        batch: how many matrices there are along three axes.
        parts: into how many sums the terms are divided: part p is written p * batch * rows * columns further on.
        shape: of tiles; default what is best on this device.
        wide: whether the offsets in tables have 64 bits.
    """
    shape = shape or shape_of(runtime)
    rows, columns, terms = sizes
    wide = is_wide(a.memory, b.memory, out.memory) if wide is None else wide
    index = _INDEX[wide]
    if isinstance(shape, Tiles):
        _by_tiles(runtime, label, dtype, a, b, out, sizes, batch, bias, parts, shape, index)
        return
    along = a.column == 1 and b.row == 1 and isinstance(a.row, int) and out.places is None
    along = along and (bias is None or bias.axis == 1)
    if parts > 1 or (along and _suit_dots(b, rows, columns, terms)):
        _by_dots(runtime, label, dtype, a, b, out, sizes, batch, bias, parts, shape, index)
    else:
        _by_panels(runtime, label, dtype, a, b, out, sizes, batch, bias, shape, index)


def has_panels(runtime: Runtime) -> bool:
    """Whether products of this device read rows of A through a table of their offsets."""
    return isinstance(shape_of(runtime), Panels)


def _suit_dots(b: Factor, rows: int, columns: int, terms: int) -> bool:
    """Whether sums over whole vectors of terms are better than panels of columns."""
    if columns == 1 or rows == 1:
        return True
    if not isinstance(b.column, int):
        return rows < MANY_ROWS
    return b.column != 1 and terms >= 64 and rows <= FEW_ROWS and (rows + columns) * terms <= SHORT_DOTS


def is_wide(*memories: Memory | None) -> bool:
    """Whether offsets into one of these memories need 64 bits."""
    return any(m is not None and m.nbytes > LARGEST for m in memories)


def offsets(runtime: Runtime, values: Array, wide: bool) -> Memory:
    """Device memory with the offsets of rows or columns."""
    kind = dtypes.int64 if wide else dtypes.int32
    return runtime.upload(values.astype(kind.numpy), Spec(values.shape, kind)).memory


def _vector(shape: Panels, dtype: DType) -> tuple[int, str]:
    width = max(shape.width * 4 // max(dtype.itemsize, 4), 2)
    return width, f"{c_type(dtype)}{width}"


def _arguments(index: type, *values: int | Memory) -> list[Any]:
    return [index(v) if isinstance(v, int) else v for v in values]


def _places(index: type, places: Places | None) -> list[Any]:
    return [] if places is None else _arguments(index, *places.sizes, *places.all_sizes, *places.strides)


def _added(index: type, bias: Bias | None, otherwise: Memory) -> list[Any]:
    given = bias or Bias(otherwise, 0, 0, 1)
    return _arguments(index, given.memory, given.offset, given.stride, given.batch)


@cache
def _local_memory(runtime: Runtime) -> int:
    return int(runtime.device.local_mem_size)


@cache
def _local(nbytes: int) -> Any:
    import pyopencl as cl

    return cl.LocalMemory(nbytes)


def macros_for(dtype: DType, wide: bool) -> tuple[tuple[str, Any], ...]:
    """The macros that every kernel file takes."""
    return ("T", c_type(dtype)), ("INDEX", _INDEX[wide].name)


def launch(
    runtime: Runtime,
    text: str,
    name: str,
    label: str,
    items: Triple,
    local: Triple,
    values: tuple[int | Memory, ...],
    out: Memory,
    wide: bool,
) -> None:
    """Enqueue a kernel whose arguments are memories and offsets."""
    _launch(runtime, text, name, label, items, local, _arguments(_INDEX[wide].type, *values), out)


def _launch(
    runtime: Runtime, text: str, name: str, label: str, items: Triple, local: Triple, arguments: list[Any], out: Memory
) -> None:
    runtime.launch(label, runtime.programs.kernel(text, name, label), items, local, *arguments, writes=(out,))


def _shared_out(items: int, step: int, blocks: int) -> int:
    """How many of `items` a block has, in whole steps, to make about so many blocks."""
    return max(-(-items // (step * max(blocks, 1))), 1) * step


def _by_panels(
    runtime: Runtime,
    label: str,
    dtype: DType,
    a: Factor,
    b: Factor,
    out: Result,
    sizes: Triple,
    batch: Triple,
    bias: Bias | None,
    shape: Panels,
    index: Index,
) -> None:
    rows, columns, terms = sizes
    if rows == 1:  # then B is read once, and what counts is that long pieces of its rows are
        shape = replace(shape, rows=1, vectors=8)
    width, vector = _vector(shape, dtype)
    panel = shape.vectors * width
    table, count = not isinstance(b.row, int), batch[0] * batch[1] * batch[2]
    packed = not isinstance(a.column, int) or (isinstance(a.row, int) and rows * terms > PACKED_A)
    in_place = b.column == 1 and ((not table and terms * columns <= IN_PLACE_B) or rows <= 4 * shape.rows)
    macros: list[tuple[str, Any]] = [
        ("T", c_type(dtype)), ("V", vector), ("VW", width), ("INDEX", index.name), ("MR", shape.rows),
        ("NV", shape.vectors), ("KC", shape.terms), ("MC", shape.block), ("BIAS", 0 if bias is None else bias.axis + 1),
    ]  # fmt: skip
    macros += [("A_PACKED", 1)] if packed else []
    macros += [("A_ROWS", 1)] if not isinstance(a.row, int) else []
    macros += [("A_TABLE", 1)] if not isinstance(a.column, int) else []
    macros += [("B_TABLE", 1)] if table else []
    macros += [("B_COLUMNS", 1)] if not isinstance(b.column, int) else []
    macros += [("B_IN_PLACE", 1)] if in_place else []
    macros += [("PLACES", 1)] if out.places is not None else []
    text = source("gemm_panels.cl", tuple(macros), dtype)
    if packed:
        a = _packed(runtime, label, dtype, a, rows, terms, batch, shape, text, index)
    # Enough blocks for all threads, none so small that beginning it costs more than it does.
    work = rows * columns * terms * count
    blocks = 1 if work <= ALONE else 4 * runtime.units
    room = max(_local_memory(runtime) // (shape.terms * dtype.itemsize * panel), 1) * panel
    wide = min(_shared_out(columns, panel, -(-blocks // count)), max(WIDE // panel, 1) * panel, room)
    across = -(-columns // wide)
    tall = _shared_out(rows, shape.rows, -(-blocks // (count * across)) if across * count < 2 * runtime.units else 1)
    arguments = [
        *_arguments(index.type, a.memory, a.offset, a.row, a.column, *a.batch),
        *_arguments(index.type, b.memory, b.offset, b.row, b.column, *b.batch),
        *_added(index.type, bias, a.memory),
        *_arguments(index.type, out.memory, out.offset, out.row, out.batch),
        *_places(index.type, out.places),
        *_arguments(index.type, rows, columns, terms, batch[1], batch[2], wide, tall),
        _local(wide * shape.terms * dtype.itemsize),
    ]
    items = (across, -(-rows // tall), count)
    _launch(runtime, text, "product", label, items, (1, 1, 1), arguments, out.memory)


def _packed(
    runtime: Runtime,
    label: str,
    dtype: DType,
    a: Factor,
    rows: int,
    terms: int,
    batch: Triple,
    shape: Panels,
    text: str,
    index: Index,
) -> Factor:
    """A in panels of its rows: those of the batch that differ, one after another."""
    different = tuple(n if s else 1 for n, s in zip(batch, a.batch, strict=True))
    count = different[0] * different[1] * different[2]
    panels = -(-rows // shape.rows)
    to = runtime.empty((count * panels * shape.rows * terms,), dtype, label)
    arguments = [
        *_arguments(index.type, a.memory, a.offset, rows, terms, a.row, a.column),
        *_arguments(index.type, different[1], different[2], *a.batch, to.memory),
    ]
    _launch(runtime, text, "pack", label, (panels, count, 1), (1, 1, 1), arguments, to.memory)
    steps = (different[1] * different[2], different[2], 1)
    return Factor(to.memory, 0, 0, 0, tuple(s if n > 1 else 0 for n, s in zip(different, steps, strict=True)))  # type: ignore[arg-type]


def _by_dots(
    runtime: Runtime,
    label: str,
    dtype: DType,
    a: Factor,
    b: Factor,
    out: Result,
    sizes: Triple,
    batch: Triple,
    bias: Bias | None,
    parts: int,
    shape: Panels,
    index: Index,
) -> None:
    rows, columns, terms = sizes
    width, vector = _vector(shape, dtype)
    high, broad = 3, 3
    table, count = not isinstance(b.column, int), batch[0] * batch[1] * batch[2]
    macros: list[tuple[str, Any]] = [
        ("T", c_type(dtype)), ("V", vector), ("VW", width), ("INDEX", index.name), ("DM", high), ("DN", broad),
        ("KC", 1024), ("BIAS", 0 if bias is None else 2),
    ]  # fmt: skip
    macros += [("B_TABLE", 1)] if table else []
    work = rows * columns * terms * count
    blocks = 1 if work <= ALONE else 4 * runtime.units
    if parts > 1:
        wide, tall = columns, rows
    else:
        wide = min(_shared_out(columns, broad, -(-blocks // count)), 64)
        across = -(-columns // wide)
        tall = _shared_out(rows, high, -(-blocks // (count * across)) if across * count < 2 * runtime.units else 1)
    arguments = [
        *_arguments(index.type, a.memory, a.offset, a.row, *a.batch),
        *_arguments(index.type, b.memory, b.offset, b.column, *b.batch),
        *_added(index.type, bias, a.memory)[:3],
        *_arguments(index.type, out.memory, out.offset, out.row, out.batch, rows * columns * count),
        *_arguments(index.type, rows, columns, terms, batch[1], batch[2], wide, tall, count, -(-terms // parts)),
    ]
    items = (-(-columns // wide), -(-rows // tall), count * parts)
    text = source("gemm_dots.cl", tuple(macros), dtype)
    _launch(runtime, text, "dots", label, items, (1, 1, 1), arguments, out.memory)


def _by_tiles(
    runtime: Runtime,
    label: str,
    dtype: DType,
    a: Factor,
    b: Factor,
    out: Result,
    sizes: Triple,
    batch: Triple,
    bias: Bias | None,
    parts: int,
    shape: Tiles,
    index: Index,
) -> None:
    rows, columns, terms = sizes
    count = batch[0] * batch[1] * batch[2]
    macros: list[tuple[str, Any]] = [
        ("T", c_type(dtype)), ("SUM", "float" if dtype is dtypes.float16 else c_type(dtype)), ("INDEX", index.name),
        ("TX", shape.across), ("TY", shape.down), ("RM", shape.rows), ("RN", shape.columns), ("TK", shape.terms),
        ("BIAS", 0 if bias is None else bias.axis + 1),
    ]  # fmt: skip
    macros += [("A_TERMS", 1)] if not isinstance(a.column, int) else []
    macros += [("B_TERMS", 1)] if not isinstance(b.row, int) else []
    macros += [("B_COLUMNS", 1)] if not isinstance(b.column, int) else []
    macros += [("PLACES", 1)] if out.places is not None else []
    arguments = [
        *_arguments(index.type, a.memory, a.offset, a.row, a.column, *a.batch),
        *_arguments(index.type, b.memory, b.offset, b.row, b.column, *b.batch),
        *_added(index.type, bias, a.memory),
        *_arguments(index.type, out.memory, out.offset, out.row, out.batch, rows * columns * count),
        *_places(index.type, out.places),
        *_arguments(index.type, rows, columns, terms, batch[1], batch[2], count, -(-terms // parts)),
    ]
    across, down = -(-columns // (shape.across * shape.columns)), -(-rows // (shape.down * shape.rows))
    items = (across * shape.across, down * shape.down, count * parts)
    text = source("tiled_product.c", tuple(macros), dtype)
    _launch(runtime, text, "tiled_product", label, items, (shape.across, shape.down, 1), arguments, out.memory)


def add_parts(runtime: Runtime, label: str, dtype: DType, parts: Memory, out: Result, size: int, count: int) -> None:
    """Enqueue the sum of `count` parts of `size` elements each, written one after another."""
    width, vector = (4, f"{c_type(dtype)}4")
    macros = (
        ("T", c_type(dtype)), ("V", vector), ("VW", width), ("INDEX", "int"), ("DM", 1), ("DN", 1), ("KC", 1024),
        ("BIAS", 0),
    )  # fmt: skip
    some = max(-(-size // (4 * runtime.units)), 256) if runtime.is_cpu else 1
    arguments = _arguments(np.int32, parts, out.memory, out.offset, size, count, some)
    text = source("gemm_dots.cl", macros, dtype)
    _launch(runtime, text, "add_parts", label, (-(-size // some), 1, 1), (1, 1, 1), arguments, out.memory)
