"""C-like source for kernels, written once for OpenCL C and CUDA C: what the backends that compile kernels share."""
