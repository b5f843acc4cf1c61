"""Imports every file with kernels, so that the table is whole."""

from hal_spiking import movement, neurons, pooling, synapses
from hal_spiking.table import kernels

__all__ = ["kernels", "movement", "neurons", "pooling", "synapses"]
