"""Every kernel of the machine: importing this file fills the table."""

from hal_systolic import composites, movement, products, vector
from hal_systolic.table import kernels

__all__ = ["composites", "kernels", "movement", "products", "vector"]
