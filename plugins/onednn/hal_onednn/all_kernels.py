"""Imports every file with kernels, so that the table is whole."""

from __future__ import annotations

from hal_onednn import convolution, normalization, pooling, products
from hal_onednn.table import kernels

__all__ = ["convolution", "kernels", "normalization", "pooling", "products"]
