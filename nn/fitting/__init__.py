"""A trainer that stays optional: the loop one would write, with progress, validation, checkpoints and logs."""

from nn.fitting.callback import Callback, EarlyStopping, Logs
from nn.fitting.checkpoints import Checkpoints
from nn.fitting.history import History
from nn.fitting.loop import DivergedError, Fit, evaluate, fit
from nn.fitting.tensorboard import TensorBoard

__all__ = [
    "Callback", "Checkpoints", "DivergedError", "EarlyStopping", "Fit", "History", "Logs", "TensorBoard", "evaluate",
    "fit",
]  # fmt: skip
