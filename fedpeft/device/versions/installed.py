"""What of a federation is on this device, and which version answers.

==================================  ====================================================================
``versions/state.json``             which version is in force, which was before, which waits; replaced at once
``versions/heads/<channel>``        the newest head that was seen
``versions/records/<id>``           signed versions
``versions/bundles/<id>/``          bundles, each once, by the hash of their manifests; whole or not there
``versions/parts/``                 what has come so far
``versions/lock``                   held by who changes any of it
==================================  ====================================================================

Only replacing ``state.json`` changes what answers. All that it names is whole by then, and what it does not name is
swept away later: whatever kills a process, the device has the old version or the new one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from fedpeft.device.bundle import Bundle
from fedpeft.device.edge.home import Home
from fedpeft.device.lock import held
from fedpeft.device.manifest import Digest, Key
from fedpeft.device.versions.document import Trust, claimed_signer
from fedpeft.device.versions.source import parse_head, parse_version
from fedpeft.device.versions.version import KINDS, Head, Kind, Version
from fedpeft.errors import BundleError, ShelfError
from fedpeft.files import private_folder, write_private

_PATIENCE = 600.0
_FOLDERS = ("heads", "records", "bundles")


class State(BaseModel):
    """What ``state.json`` says.

    Parameters
    ----------
    federation : str
    signers : tuple of str
        Whose versions these are.
    current : str or None
        The version that answers.
    previous : str or None
        The one before, to go back to.
    waiting : str or None
        One for another base than that of the person's adapter, which still answers.
    refused : str or None
        One that was gone back from here; it is not installed again until its channel has another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    federation: str
    signers: tuple[Key, ...]
    current: Digest | None = None
    previous: Digest | None = None
    waiting: Digest | None = None
    refused: Digest | None = None


@dataclass(frozen=True)
class Pair:
    """A version on this device, as an :class:`fedpeft.device.EdgeClient` takes it.

    Parameters
    ----------
    home : Home
    version : Version
    base, adapter : Path
        Bundles.
    trusted : frozenset of str
        Who signed them.
    """

    home: Home
    version: Version
    base: Path
    adapter: Path
    trusted: frozenset[str]


class Installed:
    """Versions on a device. Several processes may use them.

    Parameters
    ----------
    home : Path or Home
        The app's private folder, as of an :class:`fedpeft.device.EdgeClient`.
    """

    def __init__(self, home: Path | Home) -> None:
        self.home = home if isinstance(home, Home) else Home(home)
        self.folder = self.home.folder / "versions"
        self.parts = self.folder / "parts"

    def current(self) -> Pair | None:
        """Return the version that answers, or None before the first is installed.

        Raises
        ------
        ShelfError
            When what is on the disk is damaged.
        """
        state = self.state()
        return self.pair(state.current) if state and state.current else None

    def waiting(self) -> Pair | None:
        """Return the version for another base that waits for the person's adapter, or None; see :mod:`.migrate`."""
        state = self.state()
        return self.pair(state.waiting) if state and state.waiting else None

    def state(self) -> State | None:
        """Return what is in force; None on a device that never fetched.

        Raises
        ------
        ShelfError
            When the file is damaged.
        """
        path = self.folder / "state.json"
        try:
            return State.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            remedy = "remove it and fetch again; what was learnt is elsewhere"
            raise ShelfError(str(path), str(error).splitlines()[0], "the state of a device", remedy) from error

    def pair(self, version: str) -> Pair:
        """Return a version that is on this device."""
        found = self.record(version)
        base, adapter = (self.bundle(found.bundle_id(kind)) for kind in KINDS)
        return Pair(self.home, found, base, adapter, frozenset({found.signer}))

    def record(self, version: str) -> Version:
        """Read a version's record."""
        path = self.folder / "records" / version
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ShelfError(str(path), error.strerror, "a version's record", "fetch again") from error
        return parse_version(data, self.trust(), version, str(self.folder))

    def trust(self) -> Trust:
        """Return whose versions these are.

        Raises
        ------
        ShelfError
            On a device that never fetched.
        """
        state = self.state()
        if state is None:
            raise ShelfError("version", "none", "one that is installed", "`fedpeft client fetch`")
        return Trust(state.federation, frozenset(state.signers))

    def bundle(self, name: str) -> Path:
        """Return where a bundle is or will be."""
        return self.folder / "bundles" / name

    def whole(self, version: Version, kind: Kind) -> bool:
        """Say whether a bundle is here and undamaged."""
        try:
            Bundle.open(self.bundle(version.bundle_id(kind)), kind, {version.signer}).verify()
        except (BundleError, OSError):
            return False
        return True

    def locked(self) -> AbstractContextManager[None]:
        """Hold the right to change anything; others wait.

        Raises
        ------
        StoreError
            When somebody holds it for ten minutes.
        """
        for folder in (self.home.folder, self.folder, self.parts, *(self.folder / name for name in _FOLDERS)):
            private_folder(folder)
        return held(self.folder / "lock", "versions' lock", "another that fetches", _PATIENCE)

    def put(self, state: State) -> None:
        """Let a state be in force; the caller holds the lock."""
        if state.waiting:
            self.home.personal.move(True)
        write_private(self.folder / "state.json", state.model_dump_json().encode())
        if not state.waiting:
            self.home.personal.move(False)

    def keep(self, version: Version, data: bytes) -> None:
        """Write a version's record."""
        write_private(self.folder / "records" / version.id, data)

    def seen(self, channel: str, trust: Trust) -> Head | None:
        """Return the newest head of a channel that was seen; with other signers, numbers begin anew.

        Raises
        ------
        ShelfError
            When the file is damaged: to begin anew would let an older head in.
        """
        path = self.folder / "heads" / channel
        if not path.exists():
            return None
        data = path.read_bytes()
        if claimed_signer(data, str(path)) not in trust.signers:
            return None
        return parse_head(data, trust, channel, str(self.folder))

    def note(self, head: Head, data: bytes) -> None:
        """Remember a head."""
        write_private(self.folder / "heads" / head.channel, data)

    def switch(self, version: str) -> None:
        """Let a version that is on this device answer; the one that did becomes the previous. The lock is held."""
        state = self.state()
        if state is not None and version != state.current:
            moved = {"current": version, "previous": state.current, "waiting": None, "refused": None}
            self.put(state.model_copy(update=moved))
            self.home.shared.clear()  # of rounds before; the next ones make a newer one

    def rollback(self) -> Version:
        """Go back to the version before; the one that is left is not installed again until its channel has another.

        A personal adapter for another base than the earlier version's is removed; the texts it was learnt from stay.

        Raises
        ------
        ShelfError
            When there is none.
        """
        with self.locked():
            state = self.state()
            if state is None or state.previous is None:
                raise ShelfError("previous version", "none", "one to go back to")
            found = self.pair(state.previous).version
            moved = {"current": found.id, "previous": None, "waiting": None, "refused": state.current}
            self.put(state.model_copy(update=moved))
            self.home.personal.clear(besides={found.base})
            self.home.shared.clear()
            return found

    def sweep(self) -> None:
        """Remove what no version in use needs; the caller holds the lock."""
        state = self.state()
        if state is None:
            return
        used = [id_ for id_ in (state.current, state.previous, state.waiting) if id_]
        bundles = {self.record(id_).bundle_id(kind) for id_ in used for kind in KINDS}
        for name, kept in (("records", set(used)), ("bundles", bundles), ("parts", set[str]())):
            for path in (self.folder / name).iterdir():
                if path.name not in kept:
                    remove(path)
        if state.current and not state.waiting:  # what a migration that was killed at its end has left
            self.home.personal.clear(besides={self.record(state.current).base})

    def candidates(self) -> Iterator[tuple[str, int, Path]]:
        """Yield hash, size and path of every file that is here already; the hash is the manifests' word."""
        for folder in sorted((self.folder / "bundles").glob("[0-9a-f]*")):
            for kind in KINDS:
                try:
                    files = Bundle.open(folder, kind).manifest.files
                except BundleError:
                    continue
                for name, file in files.items():
                    yield file.sha256, file.bytes, folder / name


def remove(path: Path) -> None:
    """Make a file or folder disappear at once, and then delete it."""
    aside = path.with_name(f".{uuid4().hex}")
    path.rename(aside)
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()
