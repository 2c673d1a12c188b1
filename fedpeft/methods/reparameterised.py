"""Small networks that prompts and prefixes are computed from: their tensors are named as in peft's modules.

``Mlp``        MLP(E),  E: [k, d]                        Liu et al. 2021, arXiv:2103.10385
``Lstm``       MLP([LSTM→(E); LSTM←(E)])                 the same
``Projection`` W' tanh(W E + b) + b'                     Li & Liang 2021, arXiv:2101.00190
"""

from __future__ import annotations

from torch import Tensor, nn


class Mlp(nn.Module):
    """Vectors through two hidden layers.

    Parameters
    ----------
    count, hidden, width : int
        Vectors, the size of each and of the layers between.
    """

    def __init__(self, count: int, hidden: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, hidden)
        self.mlp_head = nn.Sequential(
            nn.Linear(hidden, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, hidden)
        )

    def forward(self) -> Tensor:
        """Return the vectors, shape (count, hidden)."""
        vectors: Tensor = self.mlp_head(self.embedding.weight)
        return vectors


class Lstm(nn.Module):
    """Vectors through an LSTM that reads them in both directions, and one hidden layer.

    Parameters
    ----------
    count, hidden, width : int
        Vectors, the size of each and of the LSTM's state in one direction.
    """

    def __init__(self, count: int, hidden: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, hidden)
        self.lstm_head = nn.LSTM(hidden, width, num_layers=2, bidirectional=True, batch_first=True)
        self.mlp_head = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, hidden))

    def forward(self) -> Tensor:
        """Return the vectors, shape (count, hidden)."""
        vectors: Tensor = self.mlp_head(self.lstm_head(self.embedding.weight[None])[0])[0]
        return vectors


class Projection(nn.Module):
    """Keys and values of all layers from one vector per position.

    Parameters
    ----------
    count, hidden, width, numbers : int
        Positions, the size of each one's vector, of the layer between, and of the result.
    """

    def __init__(self, count: int, hidden: int, width: int, numbers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, hidden)
        self.transform = nn.Sequential(nn.Linear(hidden, width), nn.Tanh(), nn.Linear(width, numbers))

    def forward(self) -> Tensor:
        """Return the numbers, shape (count, numbers)."""
        numbers: Tensor = self.transform(self.embedding.weight)
        return numbers
