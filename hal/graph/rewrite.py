"""Which rewrites run on a graph, in which order."""

from __future__ import annotations

from collections.abc import Sequence

from hal.graph.graph import Graph


def optimized(graph: Graph, exact: bool, policy: str, owners: Sequence[int] | None) -> Graph:
    """The graph as it will be planned.

    Args:
        exact: leave out what may change how results are rounded.
        policy: `follow`: nodes stay where they are; `auto`: the scheduler places them.
        owners: for each output a number that those have in common which may share memory; others must not.
    """
    from hal.schedule import place  # reads graphs

    return place(graph, policy)
