"""The same training on every device that is there: one seed, one curve, and the report of each device.

Of every run it is told what fell back, what was copied and what was waited for, and then where the time went: measured,
op by op, on a real device; in cycles, joules and layers on a simulated one.

    python everywhere.py                        # all devices
    python everywhere.py cpu opencl systolic
    python everywhere.py systolic --whole       # the whole report, not only its head
"""

from __future__ import annotations

import argparse
import time
from textwrap import indent

import hal
import hal_systolic
import nn
from nn import functional as F
from nn import optim
from nn.data import DataLoader, Digits

HEAD = 7  # lines of a report that are shown


def run(device: str, steps: int) -> tuple[list[float], float]:
    """The losses of a few steps, and how long they took."""
    with hal.device(device):
        hal.manual_seed(0)
        net = nn.models.MLP([64, 32, 10])
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        loader = iter(DataLoader(Digits(), batch_size=64, shuffle=True, generator=0))
        losses = []
        start = time.perf_counter()
        for _, (x, y) in zip(range(steps), loader, strict=False):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="*", help="which; by default all that can train")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--whole", action="store_true", help="all lines of the reports")
    given = parser.parse_args()
    names = given.devices or [str(d) for d in hal.devices() if d.backend.training]
    wanted: list[float] = []
    for name in names:
        simulated = hal.device(name).backend.name == "systolic"
        with hal.placement_report() as placed, hal_systolic.report() if simulated else hal.profile() as spent:
            losses, seconds = run(name, given.steps)
        wanted = wanted or losses
        apart = max(abs(a - b) for a, b in zip(losses, wanted, strict=True))
        print(f"{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f} in {seconds:.2f} s, "
              f"at most {apart:.1e} from {names[0]}'s")  # fmt: skip
        told = (spent.summary() if isinstance(spent, hal.profile) else str(spent)).splitlines()
        shown = [str(placed), *(told if given.whole else told[:HEAD])]
        print(indent("\n".join(shown), "  "), end="\n\n")


if __name__ == "__main__":
    main()
