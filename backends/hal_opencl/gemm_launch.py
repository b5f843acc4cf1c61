"""Launches products: on processors in panels of their registers or in dots, on all else in tiles of groups of items."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from hal.codegen.dialect import OPENCL
from hal.codegen.expressions import memory_type
from hal.codegen.kernels.products import (
    Factor,
    Product,
    Tiles,
    Triple,
    added,
    arguments_of,
    launch,
    places_of,
    source,
    tiled,
)
from hal.plugin import DType
from hal_opencl.gemm_shapes import Panels, Shape, shape_of

if TYPE_CHECKING:
    from hal_opencl.runtime import OpenCLRuntime

PACKED_A = 1 << 17  # elements of A from which its rows are copied into panels first (measured)
IN_PLACE_B = 1 << 17  # elements of B up to which its rows are read where they lie (measured)
SHORT_DOTS = 1 << 19  # elements of both factors up to which products of rows with rows need no panels (measured)
FEW_ROWS = 96  # and rows up to which that holds
MANY_ROWS = 64  # from which columns in a table are worth copying into panels
WIDE = 128  # columns whose panels stay in the second cache
MOST_COLUMNS = 2048  # of a row, whose sums are kept in the first cache
ALONE = 1 << 18  # multiplications up to which one thread does it all


def multiply(runtime: OpenCLRuntime, label: str, given: Product, shape: Shape | None = None) -> None:
    """Enqueue a product; `shape` of tiles is by default what is best on this device."""
    shape = shape or shape_of(runtime)
    if isinstance(shape, Tiles):
        tiled(runtime, label, given, shape)
        return
    a, b, out, bias = given.a, given.b, given.out, given.bias
    along = a.column == 1 and b.row == 1 and isinstance(a.row, int) and out.places is None
    along = along and (bias is None or bias.axis == 1)
    if _is_row(given):
        _by_row(runtime, label, given, shape)
    elif given.parts > 1 or (along and _suit_dots(b, *given.sizes)):
        _by_dots(runtime, label, given, shape)
    else:
        _by_panels(runtime, label, given, shape)


def _is_row(given: Product) -> bool:
    """Whether it is a row times a matrix whose columns lie side by side."""
    a, b = given.a, given.b
    plain = isinstance(a.row, int) and isinstance(a.column, int) and isinstance(b.row, int) and given.out.places is None
    return plain and given.sizes[0] == 1 and given.sizes[1] > 1 and b.column == 1 and given.parts == 1


def _suit_dots(b: Factor, rows: int, columns: int, terms: int) -> bool:
    """Whether sums over whole vectors of terms are better than panels of columns."""
    if columns == 1 or rows == 1:
        return True
    if not isinstance(b.column, int):
        return rows < MANY_ROWS
    return b.column != 1 and terms >= 64 and rows <= FEW_ROWS and (rows + columns) * terms <= SHORT_DOTS


def _vector(shape: Panels, dtype: DType) -> tuple[int, str]:
    width = max(shape.width * 4 // max(dtype.itemsize, 4), 2)
    return width, f"{OPENCL.types[memory_type(dtype)]}{width}"


@cache
def _local(nbytes: int) -> Any:
    import pyopencl as cl

    return cl.LocalMemory(nbytes)


def _shared_out(items: int, step: int, blocks: int) -> int:
    """How many of `items` a block has, in whole steps, to make about so many blocks."""
    return max(-(-items // (step * max(blocks, 1))), 1) * step


def _by_panels(runtime: OpenCLRuntime, label: str, given: Product, shape: Panels) -> None:
    a, b, out, dtype, batch, bias, index = (
        given.a, given.b, given.out, given.dtype, given.batch, given.bias, given.offsets,
    )  # fmt: skip
    (rows, columns, terms), count = given.sizes, given.matrices
    if rows == 1:  # then B is read once, and what counts is that long pieces of its rows are
        shape = replace(shape, rows=1, vectors=8)
    width, vector = _vector(shape, dtype)
    panel = shape.vectors * width
    table = not isinstance(b.row, int)
    packed = not isinstance(a.column, int) or (isinstance(a.row, int) and rows * terms > PACKED_A)
    short = not table and (terms * columns <= IN_PLACE_B or b.row == columns <= panel)  # those are panels already
    in_place = b.column == 1 and (short or rows <= 4 * shape.rows)
    macros: list[tuple[str, Any]] = [
        ("T", memory_type(dtype)), ("V", vector), ("VW", width), ("INDEX", index.name), ("MR", shape.rows),
        ("NV", shape.vectors), ("KC", shape.terms), ("MC", shape.block), ("BIAS", 0 if bias is None else bias.axis + 1),
    ]  # fmt: skip
    macros += [("A_PACKED", 1)] if packed else []
    macros += [("A_ROWS", 1)] if not isinstance(a.row, int) else []
    macros += [("A_TABLE", 1)] if not isinstance(a.column, int) else []
    macros += [("B_TABLE", 1)] if table else []
    macros += [("B_COLUMNS", 1)] if not isinstance(b.column, int) else []
    macros += [("B_IN_PLACE", 1)] if in_place else []
    macros += [("PLACES", 1)] if out.places is not None else []
    text = source(__package__, "gemm_panels.cl", tuple(macros))
    if packed:
        a = _packed(runtime, label, given, shape, text)
    # Enough blocks for all threads, none so small that beginning it costs more than it does.
    work = rows * columns * terms * count
    blocks = 1 if work <= ALONE else 4 * runtime.units
    room = max(runtime.local_memory // (shape.terms * dtype.itemsize * panel), 1) * panel
    wide = min(_shared_out(columns, panel, -(-blocks // count)), max(WIDE // panel, 1) * panel, room)
    across = -(-columns // wide)
    tall = _shared_out(rows, shape.rows, -(-blocks // (count * across)) if across * count < 2 * runtime.units else 1)
    arguments = [
        *arguments_of(index.type, a.memory, a.offset, a.row, a.column, *a.batch),
        *arguments_of(index.type, b.memory, b.offset, b.row, b.column, *b.batch),
        *added(index.type, bias, a.memory),
        *arguments_of(index.type, out.memory, out.offset, out.row, out.batch),
        *places_of(index.type, out.places),
        *arguments_of(index.type, rows, columns, terms, batch[1], batch[2], wide, tall),
        _local(wide * shape.terms * dtype.itemsize),
    ]
    items = (across, -(-rows // tall), count)
    launch(runtime, text, "product", label, items, (1, 1, 1), arguments, out.memory)


def _by_row(runtime: OpenCLRuntime, label: str, given: Product, shape: Panels) -> None:
    a, b, out, dtype, bias, index = given.a, given.b, given.out, given.dtype, given.bias, given.offsets
    (_, columns, terms), batch, count = given.sizes, given.batch, given.matrices
    width, vector = _vector(shape, dtype)
    macros: list[tuple[str, Any]] = [
        ("T", memory_type(dtype)), ("V", vector), ("VW", width), ("INDEX", index.name),
        ("BIAS", 0 if bias is None else bias.axis + 1),
    ]  # fmt: skip
    blocks = 1 if columns * terms * count <= ALONE else runtime.units
    wide = min(_shared_out(columns, 8 * width, -(-blocks // count)), MOST_COLUMNS)
    arguments = [
        *arguments_of(index.type, a.memory, a.offset, a.column, *a.batch),
        *arguments_of(index.type, b.memory, b.offset, b.row, *b.batch),
        *added(index.type, bias, a.memory),
        *arguments_of(index.type, out.memory, out.offset, out.batch, columns, terms, batch[1], batch[2], wide),
    ]
    text = source(__package__, "gemm_row.cl", tuple(macros))
    launch(runtime, text, "row", label, (-(-columns // wide), count, 1), (1, 1, 1), arguments, out.memory)


def _packed(runtime: OpenCLRuntime, label: str, given: Product, shape: Panels, text: str) -> Factor:
    """A in panels of its rows: those of the batch that differ, one after another."""
    a, (rows, _, terms), index = given.a, given.sizes, given.offsets
    different = tuple(n if s else 1 for n, s in zip(given.batch, a.batch, strict=True))
    count = different[0] * different[1] * different[2]
    panels = -(-rows // shape.rows)
    to = runtime.empty((count * panels * shape.rows * terms,), given.dtype, label)
    arguments = [
        *arguments_of(index.type, a.memory, a.offset, rows, terms, a.row, a.column),
        *arguments_of(index.type, different[1], different[2], *a.batch, to.memory),
    ]
    launch(runtime, text, "pack", label, (panels, count, 1), (1, 1, 1), arguments, to.memory)
    steps = (different[1] * different[2], different[2], 1)
    batch: Triple = tuple(s if n > 1 else 0 for n, s in zip(different, steps, strict=True))
    return Factor(to.memory, 0, 0, 0, batch)


def _by_dots(runtime: OpenCLRuntime, label: str, given: Product, shape: Panels) -> None:
    a, b, out, dtype, bias, index = given.a, given.b, given.out, given.dtype, given.bias, given.offsets
    (rows, columns, terms), batch, count, parts = given.sizes, given.batch, given.matrices, given.parts
    width, vector = _vector(shape, dtype)
    high, broad, at_once = (1, 8, 4096) if rows == 1 else (3, 3, 1024)  # a row is limited by how fast B is read
    macros: list[tuple[str, Any]] = [
        ("T", memory_type(dtype)), ("V", vector), ("VW", width), ("INDEX", index.name), ("DM", high), ("DN", broad),
        ("KC", at_once), ("BIAS", 0 if bias is None else 2),
    ]  # fmt: skip
    macros += [("B_TABLE", 1)] if not isinstance(b.column, int) else []
    work = rows * columns * terms * count
    blocks = 1 if work <= ALONE else 4 * runtime.units
    if parts > 1:
        wide, tall = columns, rows
    else:
        wide = min(_shared_out(columns, broad, -(-blocks // count)), 64)
        across = -(-columns // wide)
        tall = _shared_out(rows, high, -(-blocks // (count * across)) if across * count < 2 * runtime.units else 1)
    arguments = [
        *arguments_of(index.type, a.memory, a.offset, a.row, *a.batch),
        *arguments_of(index.type, b.memory, b.offset, b.column, *b.batch),
        *added(index.type, bias, a.memory)[:3],
        *arguments_of(index.type, out.memory, out.offset, out.row, out.batch, rows * columns * count),
        *arguments_of(index.type, rows, columns, terms, batch[1], batch[2], wide, tall, count, -(-terms // parts)),
    ]
    items = (-(-columns // wide), -(-rows // tall), count * parts)
    text = source(__package__, "gemm_dots.cl", tuple(macros))
    launch(runtime, text, "dots", label, items, (1, 1, 1), arguments, out.memory)
