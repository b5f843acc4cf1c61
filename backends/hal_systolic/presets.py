"""The machines that have a name, and how one is asked for: a preset, a TOML file, or either with changes."""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hal.plugin import ConfigError
from hal_systolic.config import Link, Machine, Sram, VectorUnit
from hal_systolic.energy import process, read_table

KIB, MIB = 1 << 10, 1 << 20
INT8 = {"int8": 1.0}
BF16 = {"bfloat16": 1.0}

# TPU v1: Jouppi et al., ISCA 2017. Later TPUs: jax's tpu_info and the vendor's pages; their accumulators are not
# published, and 2,048 rows an array are our choice. Gemmini: its generator's default. Eyeriss: its array and memory as
# SCALE-Sim has them; its row-stationary dataflow is not modelled. Only tpu-v1 has a published idle power.
# fmt: off
PRESETS: dict[str, Machine] = {
    machine.name: machine
    for machine in (
        Machine("tpu-v1", 256, 256, clock_hz=700e6, in_dtype="int8", acc_dtype="int32", training=False,
                rates={"int8": 1.0, "int8xint16": 0.5, "int16": 0.25},
                act=Sram(24 * MIB, banks=24), acc=Sram(4 * MIB, banks=256), weight_fifo_tiles=4,
                dram=Link(34e9), host=Link(14e9), vector=VectorUnit(256, latency=16), energy=process(28), idle_w=28.0),
        Machine("tpu-v2-core", 128, 128, clock_hz=700e6, rates=BF16,
                act=Sram(16 * MIB, banks=16), acc=Sram(1 * MIB, banks=128),
                dram=Link(358e9, latency=100, burst=512), vector=VectorUnit(1024, latency=8), energy=process(16)),
        Machine("tpu-v3-core", 128, 128, arrays=2, clock_hz=940e6, rates=BF16,
                act=Sram(16 * MIB, banks=16), acc=Sram(2 * MIB, banks=256),
                dram=Link(450e9, latency=100, burst=512), vector=VectorUnit(1024, latency=8), energy=process(16)),
        Machine("tpu-v4-core", 128, 128, arrays=4, clock_hz=1050e6, rates={"bfloat16": 1.0, "int8": 1.0}, acc_group=4,
                act=Sram(80 * MIB, banks=80), acc=Sram(4 * MIB, banks=512),
                dram=Link(614e9, latency=100, burst=512), vector=VectorUnit(1024, 2.0, 8), energy=process(7)),
        Machine("gemmini-16", 16, 16, clock_hz=1e9, in_dtype="int8", acc_dtype="int32", rates=INT8, training=False,
                act=Sram(256 * KIB, banks=4), acc=Sram(64 * KIB, banks=2),
                dram=Link(16e9, latency=40), vector=VectorUnit(16, latency=4), energy=process(16)),
        Machine("edge-8", 8, 8, clock_hz=500e6, dataflow="os", in_dtype="int8", acc_dtype="int32", rates=INT8,
                training=False, act=Sram(64 * KIB), weight=Sram(64 * KIB), acc=Sram(64 * KIB),
                dram=Link(4e9, latency=20), host=Link(1e9), vector=VectorUnit(8, latency=2), energy=process(28)),
        Machine("eyeriss-like", 12, 14, clock_hz=200e6, weight_buffers=1, rates=BF16,
                act=Sram(64 * KIB, banks=4), weight=Sram(24 * KIB, banks=2), acc=Sram(20 * KIB, banks=14),
                dram=Link(1.6e9, latency=20), host=Link(1e9), vector=VectorUnit(16, latency=2), energy=process(45)),
        Machine("scalesim-compat", 32, 32, weight_buffers=1, drain="none", in_dtype="int8", acc_dtype="int32",
                rates=INT8, training=False, act=Sram(64 * KIB), weight=Sram(64 * KIB), acc=Sram(64 * KIB),
                dram=Link(10e9, burst=1), vector=VectorUnit(32), compat="scalesim"),
    )
}
# fmt: on
DEFAULT = "tpu-v3-core"


def load(which: str | Path | None = None, **changes: Any) -> Machine:
    """A machine by the name of a preset or the path of a TOML file, with `changes` as `Machine.override` takes them.

    None asks the variable HAL_SYSTOLIC, and is the default preset where that is empty.

    Raises:
        ConfigError: no such preset or file, or a machine that cannot work.
    """
    asked = str(which) if which is not None else os.environ.get("HAL_SYSTOLIC", "").strip() or DEFAULT
    if asked.endswith(".toml"):
        machine = read_toml(Path(asked))
    elif asked in PRESETS:
        machine = PRESETS[asked]
    else:
        near = get_close_matches(asked, list(PRESETS), n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"no machine {asked!r}: a preset is one of {', '.join(PRESETS)}, a file ends in .toml{meant}")
    return machine.override(**changes) if changes else machine


def read_toml(path: Path) -> Machine:
    """The machine of a TOML file: its fields, on top of those of the preset that `preset = "name"` names.

    `energy` is a table, or the name of a CSV file beside this one with the columns `event` and `pj`.

    Raises:
        ConfigError: a file is not there or no TOML, has an unknown field, or tells of a machine that cannot work.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is no machine in TOML: {error}") from error
    preset = values.pop("preset", None)
    values.setdefault("name", path.stem)
    base = load(str(preset)) if preset is not None else Machine()
    if isinstance(values.get("energy"), str):
        values["energy"] = read_table(path.parent / values["energy"], base.energy)
    return base.override(**values)
