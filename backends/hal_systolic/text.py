"""A simulation as text: what it is of, the cycles of each layer in the columns of TPU v1's Table 3, and energy."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from hal_systolic.counters import COLUMNS, COMPONENTS, Counters
from hal_systolic.simulation import Simulation
from hal_systolic.stream import UNITS

SHORT = {
    "active": "active", "weight_stall": "w stall", "weight_shift": "w shift", "input_stall": "input",
    "raw_stall": "raw", "accumulator_stall": "acc", "fill_drain": "fill", "vector": "vector", "idle": "idle",
}  # fmt: skip
SHADES = " ░▒▓█"
PREFIXES = (
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
    (1e-12, "p"),
)


def si(value: float, unit: str = "") -> str:
    """A number with three digits and a prefix: `1.35 GB`."""
    for size, prefix in PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix.strip()}{unit}".rstrip()
    return f"0 {unit}".rstrip()


def as_text(s: Simulation) -> str:
    """The report of a simulation, for a terminal."""
    return "\n".join(_lines(s))


def summary(s: Simulation) -> list[tuple[str, str]]:
    """What the report begins with: pairs of a name and a number."""
    m, total = s.machine, s.measures(s.total)
    arrays = f"{m.arrays} x " if m.arrays > 1 else ""
    dram = s.total.bytes_at("dram read") + s.total.bytes_at("dram written")
    pairs = [
        ("machine", f"{m.name}: {arrays}{m.rows} x {m.cols} {m.dataflow}, {m.in_dtype}, {si(m.clock_hz, 'Hz')}"),
        ("cycles", f"{s.cycles:,.0f}, {si(s.seconds, 's')}"),
        ("products", f"{si(total['macs'])} multiply-adds, {si(total['tops'] * 1e12, 'op/s')}"),
        ("utilization", f"{total['utilization_pct']:.1f} % of the peak; {total['bound']}-bound: by the roofline it "
                        f"could take {total['roofline_pct']:.1f} % of this time"),
        ("mapping", f"{total['mapping_efficiency_pct']:.1f} % of the active array did useful products, "
                    f"{total['padding_pct']:.1f} % was padding"),
        ("device memory", f"{si(dram, 'B')}, {si(total['dram_bytes_per_s'], 'B/s')}"),
        ("energy", f"{si(total['joules'], 'J')}, {si(s.watts, 'W')} above idle"),
    ]  # fmt: skip
    return pairs


def _lines(s: Simulation) -> Iterator[str]:
    for name, value in summary(s):
        yield f"{name:14}{value}"
    yield ""
    names = [name or "(no layer)" for name in s.layers]
    width = max([len(n) for n in names] + [5])
    used = [c for c in COLUMNS if s.total.cycles[c] > 0]
    heads = "".join(f"{SHORT[c]:>8}" for c in used)
    yield f"{'layer':{width}}{'cycles':>13}{heads}{'util':>8}{'mapping':>9}{'DRAM':>10}{'energy':>10}  bound"
    for name, counters in zip(names, s.layers.values(), strict=True):
        if counters.total_cycles or counters.traffic:
            yield _row(f"{name:{width}}", s, counters, used)
    yield _row(f"{'total':{width}}", s, s.total, used)
    yield ""
    energy = s.total.energy
    parts = sorted((c for c in COMPONENTS if energy[c] > 0), key=lambda c: -energy[c])
    yield "energy: " + ", ".join(f"{c} {si(energy[c] * 1e-12, 'J')}" for c in parts)
    yield ""
    yield from lanes(s)


def lanes(s: Simulation, width: int = 100) -> Iterator[str]:
    """The timeline in characters: a lane for each unit that did something, darker where it worked more of the time."""
    if not s.cycles:
        return
    busy: dict[str, list[float]] = {}
    cycles = s.cycles / width  # of one character
    for interval in s.intervals():
        lane = busy.setdefault(interval.unit, [0.0] * width)
        first, last = int(interval.start / cycles), min(int(interval.end / cycles), width - 1)
        for i in range(first, last + 1):
            lane[i] += max(0.0, min(interval.end, (i + 1) * cycles) - max(interval.start, i * cycles))
    for unit in UNITS:
        if any(busy.get(unit, ())):
            shades = (SHADES[min(ceil(share / cycles * (len(SHADES) - 1)), len(SHADES) - 1)] for share in busy[unit])
            yield f"{unit:>8} |{''.join(shades)}|"
    yield f"{'':8}  0{s.cycles:>{width - 1},.0f} cycles"


def _row(name: str, s: Simulation, counters: Counters, used: list[str]) -> str:
    m = s.measures(counters)
    columns = "".join(f"{m['columns_pct'][c]:7.1f}%" for c in used)
    dram = counters.bytes_at("dram read") + counters.bytes_at("dram written")
    bound = m["bound"] if counters.macs else "vector"
    return (
        f"{name}{m['cycles']:13,.0f}{columns}{m['utilization_pct']:7.1f}%{m['mapping_efficiency_pct']:8.1f}%"
        f"{si(dram, 'B'):>10}{si(m['joules'], 'J'):>10}  {bound}"
    )
