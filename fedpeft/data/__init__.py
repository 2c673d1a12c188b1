"""Federated datasets: one person's messages, or labelled texts, are one client."""

from fedpeft.data.federation import Client, Federation, load_federation
from fedpeft.data.labelled import Example, LabelledFederation, load_labelled
from fedpeft.data.messages import Conversation, Excerpt, Message

__all__ = [
    "Client",
    "Conversation",
    "Example",
    "Excerpt",
    "Federation",
    "LabelledFederation",
    "Message",
    "load_federation",
    "load_labelled",
]
