"""The cost model in closed form against the event level, which it must rank tilings like."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import median

import pytest

from hal_systolic.config import Machine
from hal_systolic.cost import cheapest, cost, matmul_cost, product_cycles, tiles
from hal_systolic.presets import PRESETS, load
from hal_systolic.simulation import Simulation, simulate
from hal_systolic.tiling import Problem, Tiling, problem, tilings
from hal_systolic.work import Matmul, Operand, Transfer, Vector

MACHINES = [name for name in PRESETS if name != "scalesim-compat"]


def product(machine: Machine, m: int, k: int, n: int, count: int = 1) -> Matmul:
    size = count * (1 if machine.in_dtype == "int8" else 2)
    a, b, out = Operand(0, size * m * k), Operand(1, size * k * n, weight=True), Operand(2, size * m * n)
    return Matmul(m, k, n, a, b, out, machine.in_dtype, count=count, layer="product")


def tried(work: Matmul, machine: Machine) -> list[tuple[Tiling, Simulation]]:
    """The product simulated under each of its tilings."""
    found: list[tuple[Tiling, Simulation]] = []
    asked: list[Tiling] = []

    def choose(p: Problem, machine: Machine, streams: tuple[bool, bool, bool], cold: tuple[bool, bool]) -> Tiling:
        asked[:] = tilings(p, machine, streams)
        return asked[len(found)]

    while not asked or len(found) < len(asked):
        simulation = simulate([work], machine, choose)
        found.append((asked[len(found)], simulation))
    return found


def without_writing_back(tiling: Tiling, simulation: Simulation) -> float:
    """Cycles until the result is there; one that stays on the chip is not yet written back."""
    if tiling.streams[2]:
        return simulation.cycles
    commands, done = simulation.program.commands, simulation.timeline.done
    return max(done[i] for i, command in enumerate(commands) if command.op == "ACT")


def ranks(values: list[float]) -> list[int]:
    order = sorted(range(len(values)), key=values.__getitem__)
    places = [0] * len(values)
    for place, index in enumerate(order):
        places[index] = place
    return places


def test_estimates_of_tilings_are_those_of_the_event_level() -> None:
    rng = random.Random(0)
    pairs: list[tuple[float, float]] = []
    for name in MACHINES:
        machine = load(name)
        low, high = (5, 11) if machine.rows >= 128 else (3, 7)
        for _ in range(12):
            m, k, n = (int(2 ** rng.uniform(low, high)) for _ in range(3))
            work = product(machine, m, k, n, rng.choice([1, 1, 1, 4]))
            for tiling, simulation in tried(work, machine):
                estimate, _ = product_cycles(problem(work, machine), tiling, machine)
                pairs.append((estimate, without_writing_back(tiling, simulation)))
    assert len(pairs) >= 200
    assert median(abs(estimate / cycles - 1) for estimate, cycles in pairs) <= 0.02
    n, first, second = len(pairs), ranks([p[0] for p in pairs]), ranks([p[1] for p in pairs])
    distance = sum((a - b) ** 2 for a, b in zip(first, second, strict=True))
    assert 1 - 6 * distance / (n * (n * n - 1)) >= 0.99  # Spearman's rank correlation


@pytest.mark.parametrize("name", MACHINES)
def test_the_cheapest_tiling_is_nearly_the_fastest(name: str) -> None:
    machine = load(name)
    work = product(machine, 700, 300, 260) if machine.rows >= 128 else product(machine, 90, 70, 60)
    found = {tiling: simulation.cycles for tiling, simulation in tried(work, machine)}
    p = problem(work, machine)
    chosen = cheapest(p, machine, next(iter(found)).streams)
    assert found[chosen] <= 1.1 * min(found.values())


@pytest.mark.parametrize("name", MACHINES)
def test_bytes_and_energy_are_near_those_that_are_counted(name: str) -> None:
    machine = load(name)
    work = product(machine, 512, 512, 512) if machine.rows >= 128 else product(machine, 64, 64, 64)
    for tiling, simulation in tried(work, machine)[:2]:
        estimate, total = matmul_cost(problem(work, machine), tiling, machine), simulation.total
        if machine.weight_fifo_tiles:
            assert estimate.dram_bytes == total.bytes_at("dram read")
        counted = total.joules - 1e-12 * (total.energy["idle"] + total.energy["vector"] + total.energy["host"])
        assert estimate.energy_j == pytest.approx(counted, rel=0.5)


def test_what_is_on_the_chip_costs_less_and_what_cannot_fit_says_so() -> None:
    machine = load("tpu-v2-core")
    work = product(machine, 256, 512, 512)
    assert cost(work, machine, on_chip=True).cycles < cost(work, machine).cycles
    assert cost(work, machine, on_chip=True).exposed_cycles < cost(work, machine).exposed_cycles
    assert cost(work, machine).cycles == min(cost(work, machine, tiling=t).cycles for t in tiles(work, machine))
    assert cost(product(machine, 256, 512, 512, count=8), machine).cycles > 4 * cost(work, machine).cycles
    small = load("gemmini-16")
    assert cost(product(small, 4, 4_000_000, 4), small).fits  # in slices along k
    wide = replace(product(small, 1, 1, 1), a=Operand(0, 1 << 20))  # one row of one tile needs a megabyte
    assert not cost(wide, small).fits


def test_vector_work_and_transfers_have_a_cost() -> None:
    machine = load("tpu-v2-core")
    x, y = Operand(0, 1 << 20), Operand(1, 1 << 20)
    add = Vector("add", 1 << 18, 1.0, (x,), (y,))
    simulated = simulate([add], machine).cycles
    assert cost(add, machine).cycles == pytest.approx(simulated, rel=0.35)
    assert cost(add, machine, on_chip=True).cycles == 256 + machine.vector.latency
    link = cost(Transfer(x, to_device=True), machine)
    assert link.latency_s == pytest.approx((1 << 20) / machine.host.bytes_per_s)
