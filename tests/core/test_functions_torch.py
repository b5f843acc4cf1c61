"""Functions in torch's calling conventions against torch: each call of the table runs on both."""

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
        "one": rng.normal(size=(1, 3, 1)).astype(np.float32),
        "b": rng.random((3, 4)) < 0.5,
        "n": rng.integers(-5, 6, (3, 4)),
        "i": np.array([2, 0, 1, 1]),
        "g": np.array([[0, 1, 2, 0], [2, 2, 0, 1]]),
        "e": np.sort(rng.normal(size=(3, 6)).astype(np.float32), 1),
    }


ROWS = """
    lib.cat([x,y])  lib.cat((x,y),dim=1)  lib.cat((x,y),1)  lib.concat([x,n])  lib.concatenate([x,y],dim=-1)
    lib.stack([x,y])  lib.stack((x,y),dim=1)  lib.stack([x,y],-1)  lib.vstack([x,y])  lib.hstack([v,w])
    lib.dstack([x,y])  lib.split(x,2,dim=1)  lib.split(x,[1,2])  lib.chunk(x,2,dim=1)  lib.tensor_split(x,3,1)
    lib.unbind(x,1)  lib.reshape(x,(2,6))  lib.flatten(s,1)  lib.squeeze(one,0)  lib.squeeze(one,1)  lib.squeeze(one)
    lib.unsqueeze(x,1)  lib.permute(s,(2,0,1))  lib.transpose(x,0,1)  lib.t(x)  lib.movedim(s,0,1)
    lib.swapaxes(s,0,2)  lib.flip(x,(0,))  lib.flip(x,[0,1])  lib.roll(x,1)  lib.roll(x,1,0)
    lib.roll(x,shifts=(1,2),dims=(0,1))  lib.tile(x,(2,))  lib.repeat_interleave(x,2)
    lib.repeat_interleave(x,2,dim=0)  lib.narrow(x,0,1,2)  lib.select(x,1,0)  lib.diagonal(s,0,1,2)  lib.diag(v)
    lib.diag(x,1)  lib.tril(q)  lib.triu(q,1)  lib.broadcast_to(v,(3,4))  lib.broadcast_tensors(v,w[:,None])
    lib.broadcast_shapes((2,1),(3,))  lib.unflatten(v,0,(2,2))  lib.meshgrid(v,w,indexing="ij")
    lib.meshgrid(v,w,indexing="xy")  lib.flip(x,dims=(0,1))  lib.flip(x,dims=[1])
    lib.repeat_interleave(x,2,dim=0,output_size=6)

    lib.sum(x)  lib.sum(x,1)  lib.sum(x,dim=0,keepdim=True)  lib.mean(x,1)  lib.mean(x,(0,1))  lib.prod(x,0)
    lib.var(x,1)  lib.var(x,dim=0)  lib.std(x,1,unbiased=False)  lib.std(x,dim=1,correction=0)  lib.var_mean(x,1)
    lib.var_mean(x,False)  lib.var_mean(x,1,unbiased=False)  lib.var_mean(x,1,correction=0,keepdim=True)  lib.diff(x,0)
    lib.max(x)  lib.max(x,1)  lib.max(x,dim=0,keepdim=True)  lib.min(x,1)  lib.max(x,y)  lib.amax(x,1)
    lib.amin(x,(0,1))  lib.argmax(x,1)  lib.argmin(x,dim=0)  lib.any(b,1)  lib.all(b,dim=0)  lib.count_nonzero(b,1)
    lib.logsumexp(x,1)  lib.norm(x)  lib.norm(x,p=1,dim=1)  lib.cumsum(x,1)  lib.cumprod(x,dim=0)  lib.diff(x)
    lib.sort(x,dim=1)  lib.sort(x,0,descending=True)  lib.argsort(x,dim=0)  lib.topk(x,2)
    lib.topk(x,2,dim=0,largest=False)  lib.median(x,1)  lib.unique(n)  lib.median(x)
    lib.unique(n,return_inverse=True)  lib.unique(i,return_counts=True)  lib.unique(g,dim=0)  lib.bincount(i)
    lib.aminmax(x)  lib.searchsorted(e[0],x)  lib.searchsorted(e,x)  lib.searchsorted(e[0],x,right=True)
    lib.searchsorted(e[:,:0],x)  lib.searchsorted(e,x,out_int32=True)
    lib.searchsorted(e[0],0.5)  lib.searchsorted(e,x,side="right")  lib.softmax(x,1)  lib.softmax(x,dim=0)
    lib.log_softmax(x,-1)  lib.sigmoid(x)  lib.relu(x)

    lib.mm(x,m)  lib.bmm(s,s.mT)  lib.mv(q,v)  lib.dot(v,v)  lib.matmul(s,m)  lib.outer(v,w)  lib.addmm(q,q,q)
    lib.addmm(q,q,q,beta=0,alpha=2)  lib.baddbmm(s@s.mT,s,s.mT)  lib.addmv(v,q,v)  lib.inner(x,y)
    lib.einsum("...ik,...j->ij",s,v)  lib.einsum("ij,jk",x,m)  lib.einsum("bij,bkj->bik",s,s)  lib.tensordot(x,m,dims=1)
    lib.tensordot(s,x,dims=([1,2],[0,1]))  lib.trace(q)  lib.cross(s[:,:,:3],s[:,:,1:],dim=-1)

    lib.where(b,x,y)  lib.where(b,x,0.0)  lib.where(b,1.0,0.0)  lib.where(b)  lib.gather(x,0,g)
    lib.take_along_dim(x,g,dim=0)  lib.index_select(x,1,i)  lib.masked_fill(x,b,0.0)  lib.masked_select(x,b)
    lib.scatter(x,0,g,y[:2])  lib.take(x,i)  lib.scatter_add(x,0,g,y[:2])  lib.index_add(q,0,i,q)
    lib.index_fill(x,1,i,3.0)  lib.index_copy(x,0,i[:3],y)  lib.argwhere(n)  lib.clamp(x,-1,1)  lib.clamp(x,min=0)
    lib.clip(x,max=y)  lib.lerp(x,y,0.5)  lib.addcmul(x,y,y,value=2)  lib.addcdiv(x,x,y)  lib.round(x,decimals=1)
    lib.frac(x)  lib.logit(y/3)  lib.nan_to_num(x/0)  lib.add(x,y,alpha=2)  lib.sub(x,y,alpha=2)
    lib.div(x*1e3,y,rounding_mode="trunc")  lib.div(n,3,rounding_mode="trunc")  lib.div(n,-2,rounding_mode="trunc")
    lib.div(x,y,rounding_mode="trunc")  lib.div(x,y,rounding_mode="floor")  lib.eq(x,y)  lib.ge(x,y)
    lib.subtract(x,y)  lib.true_divide(n,2)  lib.absolute(x)  lib.arcsin(x/3)  lib.bitwise_not(n)
    lib.isclose(x,x+1e-7)  lib.allclose(x,y)

    lib.zeros(2,3)  lib.zeros((2,3))  lib.ones([2],dtype=lib.int32)  lib.full((2,),1.5)  lib.full((2,),3)
    lib.arange(5)  lib.arange(1,2,0.25)  lib.arange(0,end=3)  lib.linspace(0,1,steps=4)  lib.eye(2,3)
    lib.zeros_like(n)  lib.full_like(x,2)  lib.empty(0,3)  lib.tensor([1,2])  lib.tensor(1.5)  lib.tensor([[True]])
    lib.tensor([1.0],dtype=lib.float64)  lib.tensor([])  lib.tensor([x[0,0],x[0,1]])  lib.as_tensor([1,2])
    lib.numel(x)  lib.is_tensor(x)  lib.is_tensor(3)  lib.is_floating_point(x)  lib.is_complex(x)
    lib.finfo(lib.float32).tiny  lib.finfo(lib.bfloat16).eps  lib.iinfo(lib.int32).max
    lib.zeros(3,requires_grad=True).requires_grad  lib.tensor(2+1j)  lib.tril_indices(3,3)  lib.triu_indices(2,4,1)
    lib.clone(x)  lib.zeros(2,dtype=lib.long)  lib.tensor([1,2],dtype=lib.float)  lib.ones(2,dtype=lib.half)
    lib.ones(2,dtype=lib.double)  lib.ones(2,dtype=lib.int)  lib.ones(2,dtype=lib.short)  lib.ones(2,dtype=lib.bool)
"""


def run(lib: Any, row: str) -> Any:
    make = torch.tensor if lib is torch else hal.tensor
    return eval(row, {"lib": lib}, {name: make(array) for name, array in inputs().items()})


def check(got: Any, want: Any) -> None:
    if isinstance(want, torch.Tensor):
        assert isinstance(got, hal.Tensor)
        assert f"torch.{got.dtype.name}" == str(want.dtype)
        assert got.shape == tuple(want.shape)
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=3e-5, atol=3e-6)
    elif isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            check(g, w)
    else:
        assert got == want


@pytest.mark.parametrize("row", ROWS.split())
def test_a_function_gives_what_torch_gives(row: str) -> None:
    check(run(hal, row), run(torch, row))


# DLPack and NumPy carry contents both ways without a copy.


def test_torch_reads_the_memory_of_a_tensor() -> None:
    x = hal.arange(4).float()
    there = torch.from_dlpack(x)
    there[0] = 7.0
    assert x.tolist() == [7.0, 1.0, 2.0, 3.0]


def test_a_tensor_on_the_memory_of_torch() -> None:
    theirs = torch.arange(4.0)
    x = hal.from_dlpack(theirs)
    x += 1
    assert theirs.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert hal.asarray(theirs).tolist() == theirs.tolist()
    assert hal.from_dlpack(theirs, device="fake").device == hal.device("fake")
