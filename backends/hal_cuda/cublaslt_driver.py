"""Products with a bias by cuBLASLt, through nvmath-python: it is added before the result is rounded and written."""

# nvmath is not installed where types are checked.
# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hal.plugin import Array
from hal_cuda.driver import ALIGNMENT, WORKSPACE, Address, Failure, Handle, Matrix

TYPES = {"float16": 2, "bfloat16": 14, "float32": 0}  # cudaDataType: CUDA_R_16F, R_16BF, R_32F
FULL, TF32 = 68, 77  # cublasComputeType: COMPUTE_32F, 32F_FAST_TF32
RESULT = 12  # words of 64 bits of a cublasLtMatmulHeuristicResult_t; the algorithm is what it begins with
Values = tuple[int, type[np.integer[Any]]]
ONE, ZERO = np.ones(1, np.float32), np.zeros(1, np.float32)


class Planned(NamedTuple):
    """How a product is made: the library's descriptions of it and of its matrices, and the algorithm's place."""

    product: Handle
    a: Handle
    b: Handle
    out: Handle
    algorithm: Array


def version() -> str:
    """cuBLASLt with its version, or "" where it or nvmath-python is not installed."""
    try:
        from nvmath.bindings import cublasLt

        found = int(cublasLt.get_version())
        return f"cuBLASLt {found // 10000}.{found // 100 % 100}.{found % 100}"
    except (ImportError, OSError, RuntimeError):  # no package; one that finds no library, or no driver
        return ""


def put(setter: Any, names: Any, thing: Handle, **values: Values) -> None:
    """Set attributes of a description by their names, each a number of a type."""
    for name, (value, kind) in values.items():
        number = np.array([value], kind)
        setter(thing, names[name], number.ctypes.data, number.nbytes)


class CuBLASLt:
    """cuBLASLt on the GPU that is the current one."""

    def __init__(self) -> None:
        from nvmath.bindings import cublasLt

        self.library: Any = cublasLt
        try:
            self.handle = cublasLt.create()
        except cublasLt.cuBLASLtError as error:
            raise Failure("cublasLtCreate", str(error)) from None
        self._known: dict[Any, Planned | None] = {}

    def multiply(
        self, dtype: str, sizes: tuple[int, int, int], a: Matrix, b: Matrix, out: Matrix, batch: int, bias: Address,
        precision: str, workspace: Address, stream: Handle,
    ) -> bool:  # fmt: skip
        """Enqueue a product; False where no algorithm makes it."""
        library = self.library
        key = (dtype, sizes, a[1:], b[1:], out[1:], batch, precision)
        try:
            if key not in self._known:
                self._known[key] = self._planned(bias, dtype, sizes, a, b, out, batch, precision)
            found = self._known[key]
            if found is None:
                return False
            self._put_product(found.product, BIAS_POINTER=(bias, np.uint64))
            library.matmul(
                self.handle, found.product, ONE.ctypes.data, a.address, found.a, b.address, found.b, ZERO.ctypes.data,
                out.address, found.out, out.address, found.out, found.algorithm.ctypes.data, workspace, WORKSPACE,
                stream,
            )  # fmt: skip
        except library.cuBLASLtError as error:
            raise Failure("cublasLtMatmul", str(error)) from None
        return True

    def described(
        self, dtype: str, sizes: tuple[int, int, int], a: Matrix, b: Matrix, out: Matrix, batch: int, precision: str
    ) -> tuple[Handle, list[Handle]]:
        """The library's descriptions of a product and of its three matrices."""
        library, (m, n, k) = self.library, sizes
        compute = TF32 if precision == "tf32" and dtype == "float32" else FULL
        product = library.matmul_desc_create(compute, TYPES["float32"])
        self._put_product(
            product, TRANSA=(a.swapped, np.int32), TRANSB=(b.swapped, np.int32),
            EPILOGUE=(library.Epilogue.BIAS, np.uint32),
        )  # fmt: skip
        matrices = []
        for x, rows, columns in ((a, m, k), (b, k, n), (out, m, n)):
            stored = (columns, rows) if x.swapped else (rows, columns)
            matrices.append(library.matrix_layout_create(TYPES[dtype], *stored, x.lead))
            put(
                library.matrix_layout_set_attribute, library.MatrixLayoutAttribute, matrices[-1],
                BATCH_COUNT=(batch, np.int32), STRIDED_BATCH_OFFSET=(x.step, np.int64),
            )  # fmt: skip
        return product, matrices

    def preference(self) -> Handle:
        """What an algorithm must respect: workspace, alignments (so that sizes alone decide), and sums in float32."""
        library = self.library
        made = library.matmul_preference_create()
        aligned = {f"MIN_ALIGNMENT_{x}_BYTES": (ALIGNMENT, np.uint32) for x in "ABCD"}
        put(
            library.matmul_preference_set_attribute, library.MatmulPreferenceAttribute, made,
            MAX_WORKSPACE_BYTES=(WORKSPACE, np.uint64),
            REDUCTION_SCHEME_MASK=(library.ReductionScheme.COMPUTE_TYPE, np.uint32), **aligned,
        )  # fmt: skip
        return int(made)

    def _put_product(self, product: Handle, **values: Values) -> None:
        put(self.library.matmul_desc_set_attribute, self.library.MatmulDescAttribute, product, **values)

    def _planned(self, bias: Address, *given: Any) -> Planned | None:
        library = self.library
        product, (a, b, out) = self.described(*given)
        self._put_product(product, BIAS_POINTER=(bias, np.uint64))  # is part of what is asked for
        preference = self.preference()
        result, count = np.zeros(RESULT, np.uint64), np.zeros(1, np.int32)
        try:
            library.matmul_algo_get_heuristic(
                self.handle, product, a, b, out, out, preference, 1, result.ctypes.data, count.ctypes.data
            )
        except library.cuBLASLtError as error:
            if "NOT_SUPPORTED" not in str(error):
                raise
        finally:
            library.matmul_preference_destroy(preference)
        return Planned(product, a, b, out, result) if count[0] else None
