"""What is asked, and what is advised, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from fedpeft.compare.row import Score, Value

Privacy = Literal["none", "secure", "dp"]
PRIVACIES: tuple[Privacy, ...] = ("none", "secure", "dp")


@dataclass(frozen=True)
class Wish:
    """What a person has and wants.

    Parameters
    ----------
    base, task : str
    examples : int
        Training examples of a typical client.
    memory, uplink : int or None
        Bytes of a client's process, and bytes it may send in a round; None: no limit.
    privacy : {"none", "secure", "dp"}
        The server may see updates; only their sum; only a noised sum.
    mixed : bool
        Whether devices differ much; ``memory`` is then the weakest one's.
    classes : int, optional
        Of a classification.
    batch, length : int, optional
        Of local training; by default as in the comparison.
    """

    base: str
    task: str
    examples: int
    memory: int | None = None
    uplink: int | None = None
    privacy: Privacy = "none"
    mixed: bool = False
    classes: int | None = None
    batch: int | None = None
    length: int | None = None


class Evidence(Value):
    """A row of the comparison that the advice rests on."""

    method: str
    algebra: str
    measured: Score
    trainable: int
    bytes_up: int
    peak_mb: float | None


class Proposal(Value):
    """A method, its size and its rule, and what is sent."""

    method: dict[str, Any] = Field(description="A scenario's [method] table.")
    rate: float
    partition: str = Field(description="Of the factors: all, alternate or ffa.")
    head: str = Field(description="shared or private, for classification.")
    trainable: int
    share: float = Field(description="trainable / numbers of the base.")
    bytes_up: int
    bytes_down: int
    adapter_bytes: int
    gain: float = Field(description="Expected share of full fine-tuning's gain; measured times the assumed factors.")
    measured: bool = Field(description="Whether exactly this method and size were measured, everything shared.")


class Plan(Proposal):
    """One way to do it, memory included."""

    dtype: str
    precision: str
    chunk: int | None
    checkpointing: bool
    batch: int
    micro_batch: int | None = Field(None, description="Examples in memory at once, where fewer than the batch.")
    window: int = Field(description="Tokens of an example.")
    memory_bytes: int = Field(description="Of the process; counted on shapes, see fedpeft.training.footprint.")


class Advice(Value):
    """What to do, and why; or which limit forbids everything."""

    fits: bool
    plan: Plan = Field(description="What fits best; where nothing fits, what comes nearest.")
    reasons: list[str]
    binding: list[str] = Field(description="The limits that the plan breaks: memory, uplink.")
    others: list[Proposal] = Field(description="The next best that may be sent; their memory is not counted.")
    evidence: list[Evidence]
    scenario: str = Field(description="The tables of a scenario file.")
