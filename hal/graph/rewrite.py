"""Which rewrites run on a graph, in which order: simplifications, those of plugins, and when it is placed groupings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from hal.device import Device
from hal.graph.graph import Graph, Rewrite, Value
from hal.graph.rewrites.algebra import algebra, rounding_algebra
from hal.graph.rewrites.common import common_subexpressions
from hal.graph.rewrites.dead import dead_code
from hal.graph.rewrites.decomposition import alone, decomposed
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
    dead_code, alone, constant_folding, algebra, rounding_algebra, shape_cleanup, common_subexpressions, patterns,
    joins, pairs, dead_code,
)  # fmt: skip
GROUPINGS: tuple[Rewrite, ...] = (elementwise_fusion, epilogue_fusion, reduction_fusion, optimizer_updates)


def changes_rounding(rewrite: Rewrite) -> bool:
    """Whether a rewrite says that it may change how results are rounded."""
    return bool(getattr(rewrite, "changes_rounding", False))


def optimized(graph: Graph, exact: bool, owners: Sequence[int] | None = None, fresh: Collection[Value] = ()) -> Graph:
    """The graph as it is planned where nothing is moved; see `prepared`."""
    return grouped(prepared(simplified(graph, exact), exact, owners, fresh), exact)


def prepared(
    simple: Graph, exact: bool, owners: Sequence[int] | None = None, fresh: Collection[Value] = (),
    device: Device | None = None,
) -> Graph:  # fmt: skip
    """A simplified graph as it is placed.

    Args:
        exact: leave out what may change how results are rounded.
        owners: for each output a number that those have in common which may share memory; others must not.
        fresh: inputs whose memory may be given away.
        device: where all of it might be placed, so that it consists of what that device can run.
    """
    if device is not None and (parts := decomposed(simple, device)) is not simple:
        simple = simplified(parts, exact)
    return own_memory(simple, range(len(simple.outputs)) if owners is None else owners, fresh)


def simplified(graph: Graph, exact: bool) -> Graph:
    """The graph after the rewrites that depend neither on devices nor on whose memory results lie in."""
    return _through(graph, (*SIMPLIFICATIONS, *_of_plugins()), exact)


def grouped(graph: Graph, exact: bool) -> Graph:
    """The graph with nodes that run as one, on the devices where they are."""
    return _through(graph, GROUPINGS, exact)


def _through(graph: Graph, rewrites: Iterable[Rewrite], exact: bool) -> Graph:
    for rewrite in rewrites:
        if not (exact and changes_rounding(rewrite)):
            graph = rewrite(graph)
    return graph


def _of_plugins() -> Iterator[Rewrite]:
    from hal.registry import registry  # finds plugins, of which a few may bring rewrites

    yield from registry().rewrites()
