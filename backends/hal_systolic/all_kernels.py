"""Every kernel of the machine: importing this file fills the table."""

from hal_systolic import composites, movement, optimizers, products, vector
from hal_systolic.table import kernels

__all__ = ["composites", "kernels", "movement", "optimizers", "products", "vector"]
