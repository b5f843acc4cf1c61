"""Memory planning: where results lie in one arena, so that those that are never alive at once share its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from hal.graph.graph import Node, Value
from hal.views import VIEWS

_GOOD = 1.02  # times the least: not worth trying for less
_SHUFFLES = 24  # orders tried that are by size but for chance, where there are not
_MANY = 2000  # blocks
ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


@dataclass
class Block:
    """Memory for one value, or for several of which each is written over the one before in the step that reads it last.

    Attributes:
        start: the step that writes it first.
        stop: the last step that reads it, or a view of it.
        nbytes: rounded up to the alignment.
        values: what lies there, one after another.
    """

    start: int
    stop: int
    nbytes: int
    values: list[Value]


def is_view(node: Node) -> bool:
    """Whether the result of a node may share the memory of its first input."""
    return node.op.name in VIEWS


def roots(nodes: Sequence[Node]) -> dict[Value, Value]:
    """For each result that may be a view, the value whose memory it then shares."""
    found: dict[Value, Value] = {}
    for node in nodes:
        if is_view(node) or (node.op.name == "copy_to" and node.inputs[0].device is node.device):
            (out,) = node.outputs
            source = node.inputs[0]
            found[out] = found.get(source, source)
    return found


def last_uses(nodes: Sequence[Node]) -> dict[Value, int]:
    """For each value the number of the last node that reads it or a view of it."""
    root = roots(nodes)
    found: dict[Value, int] = {}
    for i, node in enumerate(nodes):
        for x in node.inputs:
            found[x] = found[root.get(x, x)] = i
    return found


def aligned(nbytes: int) -> int:
    """The next multiple of the alignment."""
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT


def bound(blocks: Sequence[Block]) -> int:
    """The most bytes that are in use at one time: no assignment can do with less."""
    change: dict[int, int] = {}
    for block in blocks:
        change[block.start] = change.get(block.start, 0) + block.nbytes
        change[block.stop + 1] = change.get(block.stop + 1, 0) - block.nbytes
    most = now = 0
    for at in sorted(change):
        now += change[at]
        most = max(most, now)
    return most


def assign(blocks: Sequence[Block]) -> tuple[dict[Value, int], int]:
    """An offset for each value, and the size of the arena: the best of a few greedy orders, the same every time.

    Each block in turn goes into the tightest gap that is free during its life. Source: Pisarchyk, Lee, "Efficient
    Memory Management for Deep Neural Net Inference", 2020 (greedy by size, and by breadth).
    """
    least = bound(blocks)
    best = _greedy(sorted(blocks, key=_ORDERS[0]))
    chance = Random(0)
    for attempt in range(1, len(_ORDERS) + _SHUFFLES):
        if best[1] <= _GOOD * least or (attempt >= len(_ORDERS) and len(blocks) > _MANY):
            break
        if attempt < len(_ORDERS):
            order = sorted(blocks, key=_ORDERS[attempt])
        else:
            order = sorted(blocks, key=lambda b: -b.nbytes * chance.uniform(0.5, 1.5))
        found = _greedy(order)
        if found[1] < best[1]:
            best = found
    return best


_ORDERS: tuple[Callable[[Block], tuple[int, ...]], ...] = (
    lambda b: (-b.nbytes, b.start),
    lambda b: (b.start, -b.nbytes),
    lambda b: (-b.nbytes * (b.stop - b.start + 1), b.start),
    lambda b: (b.start - b.stop, -b.nbytes),
    lambda b: (-b.nbytes.bit_length(), b.start),
    lambda b: (-b.stop, -b.nbytes),
)


def _greedy(blocks: Sequence[Block]) -> tuple[dict[Value, int], int]:
    offsets: dict[Value, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first and last step
    size = 0
    for block in blocks:
        busy = sorted((o, e) for o, e, first, last in placed if first <= block.stop and block.start <= last)
        at = 0
        tightest: tuple[int, int] | None = None
        for start, end in busy:
            if start - at >= block.nbytes and (tightest is None or start - at < tightest[0]):
                tightest = (start - at, at)
            at = max(at, end)
        offset = at if tightest is None else tightest[1]
        offsets.update(dict.fromkeys(block.values, offset))
        placed.append((offset, offset + block.nbytes, block.start, block.stop))
        size = max(size, offset + block.nbytes)
    return offsets, size
