"""Counts what was judged against torch, for the summary at the end of a run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from opinfo_units import Verdict

Sample = tuple[str, int]  # an entry and the number of a sample


class Tally:
    """Which samples were judged on each device, which were over their limits, and why others were left out."""

    def __init__(self) -> None:
        self.passed: dict[str, dict[Sample, bool]] = defaultdict(dict)
        self.reasons: dict[str, dict[Sample, str]] = defaultdict(dict)

    def judged(self, device: str, key: str, number: int, verdicts: Sequence[Verdict]) -> None:
        """Note a sample with the verdicts on its results."""
        if verdicts:
            self.passed[device][key, number] = all(v.passed for v in verdicts)

    def left_out(self, device: str, key: str, number: int, why: str) -> None:
        """Note a sample that was not judged."""
        self.reasons[device][key, number] = why

    def told(self) -> tuple[dict[str, dict[Sample, bool]], dict[str, dict[Sample, str]]]:
        """All of it as plain values, as one process tells another."""
        return dict(self.passed), dict(self.reasons)

    def add(self, told: tuple[dict[str, dict[Sample, bool]], dict[str, dict[Sample, str]]]) -> None:
        """Add what another process counted."""
        for mine, theirs in zip((self.passed, self.reasons), told, strict=True):
            for device, samples in theirs.items():
                mine[device].update(samples)

    def __bool__(self) -> bool:
        return bool(self.passed)

    def summary(self) -> str:
        """A line for each device, and one for each reason."""
        lines = []
        for device, passed in self.passed.items():
            entries, over = len({key for key, _ in passed}), sum(not ok for ok in passed.values())
            lines.append(f"{device}: {len(passed):,} samples of {entries} functions, {over} over the limits")
            counted = Counter(self.reasons[device].values()).most_common()
            lines += [f"    {count:5,} left out: {why}" for why, count in counted]
        return "\n".join(lines)


TALLY = Tally()
