"""Negative logarithms of likelihoods, as layers: of counts, of numbers with a variance, and of unaligned labels."""

from __future__ import annotations

from hal.tensor import Tensor
from nn import functional as F
from nn.functional.likelihood import Lengths
from nn.losses import _Loss


class PoissonNLLLoss(_Loss):
    """The cost of counts under Poisson rates, or the logarithms of rates if `log_input`.

    Args:
        full: add Stirling's approximation of log(target!) where the target is above 1.
        eps: added to a rate before its logarithm is taken.

    Source: torch.nn.PoissonNLLLoss.
    """

    def __init__(
        self, log_input: bool = True, full: bool = False, *, eps: float = 1e-8, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        return F.poisson_nll_loss(log_input, target, self.log_input, self.full, eps=self.eps, reduction=self.reduction)


class GaussianNLLLoss(_Loss):
    """The cost of numbers under normal distributions, whose mean is the first input and whose variance the third.

    Args:
        full: add the constant log(2 pi) / 2.
        eps: the least that a variance counts as.

    Source: torch.nn.GaussianNLLLoss.
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


class CTCLoss(_Loss):
    """The cost of label sequences under all their alignments with the steps of time.

    Args:
        blank: the class that stands for no label.
        zero_infinity: cost nothing where the steps are too few for the labels, instead of infinity.

    Source: torch.nn.CTCLoss; Graves et al., ICML 2006.
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(self, log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths) -> Tensor:
        return F.ctc_loss(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity
        )
