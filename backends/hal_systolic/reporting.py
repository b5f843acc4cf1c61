"""Reports: what ran on simulated machines inside a `with` block, in cycles, bytes and joules, by layer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hal.plugin import ConfigError, listening
from hal_systolic.config import Machine
from hal_systolic.counters import Counters
from hal_systolic.recording import Recorder, recording
from hal_systolic.simulation import Simulation, simulate
from hal_systolic.work import Work


class Report:
    """What ran while it was open. The command stream is compiled and simulated when a number is first asked for.

    Its attributes are those of the one machine that ran; where several did, `of(name)` has each.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._simulated: dict[Machine, tuple[int, Simulation]] = {}

    @property
    def machines(self) -> list[str]:
        """The names of the machines that ran something."""
        return [machine.name for machine in self._recorder.works]

    def of(self, name: str) -> Simulation:
        """The simulation of one machine.

        Raises:
            ConfigError: nothing ran on it, or it cannot run what it was asked.
        """
        for machine, works in self._recorder.works.items():
            if machine.name == name:
                known = self._simulated.get(machine)
                if known is None or known[0] != len(works):
                    known = self._simulated[machine] = len(works), simulate(self._recorder.finished(machine), machine)
                return known[1]
        raise ConfigError(f"nothing ran on {name!r}; there is {', '.join(self.machines) or 'nothing at all'}")

    def work(self, name: str) -> list[Work]:
        """What one machine was asked to do: other machines can be asked the same.

        Raises:
            ConfigError: nothing ran on it.
        """
        return self._recorder.finished(self.of(name).machine)

    @property
    def simulation(self) -> Simulation:
        """That of the only machine that ran.

        Raises:
            ConfigError: none did, or several.
        """
        if len(self.machines) != 1:
            what = f"{len(self.machines)} machines ran ({', '.join(self.machines)}): say which, with of(name)"
            raise ConfigError(
                what if self.machines else "nothing ran on a simulated machine: put the tensors on 'systolic'"
            )
        return self.of(self.machines[0])

    @property
    def cycles(self) -> float:
        """Cycles from the first command to the last result."""
        return self.simulation.cycles

    @property
    def seconds(self) -> float:
        """Their time on the machine."""
        return self.simulation.seconds

    @property
    def joules(self) -> float:
        """Energy of all components, and what the machine takes when idle."""
        return self.total.joules

    @property
    def total(self) -> Counters:
        """Counts of all layers."""
        return self.simulation.total

    @property
    def layers(self) -> dict[str, Counters]:
        """Counts by layer: `path Type` of the module, and `(backward)` for its gradients; outside of modules, by op."""
        return self.simulation.layers

    def as_dict(self) -> dict[str, Any]:
        """Everything but the timeline, ready for JSON: the machine, the total, the layers."""
        return self.simulation.as_dict()

    def text(self) -> str:
        """A table of the layers, for a terminal."""
        from hal_systolic.text import as_text

        return as_text(self.simulation)

    def __str__(self) -> str:
        return self.text()

    def to_json(self, path: str | Path) -> None:
        """Write `as_dict()`."""
        Path(path).write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    def to_trace(self, path: str | Path) -> None:
        """Write the timeline in Chrome's trace format, which ui.perfetto.dev opens: a track for each unit."""
        from hal_systolic.timeline import trace

        Path(path).write_text(json.dumps(trace(self.simulation)) + "\n", encoding="utf-8")

    def to_html(self, path: str | Path, title: str = "") -> None:
        """Write a page that needs no other file: numbers, layers, roofline, timeline, and the array at work."""
        from hal_systolic.page import page

        Path(path).write_text(page(self.simulation, title), encoding="utf-8")


@contextmanager
def report() -> Iterator[Report]:
    """Record what runs on simulated machines inside the block, in all threads; read the report afterwards.

    >>> import hal, hal_systolic
    >>> x = hal.ones(8, 128, device="systolic:tpu-v2-core")
    >>> with hal_systolic.report() as r:
    ...     y = x @ x.T
    >>> r.total.macs
    8192
    """
    with listening(), recording() as recorder:
        yield Report(recorder)
