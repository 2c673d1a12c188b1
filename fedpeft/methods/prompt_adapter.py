"""Pfeiffer adapters and a prompt together: bottlenecks inside, vectors before the text.

    h = f_{y + U g(D y + a) + b}([P; E(x)])

Sends D, a, U, b and P. The mean is right near a common start only, for the bottlenecks as networks and for P as a set
(:mod:`~fedpeft.methods.pfeiffer`, :mod:`~fedpeft.methods.prompt_tuning`).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fedpeft.methods.hybrid import Hybrid
from fedpeft.methods.method import Algebra, register
from fedpeft.methods.pfeiffer import Pfeiffer
from fedpeft.methods.prompt_tuning import PromptTuning


@register
class PromptAdapter(Hybrid):
    """Pfeiffer adapters and a prompt."""

    name: ClassVar[str] = "prompt_adapter"
    algebra: ClassVar[Algebra] = Algebra.NETWORK
    mergeable: ClassVar[bool] = False
    precedes: ClassVar[bool] = True
    equation: ClassVar[str] = "h = f_{y + U g(D y + a) + b}([P; E(x)])"
    source: ClassVar[str] = "Pfeiffer et al. 2021, arXiv:2005.00247; Lester et al. 2021, arXiv:2104.08691"
    sends: ClassVar[str] = "D, a, U, b and P: 2 d m + m + d per layer and k d"
    limits: ClassVar[str] = "Those of both parts: slower at inference, longer texts; needs a common start."

    adapter: Pfeiffer = Field(Pfeiffer(), description="The bottlenecks, with pfeiffer's keys.")
    prompt: PromptTuning = Field(PromptTuning(), description="The prompt, with prompt_tuning's keys.")
