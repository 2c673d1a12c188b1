"""What a person wrote, and what they were answering."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, seen from one person's device.

    Parameters
    ----------
    text : str
        The message as typed.
    mine : bool
        Whether the owner of the device wrote it. Only these are learnt from; the others are context.
    time : float
        When it was sent, in seconds; only the order matters.
    system : bool
        Whether it tells a chat model what it is there for, at the beginning of a conversation: nobody's own words.
    """

    text: str
    mine: bool
    time: float
    system: bool = False


Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A stretch of one conversation that belongs to one split.

    Parameters
    ----------
    messages : tuple of Message
        In order of time.
    first : int
        ``messages[first:]`` belong to the split; the earlier ones are context and are never labelled.
    """

    messages: Conversation
    first: int = 0

    def mine(self) -> list[str]:
        """Return the texts of the split that the owner wrote."""
        return [m.text for m in self.messages[self.first :] if m.mine]
