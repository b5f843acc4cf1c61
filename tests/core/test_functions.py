"""Functions of the Array API standard against NumPy, which follows it too: each call of the table runs on both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import CopyError, DTypeError, SettingError, ShapeError


def inputs() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.permutation(np.linspace(-2, 2, 12, dtype=np.float32)).reshape(3, 4),
        "y": rng.uniform(0.1, 2, (3, 4)).astype(np.float32),
        "s": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "v": rng.normal(size=4).astype(np.float32),
        "m": rng.normal(size=(4, 5)).astype(np.float32),
        "u": rng.uniform(0.1, 0.9, (3, 4)).astype(np.float32),
        "one": rng.normal(size=(1, 3, 1)).astype(np.float32),
        "b": rng.random((3, 4)) < 0.5,
        "n": rng.integers(-5, 6, (3, 4)),
        "k": rng.integers(0, 8, (3, 4)).astype(np.int32),
        "i": np.array([2, 0, 1, 1]),
        "c": (rng.normal(size=(3, 4)) + 1j * rng.normal(size=(3, 4))).astype(np.complex64),
        "o": np.array([1.0, np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32),
    }


ROWS = """
    xp.abs(x)  xp.acos(u)  xp.acosh(y+1)  xp.add(x,y)  xp.asin(u)  xp.asinh(x)  xp.atan(x)  xp.atan2(x,y)  xp.atanh(u)
    xp.bitwise_and(k,n)  xp.bitwise_left_shift(k,i)  xp.bitwise_invert(k)  xp.bitwise_or(k,n)
    xp.bitwise_right_shift(k,i)  xp.bitwise_xor(k,n)  xp.ceil(x)  xp.clip(x,-1,1)  xp.clip(x,max=y)
    xp.clip(x,min=0.0)  xp.conj(c)  xp.copysign(x,y)  xp.cos(x)  xp.cosh(x)  xp.divide(x,y)  xp.equal(x,y)  xp.exp(x)
    xp.expm1(x)  xp.floor(x)  xp.floor_divide(x,y)  xp.greater(x,y)  xp.greater_equal(x,y)  xp.hypot(x,y)  xp.imag(c)
    xp.isfinite(o)  xp.isinf(o)  xp.isnan(o)  xp.less(x,y)  xp.less_equal(x,y)  xp.log(y)  xp.log1p(y)  xp.log2(y)
    xp.log10(y)  xp.logaddexp(x,y)  xp.logical_and(b,~b)  xp.logical_not(b)  xp.logical_or(b,b)  xp.logical_xor(b,b)
    xp.maximum(x,y)  xp.minimum(x,y)  xp.multiply(x,y)  xp.negative(x)  xp.nextafter(x,y)  xp.not_equal(x,y)
    xp.positive(x)  xp.pow(y,x)  xp.real(c)  xp.reciprocal(y)  xp.remainder(x,y)  xp.round(x)  xp.sign(x)
    xp.signbit(o)  xp.sin(x)  xp.sinh(x)  xp.square(x)  xp.sqrt(y)  xp.subtract(x,y)  xp.tan(x)  xp.tanh(x)
    xp.trunc(x)  xp.add(c,c)  xp.multiply(c,c)  xp.subtract(c,x)  xp.abs(c)  xp.isnan(o)  c+c  c*2  x*1j  c/c

    xp.matmul(x,m)  xp.matmul(s,m)  xp.matrix_transpose(s)  xp.tensordot(x,m,axes=1)
    xp.tensordot(s,x,axes=([1,2],[0,1]))  xp.tensordot(s,s,axes=((0,1),(0,1)))  xp.vecdot(x,y)  xp.vecdot(x,y,axis=0)
    xp.vecdot(c,c)  xp.einsum("ij,jk->ik",x,m)  xp.einsum("ij,ij->i",x,y)  xp.einsum("ii",x[:,:3])  xp.outer(v,v)
    xp.trace(x)  xp.diagonal(x)  xp.inner(x,y)

    xp.broadcast_to(v,(3,4))  xp.concat([x,y])  xp.concat((x,y),axis=1)  xp.concat([x,y],axis=None)
    xp.expand_dims(x,axis=1)  xp.expand_dims(x,axis=(0,-1))  xp.flip(x)  xp.flip(x,axis=1)  xp.flip(s,axis=(0,2))
    xp.moveaxis(s,0,2)  xp.moveaxis(s,(0,1),(2,0))  xp.permute_dims(s,(2,0,1))  xp.repeat(x,2)  xp.repeat(x,2,axis=1)
    xp.repeat(v,i)  xp.reshape(x,(2,6))  xp.reshape(x,(-1,))  xp.reshape(x,(4,3),copy=True)  xp.roll(x,1)
    xp.roll(x,1,axis=0)  xp.roll(x,(1,2),axis=(0,1))  xp.squeeze(one,axis=0)  xp.squeeze(one,axis=(0,2))
    xp.stack([x,y])  xp.stack((x,y),axis=-1)  xp.tile(x,(2,1))  xp.tile(v,(2,2))  xp.unstack(x)  xp.unstack(s,axis=1)
    xp.broadcast_arrays(x,v)  xp.meshgrid(v,i)  xp.meshgrid(v,i,v,indexing="ij")  xp.meshgrid(v,i,v)  xp.meshgrid(v)
    xp.vstack([x,y])  xp.hstack([x,y])  xp.hstack([v,v])  xp.dstack([x,y])  xp.dstack([v,v])  xp.vstack([v,v])

    xp.argmax(x)  xp.argmax(x,axis=1)  xp.argmin(x,axis=0,keepdims=True)  xp.count_nonzero(n)
    xp.count_nonzero(n,axis=1)  xp.nonzero(n)  xp.where(b,x,y)  xp.where(b,x,0.0)  xp.searchsorted(xp.sort(v),y)
    xp.searchsorted(i[1:],n,side="right")  xp.sort(xp.unique_values(n))  xp.unique_counts(n)  xp.unique_inverse(n)
    xp.unique_all(n)  xp.sort(xp.unique_values(o))  xp.argsort(x)  xp.argsort(x,axis=0)  xp.sort(x)  xp.sort(x,axis=0)
    xp.sort(x,axis=-1)  xp.take(x,i,axis=1)  xp.take(v,i)  xp.take(x,i[:2],axis=0)  xp.take(x,i)
    xp.take_along_axis(x,n%4,axis=1)  xp.take_along_axis(x,n%3,axis=0)  xp.take_along_axis(x,xp.argsort(x),axis=-1)

    xp.cumulative_sum(v)  xp.cumulative_sum(x,axis=1)  xp.cumulative_sum(x,axis=0,include_initial=True)
    xp.cumulative_prod(v)  xp.cumulative_prod(x,axis=1,include_initial=True)  xp.cumulative_sum(k,axis=0)  xp.max(x)
    xp.max(x,axis=1)  xp.max(s,axis=(0,2),keepdims=True)  xp.min(x,axis=0)  xp.mean(x)  xp.mean(s,axis=(0,1))
    xp.prod(x)  xp.prod(x,axis=1,keepdims=True)  xp.sum(x)  xp.sum(x,axis=0)  xp.sum(b)  xp.sum(k,axis=1)
    xp.sum(s,axis=(-1,0))  xp.sum(c,axis=1)  xp.std(x)  xp.std(x,axis=1)  xp.std(x,axis=1,correction=1)  xp.var(x)
    xp.var(x,axis=0,keepdims=True)  xp.var(s,axis=(0,1),correction=1)  xp.all(b)  xp.all(b,axis=1)
    xp.any(b,axis=0,keepdims=True)  xp.any(b)  xp.diff(x)  xp.diff(x,axis=0)  xp.diff(v,n=2)  xp.tril(x)
    xp.triu(x,k=1)  xp.tril(s,k=-1)

    xp.arange(5)  xp.arange(2,10,3)  xp.arange(10,0,-3)  xp.zeros((2,3),dtype=xp.int32)  xp.ones(4,dtype=xp.float64)
    xp.full((2,2),7)  xp.full(3,True)  xp.eye(3,dtype=xp.float32)  xp.eye(3,4,k=1,dtype=xp.float32)
    xp.eye(2,k=-1,dtype=xp.int64)  xp.linspace(0,1,5,dtype=xp.float32)
    xp.linspace(0,1,5,endpoint=False,dtype=xp.float64)  xp.linspace(3,1,3,dtype=xp.float32)  xp.zeros_like(x)
    xp.ones_like(n)  xp.full_like(x,2)  xp.empty((0,3),dtype=xp.float32)  xp.asarray([1,2])  xp.asarray(x)
    xp.asarray([[1,2],[3,4]],dtype=xp.float32)  xp.arange(0,1,0.25,dtype=xp.float32)  xp.astype(x,xp.int32)
    xp.zeros_like(x,dtype=xp.bool)  xp.asarray(True)  xp.bincount(i)

    xp.isclose(x,x)  xp.allclose(x,y)  xp.isclose(o,o,equal_nan=True)  xp.isclose(o,o)  xp.finfo(xp.float32).eps
    xp.finfo(xp.float64).max  xp.finfo(xp.float32).smallest_normal  xp.finfo(xp.float16).bits  xp.iinfo(xp.int16).max
    xp.iinfo(xp.uint8).min  xp.can_cast(xp.int32,xp.float64)  xp.can_cast(xp.float64,xp.float32)
    xp.isdtype(xp.int8,("integral","bool"))  xp.isdtype(xp.int8,xp.int8)  xp.pi  xp.e  xp.inf  xp.newaxis
    xp.broadcast_shapes((2,1),(3,))
"""


def run(xp: Any, row: str) -> Any:
    make = hal.tensor if xp is hal else np.array
    with np.errstate(all="ignore"):
        return eval(row, {"xp": xp}, {name: make(x) for name, x in inputs().items()})


def check(got: Any, want: Any) -> None:
    if isinstance(want, (tuple, list)) and not isinstance(want, np.ndarray):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            check(g, w)
    elif isinstance(got, hal.Tensor):
        assert got.dtype.numpy == want.dtype
        assert got.shape == want.shape
        np.testing.assert_allclose(got.numpy(), want, rtol=3e-5, atol=3e-6)
    else:
        assert got == want


@pytest.mark.parametrize("row", ROWS.split())
def test_a_function_gives_what_numpy_gives(row: str) -> None:
    check(run(hal, row), run(np, row))


STANDARD = """
    abs  acos  acosh  add  all  any  arange  argmax  argmin  argsort  asarray  asin  asinh  astype  atan  atan2  atanh
    bitwise_and  bitwise_invert  bitwise_left_shift  bitwise_or  bitwise_right_shift  bitwise_xor  bool
    broadcast_arrays  broadcast_to  can_cast  ceil  clip  complex64  complex128  concat  conj  copysign  cos  cosh
    count_nonzero  cumulative_prod  cumulative_sum  diff  divide  e  empty  empty_like  equal  exp  expand_dims  expm1
    eye  finfo  flip  float32  float64  floor  floor_divide  from_dlpack  full  full_like  greater  greater_equal
    hypot  iinfo  imag  inf  int8  int16  int32  int64  isdtype  isfinite  isinf  isnan  less  less_equal  linspace
    log  log1p  log2  log10  logaddexp  logical_and  logical_not  logical_or  logical_xor  matmul  matrix_transpose
    max  maximum  mean  meshgrid  min  minimum  moveaxis  multiply  nan  negative  newaxis  nextafter  nonzero
    not_equal  ones  ones_like  permute_dims  pi  positive  pow  prod  real  reciprocal  remainder  repeat  reshape
    result_type  roll  round  searchsorted  sign  signbit  sin  sinh  sort  sqrt  square  squeeze  stack  std
    subtract  sum  take  take_along_axis  tan  tanh  tensordot  tile  tril  triu  trunc  uint8  uint16  uint32  uint64
    unique_all  unique_counts  unique_inverse  unique_values  unstack  var  vecdot  where  zeros  zeros_like
    __array_namespace_info__  __array_api_version__
"""


def test_every_name_of_the_standard_is_there() -> None:
    assert not [name for name in STANDARD.split() if not hasattr(hal, name)]


def test_all_lists_what_there_is() -> None:
    assert len(set(hal.__all__)) == len(hal.__all__)
    assert not [name for name in hal.__all__ if not hasattr(hal, name)]


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'zeross'"):
        _ = hal.zeross
    with pytest.raises(AttributeError, match="no attribute 'nn': layers, optimizers and data are in the package nn"):
        _ = hal.nn


def test_the_namespace_tells_what_its_devices_have() -> None:
    info = hal.ones(2).__array_namespace__().__array_namespace_info__()
    assert info.default_device() is hal.device()
    assert info.default_device() in info.devices()
    assert info.default_dtypes()["real floating"] is hal.float32
    assert info.dtypes(device="fake", kind="real floating").keys() == {"float16", "bfloat16", "float32"}
    assert "float64" in info.dtypes(device="cpu")
    assert info.capabilities()["boolean indexing"] is True
    with pytest.raises(SettingError, match="1999"):
        hal.ones(2).__array_namespace__(api_version="1999.12")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((hal.int32, hal.float32), hal.float32),
        ((hal.uint8, hal.int8), hal.int16),
        ((hal.float32, 1.0), hal.float32),
        ((hal.int32, 1.0), hal.float32),
        ((hal.float16, 1j), hal.complex64),
        ((hal.bool, 3), hal.int64),
        (("float64", hal.complex64), hal.complex128),
    ],
)
def test_result_type(given: tuple[Any, ...], expected: hal.DType) -> None:
    assert hal.result_type(*given) is expected
    if isinstance(given[0], hal.DType):
        assert hal.result_type(hal.zeros(1, dtype=given[0]), *given[1:]) is expected


def test_kinds_of_dtypes() -> None:
    assert hal.isdtype(hal.float32, "real floating")
    assert hal.isdtype(hal.uint8, ("bool", "unsigned integer"))
    assert not hal.isdtype(hal.complex64, "real floating")
    assert hal.isdtype(hal.complex64, "numeric")
    assert not hal.isdtype(hal.bool, "numeric")


# The choice between the two conventions (docs/decisions): torch's words get torch's answer.


def test_sort_and_extrema_follow_the_words_of_the_call() -> None:
    x = hal.tensor([[3.0, 1.0], [2.0, 5.0]])
    assert hal.sort(x).tolist() == hal.sort(x, axis=1).tolist() == [[1, 3], [2, 5]]
    for pair in (hal.sort(x, dim=1), hal.sort(x, 1), x.sort()):
        assert pair.values.tolist() == [[1, 3], [2, 5]]
        assert pair.indices.tolist() == [[1, 0], [0, 1]]
    assert hal.max(x).item() == 5
    assert hal.max(x, axis=0).tolist() == [3, 5]
    assert hal.max(x, 0).indices.tolist() == hal.max(x, dim=0).indices.tolist() == [0, 1]
    assert hal.maximum(x, x.T).tolist() == hal.max(x, x.T).tolist() == [[3, 2], [2, 5]]


def test_var_and_std_follow_the_words_of_the_call() -> None:
    x = hal.tensor([[1.0, 3.0]])
    assert hal.var(x).item() == hal.var(x, axis=1).item() == 1.0
    assert x.var().item() == hal.var(x, dim=1).item() == hal.var(x, correction=1).item() == 2.0
    assert hal.std(x, dim=1, unbiased=False).item() == x.std(unbiased=False).item() == 1.0
    with pytest.raises(SettingError, match="two words"):
        x.var(unbiased=False, correction=1)


def test_squeeze_and_nonzero_follow_the_words_of_the_call() -> None:
    x = hal.ones(1, 2)
    assert hal.squeeze(x, 1).shape == x.squeeze(1).shape == (1, 2)
    with pytest.raises(ShapeError, match="size 1"):
        hal.squeeze(x, axis=1)
    assert isinstance(hal.nonzero(x), tuple)
    assert x.nonzero().shape == hal.nonzero(x, as_tuple=False).shape == (2, 2)


def test_dim_and_axis_together_are_an_error() -> None:
    with pytest.raises(SettingError, match="dim=0 and axis=1"):
        hal.ones(2, 2).sum(0, axis=1)


WRONG: list[tuple[str, type[Exception], str]] = [
    ("hal.concat([])", ShapeError, "needs one tensor or more"),
    ("hal.concat([x, [1.0]])", DTypeError, "concat needs a tensor, got list"),
    ("hal.stack(3)", DTypeError, "list or tuple"),
    ("x.reshape(5)", ShapeError, "reshape"),
    ("x.view(-1, -1)", ShapeError, "at most one -1"),
    ("x.view(hal.int32)", DTypeError, "view takes sizes"),
    ("x.unflatten(0, (2, 2))", ShapeError, "product is 3"),
    ("x.expand(5, 4)", ShapeError, "broadcast_to"),
    ("x.expand(4)", ShapeError, "expand"),
    ("x.repeat(2)", ShapeError, "a number for each of the 2 axes"),
    ("x.split([1, 1])", ShapeError, "add up to 3"),
    ("x.split(0)", ShapeError, "one element or more"),
    ("x.chunk(0)", SettingError, "one part or more"),
    ("x.narrow(0, 2, 2)", ShapeError, "narrow needs elements that exist"),
    ("x.select(0, 3)", IndexError, "index 3 is out of range for axis 0 of size 3"),
    ("x.mm(x)", ShapeError, "matmul"),
    ("x.mm(v)", ShapeError, "mm needs tensors of 2 axes"),
    ("x.dot(x)", ShapeError, "1 axis"),
    ("x.t().unsqueeze(0).t()", ShapeError, "mT"),
    ("v.mT", ShapeError, "two axes"),
    ("x.sum(2)", ShapeError, "axis 2"),
    ("x.clip()", SettingError, "min, max, or both"),
    ("x.div(x, rounding_mode='up')", SettingError, "rounding_mode"),
    ("x.masked_fill(x, 0)", DTypeError, "mask of bool"),
    ("x.masked_select(x)", DTypeError, "mask of bool"),
    ("x.scatter(0, v.long())", SettingError, "src, a tensor, or value"),
    ("x.norm('nuc')", SettingError, "'nuc'"),
    ("hal.meshgrid(x)", ShapeError, "vectors"),
    ("hal.meshgrid(v, indexing='yx')", SettingError, "'yx'"),
    ("hal.iinfo(hal.float32)", DTypeError, "finfo"),
    ("hal.finfo(hal.int8)", DTypeError, "iinfo"),
    ("hal.isdtype(hal.int8, 'whole')", DTypeError, "'whole'"),
    ("hal.result_type(1, 2.0)", DTypeError, "only Python numbers"),
    ("hal.asarray([1.0], copy=False)", CopyError, "copy=False"),
    ("hal.asarray(x, dtype=hal.int8, copy=False)", CopyError, "copy=False"),
    ("hal.from_dlpack([1.0])", DTypeError, "__dlpack__"),
    ("hal.from_numpy([1.0])", DTypeError, "hal.tensor"),
    ("hal.arange(0, 3, 0)", ShapeError, "step"),
    ("x + 'a'", TypeError, "unsupported operand"),
    ("x @ 2", ShapeError, "matmul"),
    ("hal.add(x, 'a')", DTypeError, "got str"),
    ("x.permute(0)", ShapeError, "permute"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[row[0] for row in WRONG])
def test_what_makes_no_sense_is_said(call: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        eval(call, {"hal": hal}, {"x": hal.ones(3, 4), "v": hal.ones(4)})
