"""A device's private folder.

==================================  ====================================================================
``store/examples.sqlite``           sealed messages; beside it ``keys/`` where there is no keyring
``personal/<base>/``                the personal adapter for a base, signed by the device's own key; see :mod:`.slot`
``device.pem``                      the device's own key
``training.lock``                   held by who trains
``versions/``                       what was fetched of a federation's versions; see :mod:`fedpeft.device.versions`
``federation/``                     the device's place in a federation; see :mod:`.membership`
==================================  ====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedpeft.device.edge.personal import Personal
from fedpeft.device.edge.slot import Slot
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
        """The key that signs what this device makes."""
        return self.folder / "device.pem"

    @property
    def lock(self) -> Path:
        """What a trainer holds."""
        return self.folder / "training.lock"

    @property
    def federation(self) -> Path:
        """What belongs to the device's membership."""
        return self.folder / "federation"

    @property
    def personal(self) -> Personal:
        """The person's own adapters."""
        return Personal(self.folder / "personal")

    @property
    def base(self) -> Slot:
        """The base's graph, where it did not come with the app."""
        return Slot(self.federation / "base")

    @property
    def shared(self) -> Slot:
        """The newest global adapter, as of the last rounds that this device took part in."""
        return Slot(self.federation / "global")

    def store(self) -> ExampleStore:
        """Open the store with the default retention."""
        private_folder(self.folder)
        return ExampleStore(self.folder / "store")
