"""The errors of hal: each says who, what it needed, what it got, and the cure."""

from __future__ import annotations


class HalError(Exception):
    """Base of every error that hal raises on purpose."""


class ShapeError(HalError, ValueError):
    """Shapes do not fit the operation."""


class DTypeError(HalError, TypeError):
    """A dtype that the operation or the device does not take."""


class SettingError(HalError, TypeError, ValueError):
    """An operation was called with a setting, a value of one, or a number of inputs, that it does not take."""


class DeviceError(HalError, RuntimeError):
    """A device that does not exist, is not available, or cannot do what was asked of it."""


class OutOfMemoryError(DeviceError, MemoryError):
    """A device has not enough memory left for a buffer."""


class FallbackError(DeviceError):
    """An operation has no way to run on its device, and the fallback policy forbids another device."""


class CopyError(DeviceError):
    """Tensors of one operation live on different devices, and the copies policy forbids moving them."""


class GradientError(HalError, RuntimeError):
    """A gradient was asked for that cannot be given."""


class AnomalyError(HalError, RuntimeError):
    """An operation made a NaN, and `detect_anomaly` was told to raise."""


class ConfigError(HalError, ValueError):
    """An environment variable or option has a value that means nothing."""


class PluginError(HalError, RuntimeError):
    """A plugin is broken, doubled, or was built for another version of the plugin API."""


class DataError(HalError, ValueError):
    """A file is missing, corrupt, or not what its name says."""


class StateError(HalError, RuntimeError):
    """A state dictionary does not fit the module or optimizer it is loaded into."""


class GraphError(HalError, RuntimeError):
    """A function cannot be traced into a graph, or a graph is not one."""
