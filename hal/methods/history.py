"""Methods about gradients: backward, and what is kept of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hal import autodiff
from hal.errors import GradientError

if TYPE_CHECKING:
    from hal.recording import Hook
    from hal.tensor import Tensor


class Handle:
    """What `register_hook` gives: `remove()` takes the hook away again. Source: torch.utils.hooks.RemovableHandle."""

    def __init__(self, hooks: list[Hook], hook: Hook) -> None:
        self._hooks = hooks
        self._hook = hook

    def remove(self) -> None:
        """Take the hook away. Doing so twice is no error."""
        self._hooks[:] = [hook for hook in self._hooks if hook is not self._hook]


class History:
    """Methods of `Tensor` that have to do with gradients."""

    __slots__ = ()

    backward = autodiff.backward

    def requires_grad_(self: Any, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad`, in place. Source: torch.Tensor.requires_grad_."""
        self.requires_grad = requires_grad
        return self

    def detach_(self: Any) -> Tensor:
        """Forget the history, in place. Source: torch.Tensor.detach_."""
        if self.parent is not None and self.parent.tracked:
            raise GradientError("detach_() of a view would leave its base attached: use detach()")
        x: Any = self
        x.node, x.tracked = None, False
        return x

    def retain_grad(self: Any) -> None:
        """Let backward() fill `.grad` of this tensor though it is not a leaf. Source: torch.Tensor.retain_grad."""
        if not self.tracked:
            raise GradientError("retain_grad() needs a tensor that requires a gradient")
        if self.node is not None and not self.retains_grad:
            self.node.retained.append(self)

    def register_hook(self: Any, hook: Hook) -> Handle:
        """Call `hook(gradient)` when this tensor's gradient is known; what it returns, if not None, takes its place.

        Raises:
            GradientError: the tensor does not require a gradient.

        Source: torch.Tensor.register_hook.
        """
        if not self.tracked:
            raise GradientError("register_hook() needs a tensor that requires a gradient")
        x: Any = self
        if x.node is not None:
            x.node.hooks = x.node.hooks or {}
            hooks = x.node.hooks.setdefault(x.index, [])
        else:
            if not hasattr(x, "hooks"):
                x.hooks = []
            hooks = x.hooks
        hooks.append(hook)
        return Handle(hooks, hook)

    @property
    def retains_grad(self: Any) -> bool:
        """Whether backward() fills `.grad` of this tensor though it is not a leaf."""
        return self.node is not None and any(x is self for x in self.node.retained)
