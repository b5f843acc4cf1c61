"""oneDNN's C interface, as much of it as the kernels need: its constants, its objects, and how to make them.

Source: the documentation of oneDNN 3.2, https://oneapi-src.github.io/oneDNN/v3.2/.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_int, c_int64, c_size_t, c_uint, c_void_p
from typing import Any

from hal.errors import DeviceError
from hal_onednn.threads import Threads

FLOAT32, ANY_LAYOUT, CPU, IN_ORDER, SCRATCHPAD_FROM_US = 3, 1, 1, 1, 1
FORWARD_TRAINING, FORWARD_INFERENCE, BACKWARD = 64, 96, 128
DIRECT = 1
MAX_POOL, AVG_POOL_WITH_PADDING, AVG_POOL_WITHOUT_PADDING = 0x1FF, 0x2FF, 0x3FF
GIVEN_STATISTICS, WITH_SCALE, WITH_SHIFT = 1, 2, 4

# The numbers of a primitive's arguments.
SRC, DST, WEIGHTS, BIAS, MEAN, VARIANCE, SCALE, SHIFT, WORKSPACE, SCRATCHPAD = 1, 17, 33, 41, 49, 50, 51, 52, 64, 80
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_SCALE, DIFF_SHIFT = 129, 145, 161, 255, 256

# What can be asked of a primitive's description: the name of its implementation, and the layouts of arguments.
IMPLEMENTATION = 8
LAYOUT_OF = {SRC: 129, DIFF_SRC: 130, WEIGHTS: 131, DIFF_WEIGHTS: 132, DST: 133, DIFF_DST: 134, WORKSPACE: 135,
             SCRATCHPAD: 136}  # fmt: skip

STATUSES = {1: "out of memory", 2: "invalid arguments", 3: "not implemented", 6: "a runtime error"}
RUNTIMES = {1: "one thread", 2: "OpenMP", 4: "TBB"}  # the others want to be given threads or a queue


class OneDnnError(DeviceError):
    """oneDNN refused: the message says what, and why."""


class Version(ctypes.Structure):
    """What the library says of itself."""

    _fields_ = (
        ("major", c_int), ("minor", c_int), ("patch", c_int), ("hash", ctypes.c_char_p),
        ("cpu_runtime", c_uint), ("gpu_runtime", c_uint),
    )  # fmt: skip


class Argument(ctypes.Structure):
    """In which memory object the argument with this number is."""

    _fields_ = (("number", c_int), ("memory", c_void_p))


class Handle:
    """An object of the library. It destroys it in the end, unless that belongs to an `owner`, which it keeps alive."""

    __slots__ = ("_as_parameter_", "_destroy", "owner")

    def __init__(
        self, pointer: c_void_p, destroy: Callable[[c_void_p], Any] | None, owner: Handle | None = None
    ) -> None:
        self._as_parameter_ = pointer  # where ctypes looks for what to hand over
        self._destroy = destroy
        self.owner = owner

    def __del__(self) -> None:
        if self._destroy is not None:
            self._destroy(self._as_parameter_)


def dims(values: Sequence[int]) -> Any:
    """Sizes, strides or paddings as the library takes them."""
    return (c_int64 * 12)(*values)


class Api:
    """The functions of a loaded library. Those that make something raise OneDnnError where the library refuses."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.threads = Threads(library)
        library.dnnl_version.restype = POINTER(Version)
        library.dnnl_primitive_desc_query_md.restype = c_void_p
        library.dnnl_memory_desc_get_size.restype = c_size_t
        # Called for each call of a kernel, so bare; whoever calls them looks at the status that they give.
        self.set_pointer = library.dnnl_memory_set_data_handle
        self.set_pointer.argtypes = [c_void_p, c_void_p]
        self.execute = library.dnnl_primitive_execute
        self.execute.argtypes = [c_void_p, c_void_p, c_int, c_void_p]
        self.wait = library.dnnl_stream_wait
        self.wait.argtypes = [c_void_p]

    def start(self) -> None:
        """Make what every primitive needs: the CPU's engine, and the wish to give each primitive its scratch memory."""
        self.engine = self.create("engine", CPU, c_size_t(0))
        self.attributes = self.create("primitive_attr")
        self.check(
            "the mode of scratch memory",
            self._library.dnnl_primitive_attr_set_scratchpad_mode(self.attributes, SCRATCHPAD_FROM_US),
        )

    @staticmethod
    def check(what: str, status: int) -> None:
        """Raise OneDnnError if a call gave a status other than success."""
        if status:
            raise OneDnnError(f"oneDNN {what}: {STATUSES.get(status, f'status {status}')}")

    def create(self, kind: str, *arguments: Any, how: str = "") -> Handle:
        """A new object of this kind, by the function dnnl_<kind>_create<how>."""
        pointer = c_void_p()
        name = f"dnnl_{kind}_create{how}"
        self.check(name, getattr(self._library, name)(byref(pointer), *arguments))
        last = "primitive_desc" if kind.endswith("primitive_desc") else kind
        return Handle(pointer, getattr(self._library, f"dnnl_{last}_destroy"))

    def version(self) -> Version:
        """Its version and its runtime."""
        found: Version = self._library.dnnl_version().contents
        return found

    def layout(self, shape: Sequence[int], strides: Sequence[int] | None = None) -> Handle:
        """How a float32 array lies in memory, with its strides in elements; without, the library may choose."""
        if strides is None:
            return self.create("memory_desc", len(shape), dims(shape), FLOAT32, ANY_LAYOUT, how="_with_tag")
        return self.create("memory_desc", len(shape), dims(shape), FLOAT32, dims(strides), how="_with_strides")

    def size(self, layout: Handle) -> int:
        """How many bytes an array of this layout takes."""
        found: int = self._library.dnnl_memory_desc_get_size(layout)
        return found

    def same(self, one: Handle, other: Handle) -> bool:
        """Whether two layouts are the same."""
        return bool(self._library.dnnl_memory_desc_equal(one, other))

    def layout_of(self, description: Handle, argument: int) -> Handle:
        """The layout that a primitive wants an argument to have."""
        pointer = self._library.dnnl_primitive_desc_query_md(description, LAYOUT_OF[argument], 0)
        return Handle(c_void_p(pointer), None, owner=description)

    def implementation(self, description: Handle) -> str:
        """The name that the library gives to the implementation which it chose."""
        name = ctypes.c_char_p()
        self.check("a name", self._library.dnnl_primitive_desc_query(description, IMPLEMENTATION, 0, byref(name)))
        return (name.value or b"").decode()
