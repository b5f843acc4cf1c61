"""Reads the IDX format, which MNIST and its kin come in: a magic number, the dimensions, then the elements.

The magic number is two zero bytes, a code for the element type and the number of dimensions; each dimension is a
big-endian 32-bit integer, and the elements follow in row-major order, big-endian too
(LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "File formats").
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from hal.errors import DataError

ELEMENTS = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20


def read_idx(path: Path) -> tuple[NDArray[Any], str]:
    """The array in an IDX file, plain or gzip-compressed, and the md5 of its uncompressed bytes.

    Whether a file is compressed is seen from its first bytes, not from its name.

    Raises:
        DataError: if the file cannot be read, is not IDX, or has fewer or more bytes than its header says.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            return _parse(cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: needed a whole gzip file, got a truncated or damaged one ({error}): get the file again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parse(file: BinaryIO | io.BufferedReader, path: Path) -> tuple[NDArray[Any], str]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in ELEMENTS:
        raise DataError(
            f"{path}: needed an IDX file, which starts with 00 00, an element type and the number of dimensions, "
            f"got {magic.hex(' ') or 'an empty file'}{_guess(magic)}: get the file again"
        )
    element, ndim = np.dtype(ELEMENTS[magic[2]]), magic[3]
    dimensions = file.read(4 * ndim)
    if len(dimensions) < 4 * ndim:
        raise DataError(f"{path}: truncated in its header of {4 + 4 * ndim} bytes: get the file again")
    shape = struct.unpack(f">{ndim}I", dimensions)
    needed = math.prod(shape) * element.itemsize
    content = bytearray()
    # In pieces, so that a header with absurd dimensions costs no memory that the file does not fill.
    while len(content) <= needed and (chunk := file.read(min(_CHUNK, needed + 1 - len(content)))):
        content += chunk
    if len(content) != needed:
        got = f"only {len(content)}: truncated" if len(content) < needed else "more: trailing bytes"
        raise DataError(
            f"{path}: needed {needed} bytes after the header for shape {shape} of {element.newbyteorder('=')}, "
            f"got {got}: get the file again"
        )
    digest = hashlib.md5(magic + dimensions, usedforsecurity=False)
    digest.update(content)
    array = np.frombuffer(content, element).reshape(shape)
    return array.astype(element.newbyteorder("="), copy=False), digest.hexdigest()


def _guess(magic: bytes) -> str:
    """What a file that is not IDX may be."""
    if magic[:1] == b"<":
        return " (a web page, saved in place of the file?)"
    if magic[:2] == b"PK":
        return " (a zip archive: unpack it)"
    return ""
