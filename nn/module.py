"""Modules: what layers and networks are made of. They register their parameters, buffers and parts by attribute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import hal
from hal import dtypes, scopes, tracing
from hal.creation import DeviceLike
from hal.dtypes import DType
from hal.errors import HalError
from hal.tensor import Tensor
from nn import hooks
from nn.hooks import Hook, Hooks, RemovableHandle
from nn.locating import locate
from nn.naming import named
from nn.parameter import Parameter, is_lazy
from nn.registration import check_name, no_attribute, not_begun
from nn.stateful import Stateful
from nn.traversal import Traversal


def _no_forward(self: Module, *args: Any, **kwargs: Any) -> Any:
    name = type(self).__name__
    raise NotImplementedError(
        f"{name} has no forward: write `def forward(self, x)` in class {name} to say what it computes"
    )


class Module(Traversal, Stateful):
    """Base of all layers and networks: write `__init__`, which calls `super().__init__()` first, and `forward`.

    Parameters, modules and registered buffers that are assigned to attributes are found by themselves.

    >>> class Net(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.scale = Parameter(hal.tensor([2.0]))
    ...
    ...     def forward(self, x):
    ...         return x * self.scale
    >>> Net()(hal.tensor([3.0])).tolist()
    [6.0]

    Attributes:
        training: whether `train()` (as at the beginning) or `eval()` was called last.

    Source: torch.nn.Module.
    """

    training: bool
    _forward_hooks: Hooks
    _forward_pre_hooks: Hooks
    _backward_hooks: Hooks
    _backward_pre_hooks: Hooks
    _may_be_missing: frozenset[str] = frozenset()  # names that older state dictionaries lack

    _compiled: Callable[..., Any] | None = None

    forward: Callable[..., Any] = _no_forward

    def __init__(self) -> None:
        self.__dict__.update(
            training=True, _parameters={}, _buffers={}, _modules={}, _non_persistent_buffers_set=set(),
            _forward_hooks={}, _forward_pre_hooks={}, _backward_hooks={}, _backward_pre_hooks={},
        )  # fmt: skip

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if tracing.tracer is not None:
            tracing.guard_attribute(self, "training")
        elif self._compiled is not None:
            return self._compiled(*args, **kwargs)
        try:
            if scopes.listeners:
                return named(self, lambda: hooks.call(self, args, kwargs))
            if self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks:
                return hooks.call(self, args, kwargs)
            return self.forward(*args, **kwargs)
        except (HalError, IndexError) as error:
            locate(error, self)
            raise

    # Attributes.

    def __getattr__(self, name: str) -> Any:
        known = self.__dict__
        if "_parameters" not in known:
            raise not_begun(self, f"has no attribute {name!r} yet")
        if name in (parameters := known["_parameters"]):  # written out, since every forward pass comes here
            return parameters[name]
        if name in (modules := known["_modules"]):
            return modules[name]
        if name in (buffers := known["_buffers"]):
            return buffers[name]
        raise no_attribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        known = self.__dict__
        kind = "_parameters" if isinstance(value, Parameter) else "_modules" if isinstance(value, Module) else ""
        if kind:
            if kind not in known:
                raise not_begun(
                    self, f"cannot keep the {'parameter' if kind == '_parameters' else 'module'} {name!r} yet"
                )
            if name not in known[kind]:
                check_name(name)
            for table in (known, known["_parameters"], known["_buffers"], known["_modules"]):
                if table is not known[kind]:
                    table.pop(name, None)
            known["_non_persistent_buffers_set"].discard(name)
            known[kind][name] = value
            return
        for table, needed in (
            ("_parameters", "an nn.Parameter"),
            ("_modules", "an nn.Module"),
            ("_buffers", "a tensor"),
        ):
            if name in known.get(table, ()):
                if value is not None and not (table == "_buffers" and isinstance(value, Tensor)):
                    raise TypeError(
                        f"{type(self).__name__}.{name} needs {needed} or None, got {type(value).__name__}; "
                        f"to keep something else there, `del` it first"
                    )
                known[table][name] = value
                return
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(table, ()):
                del self.__dict__[table][name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*object.__dir__(self), *self._parameters, *self._buffers, *self._modules}
        return sorted(n for n in names if not n[:1].isdigit())

    def _check_new(self, kind: str, name: str, table: Mapping[str, Any]) -> None:
        if "_parameters" not in self.__dict__:
            raise not_begun(self, f"cannot keep the {kind} {name!r} yet")
        check_name(name)
        if hasattr(self, name) and name not in table:
            raise KeyError(
                f"{type(self).__name__} has an attribute {name!r} already: choose another name for the {kind}"
            )

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter, or None where one may come later.

        Raises:
            KeyError: the name is taken or cannot be part of a key.
            TypeError: not a Parameter.
        """
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"register_parameter({name!r}) needs an nn.Parameter or None, got {type(param).__name__}")
        if param is not None and param.node is not None:
            raise ValueError(
                f"register_parameter({name!r}) needs a leaf, this one was computed: compute it in forward()"
            )
        self._check_new("parameter", name, self.__dict__.get("_parameters", {}))
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the module's state but is not trained, such as running statistics.

        Args:
            persistent: whether it is part of `state_dict()`.

        Raises:
            KeyError: the name is taken or cannot be part of a key.
            TypeError: not a tensor.
        """
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"register_buffer({name!r}) needs a tensor or None, got {type(tensor).__name__}")
        self._check_new("buffer", name, self.__dict__.get("_buffers", {}))
        self._buffers[name] = tensor
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a part, as assigning it to the attribute `name` does.

        Raises:
            KeyError: the name is taken or cannot be part of a key.
            TypeError: not a Module.
        """
        given: Any = module
        if not isinstance(given, Module | None):
            what = f"the class {given.__name__}: call it" if isinstance(given, type) else type(given).__name__
            raise TypeError(f"add_module({name!r}) needs an nn.Module or None, got {what}")
        self._check_new("module", name, self.__dict__.get("_modules", {}))
        self._modules[name] = module

    register_module = add_module

    def compile(self, **options: Any) -> None:
        """Let calls of this module be traced and replayed: `hal.compile`, in place, with its options.

        Source: torch.nn.Module.compile.
        """
        self._compiled = None
        self._compiled = hal.compile(self, **options)

    # Modes, and what is done to all parts at once.

    def train(self, mode: bool = True) -> Self:
        """Switch the module and all its parts to training (dropout drops, batch norms learn), or with False to use."""
        if not isinstance(mode, bool):
            raise ValueError(f"train() needs True or False, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """The same as `train(False)`."""
        return self.train(False)

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every part, those of a part before itself, and on the module last: for initialisation."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Say for all parameters whether they require gradients; `False` freezes the module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zero."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = parameter.grad.detach().zero_()

    # Moving and converting.

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Replace every parameter, gradient and buffer by what `fn` makes of it; parameters stay the same objects."""
        with hal.no_grad():
            for parameter in self.parameters():
                parameter._replace(fn)
            for module in self.modules():
                for name, buffer in module._buffers.items():
                    if buffer is not None and is_lazy(buffer):
                        buffer._replace(fn)
                    elif buffer is not None:
                        module._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, device: DeviceLike = None, dtype: Any = None, non_blocking: bool = False) -> Self:
        """Move all parameters and buffers to a device, convert the floating ones to a dtype, or both.

        `to(device)`, `to(dtype)`, `to(device, dtype)` and `to(tensor)`, which means the tensor's device and dtype.
        The parameters stay the same objects, so that an optimizer made before keeps working.

        Raises:
            TypeError: the dtype is not a floating one.
            DeviceError: there is no such device.
        """
        for arg in args:
            if isinstance(arg, Tensor):
                device, dtype = arg.device, arg.dtype
            elif isinstance(arg, (DType, type)) or (isinstance(arg, str) and arg in _DTYPE_NAMES):
                dtype = arg
            elif isinstance(arg, (str, hal.Device)):
                device = arg
            elif arg is not None and not isinstance(arg, bool):
                raise TypeError(
                    f"{type(self).__name__}.to() takes a device, a dtype or a tensor, got {type(arg).__name__}"
                )
        where = None if device is None else hal.device(device)
        what = None if dtype is None else dtypes.dtype(dtype)
        if what is not None and not what.is_inexact:
            raise TypeError(
                f"{type(self).__name__}.to() needs a floating-point dtype, got {what!r}: weights cannot be integers"
            )

        def move(x: Tensor) -> Tensor:
            if what is not None and x.dtype.is_inexact:
                x = x.to(what)
            return x if where is None else x.to(where)

        return self._apply(move)

    def to_empty(self, *, device: DeviceLike, recurse: bool = True) -> Self:
        """Give all parameters and buffers new memory on a device, with unknown contents: for what is to be loaded.

        Source: torch.nn.Module.to_empty.
        """
        where = hal.device(device)
        return self._apply(lambda x: hal.empty(*x.shape, dtype=x.dtype, device=where))

    def cpu(self) -> Self:
        """Move to the device `cpu`."""
        return self.to("cpu")

    def cuda(self, device: int | DeviceLike = None) -> Self:
        """Move to the device `cuda`, or `cuda:N` for a number."""
        return self.to(f"cuda:{device}" if isinstance(device, int) else device or "cuda")

    def type(self, dst_type: Any) -> Self:
        """Convert all parameters and buffers, integers too, to a dtype."""
        return self._apply(lambda x: x.to(dtypes.dtype(dst_type)))

    def float(self) -> Self:
        """Convert to float32."""
        return self.to(dtypes.float32)

    def double(self) -> Self:
        """Convert to float64."""
        return self.to(dtypes.float64)

    def half(self) -> Self:
        """Convert to float16."""
        return self.to(dtypes.float16)

    def bfloat16(self) -> Self:
        """Convert to bfloat16."""
        return self.to(dtypes.bfloat16)

    # Hooks.

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before `forward`; what it returns, if not None, replaces the arguments."""
        return hooks.add_hook(self._forward_pre_hooks, Hook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after `forward`; what it returns, if not None, replaces the output."""
        return hooks.add_hook(self._forward_hooks, Hook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` in the backward pass; what it returns replaces `grad_input`."""
        return hooks.add_hook(self._backward_hooks, Hook(hook), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_output)` before the module's backward pass; its result replaces `grad_output`."""
        return hooks.add_hook(self._backward_pre_hooks, Hook(hook), prepend)

    # What it looks like.

    def _get_name(self) -> str:
        return self.__class__.__name__

    def extra_repr(self) -> str:
        """What a layer says of itself between the parentheses when it is printed."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        if len(lines) == 1 and not self._modules:
            return f"{self._get_name()}({extra})"
        lines += [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
        return f"{self._get_name()}(" + "".join(f"\n  {line}" for line in lines) + ("\n)" if lines else ")")


_DTYPE_NAMES = {d.name for d in dtypes.ALL}
