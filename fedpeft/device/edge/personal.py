"""The person's own adapters: one for each base that answers, or is about to.

An adapter changes one base's weights and says nothing about another's, so each base has a slot of its own. There is
more than one only while a device goes over to a new base, or could still go back.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fedpeft.device.edge.slot import Slot
from fedpeft.files import private_folder


@dataclass(frozen=True)
class Personal:
    """A folder of slots, by the fingerprint of their base.

    Parameters
    ----------
    folder : Path
        Made with the first draft.
    """

    folder: Path

    def on(self, base: str) -> Slot:
        """Return the slot of a base."""
        return Slot(self.folder / base)

    def bases(self) -> list[str]:
        """Return the fingerprints of the bases that have an adapter."""
        return sorted(path.name for path in self.folder.glob("[0-9a-f]*") if self.on(path.name).current() is not None)

    def settle(self, base: str) -> None:
        """Remove what was learnt on other bases: it may be from texts since deleted. Between two bases both stay."""
        if not self._moving.exists():
            self.clear(besides={base})

    def move(self, under_way: bool) -> None:
        """Note that the device goes over to another base, or that it does not any more."""
        if under_way:
            private_folder(self.folder)
            self._moving.touch(mode=0o600)
        else:
            self._moving.unlink(missing_ok=True)

    def clear(self, besides: Collection[str] = ()) -> None:
        """Remove all adapters, but for those of some bases."""
        for path in self.folder.glob("*"):
            if path.is_dir() and path.name not in besides:
                self.on(path.name).clear()
                shutil.rmtree(path, ignore_errors=True)

    @property
    def _moving(self) -> Path:
        return self.folder / "moving"
