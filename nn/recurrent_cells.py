"""Recurrent cells: one step of an RNN, LSTM or GRU."""

from __future__ import annotations

from math import sqrt
from typing import Any

import hal
from hal import ops
from hal.creation import DeviceLike
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn import init
from nn.module import Module
from nn.parameter import Parameter


class _Cell(Module):
    """What the cells have in common. All parameters begin uniform between ± 1 / sqrt(hidden_size)."""

    gates: int
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool, device: DeviceLike, dtype: Any) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = self.gates * hidden_size

        def values(*shape: int) -> Parameter:
            return Parameter(hal.empty(*shape, device=device, dtype=dtype))

        self.weight_ih = values(rows, input_size)
        self.weight_hh = values(rows, hidden_size)
        self.register_parameter("bias_ih", values(rows) if bias else None)
        self.register_parameter("bias_hh", values(rows) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        limit = 1 / sqrt(self.hidden_size) if self.hidden_size > 0 else 0.0
        for parameter in self.parameters():
            init.uniform_(parameter, -limit, limit)

    def _weights(self) -> tuple[Tensor, ...]:
        if self.bias_ih is None or self.bias_hh is None:
            return self.weight_ih, self.weight_hh
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _state(self, input: Tensor, given: Tensor | None) -> Tensor:
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__} needs an input (batch, {self.input_size}) or ({self.input_size},), "
                f"got {input.shape}"
            )
        wanted = (*input.shape[:-1], self.hidden_size)
        if given is None:
            return hal.zeros(*wanted, dtype=input.dtype, device=input.device)
        if given.shape != wanted:
            raise ShapeError(
                f"{type(self).__name__} needs a hidden state {wanted} for an input {input.shape}, got {given.shape}"
            )
        return given

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}{'' if self.bias else ', bias=False'}"


class RNNCell(_Cell):
    """tanh (or relu) of x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh: the next h (batch, hidden_size).

    Raises:
        SettingError: the nonlinearity is neither `tanh` nor `relu`.

    Source: torch.nn.RNNCell.
    """

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        device: DeviceLike = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise SettingError(f"RNNCell needs nonlinearity= 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h = self._state(input, hx)
        return ops.rnn_cell(input, h, *self._weights(), nonlinearity=self.nonlinearity)

    def extra_repr(self) -> str:
        shown = f", nonlinearity={self.nonlinearity}" if self.nonlinearity != "tanh" else ""
        return super().extra_repr() + shown


class GRUCell(_Cell):
    """One step of a gated recurrent unit: the next h (batch, hidden_size). Gates in the order r, z, n.

    Source: torch.nn.GRUCell.
    """

    gates = 3

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: DeviceLike = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return ops.gru_cell(input, self._state(input, hx), *self._weights())


class LSTMCell(_Cell):
    """One step of a long short-term memory: the next (h, c), each (batch, hidden_size). Gates in the order i, f, g, o.

    Source: torch.nn.LSTMCell.
    """

    gates = 4

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: DeviceLike = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        h, c = (None, None) if hx is None else hx
        return ops.lstm_cell(input, self._state(input, h), self._state(input, c), *self._weights())
