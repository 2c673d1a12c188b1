"""LoRA and a prompt together: weights that adapt, and vectors before the text that steer.

    h = f_{W + s B A}([P; E(x)])

Sends A, B and P. The rules of both hold: factor by factor the mean is right, between the factors it is not, and the
vectors of P are a set (:mod:`~fedpeft.methods.lora`, :mod:`~fedpeft.methods.prompt_tuning`).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fedpeft.methods.hybrid import Hybrid
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Algebra, register
from fedpeft.methods.prompt_tuning import PromptTuning


@register
class LoraPrompt(Hybrid):
    """LoRA and a prompt."""

    name: ClassVar[str] = "lora_prompt"
    algebra: ClassVar[Algebra] = Algebra.MULTILINEAR
    mergeable: ClassVar[bool] = False
    precedes: ClassVar[bool] = True
    equation: ClassVar[str] = "h = f_{W + s B A}([P; E(x)])"
    source: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685; Lester et al. 2021, arXiv:2104.08691"
    sends: ClassVar[str] = "A, B and P: r (in + out) per matrix and k d"
    limits: ClassVar[str] = "Those of both parts: two factors whose mean is not exact, and a set."

    lora: Lora = Field(Lora(), description="The LoRA part, with lora's keys.")
    prompt: PromptTuning = Field(PromptTuning(), description="The prompt, with prompt_tuning's keys.")
