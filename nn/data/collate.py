"""Makes a batch of items: stacked as NumPy arrays in the workers, turned into tensors where the loop asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import hal
from hal.errors import ShapeError
from hal.source import Line
from hal.tensor import Origin

# Items and batches are whatever nesting of tuples, lists and dictionaries a dataset uses, so their type is Any.


def default_collate(items: Sequence[Any]) -> Any:
    """One batch out of a list of items: each part gets a new first axis.

    Tensors are stacked to a tensor of their dtype, and so are NumPy arrays and scalars. Python's numbers become a
    tensor: bool, int64 for int, and float32, hal's default, for float. Strings and bytes stay a list. Tuples and
    lists become a list with a batch of each element, dictionaries and named tuples one of their own kind.

    >>> default_collate([("a", 1), ("b", 2)])
    [['a', 'b'], tensor([1, 2])]

    Source: torch.utils.data.default_collate, which makes float64 of floats.

    Raises:
        ShapeError: if tensors or arrays differ in shape, or tuples in length.
        TypeError: for items of a type that cannot be stacked, or of different types.
        KeyError: if dictionaries have different keys.
    """
    return to_tensors(stack(items))


def stack(items: Sequence[Any]) -> Any:
    """`default_collate` up to the last step: arrays where it has tensors, except for items that were tensors."""
    if not items:
        raise ShapeError("default_collate needs at least one item, got none")
    first = items[0]
    for kinds, collate in _BY_KIND.items():
        if isinstance(first, kinds):
            _check_kind(items, kinds)
            return collate(items)
    raise TypeError(
        f"default_collate can stack tensors, arrays, numbers, strings, and tuples, lists and dictionaries of them, "
        f"got {type(first).__name__}: return something else from the dataset, or pass DataLoader(collate_fn=...)"
    )


def to_tensors(batch: Any, device: Any = None) -> Any:
    """The batch with a tensor for each array, put on `device`; without one, on the default device.

    Tensors that are in the batch already stay where they are unless there is a `device`.
    """
    if isinstance(batch, np.ndarray):
        return as_tensor(batch, device=device)
    if isinstance(batch, hal.Tensor):
        return batch if device is None else batch.to(device)
    return _rebuild(batch, lambda part: to_tensors(part, device))


def as_tensor(array: Any, device: Any = None) -> hal.Tensor:
    """The array as a tensor of its own dtype, on `device` or the default device; memory is shared where that can be."""
    if device is None:
        return hal.from_numpy(np.asarray(array))
    with hal.device(device):
        return hal.from_numpy(np.asarray(array))


def move_tensors(batch: Any, device: Any) -> Any:
    """The batch with its tensors on `device`, and all else as it is."""
    if isinstance(batch, hal.Tensor):
        return batch.to(device)
    return _rebuild(batch, lambda part: move_tensors(part, device))


def here(batch: Any, line: Line | None) -> Any:
    """The batch, whose tensors are said to have been placed in this line, instead of where a thread made them."""
    if isinstance(batch, hal.Tensor):
        batch.origin = Origin(batch.origin.strength, line)
        return batch
    return _rebuild(batch, lambda part: here(part, line))


def _rebuild(batch: Any, function: Callable[[Any], Any]) -> Any:
    """The same container with `function` applied to each part; what is no container comes back as it is."""
    if isinstance(batch, Mapping):
        return {key: function(part) for key, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(function, batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map(function, batch))
    return batch


def _check_kind(items: Sequence[Any], kinds: type | tuple[type, ...]) -> None:
    for place, item in enumerate(items):
        if not isinstance(item, kinds):
            raise TypeError(
                f"default_collate needs items of one type, got {type(items[0]).__name__} in item 0 and "
                f"{type(item).__name__} in item {place} of the batch: make the dataset return the same type for all, "
                f"or pass DataLoader(collate_fn=...)"
            )


def _check_shape(items: Sequence[Any]) -> None:
    shape = tuple(items[0].shape)
    for place, item in enumerate(items):
        if tuple(item.shape) != shape:
            raise ShapeError(
                f"default_collate needs items of one shape to stack them, got {shape} in item 0 and "
                f"{tuple(item.shape)} in item {place} of the batch: bring them to one shape, "
                f"or pass DataLoader(collate_fn=...)"
            )


def _tensors(items: Sequence[Any]) -> Any:
    _check_shape(items)
    return hal.stack(items)


def _arrays(items: Sequence[Any]) -> Any:
    _check_shape(items)
    return np.stack(items)


def _numbers(items: Sequence[Any]) -> Any:
    array = np.asarray(items)
    if any(isinstance(item, np.generic) for item in items):
        return array
    return array.astype({"f": np.float32, "c": np.complex64}.get(array.dtype.kind, array.dtype), copy=False)


def _mappings(items: Sequence[Any]) -> Any:
    keys = items[0].keys()
    for place, item in enumerate(items):
        if item.keys() != keys:
            raise KeyError(
                f"default_collate needs dictionaries with the same keys, got {sorted(map(str, keys))} in item 0 and "
                f"{sorted(map(str, item))} in item {place} of the batch"
            )
    return {key: stack([item[key] for item in items]) for key in keys}


def _sequences(items: Sequence[Any]) -> Any:
    first = items[0]
    for place, item in enumerate(items):
        if len(item) != len(first):
            raise ShapeError(
                f"default_collate needs tuples of one length, got {len(first)} elements in item 0 and {len(item)} "
                f"in item {place} of the batch: bring them to one length, or pass DataLoader(collate_fn=...)"
            )
    parts = [stack(part) for part in zip(*items, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else parts


_BY_KIND: dict[Any, Callable[[Sequence[Any]], Any]] = {
    (str, bytes): list,
    hal.Tensor: _tensors,
    np.ndarray: _arrays,
    (bool, int, float, complex, np.generic): _numbers,
    Mapping: _mappings,
    (tuple, list): _sequences,
}
