"""Clients that are lost at a stage of a round, with or without having done what they were asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Context, Message

STAGES = ("train", "survivors", "pairs", "lock", "unmask")


@dataclass
class Vanishing:
    """A mod for clients that all live in this process.

    Parameters
    ----------
    leaving : mapping of int to str
        Stage at which a client, by its number, is lost until the round ends.
    rounds : iterable of int
        In which rounds.
    purpose : {"train", "evaluate"}
        In which sum of the round.
    answers : bool
        Whether its reply is lost rather than itself: it has then done and noted what it was asked.
    """

    leaving: Mapping[int, str]
    rounds: Iterable[int] = (1,)
    purpose: str = "train"
    answers: bool = False
    seen: list[tuple[int, str]] = field(default_factory=list)
    _now: tuple[int, str] = (-1, "")
    _gone: set[int] = field(default_factory=set)

    def __call__(self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        client, kind = int(context.node_config["partition-id"]), message.metadata.message_type
        stage = kind.removeprefix("query.")
        if kind in ("train", "evaluate"):
            now = int(message.content.config_records["plan"]["round"]), kind
            if now != self._now:
                self._now, self._gone = now, set()
            stage = "train"
        concerned = self._now[0] in self.rounds and self._now[1] == self.purpose and stage in STAGES
        if concerned:
            self.seen.append((client, stage))
            if self.leaving.get(client) == stage:
                self._gone.add(client)
            if client in self._gone:
                if self.answers:
                    call_next(message, context)
                raise RuntimeError(f"lost at {stage}")
        return call_next(message, context)
