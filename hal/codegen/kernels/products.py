"""Sums of products: where their factors lie, and the tiles in which any device with groups of items computes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hal.codegen.expressions import memory_type
from hal.codegen.kernels.memory import Memory
from hal.plugin import Array, DType, Spec, dtypes

if TYPE_CHECKING:
    from hal.codegen.kernels.runtime import Runtime

Triple = tuple[int, ...]  # of three
LARGEST = (1 << 31) - 1


class Index(NamedTuple):
    """The type of offsets, in C and in NumPy."""

    name: str
    type: type[np.signedinteger[Any]]


INDEX = {False: Index("i32", np.int32), True: Index("i64", np.int64)}


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


class Product(NamedTuple):
    """out[g, i, j] = bias + sum over k of A(g, i, k) B(g, k, j).

    Attributes:
        sizes: rows, columns, terms; none of them 0.
        batch: how many matrices there are along three axes.
        parts: into how many sums the terms are divided: part p is written p * batch * rows * columns further on.
        wide: whether the offsets in tables have 64 bits.
        out_dtype: of the result, if it is another: float32 of halves. Only of runtimes that multiply halves.
    """

    dtype: DType
    a: Factor
    b: Factor
    out: Result
    sizes: Triple
    batch: Triple = (1, 1, 1)
    bias: Bias | None = None
    parts: int = 1
    wide: bool | None = None
    out_dtype: DType | None = None

    @property
    def offsets(self) -> Index:
        """The type of its offsets."""
        wide = self.wide
        return INDEX[is_wide(self.a.memory, self.b.memory, self.out.memory) if wide is None else wide]

    @property
    def matrices(self) -> int:
        """Matrices in the batch."""
        return self.batch[0] * self.batch[1] * self.batch[2]


def is_wide(*memories: Memory | None) -> bool:
    """Whether offsets into one of these memories need 64 bits."""
    return any(m is not None and m.nbytes > LARGEST for m in memories)


def offsets(runtime: Runtime, values: Array, wide: bool) -> Memory:
    """Device memory with the offsets of rows or columns."""
    kind = dtypes.int64 if wide else dtypes.int32
    return runtime.upload(values.astype(kind.numpy), Spec(values.shape, kind)).memory


@cache
def file(package: str, name: str) -> str:
    """The text of a kernel file."""
    return resources.files(package).joinpath(name).read_text()


@cache
def source(package: str, name: str, macros: tuple[tuple[str, Any], ...]) -> str:
    """The source of a kernel file with its macros defined."""
    return "".join(f"#define {key} {value}\n" for key, value in macros) + file(package, name)


def own_source(name: str, macros: tuple[tuple[str, Any], ...]) -> str:
    """The source of a kernel file of this folder."""
    return source(__package__, name, macros)


def macros_for(dtype: DType, wide: bool) -> tuple[tuple[str, Any], ...]:
    """The macros that every kernel file takes: the type of elements and that of offsets."""
    return ("T", memory_type(dtype)), ("INDEX", INDEX[wide].name)


def arguments_of(index: type, *values: int | Memory) -> list[Any]:
    """Memories as they are, numbers as offsets."""
    return [index(v) if isinstance(v, int) else v for v in values]


def launch(
    runtime: Runtime, text: str, name: str, label: str, items: Triple, local: Triple, arguments: list[Any], out: Memory
) -> None:
    """Enqueue a kernel that writes into `out`."""
    runtime.launch(label, runtime.programs.kernel(text, name, label), items, local, *arguments, writes=(out,))


# Tiles.


@dataclass(frozen=True)
class Tiles:
    """Tiles of a group of `across` x `down` items, each with `rows` x `columns` of the result; `terms` at a time."""

    across: int
    down: int
    rows: int
    columns: int
    terms: int = 16

    def nbytes(self, itemsize: int) -> int:
        """Bytes of memory that a group shares."""
        return self.terms * (self.down * self.rows + 1 + self.across * self.columns) * itemsize


TILES = (Tiles(16, 16, 4, 4), Tiles(16, 16, 8, 8), Tiles(16, 8, 4, 4), Tiles(8, 8, 4, 4), Tiles(8, 8, 2, 2))


def tiled(runtime: Runtime, label: str, given: Product, tiles: Tiles = TILES[0]) -> None:
    """Enqueue a product in tiles."""
    a, b, out, dtype, index = given.a, given.b, given.out, given.dtype, given.offsets
    rows, columns, terms = given.sizes
    batch, count, bias = given.batch, given.matrices, given.bias
    kind = memory_type(dtype)
    macros: list[tuple[str, Any]] = [
        ("T", kind), ("SUM", kind), ("INDEX", index.name),
        ("TX", tiles.across), ("TY", tiles.down), ("RM", tiles.rows), ("RN", tiles.columns), ("TK", tiles.terms),
        ("BIAS", 0 if bias is None else bias.axis + 1),
    ]  # fmt: skip
    macros += [("A_TERMS", 1)] if not isinstance(a.column, int) else []
    macros += [("B_TERMS", 1)] if not isinstance(b.row, int) else []
    macros += [("B_COLUMNS", 1)] if not isinstance(b.column, int) else []
    macros += [("PLACES", 1)] if out.places is not None else []
    arguments = [
        *arguments_of(index.type, a.memory, a.offset, a.row, a.column, *a.batch),
        *arguments_of(index.type, b.memory, b.offset, b.row, b.column, *b.batch),
        *added(index.type, bias, a.memory),
        *arguments_of(index.type, out.memory, out.offset, out.row, out.batch, rows * columns * count),
        *places_of(index.type, out.places),
        *arguments_of(index.type, rows, columns, terms, batch[1], batch[2], count, -(-terms // given.parts)),
    ]
    across, down = -(-columns // (tiles.across * tiles.columns)), -(-rows // (tiles.down * tiles.rows))
    items = (across * tiles.across, down * tiles.down, count * given.parts)
    text = own_source("tiled_product.c", tuple(macros))
    launch(runtime, text, "tiled_product", label, items, (tiles.across, tiles.down, 1), arguments, out.memory)


def places_of(index: type, places: Places | None) -> list[Any]:
    """The arguments that tell of places."""
    return [] if places is None else arguments_of(index, *places.sizes, *places.all_sizes, *places.strides)


def added(index: type, bias: Bias | None, otherwise: Memory) -> list[Any]:
    """The arguments that tell of a bias; without one, of any memory."""
    given = bias or Bias(otherwise, 0, 0, 1)
    return arguments_of(index, given.memory, given.offset, given.stride, given.batch)
