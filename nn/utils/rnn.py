"""Sequences of different lengths in one batch: padded with zeros, or packed without gaps for recurrent layers.

What lies where follows from the lengths alone, so it is worked out on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import hal
from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import Array
from hal.tensor import Tensor


class PackedSequence(NamedTuple):
    """The steps of several sequences without gaps: the first steps of all, then the second of all that have one, ...

    Attributes:
        data: (steps of all sequences together, ...).
        batch_sizes: int64 (longest), on the CPU: how many sequences have a step of each time.
        sorted_indices: int64 (sequences): which sequence is how manieth by length, or None if they came sorted.
        unsorted_indices: its reverse.

    Source: torch.nn.utils.rnn.PackedSequence.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with its data moved or converted, as `Tensor.to` does."""
        data = self.data.to(*args, **kwargs)
        moved = (None if i is None else i.to(data.device) for i in (self.sorted_indices, self.unsorted_indices))
        return PackedSequence(data, self.batch_sizes, *moved)


def _lengths(lengths: Tensor | Sequence[int]) -> Array:
    found = np.asarray(lengths.cpu().numpy() if isinstance(lengths, Tensor) else lengths)
    return found.astype(np.int64).reshape(-1)


def _places(lengths: Array) -> tuple[Array, Array]:
    """The time and the sequence of each packed step, for lengths that do not rise."""
    alive = np.arange(lengths.max(initial=0))[:, None] < lengths
    time, sequence = np.nonzero(alive)
    return time, sequence


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another. Source: torch.nn.utils.rnn.invert_permutation."""
    return None if permutation is None else ops.argsort(permutation)


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack a padded batch (time, batch, ...), or (batch, time, ...) if `batch_first`.

    Args:
        enforce_sorted: whether the lengths must not rise; if not, the sequences are sorted here.

    Raises:
        ShapeError: lengths that do not belong to the input, or rise.

    Source: torch.nn.utils.rnn.pack_padded_sequence.
    """
    x = input.transpose(0, 1) if batch_first else input
    sizes = _lengths(lengths)
    if len(sizes) != x.shape[1] or (sizes < 1).any() or (sizes > x.shape[0]).any():
        raise ShapeError(
            f"pack_padded_sequence needs {x.shape[1]} lengths from 1 to {x.shape[0]}, got {sizes.tolist()}"
        )
    order = None
    if not enforce_sorted:
        order = np.argsort(-sizes, kind="stable")
        sizes = sizes[order]
    elif (np.diff(sizes) > 0).any():
        raise ShapeError(
            f"pack_padded_sequence needs lengths that do not rise, got {sizes.tolist()}: sort the sequences, "
            "or pass enforce_sorted=False"
        )
    time, sequence = _places(sizes)
    flat = ops.reshape(x, shape=(x.shape[0] * x.shape[1], *x.shape[2:]))
    place = time * x.shape[1] + (sequence if order is None else order[sequence])
    data = ops.take(flat, hal.tensor(place, device=x.device), axis=0)
    batch_sizes = hal.tensor(np.bincount(time), device="cpu")
    if order is None:
        return PackedSequence(data, batch_sizes)
    indices = (hal.tensor(i.astype(np.int64), device=x.device) for i in (order, np.argsort(order)))
    return PackedSequence(data, batch_sizes, *indices)


def _lengths_of(sequence: PackedSequence) -> Array:
    """How long each sequence is, the longest first."""
    alive = np.asarray(sequence.batch_sizes.numpy())
    return (np.arange(alive.max(initial=0))[:, None] < alive).sum(1).astype(np.int64)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The reverse of `pack_padded_sequence`: the padded batch in its first order, and the lengths.

    Args:
        total_length: pad to this length, which is at least the longest.

    Raises:
        ShapeError: `total_length` is too short.

    Source: torch.nn.utils.rnn.pad_packed_sequence.
    """
    lengths = _lengths_of(sequence)
    longest = int(lengths.max(initial=0))
    if total_length is not None and total_length < longest:
        raise ShapeError(f"pad_packed_sequence needs total_length= of {longest} or more, got {total_length}")
    data = sequence.data
    place = np.full((max(longest, total_length or 0), len(lengths)), data.shape[0])
    time, which = _places(lengths)
    place[time, which] = np.arange(data.shape[0])
    if sequence.unsorted_indices is not None:
        back = np.asarray(sequence.unsorted_indices.cpu().numpy())
        place, lengths = place[:, back], lengths[back]
    none = ((0, 0),) * (data.ndim - 1)
    filled = ops.pad(data, padding=((0, 1), *none), value=padding_value)
    padded = ops.take(filled, hal.tensor(place.T if batch_first else place, device=data.device), axis=0)
    return padded, hal.tensor(lengths, device="cpu")


def repack(padded: Tensor, like: PackedSequence) -> PackedSequence:
    """What a layer made of the padded batch (time, batch, ...) of `like`, packed in the same order."""
    lengths = _lengths_of(like)
    if like.unsorted_indices is not None:
        lengths = lengths[np.asarray(like.unsorted_indices.cpu().numpy())]
    packed = pack_padded_sequence(padded, lengths.tolist(), enforce_sorted=like.sorted_indices is None)
    return like._replace(data=packed.data)


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Sequences (length, ...) as one tensor (longest, batch, ...), or (batch, longest, ...) if `batch_first`.

    Args:
        padding_side: `right` or `left`.

    Raises:
        SettingError: another side.
        ShapeError: no sequence, or their steps differ in shape.

    Source: torch.nn.utils.rnn.pad_sequence.
    """
    if padding_side not in ("right", "left"):
        raise SettingError(f"pad_sequence needs padding_side= 'right' or 'left', got {padding_side!r}")
    given = list(sequences)
    if not given or len({s.shape[1:] for s in given}) > 1:
        shapes = ", ".join(str(s.shape) for s in given) or "none"
        raise ShapeError(f"pad_sequence needs sequences that differ in axis 0 only, got {shapes}")
    longest = max(s.shape[0] for s in given)
    padded = []
    for s in given:
        missing = longest - s.shape[0]
        ends = (0, missing) if padding_side == "right" else (missing, 0)
        padded.append(ops.pad(s, padding=(ends, *((0, 0),) * (s.ndim - 1)), value=padding_value))
    return ops.stack(*padded, axis=0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False
) -> list[Tensor]:
    """The reverse of `pad_sequence`: each sequence without what was added at its end.

    Source: torch.nn.utils.rnn.unpad_sequence.
    """
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [x[i, :n] for i, n in enumerate(_lengths(lengths).tolist())]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences (length, ...). Source: torch.nn.utils.rnn.pack_sequence."""
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The reverse of `pack_sequence`. Source: torch.nn.utils.rnn.unpack_sequence."""
    return unpad_sequence(*pad_packed_sequence(packed_sequences, batch_first=True), batch_first=True)
