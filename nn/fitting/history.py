"""What came of training: a row of figures for each epoch, as values, as a file, and as a picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass
class History:
    """The figures of each epoch: `loss` and each metric, `val_` and their names of the validation set, `lr`, `seconds`.

    Attributes:
        rows: a dictionary for each epoch.
        stopped: why it ended before its last epoch: "early" or "interrupted"; empty if it did not.
        best_epoch: the epoch, from 1, whose watched figure was best; 0 before the first.
    """

    rows: list[Row] = field(default_factory=list)
    stopped: str = ""
    best_epoch: int = 0

    def __getitem__(self, name: str) -> list[Any]:
        """A figure over the epochs; None where an epoch has none."""
        if not any(name in row for row in self.rows):
            known = sorted({key for row in self.rows for key in row})
            raise KeyError(f"no epoch has a figure {name!r}; there is {', '.join(known) or 'none yet'}")
        return [row.get(name) for row in self.rows]

    def __repr__(self) -> str:
        last = self.rows[-1] if self.rows else {}
        figures = [f"{name} {x:.4g}" for name, x in last.items() if name != "epoch" and isinstance(x, (int, float))]
        stopped = f", stopped {self.stopped}" if self.stopped else ""
        return f"<history: {len(self.rows)} epochs{stopped}{', the last with ' if figures else ''}{', '.join(figures)}>"

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def write_json(self, path: str | Path) -> None:
        """Write all of it as one JSON object."""
        text = json.dumps({"rows": self.rows, "stopped": self.stopped, "best_epoch": self.best_epoch}, indent=2)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def write_csv(self, path: str | Path) -> None:
        """Write a line for each epoch, under a line of names."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)

    def write_curves(self, path: str | Path, title: str = "training") -> None:
        """Draw the losses and the metrics of all epochs as an SVG picture."""
        from nn.fitting.curves import svg

        Path(path).write_text(svg(title, self.rows), encoding="utf-8")
