"""How fast devices and links are, as values: what backends declare, `hal calibrate` measures, and what-if files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ANY = "any"  # the rate of whatever has none of its own


@dataclass(frozen=True)
class Speed:
    """How fast a device computes.

    A call takes some seconds whatever its size, and then as long as its operations or its bytes take, whichever is
    longer.

    Attributes:
        bandwidth: bytes per second between the device's memory and its arithmetic.
        rates: operations per second (of the op records' costs), by what is known best: `matmul/bfloat16` (op and
            dtype), `contraction/bfloat16` (kind and dtype), `matmul`, `contraction`, or `any` for all the rest.
        launch: seconds that any call takes.
        launches: the same of those ops, or kinds of ops, that take longer.

    >>> speed = Speed(bandwidth=1e9, rates={"contraction": 1e12, "any": 1e9}, launch=1e-6)
    >>> speed.seconds("matmul", "contraction", "float32", flops=2_000_000_000, nbytes=1000)
    0.002001
    """

    bandwidth: float
    rates: Mapping[str, float]
    launch: float = 0.0
    launches: Mapping[str, float] = field(default_factory=dict)

    def rate(self, op: str, kind: str, dtype: str) -> float:
        """Operations per second of an op on numbers of a type."""
        for key in (f"{op}/{dtype}", f"{kind}/{dtype}", op, kind, ANY):
            if key in self.rates:
                return self.rates[key]
        return self.bandwidth

    def start(self, op: str, kind: str) -> float:
        """What any call of an op takes, however small."""
        return self.launches.get(op, self.launches.get(kind, self.launch))

    def seconds(self, op: str, kind: str, dtype: str, flops: float, nbytes: float) -> float:
        """What a call takes."""
        return self.start(op, kind) + max(flops / self.rate(op, kind, dtype), nbytes / self.bandwidth)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "rates": dict(self.rates), "launches": dict(self.launches)}


@dataclass(frozen=True)
class Link:
    """How fast copies between two devices (or a device and the host) are.

    Attributes:
        bandwidth: bytes per second.
        latency: seconds that any copy takes.
        wire: links of one name share it: their copies follow each other. Empty: a wire of its own, for each direction.
    """

    bandwidth: float
    latency: float = 0.0
    wire: str = ""

    def then(self, other: Link) -> Link:
        """Both, one after another."""
        return Link(1 / (1 / self.bandwidth + 1 / other.bandwidth), self.latency + other.latency, self.wire)


@dataclass(frozen=True)
class Calibration:
    """What was measured of a device.

    Attributes:
        device: what it is called.
        speed: how fast it computes.
        upload, download: how fast copies from and to the host are.
        facts: what it was measured on, and with.
    """

    device: str
    speed: Speed
    upload: Link
    download: Link
    facts: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "device": self.device, "speed": self.speed.to_dict(), "upload": asdict(self.upload),
            "download": asdict(self.download), "facts": dict(self.facts),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Calibration:
        """Of what `to_dict` gave."""
        return cls(
            known["device"], Speed(**known["speed"]), Link(**known["upload"]), Link(**known["download"]),
            known["facts"],
        )  # fmt: skip
