"""What generated source must know of a device: how its items work, and how many elements each should take at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A device, as kernels see it.

    Attributes:
        serial: whether an item is a thread of a processor, which takes a range of elements, one after another, in
            vectors that the compiler makes. Otherwise items are many, and neighbours take neighbouring elements.
        lanes: partial sums side by side in a serial item: its vectors times what hides their latency.
        group: items of a group; 1 where items are serial.
        units: processors or multiprocessors.
    """

    serial: bool
    lanes: int
    group: int
    units: int

    def items(self, count: int, grain: int = 8192) -> tuple[int, int]:
        """How many items should share `count` elements, in whole groups, and how many elements each has in a row.

        Args:
            grain: elements that are worth an item of a serial target.
        """
        if self.serial:
            items = max(1, min(4 * self.units, count // grain))
            return items, -(-count // items)
        groups = max(1, min(-(-count // self.group), 64 * self.units))
        return groups * self.group, 1
