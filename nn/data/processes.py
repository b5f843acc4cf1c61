"""Worker processes of a loader: each has a copy of the dataset, is asked for batches, and answers with arrays."""

from __future__ import annotations

import multiprocessing
import queue
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import hal
from hal.errors import DataError
from nn.data.collate import _rebuild
from nn.data.randomness import reading

METHODS = ("fork", "forkserver", "spawn")
Worker = tuple[BaseProcess, Connection]


class Workers:
    """A few processes that read batches with a loader of their own copy. They end when this is dropped.

    Args:
        loader: what is copied into each: its dataset and `collate_fn` must be picklable, unless `method` is "fork".
        count: how many.
        method: how processes are started, as in Python's `multiprocessing`.
    """

    def __init__(self, loader: Any, count: int, method: str) -> None:
        context: Any = multiprocessing.get_context(method)
        self._free: queue.Queue[Worker] = queue.Queue()
        started: list[Worker] = []
        self._close = weakref.finalize(self, _end, started)
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, loader, number), name=f"DataLoader worker {number}", daemon=True
            )
            process.start()
            theirs.close()
            started.append((process, ours))
            self._free.put((process, ours))

    def read(self, stream: tuple[int, int], indices: Sequence[int]) -> Any:
        """A batch, read by the next process that is free.

        Raises:
            DataError: the process died over it.
            Exception: what the dataset raised there, with its notes.
        """
        process, connection = worker = self._free.get()
        try:
            connection.send((stream, indices))
            fine, answer = connection.recv()
        except (EOFError, OSError):
            process.join(1)
            raise DataError(
                f"{process.name} died with exit code {process.exitcode} while it read the items {list(indices[:8])}: "
                "with num_workers=0 the same happens here, where it can be seen"
            ) from None
        finally:
            self._free.put(worker)
        if fine:
            return answer
        raise answer

    def close(self) -> None:
        """End the processes now."""
        self._close()


def _serve(connection: Connection, loader: Any, number: int) -> None:
    """What a worker process does until it is told to end."""
    if loader.worker_init_fn is not None:
        loader.worker_init_fn(number)
    while True:
        try:
            stream, indices = connection.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        try:
            with reading(stream):
                answer: tuple[bool, Any] = (True, _arrays(loader.read(indices)))
        except Exception as error:
            answer = (False, error)
        try:
            connection.send(answer)
        except (TypeError, AttributeError, ValueError) as error:  # what cannot be pickled
            connection.send((False, TypeError(f"a worker process could not send its batch: {error}")))


def _arrays(batch: Any) -> Any:
    """The batch with arrays for its tensors, which do not travel between processes."""
    if isinstance(batch, hal.Tensor):
        return batch.detach().cpu().numpy()
    return _rebuild(batch, _arrays)


def _end(started: list[Worker]) -> None:
    for _, connection in started:
        connection.close()
    for process, _ in started:
        process.join(1)
        if process.is_alive():
            process.terminate()
