"""What the op files share: the builder of elementwise records, broadcasting's gradient, and sample inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import starmap
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample, Settings, Specs, Tolerance
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
            f"{who} takes {', '.join(kinds)} elements, got {spec.dtype.name}; "
            "convert with .to(dtype) or hal.astype first"
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


def zero(g: Tensor, *rest: Tensor, **settings: Any) -> Tensor:
    """The gradient of a function that is constant almost everywhere: zeros like `g`, even where `g` is NaN."""
    return ops.cast(ops.less(g, g), dtype=g.dtype)


def in_float32(decompose: Callable[..., Any]) -> Callable[..., Any]:
    """A decomposition into many roundings, made so that half-precision inputs go through float32 and round once."""

    def decompose_wide(*xs: Tensor, **settings: Any) -> Tensor:
        half = xs[0].dtype
        if half not in (dtypes.float16, dtypes.bfloat16):
            return decompose(*xs, **settings)
        y = decompose(*(ops.cast(x, dtype=dtypes.float32) for x in xs), **settings)
        return ops.cast(y, dtype=half) if y.dtype is dtypes.float32 else y

    return decompose_wide


def horner(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """The polynomial with these coefficients, highest power first."""
    y = x * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        y = y * x + c
    return y


def odd(x: Tensor, y: Tensor) -> Tensor:
    """The odd function of `x` that is `y` at abs(x), zero at zero: -0.0 stays -0.0."""
    return ops.where(ops.equal(x, 0), x, ops.where(ops.less(x, 0), -y, y))


def unless_complex(decompose: Callable[..., Any], of_complex: Callable[..., Any]) -> Callable[..., Any]:
    """A decomposition with an accurate way for real inputs and the textbook's formula for complex ones."""

    def decompose_either(*xs: Tensor) -> Tensor:
        return (of_complex if xs[0].dtype.kind == "complex" else decompose)(*xs)

    return decompose_either


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


SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 3e30)
ORDINARY = SPECIAL[:-2]  # for what a device works out from a quotient, which extremes make too large to be exact
_SHAPES: dict[int, list[tuple[tuple[int, ...], ...]]] = {
    1: [((2, 3),), ((),), ((0, 3),), ((5,),)],
    2: [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (4,)), ((0, 3), (1, 3)), ((3, 1, 2), (4, 1))],
    3: [((2, 3),) * 3, ((2, 1), (3,), ()), ((0, 2), (2,), (1,))],
}
LARGE = 70_000  # more elements than fit a first-level cache, and not a multiple of any block
_INTEGERS = (("int", np.int8), ("int", np.int32), ("int", np.int64), ("uint", np.uint8), ("uint", np.uint32))


def _elementwise_samples(
    kinds: tuple[str, ...],
    domains: tuple[Domain, ...],
    whole: tuple[tuple[int, int], ...],
    special: tuple[float, ...],
    variants: tuple[Settings, ...],
    extra: Callable[[Rng], Iterator[Sample]] | None,
) -> Callable[[Rng], Iterator[Sample]]:
    arity = len(domains)

    def samples(rng: Rng) -> Iterator[Sample]:
        def draw(*shapes: tuple[int, ...]) -> tuple[Array, ...]:
            return tuple(uniform(rng, s, *d) for s, d in zip(shapes, domains, strict=True))

        usual = variants[0]
        if "float" in kinds:
            for shapes in _SHAPES[arity]:
                yield Sample(draw(*shapes), usual)
            yield Sample(tuple(x[::-1] for x in draw(*((4, 3),) * arity)), usual)  # negative strides
            yield Sample(tuple(x.T for x in draw(*((4, 3),) * arity)), usual)
            yield Sample(draw(*((LARGE,),) * arity), usual, smooth=False)
            for given in variants[1:]:
                yield Sample(draw(*_SHAPES[arity][0]), given)
            if special:
                grid = np.meshgrid(*[np.array(special, np.float32)] * arity, indexing="ij")
                for given in variants:
                    yield Sample(tuple(g.reshape(-1).copy() for g in grid), given, smooth=False)
        for kind, dtype in _INTEGERS:
            if kind in kinds:
                bounds = [(low if kind == "int" else max(low, 0), high) for low, high in whole]
                drawn = tuple(integers(rng, (3, 4), *b, dtype) for b in bounds)
                yield Sample(drawn, usual, smooth=False, exact=True)
        if "bool" in kinds:
            yield Sample(tuple(rng.random((2, 9)) < 0.5 for _ in range(arity)), usual, smooth=False, exact=True)
        if "complex" in kinds:
            pairs = (rng.normal(size=(2, 3)) + 1j * rng.normal(size=(2, 3)) for _ in range(arity))
            yield Sample(tuple(p.astype(np.complex64) for p in pairs), usual, smooth=False, exact=True)
        if extra is not None:
            yield from extra(rng)

    return samples


# The builder.

GradientOfInput = Callable[..., Any] | None
REQUIRED = inspect.Parameter.empty  # in `settings`: one without a default


def elementwise(
    name: str,
    function: Callable[..., Any],
    gradient: Callable[..., Any] | tuple[GradientOfInput, ...] | None = None,
    *,
    decompose: Callable[..., Any] | None = None,
    promote: Callable[..., tuple[DType, ...]] = common,
    result: Callable[[DType], DType] = same_result,
    kinds: tuple[str, ...] = REAL_NUMBERS,
    sampled: tuple[str, ...] | None = None,
    check: Callable[..., None] | None = None,
    settings: dict[str, Any] | None = None,
    variants: tuple[Settings, ...] = ({},),
    domain: Domain | tuple[Domain, ...] = (-2.0, 2.0),
    whole: tuple[int, int] | tuple[tuple[int, int], ...] = (-9, 10),
    special: tuple[float, ...] = SPECIAL,
    extra: Callable[[Rng], Iterator[Sample]] | None = None,
    wide: bool = True,
    flops: int = 1,
    tolerance: Tolerance | None = None,
    magnitude: Callable[..., float] | None = None,
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
        decompose: the op in simpler ops, of inputs that already have the promoted dtypes.
        result: from the promoted dtype to that of the result.
        kinds: the kinds of dtype that the op takes, after promotion.
        sampled: the kinds that samples are drawn of. Default: `kinds`.
        check: `check(spec, **settings)` raises if the settings mean nothing (for the last input).
        settings: keyword settings with their defaults (`REQUIRED`: none).
        variants: settings of the samples; most are drawn with the first.
        domain: from where floating samples are drawn (one pair for all inputs, or one each).
        whole: from where integer samples are drawn, likewise; unsigned ones start at zero.
        special: the values of which samples hold all combinations: NaN, infinities, signed zeros, extremes.
        extra: further samples.
        wide: whether the decomposition of half-precision inputs computes in float32 and rounds once at the end.
        flops: operations per element.
        tolerance: default: the OpenCL table's entry for `name`.
        magnitude: as in the record.
    """
    arity = function.nin if isinstance(function, np.ufunc) else _positional(function)
    names = ("x",) if arity == 1 else ("a", "b", "c")[:arity]
    keywords = settings or {}
    domains, wholes = _of_each(domain, arity), _of_each(whole, arity)

    def infer(*specs: Spec, **given: Any) -> Spec:
        for spec in specs:
            check_kind(name, spec, kinds)
        if check is not None:
            check(specs[-1], **given)
        shape = specs[0].shape if arity == 1 else broadcast_shapes(name, *(s.shape for s in specs))
        return Spec(shape, result(specs[0].dtype))

    takes(infer, names, keywords)

    def cost(*specs: Spec, out: Specs, **given: Any) -> Cost:
        assert isinstance(out, Spec)
        return Cost(flops * out.size, sum(s.nbytes for s in specs) + out.nbytes)

    return Op(
        name, infer, quiet(function),
        _elementwise_samples(sampled or kinds, domains, wholes, special, variants, extra),
        _with_unbroadcast(gradient) if gradient is not None else None,
        in_float32(decompose) if wide and decompose is not None else decompose, cost, "elementwise",
        promote=promote, no_gradient=no_gradient, host_only=host_only, tolerance=tolerance or opencl(name),
        magnitude=magnitude, doc=doc,
    )  # fmt: skip


def _of_each(pair: Any, arity: int) -> tuple[Any, ...]:
    return pair if isinstance(pair[0], tuple) else (pair,) * arity


def takes(
    infer: Callable[..., Spec], names: Sequence[str], keywords: Mapping[str, Any], optional: Sequence[str] = ()
) -> None:
    """Let `Op.bind` read that `infer` takes these inputs by position, and these settings with their defaults."""
    by_position, by_keyword = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.KEYWORD_ONLY
    needed = inspect.Parameter.empty
    parameters = [inspect.Parameter(n, by_position, default=None if n in optional else needed) for n in names]
    parameters += [inspect.Parameter(n, by_keyword, default=v) for n, v in keywords.items()]
    infer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions may have one


def _positional(function: Callable[..., Any]) -> int:
    return sum(p.kind is not p.KEYWORD_ONLY for p in inspect.signature(function).parameters.values())


def _with_unbroadcast(gradient: Callable[..., Any] | tuple[GradientOfInput, ...]) -> Callable[..., Grads]:
    if not isinstance(gradient, tuple):

        def gradient_of_one(g: Tensor, out: Tensor, x: Tensor, **settings: Any) -> Grads:
            return (gradient(g, out, x, **settings),)

        return gradient_of_one

    def gradient_of_each(g: Tensor, out: Tensor, *inputs: Tensor, **settings: Any) -> Grads:
        def entry(part: GradientOfInput, x: Tensor) -> Callable[[], Tensor] | None:
            return None if part is None else lambda: unbroadcast(part(g, out, *inputs, **settings), x.shape)

        return tuple(starmap(entry, zip(gradient, inputs, strict=True)))

    return gradient_of_each
