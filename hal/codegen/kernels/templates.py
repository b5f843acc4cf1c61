"""Kernels written out: a source with types to fill in, and how it is launched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from hal.codegen.expressions import loaded, memory_type, stored, value_type
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.maps import GRAIN, items_for, loop
from hal.codegen.kernels.runtime import Runtime
from hal.plugin import DType

_WORD = re.compile(r"@(\w+)")
_ACCESS = re.compile(r"(value|load|store)(\w+)")


@lru_cache(maxsize=1024)
def filled_in(text: str, types: tuple[tuple[str, DType], ...], words: tuple[tuple[str, str], ...], is_cpu: bool) -> str:
    """The source of a template.

    `@T` is the type of dtype T in memory, `@valueT` the one that it is computed in, `@loadT(p, i)` and
    `@storeT(p, i, v)` go between them, `@LOOP` is the loop of a work item over `i` below `n`, and other words are
    replaced as given.
    """
    dtypes, plain = dict(types), {"LOOP": loop(is_cpu), **dict(words)}
    while (found := _WORD.search(text)) is not None:
        name, after = found[1], text[found.end() :]
        if name in plain:
            word = plain[name]
        elif name in dtypes:
            word = memory_type(dtypes[name])
        else:
            kind, key = _parts(name)
            dtype = dtypes[key]
            if kind == "value":
                word = value_type(dtype)
            else:
                arguments, after = _arguments(after)
                pointer, index, *rest = arguments
                place = f"({index})"
                word = (
                    loaded(pointer, place, dtype) if kind == "load" else stored(pointer, place, ", ".join(rest), dtype)
                )
                after = after.removeprefix(";") if kind == "store" else after
        text = text[: found.start()] + word + after
    return text


def _parts(name: str) -> tuple[str, str]:
    found = _ACCESS.fullmatch(name)
    if found is None:
        raise KeyError(f"@{name} is nothing that a template knows")
    return found[1], found[2]


def _arguments(text: str) -> tuple[list[str], str]:
    """The arguments in the parentheses that `text` begins with, and what comes behind them."""
    arguments, depth, start = [], 0, 1
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if (character == "," and depth == 1) or depth == 0:
            arguments.append(text[start:i].strip())
            start = i + 1
        if depth == 0:
            return arguments, text[i + 1 :]
    raise ValueError(f"a parenthesis is not closed in {text[:80]!r}")


def run(
    runtime: Runtime,
    label: str,
    text: str,
    count: int,
    arguments: Sequence[Any],
    *,
    writes: Sequence[Buffer],
    types: dict[str, DType] | None = None,
    words: dict[str, str] | None = None,
    name: str = "kernel_",
    grain: int = GRAIN,
) -> None:
    """Enqueue the kernel `name` of a template for `count` units of work; it takes (n, per, *arguments).

    Arguments are integers, numbers of NumPy, and buffers: these become a pointer and the offset of the first element.

    Args:
        grain: units that are worth a work item on a CPU.
    """
    if count == 0:
        return
    source = filled_in(text, tuple((types or {}).items()), tuple((words or {}).items()), runtime.is_cpu)
    kernel = runtime.programs.kernel(source, name, label)
    items, local, per = items_for(runtime, count, grain)
    given: list[Any] = [np.int64(count), np.int64(per)]
    for argument in arguments:
        if isinstance(argument, Buffer):
            given += (argument.memory, np.int64(argument.offset))
        else:
            given.append(np.int64(argument) if isinstance(argument, int) else argument)
    runtime.launch(label, kernel, items, local, *given, writes=[x.memory for x in writes])
