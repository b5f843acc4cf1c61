"""Measures OpenCL against what runs on the same cores: products, convolutions, attention, chains, composites,
training steps.

    python tests/bench/opencl.py [WORKLOAD ...] [--threads 1] [--rounds 15]

Contenders of a row are timed in turn within one run, and what is told is the median of the ratios of each round: more
than 1 means that OpenCL is quicker. Of each ratio there are two: of the time on the wall, and (in brackets) of the
processor time of all threads, which tells little of waiting but is not disturbed by what else the machine does.
Nothing here passes or fails. The device is the first of HAL_OPENCL_DEVICES; PoCL gets as many threads as the others.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

Contenders = dict[str, Callable[[], Any]]
WORKLOADS = ("products", "convolutions", "attention", "chains", "composites", "steps")


def arguments() -> argparse.Namespace:
    """What the command line asks for; threads are set before anything that starts some is imported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"some of {', '.join(WORKLOADS)} (default: all)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    unknown = set(given.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"there is no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POCL_MAX_PTHREAD_COUNT", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(given.threads)
    return given


def told(name: str, contenders: Contenders, rounds: int, work: float = 0, unit: str = "") -> None:
    """Time contenders in turn, the first of which is ours, and print a row."""
    for run in contenders.values():
        run()
        run()
    times: dict[str, list[tuple[float, float]]] = {key: [] for key in contenders}
    for _ in range(rounds):
        for key, run in contenders.items():
            start, used = time.perf_counter(), time.process_time()
            run()
            times[key].append((time.perf_counter() - start, max(time.process_time() - used, 1e-9)))
    mine = times["opencl"]

    def ratio(key: str, which: int) -> str:
        return f"{statistics.median(t[which] / own[which] for t, own in zip(times[key], mine, strict=True)):.2f}"

    ratios = [f"{key} {ratio(key, 0)} ({ratio(key, 1)})" for key in times if key != "opencl"]
    middle = statistics.median(t for t, _ in mine)
    rate = f", {work / middle / 1e9:.1f} {unit}" if work else ""
    print(f"{name:32} {middle * 1e3:9.3f} ms{rate:>16}   times quicker than {', '.join(ratios)}", flush=True)


def waiting(hal: Any) -> Callable[[], None]:
    """A function that waits until the device is done."""
    device = hal.device("opencl")
    return lambda: device.backend.synchronize(device)


def products(rounds: int) -> None:
    """Matrix products, NumPy's OpenBLAS beside them."""
    import numpy as np

    import hal

    wait = waiting(hal)
    rng = np.random.default_rng(0)
    for m, k, n, dtype in [
        (512, 512, 512, np.float32), (1024, 1024, 1024, np.float32), (2048, 2048, 2048, np.float32),
        (1024, 1024, 1024, np.float64), (128, 128, 128, np.float32), (64, 784, 256, np.float32),
        (1, 2048, 2048, np.float32),
    ]:  # fmt: skip
        for swapped in (False, True):
            a = rng.normal(size=(m, k)).astype(dtype)
            b = rng.normal(size=(n, k)).astype(dtype).T if swapped else rng.normal(size=(k, n)).astype(dtype)
            x, base = (
                hal.tensor(a, device="opencl"),
                hal.tensor(np.ascontiguousarray(b.T if swapped else b), device="opencl"),
            )
            y = base.mT if swapped else base
            out = np.empty((m, n), dtype)
            contenders: Contenders = {
                "opencl": lambda x=x, y=y: (x @ y, wait()),
                "numpy": lambda a=a, b=b, out=out: np.matmul(a, b, out=out),
            }
            name = f"{m} x {k} @ {k} x {n}{' .T' if swapped else ''} {np.dtype(dtype).name}"
            told(name, contenders, rounds if m * k * n > 1 << 24 else 10 * rounds, 2 * m * k * n, "Gflop/s")


def convolutions(rounds: int) -> None:
    """Convolutions and both gradients, beside NumPy's (hal_cpu's own kernels) and torch's."""
    import numpy as np

    import hal
    from hal import ops

    wait = waiting(hal)
    rng = np.random.default_rng(0)
    cases: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
        "LeNet 1": ((64, 1, 28, 28), (6, 1, 5, 5), {"padding": (2, 2)}),
        "LeNet 2": ((64, 6, 14, 14), (16, 6, 5, 5), {}),
        "CIFAR 3x3": ((32, 32, 32, 32), (32, 32, 3, 3), {"padding": (1, 1)}),
        "ResNet 56": ((4, 64, 56, 56), (64, 64, 3, 3), {"padding": (1, 1)}),
        "ResNet 56, stride 2": ((8, 64, 56, 56), (128, 64, 3, 3), {"padding": (1, 1), "stride": (2, 2)}),
        "ResNet 7": ((16, 256, 7, 7), (256, 256, 3, 3), {"padding": (1, 1)}),
        "1x1": ((8, 64, 28, 28), (128, 64, 1, 1), {}),
    }
    for name, (of_x, of_weight, settings) in cases.items():
        arrays = [rng.normal(size=s).astype(np.float32) for s in (of_x, of_weight)]
        made = ops.conv2d(*(hal.tensor(a, device="cpu") for a in arrays), **settings)
        arrays.append(rng.normal(size=made.shape).astype(np.float32))
        stride, padding = settings.get("stride", (1, 1)), settings.get("padding", (0, 0))
        axes = zip(of_x[2:], padding, of_weight[2:], stride, strict=True)
        back = {**settings, "output_padding": tuple((n + 2 * p - k) % s for n, p, k, s in axes)}
        by_weight = {**settings, "weight_shape": of_weight}
        calls: dict[str, Callable[..., Any]] = {
            "": lambda x, w, g, given=settings: ops.conv2d(x, w, **given),
            " by x": lambda x, w, g, given=back: ops.conv_transpose2d(g, w, **given),
            " by w": lambda x, w, g, given=by_weight: ops.conv2d_weight_gradient(x, g, **given),
        }
        for kind, call in calls.items():
            contenders: Contenders = {}
            for device in ("opencl", "cpu"):
                on = [hal.tensor(a, device=device) for a in arrays]
                contenders[device] = lambda on=on, call=call, wait=wait: (call(*on), wait())
            contenders |= dict(torch_convolution(arrays, kind, stride, padding))
            told(name + kind, contenders, rounds)
        contenders = {}
        for device in ("opencl", "cpu"):
            on = [hal.tensor(a, device=device) for a in arrays]
            three = hal.compile(lambda x, w, g, calls=calls: [call(x, w, g) for call in calls.values()])
            contenders[device] = lambda on=on, three=three, wait=wait: (three(*on), wait())
        told(f"{name}, all three compiled", contenders, rounds)


def torch_convolution(
    arrays: list[Any], kind: str, stride: Any, padding: Any
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The same convolution, or the same gradient, in torch, if it is here."""
    try:
        import torch
    except ImportError:
        return
    x, w, g = map(torch.tensor, arrays)
    if not kind:
        yield "torch", lambda: torch.nn.functional.conv2d(x, w, stride=stride, padding=padding)
        return
    rest = (stride, padding, (1, 1), False, (0, 0), 1, (kind == " by x", kind == " by w", False))
    yield "torch", lambda: torch.ops.aten.convolution_backward(g, x, w, None, *rest)


def attention(rounds: int) -> None:
    """Attention and its gradients, compiled, beside their decompositions, HAL's CPU backend and torch."""
    import numpy as np
    import torch

    import hal
    from hal import ops

    wait = waiting(hal)
    rng = np.random.default_rng(0)
    for batch, heads, n, features, causal in [
        (4, 4, 64, 32, True), (2, 4, 256, 64, True), (1, 4, 1024, 64, True), (1, 2, 2048, 64, False),
    ]:  # fmt: skip
        arrays = [rng.normal(size=(batch, heads, n, features)).astype(np.float32) for _ in range(4)]

        def both(forward: Any, gradient: Any, causal: bool = causal) -> Any:
            def run(q: Any, k: Any, v: Any, g: Any) -> Any:
                y = forward(q, k, v, causal=causal, scale=None)
                return y, gradient(g, y, q, k, v, causal=causal, scale=None)

            return hal.compile(run)

        on = {name: [hal.tensor(x, device=name) for x in arrays] for name in ("opencl", "cpu")}
        theirs = [torch.tensor(x, requires_grad=i < 3) for i, x in enumerate(arrays)]

        def torch_both(given: Any = theirs, causal: bool = causal) -> Any:
            q, k, v, g = given
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
            return torch.autograd.grad((y * g).sum(), [q, k, v])

        ours, cpu = (both(ops.attention, ops.attention_gradient) for _ in range(2))
        parts = both(ops.attention.decompose, ops.attention_gradient.decompose)
        contenders: Contenders = {
            "opencl": lambda f=ours, x=on["opencl"]: (f(*x), wait()),
            "decomposed": lambda f=parts, x=on["opencl"]: (f(*x), wait()),
            "hal_cpu": lambda f=cpu, x=on["cpu"]: f(*x),
            "torch": torch_both,
        }
        told(f"{batch}x{heads}x{n}x{features}{' causal' if causal else ''}", contenders, rounds)


def chains(rounds: int) -> None:
    """Chains of elementwise ops, compiled, beside NumPy's passes, numexpr and torch.compile."""
    import numpy as np

    import hal

    wait = waiting(hal)
    count = 1 << 24
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=count).astype(np.float32) for _ in range(3)]
    small = np.float32(0.01)
    written: dict[str, tuple[Callable[[Any], Callable[..., Any]], str]] = {
        "multiply and add": (lambda m: lambda x, y, z: x * y + z - x * z, "x*y+z-x*z"),
        "leaky ReLU": (
            lambda m: lambda x, y, z: m.where(x * y + z > 0, x * y + z, (x * y + z) * (small if m is np else 0.01)),
            "where(x*y+z>0,x*y+z,(x*y+z)*0.01)",
        ),
        "Gaussian": (lambda m: lambda x, y, z: m.exp(-(x - y) * (x - y)) * z, "exp(-(x-y)*(x-y))*z"),
        "tanh": (lambda m: lambda x, y, z: x * (m.tanh(y + x * z) + z), "x*(tanh(y+x*z)+z)"),
    }
    for name, (make, text) in written.items():
        on = [hal.tensor(a, device="opencl") for a in arrays]
        ours = hal.compile(make(hal))
        theirs = make(np)
        contenders: Contenders = {
            "opencl": lambda ours=ours, on=on: (ours(*on), wait()),
            "numpy": lambda theirs=theirs: theirs(*arrays),
        }
        try:
            import numexpr

            named = dict(zip("xyz", arrays, strict=True))
            contenders["numexpr"] = lambda text=text, named=named: numexpr.evaluate(text, named)
        except ImportError:
            pass
        try:
            import torch

            compiled, tensors = torch.compile(make(torch)), [torch.tensor(a) for a in arrays]
            compiled(*tensors)
            contenders["torch.compile"] = lambda compiled=compiled, tensors=tensors: compiled(*tensors)
        except Exception as error:  # torch is not here, or has no compiler of its own
            print(f"without torch.compile: {type(error).__name__}", file=sys.stderr)
        told(name, contenders, rounds, 16 * count, "GB/s")


def composites(rounds: int) -> None:
    """Ops that have a kernel and could be decomposed, beside their decompositions: single calls, and compiled."""
    import numpy as np

    import hal
    from hal import ops

    wait = waiting(hal)
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return hal.tensor(rng.uniform(0.5, 1.5, shape).astype(np.float32), device="opencl")

    def cases() -> Iterator[tuple[Any, list[Any], dict[str, Any]]]:
        eps = {"eps": 1e-5}
        for n, c, size in ((64, 16, 28), (32, 64, 32), (16, 256, 7)):
            x, g, (mean, var, w, b) = drawn(n, c, size, size), drawn(n, c, size, size), (drawn(c) for _ in range(4))
            yield ops.batch_norm, [x, mean, var, w, b], eps
            yield ops.batch_norm_train, [x, w, b], eps
            yield ops.batch_norm_train_gradient, [g, x, mean, var, w], eps
            yield ops.group_norm, [x, w, b], {"groups": 8, **eps}
            yield ops.group_norm_gradient, [g, x, w], {"groups": 8, **eps}
            yield ops.adaptive_avg_pool2d, [x], {"output": (5, 5)}
            yield ops.adaptive_max_pool2d_gradient, [drawn(n, c, 5, 5), x], {}
        for rows, length in ((512, 128), (4096, 256), (2048, 768)):
            x, g, w = drawn(rows, length), drawn(rows, length), drawn(length)
            target = hal.tensor(rng.integers(0, length, rows), device="opencl")
            yield ops.layer_norm_gradient, [g, x, w], {"dims": 1, **eps}
            yield ops.rms_norm_gradient, [g, x, w], {"dims": 1, **eps}
            yield ops.var, [x], {"axis": 1}
            yield ops.mse_loss, [x, g], {}
            yield ops.nll_loss, [x, target], {}
            yield ops.cross_entropy, [x, target], {"label_smoothing": 0.1}
        h, gates = drawn(32, 128), drawn(32, 512)
        yield ops.lstm_gates, [gates, h], {}
        yield ops.lstm_gates_gradient, [h, h, gates, h, h], {}

    for op, inputs, settings in cases():
        full = op.bind(len(inputs), settings)
        kernel, parts = partial(op, **full), partial(op.decompose, **full)
        for kind, ways in (("", (kernel, parts)), (", compiled", (hal.compile(kernel), hal.compile(parts)))):
            contenders: Contenders = {
                name: lambda way=way, inputs=inputs: (way(*inputs), wait())
                for name, way in zip(("opencl", "decomposed"), ways, strict=True)
            }
            told(f"{op.name} {'x'.join(map(str, inputs[0].shape))}{kind}", contenders, 3 * rounds)


def steps(rounds: int) -> None:
    """Training steps with Adam, compiled, beside torch's eager ones."""
    import numpy as np
    import torch

    import hal
    import nn

    def mlp(n: Any) -> Any:
        return n.Sequential(n.Flatten(), n.Linear(784, 256), n.ReLU(), n.Linear(256, 128), n.ReLU(), n.Linear(128, 10))

    def lenet(n: Any) -> Any:
        return n.Sequential(
            n.Conv2d(1, 6, 5, padding=2), n.ReLU(), n.MaxPool2d(2), n.Conv2d(6, 16, 5), n.ReLU(), n.MaxPool2d(2),
            n.Flatten(), n.Linear(400, 120), n.ReLU(), n.Linear(120, 84), n.ReLU(), n.Linear(84, 10),
        )  # fmt: skip

    wait = waiting(hal)
    rng = np.random.default_rng(0)
    for name, build in {"MLP": mlp, "LeNet": lenet}.items():
        for batch in (64, 512):
            images = rng.normal(size=(batch, 1, 28, 28)).astype(np.float32)
            labels = rng.integers(0, 10, batch)
            with hal.device("opencl"):
                model = build(nn)
            optimizer = nn.optim.Adam(model.parameters(), lr=1e-3)
            x, y = hal.tensor(images, device="opencl"), hal.tensor(labels, device="opencl")

            def step(x: Any, y: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                return loss

            theirs = build(torch.nn)
            other = torch.optim.Adam(theirs.parameters(), lr=1e-3)
            tx, ty = torch.tensor(images), torch.tensor(labels)

            def torch_step(model: Any = theirs, optimizer: Any = other, tx: Any = tx, ty: Any = ty) -> None:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(tx), ty).backward()
                optimizer.step()

            compiled = hal.compile(step)
            contenders: Contenders = {"opencl": lambda c=compiled, x=x, y=y: (c(x, y), wait()), "torch": torch_step}
            told(f"{name} step, batch {batch}", contenders, 3 * rounds)


def main() -> None:
    """Run what the command line names."""
    given = arguments()
    import torch

    torch.set_num_threads(given.threads)
    for name in given.workloads or WORKLOADS:
        print(f"{name}, {given.threads} thread{'s' if given.threads > 1 else ''}")
        globals()[name](given.rounds)


if __name__ == "__main__":
    main()
