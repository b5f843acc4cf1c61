"""`hal.compile`: a function that is traced once for each kind of arguments, and replayed from then on."""

from __future__ import annotations

import copy
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, overload
from weakref import WeakSet

from hal import dispatch, registry, tracing
from hal.autocast import precision
from hal.device import chosen
from hal.errors import GraphError
from hal.graph.entry import Entry, Options
from hal.graph.host import Board
from hal.graph.parts import MOST_PATHS, Missed, Tree, fetcher
from hal.graph.plan import Plan
from hal.graph.split import KeptError, Path, StrayedError
from hal.graph.structure import flatten
from hal.graph.trace import Splitting, trace
from hal.policy import placement
from hal.recording import mode
from hal.spec import Spec
from hal.tensor import Tensor

MOST_PLANS = 64


@dataclass
class Counters:
    """What a compiled function did.

    Attributes:
        replays: calls that a plan was there for.
        traces: how often the function was traced.
        ways: those of them that found another way to go on where the function is split.
        dropped: plans that were forgotten for newer ones.
        eager: calls that ran eagerly, since they cannot be traced.
    """

    replays: int = 0
    traces: int = 0
    ways: int = 0
    dropped: int = 0
    eager: int = 0


class Compiled:
    """A function that was given to `hal.compile`. Attributes of the function or module can be read from it.

    Attributes:
        function: what was compiled.
        counters: replays, traces, and plans dropped.
    """

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.options = options
        self.counters = Counters()
        self._entries: OrderedDict[Hashable, list[Entry | Tree]] = OrderedDict()
        self._untraceable: dict[Hashable, str] = {}  # and why
        self._strays: dict[Hashable, int] = {}  # how often a function that is split did something else than before
        self._lock = threading.RLock()
        name = getattr(function, "__name__", type(function).__name__)
        self._who = name if name != "<lambda>" else "a lambda"
        _all.add(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if tracing.tracer is not None and tracing.active() is not None:
            return self.function(*args, **kwargs)
        if dispatch.watch is not None:  # somebody wants to see each op: `hal diff`, `detect_anomaly`
            return self._eagerly(args, kwargs)
        rest: Hashable
        leaves: Sequence[Tensor]
        if not kwargs and all(isinstance(x, Tensor) for x in args):
            rest, leaves = len(args), args
        else:
            rest = flatten((args, kwargs), leaves := [], self._who)
        key = (
            rest,
            *[(x.spec, x.device, x.tracked) for x in leaves],
            mode.enabled,
            chosen(),
            precision(),
            placement.block(),
        )
        if len(leaves) > 1 and len({id(x) for x in leaves}) < len(leaves):
            key = (*key, *[next(i for i, y in enumerate(leaves) if y is x) for x in leaves])
        if self._untraceable and key in self._untraceable:
            return self._eagerly(args, kwargs)
        entry = self._find(key, leaves)
        if isinstance(entry, Entry):
            self.counters.replays += 1
            return entry.call(leaves)
        known = entry is not None
        try:
            entry = entry or self._trace(key, args, kwargs, leaves)
        except GraphError as error:
            return self._instead(error, key, args, kwargs)
        return self._through(entry, known, key, args, kwargs, leaves) if isinstance(entry, Tree) else entry.call(leaves)

    def _instead(self, error: GraphError, key: Hashable, args: Any, kwargs: Any) -> Any:
        """An eager call of what cannot be traced, if that was asked for; else its error."""
        if isinstance(error, KeptError) or not (self.options.fallback or self.options.split):
            raise error
        self._untraceable[key] = str(error)
        return self._eagerly(args, kwargs)

    def _eagerly(self, args: Any, kwargs: Any) -> Any:
        self.counters.eager += 1
        return self.function(*args, **kwargs)

    def _find(self, key: Hashable, leaves: Sequence[Tensor]) -> Entry | Tree | None:
        for entry in self._entries.get(key, ()):
            if entry.fits(leaves):
                return entry
        return None

    def _trace(self, key: Hashable, args: Any, kwargs: Any, leaves: Sequence[Tensor]) -> Entry | Tree:
        with self._lock:
            entry = self._find(key, leaves)  # another thread may have been faster
            if entry is not None:
                return entry
            if self.options.split:
                entry = Tree(self.options, self._who, Board())
                self._grow(entry, Path(), args, kwargs, leaves)
            else:
                entry = Entry(trace(self.function, args, kwargs, leaves, self._who), self.options, self._who)
            self.counters.traces += 1
            if entry.once:
                return entry
            of_key = self._entries.setdefault(key, [])
            of_key.insert(0, entry)
            self._entries.move_to_end(key)
            while len(of_key) > 8 or sum(map(len, self._entries.values())) > MOST_PLANS:
                oldest = of_key if len(of_key) > 8 else next(iter(self._entries.values()))
                oldest.pop()
                self.counters.dropped += 1
                for empty in [k for k, entries in self._entries.items() if not entries]:
                    del self._entries[empty]
            return entry

    def _grow(self, tree: Tree, path: Path, args: Any, kwargs: Any, leaves: Sequence[Tensor]) -> None:
        splitting = Splitting(tree.board, fetcher(leaves), path)
        tree.add(trace(self.function, args, kwargs, leaves, self._who, splitting))

    def _through(
        self, tree: Tree, known: bool, key: Hashable, args: Any, kwargs: Any, leaves: Sequence[Tensor]
    ) -> Any:  # fmt: skip
        """A call of a function that is split: where it has not gone before, it is traced once more."""
        with tree.lock:
            while isinstance(result := tree.call(leaves), Missed):
                if tree.missed > MOST_PATHS:
                    return self._instead(tree.too_many(), key, args, kwargs)
                if tree.paths >= MOST_PATHS:
                    return self._eagerly(args, kwargs)
                try:
                    self._grow(tree, result.path, args, kwargs, leaves)
                except StrayedError as error:
                    tree.strayed = True  # so that it fits no more
                    self._strays[key] = self._strays.get(key, 0) + 1
                    if self._strays[key] < MOST_PATHS:
                        return self._eagerly(args, kwargs)
                    return self._instead(error, key, args, kwargs)
                except GraphError as error:
                    return self._instead(error, key, args, kwargs)
                known = False
                self.counters.traces += 1
                self.counters.ways += 1
            self.counters.replays += known
            return result

    def explain(self) -> str:
        """Where the function is split, for each kind of arguments, and what is run eagerly, and why."""
        told = []
        for key, entries in self._entries.items():
            assert isinstance(key, tuple)
            specs = [part[0] for part in key if isinstance(part, tuple) and part and isinstance(part[0], Spec)]
            given = ", ".join(f"{spec.dtype.name}{list(spec.shape)}" for spec in specs)
            for entry in entries:
                told.append(f"{self._who}({given})")
                steps = f"{len(entry.plans[0].steps)} steps"
                told += [f"    {line}" for line in (entry.story() if isinstance(entry, Tree) else [steps])]
        told += [f"eagerly: {reason}" for reason in self._untraceable.values()]
        return "\n".join(told) or f"{self._who} was not called yet"

    @property
    def plans(self) -> list[Plan]:
        """The plans that were made so far and are kept, the latest last."""
        return [plan for entries in self._entries.values() for entry in entries for plan in entry.plans]

    def forget(self) -> None:
        """Drop all plans, so that the next call traces again."""
        self._entries.clear()
        self._untraceable.clear()
        self._strays.clear()
        self.options.arenas.clear()

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else functools.partial(self, owner)

    def __getattr__(self, name: str) -> Any:
        if name == "function":
            raise AttributeError(name)
        return getattr(self.function, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        return Compiled(copy.deepcopy(self.function, memo), self.options)

    def __reduce__(self) -> tuple[Any, ...]:
        return Compiled, (self.function, self.options)

    def __repr__(self) -> str:
        count = len(self.plans)
        return f"<compiled {self._who}: {count} plan{'s' * (count != 1)}>"


_all: WeakSet[Compiled] = WeakSet()


def forget_all() -> None:
    """Drop all plans of all compiled functions."""
    for compiled in list(_all):
        compiled.forget()


registry.on_change(forget_all)  # plans hold the kernels that were there


@overload
def compile(
    function: Callable[..., Any],
    /,
    *,
    exact: bool = ...,
    policy: str | None = ...,
    fallback: bool = ...,
    split: bool = ...,
) -> Compiled: ...
@overload
def compile(
    *, exact: bool = ..., policy: str | None = ..., fallback: bool = ..., split: bool = ...
) -> Callable[[Callable[..., Any]], Compiled]: ...
def compile(
    function: Callable[..., Any] | None = None, /, *, exact: bool = False, policy: str | None = None,
    fallback: bool = False, split: bool = False,
) -> Any:  # fmt: skip
    """Trace `function` once for each kind of arguments, and replay a plan from then on.

    Works on functions of tensors, on modules, and on whole training steps, with their backward pass, optimizer, random
    numbers and running statistics. Python code in the function runs only when it is traced. A plan is good for
    arguments of the same shapes, dtypes, devices and Python values.

    >>> import hal
    >>> @hal.compile
    ... def f(x):
    ...     return (x * 2 + 1).tanh()
    >>> f(hal.zeros(2)).tolist() == (hal.zeros(2) * 2 + 1).tanh().tolist()
    True

    Args:
        exact: leave out rewrites that may change how results are rounded.
        policy: where ops run: `follow`: as they would eagerly; `auto`: where they are expected to be fastest. Default:
            what `hal.placement` (or HAL_PLACEMENT) says.
        fallback: run eagerly, each time, what cannot be traced.
        split: where Python asks for the contents of a tensor, end a plan, and go on with one for the answer; what has
            more than a few ways to go on runs eagerly. A number from `.item()` may be returned, but not kept elsewhere.

    Raises:
        GraphError: when it is called: what the function does depends on the contents of a tensor, and it is not split,
            or keeps a number that it read; the message names the line.

    Source: torch.compile, jax.jit.
    """
    options = Options(exact, policy, fallback, split)
    if policy not in (None, "follow", "auto"):
        raise GraphError(f"hal.compile takes policy='follow' or 'auto', got {policy!r}")
    if function is None:
        return lambda given: Compiled(given, options)
    if not callable(function):
        raise GraphError(f"hal.compile needs a function or module, got {type(function).__name__}")
    return Compiled(function, options)
