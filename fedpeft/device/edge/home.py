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

import shutil
from dataclasses import dataclass
from pathlib import Path

from fedpeft.device.bundle import Bundle
from fedpeft.device.edge.personal import Personal
from fedpeft.device.edge.slot import Slot
from fedpeft.device.edge.store import ExampleStore
from fedpeft.files import private_folder

OWN_PARTS = "own parts"
"""In the manifest of a global adapter's bundle: whether parts of it were trained here alone."""

# What rounds keep on a device (``fedpeft.federation``): its sessions, and updates that wait to be sent.
_SESSION, _UNSENT = "session", ("request", "reply", "answered")


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

    def unlearn(self) -> None:
        """Remove all that was learnt from the person's text; what all learnt together stays.

        Of the rounds stays what must: to which sessions this device has agreed, because it may not go back to one.
        """
        self.personal.clear()
        for client in self.federation.glob("clients/*"):
            for path in client.iterdir():
                if path.name != _SESSION:
                    _remove(path)
        for name in _UNSENT:
            _remove(self.federation / "node" / name)
        current = self.shared.current()
        if current is not None and Bundle.open(current, "adapter").manifest.details.get(OWN_PARTS):
            self.shared.clear()

    def store(self) -> ExampleStore:
        """Open the store with the default retention."""
        private_folder(self.folder)
        return ExampleStore(self.folder / "store")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
