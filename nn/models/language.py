"""A recurrent language model: predicts the next token of a sequence, and hands its state on."""

from __future__ import annotations

from typing import Any

import nn
from hal.tensor import Tensor
from nn.models.weights import begin
from nn.module import Module


class LSTMLanguageModel(Module):
    """Integer tokens (T, N) and a state -> scores (T, N, vocab_size) of the token that follows each, and a state.

    Args:
        vocab_size: how many different tokens there are.
        embedding_size, hidden_size, num_layers: of the LSTM.
        dropout: on the embeddings, between layers, and on the result.
        tie_weights: whether the output layer shares the weight of the embedding; the sizes must then be equal.

    Raises:
        ValueError: weights are to be shared between different sizes.

    Source: Zaremba, Sutskever, Vinyals, "Recurrent Neural Network Regularization", 2014; Press, Wolf, "Using the Output
    Embedding to Improve Language Models", 2017.
    """

    def __init__(
        self, vocab_size: int, embedding_size: int = 128, hidden_size: int = 128, num_layers: int = 2,
        dropout: float = 0.0, tie_weights: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if tie_weights and embedding_size != hidden_size:
            raise ValueError(
                f"LSTMLanguageModel(tie_weights=True) needs embedding_size= and hidden_size= to be equal, "
                f"got {embedding_size} and {hidden_size}"
            )
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(vocab_size, embedding_size)
        self.rnn = nn.LSTM(embedding_size, hidden_size, num_layers, dropout=dropout)
        self.decoder = nn.Linear(hidden_size, vocab_size)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        begin(self.decoder, lambda weight: nn.init.uniform_(weight, -0.1, 0.1))
        if tie_weights:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        out, state = self.rnn(self.drop(self.encoder(tokens)), state)
        return self.decoder(self.drop(out)), state
