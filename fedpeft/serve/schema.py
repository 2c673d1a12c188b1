"""What a request may say: OpenAI's fields, those of them that mean something here, and two of ours.

Fields that OpenAI knows and that would change the answer in a way this service cannot are refused unless they ask for
nothing; unknown fields are refused, as OpenAI refuses them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from fedpeft.device import chat as device

_ROLES = {"developer": "system"}

Stop = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Model = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(_Body):
    """What a stream ends with."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Generation(_Body):
    """What completions and chats have in common."""

    model: Model = Field(description="An adapter: a person's name, 'global' or 'base'.")
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, le=1 << 20, description="Draw among this many likeliest; 0 means all.")
    repetition_penalty: float = Field(1.0, ge=0.01, le=10)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    user: str | None = Field(None, description="Ignored: the token says who asks.")
    presence_penalty: Annotated[float, Field(ge=0, le=0)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] = 0.0
    logit_bias: Annotated[dict[str, JsonValue], Field(max_length=0)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts before which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionRequest(Generation):
    """The body of ``POST /v1/completions``."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    max_tokens: int | None = Field(16, ge=1, le=1 << 20)
    best_of: Literal[1] = 1
    echo: Literal[False] = False
    logprobs: None = None
    suffix: None = None

    @property
    def text(self) -> str:
        """The beginning that is to be completed."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class TextPart(_Body):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(_Body):
    """Something that was said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None

    @property
    def text(self) -> str:
        """What it says."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ResponseFormat(_Body):
    """The only one there is."""

    type: Literal["text"]


class ChatRequest(Generation):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_tokens: int | None = Field(None, ge=1, le=1 << 20)
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 20)
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = Field(None, description="Ignored.")

    @property
    def said(self) -> list[device.Message]:
        """The messages as a base is shown them."""
        return [{"role": _ROLES.get(m.role, m.role), "content": m.text} for m in self.messages]


class SuggestRequest(_Body):
    """The body of ``POST /v1/suggest``."""

    model: Model
    text: str = Field(description="What was typed so far; if it ends within a word, that word is completed.")
    count: int = Field(3, ge=1, le=10)
