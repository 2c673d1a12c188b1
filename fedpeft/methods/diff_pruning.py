"""Diff pruning: a few weights of every matrix change, the others never.

    h = (W + M ⊙ Δ) x,   M fixed with k ones,   Δ zero at the start
    learned:  M = z(α),  loss + λ mean P(z > 0)    (:mod:`~fedpeft.methods.hard_concrete`)

Guo et al. 2021, arXiv:2012.07463. A learned mask is for one place: it takes twice the base in trainables. A federation
needs one mask for all, so that only its k values travel and their mean is exact: drawn from the seed, as fixed sparse
masks are in Sung et al. 2021 (arXiv:2111.09839), or the largest changes of an adapter that learned its mask on public
text, which is how Guo et al. prune in the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from fedpeft.adapters import Adapter
from fedpeft.errors import ScenarioError
from fedpeft.methods.as_lora import Fold, as_lora, columns
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.hard_concrete import GatedChange, hard_concrete
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.layout import features, linears
from fedpeft.methods.method import Algebra, Method, register


@register
class DiffPruning(Method):
    """Changes of chosen weights."""

    name: ClassVar[str] = "diff_pruning"
    algebra: ClassVar[Algebra] = Algebra.LINEAR
    mergeable: ClassVar[bool] = True
    rate: ClassVar[float] = 1e-2
    equation: ClassVar[str] = "h = (W + M ⊙ Δ) x, M fixed and sparse, or learned"
    source: ClassVar[str] = "Guo et al. 2021, arXiv:2012.07463"
    sends: ClassVar[str] = "Δ: density · in · out per matrix, no mask; mask = learned: 2 in · out"
    limits: ClassVar[str] = "mask = learned is for one place, at a rate near 1e-3. A dense change is made at each use."

    mask: Literal["seeded", "given", "learned"] = Field(
        "seeded", description="Which weights change: drawn from the seed, those of `like`, or gates trained with them."
    )
    density: float = Field(0.005, gt=0, le=1, description="Share of every matrix that may change; not for learned.")
    like: str = Field("", description="With mask = given: folder of a learned adapter whose largest changes are meant.")
    penalty: float = Field(
        1.0, ge=0, le=1000, description="With mask = learned: factor λ before the mean probability of an open gate."
    )
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the linear modules to adapt, or all of them."
    )

    @property
    def averaging(self) -> Algebra:
        """A gate times a value is no sum."""
        return Algebra.NETWORK if self.mask == "learned" else self.algebra

    def foundations(self) -> list[Path]:
        """Return the folder of the adapter whose mask is taken, if one is."""
        return [Path(self.like)] if self.mask == "given" and self.like else []

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang a change onto every target."""
        targets = linears(model, self.targets)
        if self.mask == "learned":
            return self._learned(targets)
        given = self._given()
        placed = []
        for name, linear in targets.items():
            read, write = features(linear)
            count = max(1, round(self.density * read * write))
            if given is None:
                chosen = drawn(count, read * write)
            elif name in given and given[name].shape == (write, read):
                chosen = largest(given[name], count)
            else:
                found = tuple(given[name].shape) if name in given else "nothing"
                raise ScenarioError("method.like", f"{found} for {name}", f"a change of shape {(write, read)}")
            placed.append(Placed(name, Sparse(read, write, chosen), linear, "parallel", read))
        return Hooked(placed, self.saved(), fold=lambda: _columns(placed))

    def private(self, rank: int) -> Method | None:
        """Return the same, with a mask of its own where it is drawn; learned gates do not add up."""
        return None if self.mask == "learned" else self

    def _learned(self, targets: dict[str, nn.Module]) -> Attachment:
        modules = {name: GatedChange(*features(linear)) for name, linear in targets.items()}
        total = sum(module.gates.numel() for module in modules.values())

        def open_share() -> Tensor:
            return self.penalty / total * torch.stack([m.expected_open() for m in modules.values()]).sum()

        placed = [Placed(n, modules[n], linear, "parallel", features(linear)[0]) for n, linear in targets.items()]
        return Hooked(placed, self.saved(), penalty=open_share, fold=lambda: _columns(placed))

    def _given(self) -> dict[str, Tensor] | None:
        """Return ``z ⊙ Δ`` of the adapter whose mask is taken, by module."""
        if (self.mask == "given") != bool(self.like):
            wanted = "the folder of an adapter" if self.mask == "given" else "nothing"
            raise ScenarioError("method.like", self.like, wanted, f"mask is {self.mask!r}")
        if not self.like:
            return None
        adapter = Adapter.load(Path(self.like))
        learned = dict(adapter.config).get("method", {})
        if (learned.get("name"), learned.get("mask")) != (self.name, "learned"):
            kind = learned.get("name") or adapter.config.get("peft_type")
            raise ScenarioError("method.like", f"{kind} in {self.like}", f"{self.name} with mask = 'learned'")
        tensors = {name: torch.from_numpy(tensor.copy()) for name, tensor in adapter.tensors().items()}
        modules = [name.removesuffix(".gates") for name in tensors if name.endswith(".gates")]
        return {name: hard_concrete(tensors[f"{name}.gates"]) * tensors[f"{name}.values"] for name in modules}


class Sparse(nn.Module):
    """The change ``(M ⊙ Δ) x``.

    Parameters
    ----------
    read, write : int
    chosen : Tensor of int64, shape (k,)
        Places in the flat (write, read) matrix.
    """

    def __init__(self, read: int, write: int, chosen: Tensor) -> None:
        super().__init__()
        self.places: Tensor
        # Rows and columns, because the schema's digest is over float32.
        self.register_buffer("places", torch.stack([chosen // read, chosen % read]))
        self.values = nn.Parameter(torch.zeros(len(chosen)))
        self.shape = (write, read)

    def forward(self, x: Tensor) -> Tensor:
        """Return the change; the dense matrix is made again in the backward pass, not kept."""
        change: Tensor = checkpoint(self._change, x, self.values, use_reentrant=False, preserve_rng_state=False)
        return change

    def _change(self, x: Tensor, values: Tensor) -> Tensor:
        return F.linear(x, x.new_zeros(self.shape).index_put((self.places[0], self.places[1]), values))


@torch.no_grad()
def _columns(placed: list[Placed]) -> Fold:
    device = next(placed[0].module.parameters()).device
    return as_lora({one.name: columns(one.module(torch.eye(one.width, device=device)).T) for one in placed})


def drawn(count: int, total: int) -> Tensor:
    """Draw ``count`` different places below ``total``, in order."""
    if 4 * count >= total:
        return torch.randperm(total)[:count].sort().values
    chosen = torch.zeros(0, dtype=torch.int64)
    while len(chosen) < count:
        chosen = torch.unique(torch.cat([chosen, torch.randint(total, (count - len(chosen),))]))
    return chosen


def largest(change: Tensor, count: int) -> Tensor:
    """Return the places of a matrix's largest entries, zeros left out, in order."""
    sizes, order = change.abs().flatten().sort(descending=True, stable=True)
    return order[: min(count, int((sizes > 0).sum()))].sort().values
