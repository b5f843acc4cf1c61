"""A small GPT learns the letters of a text, and goes on writing in its manner.

python char_gpt.py corpus.txt --steps 2000
python char_gpt.py --small            # HAL's own documentation strings, in seconds
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import hal
from nn import functional as F
from nn import models, optim
from nn.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from nn.utils import clip_grad_norm_


def own_words() -> str:
    """A text that is at hand everywhere: what the ops of HAL say of themselves."""
    return "\n\n".join(op.doc for op in hal.ops.TABLE.values() if op.doc)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", type=Path, help="a text file; without it, HAL's documentation strings")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--small", action="store_true", help="a smaller network and 500 steps")
    parser.add_argument("--compile", action="store_true", help="trace the training step once, and replay it")
    given = parser.parse_args()
    text = given.text.read_text(encoding="utf-8") if given.text else own_words()
    letters = sorted(set(text))
    numbers = np.array([letters.index(letter) for letter in text], np.int64)
    block, batch, steps = (32, 8, 500) if given.small else (128, 16, given.steps)

    hal.manual_seed(0)
    layers, heads, width = (2, 2, 32) if given.small else (4, 4, 128)
    net = models.GPT(len(letters), block_size=block, n_layer=layers, n_head=heads, n_embd=width)
    optimizer = optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
    warm = max(1, steps // 20)
    parts = [LinearLR(optimizer, 0.1, total_iters=warm), CosineAnnealingLR(optimizer, steps - warm)]
    schedule = SequentialLR(optimizer, parts, milestones=[warm])
    print(f"{len(text):,} letters, {len(letters)} different; {sum(p.numel() for p in net.parameters()):,} parameters")

    def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
        optimizer.zero_grad()
        loss: hal.Tensor = F.cross_entropy(net(x).flatten(0, 1), y.flatten())
        loss.backward()
        clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    train = hal.compile(step) if given.compile else step
    rng, start, shown = np.random.default_rng(0), time.perf_counter(), []
    for i in range(steps):
        places = rng.integers(0, len(numbers) - block - 1, batch)
        chunks = np.stack([numbers[p : p + block + 1] for p in places])
        loss = train(hal.tensor(chunks[:, :-1]), hal.tensor(chunks[:, 1:]))
        schedule.step()
        if i % max(1, steps // 10) == 0 or i == steps - 1:
            shown.append(loss.item())
            speed = (i + 1) * batch * block / (time.perf_counter() - start)
            print(f"step {i:5d}: loss {shown[-1]:.3f} ({speed:,.0f} letters/s)")
    net.eval()
    begin = hal.tensor(numbers[None, :1])
    written = net.generate(begin, 60 if given.small else 400, temperature=0.8, top_k=20)[0].tolist()
    print("".join(letters[n] for n in written))


if __name__ == "__main__":
    main()
