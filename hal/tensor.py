"""The tensor: a buffer on a device, its spec, and how it was made. Its methods are in `hal.methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hal import tracing
from hal.device import Device
from hal.dtypes import DType
from hal.errors import GradientError
from hal.methods import Methods
from hal.source import Line
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.op import Op
    from hal.recording import Hook, Node


class Storage:
    """Memory that one or more tensors share.

    Attributes:
        buffer: the backend's; `Waiting` while the contents are elsewhere.
        version: counts changes of the contents; a gradient that saved a tensor checks it.
        generation: counts replacements of the buffer itself, after which views of it must be made again.
        borrowed: whether the memory is somebody else's, so that the contents must stay in it.
        shown: whether somebody else was given it, who may change the contents without a new version.
    """

    __slots__ = ("borrowed", "buffer", "generation", "shown", "version")

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer
        self.version = 0
        self.generation = 0
        self.borrowed = self.shown = False


class Waiting:
    """Contents that wait in other memory, where plans want them: stands where a storage's buffer would.

    Who asks a tensor for its buffer brings them back.

    Attributes:
        buffer, where: the contents, and the device that they wait on.
        spec, home: what they are, and the device that they come back to.
        ever: whether there may have been one in this process, so that the others need not look for any.
    """

    __slots__ = ("buffer", "home", "spec", "where")
    ever = False

    def __init__(self, buffer: Any, where: Device, spec: Spec, home: Device) -> None:
        self.buffer, self.where, self.spec, self.home = buffer, where, spec, home
        Waiting.ever = True

    def back(self) -> Any:
        """The contents at home."""
        from hal.transfer import move

        return move(self.buffer, self.spec, self.where, self.home)


class Origin:
    """Why a tensor is where it is: how strongly it was placed there, and the user's line that did it.

    Strength 0: a constant; 1: it landed there by default; 2: on purpose; 3: a parameter.
    """

    __slots__ = ("line", "strength")

    def __init__(self, strength: int, line: Line | None) -> None:
        self.strength = strength
        self.line = line


CONSTANT = Origin(0, None)


class Tensor(Methods):
    """An n-dimensional array on a device, with the history that gradients need.

    Made by `hal.tensor`, `hal.zeros`, … and by operations, never by calling the class.

    Attributes:
        spec: shape and dtype.
        device: where the contents are.
        storage: the memory, which views and detached tensors share.
        node: the recorded operation that made this tensor; None for leaves.
        tracked: whether operations on this tensor are recorded (torch's requires_grad).
        hooks: functions that see (and may change) the gradient of a leaf; not set until there is one.
        parent, made_by, seen: for a view: of what, by which op and settings, and the parent's history at that time.
    """

    __slots__ = (
        "__weakref__", "_buffer", "_generation", "_grad", "device", "hooks", "index", "made_by", "node", "origin",
        "parent",
        "seen", "spec", "storage", "tracked",
    )  # fmt: skip

    spec: Spec
    device: Device
    storage: Storage
    _grad: Tensor | None
    node: Node | None
    index: int
    tracked: bool
    parent: Tensor | None
    made_by: tuple[Op, dict[str, Any]]
    seen: Node | None
    origin: Origin
    hooks: list[Hook]

    def __init__(self, buffer: Any, spec: Spec, device: Device, origin: Origin) -> None:
        self.storage = Storage(buffer)
        self._buffer = buffer
        self._generation = 0
        self.spec = spec
        self.device = device
        self.origin = origin
        self.node = None
        self.tracked = False
        self._grad = None
        self.parent = None
        self.index = 0

    @property
    def shape(self) -> Shape:
        """Size along each axis."""
        return self.spec.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.spec.ndim

    @property
    def buffer(self) -> Any:
        """The backend's buffer with the present contents."""
        return self._buffer if self._generation == self.storage.generation else self.refresh()

    def refresh(self) -> Any:
        """The buffer, made again after the storage got another one."""
        if self.parent is None:
            if type(self.storage.buffer) is Waiting:
                self.storage.buffer = self.storage.buffer.back()
            self._buffer = self.storage.buffer
        else:
            from hal import dispatch
            from hal.recording import no_grad

            op, settings = self.made_by
            with no_grad():
                self._buffer = dispatch.run(op, (self.parent,), dict(settings))._buffer
        self._generation = self.storage.generation
        return self._buffer

    def renew_history(self) -> None:
        """For a view whose parent was changed in place: its history is now that of the changed parent."""
        assert self.parent is not None
        if self.parent.parent is not None:
            self.parent.renew_history()
        if self.parent.node is not self.seen:
            from hal import dispatch

            op, settings = self.made_by
            again = dispatch.run(op, (self.parent,), dict(settings))
            self.node, self.index, self.tracked, self.seen = again.node, again.index, again.tracked, self.parent.node

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` has summed up here, for leaves that require one."""
        if tracing.tracer is not None and (tracer := tracing.active()) is not None:
            tracer.grad_read(self)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if tracing.tracer is not None and (tracer := tracing.active()) is not None:
            tracer.grad_write(self)
        self._grad = value

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded, so that gradients reach it."""
        return self.tracked

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and not self.dtype.is_inexact:
            raise GradientError(f"only floating-point tensors can require gradients, this one is {self.dtype.name}")
        if not value and self.node is not None:
            raise GradientError("requires_grad can only be switched off on a leaf; use .detach() on a computed tensor")
        self.tracked = value

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was not made by a recorded operation."""
        return self.node is None

    @property
    def grad_fn(self) -> Node | None:
        """The recorded operation that made this tensor (torch's name)."""
        return self.node

    def detach(self) -> Tensor:
        """A tensor that shares this one's memory and has no history."""
        alias = Tensor(None, self.spec, self.device, self.origin)
        alias.storage, alias._buffer, alias._generation = self.storage, self._buffer, self._generation
        if self.parent is not None:
            alias.parent, alias.made_by, alias.seen = self.parent.detach(), self.made_by, None
        return alias

    @property
    def data(self) -> Tensor:
        """The contents without the history: shares memory; assigning replaces contents, shape and device."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        self._take(value)

    def _take(self, value: Tensor) -> None:
        """Have the contents, shape and device of another from now on."""
        source = value.detach()
        tracer = tracing.active()
        if tracer is not None and tracer.is_traced(source) and not tracer.is_traced(self):
            from hal.inplace import assign, fit

            assign(self.detach(), fit("assigning to .data", self.detach(), source))  # the memory stays, in a trace
            return
        self.storage, self._buffer, self._generation = source.storage, source._buffer, source._generation
        self.spec, self.device, self.origin, self.parent = source.spec, source.device, source.origin, source.parent
        if source.parent is not None:
            self.made_by, self.seen = source.made_by, None
