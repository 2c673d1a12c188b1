"""An answer in the two shapes that OpenAI's clients read: a completion, and a message of a chat; whole or in parts."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Literal

from fedpeft.serve.faults import Fault, broken
from fedpeft.serve.job import Reason

Json = dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """Tokens read and written."""

    prompt: int
    completion: int

    def json(self) -> Json:
        """Return OpenAI's object."""
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


@dataclass(frozen=True)
class Answer:
    """What does not change from part to part.

    Parameters
    ----------
    kind : {"completion", "chat"}
    model : str
        The adapter's name.
    base : str
        The base's fingerprint.
    """

    kind: Literal["completion", "chat"]
    model: str
    base: str
    identity: str = field(default_factory=lambda: token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, reason: Reason, usage: Usage) -> Json:
        """Return an answer that is complete."""
        if self.kind == "completion":
            return self._envelope("text_completion", self._text(text, reason)) | {"usage": usage.json()}
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        return self._envelope("chat.completion", choice) | {"usage": usage.json()}

    def opening(self) -> Json | None:
        """Return what a stream begins with, if anything."""
        return self._delta({"role": "assistant", "content": ""}, None) if self.kind == "chat" else None

    def part(self, text: str, reason: Reason | None) -> Json:
        """Return a part of an answer; with a reason it is the last."""
        if self.kind == "completion":
            return self._envelope("text_completion", self._text(text, reason))
        return self._delta({"content": text} if text else {}, reason)

    def closing(self, usage: Usage) -> Json:
        """Return what a stream tells about its tokens, for those who ask."""
        kind = "text_completion" if self.kind == "completion" else "chat.completion.chunk"
        return self._envelope(kind, None) | {"usage": usage.json()}

    def _text(self, text: str, reason: Reason | None) -> Json:
        return {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}

    def _delta(self, delta: Json, reason: Reason | None) -> Json:
        return self._envelope(
            "chat.completion.chunk", {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        )

    def _envelope(self, kind: str, choice: Json | None) -> Json:
        return {
            "id": f"{'cmpl' if self.kind == 'completion' else 'chatcmpl'}-{self.identity}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"fp_{self.base[:12]}",
            "choices": [choice] if choice else [],
        }


def excuse(reason: Reason) -> Fault:
    """Say why there is no answer."""
    if reason == "timeout":
        return Fault(504, "The answer took too long.", "server_error", code="timeout")
    if reason == "shutdown":
        return Fault(503, "The service is shutting down.", "server_error", code="shutting_down", retry_after=5)
    return broken()


def event(content: Json | str) -> bytes:
    """Return one server-sent event, in ASCII: some clients would end its line at a U+2028 too."""
    data = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
    return f"data: {data}\n\n".encode()


DONE = event("[DONE]")
