"""Which adapter answers on a device: the person's own once there is one, else the newest that everybody shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedpeft.device.edge.personal import Personal
from fedpeft.device.folders import PERSON, require_owner
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.runtime import Runtime
from fedpeft.errors import BundleError


class OwnAdapters:
    """The adapter in force, read again only when it changed.

    Parameters
    ----------
    personal : Personal
    owner : str
    runtime : Runtime
        Believing the device's own key.
    start : callable
        Returns the bundle of what answers before there is a personal one, or None.

    Raises
    ------
    BundleError
        When the owner's name could not be a folder's.
    """

    def __init__(self, personal: Personal, owner: str, runtime: Runtime, start: Callable[[], Path | None]) -> None:
        if not PERSON.fullmatch(owner):
            raise BundleError("owner", owner, "a name of letters, digits, '.', '_', '@', '+' and '-'")
        self._personal, self._owner, self._runtime, self._start = personal, owner, runtime, start
        self._base = runtime.manifest.base_fingerprint
        self._slot = personal.on(self._base)

    def load(self) -> LoadedAdapter | None:
        """Return the adapter that answers.

        Raises
        ------
        BundleError
            When its bundle is damaged or not this person's, or was learnt on another base.
        """
        chosen = self._chosen()
        try:
            return self._load(*chosen)
        except BundleError:
            # Another process may have put a newer one in its place while this one was read.
            newer = self._chosen()
            if newer == chosen:
                raise
            return self._load(*newer)

    def draft(self) -> Path:
        """Return where a new bundle may be written; nothing answers from there yet."""
        return self._slot.draft()

    def install(self, bundle: Path) -> None:
        """Let a new bundle answer, if it is whole and this person's."""
        self._own(bundle)
        self._slot.install(bundle)
        self._personal.settle(self._base)

    def _chosen(self) -> tuple[Path | None, Path | None]:
        return self._slot.current(), self._start()

    def _load(self, personal: Path | None, start: Path | None) -> LoadedAdapter | None:
        if personal is not None:
            return self._own(personal)
        if others := self._personal.bases():
            remedy = "personalize: it is learnt anew from what is kept"
            raise BundleError("personal adapter base", f"{others[0][:12]}…", f"the base {self._base[:12]}…", remedy)
        return None if start is None else self._runtime.load(start)

    def _own(self, bundle: Path) -> LoadedAdapter:
        adapter = self._runtime.load(bundle)
        require_owner(adapter.manifest, self._owner)
        return adapter
