"""What a run cost: spikes, synaptic operations, neuron updates and energy for each layer, beside conventional MACs."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

from hal_spiking.signals import Constant, Layer, Signal, Spikes


@dataclass(frozen=True)
class Costs:
    """Joules for each thing that is counted, and where the numbers come from.

    Attributes:
        synaptic_op: one event arriving at one neuron.
        neuron_update: one neuron in one time step, whether it fires or not.
        mac: one multiplication and addition of a conventional network, arithmetic alone.
    """

    synaptic_op: float = 23.6e-12
    neuron_update: float = 81e-12
    mac: float = 4.6e-12
    source: str = (
        "synaptic op (minimum) and neuron update (active): Davies et al., 'Loihi: A neuromorphic manycore processor "
        "with on-chip learning', IEEE Micro 38(1), 2018, 14 nm; MAC (float32 multiply 3.7 pJ + add 0.9 pJ, no memory "
        "access): Horowitz, 'Computing's energy problem', ISSCC 2014, 45 nm"
    )


@dataclass
class Row:
    """What happened in one layer, in all runs together.

    Attributes:
        layer: its number in the order of first use, its op, and the shape of its weights.
        samples: inputs that it was given.
        spikes: that its neurons sent.
        updates: neurons times time steps.
        synaptic_ops: events that arrived at its neurons.
        macs: of the same layer in a conventional network.
        analog_macs: those of them that are done here too: an input that is no spike train is multiplied with the
            weights once, and the product flows as the same current in every step.
    """

    layer: str
    samples: int = 0
    spikes: int = 0
    updates: int = 0
    synaptic_ops: int = 0
    macs: int = 0
    analog_macs: int = 0

    @property
    def rate(self) -> float:
        """Spikes per neuron and time step; 0 for neurons that are only read out."""
        return self.spikes / self.updates if self.updates else 0.0

    def energy(self, costs: Costs) -> float:
        """Joules, spiking."""
        events = self.synaptic_ops * costs.synaptic_op + self.updates * costs.neuron_update
        return events + self.analog_macs * costs.mac

    def conventional_energy(self, costs: Costs) -> float:
        """Joules for the MACs of the same layer."""
        return self.macs * costs.mac


@dataclass(eq=False)
class Report:
    """What the spiking device did inside the `with` block that it heads, in this thread.

    Attributes:
        costs: joules for each thing that is counted.
        rows: one for each layer, in the order of first use.
        steps: time steps of a run (the most, if runs differed).
        depth: layers of spiking neurons that a spike goes through.
    """

    costs: Costs = field(default_factory=Costs)
    rows: list[Row] = field(default_factory=list)
    steps: int = 0
    depth: int = 0
    _by_layer: dict[Layer, Row] = field(default_factory=dict, repr=False)

    def __enter__(self) -> Report:
        _active.reports.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _active.reports.remove(self)

    @property
    def samples(self) -> int:
        """Inputs that were run."""
        return self.rows[0].samples if self.rows else 0

    @property
    def spikes(self) -> int:
        """In all layers."""
        return sum(row.spikes for row in self.rows)

    @property
    def synaptic_ops(self) -> int:
        """In all layers."""
        return sum(row.synaptic_ops for row in self.rows)

    @property
    def macs(self) -> int:
        """Of the same network done conventionally."""
        return sum(row.macs for row in self.rows)

    @property
    def energy(self) -> float:
        """Joules for all samples, spiking."""
        return sum(row.energy(self.costs) for row in self.rows)

    @property
    def conventional_energy(self) -> float:
        """Joules for all samples, for the MACs of the same network."""
        return sum(row.conventional_energy(self.costs) for row in self.rows)

    @property
    def latency(self) -> int:
        """Time steps from first input to last output: each layer of neurons hands on its spikes a step later."""
        return self.steps + self.depth

    def row(self, layer: Layer) -> Row:
        """The row of a layer, made if it has none."""
        found = self._by_layer.get(layer)
        if found is None:
            shape = "" if layer.weights is None else " " + "x".join(map(str, layer.weights.value.shape))
            found = self._by_layer[layer] = Row(f"{len(self.rows) + 1} {layer.kind}{shape}")
            self.rows.append(found)
        return found

    def __str__(self) -> str:
        if not self.rows:
            return "nothing ran on spiking"
        each = 1 / max(1, self.samples)
        head = ["per input", "neurons", "spikes", "rate", "synaptic ops", "energy", "MACs", "their energy"]
        lines = [head, *(self._cells(row, each) for row in [*self.rows, self._total()])]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        table = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
            for line in lines
        ]
        table.insert(1, "-" * len(table[0]))
        table.insert(-1, "-" * len(table[0]))
        ratio = self.energy / self.conventional_energy if self.conventional_energy else float("inf")
        table += [
            f"{self.samples} inputs, {self.steps} time steps each; the answer is there after {self.latency}. "
            f"Energy: {ratio:.3g} times that of the MACs.",
            f"Costs: {si(self.costs.synaptic_op, 'J')} a synaptic op, {si(self.costs.neuron_update, 'J')} a neuron "
            f"and step, {si(self.costs.mac, 'J')} a MAC.",
            f"Source: {self.costs.source}.",
        ]
        return "\n".join(table)

    def to_json(self) -> str:
        """Counts over all samples, joules, and the costs they come from, as a JSON object."""
        costs = self.costs
        layers = [
            {
                **asdict(row),
                "rate": row.rate,
                "energy": row.energy(costs),
                "conventional_energy": row.conventional_energy(costs),
            }
            for row in self.rows
        ]
        whole: dict[str, Any] = {
            "samples": self.samples,
            "steps": self.steps,
            "latency": self.latency,
            "spikes": self.spikes,
            "synaptic_ops": self.synaptic_ops,
            "macs": self.macs,
            "energy": self.energy,
            "conventional_energy": self.conventional_energy,
            "layers": layers,
            "costs": asdict(costs),
        }
        return json.dumps(whole)

    def _total(self) -> Row:
        total = Row("all")
        for row in self.rows:
            for name in ("spikes", "updates", "synaptic_ops", "macs", "analog_macs"):
                setattr(total, name, getattr(total, name) + getattr(row, name))
        return total

    def _cells(self, row: Row, each: float) -> list[str]:
        neurons = row.updates * each / max(1, self.steps)
        return [
            row.layer,
            f"{neurons:,.0f}",
            f"{row.spikes * each:,.1f}",
            f"{row.rate:.4f}",
            f"{row.synaptic_ops * each:,.0f}",
            si(row.energy(self.costs) * each, "J"),
            f"{row.macs * each:,.0f}",
            si(row.conventional_energy(self.costs) * each, "J"),
        ]


class _Active(threading.local):
    """The reports of the blocks that this thread is in."""

    def __init__(self) -> None:
        self.reports: list[Report] = []


_active = _Active()


def wanted() -> bool:
    """Whether anyone listens: counting costs time."""
    return bool(_active.reports)


def note(layer: Layer, *, steps: int = 0, depth: int = 0, **counts: int) -> None:
    """Add to the row of a layer in every active report."""
    for report in _active.reports:
        row = report.row(layer)
        for name, count in counts.items():
            setattr(row, name, getattr(row, name) + count)
        report.steps = max(report.steps, steps)
        report.depth = max(report.depth, depth)


def note_neurons(sent: Spikes) -> None:
    """Count what a population of neurons did."""
    if wanted():
        assert sent.layer is not None, "whoever sends spikes is a layer"
        spikes = int(sent.counts.sum())
        note(sent.layer, spikes=spikes, updates=sent.train.size, steps=len(sent.train), depth=sent.depth)


def note_readout(x: Signal) -> None:
    """Count neurons without a threshold, which do nothing but add up what is read from them in the end."""
    if wanted() and x.layer is not None and not isinstance(x, (Constant, Spikes)):
        assert x.steps is not None, "only constants have no steps"
        note(x.layer, updates=x.value.size * x.steps, steps=x.steps, depth=x.depth)


def si(value: float, unit: str) -> str:
    """A number with three digits and an SI prefix.

    >>> si(2.36e-11, "J")
    '23.6 pJ'
    """
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value / 1e-12:.3g} p{unit}"
