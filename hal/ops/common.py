"""What the op files share: the builder of elementwise records, broadcasting's gradient, and sample inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import starmap
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample, Specs, Tolerance
from hal.spec import Spec, broadcast_shapes
from hal.tolerance import opencl

if TYPE_CHECKING:
    from hal.tensor import Tensor

Domain = tuple[float, float]

ALL_KINDS = ("bool", "int", "uint", "float", "complex")
REAL_KINDS = ("bool", "int", "uint", "float")
NUMBERS = ("int", "uint", "float", "complex")
REAL_NUMBERS = ("int", "uint", "float")
INEXACT = ("float", "complex")
FLOATS = ("float",)
INTEGERS = ("int", "uint")
BITS = ("bool", "int", "uint")


# Promotion: from the dtypes of the inputs to those that the op wants.


def common(*given: DType) -> tuple[DType, ...]:
    """All inputs in the type that they promote to."""
    return (dtypes.result_type(*given),) * len(given)


def floating(*given: DType) -> tuple[DType, ...]:
    """All inputs in the type that they promote to, which is at least the default floating type."""
    wanted = dtypes.result_type(*given)
    return ((wanted if wanted.is_inexact else dtypes.DEFAULT_FLOAT),) * len(given)


def numeric(*given: DType) -> tuple[DType, ...]:
    """All inputs in the type that they promote to, with bool counted as the default integer."""
    wanted = dtypes.result_type(*given)
    return ((wanted if wanted.kind != "bool" else dtypes.DEFAULT_INT),) * len(given)


def same_result(dtype: DType) -> DType:
    """The result has the dtype of the (promoted) inputs."""
    return dtype


def bool_result(dtype: DType) -> DType:
    """The result is bool."""
    return dtypes.bool_


def check_kind(who: str, spec: Spec, kinds: tuple[str, ...]) -> None:
    """Raise DTypeError unless the dtype of `spec` is of one of `kinds`."""
    if spec.dtype.kind not in kinds:
        raise DTypeError(
            f"{who} takes {', '.join(kinds)} elements, got {spec.dtype.name}; convert with .to(dtype) or hal.astype first"
        )


def unbroadcast(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The gradient `g` of a broadcast result, summed down to the `shape` of one of its inputs."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    stretched = tuple(i for i in range(g.ndim) if i < extra or (shape[i - extra] == 1 and g.shape[i] != 1))
    if stretched:
        g = ops.sum(g, axis=stretched, keepdims=True)
    return ops.reshape(g, shape=shape) if g.shape != shape else g


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` without NumPy's warnings: a reference meets infinities and zeros on purpose."""

    def reference(*args: Array, **settings: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args, **settings)

    return reference


# Sample inputs.


def uniform(rng: Rng, shape: tuple[int, ...], low: float = -2.0, high: float = 2.0) -> Array:
    """Random float32 numbers in [low, high)."""
    return rng.uniform(low, high, shape).astype(np.float32)


def distinct(rng: Rng, shape: tuple[int, ...], low: float = -2.0, high: float = 2.0) -> Array:
    """Random float32 numbers that are well apart, so that maxima and orders have no ties."""
    size = int(np.prod(shape))
    return rng.permutation(np.linspace(low, high, size, dtype=np.float32)).reshape(shape)


def integers(rng: Rng, shape: tuple[int, ...], low: int = -9, high: int = 10, dtype: Any = np.int32) -> Array:
    """Random integers in [low, high)."""
    return rng.integers(low, high, shape).astype(dtype)


_SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 3e30], np.float32)
_SHAPES: dict[int, list[tuple[tuple[int, ...], ...]]] = {
    1: [((2, 3),), ((),), ((0, 3),), ((5,),)],
    2: [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (4,)), ((0, 3), (1, 3)), ((3, 1, 2), (4, 1))],
    3: [((2, 3),) * 3, ((2, 1), (3,), ()), ((0, 2), (2,), (1,))],
}
LARGE = 70_000  # more elements than fit a first-level cache, and not a multiple of any block


def _elementwise_samples(
    arity: int, domains: tuple[Domain, ...], kinds: tuple[str, ...], special: bool, settings: dict[str, Any]
) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        def draw(shapes: tuple[tuple[int, ...], ...]) -> tuple[Array, ...]:
            return tuple(uniform(rng, s, *d) for s, d in zip(shapes, domains, strict=True))

        if "float" in kinds:
            for shapes in _SHAPES[arity]:
                yield Sample(draw(shapes), settings)
            yield Sample(tuple(x[::-1] for x in draw(((4, 3),) * arity)), settings)  # negative strides
            yield Sample(tuple(x.T for x in draw(((4, 3),) * arity)), settings)
            yield Sample(draw(((LARGE,),) * arity), settings, smooth=False)
            if special:
                grid = np.meshgrid(*[_SPECIAL] * arity, indexing="ij")
                yield Sample(tuple(g.reshape(-1).copy() for g in grid), settings, smooth=False)
        for kind, numpy in (("int", np.int32), ("int", np.int64), ("uint", np.uint8), ("uint", np.uint32)):
            if kind in kinds:
                low = max(-9, int(np.ceil(domains[0][0] * 4))) if kind == "int" else 1
                drawn = tuple(integers(rng, (3, 4), max(low, int(np.ceil(d[0]))), 10, numpy) for d in domains)
                if all(d[0] > 0 or d == (-2.0, 2.0) for d in domains):
                    drawn = tuple(np.where(x == 0, 1, x).astype(numpy) for x in drawn)  # no division by zero
                yield Sample(drawn, settings, smooth=False, exact=True)
        if "bool" in kinds:
            yield Sample(tuple(rng.random((2, 3)) < 0.5 for _ in range(arity)), settings, smooth=False, exact=True)
        if "complex" in kinds:
            pairs = (rng.normal(size=(2, 3)) + 1j * rng.normal(size=(2, 3)) for _ in range(arity))
            yield Sample(tuple(p.astype(np.complex64) for p in pairs), settings, smooth=False, exact=True)

    return samples


GradientOfInput = Callable[..., Any] | None


def elementwise(
    name: str,
    function: Callable[..., Any],
    gradient: Callable[..., Any] | tuple[GradientOfInput, ...] | None = None,
    *,
    decompose: Callable[..., Any] | None = None,
    promote: Callable[..., tuple[DType, ...]] = common,
    result: Callable[[DType], DType] = same_result,
    kinds: tuple[str, ...] = REAL_NUMBERS,
    domain: Domain | tuple[Domain, ...] = (-2.0, 2.0),
    special: bool = True,
    settings: dict[str, Any] | None = None,
    inputs: tuple[str, ...] = (),
    flops: int = 1,
    tolerance: Tolerance | None = None,
    no_gradient: str = "",
    host_only: str = "",
    doc: str = "",
) -> Op:
    """A record for an op that works element by element, with broadcasting.

    Args:
        function: the meaning in NumPy; its number of positional parameters is the number of inputs.
        gradient: for one input a function `(g, y, x, **settings)`; for several a tuple of such functions, one per
            input, each called only if its input needs a gradient (None: no gradient to that input). The sums that
            broadcasting asks for are added here.
        result: from the promoted dtype to that of the result.
        kinds: the kinds of dtype that the op takes, after promotion.
        domain: from where samples are drawn (one pair for all inputs, or one each).
        special: whether samples hold NaN, infinities, signed zeros and extreme values.
        settings: keyword settings with their defaults.
        inputs: names of the inputs for errors and tables.
        flops: operations per element.
        tolerance: default: the OpenCL table's entry for `name`.
    """
    arity = function.nin if isinstance(function, np.ufunc) else _positional(function)
    names = inputs or (("x",) if arity == 1 else ("a", "b", "c")[:arity])
    keywords = settings or {}
    domains = (domain,) * arity if isinstance(domain[0], (int, float)) else domain

    def infer(*specs: Spec, **given: Any) -> Spec:
        for spec in specs:
            check_kind(name, spec, kinds)
        shape = specs[0].shape if arity == 1 else broadcast_shapes(name, *(s.shape for s in specs))
        return Spec(shape, result(specs[-1].dtype))  # the last, since `where` starts with a condition

    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_ONLY) for n in names]
    parameters += [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=v) for n, v in keywords.items()]
    infer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Op.bind reads

    def cost(*specs: Spec, out: Specs, **given: Any) -> Cost:
        assert isinstance(out, Spec)
        return Cost(flops * out.size, sum(s.nbytes for s in specs) + out.nbytes)

    return Op(
        name, infer, quiet(function), _elementwise_samples(arity, domains, kinds, special, {}),  # type: ignore[arg-type]
        _with_unbroadcast(gradient) if gradient is not None else None, decompose, cost, "elementwise",
        promote=promote, no_gradient=no_gradient, host_only=host_only, tolerance=tolerance or opencl(name), doc=doc,
    )  # fmt: skip


def _positional(function: Callable[..., Any]) -> int:
    return sum(p.kind is not p.KEYWORD_ONLY for p in inspect.signature(function).parameters.values())


def _with_unbroadcast(gradient: Callable[..., Any] | tuple[GradientOfInput, ...]) -> Callable[..., Grads]:
    if not isinstance(gradient, tuple):

        def gradient_of_one(g: Tensor, out: Tensor, x: Tensor, **settings: Any) -> Grads:
            result = gradient(g, out, x, **settings)
            return result if isinstance(result, tuple) else (result,)

        return gradient_of_one

    def gradient_of_each(g: Tensor, out: Tensor, *inputs: Tensor, **settings: Any) -> Grads:
        def entry(part: GradientOfInput, x: Tensor) -> Callable[[], Tensor] | None:
            return None if part is None else lambda: unbroadcast(part(g, out, *inputs, **settings), x.shape)

        return tuple(starmap(entry, zip(gradient, inputs, strict=True)))

    return gradient_of_each
