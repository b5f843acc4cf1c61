"""Recurrent layers: RNN, LSTM and GRU over whole sequences, in several layers and both directions."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import Any

import numpy as np

import hal
from hal import ops
from hal.creation import DeviceLike
from hal.errors import SettingError, ShapeError
from hal.op import Array
from hal.tensor import Tensor
from nn import functional as F
from nn import init
from nn.module import Module
from nn.parameter import Parameter
from nn.utils.rnn import PackedSequence, pad_packed_sequence, repack

States = tuple[Tensor, ...]


def _turned(x: Tensor, lengths: Array | None) -> Tensor:
    """(time, batch, ...) from the last step of each sequence to its first; what lies behind its length stays there."""
    if lengths is None:
        return ops.flip(x, axis=0)
    steps, batch = x.shape[:2]
    time = np.arange(steps)[:, None]
    place = np.where(time < lengths, lengths - 1 - time, time) * batch + np.arange(batch)
    flat = ops.reshape(x, shape=(steps * batch, *x.shape[2:]))
    return ops.take(flat, hal.tensor(place, device=x.device), axis=0)


def _last(x: Tensor, lengths: Array | None) -> Tensor:
    """The entry of (time, batch, ...) that is the last of each sequence: (1, batch, ...)."""
    if lengths is None:
        return x[-1:]
    steps, batch = x.shape[:2]
    flat = ops.reshape(x, shape=(steps * batch, *x.shape[2:]))
    return ops.take(flat, hal.tensor(((lengths - 1) * batch + np.arange(batch))[None], device=x.device), axis=0)


class _Recurrent(Module):
    """What the recurrent layers have in common. All parameters begin uniform between ± 1 / sqrt(hidden_size)."""

    gates: int
    states: int = 1
    adds_biases: bool = True  # whether both biases are added to the same sum

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if hidden_size < 1 or num_layers < 1:
            raise SettingError(
                f"{type(self).__name__} needs hidden_size and num_layers of 1 or more, got {hidden_size}, {num_layers}"
            )
        if not 0 <= dropout <= 1:
            raise SettingError(f"{type(self).__name__} needs dropout= between 0 and 1, got {dropout}")
        if not 0 <= proj_size < hidden_size:
            raise SettingError(
                f"{type(self).__name__} needs proj_size= below hidden_size, from 0 to {hidden_size - 1}, "
                f"got {proj_size}"
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        rows, out = self.gates * hidden_size, proj_size or hidden_size
        for layer, end in self._runs():
            inputs = input_size if layer == 0 else out * (2 if bidirectional else 1)
            shapes = {
                "weight_ih": (rows, inputs),
                "weight_hh": (rows, out),
                "bias_ih": (rows,),
                "bias_hh": (rows,),
                "weight_hr": (proj_size, hidden_size),
            }
            for name, shape in shapes.items():
                if name in self._names():
                    setattr(self, f"{name}_l{layer}{end}", Parameter(hal.empty(*shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _runs(self) -> Iterator[tuple[int, str]]:
        """The layers, each in its one or two directions, as the ends of their parameters' names."""
        for layer in range(self.num_layers):
            yield layer, ""
            if self.bidirectional:
                yield layer, "_reverse"

    def _names(self) -> list[str]:
        """How the parameters of each run begin."""
        biases = ["bias_ih", "bias_hh"] if self.bias else []
        return ["weight_ih", "weight_hh", *biases, *(["weight_hr"] if self.proj_size else [])]

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        limit = 1 / sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -limit, limit)

    def flatten_parameters(self) -> None:
        """Nothing: parameters need not lie behind each other here. For code that calls it."""

    def _states(self, given: Tensor, state: States, weight: Tensor, *others: Tensor) -> States:
        """The states after each step (time, batch, ...), that which is the output first.

        Args:
            given: what the input gives to the gates of each step.
            state: the state to begin with.
            weight: by which the state gives to the gates.
        """
        raise NotImplementedError(f"{type(self).__name__} has no _states: write what a step makes of the states")

    def _over_time(
        self, x: Tensor, lengths: Array | None, state: States, end: str, layer: int
    ) -> tuple[Tensor, States]:
        """One layer in one direction: its outputs in the order of the input, and its last state.

        What all steps of the input give to the gates is one matrix product. Steps behind the end of a sequence are
        computed as well, and nothing is taken from them.
        """
        w_ih, w_hh, *others = (getattr(self, f"{name}_l{layer}{end}") for name in self._names())
        bias = others.pop(0) if self.bias else None
        if bias is not None and self.adds_biases:
            bias = bias + others.pop(0)
        given = F.linear(_turned(x, lengths) if end else x, w_ih, bias)
        states = self._states(given, state, w_hh, *others)
        last = tuple(_last(s, lengths) for s in states)
        return _turned(states[0], lengths) if end else states[0], last

    def _begin(self, x: Tensor, given: States | None) -> list[States]:
        """The states to begin with, one for each run. `x` is (time, batch, inputs)."""
        who, runs = type(self).__name__, self.num_layers * (2 if self.bidirectional else 1)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: self.states]
        if given is None:
            zeros = {n: hal.zeros(x.shape[1], n, dtype=x.dtype, device=x.device) for n in {*sizes}}
            return [tuple(zeros[n] for n in sizes)] * runs
        for state, size in zip(given, sizes, strict=True):
            wanted = (runs, x.shape[1], size)
            if state.shape != wanted:
                raise ShapeError(f"{who} needs initial states {wanted}, got {state.shape}")
        return [tuple(state[i] for state in given) for i in range(runs)]

    def _run(self, input: Tensor | PackedSequence, given: States | None) -> tuple[Any, States]:
        many = isinstance(given, (tuple, list)) and len(given) == self.states
        if given is not None and not (many and all(isinstance(state, Tensor) for state in given)):
            what = "a pair (h, c) of tensors" if self.states == 2 else "one tensor"
            raise ShapeError(f"{type(self).__name__} needs {what} as its initial state, got another number of them")
        if isinstance(input, PackedSequence):
            if input.data.shape[1:] != (self.input_size,):
                raise ShapeError(
                    f"{type(self).__name__} needs packed steps of {self.input_size} features, got {input.data.shape}"
                )
            padded, lengths = pad_packed_sequence(input)
            output, final = self._over_layers(padded, given, np.asarray(lengths.numpy()))
            return repack(output, input), final
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            layout = "(batch, time, features)" if self.batch_first else "(time, batch, features)"
            raise ShapeError(
                f"{type(self).__name__} needs an input {layout} of {self.input_size} features, got {input.shape}"
            )
        single = input.ndim == 2
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        if single and given is not None:
            given = tuple(state.unsqueeze(1) for state in given)
        if x.shape[0] == 0:
            raise ShapeError(
                f"{type(self).__name__} needs at least one step of time, got an input of shape {input.shape}"
            )
        output, final = self._over_layers(x, given, None)
        if single:
            return output.squeeze(1), tuple(state.squeeze(1) for state in final)
        return (output.transpose(0, 1) if self.batch_first else output), final

    def _over_layers(self, x: Tensor, given: States | None, lengths: Array | None) -> tuple[Tensor, States]:
        """All layers over (time, batch, features); `lengths` has how many steps each sequence has, if not all."""
        begin = self._begin(x, given)
        last: list[States] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = F.dropout(x, self.dropout)
            both = []
            for end in ("", "_reverse") if self.bidirectional else ("",):
                outs, state = self._over_time(x, lengths, begin[len(last)], end, layer)
                last.append(state)
                both.append(outs)
            x = ops.concat(*both, axis=-1) if self.bidirectional else both[0]
        return x, last[0] if len(last) == 1 else tuple(ops.concat(*parts, axis=0) for parts in zip(*last, strict=True))

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        text += f", proj_size={self.proj_size}" if self.proj_size else ""
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        return text + "".join(f", {n}={getattr(self, n)}" for n, value in defaults.items() if getattr(self, n) != value)


class RNN(_Recurrent):
    """tanh (or relu) cells over (time, batch, input_size): the outputs of all times, and the last state.

    Args:
        num_layers: each layer runs on the outputs of the one before.
        nonlinearity: `tanh` or `relu`.
        batch_first: inputs and outputs are (batch, time, features).
        dropout: between the layers, in training.
        bidirectional: a second run from the end to the beginning, whose outputs are put beside those of the first.

    The input may be a `nn.utils.rnn.PackedSequence`, and the outputs are then packed in the same way.

    Source: torch.nn.RNN.
    """

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise SettingError(f"RNN needs nonlinearity= 'tanh' or 'relu', got {nonlinearity!r}")
        sizes = input_size, hidden_size, num_layers
        super().__init__(*sizes, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def _states(self, given: Tensor, state: States, weight: Tensor, *others: Tensor) -> States:
        return (ops.rnn_sequence(given, *state, weight, nonlinearity=self.nonlinearity),)

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        output, (h,) = self._run(input, None if hx is None else (hx,))
        return output, h


class GRU(_Recurrent):
    """Gated recurrent units over (time, batch, input_size): the outputs of all times, and the last state.

    Arguments as in `RNN`. Source: torch.nn.GRU.
    """

    gates, adds_biases = 3, False  # the reset gate multiplies one of them

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: DeviceLike = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        sizes = input_size, hidden_size, num_layers
        super().__init__(*sizes, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype)

    def _states(self, given: Tensor, state: States, weight: Tensor, *others: Tensor) -> States:
        hs, _ = ops.gru_sequence(given, *state, weight, *others)
        return (hs,)

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        output, (h,) = self._run(input, None if hx is None else (hx,))
        return output, h


class LSTM(_Recurrent):
    """Long short-term memories over (time, batch, input_size): the outputs of all times, and the last (h, c).

    Arguments as in `RNN`, and

    Args:
        proj_size: outputs, and h, are mapped to so many features; 0 for no map (Sak et al., 2014).

    Source: torch.nn.LSTM.
    """

    gates, states = 4, 2

    def _states(self, given: Tensor, state: States, weight: Tensor, *others: Tensor) -> States:
        if not others:
            hs, cs, _ = ops.lstm_sequence(given, *state, weight)
            return hs, cs
        h, c = state
        steps = []
        for t in range(given.shape[0]):  # the map of h stands between two steps
            h, c = ops.lstm_gates(given[t] + F.linear(h, weight), c)
            h = F.linear(h, *others)
            steps.append((h, c))
        return tuple(ops.stack(*parts, axis=0) for parts in zip(*steps, strict=True))

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        output, (h, c) = self._run(input, hx)
        return output, (h, c)
