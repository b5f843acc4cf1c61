"""The contenders of `verify_measure.py`: what each library calls the same work, and how it is waited for.

A peer's methods take NumPy arrays, put them on the device, and give a call that does the work once there, on arrays
that stay there; None is for what a library does not have. Float32 is never rounded to TF32 unless a row says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

Call = Callable[[], Any]


class Peer:
    """A library on one device."""

    name: str

    def put(self, array: Any) -> Any:
        """An array on the device."""
        raise NotImplementedError(f"{type(self).__name__} has no put: write how an array gets onto the device")

    def wait(self) -> None:
        """Wait until the device is done."""

    def array(self, result: Any) -> Any:
        """A result as an array of NumPy; of several, the first."""
        return np.asarray(result)

    def cast(self, x: Any, kind: str) -> Any:
        """An array in another dtype."""
        raise NotImplementedError(f"{type(self).__name__} has no cast: write how an array is converted")

    def allow_tf32(self, allowed: bool) -> None:
        """Whether float32 may be rounded to TF32 where products are made, from now on."""

    def copy(self, x: Any) -> Call | None:
        """Copies of an array."""
        return None

    def ready(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function as this contender calls it."""
        return function

    def matmul(self, a: Any, b: Any, kind: str) -> Call | None:
        """Products of matrices: `kind` is a dtype, or tf32."""
        return None

    def _product(self, a: Any, b: Any, kind: str) -> Call:
        dtype = "float32" if kind == "tf32" else kind
        left, right = self.cast(self.put(a), dtype), self.cast(self.put(b), dtype)
        self.allow_tf32(kind == "tf32")
        run = self.ready(lambda x, y: x @ y)
        return lambda: run(left, right)

    def chain(self, function: Callable[[Any, Any], Any], x: Any) -> Call | None:
        """A function of an array and this library's names."""
        return None

    def convolution(self, x: Any, w: Any, padding: int, backward: bool) -> Call | None:
        """A convolution; with `backward`, both gradients too."""
        return None

    def attention(self, q: Any, k: Any, v: Any, backward: bool) -> Call | None:
        """Causal attention; with `backward`, the three gradients too."""
        return None


class Autograd(Peer):
    """A library with torch's names, one op after another."""

    library: Any
    functional: Any
    device: Any

    def _named(self) -> None:
        library, functional = self.library, self.functional

        def sum_of(x: Any, axis: int | None) -> Any:
            return x.sum() if axis is None else x.sum(axis)

        self.names = SimpleNamespace(
            tanh=library.tanh, sigmoid=library.sigmoid, relu=library.relu, sum=sum_of,
            softmax=lambda x: library.softmax(x, -1), layer_norm=lambda x: functional.layer_norm(x, x.shape[-1:]),
        )  # fmt: skip

    def put(self, array: Any) -> Any:
        return self.library.tensor(array, device=self.device)

    def array(self, result: Any) -> Any:
        first = result[0] if isinstance(result, tuple) else result
        return first.detach().float().cpu().numpy()

    def cast(self, x: Any, kind: str) -> Any:
        return x.to(getattr(self.library, kind))

    def copy(self, x: Any) -> Call | None:
        given = self.put(x)
        return lambda: given.clone()

    def matmul(self, a: Any, b: Any, kind: str) -> Call | None:
        return self._product(a, b, kind)

    def chain(self, function: Callable[[Any, Any], Any], x: Any) -> Call | None:
        given, run = self.put(x), self.ready(lambda x: function(x, self.names))
        return lambda: run(given)

    def convolution(self, x: Any, w: Any, padding: int, backward: bool) -> Call | None:
        return self._differentiated(lambda x, w: self.functional.conv2d(x, w, padding=padding), (x, w), backward)

    def attention(self, q: Any, k: Any, v: Any, backward: bool) -> Call | None:
        attend = self.functional.scaled_dot_product_attention
        return self._differentiated(lambda q, k, v: attend(q, k, v, is_causal=True), (q, k, v), backward)

    def _differentiated(self, function: Callable[..., Any], arrays: tuple[Any, ...], backward: bool) -> Call:
        self.allow_tf32(False)
        given = [self.put(a).requires_grad_(backward) for a in arrays]
        if not backward:
            run = self.ready(function)
            return lambda: run(*given)
        with self.library.no_grad():
            slope = self.library.ones_like(function(*given))
        both = self.gradients(function, slope)
        return lambda: both(*given)

    def gradients(self, function: Callable[..., Any], slope: Any) -> Callable[..., Any]:
        """What computes a function and its gradients, as this contender calls it."""
        raise NotImplementedError(f"{type(self).__name__} has no gradients: write how they are asked for")


class Hal(Autograd):
    """HAL, one op after another."""

    name = "hal"

    def __init__(self, device: str) -> None:
        import hal
        from nn import functional

        self.library, self.functional, self.device = hal, functional, hal.device(device)
        self._named()

    def wait(self) -> None:
        self.device.backend.synchronize(self.device)

    def allow_tf32(self, allowed: bool) -> None:
        os.environ["HAL_CUDA_TF32"] = str(int(allowed))  # read when a product is enqueued, or planned

    def gradients(self, function: Callable[..., Any], slope: Any) -> Callable[..., Any]:
        return self.ready(lambda *given: self.library.grad(function(*given), given, slope))


class HalCompiled(Hal):
    """HAL, as a plan."""

    name = "hal.compile"

    def ready(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.library.compile(function)

    def copy(self, x: Any) -> Call | None:
        return None


class Torch(Autograd):
    """torch, one op after another."""

    name = "torch"

    def __init__(self, device: str) -> None:
        import torch

        self.library, self.functional = torch, torch.nn.functional
        self.cuda = device.partition(":")[0] == "cuda"
        self.device = device if self.cuda else "cpu"
        if self.cuda and not torch.cuda.is_available():
            raise ImportError("torch sees no GPU")
        self.allow_tf32(False)
        self._named()

    def allow_tf32(self, allowed: bool) -> None:
        if self.cuda:
            self.library.backends.cuda.matmul.allow_tf32 = allowed
            self.library.backends.cudnn.allow_tf32 = allowed

    def wait(self) -> None:
        if self.cuda:
            self.library.cuda.synchronize()

    def gradients(self, function: Callable[..., Any], slope: Any) -> Callable[..., Any]:
        run = self.ready(function)
        return lambda *given: self.library.autograd.grad(run(*given), given, slope)


class TorchCompiled(Torch):
    """torch.compile with its defaults."""

    name = "torch.compile"

    def ready(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.library.compile(function)

    def copy(self, x: Any) -> Call | None:
        return None


class Cupy(Peer):
    """CuPy: NumPy's names on a GPU; chains through `cupy.fuse`."""

    name = "cupy"

    def __init__(self, device: str) -> None:
        if device.partition(":")[0] != "cuda":
            raise ImportError("CuPy is for GPUs")
        import cupy

        cupy.cuda.Device(int(device.partition(":")[2] or 0)).use()
        self.cupy = cupy
        self.names = SimpleNamespace(
            tanh=cupy.tanh, sigmoid=lambda x: 1 / (1 + cupy.exp(-x)), relu=lambda x: cupy.maximum(x, 0), sum=cupy.sum,
            softmax=None, layer_norm=None,
        )  # fmt: skip

    def put(self, array: Any) -> Any:
        return self.cupy.asarray(array)

    def wait(self) -> None:
        self.cupy.cuda.runtime.deviceSynchronize()

    def array(self, result: Any) -> Any:
        return self.cupy.asnumpy(result.astype(np.float32))

    def copy(self, x: Any) -> Call | None:
        given = self.put(x)
        return lambda: given.copy()

    def matmul(self, a: Any, b: Any, kind: str) -> Call | None:
        if kind not in ("float32", "float16"):
            return None
        left, right = self.put(a).astype(kind), self.put(b).astype(kind)
        return lambda: left @ right

    def chain(self, function: Callable[[Any, Any], Any], x: Any) -> Call | None:
        given = self.put(x)
        code = function.__code__.co_names
        if "softmax" in code or "layer_norm" in code:
            return None
        if "sum" in code:
            return lambda: function(given, self.names)
        fused = self.cupy.fuse()(lambda x: function(x, self.names))
        return lambda: fused(given)


class Jax(Peer):
    """JAX, everything through jax.jit."""

    name = "jax.jit"

    def __init__(self, device: str) -> None:
        import jax

        self.jax = jax
        jax.config.update("jax_default_matmul_precision", "highest")
        kind, _, index = device.partition(":")
        self.device = jax.devices("gpu" if kind == "cuda" else "cpu")[int(index or 0) if kind == "cuda" else 0]
        np_ = jax.numpy

        def layer_norm(x: Any) -> Any:
            return (x - x.mean(-1, keepdims=True)) / np_.sqrt(x.var(-1, keepdims=True) + 1e-5)

        self.names = SimpleNamespace(
            tanh=np_.tanh, sigmoid=jax.nn.sigmoid, relu=jax.nn.relu, sum=np_.sum,
            softmax=lambda x: jax.nn.softmax(x, -1), layer_norm=layer_norm,
        )  # fmt: skip
        self.last: Any = None

    def put(self, array: Any) -> Any:
        return self.jax.device_put(array, self.device)

    def wait(self) -> None:
        if self.last is not None:
            self.jax.block_until_ready(self.last)

    def array(self, result: Any) -> Any:
        first = result[0] if isinstance(result, tuple) else result
        return np.asarray(first, np.float32)

    def call(self, function: Callable[..., Any], *given: Any) -> Call:
        """A call of a jitted function, whose last result is what there is to wait for."""
        run = self.jax.jit(function)

        def call() -> Any:
            self.last = run(*given)
            return self.last

        return call

    def copy(self, x: Any) -> Call | None:
        return self.call(lambda x: self.jax.numpy.copy(x), self.put(x))

    def matmul(self, a: Any, b: Any, kind: str) -> Call | None:
        dtype = "float32" if kind == "tf32" else kind
        precision = {"tf32": "tensorfloat32", "float32": "highest"}.get(kind, "default")
        left, right = self.put(a).astype(dtype), self.put(b).astype(dtype)
        return self.call(lambda x, y: self.jax.numpy.matmul(x, y, precision=precision), left, right)

    def chain(self, function: Callable[[Any, Any], Any], x: Any) -> Call | None:
        return self.call(lambda x: function(x, self.names), self.put(x))

    def convolution(self, x: Any, w: Any, padding: int, backward: bool) -> Call | None:
        def forward(x: Any, w: Any) -> Any:
            return self.jax.lax.conv(
                x, w, (1, 1), "SAME" if 2 * padding + 1 == w.shape[-1] else [(padding, padding)] * 2
            )

        return self._differentiated(forward, (x, w), backward)

    def attention(self, q: Any, k: Any, v: Any, backward: bool) -> Call | None:
        def forward(q: Any, k: Any, v: Any) -> Any:
            turned = (x.swapaxes(-2, -3) for x in (q, k, v))  # (batch, n, heads, d)
            return self.jax.nn.dot_product_attention(*turned, is_causal=True).swapaxes(-2, -3)

        return self._differentiated(forward, (q, k, v), backward)

    def _differentiated(self, function: Callable[..., Any], arrays: tuple[Any, ...], backward: bool) -> Call:
        given = [self.put(a) for a in arrays]
        if not backward:
            return self.call(function, *given)

        def both(*given: Any) -> Any:
            out, back = self.jax.vjp(function, *given)
            return back(self.jax.numpy.ones_like(out))

        return self.call(both, *given)


def _made(kind: type[Peer]) -> Callable[[str], Peer | None]:
    def make(device: str) -> Peer | None:
        try:
            return kind(device)
        except Exception as error:
            if kind is Hal:
                raise
            print(f":: without {kind.name}: {type(error).__name__}: {str(error)[:120]}", flush=True)
            return None

    return make


PEERS = [_made(kind) for kind in (Hal, HalCompiled, Torch, TorchCompiled, Cupy, Jax)]
