"""How fast devices and links are, as values: what backends declare, `hal calibrate` measures, and what-if files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ANY = "any"  # the rate of whatever has none of its own
FORMAT = 3  # of calibrations on disk; those of another one are measured again


@dataclass(frozen=True)
class Pace:
    """What calls of one op take, as it was measured: never negative, and never less for more work.

    Attributes:
        start: seconds that any call takes in a compiled plan.
        flop, byte: seconds for each operation and each byte of the op record's cost.

    >>> Pace(start=0.25, flop=0.5, byte=0.125).seconds(flops=3, nbytes=2)
    2.0
    """

    start: float
    flop: float = 0.0
    byte: float = 0.0

    def seconds(self, flops: float, nbytes: float) -> float:
        """What a call takes."""
        return self.start + self.flop * flops + self.byte * nbytes


@dataclass(frozen=True)
class Speed:
    """How fast a device computes.

    A call of what has a pace takes what that says. Any other takes `launch`, and then as long as its operations or its
    bytes take, whichever is longer: so do all calls on a device whose speed was declared.

    Attributes:
        bandwidth: bytes per second between the device's memory and its arithmetic.
        rates: operations per second (of the op records' costs), by what is known best: `matmul/bfloat16` (op and
            dtype), `contraction/bfloat16` (kind and dtype), `matmul`, `contraction`, or `any` for all the rest.
        launch: seconds that any call takes.
        paces: what was measured, by op, kind of op, or `any`; of calls in a group by `elementwise group` and the like.

    >>> speed = Speed(bandwidth=1e9, rates={"contraction": 1e12, "any": 1e9}, launch=1e-6)
    >>> speed.seconds("matmul", "contraction", "float32", flops=2_000_000_000, nbytes=1000)
    0.002001
    """

    bandwidth: float
    rates: Mapping[str, float] = field(default_factory=dict)
    launch: float = 0.0
    paces: Mapping[str, Pace] = field(default_factory=dict)

    def rate(self, op: str, kind: str, dtype: str) -> float:
        """Operations per second of an op on numbers of a type, where they were declared."""
        for key in (f"{op}/{dtype}", f"{kind}/{dtype}", op, kind, ANY):
            if key in self.rates:
                return self.rates[key]
        return self.bandwidth

    def pace(self, op: str, kind: str) -> Pace | None:
        """What calls of an op take, where that was measured."""
        return self.paces.get(op) or self.paces.get(kind) or self.paces.get(ANY)

    def start(self, op: str, kind: str) -> float:
        """What any call of an op takes, however small."""
        pace = self.pace(op, kind)
        return self.launch if pace is None else pace.start

    def seconds(self, op: str, kind: str, dtype: str, flops: float, nbytes: float) -> float:
        """What a call takes."""
        pace = self.pace(op, kind)
        if pace is not None:
            return pace.seconds(flops, nbytes)
        return self.launch + max(flops / self.rate(op, kind, dtype), nbytes / self.bandwidth)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        paces = {name: asdict(pace) for name, pace in self.paces.items()}
        return {"bandwidth": self.bandwidth, "rates": dict(self.rates), "launch": self.launch, "paces": paces}

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Speed:
        """Of what `to_dict` gave."""
        paces = {name: Pace(**pace) for name, pace in known["paces"].items()}
        return cls(known["bandwidth"], known["rates"], known["launch"], paces)


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
            "format": FORMAT, "device": self.device, "speed": self.speed.to_dict(), "upload": asdict(self.upload),
            "download": asdict(self.download), "facts": dict(self.facts),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Calibration:
        """Of what `to_dict` gave.

        Raises:
            ValueError, KeyError, TypeError: another version of hal wrote it, or it is something else.
        """
        if known["format"] != FORMAT:
            raise ValueError(f"a calibration of format {known.get('format')}; this version reads {FORMAT}")
        return cls(
            known["device"], Speed.from_dict(known["speed"]), Link(**known["upload"]), Link(**known["download"]),
            known["facts"],
        )  # fmt: skip
