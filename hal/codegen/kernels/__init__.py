"""Kernels of every device that is programmed in a C-like language: written once, run by whoever gives a `Runtime`.

Read in this order: `runtime` (what a device must be able to do), `memory` and `buffer` (where elements are), `maps`
(one element at a time), `reduction` and `rows` (many to one), `products` (sums of products), `fuse` (whole groups),
`composed` (composites made of the same pieces as groups).
`backend` has all that a backend answers from these; a new device is a `Runtime`, a `Dialect` and `devices()`.
"""
