"""State that lives where a plan runs: what moves and how often, and that nobody who looks at it can tell."""

from __future__ import annotations

import pickle
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import DeviceError
from hal.graph.plan import Plan
from hal.plugin import Speed
from hal.schedule import trial
from hal.schedule.offers import Freedom, offers
from hal.schedule.timeline import crosses
from hal.tensor import Waiting
from hal.testing.fake import Fake

SLOW, FAST = Speed(1e9, {"any": 1e9}, 2e-4), Speed(1e12, {"any": 1e12}, 1e-7)
COPY = 1e-4  # seconds, of any copy


class Counted(Fake):
    """A fake device that counts what it is sent and what it sends."""

    copies = 0

    def _travel(self, nbytes: int) -> None:
        self.copies += 1


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    """A device that is quicker than the host, `home`; what is tried takes the time that they declare."""
    home = Counted("home", speed=SLOW, host_memory=True, bandwidth=1e11, latency=COPY)
    fast = Counted("fast", speed=FAST, bandwidth=1e11, latency=COPY)

    def seconds() -> float:
        return sum(d.calls * d.declared.launch + d.copies * COPY for d in (home, fast))

    def times(runs: Sequence[Callable[[], None]]) -> list[float]:
        found = []
        for run in runs:
            before = seconds()
            run()
            found.append(seconds() - before)
        return found

    monkeypatch.setattr("hal.schedule.trial._times", times)
    with ExitStack() as stack:
        for backend in (home, fast):
            stack.enter_context(backend.registered())
        yield fast


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The moves of state, each with where it went."""
    from hal.schedule import waiting

    found: list[str] = []
    move, back = waiting.move, Waiting.back

    def noted(buffer: Any, spec: Any, source: Any, target: Any) -> Any:
        found.append(str(target))
        return move(buffer, spec, source, target)

    def noted_back(self: Waiting) -> Any:
        found.append(str(self.home))
        return back(self)

    monkeypatch.setattr(waiting, "move", noted)
    monkeypatch.setattr(Waiting, "back", noted_back)
    return found


class Learner:
    """A network at home with running statistics, random numbers and moments, compiled steps and evaluation."""

    def __init__(self, policy: str) -> None:
        hal.manual_seed(0)
        self.policy = policy
        self.model = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)
        ).to("home")  # fmt: skip
        self.optimizer = nn.optim.Adam(self.model.parameters(), lr=1e-2)
        loss_of = nn.CrossEntropyLoss()

        def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
            self.optimizer.zero_grad()
            loss: hal.Tensor = loss_of(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        def evaluate(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
            with hal.no_grad():
                found: hal.Tensor = loss_of(self.model(x), y)
                return found

        self.step, self.evaluate = hal.compile(step), hal.compile(evaluate)
        self.rng, self.seed = np.random.default_rng(0), 0

    def batch(self, count: int) -> tuple[hal.Tensor, hal.Tensor]:
        """Some inputs and labels, at home."""
        x = self.rng.normal(size=(count, 6)).astype("f4")
        return hal.tensor(x, device="home"), hal.tensor(self.rng.integers(0, 3, count), device="home")

    def train(self, *counts: int) -> list[float]:
        """The losses of steps on batches of these sizes."""
        self.model.train()
        hal.manual_seed(self.seed)  # for those that do the same one after another
        self.seed += 1
        with hal.placement(self.policy, devices=["fast"]):
            return [self.step(*self.batch(count)).item() for count in counts]

    def check(self, *counts: int) -> list[float]:
        """The losses of evaluation on batches of these sizes."""
        self.model.eval()
        with hal.placement(self.policy, devices=["fast"]):
            return [self.evaluate(*self.batch(count)).item() for count in counts]

    def held(self) -> list[hal.Tensor]:
        """Parameters, statistics and moments."""
        moments = [x for p in self.model.parameters() for x in self.optimizer.state[p].values()]
        return [x for x in (*self.model.state_dict().values(), *moments) if isinstance(x, hal.Tensor)]

    def state(self) -> list[np.ndarray]:
        """What is in them."""
        return [x.detach().cpu().numpy().copy() for x in self.held()]

    @property
    def plan(self) -> Plan:
        """Of the latest kind of steps."""
        return self.step.plans[-1]


def both() -> tuple[Learner, Learner]:
    """Two that should do the same: one moves nothing, one what is best."""
    return Learner("follow"), Learner("auto")


def same(a: Learner, b: Learner) -> None:
    for x, y in zip(a.state(), b.state(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_an_epoch_with_a_last_smaller_batch_and_evaluation_moves_state_once(fast: Counted, moves: list[str]) -> None:
    follow, auto = both()
    want = [*follow.train(8, 8, 8, 5), *follow.check(8, 8, 3), *follow.train(8, 8, 8, 5)]
    assert not moves
    got = [*auto.train(8, 8, 8, 5), *auto.check(8, 8, 3), *auto.train(8, 8, 8, 5)]
    assert got == want
    held = len(auto.held())
    assert moves == ["fast"] * held
    assert {str(x.device) for x in auto.held()} == {"home"}, "the user's word is kept"
    for plan in (*auto.step.plans, *auto.evaluate.plans):
        assert {str(s.device) for s in plan.steps} == {"fast"}
        assert not any(crosses(n) for n in plan.graph.nodes)
    before = fast.copies
    auto.train(8)
    assert fast.copies - before <= 2 + 5 + 1, "a batch, the numbers of the step, and the loss"
    same(auto, follow) if follow.train(8) else None


def test_evaluation_first_does_not_decide_for_training(fast: Counted, moves: list[str]) -> None:
    follow, auto = both()
    assert [*auto.check(8), *auto.train(8, 8), *auto.check(8)] == [
        *follow.check(8),
        *follow.train(8, 8),
        *follow.check(8),
    ]
    same(auto, follow)


def _save(learner: Learner, path: Path) -> None:
    hal.save(learner.model.state_dict(), path)
    learner.model.load_state_dict(hal.load(path))


def _scaled(learner: Learner, path: Path) -> None:
    with hal.no_grad():
        learner.model[0].weight.mul_(0.5)


def _data(learner: Learner, path: Path) -> None:
    learner.model[0].weight.data = learner.model[0].weight.data * 0.5


def _row(learner: Learner, path: Path) -> None:
    with hal.no_grad():
        learner.model[0].weight[1:3].fill_(0.25)


def _as_array(learner: Learner, path: Path) -> None:
    learner.model[0].bias.detach().numpy()[:] = 1.0


def _rate(learner: Learner, path: Path) -> None:
    learner.optimizer.param_groups[0]["lr"] = 0.1


def _pickled(learner: Learner, path: Path) -> None:
    weight = pickle.loads(pickle.dumps(learner.model[0].weight))
    with hal.no_grad():
        learner.model[0].weight.copy_(weight + 1.0)


def _gradient(learner: Learner, path: Path) -> None:
    with hal.no_grad():
        learner.model[4].weight.sub_(learner.model[4].weight.grad)


def _moved(learner: Learner, path: Path) -> None:
    learner.model.to("fast")
    learner.model.to("home")


def _eager(learner: Learner, path: Path) -> None:
    x, y = learner.batch(4)
    learner.optimizer.zero_grad()
    nn.CrossEntropyLoss()(learner.model(x), y).backward()
    learner.optimizer.step()


@pytest.mark.parametrize(
    "meddle", [_save, _scaled, _data, _row, _as_array, _rate, _pickled, _gradient, _moved, _eager],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_whatever_others_do_with_state_between_calls_is_as_if_it_were_at_home(
    meddle: Callable[[Learner, Path], None], fast: Counted, tmp_path: Path
) -> None:
    follow, auto = both()
    losses = []
    for learner in (follow, auto):
        found = learner.train(8, 8)
        meddle(learner, tmp_path / "state.safetensors")
        losses.append([*found, *learner.train(8, 8)])
    assert losses[0] == losses[1]
    assert all(str(x.device) == "home" for x in auto.held())
    assert auto.plan.graph.away
    same(auto, follow)


def test_where_moving_costs_more_than_is_gained_a_plan_leaves_state_where_others_want_it(
    fast: Counted, moves: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = trial._times
    monkeypatch.setattr("hal.schedule.trial._times", lambda runs: [1e-6 * t for t in times(runs)])  # next to nothing
    follow, auto = both()
    for _ in range(6):
        for learner in (follow, auto):
            learner.train(8)
            _scaled(learner, Path())
    weight = auto.model[0].weight.storage
    assert type(weight.buffer) is not Waiting, "it stays at home"
    assert type(auto.model[4].weight.storage.buffer) is Waiting, "the others have not moved"
    assert moves.count("home") == 2
    same(auto, follow)


def test_a_kernel_that_fails_leaves_state_as_it_was_where_it_was(fast: Counted) -> None:
    follow, auto = both()
    follow.train(8, 8)
    auto.train(8, 8)
    for calls in (0, 7, 20):
        fast.fail_after = fast.calls + calls
        with pytest.raises(DeviceError, match="fast failed at") as caught:
            auto.train(8)
        assert any("no parameter and no state was changed" in note for note in caught.value.__notes__)
        fast.fail_after = None
        same(auto, follow)
    for learner in (auto, follow):
        learner.seed, learner.rng = 7, np.random.default_rng(7)
    assert auto.train(8) == follow.train(8)
    same(auto, follow)


def test_results_and_gradients_wait_until_they_are_wanted(fast: Counted) -> None:
    weight = hal.ones(4, 4, device="home", requires_grad=True)

    def step(x: hal.Tensor) -> tuple[hal.Tensor, hal.Tensor]:
        weight.grad = None
        y = (x @ weight).tanh()
        loss = y.square().sum()
        loss.backward()
        return loss.detach(), y.detach()

    x = hal.ones(4, 4, device="home")
    want = [t.numpy().copy() for t in (*step(x), weight.grad)]
    with hal.placement("auto", devices=["fast"]):
        f = hal.compile(step)
        for _ in range(3):
            before = fast.copies
            loss, y = f(x)
    assert fast.copies == before, "the same argument is there already, and nobody asked for results"
    found = [loss, y, weight.grad]
    assert all(str(t.device) == "home" and type(t.storage.buffer) is Waiting for t in found)
    for t, array in zip(found, want, strict=True):
        np.testing.assert_array_equal(t.numpy(), array)
    assert (y + 1.0).device is y.device


def test_an_argument_is_brought_again_only_if_it_changed_or_somebody_else_may_have_changed_it(fast: Counted) -> None:
    weight = hal.ones(3, 3, device="home")
    with hal.placement("auto", devices=["fast"]):
        f = hal.compile(lambda a: (((a @ weight).cos() @ weight).sin() @ weight).sum())

        def copies(a: hal.Tensor) -> int:
            before = fast.copies
            f(a)
            return fast.copies - before

        x, other = hal.ones(3, 3, device="home"), hal.zeros(3, 3, device="home")
        f(x)
        assert [copies(x), copies(x), copies(other), copies(other)] == [0, 0, 1, 0]
        one = f(x).item()
        x.mul_(2.0)
        assert f(x).item() != one
        assert copies(x) == 0
        array = np.ones((3, 3), np.float32)
        shared = hal.asarray(array, device="home", copy=False)
        assert f(shared).item() == one
        array[:] = 2.0
        assert f(shared).item() == f(x).item()
        x.numpy()[:] = 1.0
        assert f(x).item() == one
        gone = weakref.ref(other)
        del other
        assert gone() is None


def test_memory_that_is_somebody_elses_does_not_move(fast: Counted) -> None:
    array = np.ones((3, 3), np.float32)
    mine, borrowed = hal.ones(3, 3, device="home"), hal.asarray(array, device="home", copy=False)
    with hal.placement("auto", devices=["fast"]):
        f = hal.compile(lambda a: ((((a @ mine).cos() @ borrowed).cos() @ mine).sin() @ mine).cos().sum())
        x = hal.ones(3, 3, device="home")
        one = f(x).item()
        array[:] = 0.5
        assert f(x).item() != one
    assert type(mine.storage.buffer) is Waiting
    assert type(borrowed.storage.buffer) is not Waiting


def test_a_report_says_what_was_tried_and_what_lives_elsewhere(
    fast: Counted, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAL_LOG", "placement")
    auto = Learner("auto")
    auto.train(8)
    told = str(auto.plan.report())
    assert re.search(
        r"tried when it was made: all on fast, state on fast [\d.]+ .s, follow .*; the first was taken", told
    )
    assert re.search(r"\d+ inputs \([\d.]+ KiB\) live on fast between calls, .* and not on home", told)
    assert re.search(r"\d+ results \([\d.]+ .*B\) are left on fast until somebody wants them on home", told)
    assert re.search(
        r"hal: placement: tried, the first was taken: all on fast, .* \(predicted .*\), follow", capsys.readouterr().err
    )


def test_simulated_devices_are_chosen_by_nobodys_clock(fast: Counted) -> None:
    """What a simulation takes here says nothing; who wants one puts the model on it, and there it stays."""
    x = hal.ones(8, 8, device="home")
    f = hal.compile(lambda a: ((a @ a).exp() @ a).tanh().sum())
    f(x)
    f(x.to("fast"))
    there, here = (plan.graph for plan in f.plans)
    if there.inputs[0].device is not fast.devices()[0]:
        there, here = here, there
    fast.simulated = True
    devices = [hal.device("fast"), hal.device("home")]
    assert [(o.name, o.graph) for o in offers(here, Freedom(), devices)] == [("follow", here)]
    (only,) = offers(there, Freedom(), devices)
    assert {n.device for n in only.graph.nodes} == {hal.device("fast")}


def test_training_follows_evaluation_on_a_device_that_only_infers(fast: Counted) -> None:
    fast.training = False
    follow, auto = both()
    want = [[*a.check(8, 8), *a.train(8, 8), *a.check(8), *a.train(8)] for a in (follow, auto)]
    assert want[0] == want[1]
    assert {str(s.device) for s in auto.evaluate.plans[-1].steps} == {"fast"}
    assert {str(s.device) for s in auto.plan.steps if s.how != "copy"} == {"home"}
    same(auto, follow)


def test_a_plan_that_may_not_use_the_device_brings_state_home(fast: Counted, moves: list[str]) -> None:
    follow, auto = both()
    losses = [[*a.train(8, 8)] for a in (follow, auto)]
    auto.policy = "follow"
    losses[0] += follow.train(8)
    losses[1] += auto.train(8)
    assert losses[0] == losses[1]
    assert set(moves[: len(moves) // 2]) == {"fast"}
    assert set(moves[len(moves) // 2 :]) == {"home"}
    same(auto, follow)


def test_functions_that_want_a_parameter_in_two_places_may_run_in_two_threads(fast: Counted) -> None:
    weight = hal.ones(4, 4, device="home")

    def f(x: hal.Tensor) -> hal.Tensor:
        return (((x @ weight).sin() @ weight).cos() @ weight).sum()

    x = hal.ones(4, 4, device="home")
    want, found = f(x).item(), list[float]()

    def run(policy: str) -> None:
        with hal.placement(policy, devices=["fast"]):
            compiled = hal.compile(f)
            found.extend([compiled(x).item() for _ in range(20)])

    threads = [Thread(target=run, args=(policy,)) for policy in ("auto", "follow")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [want] * 40
