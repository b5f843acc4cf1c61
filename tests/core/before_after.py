"""A graph as text before a rewrite, and after it."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent

from hal.graph.graph import Graph
from hal.graph.text import parse


def text(body: str) -> str:
    return dedent(body).strip()


def check(rewrite: Callable[[Graph], Graph], before: str, after: str) -> None:
    graph = parse(text(before))
    assert graph.text() == text(before)  # what the test says is how graphs are written
    result = rewrite(graph)
    result.check()
    assert result.text() == text(after)
