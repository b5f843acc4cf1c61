"""Combined optimizers and schedules: several at once, L-BFGS, Lion by its paper, and averaged weights."""

import copy
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn
from nn import optim
from nn.optim import lr_scheduler as ours
from nn.optim import swa_utils


def combine(made: str, schedules: Any, optimizer: Any) -> list[Any]:
    """The same combination of a warm-up, a decay and a staircase in either library: those to step."""
    warm = schedules.LinearLR(optimizer, start_factor=0.25, total_iters=3)
    fall = schedules.ExponentialLR(optimizer, gamma=0.9)
    stairs = schedules.StepLR(optimizer, step_size=2, gamma=0.5)
    if made == "loose":
        return [warm, fall, stairs]
    if made == "chained":
        return [schedules.ChainedScheduler([warm, fall, stairs])]
    return [schedules.SequentialLR(optimizer, [warm, fall, stairs], [3, 6])]


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("made", ["loose", "chained", "sequential"])
def test_combined_schedules(torch: ModuleType, made: str) -> None:
    a = optim.SGD([{"params": nn.Parameter(hal.ones(1))}, {"params": nn.Parameter(hal.ones(1)), "lr": 2.0}], lr=0.1)
    p, q = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    b = torch.optim.SGD([{"params": p}, {"params": q, "lr": 2.0}], lr=0.1)
    mine, theirs = combine(made, ours, a), combine(made, torch.optim.lr_scheduler, b)
    for _ in range(10):
        rates = [group["lr"] for group in a.param_groups]
        assert rates == pytest.approx([group["lr"] for group in b.param_groups], rel=1e-6)
        for schedule in (*mine, *theirs):
            schedule.step()


def test_a_combined_schedule_is_saved_with_its_parts() -> None:
    rates = []
    state: dict[str, Any] = {}
    for resume in (False, True):
        optimizer = optim.SGD([nn.Parameter(hal.ones(1))], lr=0.1)
        [schedule] = combine("sequential", ours, optimizer)
        if resume:
            schedule.load_state_dict(copy.deepcopy(state))
        for epoch in range(4 if resume else 8):
            if not resume and epoch == 4:
                state = copy.deepcopy(schedule.state_dict())
            schedule.step()
        rates.append(schedule.get_last_lr())
    assert rates[0] == rates[1]


def test_a_schedule_that_was_dropped_no_longer_counts() -> None:
    optimizer = optim.SGD([nn.Parameter(hal.ones(1))], lr=1.0)
    first = ours.ExponentialLR(optimizer, 0.5)
    first.step()
    del first
    second = ours.StepLR(optimizer, 1, 0.1)
    second.step()
    assert second.get_last_lr() == [0.1]


def rosenbrock(lib: Any, x: Any) -> Any:
    return ((1 - x[:-1]) ** 2).sum() + 100 * ((x[1:] - x[:-1] ** 2) ** 2).sum()


@pytest.mark.parametrize("settings", [
    {"lr": 1e-3}, {"lr": 0.5, "line_search_fn": "strong_wolfe"}, {"line_search_fn": "strong_wolfe", "history_size": 2},
    {"line_search_fn": "strong_wolfe", "max_iter": 5, "max_eval": 4},
], ids=str)  # fmt: skip
def test_lbfgs_goes_where_torchs_goes(torch: ModuleType, settings: dict[str, Any]) -> None:
    start = np.array([-1.2, 1.0, 0.5, 2.0])
    x, y = nn.Parameter(hal.tensor(start)), torch.nn.Parameter(torch.tensor(start))
    a, b = optim.LBFGS([x], **settings), torch.optim.LBFGS([y], **settings)

    def again(lib: Any, point: Any, optimizer: Any) -> Any:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = rosenbrock(lib, point)
            loss.backward()
            return loss

        return closure

    for _ in range(3):
        mine, theirs = a.step(again(hal, x, a)), b.step(again(torch, y, b))
        assert float(mine) == pytest.approx(theirs.item(), rel=1e-6)
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=1e-6)
    assert a.state[x]["func_evals"] == b.state[y]["func_evals"]


def test_lbfgs_finds_the_minimum_and_goes_on_from_its_state() -> None:
    def run(steps: int, resume_at: int | None = None) -> list[float]:
        x, w = (
            nn.Parameter(hal.tensor([-1.2, 1.0], dtype=hal.float64)),
            nn.Parameter(hal.tensor(3.0, dtype=hal.float64)),
        )
        optimizer = optim.LBFGS([x, w], line_search_fn="strong_wolfe", max_iter=4)

        def closure() -> hal.Tensor:
            optimizer.zero_grad()
            loss = rosenbrock(hal, x) + (w - 2) ** 4
            loss.backward()
            return loss

        for step in range(steps):
            if step == resume_at:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = optim.LBFGS([x, w])
                optimizer.load_state_dict(state)
            optimizer.step(closure)
        return [*x.tolist(), w.item()]

    assert run(30) == pytest.approx([1, 1, 2], abs=1e-2)
    assert run(6, resume_at=3) == run(6)


def test_lion_moves_as_its_paper_says() -> None:
    start, rng = np.array([1.0, -2.0, 3.0]), np.random.default_rng(0)
    p = nn.Parameter(hal.tensor(start))
    optimizer = optim.Lion([p], lr=0.1, betas=(0.9, 0.8), weight_decay=0.5)
    theta, mean = start.copy(), np.zeros(3)
    for _ in range(5):
        g = rng.normal(size=3)
        p.grad = hal.tensor(g)
        optimizer.step()
        direction = np.sign(0.9 * mean + 0.1 * g)  # algorithm 2, line by line
        theta = theta - 0.1 * (direction + 0.5 * theta)
        mean = 0.8 * mean + 0.2 * g
        np.testing.assert_allclose(p.detach().numpy(), theta, rtol=1e-12)
        np.testing.assert_allclose(optimizer.state[p]["exp_avg"].numpy(), mean, rtol=1e-12)


@pytest.mark.parametrize("kind", ["swa", "ema"])
@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_weights(torch: ModuleType, kind: str, use_buffers: bool) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    twin.load_state_dict({name: torch.tensor(value.numpy()) for name, value in net.state_dict().items()})
    functions: list[Any] = [None, None]
    if kind == "ema":
        functions = [swa_utils.get_ema_avg_fn(0.7), torch.optim.swa_utils.get_ema_avg_fn(0.7)]
    mine = swa_utils.AveragedModel(net, avg_fn=functions[0], use_buffers=use_buffers)
    theirs = torch.optim.swa_utils.AveragedModel(twin, avg_fn=functions[1], use_buffers=use_buffers)
    rng = np.random.default_rng(0)
    for _ in range(4):
        x = rng.normal(size=(5, 3)).astype(np.float32)
        net(hal.tensor(x))
        twin(torch.tensor(x))
        change = rng.normal(size=(4, 3)).astype(np.float32)
        with hal.no_grad():
            net[0].weight.add_(hal.tensor(change))
        with torch.no_grad():
            twin[0].weight.add_(torch.tensor(change))
        mine.update_parameters(net)
        theirs.update_parameters(twin)
    wanted = theirs.state_dict()
    assert mine.state_dict().keys() == wanted.keys()
    for name, value in mine.state_dict().items():
        if name.endswith("num_batches_tracked"):  # a count, which is copied; torch averages it as an integer
            assert value.item() == 4
            continue
        np.testing.assert_allclose(value.numpy(), wanted[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    mine.eval()
    assert mine(hal.ones(2, 3)).shape == (2, 4)


def test_batch_norms_are_computed_anew_for_averaged_weights() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    batches = [hal.tensor([[0.0, 2.0], [2.0, 4.0]]), hal.tensor([[4.0, 0.0], [6.0, 2.0]])]
    net(hal.full((4, 2), 100.0))
    net.eval()
    swa_utils.update_bn([(x, None) for x in batches], net)
    assert net[0].running_mean.tolist() == [3.0, 2.0]
    assert net[0].momentum == 0.1
    assert not net.training
