"""Which rewrites run on a graph, in which order: simplifications, those of plugins, placement, then groupings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from hal.graph.graph import Graph, Rewrite, Value
from hal.graph.rewrites.algebra import algebra, rounding_algebra
from hal.graph.rewrites.common import common_subexpressions
from hal.graph.rewrites.dead import dead_code
from hal.graph.rewrites.folding import constant_folding
from hal.graph.rewrites.fusion import elementwise_fusion
from hal.graph.rewrites.joins import joins
from hal.graph.rewrites.neighbours import epilogue_fusion, reduction_fusion
from hal.graph.rewrites.outputs import own_memory
from hal.graph.rewrites.pairs import pairs
from hal.graph.rewrites.patterns import patterns
from hal.graph.rewrites.shapes import shape_cleanup
from hal.graph.rewrites.updates import optimizer_updates

SIMPLIFICATIONS: tuple[Rewrite, ...] = (
    dead_code, constant_folding, algebra, rounding_algebra, shape_cleanup, common_subexpressions, patterns,
    joins, pairs, dead_code,
)  # fmt: skip
GROUPINGS: tuple[Rewrite, ...] = (elementwise_fusion, epilogue_fusion, reduction_fusion, optimizer_updates)


def changes_rounding(rewrite: Rewrite) -> bool:
    """Whether a rewrite says that it may change how results are rounded."""
    return bool(getattr(rewrite, "changes_rounding", False))


def optimized(
    graph: Graph, exact: bool, policy: str, owners: Sequence[int] | None, state: Collection[Value] = (), free: int = 0,
    fresh: Collection[Value] = (),
) -> Graph:  # fmt: skip
    """The graph as it will be planned.

    Args:
        exact: leave out what may change how results are rounded.
        policy: `follow`: nodes stay where they are; `auto`: the scheduler places them.
        owners: for each output a number that those have in common which may share memory; others must not.
        state: inputs that may wait elsewhere between calls, where a device is full.
        free: how many outputs, the first ones, may do so too.
        fresh: inputs whose memory may be given away.
    """
    graph = simplified(graph, exact)
    graph = own_memory(graph, range(len(graph.outputs)) if owners is None else owners, fresh)
    if policy != "follow":
        from hal.schedule.placing import is_tight, placed  # the scheduler reads graphs, and is needed for `auto` only

        graph = placed(graph, state=state, free=free)
        if graph.away or is_tight(graph):  # in another order it might not fit
            return graph
    return _through(graph, GROUPINGS, exact)


def simplified(graph: Graph, exact: bool) -> Graph:
    """The graph after all rewrites that do not depend on devices."""
    return _through(graph, (*SIMPLIFICATIONS, *_of_plugins()), exact)


def _through(graph: Graph, rewrites: Iterable[Rewrite], exact: bool) -> Graph:
    for rewrite in rewrites:
        if not (exact and changes_rounding(rewrite)):
            graph = rewrite(graph)
    return graph


def _of_plugins() -> Iterator[Rewrite]:
    from hal.registry import registry  # finds plugins, of which a few may bring rewrites

    yield from registry().rewrites()
