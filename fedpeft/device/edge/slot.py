"""A place for one bundle of which there are newer and newer ones: the one in force is replaced at once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from fedpeft.device.folders import PERSON
from fedpeft.errors import StoreError
from fedpeft.files import private_folder, write_private

_CURRENT = "current"


@dataclass(frozen=True)
class Slot:
    """A folder with a bundle under a name of its own, and a file that names it.

    Parameters
    ----------
    folder : Path
        Made with the first draft.
    """

    folder: Path

    def current(self) -> Path | None:
        """Return the bundle that is in force, or None.

        Raises
        ------
        StoreError
            When the file that says so is damaged.
        """
        path = self.folder / _CURRENT
        try:
            name = path.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        if not PERSON.fullmatch(name):
            raise StoreError(str(path), name[:40], "a bundle's name", "remove it, and make the bundle again")
        return self.folder / name

    def draft(self) -> Path:
        """Return where a new bundle may be written; nothing answers from there yet."""
        private_folder(self.folder)
        return self.folder / uuid4().hex

    def install(self, bundle: Path) -> None:
        """Let a new bundle be in force, and remove the others."""
        write_private(self.folder / _CURRENT, bundle.name.encode())
        self._remove(besides=bundle.name)

    def clear(self) -> None:
        """Remove whatever is there."""
        (self.folder / _CURRENT).unlink(missing_ok=True)
        self._remove()

    def _remove(self, besides: str = "") -> None:
        for path in self.folder.glob("*"):
            if path.is_dir() and path.name != besides:
                shutil.rmtree(path, ignore_errors=True)
