"""Sums of products by the names of axes: einsum and tensordot, both made of permute, reshape and matmul."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from string import ascii_letters
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hal import ops
from hal.errors import ShapeError
from hal.op import SUMS, Array, Cost, Op, Rng, Sample
from hal.ops.common import NUMBERS, check_kind, integers, numeric, quiet, uniform
from hal.ops.steps import cut, in_float32, shaped
from hal.spec import Shape, Spec, normalize_axes

if TYPE_CHECKING:
    from hal.tensor import Tensor


class Equation(NamedTuple):
    """A parsed einsum: a label for each axis of each operand and of the result, and the size of each label.

    The axes behind an ellipsis have the labels 0, 1, ... counted from the last.
    """

    operands: tuple[tuple[str, ...], ...]
    out: tuple[str, ...]
    sizes: dict[str, int]


@lru_cache(maxsize=1024)
def parse(equation: str, shapes: tuple[Shape, ...]) -> Equation:
    """Read an einsum equation for operands of these shapes.

    Raises:
        ShapeError: the equation means nothing, or does not fit the shapes.
    """

    def refuse(needed: str) -> ShapeError:
        listed = ", ".join(map(str, shapes))
        return ShapeError(f"einsum({equation!r}) {needed}, got operands of shapes {listed}")

    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise refuse(f"names {len(terms)} operands")
    for term in (*terms, right):
        letters = term.replace("...", "", 1)
        if letters and not (letters.isascii() and letters.isalpha()):
            raise refuse(f"needs letters, one for each axis, and at most one ellipsis in each operand, not {term!r}")
    operands, sizes, behind = [], dict[str, int](), 0
    for term, shape in zip(terms, shapes, strict=True):
        before, dots, after = term.partition("...")
        extra = len(shape) - len(before) - len(after)
        if extra < 0 or (extra > 0 and not dots):
            raise refuse(f"has {len(before) + len(after)} letters for an operand of {len(shape)} axes, {shape}")
        labels = (*before, *(str(i) for i in reversed(range(extra))), *after)
        behind = max(behind, extra)
        for label, n in zip(labels, shape, strict=True):
            known = sizes.get(label, 1)
            if n != known and 1 not in (n, known):
                raise refuse(f"needs one size for all axes {label!r}, which have {known} and {n}")
            sizes[label] = n if known == 1 else known
        operands.append(labels)
    ellipsis = [str(i) for i in reversed(range(behind))]
    if arrow:
        before, dots, after = right.partition("...")
        out = (*before, *(ellipsis if dots else ()), *after)
    else:  # NumPy's rule: the labels that occur once, in alphabetical order
        letters = left.replace(",", "").replace(".", "")
        out = (*ellipsis, *sorted(x for x in set(letters) if letters.count(x) == 1))
    if len(set(out)) != len(out) or not set(out) <= set(sizes):
        raise refuse("needs each letter of the result once, and in some operand")
    return Equation(tuple(operands), out, sizes)


def spelled(equation: str, shapes: tuple[Shape, ...]) -> str:
    """The equation as NumPy takes it: letters for the axes of an ellipsis that the result does not have."""
    left, arrow, right = equation.partition("->")
    if not arrow or "..." in right or "..." not in left:
        return equation
    parsed = parse(equation, shapes)
    spare = [c for c in ascii_letters if c not in equation]
    letters = {label: spare.pop() for label in parsed.sizes if label.isdigit()}
    terms = ("".join(letters.get(label, label) for label in labels) for labels in parsed.operands)
    return f"{','.join(terms)}->{right}"


def _infer(*xs: Spec, equation: str) -> Spec:
    if not xs:
        raise ShapeError("einsum needs one operand or more, got none")
    for x in xs:
        check_kind("einsum", x, NUMBERS)
    parsed = parse(equation, tuple(x.shape for x in xs))
    return Spec(tuple(parsed.sizes[label] for label in parsed.out), xs[0].dtype)


class _Labelled(NamedTuple):
    x: Tensor
    labels: tuple[str, ...]


def _diagonal(x: Tensor, labels: tuple[str, ...]) -> _Labelled:
    """`x` with every label once: of two axes with one label, their diagonal."""
    while len(set(labels)) < len(labels):
        label = next(a for a in labels if labels.count(a) > 1)
        i, j = [k for k, a in enumerate(labels) if a == label][:2]
        rest = [k for k in range(len(labels)) if k not in (i, j)]
        x = ops.permute(x, axes=(*rest, i, j))
        rows, columns = x.shape[-2:]
        n = max(rows, columns)
        if rows != columns:  # one of them is 1 and is repeated
            x = ops.broadcast_to(x, shape=(*x.shape[:-2], n, n))
        x = ops.reshape(x, shape=(*x.shape[:-2], n * n))
        x = cut(x, x.ndim - 1, 0, n * n, n + 1)
        labels = (*(labels[k] for k in rest), label)
    return _Labelled(x, labels)


def _summed(term: _Labelled, needed: set[str]) -> _Labelled:
    """The term without the axes that nothing else needs."""
    gone = tuple(i for i, label in enumerate(term.labels) if label not in needed)
    if not gone:
        return term
    return _Labelled(ops.sum(term.x, axis=gone), tuple(label for label in term.labels if label in needed))


def _ordered(term: _Labelled, labels: list[str]) -> Tensor:
    axes = tuple(term.labels.index(label) for label in labels)
    return term.x if axes == tuple(range(len(axes))) else ops.permute(term.x, axes=axes)


def _contract(a: _Labelled, b: _Labelled, needed: set[str], sizes: dict[str, int]) -> _Labelled:
    """The product of two terms, summed over the labels that both have and nothing else needs: one matmul."""
    shared = [label for label in a.labels if label in b.labels]
    a, b = (_full(term, shared, sizes) for term in (a, b))
    batch = [label for label in shared if label in needed]
    gone = [label for label in shared if label not in needed]
    left = [label for label in a.labels if label not in shared]
    right = [label for label in b.labels if label not in shared]
    out = (*batch, *left, *right)
    size_of = {label: n for term in (a, b) for label, n in zip(term.labels, term.x.shape, strict=True)}
    shape = {name: tuple(size_of[label] for label in group) for name, group in _groups(batch, left, right, gone)}
    if not gone:  # nothing is summed: a product with broadcasting
        x = shaped(_ordered(a, batch + left), shape["batch"] + shape["left"] + (1,) * len(right))
        y = shaped(_ordered(b, batch + right), shape["batch"] + (1,) * len(left) + shape["right"])
        return _Labelled(ops.mul(x, y), out)
    rows, columns, k = (prod(shape[name]) for name in ("left", "right", "gone"))
    front = (prod(shape["batch"]),) if batch else ()
    x = shaped(_ordered(a, batch + left + gone), (*front, rows, k))
    y = shaped(_ordered(b, batch + gone + right), (*front, k, columns))
    return _Labelled(shaped(ops.matmul(x, y), shape["batch"] + shape["left"] + shape["right"]), out)


def _groups(*groups: list[str]) -> list[tuple[str, list[str]]]:
    return list(zip(("batch", "left", "right", "gone"), groups, strict=True))


def _full(term: _Labelled, labels: list[str], sizes: dict[str, int]) -> _Labelled:
    """The term with its axes of size 1 repeated where the other operand has more."""
    shape = tuple(sizes[a] if a in labels else n for a, n in zip(term.labels, term.x.shape, strict=True))
    return term if shape == term.x.shape else _Labelled(ops.broadcast_to(term.x, shape=shape), term.labels)


def _einsum(*xs: Tensor, equation: str) -> Tensor:
    parsed = parse(equation, tuple(x.shape for x in xs))
    appear = [label for labels in parsed.operands for label in set(labels)]
    if len(xs) > 2 or any(appear.count(label) == 1 for label in set(appear) - set(parsed.out)):
        return _in_float32(*xs, parsed=parsed)  # several steps, which would each round
    return _in_steps(*xs, parsed=parsed)


def _in_steps(*xs: Tensor, parsed: Equation) -> Tensor:
    terms = [_diagonal(x, labels) for x, labels in zip(xs, parsed.operands, strict=True)]
    result = terms.pop(0)
    while True:
        needed = {*parsed.out, *(label for term in terms for label in term.labels)}
        result = _summed(result, needed)
        if not terms:
            break
        following = terms.pop(0)
        needed = {*parsed.out, *(label for term in terms for label in term.labels)}
        following = _summed(following, needed | set(result.labels))
        result = _contract(result, following, needed, parsed.sizes)
    return _ordered(result, list(parsed.out))


_in_float32 = in_float32(_in_steps)


def _reference(*xs: Array, equation: str) -> Array:
    return np.asarray(np.einsum(spelled(equation, tuple(x.shape for x in xs)), *xs))


def _terms(*xs: Spec, equation: str) -> int:
    parsed = parse(equation, tuple(x.shape for x in xs))
    return prod(n for label, n in parsed.sizes.items() if label not in parsed.out) + len(xs) - 1


def _cost(*xs: Spec, out: Spec, equation: str) -> Cost:
    parsed = parse(equation, tuple(x.shape for x in xs))
    return Cost(len(xs) * prod(parsed.sizes.values()), sum(x.nbytes for x in xs) + out.nbytes)


def _samples(rng: Rng) -> Iterator[Sample]:
    calls: list[tuple[str, *tuple[Shape, ...]]] = [
        ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ij->ji", (2, 3)), ("ij->", (2, 3)),
        ("ij->j", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)), ("iij->j", (3, 3, 2)), ("iii->i", (3, 3, 3)),
        ("i,i->i", (4,), (4,)),
        ("i,i", (4,), (4,)), ("i,j->ij", (3,), (4,)), ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)), ("ba", (2, 3)),
        ("...ij,...jk->...ik", (2, 3, 4), (4, 5)), ("...ij,...jk->...ik", (2, 1, 2, 3), (3, 3, 2)),
        ("i...->...", (3, 2, 2)), ("...i,i", (2, 3, 4), (4,)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
        ("i,ij,j->", (2,), (2, 3), (3,)),
        ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)), ("bqhd,bkhd->bhqk", (2, 3, 2, 4), (2, 5, 2, 4)),
        ("nik,mjk->nmij", (2, 3, 4), (2, 3, 4)), ("ij,ij->", (2, 3), (2, 3)), ("ij,kl->", (2, 3), (2, 2)), ("->", ()),
        (",->", (), ()), ("i,->i", (3,), ()), ("ij,jk->ik", (0, 3), (3, 2)), ("ij,jk->ik", (2, 0), (0, 3)),
        ("ij , jk -> k i", (2, 3), (3, 4)), ("aij,ajk,akl->il", (2, 2, 3), (2, 3, 2), (2, 2, 3)),
        ("...ik, ...j -> ij", (1, 2, 3), (3,)), ("...i,...i->i", (2, 3, 4), (3, 1)), ("...->", (2, 3)),
    ]  # fmt: skip
    for equation, *shapes in calls:
        yield Sample(tuple(uniform(rng, s) for s in shapes), {"equation": equation})
    strided = (uniform(rng, (4, 6))[::-1, ::2], uniform(rng, (3, 5)).T[::-1, :])
    yield Sample(strided, {"equation": "ij,kj->ki"})
    large = (uniform(rng, (70, 11, 40)), uniform(rng, (40, 60)))
    yield Sample(large, {"equation": "bij,jk->bik"}, smooth=False)
    ints = (integers(rng, (2, 3)), integers(rng, (3, 4)))
    yield Sample(ints, {"equation": "ij,jk->ki"}, smooth=False, exact=True)
    pairs = tuple((rng.normal(size=s) + 1j).astype(np.complex64) for s in ((2, 3), (3, 4)))
    yield Sample(pairs, {"equation": "ij,jk->ki"}, smooth=False, exact=True)


einsum = Op(
    "einsum", _infer, quiet(_reference), _samples, None, _einsum, _cost, "contraction", promote=numeric, terms=_terms,
    tolerance=SUMS,
    doc="Products summed over the axes that the `equation` leaves out of its result, operand by operand from the left: "
        "letters, an ellipsis, a letter twice for a diagonal; without -> the letters that occur once. "
        "Source: numpy.einsum.",
)  # fmt: skip


# tensordot

Axes = int | tuple[tuple[int, ...], tuple[int, ...]]


def _pairs(a: Shape, b: Shape, axes: Axes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of each side that are summed over, in pairs.

    Raises:
        ShapeError: they do not fit.
    """
    if isinstance(axes, int):
        if not 0 <= axes <= min(len(a), len(b)):
            raise ShapeError(f"tensordot got axes={axes}, but its inputs have shapes {a} and {b}")
        return tuple(range(len(a) - axes, len(a))), tuple(range(axes))
    left, right = axes
    normalize_axes("tensordot", tuple(left), len(a))
    normalize_axes("tensordot", tuple(right), len(b))
    left, right = tuple(i % len(a) for i in left), tuple(i % len(b) for i in right)
    if len(left) != len(right):
        raise ShapeError(f"tensordot needs as many axes of one input as of the other, got axes={axes}")
    return left, right


def _infer_tensordot(a: Spec, b: Spec, *, axes: Axes = 2) -> Spec:
    check_kind("tensordot", a, NUMBERS)
    left, right = _pairs(a.shape, b.shape, axes)
    if any(a.shape[i] != b.shape[j] for i, j in zip(left, right, strict=True)):
        raise ShapeError(f"tensordot needs equal sizes along axes={axes}, got shapes {a.shape} and {b.shape}")
    rest = [n for i, n in enumerate(a.shape) if i not in left] + [n for i, n in enumerate(b.shape) if i not in right]
    return Spec(tuple(rest), a.dtype)


def _tensordot_by_matmul(a: Tensor, b: Tensor, *, axes: Axes) -> Tensor:
    left, right = _pairs(a.shape, b.shape, axes)
    rows = [i for i in range(a.ndim) if i not in left]
    columns = [i for i in range(b.ndim) if i not in right]
    k = prod(a.shape[i] for i in left)
    shape = (*(a.shape[i] for i in rows), *(b.shape[i] for i in columns))
    m, n = prod(a.shape[i] for i in rows), prod(b.shape[i] for i in columns)
    x = ops.reshape(ops.permute(a, axes=(*rows, *left)), shape=(m, k))
    y = ops.reshape(ops.permute(b, axes=(*right, *columns)), shape=(k, n))
    return ops.reshape(ops.matmul(x, y), shape=shape)


def _tensordot(a: Array, b: Array, *, axes: Axes = 2) -> Array:
    return np.tensordot(a, b, axes)


def _terms_of_tensordot(a: Spec, b: Spec, *, axes: Axes = 2) -> int:
    return prod(a.shape[i] for i in _pairs(a.shape, b.shape, axes)[0])


def _cost_of_tensordot(a: Spec, b: Spec, *, out: Spec, axes: Axes = 2) -> Cost:
    return Cost(2 * out.size * _terms_of_tensordot(a, b, axes=axes), a.nbytes + b.nbytes + out.nbytes)


def _samples_of_tensordot(rng: Rng) -> Iterator[Sample]:
    calls: list[tuple[Shape, Shape, Axes]] = [
        ((2, 3), (3, 4), 1), ((2, 3, 4), (3, 4, 2), 2), ((2,), (3,), 0), ((2, 3), (2, 3), 2),
        ((2, 3), (4, 3), ((1,), (-1,))), ((2, 3, 4), (4, 2, 5), ((0, 2), (1, 0))), ((0, 3), (3, 2), 1),
        ((2, 0), (0, 3), 1), ((), (3,), 0),
    ]  # fmt: skip
    for a, b, axes in calls:
        yield Sample((uniform(rng, a), uniform(rng, b)), {"axes": axes})
    yield Sample((uniform(rng, (4, 6))[::-1, ::2], uniform(rng, (5, 3)).T), {"axes": 1})
    yield Sample((uniform(rng, (20, 7, 30)), uniform(rng, (30, 7, 40))), {"axes": ((1, 2), (1, 0))}, smooth=False)
    yield Sample((integers(rng, (2, 3)), integers(rng, (3, 4))), {"axes": 1}, smooth=False, exact=True)


tensordot = Op(
    "tensordot", _infer_tensordot, quiet(_tensordot), _samples_of_tensordot, None, _tensordot_by_matmul,
    _cost_of_tensordot, "contraction", promote=numeric, terms=_terms_of_tensordot, tolerance=SUMS,
    doc="Products summed over pairs of axes: the last n of a with the first n of b, or those listed for each. "
        "Source: Array API 2024.12, tensordot.",
)  # fmt: skip
