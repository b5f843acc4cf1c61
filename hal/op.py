"""The op record: everything hal knows about one operation, on no device in particular.

The rest of hal is derived from these records: shape checks, autodiff, placement, fallback, the
conformance suite and the tables in the docs all read the same answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hal.dtypes import DType
from hal.errors import SettingError
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
Specs = Spec | tuple[Spec, ...]
Settings = Mapping[str, Any]
Grads = tuple["Tensor | Callable[[], Tensor | None] | None", ...]
Kind = Literal["elementwise", "reduction", "movement", "contraction", "indexing", "random", "creation", "composite"]


@dataclass(frozen=True)
class Cost:
    """What one call costs on any device: floating-point (or integer) operations, and bytes read and written."""

    flops: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Sample:
    """A call that must work: NumPy inputs by position, settings by keyword.

    Attributes:
        inputs: arrays; floating ones are cast to the dtype under test.
        settings: keyword settings of the call.
        smooth: whether the op is differentiable there, so that finite differences mean something
            (not at a kink, a NaN, or an infinity).
        exact: whether the inputs must keep their dtypes (a test of a special dtype).
    """

    inputs: tuple[Array, ...]
    settings: Settings = field(default_factory=dict)
    smooth: bool = True
    exact: bool = False


@dataclass(frozen=True)
class Tolerance:
    """How far a kernel may be from the float64 reference, in units of the result's dtype.

    Attributes:
        float32, float16, float64, bfloat16: the number of units allowed.
        unit: `ulp`: of each element of the result; `terms`: the conditioned unit of a sum, u * f(|x|),
            where the number allowed for K terms is min(K, 8 + 2 sqrt(K)), and what is stated here on top of it (for
            terms that are not exact themselves); `norm`: u times the largest magnitude of the result.
        source: the table or argument that the numbers come from.
        conditioned: for functions composed of several, in `ulp`: whether the result may also be off by what one unit
            in the last place of an input makes, or a number too small to be normal, lost on the way.
    """

    float32: float = 0
    float16: float = 0
    float64: float = 0
    bfloat16: float = 0
    unit: Literal["ulp", "terms", "norm"] = "ulp"
    source: str = "exact"
    conditioned: bool = False


EXACT = Tolerance()
SUMS = Tolerance(unit="terms", source="error bound of recursive summation: min(K, 8 + 2 sqrt(K)) u f(|x|)")


def in_norm(units: float, source: str = "a few roundings of values as large as the largest result") -> Tolerance:
    """A tolerance of `units` in units of the largest magnitude of the result, for any dtype."""
    return Tolerance(units, units, units, units, "norm", source)


def streaming(*specs: Spec, out: Specs, **settings: Any) -> Cost:
    """The cost of an op that reads each input once and does one operation for each element it writes."""
    outs = out if isinstance(out, tuple) else (out,)
    return Cost(sum(o.size for o in outs), sum(s.nbytes for s in specs) + sum(o.nbytes for o in outs))


def _run_later(op: Op, args: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    import hal.dispatch  # replaces `runner`: dispatch needs Op, so Op cannot import it first

    return hal.dispatch.run(op, args, settings)


runner: Callable[[Op, tuple[Any, ...], dict[str, Any]], Any] = _run_later


@dataclass(frozen=True, eq=False)
class Op:
    """One operation, known on no device in particular. Calling it runs it on tensors.

    Data goes in by position, settings by keyword. Optional tensors are trailing positions that are left out.

    Attributes:
        name: unique in the table.
        infer: `infer(*specs, **settings)` gives the spec of the result (or a tuple of them), or raises a
            ShapeError or DTypeError that says what was needed. Its keyword-only parameters are the settings.
        reference: what the op means, in NumPy: float inputs come in float64. The judge of every kernel.
        samples: `samples(rng)` gives calls that must work, corner cases included.
        gradient: `gradient(g, out, *inputs, **settings)`, written in ops: one entry per input, each a tensor,
            None, or a function without arguments that is called only if that input needs its gradient.
            Without one, an op is differentiated through its decomposition.
        decompose: the op in simpler ops. None makes it a primitive (or a host-only op).
        cost: `cost(*specs, out=spec, **settings)`.
        kind: what rewrites and memory planning need to know.
        promote: from the dtypes of the inputs to those that the op wants; dispatch casts before the op runs.
        no_gradient: why there is no gradient, when there is none.
        host_only: why there is no decomposition though the op is not a primitive.
        terms: number of terms in each sum of the result, for tolerances in the unit `terms`.
        tolerance: how far a kernel may be from the reference.
        magnitude: for tolerances in the unit `norm`: `magnitude(*inputs, **settings)`, the size of the values on the
            way whose rounding the result inherits, where they may be much larger than the result (a cancellation).
        doc: one sentence for tables and help, then the rest.
    """

    name: str
    infer: Callable[..., Specs]
    reference: Callable[..., Any]
    samples: Callable[[Rng], Iterator[Sample]]
    gradient: Callable[..., Grads] | None = None
    decompose: Callable[..., Any] | None = None
    cost: Callable[..., Cost] = streaming
    kind: Kind = "composite"
    promote: Callable[..., tuple[DType, ...]] | None = None
    no_gradient: str = ""
    host_only: str = ""
    terms: Callable[..., int] | None = None
    tolerance: Tolerance = EXACT
    magnitude: Callable[..., float] | None = None
    doc: str = ""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return runner(self, args, settings)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return _by_name, (self.name,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.doc)  # so that hal.exp.__doc__ is the record's own words

    @property
    def is_primitive(self) -> bool:
        """Whether a backend must have a kernel for this op to run everything natively."""
        return self.decompose is None and not self.host_only

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The settings that have a default, with it."""
        return {
            n: p.default for n, p in self._parameters.items() if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
        }

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """The names of the settings."""
        return tuple(n for n, p in self._parameters.items() if p.kind is p.KEYWORD_ONLY)

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs; a variadic one starts with `*`, an optional one ends with `?`."""
        names = []
        for name, p in self._parameters.items():
            if p.kind is p.VAR_POSITIONAL:
                names.append(f"*{name}")
            elif p.kind is not p.KEYWORD_ONLY:
                names.append(name if p.default is p.empty else f"{name}?")
        return tuple(names)

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.infer).parameters

    def bind(self, inputs: int, settings: Settings) -> dict[str, Any]:
        """All settings of a call with this many inputs, defaults filled in.

        Raises:
            SettingError: an unknown or missing setting, or the wrong number of inputs.
        """
        unknown = settings.keys() - set(self.settings)
        if unknown:
            raise SettingError(f"{self.name} has no setting {', '.join(sorted(unknown))}; it takes {self.signature}")
        missing = [n for n in self.settings if n not in settings and n not in self.defaults]
        if missing:
            raise SettingError(f"{self.name} needs {', '.join(missing)}=; it takes {self.signature}")
        required = sum(not n.endswith("?") and not n.startswith("*") for n in self.input_names)
        variadic = any(n.startswith("*") for n in self.input_names)
        if inputs < required or (inputs > len(self.input_names) and not variadic):
            raise SettingError(f"{self.name} got {inputs} inputs; it takes {self.signature}")
        return {**self.defaults, **settings}

    @property
    def signature(self) -> str:
        """How the op is called, for people: `softmax(x, axis=-1)`."""
        settings = [f"{n}={self.defaults[n]!r}" if n in self.defaults else f"{n}=" for n in self.settings]
        return f"{self.name}({', '.join([*self.input_names, *settings])})"


def _by_name(name: str) -> Op:
    from hal import ops  # the table is built from records, so this module cannot import it first

    return ops.TABLE[name]
