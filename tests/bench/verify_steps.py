"""Training steps of four networks, written once for hal and torch, whose names they share; the MLP for JAX, too.

All begin with the same weights and see the same batch, so that the losses of the first steps can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from verify_peers import Peer

Call = Callable[[], Any]
Network = Callable[[Any], Any]
FIRST = 4  # steps after which losses are compared
RATE = 1e-3


def mlp(nn: Any) -> Any:
    """784-256-128-64-10."""
    widths = (784, 256, 128, 64, 10)
    layers: list[Any] = []
    for i in range(4):
        layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def lenet(nn: Any) -> Any:
    """LeNet-5 with ReLU and maximum pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def cifar(nn: Any) -> Any:
    """The network of TensorFlow's CIFAR-10 tutorial, on 24 x 24 images."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.LocalResponseNorm(9, 9e-3 / 9, 0.75, 1.0),
        nn.Conv2d(64, 64, 5, padding=2), nn.ReLU(), nn.LocalResponseNorm(9, 9e-3 / 9, 0.75, 1.0), nn.MaxPool2d(3, 2, 1),
        nn.Flatten(), nn.Linear(64 * 36, 384), nn.ReLU(), nn.Linear(384, 192), nn.ReLU(), nn.Linear(192, 10),
    )  # fmt: skip


def gpt(nn: Any, words: int = 64, length: int = 128, width: int = 256, heads: int = 4, depth: int = 4) -> Any:
    """A small GPT: blocks with causal attention and a feed-forward network, each after a layer normalisation."""
    functional = nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            n, t, _ = x.shape
            parts = self.qkv(self.first(x)).reshape(n, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(n, t, width))
            return x + self.down(functional.gelu(self.up(self.second(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

        def forward(self, x: Any) -> Any:
            return self.head(self.norm(self.blocks(self.tokens(x) + self.places.weight[: x.shape[1]]))).flatten(0, 1)

    return GPT()


def small_gpt(nn: Any) -> Any:
    """The same network, smaller."""
    return gpt(nn, 64, 32, 64, 2, 2)


def weights_of(build: Network) -> dict[str, Any]:
    """The weights that everyone begins with: drawn by hal on the CPU."""
    import hal
    import nn

    with hal.device("cpu"):
        hal.manual_seed(0)
        return {name: value.numpy().copy() for name, value in build(nn).state_dict().items()}


def in_hal(peer: Any, build: Network, weights: Any, x: Any, y: Any) -> Call:
    """A step of hal, compiled or not: a call gives the loss."""
    import nn

    hal = peer.library
    with peer.device:
        model = build(nn)
        model.load_state_dict(weights)
        optimizer = nn.optim.Adam(model.parameters(), lr=RATE)
        given = hal.tensor(x, device=peer.device), hal.tensor(y, device=peer.device)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = peer.ready(step)
    return lambda: run(*given)


def in_torch(peer: Any, build: Network, weights: Any, x: Any, y: Any) -> Call:
    """A step of torch; compiled, it is the network and its loss, on a GPU with CUDA graphs; Adam is the fused one."""
    torch = peer.library
    model = build(torch.nn)
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    model = model.to(peer.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    given = peer.put(x), peer.put(y)

    def loss_of(x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x), y)

    run = loss_of
    if peer.name == "torch.compile":
        run = torch.compile(loss_of, mode="reduce-overhead" if peer.cuda else "default")

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = run(*given)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def in_jax(peer: Any, weights: Any, x: Any, y: Any) -> Call:
    """A step of the MLP in JAX, Adam written out, everything under one jit."""
    jax, np_ = peer.jax, peer.jax.numpy
    names = list(weights)  # in the order of the layers: JAX sorts the keys of what goes through a jitted function
    params = {name: peer.put(value) for name, value in weights.items()}
    zeros = {name: np_.zeros_like(value) for name, value in params.items()}
    given = peer.put(x), peer.put(y)

    def loss_of(params: Any, x: Any, y: Any) -> Any:
        for i in range(0, len(names), 2):
            x = x @ params[names[i]].T + params[names[i + 1]]
            x = jax.nn.relu(x) if i + 2 < len(names) else x
        return -np_.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1).mean()

    def step(state: Any, x: Any, y: Any) -> Any:
        params, first, second, count = state
        loss, slopes = jax.value_and_grad(loss_of)(params, x, y)
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slopes)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slopes)
        a, b = 1 - 0.9**count, 1 - 0.999**count
        params = jax.tree.map(
            lambda p, m, v: p - RATE * (m / a) / (np_.sqrt(v / b) + 1e-8), params, first, second
        )  # fmt: skip
        return (params, first, second, count), loss

    jitted, state = jax.jit(step, donate_argnums=0), [(params, zeros, jax.tree.map(np_.copy, zeros), np_.float32(0))]

    def call() -> Any:
        state[0], peer.last = jitted(state[0], *given)
        return peer.last

    return call


def step_of(build: Network, x: Any, y: Any, tf32: bool = False) -> Callable[[Peer], Call | None]:
    """What makes a contender's step; its first call does the first few steps."""
    drawn: list[Any] = []

    def make(peer: Peer) -> Call | None:
        if not drawn:
            drawn.append(weights_of(build))
        peer.allow_tf32(tf32)
        if peer.name.startswith("hal"):
            step = in_hal(peer, build, drawn[0], x, y)
        elif peer.name.startswith("torch"):
            step = in_torch(peer, build, drawn[0], x, y)
        elif peer.name == "jax.jit" and build is mlp:
            step = in_jax(peer, drawn[0], x, y)
        else:
            return None
        left = [FIRST]

        def call() -> Any:
            while left[0] > 1:
                left[0] -= 1
                step()
            return step()

        return call

    return make


def steps(gpu: bool, quick: bool) -> Iterator[tuple[str, Callable[[Peer], Call | None], tuple[str, float] | None]]:
    """The rows: a name, what makes a contender's step, and the goal."""
    rng = np.random.default_rng(0)

    def images(*shape: int) -> tuple[Any, Any]:
        return rng.standard_normal(shape, np.float32), rng.integers(0, 10, shape[0])

    yield "MLP 784-256-128-64-10, batch 64", step_of(mlp, *images(64, 784)), ("torch.compile", 1.0)
    yield "LeNet-5, batch 64", step_of(lenet, *images(64, 1, 28, 28)), ("torch.compile", 0.9)
    if quick:
        words = rng.integers(0, 64, (4, 32))
        yield "GPT, 2 layers, d 64, T 32, batch 4", step_of(small_gpt, words, words.ravel()), None
        yield "CIFAR-10 CNN, batch 8", step_of(cifar, *images(8, 3, 24, 24)), None
        return
    yield "MLP 784-256-128-64-10, batch 1024", step_of(mlp, *images(1024, 784)), ("torch.compile", 1.0)
    words = rng.integers(0, 64, (8, 128))
    name, goal = "GPT, 4 layers, d 256, T 128, batch 8", ("torch.compile", 1.0)
    batch = images(128, 3, 24, 24)
    yield name, step_of(gpt, words, words.ravel()), goal
    yield "CIFAR-10 CNN, batch 128", step_of(cifar, *batch), ("torch.compile", 0.9)
    if gpu:
        yield f"{name}, TF32", step_of(gpt, words, words.ravel(), True), goal
        yield "CIFAR-10 CNN, batch 128, TF32", step_of(cifar, *batch, True), ("torch.compile", 0.9)
