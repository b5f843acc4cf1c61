"""Negative logarithms of likelihoods, as functions: of counts, of numbers with a variance, and of unaligned labels."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi

import numpy as np

import hal
from hal import ops
from hal.errors import ShapeError
from hal.ops.losses import check_reduction, reduced
from hal.tensor import Tensor

Lengths = Tensor | Sequence[int]
UNREACHED = -1e30  # the logarithm of what cannot be; minus infinity would make gradients NaN


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, *, eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The cost of counts under Poisson rates.

    Args:
        log_input: whether the input is the logarithm of the rate.
        full: add Stirling's approximation of log(target!) where the target is above 1.
        eps: added to a rate before its logarithm is taken.

    Source: torch.nn.functional.poisson_nll_loss.
    """
    check_reduction("poisson_nll_loss", reduction)
    cost = ops.exp(input) - target * input if log_input else input - target * ops.log(input + eps)
    if full:
        large = ops.greater(target, 1)
        n = ops.where(large, target, 2.0)
        cost = cost + ops.where(large, n * ops.log(n) - n + 0.5 * ops.log(2 * pi * n), 0.0)
    return reduced(cost, reduction)


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """The cost of numbers under normal distributions with mean `input` and variance `var`.

    Args:
        var: of the input's shape, or with 1 for (or without) its last axis, or one number.
        full: add the constant log(2 pi) / 2.
        eps: the least that a variance counts as; the gradient takes no notice.

    Raises:
        ShapeError: the variance has another shape.

    Source: torch.nn.functional.gaussian_nll_loss.
    """
    check_reduction("gaussian_nll_loss", reduction)
    if not isinstance(var, Tensor):
        var = hal.full((), float(var), dtype=input.dtype, device=input.device)
    if var.shape != input.shape and var.ndim:
        if var.shape == input.shape[:-1]:
            var = var.unsqueeze(-1)
        elif var.shape != (*input.shape[:-1], 1):
            raise ShapeError(f"gaussian_nll_loss needs a variance of the input's shape {input.shape}, got {var.shape}")
    at_least = var + (ops.maximum(var, eps) - var).detach()
    cost = 0.5 * (ops.log(at_least) + (input - target) ** 2 / at_least)
    return reduced(cost + 0.5 * log(2 * pi) if full else cost, reduction)


def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """The cost of label sequences under all their alignments with the steps of time.

    Args:
        log_probs: (T, N, C) or (T, C), as log_softmax gives them.
        targets: (N, S) padded, or all behind each other in one axis, whose lengths are then read on the host.
        input_lengths, target_lengths: (N) or (): how many steps and labels count.
        blank: the class that stands for no label.
        reduction: `mean` divides each cost by its target's length before taking the mean.
        zero_infinity: cost nothing where the steps are too few for the labels, instead of infinity.

    Raises:
        ShapeError: shapes or lengths that do not fit.

    Source: torch.nn.functional.ctc_loss; Graves et al., "Connectionist temporal classification", ICML 2006.
    """
    check_reduction("ctc_loss", reduction)
    if log_probs.ndim not in (2, 3):
        raise ShapeError(f"ctc_loss needs log-probabilities (T, N, C) or (T, C), got {log_probs.shape}")
    single = log_probs.ndim == 2
    if single:
        log_probs = log_probs.unsqueeze(1)
        targets = targets.reshape(1, -1)
    batch, classes = log_probs.shape[1:]
    steps = _lengths("input_lengths", input_lengths, batch, log_probs.device)
    labels = _lengths("target_lengths", target_lengths, batch, log_probs.device)
    if targets.ndim == 1:
        targets = _padded(targets, [int(n) for n in np.asarray(labels.cpu().numpy())])
    if targets.ndim != 2 or targets.shape[0] != batch:
        raise ShapeError(f"ctc_loss needs targets ({batch}, S) for its {batch} sequences, got {targets.shape}")
    if not 0 <= blank < classes:
        raise ShapeError(f"ctc_loss needs blank= one of its {classes} classes, got {blank}")
    targets = ops.cast(targets, dtype=hal.int64)
    costs = _alignments(log_probs, targets, steps, labels, blank)
    impossible = ops.greater(costs, -UNREACHED / 10)
    costs = ops.where(impossible, 0.0 if zero_infinity else float("inf"), costs)
    if reduction == "mean":
        costs = costs / ops.cast(ops.maximum(labels, 1), dtype=costs.dtype)
    result = reduced(costs, reduction)
    return result.squeeze(0) if single and reduction == "none" else result


def _lengths(name: str, given: Lengths, batch: int, device: hal.Device) -> Tensor:
    lengths = given if isinstance(given, Tensor) else hal.tensor(np.asarray(given, np.int64), device=device)
    lengths = lengths.reshape(-1)
    if lengths.shape != (batch,):
        raise ShapeError(f"ctc_loss needs {name} for its {batch} sequences, got {lengths.shape[0]} of them")
    return ops.cast(lengths, dtype=hal.int64).to(device)


def _padded(targets: Tensor, lengths: list[int]) -> Tensor:
    """Targets that lie behind each other as rows with zeros at their ends."""
    if sum(lengths) != targets.shape[0]:
        raise ShapeError(f"ctc_loss got {targets.shape[0]} labels for target_lengths that add up to {sum(lengths)}")
    longest = max(lengths, default=0)
    place = np.zeros((len(lengths), longest), np.int64)
    for row, (start, n) in enumerate(zip(np.cumsum([0, *lengths]), lengths, strict=False)):
        place[row, :n] = np.arange(start, start + n)
    return ops.take(targets, hal.tensor(place, device=targets.device), axis=0)


def _alignments(log_probs: Tensor, targets: Tensor, steps: Tensor, labels: Tensor, blank: int) -> Tensor:
    """Minus the logarithm of the sum over alignments: forward variables of (batch, 2 S + 1) states, step by step."""
    time, batch, _ = log_probs.shape
    states = 2 * targets.shape[1] + 1
    place = np.arange(states)
    device = log_probs.device
    odd = hal.tensor(place % 2 == 1, device=device)
    label = ops.take(ops.pad(targets, padding=((0, 0), (0, 1))), hal.tensor(place // 2, device=device), axis=1)
    label = ops.where(odd, label, blank)  # blank, first, blank, second, ..., blank
    before = ops.pad(label, padding=((0, 0), (2, 0)), value=blank)[:, :states]
    may_skip = ops.logical_and(odd, ops.not_equal(label, before))
    wide = ops.broadcast_to(label.unsqueeze(0), shape=(time, batch, states))
    emitted = ops.gather(log_probs, wide, axis=2)
    alpha = ops.where(hal.tensor(place < 2, device=device), emitted[0], UNREACHED)
    for t in range(1, time):
        lower = ops.pad(alpha, padding=((0, 0), (2, 0)), value=UNREACHED)
        ways = alpha, lower[:, 1 : states + 1], ops.where(may_skip, lower[:, :states], UNREACHED)
        moved = ops.logsumexp(ops.stack(*ways, axis=0), axis=0) + emitted[t]
        alpha = ops.where(ops.less(t, steps).unsqueeze(1), moved, alpha)
    last = ops.pad(alpha, padding=((0, 0), (1, 0)), value=UNREACHED)  # so that before the first state is nothing
    ends = ops.stack(2 * labels, 2 * labels + 1, axis=1)
    return -ops.logsumexp(ops.gather(last, ends, axis=1), axis=1)
