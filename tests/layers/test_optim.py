"""Optimizers and learning-rate schedules beside torch's: ten steps, state in torch's layout, and what is refused."""

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import StateError
from nn import optim

# fmt: off
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.1, "maximize": True}),
    ("AdamW", {"lr": 0.1}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.05, "momentum": 0.7}),
    ("RMSprop", {"lr": 0.05, "centered": True}),
    ("RMSprop", {"lr": 0.05, "centered": True, "momentum": 0.7, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("Adamax", {}),
    ("Adamax", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("RAdam", {}),
    ("RAdam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("Rprop", {}),
    ("Rprop", {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.12), "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3}),
]
# fmt: on
IDS = [f"{name} {', '.join(map(str, settings))}" for name, settings in OPTIMIZERS]


class Pair:
    """The same parameters in both libraries, with gradients that are drawn for both."""

    def __init__(self, torch: ModuleType, dtype: Any = np.float32) -> None:
        rng = np.random.default_rng(0)
        self.rng, self.torch, self.dtype = rng, torch, dtype
        values = [rng.normal(size=s).astype(dtype) for s in ((3, 4), (5,), ())]
        self.ours = [nn.Parameter(hal.tensor(v)) for v in values]
        self.theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]

    def backward(self, skip: int | None = None) -> None:
        for i, (a, b) in enumerate(zip(self.ours, self.theirs, strict=True)):
            g = np.asarray(self.rng.normal(size=a.shape), self.dtype)
            a.grad = None if i == skip else hal.tensor(g)
            b.grad = None if i == skip else self.torch.tensor(g)

    def agree(self, tolerance: float = 1e-5) -> None:
        for a, b in zip(self.ours, self.theirs, strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "settings"), OPTIMIZERS, ids=IDS)
def test_ten_steps(torch: ModuleType, name: str, settings: dict[str, Any]) -> None:
    pair = Pair(torch)
    a, b = getattr(optim, name)(pair.ours, **settings), getattr(torch.optim, name)(pair.theirs, **settings)
    for step in range(10):
        pair.backward(skip=1 if step == 3 else None)
        a.step()
        b.step()
    pair.agree()


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad"])
def test_ten_steps_in_float64(torch: ModuleType, name: str) -> None:
    pair = Pair(torch, np.float64)
    a, b = getattr(optim, name)(pair.ours, lr=0.1), getattr(torch.optim, name)(pair.theirs, lr=0.1)
    for _ in range(10):
        pair.backward()
        a.step()
        b.step()
    pair.agree(1e-12)


def groups(params: list[Any]) -> list[dict[str, Any]]:
    return [{"params": params[:1], "lr": 0.5, "weight_decay": 0.1}, {"params": params[1], "momentum": 0.5}]


def test_parameter_groups(torch: ModuleType) -> None:
    pair = Pair(torch)
    a, b = optim.SGD(groups(pair.ours), lr=0.1), torch.optim.SGD(groups(pair.theirs), lr=0.1)
    a.add_param_group({"params": [pair.ours[2]], "lr": 1.0})
    b.add_param_group({"params": [pair.theirs[2]], "lr": 1.0})
    for _ in range(3):
        pair.backward()
        a.step()
        b.step()
        for group in (*a.param_groups, *b.param_groups):
            group["lr"] *= 0.5
    pair.agree()
    assert [g["lr"] for g in a.param_groups] == [g["lr"] for g in b.param_groups]


@pytest.mark.parametrize(("name", "settings"), OPTIMIZERS, ids=IDS)
def test_state_goes_to_torch_and_comes_from_it(torch: ModuleType, name: str, settings: dict[str, Any]) -> None:
    pair = Pair(torch)
    a, b = getattr(optim, name)(pair.ours, **settings), getattr(torch.optim, name)(pair.theirs, **settings)
    for _ in range(3):
        pair.backward()
        a.step()
        b.step()

    ours, theirs = a.state_dict(), b.state_dict()

    assert ours["state"].keys() == theirs["state"].keys()
    for number, kept in theirs["state"].items():
        assert {n for n, v in kept.items() if v is not None} == set(ours["state"][number])
        for entry, value in ours["state"][number].items():
            np.testing.assert_allclose(value.numpy(), kept[entry].numpy(), rtol=1e-5, atol=1e-6)
    for mine, other in zip(ours["param_groups"], theirs["param_groups"], strict=True):
        assert all(other[k] == v for k, v in mine.items())
    fresh = getattr(optim, name)(pair.ours, lr=9.0)
    fresh.load_state_dict(copy.deepcopy(ours))
    back = getattr(torch.optim, name)(pair.theirs, lr=9.0)
    as_torch = {n: {k: torch.tensor(v.numpy()) for k, v in kept.items()} for n, kept in ours["state"].items()}
    back.load_state_dict({"state": as_torch, "param_groups": theirs["param_groups"]})
    for _ in range(3):
        pair.backward()
        fresh.step()
        back.step()
    pair.agree()


def test_a_loaded_state_is_a_copy() -> None:
    p = nn.Parameter(hal.ones(2))
    p.grad = hal.ones(2)
    a, b = optim.SGD([p], lr=0.1, momentum=0.9), optim.SGD([p], lr=0.1, momentum=0.9)
    a.step()
    state = a.state_dict()
    b.load_state_dict(state)
    b.step()
    assert state["state"][0]["momentum_buffer"].tolist() == [1, 1]
    assert a.param_groups[0] is not b.param_groups[0]


def test_steps_are_in_place_and_seen_by_all_who_share(each_device: hal.Device) -> None:
    shared = nn.Linear(2, 2, bias=False)
    twin = nn.Linear(2, 2, bias=False)
    twin.weight = shared.weight
    net = nn.Sequential(shared, twin)
    view = shared.weight.data
    optimizer = optim.Adam(net.parameters(), lr=0.5)
    assert len(optimizer.param_groups[0]["params"]) == 1
    before = view.tolist()
    net(hal.ones(3, 2)).sum().backward()
    optimizer.step()
    assert shared.weight.tolist() == twin.weight.tolist() == view.tolist() != before
    assert shared.weight.device == each_device
    assert shared.weight.requires_grad


def test_a_closure_is_called_with_gradients_on() -> None:
    p = nn.Parameter(hal.tensor([3.0]))
    optimizer = optim.SGD([p], lr=0.1)

    def closure() -> hal.Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with hal.no_grad():
        assert optimizer.step(closure).item() == 9
    assert p.item() == pytest.approx(2.4)


def test_gradients_are_forgotten_or_zeroed() -> None:
    p = nn.Parameter(hal.ones(2))
    optimizer = optim.SGD([p], lr=0.1)
    p.grad = hal.ones(2)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0, 0]
    optimizer.zero_grad()
    assert p.grad is None
    optimizer.step()
    assert p.tolist() == [1, 1]


def test_parameters_may_come_with_names() -> None:
    net = nn.Linear(2, 1)
    optimizer = optim.SGD(net.named_parameters(), lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]


def test_printed_with_its_groups() -> None:
    text = repr(optim.SGD([nn.Parameter(hal.ones(1))], lr=0.1))
    assert text.splitlines()[:3] == ["SGD (", "Parameter Group 0", "    dampening: 0"]
    assert "    lr: 0.1" in text


P, Q = nn.Parameter(hal.ones(2)), nn.Parameter(hal.ones(3))


def one_cycle() -> optim.lr_scheduler.OneCycleLR:
    return optim.lr_scheduler.OneCycleLR(optim.SGD([P], lr=1), 1.0, 5)


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: optim.SGD([P], lr=-1), ValueError, "SGD needs lr= of 0 or more, got -1"),
    (lambda: optim.SGD([P], lr=0.1, momentum=-1), ValueError, "momentum= of 0 or more, got -1"),
    (lambda: optim.SGD([P], lr=0.1, weight_decay=-1), ValueError, "weight_decay="),
    (lambda: optim.SGD([P], lr=0.1, nesterov=True), ValueError, "nesterov= with a momentum and no dampening"),
    (
        lambda: optim.Adam([P], betas=(1.0, 0.9)),
        ValueError,
        r"Adam needs betas= two numbers from 0 to below 1, got \(1.0, 0.9\)",
    ),
    (lambda: optim.AdamW([P], eps=-1), ValueError, "AdamW needs eps="),
    (lambda: optim.RMSprop([P], alpha=-1), ValueError, "RMSprop needs alpha="),
    (lambda: optim.Adagrad([P], lr_decay=-1), ValueError, "Adagrad needs lr_decay="),
    (lambda: optim.SGD([], lr=0.1), ValueError, r"SGD got no parameters: pass net.parameters\(\)"),
    (lambda: optim.SGD(P, lr=0.1), TypeError, "got one tensor: put it into a list"),
    (lambda: optim.SGD([3], lr=0.1), TypeError, "can only change tensors, got int"),
    (lambda: optim.SGD([P * 2], lr=0.1), ValueError, "can only change leaf tensors"),
    (lambda: optim.SGD([P, P], lr=0.1), ValueError, "got a parameter twice"),
    (lambda: optim.SGD([{"params": [P]}, {"params": [P]}], lr=0.1), ValueError, "got a parameter twice"),
    (lambda: optim.SGD([P], lr=0.1).add_param_group([P]), TypeError, "as a dictionary with 'params', got list"),
    (lambda: optim.SGD([P], lr=0.1).load_state_dict({}), StateError, r"needs 'state' and 'param_groups', got \[\]"),
    (lambda: optim.Optimizer([P], {}).step(), NotImplementedError, "has no _update"),
    (lambda: optim.lr_scheduler.StepLR(P, 3), TypeError, "StepLR needs an optimizer, got Parameter"),
    (lambda: optim.Adadelta([P], rho=1.5), ValueError, "Adadelta needs rho= from 0 to 1, got 1.5"),
    (lambda: optim.Lion([P], betas=(0.9, 1)), ValueError, "Lion needs betas="),
    (lambda: optim.LBFGS([P], line_search_fn="wolf"), ValueError, "'strong_wolfe', got wolf"),
    (lambda: optim.LBFGS([P]).step(), ValueError, "LBFGS.step needs a closure"),
    (lambda: optim.LBFGS([{"params": [P]}, {"params": [Q]}]), ValueError, "one group of parameters, got 2"),
    (lambda: optim.lr_scheduler.OneCycleLR(optim.SGD([P], lr=1), 1.0), ValueError, "needs total_steps="),
    (lambda: optim.lr_scheduler.OneCycleLR(optim.Adagrad([P]), 1.0, 5), ValueError, "pass cycle_momentum=False"),
    (lambda: [schedule.step() for schedule in [one_cycle()] * 9], ValueError, "total_steps=5, and all are done"),
    (lambda: optim.lr_scheduler.SequentialLR(optim.SGD([P], lr=1), [], [3]), ValueError, "got 1 and 0"),
    (lambda: optim.lr_scheduler.ChainedScheduler([]), ValueError, "needs one schedule or more"),
    (lambda: optim.swa_utils.get_ema_avg_fn(2), ValueError, "needs decay= from 0 to 1, got 2"),
    (lambda: optim.lr_scheduler.LambdaLR(optim.SGD([P], lr=1), [abs, abs]), ValueError, "for each of 1 groups, got 2"),
    (lambda: optim.lr_scheduler.ReduceLROnPlateau(optim.SGD([P], lr=1), "least"), ValueError, "'least'"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:24] for e in ERRORS])
def test_error(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    P.grad = hal.ones(2)
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda s: s["param_groups"].pop(), r"groups of \[1, 1\] parameters, the state has groups of \[1\]"),
        (lambda s: s["state"].update({7: {}}), "no parameter number 7"),
        (
            lambda s: s["state"][0].update(momentum_buffer=hal.ones(3)),
            r"momentum_buffer of parameter 0 has shape \(3,\)",
        ),
    ],
)
def test_nothing_is_loaded_if_anything_is_wrong(spoil: Callable[[dict[str, Any]], Any], text: str) -> None:
    params = [nn.Parameter(hal.ones(2)), nn.Parameter(hal.ones(2))]
    optimizer = optim.SGD([{"params": p} for p in params], lr=0.1, momentum=0.9)
    for p in params:
        p.grad = hal.ones(2)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["lr"] = 5
    spoil(state)
    with pytest.raises(StateError, match=text):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.1


# fmt: off
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 6], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("LinearLR", {"start_factor": 0.25, "total_iters": 4}),
    ("CosineAnnealingLR", {"T_max": 6, "eta_min": 0.01}),
    ("LambdaLR", {"lr_lambda": lambda epoch: 1 / (1 + epoch)}),
    ("MultiplicativeLR", {"lr_lambda": lambda epoch: 0.9 - epoch / 100}),
    ("ConstantLR", {"factor": 0.5, "total_iters": 4}),
    ("PolynomialLR", {"total_iters": 6, "power": 2.0}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3}),
    ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2, "eta_min": 0.01}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 10, "cycle_momentum": False}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 3}),
    ("CyclicLR", {"base_lr": [0.1, 0.2], "max_lr": 0.5, "step_size_up": 3, "step_size_down": 1, "mode": "triangular2"}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, "mode": "exp_range", "gamma": 0.9}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, "scale_fn": lambda x: 1 / x, "base_momentum": 0.5}),
    ("SWALR", {"swa_lr": 0.01, "anneal_epochs": 4}),
    ("SWALR", {"swa_lr": [0.9, 0.02], "anneal_epochs": 3, "anneal_strategy": "linear"}),
    ("SWALR", {"swa_lr": 0.05, "anneal_epochs": 0}),
    ("OneCycleLR", {"max_lr": [0.5, 0.2], "epochs": 4, "steps_per_epoch": 3, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 12, "three_phase": True, "pct_start": 0.4}),
]
# fmt: on


def part_of(kit: Any, name: str) -> Any:
    """Where a schedule is to be found."""
    return kit.swa_utils if name == "SWALR" else kit.lr_scheduler


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
@pytest.mark.parametrize(("name", "settings"), SCHEDULES, ids=[s[0] for s in SCHEDULES])
def test_schedule(torch: ModuleType, name: str, settings: dict[str, Any]) -> None:
    pair = Pair(torch)
    a, b = optim.SGD(groups(pair.ours), lr=0.1), torch.optim.SGD(groups(pair.theirs), lr=0.1)
    ours = getattr(part_of(optim, name), name)(a, **settings)
    theirs = getattr(part_of(torch.optim, name), name)(b, **settings)
    rates: list[list[float]] = []
    for _ in range(10):
        rates.append(ours.get_last_lr())
        assert rates[-1] == [g["lr"] for g in a.param_groups] == pytest.approx(theirs.get_last_lr(), rel=1e-6, abs=1e-9)
        assert [g["momentum"] for g in a.param_groups] == pytest.approx([g["momentum"] for g in b.param_groups])
        ours.step()
        theirs.step()
    again = getattr(part_of(optim, name), name)(optim.SGD(groups(pair.ours), lr=0.1), **settings)
    for _ in range(4):
        again.step()
    resumed = getattr(part_of(optim, name), name)(optim.SGD(groups(pair.ours), lr=0.1), **settings)
    resumed.load_state_dict(again.state_dict())
    resumed.step()
    assert resumed.get_last_lr() == rates[5]


@pytest.mark.parametrize(
    "settings",
    [{}, {"mode": "max"}, {"threshold": 0.3, "threshold_mode": "abs"}, {"cooldown": 2, "min_lr": 0.03}],
    ids=str,
)
def test_reduction_on_a_plateau(torch: ModuleType, settings: dict[str, Any]) -> None:
    pair = Pair(torch)
    a, b = optim.SGD(pair.ours, lr=0.1), torch.optim.SGD(pair.theirs, lr=0.1)
    ours = optim.lr_scheduler.ReduceLROnPlateau(a, factor=0.5, patience=1, **settings)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(b, factor=0.5, patience=1, **settings)
    for metric in [5, 4, 4, 4, 4, 3.9, 3.8, 4, 4.1, 4.2, 4.3, 4.4, 4.5, 1, 1, 1, 1, 1]:
        ours.step(metric)
        theirs.step(metric)
        assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr())
    assert a.param_groups[0]["lr"] < 0.1
