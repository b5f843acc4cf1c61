"""What the Array API standard asks of a namespace: which version it is, and what its devices can do."""

from __future__ import annotations

import sys
from typing import Any

from hal import dtypes, registry
from hal.device import Device
from hal.dtypes import DType
from hal.errors import SettingError
from hal.functions.datatypes import isdtype

__array_api_version__ = "2024.12"
VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")


def namespace(api_version: str | None = None) -> Any:
    """The module `hal`, if it follows this version of the standard.

    Raises:
        SettingError: it does not.
    """
    if api_version not in (None, *VERSIONS):
        raise SettingError(f"hal follows the Array API in its versions {', '.join(VERSIONS)}, not {api_version!r}")
    return sys.modules["hal"]


class NamespaceInfo:
    """What `hal.__array_namespace_info__()` gives. Source: Array API 2024.12, "Inspection"."""

    def capabilities(self) -> dict[str, Any]:
        """Which of the standard's optional behaviours there are."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": None}

    def default_device(self) -> Device:
        """Where arrays are made when nothing is said."""
        return registry.default_device()

    def devices(self) -> list[Device]:
        """All devices that are there."""
        return registry.devices()

    def default_dtypes(self, *, device: Device | str | None = None) -> dict[str, DType]:
        """The types that creation functions give by default."""
        return {
            "real floating": dtypes.DEFAULT_FLOAT,
            "complex floating": dtypes.complex64,
            "integral": dtypes.DEFAULT_INT,
            "indexing": dtypes.DEFAULT_INT,
        }

    def dtypes(self, *, device: Device | str | None = None, kind: Any = None) -> dict[str, DType]:
        """The types that a device has, perhaps only those of a kind."""
        has = Device(device).backend.dtypes
        return {d.name: d for d in dtypes.ALL if d in has and (kind is None or isdtype(d, kind))}


def __array_namespace_info__() -> NamespaceInfo:
    """Facts about this namespace and its devices. Source: Array API 2024.12, "Inspection"."""
    return NamespaceInfo()
