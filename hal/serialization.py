"""save and load: tensors, and lists, tuples and dictionaries of them, in one safetensors file. Nothing is executed.

The tensors lie in the file as any reader of safetensors finds them; what holds them together is JSON in its metadata.
A file is written beside its place, synced and renamed, so that a crash leaves the old one or the new one whole.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes
from hal.errors import DataError, DTypeError
from hal.interop import host_array
from hal.op import Array
from hal.spec import Spec
from hal.tensor import Tensor

if TYPE_CHECKING:
    from hal.creation import DeviceLike

PathLike = str | os.PathLike[str]
KEY = "hal"  # of our entry in the metadata
FORMAT = 1
_PARTS = {"complex64": np.float32, "complex128": np.float64}  # complex numbers are stored as pairs of these
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how files that torch and pickle write begin


# What holds the tensors together.


class _Writer:
    """Turns an object into JSON and a table of arrays."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[Any, str] = {}  # by the memory of a tensor, so that shared memory is stored once
        self._tensors: dict[int, int] = {}  # numbers of tensor objects, so that one object comes back as one
        self._alive: list[Any] = []  # keeps ids from being used again while we go on

    def encode(self, value: Any, path: str) -> Any:
        """`value` as JSON; tensors are put into the table under names made of `path`."""
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        if isinstance(value, complex):
            return {"complex": [repr(value.real), repr(value.imag)]}
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if isinstance(value, np.generic):
            return self.encode(value.item(), path)
        if isinstance(value, np.ndarray):
            return {"array": self._store(value, path), **_complex_note(value.dtype.name)}
        if isinstance(value, dtypes.DType):
            return {"dtype": value.name}
        if isinstance(value, dict):
            kind = "ordered" if isinstance(value, OrderedDict) else "dict"
            for key in value:
                if not isinstance(key, (str, int)) or isinstance(key, bool):
                    where = path or "the object"
                    raise DTypeError(f"save takes dictionaries with str and int keys, got {key!r} in {where}")
            return {kind: [[key, self.encode(v, _below(path, key))] for key, v in value.items()]}
        if isinstance(value, (list, tuple)):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [self.encode(v, _below(path, i)) for i, v in enumerate(value)]}
        raise DTypeError(
            f"save takes tensors, arrays, numbers, strings, None, and lists, tuples and dictionaries of them, "
            f"got {type(value).__name__} in {path or 'the object'}"
        )

    def _tensor(self, x: Tensor, path: str) -> Any:
        self._alive.append(x)
        memory = (id(x.storage), x.spec) if x.parent is None else id(x)
        name = self._names.get(memory)
        if name is None:
            name = self._names[memory] = self._store(host_array(x, "save"), path)
        number = self._tensors.setdefault(id(x), len(self._tensors))
        note: dict[str, Any] = {"tensor": name, "number": number, **_complex_note(x.dtype.name)}
        if x.tracked and x.node is None:
            note["requires_grad"] = True
        return note

    def _store(self, array: Array, path: str) -> str:
        name, n = path or "value", 2
        while name in self.arrays:
            name, n = f"{path}#{n}", n + 1
        dtypes.of(array.dtype)  # raises for what no tensor holds
        parts = _PARTS.get(array.dtype.name)
        array = np.ascontiguousarray(array).reshape(array.shape)
        self.arrays[name] = array if parts is None else array.reshape(*array.shape, 1).view(parts)
        return name


def _below(path: str, key: str | int) -> str:
    return f"{path}.{key}" if path else str(key)


def _complex_note(dtype: str) -> dict[str, str]:
    return {"complex": dtype} if dtype in _PARTS else {}


class _Reader:
    """Turns JSON and a table of arrays into the object they were made from."""

    def __init__(self, arrays: dict[str, Array], device: DeviceLike) -> None:
        self.arrays = arrays
        self.device = device
        self._memory: dict[tuple[str, str], Tensor] = {}
        self._tensors: dict[int, Tensor] = {}

    def decode(self, value: Any) -> Any:
        """The object of this JSON."""
        if not isinstance(value, dict):
            return value
        match value:
            case {"tensor": name, "number": number}:
                return self._tensor(name, number, value)
            case {"array": name}:
                return self._array(name, value.get("complex", "")).copy()
            case {"dict": pairs}:
                return {key: self.decode(v) for key, v in pairs}
            case {"ordered": pairs}:
                return OrderedDict((key, self.decode(v)) for key, v in pairs)
            case {"list": items}:
                return [self.decode(v) for v in items]
            case {"tuple": items}:
                return tuple(self.decode(v) for v in items)
            case {"float": text}:
                return float(text)
            case {"complex": [real, imag]}:
                return complex(float(real), float(imag))
            case {"dtype": name}:
                return dtypes.dtype(name)
        raise KeyError(f"an entry of a kind that this version does not know: {sorted(value)}")

    def _tensor(self, name: str, number: int, note: dict[str, Any]) -> Tensor:
        found = self._tensors.get(number)
        if found is None:
            kind = note.get("complex", "")
            first = self._memory.get((name, kind))
            if first is None:
                found = self._memory[name, kind] = self.place(self._array(name, kind))
            else:
                found = first.detach()  # another tensor on the same memory
            found.tracked = bool(note.get("requires_grad"))
            self._tensors[number] = found
        return found

    def _array(self, name: str, kind: str) -> Array:
        array = self.arrays[name]
        return array.view(kind).reshape(array.shape[:-1]) if kind else array

    def place(self, array: Array) -> Tensor:
        """A tensor with the contents of an array that is ours to keep."""
        from hal.creation import placed
        from hal.transfer import upload

        where, origin = placed(self.device)
        spec = Spec(array.shape, dtypes.of(array.dtype))
        return Tensor(upload(array, spec, where), spec, where, origin)


# Files.


def save(obj: Any, path: PathLike) -> None:
    """Write tensors, numbers, strings, None, and lists, tuples and dictionaries of them (str and int keys) to a file.

    Tensors that share all their memory are stored once. What is not a leaf is stored without its history. The file is
    a safetensors file; other readers find each tensor under its path, such as `model.layer.weight`.

    Raises:
        DTypeError: something else is in it; the message says where.
        DataError: the file cannot be written. The old one, if there was one, is as it was.

    Source: torch.save; safetensors.
    """
    writer = _Writer()
    skeleton = {"format": FORMAT, "value": writer.encode(obj, "")}
    write_safetensors(writer.arrays, Path(path), {KEY: json.dumps(skeleton)})


def write_safetensors(arrays: dict[str, Array], path: Path, metadata: dict[str, str]) -> None:
    """Write arrays to a safetensors file that, whatever happens, is afterwards the old one or the new one, and whole.

    Raises:
        DataError: it cannot be written.
    """
    import shutil

    from safetensors.numpy import save_file

    # A folder, for safetensors writes under a name of its own first: so all that a crash can leave is in one place.
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    whole = beside / path.name
    try:
        beside.mkdir()
        whole.touch()
        mode = whole.stat().st_mode & 0o777  # what a new file gets here; safetensors' are for their owner alone
        save_file(arrays, whole, metadata)
        whole.chmod(mode)
        with open(whole, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(whole, path)
        _sync_folder(path.parent)
    except Exception as error:  # safetensors has errors of its own for a full disk
        raise DataError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}; "
            "check that the folder exists, may be written to, and has room"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Make the new name as lasting as the contents: on POSIX a folder is synced like a file, elsewhere it cannot be."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def load(path: PathLike, device: DeviceLike = None) -> Any:
    """What `save` wrote, with its tensors on `device` (the default device if none is given).

    A safetensors file that something else wrote gives a dictionary of its tensors.

    Raises:
        DataError: no such file, a truncated or corrupt one, or one of another kind.

    Source: torch.load, which this is safer than: nothing in the file is executed.
    """
    file = Path(path)
    arrays, metadata = read_safetensors(file)
    reader = _Reader(arrays, device)
    if KEY not in metadata:
        return {name: reader.place(array) for name, array in arrays.items()}
    try:
        skeleton = json.loads(metadata[KEY])
        if skeleton["format"] > FORMAT:
            raise DataError(
                f"{file} is of format {skeleton['format']}, this version of hal reads up to {FORMAT}: use a newer hal"
            )
        return reader.decode(skeleton["value"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{file} should hold what hal.save wrote, but its description cannot be read ({error!r}): save it again"
        ) from error


def read_safetensors(file: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    Raises:
        DataError: there is none, or it is truncated, corrupt, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with open(file, "rb") as opened:
            start = opened.read(8)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}; check the path") from error
    try:
        with safe_open(file, framework="np") as opened_file:
            arrays = {name: opened_file.get_tensor(name) for name in opened_file.keys()}  # noqa: SIM118  # no mapping
            return arrays, opened_file.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if start.startswith((_ZIP, _PICKLE)):
            raise DataError(
                f"{file} should be a safetensors file, but begins like a pickle or a file of torch.save, which can run "
                "any code when read, so hal reads none: convert it where it came from, with safetensors.torch.save_file"
            ) from None
        size = file.stat().st_size
        raise DataError(
            f"{file} should be a whole safetensors file, but its {size:,} bytes are not ({error}): "
            "it was cut off, damaged, or is of another kind; copy or save it again"
        ) from error
