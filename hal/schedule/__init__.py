"""Where and when the nodes of a graph run: costs, placement, copies, and the report of what was decided and why.

Nothing is imported before it is used: the plugin door needs only what a speed is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hal.graph.graph import Graph


def place(graph: Graph, policy: str = "auto") -> Graph:
    """The graph with each node on the device where the whole is expected to end first, and every copy a node.

    Args:
        graph: traced; its nodes are where they would run eagerly.
        policy: `auto`; with `follow` the graph is given back as it is.

    Raises:
        OutOfMemoryError: something needs more memory at once than its device has, and may run nowhere else.
        FallbackError: an op can run on none of the devices.
    """
    if policy == "follow":
        return graph
    from hal.schedule.placing import placed

    return placed(graph)
