"""Methods of tensors against torch: each call of the table gives the same values, dtypes and gradients on both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hal

torch = pytest.importorskip("torch", reason="needs torch: pip install 'hal-runtime[oracles]'")


def inputs() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.permutation(np.linspace(-2, 2, 12, dtype=np.float32)).reshape(3, 4),
        "y": rng.uniform(0.1, 2, (3, 4)).astype(np.float32),
        "s": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "v": rng.normal(size=4).astype(np.float32),
        "w": rng.normal(size=3).astype(np.float32),
        "m": rng.normal(size=(4, 5)).astype(np.float32),
        "q": rng.normal(size=(4, 4)).astype(np.float32),
        "z": np.array(0.5, np.float32),
        "u": rng.uniform(0.1, 0.9, (3, 4)).astype(np.float32),
        "one": rng.normal(size=(1, 3, 1)).astype(np.float32),
        "b": rng.random((3, 4)) < 0.5,
        "n": rng.integers(-5, 6, (3, 4)),
        "k": rng.integers(0, 8, (3, 4)).astype(np.int32),
        "i": np.array([2, 0, 1, 1]),
        "g": np.array([[0, 1, 2, 0], [2, 2, 0, 1]]),
    }


ROWS = """
    x.abs()  x.neg()  x.sign()  x.square()  y.sqrt()  y.rsqrt()  y.reciprocal()  x.exp()  x.exp2()  x.expm1()  y.log()
    y.log2()  y.log10()  y.log1p()  x.sin()  x.cos()  x.tan()  u.asin()  u.acos()  x.atan()  x.sinh()  x.cosh()
    x.tanh()  x.asinh()  (y+1).acosh()  u.atanh()  x.erf()  x.erfc()  x.floor()  x.ceil()  x.trunc()  x.round()
    x.round(decimals=2)  x.isnan()  x.isinf()  x.isfinite()  x.signbit()  x.sigmoid()  x.relu()  x.frac()  u.logit()
    x.absolute()  x.negative()  u.arcsin()  u.arccos()  x.arctan()  (x/0).nan_to_num()  b.logical_not()
    k.bitwise_not()  x.add(y)  x.add(y,alpha=3)  x.add(2)  x.sub(y,alpha=2)  x.mul(y)  x.multiply(y)  x.div(y)
    x.true_divide(y)  x.div(y,rounding_mode="floor")  x.div(y,rounding_mode="trunc")  n.div(k+1,rounding_mode="trunc")
    n.div(k+1)  x.floor_divide(y)  x.remainder(y)  x.fmod(y)  n.remainder(3)  n.fmod(3)  y.pow(x)  x.pow(2)
    x.pow(3.0)  n.pow(2)  x.atan2(y)  x.hypot(y)  x.logaddexp(y)  x.copysign(y)  x.maximum(y)  x.minimum(y)
    x.maximum(v)  x.eq(x)  x.ne(y)  x.lt(y)  x.le(y)  x.gt(y)  x.ge(y)  x.lt(0)  x.greater(y)  x.less_equal(y)
    x.not_equal(0.0)  b.logical_and(x)  b.logical_or(~b)  b.logical_xor(b)  k.bitwise_and(3)  k.bitwise_or(8)
    k.bitwise_xor(5)  k.bitwise_left_shift(2)  k.bitwise_right_shift(1)  x.where(b,y)  x.where(b,0.0)
    x.masked_fill(b,7.0)  x.masked_fill(b[0],z)  n.masked_fill(b,3)  x.clamp(-1,1)  x.clip(min=0)  x.clamp(max=y)
    x.clamp(min=-y,max=v)  x.clamp_min(0)  x.clamp_max(0.5)  n.clamp(-2,2)  n.clamp(-1.5)  n.clamp(max=2.5)
    x.lerp(y,0.25)  x.lerp(y,u)  x.addcmul(y,u,value=2)  x.addcdiv(u,y,value=-1)  x.softmax(1)  x.softmax(dim=0)
    x.log_softmax(-1)  n.softmax(1,dtype=lib.float64)

    x+y  x-y  x*y  x/y  x//y  x%y  y**x  x@m  s@m  v@m  m.T@v  -x  +x  abs(x)  x==x  x!=y  x<y  x<=y  x>y  x>=y  ~b
    b&b  b|~b  b^b  k&3  k|8  k^5  k<<1  k>>1  2+x  2-x  2*x  2/y  2//y  2%y  2**x  7-n  n/2  n+1.5  n*k  b+b  b*x
    n//3  n%3  x+True  b+1  b*2.0  n-k

    x.sum()  x.sum(0)  x.sum(dim=1)  x.sum(-1,keepdim=True)  s.sum((0,2))  s.sum(dim=[0,1],keepdim=True)  b.sum()
    k.sum(1)  x.sum(dtype=lib.float64)  x.mean()  x.mean(1)  s.mean((1,2),keepdim=True)  x.prod()  x.prod(1)
    x.prod(0,keepdim=True)  x.var()  x.var(1)  x.var(dim=0,keepdim=True)  x.var(0,False)  x.var(False)
    x.var(1,unbiased=False)  x.var(1,correction=0)  x.std()  x.std(1)  x.std(0,unbiased=False)
    s.std((0,1),correction=2)  x.norm()  x.norm(1)  x.norm(p=3)  x.norm(dim=1)  x.norm(float("inf"))  x.norm(2,1,True)
    x.norm(0)  (x*0).norm()  x.logsumexp(1)  s.logsumexp((0,1),keepdim=True)  x.max()  x.min()  x.max(1)  x.max(dim=0)
    x.max(1,keepdim=True)  x.min(1)  x.min(dim=-1,keepdim=True)  x.max(y)  x.min(y)  x.max(1).values  x.max(1).indices
    x.amax()  x.amax(1)  s.amax((0,2),keepdim=True)  x.amin(0)  x.argmax()  x.argmax(1)  x.argmin(dim=0,keepdim=True)
    b.any()  b.any(1)  b.all()  b.all(0,keepdim=True)  x.any()  b.count_nonzero()  n.count_nonzero(dim=1)  x.cumsum(1)
    n.cumsum(0)  x.cumprod(0)  x.cumsum(0,dtype=lib.float64)  x.diff()  x.diff(dim=0)  x.diff(n=2)  b.diff()  x.sort()
    x.sort(0)  x.sort(dim=1,descending=True)  x.argsort()  x.argsort(0,descending=True)  x.topk(2)  x.topk(1,dim=0)
    x.topk(2,largest=False)  x.median()  x.median(1)  x.aminmax()  n.unique()
    n.unique(return_inverse=True,return_counts=True)  i.bincount()  i.bincount(v)  i.bincount(minlength=6)  z.max(0)
    z.sort()

    x.mm(m)  s.bmm(s.mT)  m.mT.mv(v)  v.dot(v)  v.outer(w)  v.inner(v)  x.matmul(m)  q.addmm(q,q)
    q.addmm(q,q,beta=0.5,alpha=2)  v.addmv(q,v)  q.trace()  s[:,:,:3].cross(s[:,:,1:],dim=-1)
    s[:,:,:3].cross(s[:,:,1:],dim=1)

    x.view(4,3)  x.view(-1)  x.view(2,-1)  x.reshape(6,2)  x.reshape((2,6))  x.reshape(-1,4)  x.reshape_as(y.T)
    x.view_as(y)  x.flatten()  s.flatten(1)  s.flatten(0,1)  s.flatten(-2)  z.flatten()  x.ravel()
    s.unflatten(2,(2,2))  s.unflatten(-1,(-1,2))  one.squeeze()  one.squeeze(0)  one.squeeze(1)  one.squeeze((0,2))
    one.squeeze(-1)  x.unsqueeze(0)  x.unsqueeze(-1)  x.unsqueeze(1)  s.permute(2,0,1)  s.permute((1,-1,0))
    s.transpose(0,2)  x.transpose(-1,0)  s.swapaxes(0,1)  s.swapdims(1,2)  s.movedim(0,2)  s.movedim((0,1),(2,0))
    s.moveaxis(2,0)  x.t()  v.t()  z.t()  x.T  s.mT  x.H  one.expand(2,3,4)  one.expand(-1,3,5)  v.expand(3,4)
    v.expand_as(x)  v.broadcast_to((3,4))  x.repeat(2,1)  x.repeat(2,1,3)  x.tile(2)  x.tile((2,1,1))
    x.repeat_interleave(2)  x.repeat_interleave(2,dim=1)  x.repeat_interleave(i[:3],dim=0)  x.flip(0)  x.flip((0,1))
    x.flip(0,1)  x.roll(1)  x.roll(1,0)  x.roll((1,-1),(0,1))  x.narrow(1,1,2)  x.narrow(1,-3,2)  x.select(1,2)
    x.select(0,-1)  x.diagonal()  x.diagonal(1)  x.diagonal(-1)  s.diagonal(0,1,2)  s.diagonal(-1,0,2)  s.diagonal(5)
    x.diag()  v.diag()  v.diag(1)  v.diag(-2)  q.tril()  q.triu(1)  q.tril(-1)  x.split(2,dim=1)  x.split(3,1)
    x.split([1,3],dim=1)  x.split(2)  x.chunk(2)  x.chunk(2,dim=1)  x.chunk(3,1)  x.chunk(7)  x.tensor_split(3,dim=1)
    x.tensor_split((1,2),dim=1)  x.unbind()  x.unbind(1)  x.unbind(dim=-1)

    x.take(i)  x.index_select(0,i)  x.index_select(1,i)  x.gather(0,g)  x.gather(1,g)  x.take_along_dim(g,dim=0)
    x.take_along_dim(x.argsort(1),1)  x.take_along_dim(g[:1],dim=0)  x.scatter(0,g,y[:2])  x.scatter(0,g[:1],7.5)
    x.scatter(0,g[:1],value=1.0)  x.scatter_add(0,g,y[:2])  q.index_add(0,i,q)  q.index_add(0,i,q,alpha=2)
    x.index_fill(1,i,3.0)  x.index_copy(0,i[:3],y)  x.masked_select(b)  x.masked_select(b[0])  n.nonzero()
    n.nonzero(as_tuple=True)  n.argwhere()

    x.to(lib.float64)  x.to(y.dtype)  x.to(n)  x.double()  x.half()  x.float()  n.float()  x.long()  x.int()
    x.short()  x.char()  y.byte()  x.bool()  x.bfloat16().float()  x.type(lib.int64)  x.type_as(n)  x.clone()
    x.detach()  x.contiguous()  x.item  x.size()  x.size(1)  x.size(-1)  x.dim()  x.numel()  x.nelement()
    x.element_size()  x.stride()  x.T.is_contiguous()  x.is_floating_point()  n.is_floating_point()  x.is_complex()
    x.tolist()  z.item()  n[0,0].item()  b[0,0].item()  len(x)  x.ndim  x.itemsize  x.nbytes  tuple(x.shape)  list(x)
    x.equal(x)  x.equal(y)  x.equal(v)  x.allclose(x+1e-9)  x.isclose(y)  n.isclose(n+1)  n[0,0]in(n)  (99)in(n)
    bool(z)  int(z)  float(z)  complex(z)  z.__format__(".2f")  x.new_zeros(2,3)  x.new_ones((2,))
    x.new_full((2,2),3.5)  n.new_tensor([1,2])  x.new_zeros(2,dtype=lib.int64)  x.new_tensor([1,2])
    n.new_full((2,),7)  x.requires_grad  x.is_leaf
"""
NO_SLOPE = {  # torch has no gradient there, or zeros
    "x.floor_divide(y)", "x//y", "2//y", "(x/0).nan_to_num()", "x.item", "x.requires_grad", "2%y", "x.norm(0)",
    'x.div(y,rounding_mode="floor")', 'x.div(y,rounding_mode="trunc")', "i.bincount(v)",
}  # fmt: skip


def run(lib: Any, row: str, tracked: bool) -> tuple[Any, dict[str, Any]]:
    make = torch.tensor if lib is torch else hal.tensor
    names = {name: make(array) for name, array in inputs().items()}
    for x in names.values():
        if tracked and x.dtype in (torch.float32, hal.float32):
            x.requires_grad_()
    return eval(row, {"lib": lib}, names), names


def check(got: Any, want: Any) -> None:
    if isinstance(want, torch.Tensor):
        assert isinstance(got, hal.Tensor)
        assert f"torch.{got.dtype.name}" == str(want.dtype)
        want = want.detach().float() if want.dtype is torch.bfloat16 else want.detach()
        np.testing.assert_allclose(got.detach().numpy(), want.numpy(), rtol=3e-5, atol=3e-6, strict=False)
        assert got.shape == tuple(want.shape)
    elif isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            check(g, w)
    elif callable(want):
        assert callable(got)
    else:
        assert got == pytest.approx(want) if isinstance(want, float) else got == want


@pytest.mark.parametrize("row", ROWS.split())
def test_a_method_gives_what_torch_gives(row: str) -> None:
    with np.errstate(all="ignore"):
        check(run(hal, row, False)[0], run(torch, row, False)[0])


def loss_of(results: Any) -> Any:
    """A number that depends on every differentiable result, with a different slope for each element."""
    total: Any = 0.0
    for i, r in enumerate(results if isinstance(results, (tuple, list)) else [results]):
        if isinstance(r, (hal.Tensor, torch.Tensor)) and r.requires_grad:
            make = hal.tensor if isinstance(r, hal.Tensor) else torch.tensor
            weights = make(np.cos(np.arange(r.numel(), dtype=np.float32) + i).reshape(tuple(r.shape)))
            total = total + (r * weights).sum()
    return total


@pytest.mark.parametrize("row", [row for row in ROWS.split() if row not in NO_SLOPE])
def test_a_method_has_the_gradient_that_it_has_in_torch(row: str) -> None:
    if row.startswith(("bool(", "int(", "float(", "complex(", "x.tolist", "z.item", "z.__format__")):
        return
    (got, ours), (want, theirs) = (run(lib, row, True) for lib in (hal, torch))
    got, want = loss_of(got), loss_of(want)
    assert isinstance(got, float) == isinstance(want, float), "only one of the two records a gradient"
    if isinstance(want, float):
        return
    got.backward()
    want.backward()
    for name, x in theirs.items():
        if x.grad is not None:
            assert ours[name].grad is not None, name
            np.testing.assert_allclose(ours[name].grad.numpy(), x.grad.numpy(), rtol=2e-4, atol=2e-5, err_msg=name)
        elif ours[name].grad is not None:
            assert not ours[name].grad.any(), f"{name} has no gradient in torch"


def test_every_elementwise_op_that_torch_has_as_a_method_is_one() -> None:
    names = [name for name, op in hal.ops.TABLE.items() if op.kind == "elementwise" and hasattr(torch.Tensor, name)]
    assert len(names) > 60
    assert not [name for name in names if not hasattr(hal.Tensor, name)]
