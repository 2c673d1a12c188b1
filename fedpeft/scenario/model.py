"""A scenario's tables. The descriptions below are the reference documentation of the file."""

from __future__ import annotations

import json
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import Field

from fedpeft.adapters.partition import PARTITIONS, Partition, keeping
from fedpeft.aggregation.optimizers import Aggregation
from fedpeft.base.placement import DEVICE
from fedpeft.data.enrolled import ENROLLED
from fedpeft.methods import Method, parse_method
from fedpeft.scenario.devices import DeviceTable, Dtype, Precision
from fedpeft.secagg import SECURE
from fedpeft.training import Training
from fedpeft.training.config import Schedule, Table
from fedpeft.training.shared_logits import content_hash

_WEIGHT_CAPS = {"next_word": 20_000, "chat": 20_000, "classification": 500, "reply_ranking": 500, "caption": 2_000}


class TaskTable(Table):
    """``[task]``: what is learnt."""

    kind: Literal["next_word", "chat", "classification", "reply_ranking", "caption"] = Field(
        "next_word",
        description="next_word: a personal keyboard; chat: replies and answers to instructions; classification: "
        "classes of texts; reply_ranking: which reply a person would give; caption: words for pictures.",
    )
    head: Literal["shared", "private"] = Field(
        "shared", description="Whether a classifier's head is averaged, or stays with each client (FedPer)."
    )
    pooling: Literal["mean", "model"] = Field(
        "mean", description="What a classifier's head reads: the mean of the hidden states, or the model's own pooler."
    )


class DataTable(Table):
    """``[data]``: whose text."""

    federation: str = Field(
        "keyboard",
        description="enrolled: devices of a real server, each with its own text; keyboard, shakespeare, a folder of "
        "JSONL files, or module:callable. For classification: intents, "
        "banking, intents+banking, or a folder whose lines have labels. For captions: shapes, or a folder whose lines "
        "have images.",
    )
    clients: int | None = Field(None, ge=2, description="Use only the first so many clients.")
    window: int = Field(64, ge=8, le=4096, description="Tokens per training window, or read of a text.")
    max_windows: int | None = Field(
        None, ge=1, description="Keep only the latest so many training windows, chat examples or texts of a client."
    )
    packing: bool | None = Field(
        None,
        description="Lay several chat examples into one window; by default so for a chat, unless the method puts "
        "vectors before the text.",
    )


class BaseTable(Table):
    """``[base]``: the frozen model."""

    name: str = Field("keyboard", description="keyboard, minilm, tiny-llava, a local folder or a hub id.")
    dtype: Dtype = Field("bfloat16", description="Precision the base computes in; adapters are always float32.")
    precision: Precision | None = Field(
        None,
        description="What the base's weights are quantized to; by default what the method asks for. auto: the most "
        "exact that training.memory allows.",
    )
    device: str = Field(
        "cpu",
        pattern=f"^({DEVICE})$",
        description="Where it computes: cpu, cuda, cuda:1, or auto, which is cuda where there is one. Not part of what "
        "clients must agree on.",
    )


class FederationTable(Table):
    """``[federation]``: rounds and who takes part in them."""

    rounds: int = Field(10, ge=1, description="Rounds to run.")
    cohort: int = Field(16, ge=2, description="Clients asked in a round.")
    oversample: int = Field(
        0,
        ge=0,
        description="Clients asked in a round beyond the cohort: it goes on when as many as the cohort have answered, "
        "and who is later is left out.",
    )
    stragglers: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of those asked who answer too late in a simulation, by seed; on a real server clients are "
        "late by themselves.",
    )
    deadline: float | None = Field(
        None,
        gt=0,
        description="Seconds that a client of a real server has for one request; at most, and by default, what the "
        "server's own settings say.",
    )
    renew: int = Field(
        5,
        ge=1,
        description="Rounds for which a real server's session lasts at least, before it begins another with those who "
        "have come and without those who have gone.",
    )
    minimum: int = Field(2, ge=2, description="Contributors below which a round is burnt.")
    partition: str = Field(
        "all", description="What is shared: all, ffa (only B), alternate (B, then A) or fedsa (A; B stays)."
    )
    private: list[str] | None = Field(
        None,
        description="Parts of tensor names that stay with the client; by default what the method keeps: routers.",
    )
    weighting: Literal["tokens", "uniform"] = Field(
        "tokens", description="Weigh a client by its training tokens, or all alike."
    )
    weight_cap: int | None = Field(
        None,
        ge=1,
        description="Predictions to train on above which a client's weight is 1; by default 20000 pieces of text, 500 "
        "texts to classify, or 2000 pieces of captions.",
    )
    schedule: Schedule = Field(
        "constant",
        description="Course of the clients' learning rate over the rounds; a falling one lets the mean settle.",
    )
    panel: int = Field(16, ge=0, description="Clients whose validation text scores the global adapter.")
    panel_windows: int = Field(32, ge=1, description="Validation windows each of them scores.")


class ChannelTable(Table):
    """``[channel]``: how updates become integers and how their sum is opened."""

    name: str = Field(
        "pairwise",
        description="pairwise: secure aggregation, the server opens the sum and nothing else; plain: it could read "
        "each update.",
    )
    bits: int = Field(16, ge=4, le=32, description="Size of the ring; the wire width of a coordinate.")
    range: float | Literal["auto", "adaptive"] = Field(
        "auto",
        description="Largest change of a coordinate that is not clipped; auto: steps × learning rate, that of the head "
        "where one is shared; adaptive: auto at first, then what the last round's mean norm asks for.",
    )
    rotate: bool = Field(
        False, description="Rotate updates by a seeded Hadamard matrix first: heavy tails need no range of their own."
    )
    corrupt: float = Field(
        0.1, ge=0, lt=0.5, description="Share of a cohort that may collude with the server without a client being read."
    )
    dropout: float = Field(
        0.2, ge=0, lt=0.5, description="Share of a cohort that may vanish in a round, at any stage, without burning it."
    )


class PersonalizationTable(Table):
    """``[personalization]``: what each person keeps after the last round."""

    people: int = Field(20, ge=0, description="How many clients personalize and are scored.")
    rank: int = Field(4, ge=1, le=256, description="Rank of the private adapter on top of the global one.")
    gate: list[float] = Field(
        [0.0, 0.5, 1.0],
        min_length=1,
        description="Shares of the private adapter that validation chooses from; 0 keeps the global adapter.",
    )
    training: Training = Field(
        default_factory=lambda: Training(steps=60, learning_rate=1e-3),
        description="How the private adapter is trained; the keys of [training].",
    )


class SamplesTable(Table):
    """``[samples]``: text that the report shows."""

    prompts: list[str] = Field(
        ["I think ", "what do you ", "haha yeah "], description="Prompts completed side by side."
    )
    people: int = Field(2, ge=0, description="How many people's adapters complete them.")
    tokens: int = Field(16, ge=1, le=256, description="Length of a completion, or of a reply.")
    held_out: int = Field(
        3,
        ge=0,
        le=100,
        description="How many replies in each scored person's test text are written anew, in a chat; 0: none, and no "
        "text of theirs is shown.",
    )


class ExportTable(Table):
    """``[export]``: what devices get."""

    precision: Literal["float32", "int8", "int4", "dynamic-int8"] = Field(
        "float32",
        description="Of the base's matrices: int4 and int8 in blocks of 32 weights, dynamic-int8 for browsers and "
        "encoders. Adapters compute in float32 over any of them.",
    )
    variant: Literal["optional", "required", "rows"] = Field(
        "optional",
        description="How the graph takes adapters: inputs with neutral defaults; inputs that must be fed, as in a "
        "browser; an adapter for each row of a batch, as in a service.",
    )
    sites: list[Literal["lora", "scale", "bias", "bottleneck", "prompt", "all"]] = Field(
        ["lora"], description="Places for adapters in the graph, besides those that this run's own adapters fill."
    )
    backend: Literal["native", "torch"] | None = Field(
        None,
        description="Who makes the graph: written by hand, or traced by torch; by default native where there is one.",
    )
    adapters: Literal["float32", "float16"] = Field(
        "float32", description="What adapters' numbers are written in; float16 takes half the bytes."
    )


class Scenario(Table):
    """One federated run, complete: the same file gives the same numbers in every engine."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Names the run folder.")
    description: str = Field("", description="One sentence for the report.")
    seed: int = Field(0, ge=0, lt=2**63, description="Decides every choice of chance.")
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(
        [], description="Run once per seed and pool the results; instead of seed."
    )
    task: TaskTable = Field(default_factory=TaskTable, description="What is learnt.")
    data: DataTable = Field(default_factory=DataTable, description="Whose text.")
    base: BaseTable = Field(default_factory=BaseTable, description="The frozen model.")
    devices: list[DeviceTable] = Field(
        [],
        description="Classes of devices, which hold the same base in other precisions; without any, all clients are "
        "alike.",
    )
    method: dict[str, Any] = Field(
        default_factory=lambda: {"name": "lora"}, description="The PEFT method and its own fields."
    )
    training: Training = Field(default_factory=lambda: Training(steps=10), description="Local training in a round.")
    federation: FederationTable = Field(default_factory=FederationTable, description="Rounds and cohorts.")
    channel: ChannelTable = Field(default_factory=ChannelTable, description="From updates to their sum.")
    aggregation: Aggregation = Field(
        default_factory=Aggregation, description="From the sum to the next global adapter."
    )
    personalization: PersonalizationTable = Field(
        default_factory=PersonalizationTable, description="What each person keeps."
    )
    samples: SamplesTable = Field(default_factory=SamplesTable, description="Text in the report.")
    export: ExportTable = Field(default_factory=ExportTable, description="What devices get.")

    @cached_property
    def shared_method(self) -> Method:
        """The method of the global adapter."""
        return parse_method(self.method)

    @cached_property
    def private_method(self) -> Method | None:
        """The method of a private adapter on the shared one; None where a person's is the shared one, fine-tuned."""
        if self.task.kind == "classification" or not self.shared_method.joins:
            return None  # a head is personal too, and two heads do not add up
        return self.shared_method.private(self.personalization.rank)

    @property
    def weight_cap(self) -> int:
        """Predictions above which a client's weight is 1. Small weights waste the ring's levels."""
        return self.federation.weight_cap or _WEIGHT_CAPS[self.task.kind]

    @property
    def packing(self) -> bool:
        """Whether a window holds several examples."""
        if self.data.packing is not None:
            return self.data.packing
        return self.task.kind == "chat" and not self.shared_method.precedes

    @property
    def enrolled(self) -> bool:
        """Whether the clients are whoever is enrolled, each with text of its own."""
        return self.data.federation == ENROLLED

    @property
    def asked(self) -> int:
        """How many clients are asked in a round."""
        return self.federation.cohort + self.federation.oversample

    @property
    def vanishing(self) -> float:
        """The share of those asked who may vanish: who is not waited for, and ``channel.dropout`` of the others."""
        if not self.federation.oversample:
            return self.channel.dropout
        return (self.federation.oversample + self.channel.dropout * self.federation.cohort) / self.asked

    @property
    def secure(self) -> bool:
        """Whether the server sees sums only."""
        return self.channel.name in SECURE

    @cached_property
    def precision(self) -> str:
        """What the base's weights are quantized to."""
        return self.base.precision or self.shared_method.precision

    @cached_property
    def classes(self) -> tuple[DeviceTable, ...]:
        """The classes of devices with nothing left out: ``[[devices]]``, or one without a name for all clients."""
        whole = {"dtype": self.base.dtype, "precision": self.precision, "memory": self.training.memory}
        given = self.devices or [DeviceTable.model_construct(name="", share=1.0)]
        return tuple(
            device.model_copy(update={k: v for k, v in whole.items() if getattr(device, k) is None}) for device in given
        )

    def partition(self, head: tuple[str, ...] = ()) -> Partition:
        """Return who trains and who keeps which tensor in which round.

        Parameters
        ----------
        head : tuple of str
            Names of the base's head.
        """
        wanted = self.federation.private
        kept = tuple(self.shared_method.keeps if wanted is None else wanted)
        heads = head if self.task.head == "private" else ()
        return keeping(PARTITIONS[self.federation.partition], kept + heads)

    @cached_property
    def digest(self) -> str:
        """The sha256 of everything that decides the numbers; clients and server compare it."""
        decisive = self.model_dump(mode="json", exclude={"name", "description", "seeds", "samples", "export"})
        del decisive["base"]["device"]
        for patience in ("deadline", "renew"):
            del decisive["federation"][patience]
        for training in (decisive["training"], decisive["personalization"]["training"]):
            taught = training["distillation"]
            if taught and taught["logits"]:
                taught["logits"] = content_hash(taught["logits"])
        return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def with_seed(self, seed: int) -> Scenario:
        """Return the same scenario for one seed."""
        # Built anew, not copied: a copy would keep what was cached for the old seed.
        return Scenario(**{**self.model_dump(), "seed": seed, "seeds": []})
