"""What must hold for any network on any machine: nothing is lost or overlaps, nothing is read while it is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import ceil

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hal.errors import ConfigError
from hal_systolic.config import Machine
from hal_systolic.counters import COLUMNS
from hal_systolic.hazards import overlap
from hal_systolic.presets import PRESETS
from hal_systolic.simulation import Simulation, simulate
from hal_systolic.tiling import Problem, Tiling, problem, slot_bytes, tilings
from hal_systolic.work import Matmul, Operand, Pause, Transfer, Vector, Work

SIZE = st.integers(1, 90)
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)  # a smaller network is seldom a simpler one


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """A small machine of any kind."""
    rows, cols, arrays = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.sampled_from([1, 1, 2, 4]))
    dataflow = draw(st.sampled_from(["ws", "ws", "os", "is"]))
    fifo = draw(st.sampled_from([0, 1, 2, 4])) if dataflow == "ws" else 0
    changes = {
        "rows": rows, "cols": cols, "arrays": arrays, "dataflow": dataflow, "weight_fifo_tiles": fifo,
        "weight_buffers": draw(st.sampled_from([1, 2])), "drain": draw(st.sampled_from(["physical", "none"])),
        "act.nbytes": draw(st.sampled_from([1 << 15, 1 << 17, 1 << 20])),
        "act.bytes_per_cycle": draw(st.sampled_from([0, 4])),
        "weight.nbytes": 0 if fifo else draw(st.sampled_from([0, 1 << 14])),
        "acc.nbytes": draw(st.sampled_from([1 << 11, 1 << 14])),
        "dram.bytes_per_s": draw(st.sampled_from([1e9, 7e9, 100e9])), "dram.latency": draw(st.integers(0, 50)),
        "vector.lanes": draw(st.integers(1, 64)), "vector.latency": draw(st.integers(0, 20)), "idle_w": 2.0,
    }  # fmt: skip
    return Machine(rates={"bfloat16": draw(st.sampled_from([0.5, 1.0]))}, host=PRESETS["tpu-v1"].host).override(
        **changes
    )


@st.composite
def networks(draw: st.DrawFn) -> list[Work]:
    """Layers that take each other's results, with tensors that are used again and views of another size."""
    sizes = draw(st.lists(st.integers(2, 60_000), min_size=3, max_size=8))
    weights = frozenset(draw(st.sets(st.integers(0, 2))))
    tensor = st.integers(0, len(sizes) - 1).map(lambda key: Operand(key, sizes[key], key in weights))
    result = st.integers(3, max(len(sizes) - 1, 3)).map(lambda key: Operand(key, sizes[min(key, len(sizes) - 1)]))

    @st.composite
    def product(draw: st.DrawFn) -> Matmul:
        m, k, n, count = draw(SIZE), draw(SIZE), draw(SIZE), draw(st.sampled_from([1, 1, 3]))
        keys = draw(st.permutations(range(len(sizes))))
        own = st.booleans()
        a = Operand(keys[0], 2 * m * k * count) if draw(own) else Operand(keys[0], sizes[keys[0]])
        b = Operand(keys[1], 2 * k * n * count, keys[1] in weights)
        out = Operand(max(keys[2], 3), 2 * m * n * count)
        passes, halo = draw(st.sampled_from([1, 3])), draw(st.sampled_from([0, 64]))
        return Matmul(m, k, n, a, b, out, count=count, passes=passes, halo=halo, layer=f"l{draw(st.integers(0, 3))}")

    vector = st.builds(
        Vector, st.just("f"), st.integers(0, 9000), st.sampled_from([1.0, 2.5]),
        st.lists(tensor, max_size=3).map(tuple), st.lists(result, min_size=1, max_size=2).map(tuple), st.just("v"),
    )  # fmt: skip
    transfer = st.builds(Transfer, tensor, st.booleans(), st.just("host"))
    pause = st.builds(Pause, st.sampled_from([100.0, 5000.0]))
    return draw(st.lists(st.one_of(product(), product(), vector, transfer, pause), min_size=1, max_size=10))


def fits(work: Sequence[Work], machine: Machine) -> Simulation | None:
    """The simulation, or None where one row of a product is larger than its slot, which is refused."""
    try:
        return simulate(work, machine)
    except ConfigError:
        rows = [p.row_bytes for p in (problem(w, machine) for w in work if isinstance(w, Matmul))]
        if max(rows) <= slot_bytes(machine) and machine.cols * machine.arrays * 4 <= slot_bytes(machine):
            raise
        return None


def check(simulation: Simulation, work: Sequence[Work]) -> None:
    machine, program, t = simulation.machine, simulation.program, simulation.timeline
    total = simulation.total

    # Every cycle is in one column, and every product, byte and picojoule in one layer.
    assert total.total_cycles == pytest.approx(simulation.cycles)
    assert set(total.cycles) == set(COLUMNS)
    assert min(total.cycles.values()) >= -1e-6
    assert total.macs == sum(piece.macs for piece in work if isinstance(piece, Matmul))
    assert total.slots >= total.macs
    for level, op, end in [("dram read", "DMA_IN", "reads"), ("dram written", "DMA_OUT", "writes")]:
        moved = sum(c.nbytes for c in program.commands if c.op == op)
        fetched = sum(c.nbytes * c.tiles for c in program.commands if c.op == "FETCH_W") if end == "reads" else 0
        through = sum(
            c.nbytes
            for c in program.commands
            if c.op in ("HOST_IN", "HOST_OUT") and any(r.memory == "dram" for r in getattr(c, end))
        )
        assert total.bytes_at(level) == moved + fetched + through
    assert total.joules == pytest.approx(sum(layer.joules for layer in simulation.layers.values()))
    assert total.energy["array"] == pytest.approx(total.macs * machine.energy.mac("bfloat16"))
    assert total.energy["idle"] == pytest.approx(2.0 * simulation.seconds * 1e12)

    # No unit does two things at once, and no command begins before what it waits for is done.
    last: dict[str, float] = defaultdict(float)
    for index, command in enumerate(program.commands):
        assert t.start[index] >= last[command.unit] - 1e-6, (index, command)
        assert t.end[index] >= t.start[index] - 1e-6
        last[command.unit] = t.end[index]
        for earlier, _ in command.after:
            assert earlier < index

    # No byte is read or written while another command writes it; all ranges lie in their buffers.
    limits = {"act": machine.act.nbytes, "weight": machine.weight.nbytes, "acc": machine.acc.nbytes}
    accesses = []
    for index, command in enumerate(program.commands):
        for span, writes in [*((r, False) for r in command.reads), *((w, True) for w in command.writes)]:
            assert 0 <= span.start <= span.stop <= limits.get(span.memory, 1 << 60), (index, command)
            accesses.append((index, span, writes))
    for i, (one, span, writes) in enumerate(accesses):
        for other, other_span, other_writes in accesses[i + 1 : i + 400]:
            if one == other or not (writes or other_writes) or not overlap(span, other_span):
                continue
            if program.commands[one].op == program.commands[other].op == "MATMUL":
                continue  # sums are added in the order in which they come down the array
            assert t.done[one] <= t.start[other] + 1e-6, (program.commands[one], program.commands[other])

    # The roofline: neither memory nor array is faster than it is.
    moved = total.bytes_at("dram read") + total.bytes_at("dram written")
    if not machine.weight_fifo_tiles:  # with a FIFO the host writes device memory past the DMA
        over_host = sum(c.nbytes for c in program.commands if c.op in ("HOST_IN", "HOST_OUT"))
        assert simulation.cycles >= (moved - over_host) / machine.dram_bytes_per_cycle - 1e-6
    passes = min((piece.passes for piece in work if isinstance(piece, Matmul)), default=1)
    assert simulation.cycles >= passes * total.macs / machine.peak_macs - 1e-6


@settings(max_examples=30, deadline=None, derandomize=True, phases=UNSHRUNK)
@given(networks(), machines())
def test_nothing_is_lost_and_nothing_overlaps(work: list[Work], machine: Machine) -> None:
    simulation = fits(work, machine)
    if simulation is not None:
        check(simulation, work)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True, phases=UNSHRUNK)
@given(networks(), machines())
def test_nothing_is_lost_and_nothing_overlaps_on_many_networks(work: list[Work], machine: Machine) -> None:
    simulation = fits(work, machine)
    if simulation is not None:
        check(simulation, work)


@settings(max_examples=20, deadline=None, derandomize=True, phases=UNSHRUNK)
@given(SIZE, SIZE, SIZE, machines(), st.integers(0, 7))
def test_any_tiling_does_all_products(m: int, k: int, n: int, machine: Machine, which: int) -> None:
    def choose(p: Problem, machine: Machine, streams: tuple[bool, bool, bool], cold: tuple[bool, bool]) -> Tiling:
        found = list(tilings(p, machine, streams))
        return found[which % len(found)]

    work = [Matmul(m, k, n, Operand(0, 2 * m * k), Operand(1, 2 * k * n, True), Operand(2, 2 * m * n))]
    simulation = simulate(work, machine, choose)
    check(simulation, work)
    held = {"ws": (k, n), "is": (k, m), "os": (m, n)}[machine.dataflow]  # what rows and columns hold
    tiles = ceil(held[0] / machine.rows) * ceil(held[1] / machine.cols)
    assert simulation.total.tiles >= tiles / machine.arrays  # which work side by side
