"""P-tuning (Liu et al. 2021, arXiv:2103.10385): a prompt that a small network computes.

    h = f([g(E); E(x)]),   E: [k, d],   g an MLP, or an LSTM in both directions under an MLP

Sends E and g. The network ties the vectors together, which steadies training; used, it is a prompt of k vectors, and
``Attached.folded`` gives that one to peft. (peft's own file of a P-tuning holds k d numbers and reloads wrongly.)
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from transformers import PreTrainedModel

from fedpeft.methods.attachment import Attachment
from fedpeft.methods.layout import layout
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.prompt_tuning import require_length
from fedpeft.methods.prompts import Prompts
from fedpeft.methods.reparameterised import Lstm, Mlp


@register
class PTuning(Method):
    """A prompt that a small network computes."""

    name: ClassVar[str] = "p_tuning"
    algebra: ClassVar[Algebra] = Algebra.NETWORK
    mergeable: ClassVar[bool] = False
    precedes: ClassVar[bool] = True
    equation: ClassVar[str] = "h = f([g(E); E(x)]), g an MLP or LSTM"
    source: ClassVar[str] = "Liu et al. 2021, arXiv:2103.10385"
    sends: ClassVar[str] = "E and g: k d + 2 d w + w² + 2 w + d (MLP)"
    limits: ClassVar[str] = "Every text is k positions longer; sends more than the prompt it amounts to."
    rate: ClassVar[float] = 3e-3

    length: int = Field(16, ge=1, le=1024, description="Vectors k before every text.")
    encoder: Literal["mlp", "lstm"] = Field("mlp", description="What computes them.")
    width: int = Field(64, ge=1, le=4096, description="Width w of its layers, or of the LSTM's state.")

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Put the computed vectors before the model's inputs."""
        require_length(model, self.length)
        network = {"mlp": Mlp, "lstm": Lstm}[self.encoder]
        return Prompts(model, network(self.length, layout(model).hidden, self.width), self.saved())
