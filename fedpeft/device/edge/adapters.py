"""Which adapter answers on a device: the person's own once there is one, else the one that came with the app."""

from __future__ import annotations

from pathlib import Path

from fedpeft.device.edge.home import Home
from fedpeft.device.folders import PERSON, require_owner
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.runtime import Runtime
from fedpeft.errors import BundleError


class OwnAdapters:
    """The adapter in force, read again only when it changed.

    Parameters
    ----------
    home : Home
    owner : str
    runtime : Runtime
        Believing the device's own key.
    start : Path or None
        Bundle of what answers before there is a personal one.

    Raises
    ------
    BundleError
        When the owner's name could not be a folder's.
    """

    def __init__(self, home: Home, owner: str, runtime: Runtime, start: Path | None) -> None:
        if not PERSON.fullmatch(owner):
            raise BundleError("owner", owner, "a name of letters, digits, '.', '_', '@', '+' and '-'")
        self._home, self._owner, self._runtime, self._start = home, owner, runtime, start

    def load(self) -> LoadedAdapter | None:
        """Return the adapter that answers.

        Raises
        ------
        BundleError
            When its bundle is damaged or not this person's.
        """
        chosen = self._home.current()
        try:
            return self._load(chosen)
        except BundleError:
            # Another process may have put a newer one in its place while this one was read.
            newer = self._home.current()
            if newer == chosen:
                raise
            return self._load(newer)

    def install(self, bundle: Path) -> None:
        """Let a new bundle answer, if it is whole and this person's."""
        self._personal(bundle)
        self._home.install(bundle)

    def _load(self, personal: Path | None) -> LoadedAdapter | None:
        if personal is not None:
            return self._personal(personal)
        return None if self._start is None else self._runtime.load(self._start)

    def _personal(self, bundle: Path) -> LoadedAdapter:
        adapter = self._runtime.load(bundle)
        require_owner(adapter.manifest, self._owner)
        return adapter
