"""How elements lie in memory: strides of views, and axes that can be walked over as one."""

from __future__ import annotations

from collections.abc import Sequence

Shape = tuple[int, ...]


def row_strides(shape: Shape) -> Shape:
    """The strides of elements that lie row by row."""
    strides = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def lies_in_rows(shape: Shape, strides: Shape) -> bool:
    """Whether elements with these strides lie row by row without gaps."""
    step = 1
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1:
            if s != step:
                return 0 in shape
            step *= n
    return True


def stretched(shape: Shape, strides: Shape, wanted: Shape) -> Shape:
    """The strides with which elements are repeated to a shape that they broadcast to."""
    extra = len(wanted) - len(shape)
    kept = (0 if n == 1 and m != 1 else s for n, s, m in zip(shape, strides, wanted[extra:], strict=True))
    return (*(0,) * extra, *kept)


def reshaped(shape: Shape, strides: Shape, wanted: Shape) -> Shape | None:
    """The strides of the same elements in another shape, or None if they would have to be copied for it."""
    if 0 in shape:
        return row_strides(wanted)
    blocks: list[tuple[int, int]] = []  # axes that lie in memory as one: how many elements, and how far apart
    for n, step in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if blocks and blocks[-1][1] == n * step:
            blocks[-1] = (blocks[-1][0] * n, step)
        else:
            blocks.append((n, step))
    found: list[int] = []
    left, step = 1, 1
    for n in reversed(wanted):
        if left == 1 and n != 1 and blocks:
            left, step = blocks.pop()
        if left % n:
            return None
        found.append(step)
        left, step = left // n, step * n
    return tuple(reversed(found))


def collapsed(shape: Shape, strides: Sequence[Shape]) -> tuple[Shape, tuple[Shape, ...]]:
    """The same walk over several arrays in as few axes as possible, at least one."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        if sizes and all(own[-1] == s[axis] * n for own, s in zip(steps, strides, strict=True)):
            sizes[-1] *= n
            for own, s in zip(steps, strides, strict=True):
                own[-1] = s[axis]
            continue
        sizes.append(n)
        for own, s in zip(steps, strides, strict=True):
            own.append(s[axis])
    if not sizes:
        return (1,), tuple((1,) for _ in strides)
    return tuple(sizes), tuple(map(tuple, steps))
