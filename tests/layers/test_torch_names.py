"""What torch.nn has and nn has not, and every setting that a layer or function of torch takes."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nn

OLD = {"size_average", "reduce", "_stacklevel", "out", "self"}  # settings that torch itself warns of, or its own affair
SETTINGS = {"Hardtanh": {"min_value", "max_value"}}  # older names of min_val and max_val


PAGE = Path(__file__).parents[2] / "docs" / "reference" / "torch-names.md"
INNER = re.compile(  # helpers of torch that stand in its modules without being meant for users
    r".*_with_indices|handle_torch_.*|has_torch_.*|boolean_dispatch|assert_int_or_pair|ScalingType|SwizzleType|bind|"
    r"copy_method_params|PackedSequence_|OpaqueBase|is_opaque.*|is_traceable.*|get_swap.*|swap_in.*|Tensor|Optimizer|"
    r"functional_datapipe|argument_validation|runtime_validation.*|.*determinis.*|T_destination|dump_patches|"
    r"call_super_init"
)


def absent() -> dict[str, set[str]]:
    """The names that the page says are not here, by the module of torch."""
    found: dict[str, set[str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            here = found.setdefault(line[3:], set())
        elif named := re.match(r"\| `(\w+)` \| .+ \|", line):
            here.add(named[1])
    return found


def ours_of(path: str) -> Any:
    """What stands here for a module or class of torch."""
    name = {"torch.utils.data": "nn.data", "torch.nn.Module": "nn.Module"}.get(path)
    name = name or path.replace("torch.nn", "nn").replace("torch.optim", "nn.optim")
    return nn.Module if name == "nn.Module" else importlib.import_module(name)


def theirs_of(torch: ModuleType, path: str) -> Any:
    return torch.nn.Module if path == "torch.nn.Module" else importlib.import_module(path)


def offered(owner: Any) -> set[str]:
    """The names of a module or class of torch that a user is to use."""
    if inspect.isclass(owner):
        names = set(dir(owner))
    else:
        names = {n for n, v in vars(owner).items() if inspect.isclass(v) or inspect.isroutine(v)}
        names = {n for n in names if (getattr(owner, n).__module__ or "torch").startswith("torch")}
    return {n for n in names if not n.startswith("_") and not INNER.fullmatch(n)}


@pytest.mark.parametrize("path", [*absent(), "torch.nn.utils.rnn", "torch.nn.utils.parametrizations",
                                  "torch.optim.lr_scheduler"])  # fmt: skip
def test_what_is_missing_has_a_reason(torch: ModuleType, path: str) -> None:
    missing = {name for name in offered(theirs_of(torch, path)) if not hasattr(ours_of(path), name)}
    assert missing == absent().get(path, set())


def own_layers(torch: ModuleType) -> dict[str, Any]:
    return {n: v for n in offered(torch.nn) if inspect.isclass(v := getattr(torch.nn, n))}


def own_functions(torch: ModuleType) -> dict[str, Any]:
    functional = torch.nn.functional
    return {n: getattr(functional, n) for n in offered(functional)}


def parameters(function: Any) -> dict[str, inspect.Parameter] | None:
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of C++, or without names
        return None
    kinds = {p.kind for p in found.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return None
    return {name: p for name, p in found.items() if name not in OLD}


@pytest.mark.parametrize("kind", ["layers", "functions"])
def test_every_setting_of_torch_is_taken_in_its_order(torch: ModuleType, kind: str) -> None:
    ours = nn if kind == "layers" else nn.functional
    problems = []
    for name, theirs in (own_layers if kind == "layers" else own_functions)(torch).items():
        if not hasattr(ours, name):
            continue
        mine = getattr(ours, name)
        a, b = (parameters(f.__init__ if kind == "layers" else f) for f in (mine, theirs))
        if a is None or b is None:
            continue
        missing = b.keys() - a.keys() - SETTINGS.get(name, set())
        shared = [n for n in b if n in a]
        if missing or [n for n in a if n in b] != shared:
            problems.append(f"{name}: lacks {sorted(missing)}, has {list(a)}")
        problems += [
            f"{name}: {n} is {a[n].default!r}, in torch {b[n].default!r}"
            for n in shared
            if a[n].default != b[n].default and not callable(a[n].default)
        ]
    assert not problems
