"""Methods that give the same elements in another shape, or some of them: reshape, permute, split, gather, and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hal import ops
from hal.functions import joining, selecting, shaping

if TYPE_CHECKING:
    from hal.tensor import Tensor


class Shapes:
    """Methods of `Tensor` about shapes and places."""

    __slots__ = ()

    reshape, view, reshape_as, view_as = shaping.reshape, shaping.view, shaping.reshape_as, shaping.reshape_as
    flatten, ravel, unflatten = shaping.flatten, shaping.ravel, shaping.unflatten
    squeeze, unsqueeze = shaping.squeeze, shaping.unsqueeze
    permute, transpose, movedim, moveaxis = shaping.permute, shaping.transpose, shaping.moveaxis, shaping.moveaxis
    swapaxes = swapdims = shaping.transpose
    t = shaping.t
    expand, expand_as, broadcast_to = shaping.expand, shaping.expand_as, shaping.broadcast_to
    repeat, tile, repeat_interleave = shaping.repeat_all, shaping.tile, shaping.repeat_interleave
    flip, roll = shaping.flip, shaping.roll
    narrow, select = shaping.narrow, shaping.select
    diagonal, diag, tril, triu = shaping.diagonal, shaping.diag, shaping.tril, shaping.triu

    split, chunk, tensor_split, unbind = joining.split, joining.chunk, joining.tensor_split, joining.unbind

    take_along_dim, index_select, gather = selecting.take_along_dim, selecting.index_select, selecting.gather
    scatter, scatter_add = selecting.scatter, selecting.scatter_add
    index_add, index_copy, index_fill = selecting.index_add, selecting.index_copy, selecting.index_fill
    masked_select, nonzero, argwhere = selecting.masked_select, selecting.nonzero_rows, selecting.argwhere

    def take(self: Any, index: Tensor) -> Tensor:
        """The elements with these numbers, counted in the flattened tensor. Source: torch.take."""
        return ops.take(self.ravel(), index, axis=0)

    @property
    def T(self: Any) -> Tensor:
        """With the axes in reverse order. Source: torch.Tensor.T."""
        return ops.permute(self, axes=tuple(range(self.ndim))[::-1])

    @property
    def mT(self: Any) -> Tensor:
        """With the last two axes exchanged. Source: torch.Tensor.mT."""
        return shaping.matrix_transpose(self)

    @property
    def H(self: Any) -> Tensor:
        """A matrix transposed and conjugated. Source: torch.Tensor.H."""
        return ops.conj(shaping.t(self))

    @property
    def mH(self: Any) -> Tensor:
        """With the last two axes exchanged, conjugated. Source: torch.Tensor.mH."""
        return ops.conj(shaping.matrix_transpose(self))
