"""A device's own store as a federation of one: the same splits and windows as everybody's."""

from __future__ import annotations

from fedpeft.data.messages import Conversation, Message
from fedpeft.device.edge.store import ExampleStore


class StoredFederation:
    """One client, whose conversations are what the store holds now.

    Parameters
    ----------
    store : ExampleStore
    owner : str
        What the client is called.
    """

    def __init__(self, store: ExampleStore, owner: str) -> None:
        self.name, self._store, self._owner = "this device", store, owner

    def client_ids(self) -> list[str]:
        """Return the one client's name."""
        return [self._owner]

    def conversations(self, client_id: str) -> list[Conversation]:
        """Read the store.

        Raises
        ------
        StoreError
            When the store cannot be read.
        """
        return [tuple(Message(e.text, e.mine, e.time) for e in talk) for talk in self._store.conversations()]
