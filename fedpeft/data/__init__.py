"""Federated datasets: one person's messages are one client."""

from fedpeft.data.federation import Client, Federation, load_federation
from fedpeft.data.messages import Conversation, Excerpt, Message

__all__ = ["Client", "Conversation", "Excerpt", "Federation", "Message", "load_federation"]
