"""What torch.nn has and nn has not, and every setting that a layer or function of torch takes."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

import nn

# Each with its reason; a name that has come to be here is an error too.
LAYERS = {
    "Buffer": "register_buffer says the same",
    "Container": "deprecated",
    "CrossMapLRN2d": "LocalResponseNorm is its other name",
    "DataParallel": "deprecated for distributed training",
    "LinearCrossEntropyLoss": "an experiment of torch 2.13",
    "LinearCrossEntropyOptions": "an experiment of torch 2.13",
    "NLLLoss2d": "deprecated",
    "RNNBase": "RNN, LSTM and GRU are there",
    "RNNCellBase": "the cells are there",
    "SyncBatchNorm": "belongs to distributed training",
}
FUNCTIONS = {
    "conv_tbc": "of one research library",
    "grouped_mm": "an experiment of torch 2.13",
    "linear_cross_entropy": "an experiment of torch 2.13",
    "multi_head_attention_forward": "MultiheadAttention is the way to it",
    "native_channel_shuffle": "channel_shuffle is its other name",
    "scaled_grouped_mm": "an experiment of torch 2.13",
    "scaled_mm": "an experiment of torch 2.13",
    "upsample_bilinear": "deprecated",
    "upsample_nearest": "deprecated",
}
OLD = {"size_average", "reduce", "_stacklevel", "out", "self"}  # settings that torch itself warns of, or its own affair
SETTINGS = {"Hardtanh": {"min_value", "max_value"}}  # older names of min_val and max_val


def own_layers(torch: ModuleType) -> dict[str, Any]:
    return {n: v for n, v in vars(torch.nn).items() if not n.startswith("_") and inspect.isclass(v)}


def own_functions(torch: ModuleType) -> dict[str, Any]:
    helpers = {"assert_int_or_pair", "boolean_dispatch", "handle_torch_function"}
    functional = torch.nn.functional
    return {
        n: v
        for n, v in vars(functional).items()
        if callable(v)
        and not inspect.isclass(v)
        and not n.startswith(("_", "has_torch_function"))
        and not n.endswith("_with_indices")
        and n not in {*helpers, "Optional", "Callable"}
    }


def test_layers_that_are_missing_have_a_reason(torch: ModuleType) -> None:
    assert {name for name in own_layers(torch) if not hasattr(nn, name)} == LAYERS.keys() & own_layers(torch).keys()


def test_functions_that_are_missing_have_a_reason(torch: ModuleType) -> None:
    known = own_functions(torch)
    assert {name for name in known if not hasattr(nn.functional, name)} == FUNCTIONS.keys() & known.keys()


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
