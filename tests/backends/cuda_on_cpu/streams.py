"""What CUDA calls streams, events and graphs: operations that are done in order, later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Operation = Callable[[], None]


class Stream:
    """Operations that are done in order, later.

    Attributes:
        given, done: how many were enqueued and done since the beginning.
        graph: what its operations are written down in while it is captured.
    """

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal
        self.waiting: deque[Operation] = deque()
        self.given = self.done = 0
        self.graph: Graph | None = None


class Event:
    """A place in a stream, once it is recorded.

    Attributes:
        when: seconds of a clock at which it happened.
        graph: the capture in which it was recorded.
    """

    def __init__(self, timed: bool) -> None:
        self.timed = timed
        self.stream: Stream | None = None
        self.number = 0
        self.when = 0.0
        self.graph: Graph | None = None


class Graph:
    """Operations that were written down.

    Attributes:
        origin: the stream that is captured.
        loose: other streams that were drawn in and that it has not waited for since.
    """

    def __init__(self, origin: Stream) -> None:
        self.origin = origin
        self.operations: list[Operation] = []
        self.loose: set[Stream] = set()
