"""The environment variables, in one table: each is read when it is used, never at import."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from hal.errors import ConfigError

# fmt: off
VARIABLES: dict[str, str] = {
    "HAL_BACKEND":     "default device: `name`, `name:index`, `name:variant`; of a comma list the first, and no other",
    "HAL_FALLBACK":    "what to do when a device has no way to run an op: `warn` (default), `allow`, `error`",
    "HAL_COPIES":      "what to do when tensors of one op live on different devices: `allow` (default), `error`",
    "HAL_PLACEMENT":   "where compiled functions run: `follow` (default) their data, `auto`: where all ends first",
    "HAL_TRACE":       "file for a trace of the whole process, for Perfetto or chrome://tracing",
    "HAL_LOG":         "comma list of what to say on stderr as it happens: `placement`, `copies`, `kernels`, `plugins`",
    "HAL_PLUGINS":     "comma list of third-party plugins to load (entry points, or files without `.py`); `0`: none",
    "HAL_PLUGIN_PATH": "plugins without a package: Python files or folders of them, `:` between (`;` on Windows)",
    "HAL_CUDA_MEMORY": "what tensors may take of each GPU: bytes (`20e9`), or a part of what is free (`0.5`)",
    "HAL_CUDA_SYNC": "`1`: wait for each CUDA kernel, so that an error is raised by the op that caused it",
    "HAL_CUDA_TF32": "`1`: round float32 to TF32 before GPUs multiply it: faster, 10 binary digits",
    "HAL_OPENCL_DEVICES": "comma list of parts of names (`intel`, `pocl`): the OpenCL devices, in this order",
    "HAL_OPENCL_PROFILE": "`1`: OpenCL kernels note when they ran, for profiles",
    "HAL_OPENCL_SYNC": "`1`: wait for each OpenCL kernel, so that an error is raised by the op that caused it",
    "HAL_SYSTOLIC": "the simulated machine that is the device `systolic`: a preset, or a TOML file",
    "HAL_CACHE_DIR":   "folder for downloads, programs and calibrations (default: the user's cache folder)",
}
# fmt: on
FALLBACKS = ("warn", "allow", "error")
COPIES = ("allow", "error")
PLACEMENTS = ("follow", "auto")
LOGS = ("placement", "copies", "kernels", "plugins")


def get(name: str) -> str:
    """The text of a variable of the table, without surrounding blanks; empty if unset."""
    return os.environ.get(name, "").strip()


def choice(name: str, choices: tuple[str, ...]) -> str:
    """The value of a variable that has a few, the first of which is the default.

    Raises:
        ConfigError: the variable has another value.
    """
    value = get(name) or choices[0]
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}{did_you_mean(value, choices)}")
    return value


def logs(what: str) -> bool:
    """Whether HAL_LOG asks for `what`.

    Raises:
        ConfigError: HAL_LOG names something that there is no log of.
    """
    value = get("HAL_LOG")
    if not value:
        return False
    asked = [part.strip() for part in value.split(",")]
    for part in asked:
        if part not in LOGS:
            raise ConfigError(
                f"HAL_LOG takes a comma list of {', '.join(LOGS)}, got {part!r}{did_you_mean(part, LOGS)}"
            )
    return what in asked


def cache_dir() -> Path:
    """Where downloads, compiled programs and calibrations are kept: HAL_CACHE_DIR or the user's cache folder."""
    given = get("HAL_CACHE_DIR")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hal"


def did_you_mean(word: str, known: tuple[str, ...] | list[str]) -> str:
    """`; did you mean ...?` for a misspelt word, or nothing."""
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""
