"""A device's private folder.

==================================  ====================================================================
``store/examples.sqlite``           sealed messages; beside it ``keys/`` where there is no keyring
``personal/<name>/``                a personal adapter, signed by the device's own key
``personal/current``                the name of the one that answers; replaced at once, so nobody sees half a change
``device.pem``                      the device's own key
``training.lock``                   held by who trains
==================================  ====================================================================
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from fedpeft.device.edge.store import ExampleStore
from fedpeft.device.folders import PERSON
from fedpeft.errors import StoreError
from fedpeft.files import private_folder, write_private

_CURRENT = "current"


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
    def _personal(self) -> Path:
        return self.folder / "personal"

    def store(self) -> ExampleStore:
        """Open the store with the default retention."""
        private_folder(self.folder)
        return ExampleStore(self.folder / "store")

    def current(self) -> Path | None:
        """Return the bundle of the personal adapter that is in force, or None.

        Raises
        ------
        StoreError
            When the file that says so is damaged.
        """
        path = self._personal / _CURRENT
        try:
            name = path.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        if not PERSON.fullmatch(name):
            raise StoreError(str(path), name[:40], "a bundle's name", "remove it, or personalize again")
        return self._personal / name

    def draft(self) -> Path:
        """Return where a new bundle may be written; nothing answers from there yet."""
        private_folder(self._personal)
        return self._personal / uuid4().hex

    def install(self, bundle: Path) -> None:
        """Let a new bundle be in force, and remove the others."""
        write_private(self._personal / _CURRENT, bundle.name.encode())
        self._remove(besides=bundle.name)

    def forget_adapters(self) -> None:
        """Remove all personal adapters."""
        (self._personal / _CURRENT).unlink(missing_ok=True)
        self._remove()

    def _remove(self, besides: str = "") -> None:
        for path in self._personal.glob("*"):
            if path.is_dir() and path.name != besides:
                shutil.rmtree(path, ignore_errors=True)
