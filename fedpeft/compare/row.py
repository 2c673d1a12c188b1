"""What a comparison finds, as values that read from and write to JSON.

    attainment = quality / quality of full fine-tuning
    gain share = (quality - base) / (full fine-tuning - base)
    loss share = (base - loss) / (base - full fine-tuning), of the losses

Attainment flatters everything where the base is good already; the shares count only what training added. The loss
share is the steadier one: a loss moves with every prediction, a count of hits only with those that change sides. For a
language model the base is the frozen base; for classification the frozen base under a head that was trained alone,
because under an untrained head it is no model.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT: Literal["fedpeft-comparison/1"] = "fedpeft-comparison/1"
FULL = "full"
"""The method that trains everything: what the others are held against."""


class Value(BaseModel):
    """A value that knows its fields, cannot change and holds no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Score(Value):
    """How good a model is on the held-out test text."""

    examples: int = Field(description="Training examples it learnt from.")
    quality: float = Field(description="Top-3 accuracy of the next word, or accuracy of the class.")
    loss: float = Field(description="Nats per prediction.")
    perplexity: float = Field(description="exp(loss).")
    attainment: float | None = Field(None, description="quality / full fine-tuning's, of the same examples and steps.")
    gain_share: float | None = Field(
        None, description="(quality - base) / (full - base), null where full fine-tuning gains nothing."
    )
    loss_share: float | None = Field(None, description="The same of the losses.")

    def against(self, base: Score | None, full: Score | None) -> Score:
        """Return the same score with its place between base and full fine-tuning."""
        attained = self.quality / full.quality if full and full.quality > 0 else None
        gain = full.quality - base.quality if full and base else 0.0
        share = (self.quality - base.quality) / gain if base and gain > 0 else None
        drop = base.loss - full.loss if full and base else 0.0
        loss_share = (base.loss - self.loss) / drop if base and drop > 0 else None
        return self.model_copy(update={"attainment": attained, "gain_share": share, "loss_share": loss_share})


class Row(Value):
    """One method that trained, was saved, came back to equal outputs, and federated."""

    method: str
    settings: dict[str, Any] = Field(description="The method's own fields.")
    algebra: str = Field(description="What the mean of its parameters means: linear, multilinear, norm, network, set.")
    rate: float = Field(description="Learning rate.")
    trainable: int = Field(description="Numbers trained, a classifier's head among them.")
    share: float = Field(description="trainable / numbers of the base.")
    adapter_bytes: int = Field(description="Bytes of the files on disk.")
    bytes_up: int = Field(description="Bytes a client sends in a round.")
    bytes_down: int = Field(description="Bytes a client receives in a round.")
    step_ms: float = Field(description="Median processor time of a training step, one thread.")
    infer_ms: float = Field(description="Median processor time of one test text, adapter attached.")
    merged_ms: float | None = Field(None, description="The same with the adapter merged; null where it cannot be.")
    merge_error: float | None = Field(None, description="Largest change of a logit by merging, over the largest logit.")
    peak_mb: float | None = Field(None, description="Most memory in training above the loaded base, in MB.")
    base_mb: float = Field(description="Bytes of the base's weights as this method holds them, in MB.")
    quality: float = Field(description="Of the largest data size; see sizes.")
    loss: float
    perplexity: float
    attainment: float | None
    gain_share: float | None
    loss_share: float | None
    sizes: dict[str, Score] = Field(description="Share of the pooled training examples -> score.")
    reload_error: float = Field(description="Largest difference of a logit after saving and loading into a new model.")
    federates: bool = Field(description="Two clients' mean was finite and better than the base on their validation.")
    federated: dict[str, float] = Field(description="Validation loss of the two clients before and after that round.")


class Failure(Value):
    """A method that is no row, and why."""

    method: str
    stage: str = Field(description="profile, train, reload or federate.")
    kind: Literal["refused", "failed"] = Field(description="refused: it says that it cannot; failed: it could not.")
    reason: str


class Reference(Value):
    """The base, against which gains are counted."""

    what: str = Field(description="The frozen base, or the base under a head trained alone.")
    parameters: int
    trainable: int = Field(description="Numbers of a classifier's head: every method trains these too.")
    infer_ms: float = Field(description="Median processor time of one test text.")
    peak_mb: float | None = Field(None, description="Memory to run one batch forward, above the loaded base, in MB.")
    sizes: dict[str, Score]


class Shape(Value):
    """The sizes that memory depends on; as a comparison records them."""

    parameters: int
    linear: int = Field(description="Numbers in the linear layers that quantization packs.")
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    vocabulary: int = Field(description="Width of the logits: pieces of text, or classes.")
    batch: int
    length: int = Field(description="Longest example of a training batch, in tokens.")
    predictions: int = Field(description="Most predictions scored in a training batch.")


class Comparison(Value):
    """One scenario, many methods."""

    format: Literal["fedpeft-comparison/1"] = FORMAT
    name: str
    scenario: dict[str, Any] = Field(description="The scenario, complete.")
    task: str
    metric: str = Field(description="What quality is: top3 or top1.")
    base: str
    seed: int
    steps: int
    batch: int
    clients: int
    train_examples: int = Field(description="Of all clients, pooled.")
    test_examples: int
    test_predictions: int = Field(description="Words or classes that quality is the share of.")
    shape: Shape
    reference: Reference | None = Field(None, description="Null until it has been measured.")
    rows: list[Row] = []
    failures: list[Failure] = []
    missing: list[str] = Field([], description="Methods that have not been run to their end yet.")
    machine: dict[str, str] = {}

    @property
    def noise(self) -> float:
        """The standard error of a quality by the finite test text; between methods on the same text it is smaller."""
        best = max((row.quality for row in self.rows), default=0.5)
        return float((best * (1 - best) / max(1, self.test_predictions)) ** 0.5)

    @property
    def by_name(self) -> dict[str, Row]:
        """The rows by method."""
        return {row.method: row for row in self.rows}
