"""A device's private folder.

==================================  ====================================================================
``store/examples.sqlite``           sealed messages; beside it ``keys/`` where there is no keyring
``personal/<base>/``                the personal adapter for a base, signed by the device's own key; see :mod:`.slot`
``device.pem``                      the device's own key
``training.lock``                   held by who trains
``versions/``                       what was fetched of a federation's versions; see :mod:`fedpeft.device.versions`
==================================  ====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedpeft.device.edge.personal import Personal
from fedpeft.device.edge.store import ExampleStore
from fedpeft.files import private_folder


@dataclass(frozen=True)
class Home:
    """Where things are on a device.

    Parameters
    ----------
    folder : Path
    """

    folder: Path

    @property
    def key(self) -> Path:
        """The key that signs personal adapters."""
        return self.folder / "device.pem"

    @property
    def lock(self) -> Path:
        """What a trainer holds."""
        return self.folder / "training.lock"

    @property
    def personal(self) -> Personal:
        """The person's own adapters."""
        return Personal(self.folder / "personal")

    def store(self) -> ExampleStore:
        """Open the store with the default retention."""
        private_folder(self.folder)
        return ExampleStore(self.folder / "store")
