"""Methods that make a new tensor in the likeness of this one: same dtype and device, unless told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hal.tensor import Tensor


class Making:
    """Methods of `Tensor` that make others."""

    __slots__ = ()

    def new_tensor(
        self: Any, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
    ) -> Tensor:
        """A new tensor with a copy of `data`. Source: torch.Tensor.new_tensor."""
        from hal import creation

        out = creation.tensor(data, dtype or self.dtype, device or self.device, requires_grad)
        return _at(self, device, out)

    def new_full(self: Any, size: Any, fill_value: Any, **options: Any) -> Tensor:
        """`fill_value` everywhere. Source: torch.Tensor.new_full."""
        from hal import creation

        return _at(self, options.get("device"), creation.full(size, fill_value, **_options(self, options)))

    def new_zeros(self: Any, *size: Any, **options: Any) -> Tensor:
        """Zeros. Source: torch.Tensor.new_zeros."""
        from hal import creation

        return _at(self, options.get("device"), creation.zeros(*size, **_options(self, options)))

    def new_ones(self: Any, *size: Any, **options: Any) -> Tensor:
        """Ones. Source: torch.Tensor.new_ones."""
        from hal import creation

        return _at(self, options.get("device"), creation.ones(*size, **_options(self, options)))

    def new_empty(self: Any, *size: Any, **options: Any) -> Tensor:
        """A tensor whose contents do not matter. Source: torch.Tensor.new_empty."""
        from hal import creation

        return _at(self, options.get("device"), creation.empty(*size, **_options(self, options)))

    def zeros_like(self: Any) -> Tensor:
        """Zeros in the shape of this tensor."""
        return self.new_zeros(self.shape)

    def ones_like(self: Any) -> Tensor:
        """Ones in the shape of this tensor."""
        return self.new_ones(self.shape)


def _options(like: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "dtype": given.get("dtype") or like.dtype, "device": given.get("device") or like.device}


def _at(like: Any, device: Any, out: Tensor) -> Tensor:
    """`out`, which is where it is because `like` is there, if no device was named."""
    if device is None:
        out.origin = like.origin
    return out
