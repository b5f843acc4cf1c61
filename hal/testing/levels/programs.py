"""Random programs: thirty ops in a row, on views, in mixed dtypes, each tensor beside its reference in float64."""

from __future__ import annotations

from collections.abc import Iterator

from hal.device import Device
from hal.testing.calls import roundtrip_of
from hal.testing.case import Case, Level, Outcome
from hal.testing.checks import some_float
from hal.testing.programs import smallest
from hal.testing.random_programs import random_program

NUMBER = 40  # of programs, a few ms each


def _case(seed: int, needs: str) -> Case:
    def run(device: Device) -> Outcome:
        program = random_program(seed, device)
        if not program.difference(device):
            return Outcome("native")
        least = smallest(program, lambda p: p.difference(device))
        return Outcome("wrong", detail=f"{least.difference(device)}\n{least.code(device)}")

    return Case(f"programs/{seed}", run, needs=(needs,))


def cases(device: Device) -> Iterator[Case]:
    """Programs by their seeds."""
    for seed in range(NUMBER):
        yield _case(seed, roundtrip_of(some_float(device)))


LEVEL = Level(
    "programs", "random programs of thirty ops; one that fails is cut down to the steps that matter", 64, cases
)
