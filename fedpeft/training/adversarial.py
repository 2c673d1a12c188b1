"""Changes of the embeddings to learn under: the worst small one, or noise.

Adversarial training adds the loss under the worst small change to the loss:

    δ = ε g / ||g||,  g = ∂L/∂e           one step (FGM, Miyato et al. 2017, arXiv:1605.07725)
    δ ← Π_ε(δ + α g / ||g||), K times      projected descent (PGD, Madry et al. 2018, arXiv:1706.06083)

The norm is taken per example, over all its embeddings. NEFTune (Jain et al. 2023, arXiv:2310.05914) learns under noise
alone, for t tokens of width d:

    δ ~ α / sqrt(t d) · Uniform(-1, 1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedpeft.training.config import Adversarial


class Perturbed:
    """An input embedding whose output can be changed by a vector.

    Parameters
    ----------
    embedding : nn.Module
        The model's input embedding.
    """

    def __init__(self, embedding: nn.Module) -> None:
        self._embedding = embedding
        self._change: Tensor | None = None

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Let the change act, inside a ``with``."""
        handle = self._embedding.register_forward_hook(self._add)
        try:
            yield
        finally:
            handle.remove()
            self._change = None

    @contextmanager
    def noisy(self, shape: torch.Size, scale: float) -> Iterator[None]:
        """Let noise act, inside a ``with``; drawn from torch's own generator.

        Parameters
        ----------
        shape : torch.Size
            Of the embeddings, (b, t, d).
        scale : float
            α; without any nothing is drawn.
        """
        if not scale:
            yield
            return
        with self.hooked():
            self._change = torch.empty(shape).uniform_(-1, 1) * (scale / (shape[1] * shape[2]) ** 0.5)
            yield

    def worst(self, loss: Callable[[], Tensor], shape: torch.Size, wanted: Adversarial) -> Tensor:
        """Return the loss under the worst change found.

        Parameters
        ----------
        loss : callable
            Runs the model and returns the scalar loss; the parameters' own gradients are not touched here.
        shape : torch.Size
            Of the embeddings, (b, t, d).
        wanted : Adversarial
        """
        steps = 1 if wanted.kind == "fgm" else wanted.steps
        pace = wanted.radius if wanted.kind == "fgm" else 1.5 * wanted.radius / steps
        change = torch.zeros(shape, device=self._embedding.get_parameter("weight").device)
        for _ in range(steps):
            self._change = change.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(), [self._change])
            norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
            moved = change.detach() + pace * gradient / norm
            length = moved.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
            change = moved * (wanted.radius / length).clamp(max=1.0)
        self._change = change.detach()
        return loss()

    def _add(self, _: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        return None if self._change is None else out + self._change.to(out)
