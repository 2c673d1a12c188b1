"""A federation of whoever is enrolled: each device brings its own text, and nobody else has a list of them.

A scenario names it ``enrolled``. On a device there is one client, whose conversations are its store's
(:class:`.stored.StoredFederation`); a server has no text, and learns from its registry who there is.
"""

from __future__ import annotations

from fedpeft.data.messages import Conversation
from fedpeft.errors import DataError

ENROLLED = "enrolled"
"""What a scenario calls it."""


class EnrolledFederation:
    """The same, where no device is: nobody's text is here."""

    name = "enrolled devices"

    def client_ids(self) -> list[str]:
        """Return no names: who takes part is not known beforehand."""
        return []

    def conversations(self, client_id: str) -> list[Conversation]:
        """Refuse: texts are on the devices.

        Raises
        ------
        DataError
        """
        raise DataError(f"text of {client_id}", "on their device", "to be read there alone")
