"""Every layer, loss, optimizer, schedule and initialiser is tried on every device, and compared with torch's.

Both are derived from the public names: a new one that nobody tests fails here.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import nn
from nn.conformance_cases import LAYERS, LOSSES, OPTIMIZERS
from nn.optim import lr_scheduler

# Each with its reason.
NOT_ON_DEVICES = {
    "AlphaDropout": "draws: dropout has a case of its own, which compares bits",
    "DataParallel": "runs others on several devices: has tests of its own",
    "Dropout": "as AlphaDropout",
    "Dropout1d": "as AlphaDropout",
    "Dropout2d": "as AlphaDropout",
    "Dropout3d": "as AlphaDropout",
    "FeatureAlphaDropout": "as AlphaDropout",
    "Module": "a base",
    "ModuleDict": "holds others, and computes nothing",
    "ModuleList": "holds others, and computes nothing",
    "ParameterDict": "holds parameters, and computes nothing",
    "ParameterList": "holds parameters, and computes nothing",
    "QuantizedConv2d": "made by quantize for devices with integers",
    "QuantizedLinear": "made by quantize for devices with integers",
    "Sequential": "every case is made of some",
}
OWN = {  # what torch has not, not under this name, or only for CUDA
    "DataParallel", "LazyModuleMixin", "Lion", "NamedTuple", "QuantizedConv2d", "QuantizedLinear", "RotaryPositions",
    "SinusoidalPositions", "fans", "repack", "rotary_positions", "sinusoidal_positions",
}  # fmt: skip
DRAWN = {"gumbel_softmax"}  # other numbers than torch's: a test counts how often what comes


def public(module: ModuleType, base: type = object) -> set[str]:
    """The classes of a module, by its public names."""
    return {n for n in module.__all__ if inspect.isclass(getattr(module, n)) and issubclass(getattr(module, n), base)}


def functions(module: ModuleType) -> set[str]:
    return {n for n, v in vars(module).items() if inspect.isfunction(v) and not n.startswith("_")}


def test_every_layer_loss_and_optimizer_is_tried_on_every_device() -> None:
    tried = {name.partition("-")[0] for table in (LAYERS, LOSSES, OPTIMIZERS) for name in table}
    layers = {n for n in public(nn, nn.Module) if not n.startswith("Lazy")}  # which become the others
    optimizers = public(nn.optim, nn.optim.Optimizer) - {"Optimizer", "LBFGS"}  # LBFGS asks for the loss itself
    assert (layers | optimizers) - tried == NOT_ON_DEVICES.keys()


@cache
def compared_with_torch() -> set[str]:
    """All names in tests that are given torch, and in what they use of their files: tables and helpers."""
    found: set[str] = set()
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        tree = ast.parse(path.read_text())
        words = {}
        for node in tree.body:
            given = {a.arg for a in node.args.args} if isinstance(node, ast.FunctionDef) else set()
            mentions = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            mentions |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
            mentions |= {w for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                         for w in n.value.replace(".", " ").split()}  # fmt: skip
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [t.id for t in targets if isinstance(t, ast.Name)]
            for name in names:
                words[name] = (mentions, bool(given & {"torch", "parity"}) or "torch" in mentions)
        reached = [name for name, (_, with_torch) in words.items() if with_torch and name.startswith("test_")]
        seen: set[str] = set()
        while reached:
            name = reached.pop()
            if name in seen:
                continue
            seen.add(name)
            found |= words[name][0]
            reached += [m for m in words[name][0] if m in words]
    return found


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (nn, public(nn, nn.Module) - {"Module"}),
        (nn.functional, set(nn.functional.__all__)),
        (nn.optim, public(nn.optim, nn.optim.Optimizer) - {"Optimizer"}),
        (lr_scheduler, public(lr_scheduler) - {"LRScheduler"}),
        (nn.init, functions(nn.init)),
        (nn.utils.parametrizations, set(nn.utils.parametrizations.__all__)),
        (nn.utils.rnn, functions(nn.utils.rnn)),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_every_name_is_compared_with_torch(module: ModuleType, names: set[str]) -> None:
    compared = {plain(name) for name in compared_with_torch()}
    assert {name for name in names - OWN - DRAWN if plain(name) not in compared} == set()


def plain(name: str) -> str:
    """A name that a layer and its function share, in place or not: `max_pool2d` for `MaxPool2d`, `relu_` for `relu`."""
    return name.replace("_", "").lower()


def test_no_name_is_a_file_too() -> None:
    """Whoever asks for it first would get the file."""
    files = {path.stem for path in Path(nn.__path__[0]).iterdir()}
    assert "linear" in files
    names = [name for name in dir(nn) if not isinstance(getattr(nn, name), ModuleType)]
    assert "Linear" in names
    assert not files & set(names)
