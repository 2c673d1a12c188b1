"""The adapters of one base: verified, that base's, signed by somebody who is believed, and kept while they are used."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from fedpeft.device.loaded import LoadedAdapter, load_adapter
from fedpeft.device.manifest import Manifest
from fedpeft.device.shelf import Shelf
from fedpeft.errors import BundleError


class Loader:
    """Loads adapters for one base. Several threads may ask at once.

    Parameters
    ----------
    base : Manifest
    trusted : collection of str, optional
        Public keys in hexadecimal whose bundles are believed; the base's signer when not given.
    capacity : int
        Most adapters kept.
    admit : callable
        Given a bundle's folder and its adapter, refuses what fits the graph but not its use.

    Raises
    ------
    FedpeftError
        When the capacity is negative.
    """

    def __init__(
        self,
        base: Manifest,
        trusted: Collection[str] | None,
        capacity: int,
        admit: Callable[[Path, LoadedAdapter], None],
    ) -> None:
        self._base, self._admit = base, admit
        self._trusted = frozenset(trusted if trusted is not None else [base.signer])
        self._shelf = Shelf(self._load, capacity)

    def load(self, adapter_bundle: Path) -> LoadedAdapter:
        """Verify a bundle and map it, or return its adapter as it is when nothing changed since it was loaded.

        Raises
        ------
        BundleError
            When it is refused.
        """
        return self._shelf.get(adapter_bundle)

    def require_mine(self, adapter: LoadedAdapter | None) -> None:
        """Refuse an adapter that was loaded for another base.

        Raises
        ------
        BundleError
        """
        mine = self._base.base_fingerprint
        if adapter is not None and adapter.manifest.base_fingerprint != mine:
            raise BundleError(f"adapter of {adapter.owner}", "another base's", f"one of the base {mine[:12]}…")

    def _load(self, folder: Path) -> LoadedAdapter:
        adapter = load_adapter(folder, self._base.base_fingerprint, self._base.tensors, self._trusted)
        self._admit(folder, adapter)
        return adapter
