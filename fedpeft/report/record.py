"""A run's record as frozen values. The federation layer writes the files; ``folder`` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveInt

Control = Literal["base", "global", "local", "wrong_user", "personal"]
CONTROLS: tuple[Control, ...] = ("base", "global", "local", "wrong_user", "personal")
"""Who predicts a person's test text, in the order in which every table shows them."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NotNegative = Annotated[NonNegativeFloat, Field(allow_inf_nan=False)]


def perplexity(loss: float) -> float:
    """Return ``exp(loss)``, finite also for a model gone astray: a loss past 700 counts as 700."""
    return exp(min(loss, 700.0))


@dataclass(frozen=True, slots=True)
class Score:
    """How well one model predicted one text.

    Parameters
    ----------
    loss : float
        Nats per token.
    top1, top3 : float
        Shares of tokens that were the first, or among the first three, suggestions.
    keystrokes_saved : float
        Share of the keystrokes that accepting suggestions would have saved.
    tokens : int
        How many tokens were predicted.
    """

    loss: NotNegative
    top1: Share
    top3: Share
    keystrokes_saved: FiniteFloat
    tokens: NonNegativeInt

    @property
    def perplexity(self) -> float:
        """``exp(loss)``; the file's own value is not read."""
        return perplexity(self.loss)


@dataclass(frozen=True, slots=True)
class Round:
    """One line of ``metrics.jsonl``; round 0 is the bare base. Bytes are one client's, in that round."""

    round: NonNegativeInt
    validation: Score | None = None
    cohort: tuple[str, ...] = ()
    contributors: NonNegativeInt = 0
    failures: NonNegativeInt = 0
    train_loss: FiniteFloat | None = None
    update_norm: FiniteFloat | None = None
    quantization_error: FiniteFloat | None = None
    clipped: FiniteFloat | None = None
    bytes_up: NotNegative | None = None
    bytes_down: NotNegative | None = None
    seconds: FiniteFloat | None = None
    burnt: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """One line of ``people.jsonl``: a person's test text, predicted by five controls.

    Parameters
    ----------
    client : str
        Their name in the federation.
    gate : float
        Share of the private adapter that the validation gate let through; 0 kept the global adapter.
    wrong_user : str or None
        Whose adapter the control ``wrong_user`` is; None when nobody's, or not the same in all seeds of a study.
    steps, messages : int
        Private training steps, and messages they had to learn from.
    test : mapping of control to Score
        With all of :data:`CONTROLS`; ``wrong_user`` is absent when there was nobody else.
    device : str
        Their class of devices; empty where all are alike, or in the mean over a study's seeds.
    """

    client: str
    gate: Share
    steps: NonNegativeInt
    messages: NonNegativeInt
    test: Mapping[Control, Score]
    wrong_user: str | None = None
    device: str = ""

    def __post_init__(self) -> None:
        missing = [c for c in CONTROLS if c not in self.test and c != "wrong_user"]
        if missing:
            raise ValueError(f"test scores of {', '.join(missing)} too")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A client that could not be scored, and why."""

    client: str
    reason: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What one model wrote after each prompt, and its three suggestions there."""

    who: str
    texts: tuple[str, ...]
    suggestions: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of a conversation: by the assistant, who is the person, by the user they talk to, or by the system."""

    role: Literal["assistant", "user", "system"]
    content: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model wrote instead of a reply, and how near that is to it."""

    text: str
    rouge_l: Share


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A reply in a person's test text, and what models wrote instead; ``local`` has no adapter that is kept."""

    client: str
    context: tuple[Said, ...]
    wrote: str
    answers: Mapping[Control, Answer]


@dataclass(frozen=True, slots=True)
class Samples:
    """Prompts and how several models completed them, and people's replies written anew."""

    prompts: tuple[str, ...]
    completions: tuple[Completion, ...]
    held_out: tuple[HeldOut, ...] = ()

    def __post_init__(self) -> None:
        for completion in self.completions:
            if not len(completion.texts) == len(completion.suggestions) == len(self.prompts):
                raise ValueError(f"{len(self.prompts)} texts and suggestions by {completion.who!r}")


@dataclass(frozen=True, slots=True)
class BaseCard:
    """What a run says about its frozen base."""

    name: str
    fingerprint: str
    parameters: PositiveInt
    float32_bytes: PositiveInt
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """A class of devices: what it holds the base in, and how many clients are of it."""

    name: str
    dtype: str
    precision: str
    clients: PositiveInt


@dataclass(frozen=True, slots=True)
class Budget:
    """A class's budget of memory, in bytes, and how its clients save to stay within it; nameless without classes."""

    name: str
    budget_bytes: PositiveInt
    predicted_bytes: PositiveInt
    dtype: str
    precision: str
    checkpointing: bool
    chunk: int | None
    micro_batch: PositiveInt
    window: PositiveInt


@dataclass(frozen=True, slots=True)
class Run:
    """``run.json``: what ran, for how long, on what. ``seconds`` adds up over resumes."""

    name: str
    status: Literal["running", "interrupted", "trained", "finished"]
    engine: str
    base: BaseCard
    adapter_parameters: PositiveInt
    clients: NonNegativeInt
    seconds: NotNegative = 0.0
    started: str = ""
    schema_digest: str = ""
    devices: tuple[DeviceClass, ...] = ()
    budgets: tuple[Budget, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """All that a run folder holds.

    Parameters
    ----------
    run : Run
    rounds : tuple of Round
        In order; empty for a study, whose rounds are in ``seeds``.
    people : tuple of Person
        In order of their names; for a study each person is the mean over its seeds.
    skipped : tuple of Skipped
    samples : Samples or None
    scenario, data, environment : mapping
        As found in their files; empty when absent.
    scenario_text : str
        The resolved scenario as TOML.
    seeds : mapping of int to Record
        The runs of a study by seed; empty for a single run.
    """

    run: Run
    rounds: tuple[Round, ...] = ()
    people: tuple[Person, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    samples: Samples | None = None
    scenario: Mapping[str, Any] = field(default_factory=dict)
    scenario_text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[int, Record] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """What was learnt, ``next_word`` where the scenario does not say."""
        table = self.scenario.get("task")
        return str(table.get("kind", "next_word")) if isinstance(table, Mapping) else "next_word"

    @property
    def histories(self) -> tuple[tuple[Round, ...], ...]:
        """The rounds of each seed; of the one run when this is no study."""
        return tuple(r.rounds for r in self.seeds.values()) or (self.rounds,)
