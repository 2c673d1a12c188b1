"""From a channel's head to a version that answers.

    head (signed, not older than the last) ──► version (of that hash) ──► files that lack (hashes, sizes) ──► bundles
    (whole, signed) ──► state.json

Nothing is used before it is proven, nothing that is here is fetched, and nothing that answers is touched before all of
the new is in its place. A version for another base than that of the person's own adapter is not put in force: it waits,
and the old base and adapter answer on, until :func:`.migrate.migrate` has learnt the person's adapter anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

from fedpeft.device.bundle import Bundle, is_whole
from fedpeft.device.folders import EVERYBODY, require_owner
from fedpeft.device.manifest import File
from fedpeft.device.versions.document import Trust
from fedpeft.device.versions.download import PATIENT, Patience, download, no_room
from fedpeft.device.versions.installed import Installed, State, remove
from fedpeft.device.versions.source import Source, head_data, parse_head, parse_version, version_data
from fedpeft.device.versions.version import KINDS, STABLE, Kind, Version
from fedpeft.errors import ShelfError

_MARGIN = 1 << 20
Outcome = Literal["current", "installed", "waiting", "refused"]


@dataclass(frozen=True)
class Limits:
    """Most bytes of a bundle; a signed version that declares more is refused before a byte of it is asked for.

    Parameters
    ----------
    base, adapter : int
    """

    base: int = 4 << 30
    adapter: int = 256 << 20

    def require(self, version: Version) -> None:
        """Refuse a version that is too large.

        Raises
        ------
        ShelfError
        """
        for kind, most in zip(KINDS, (self.base, self.adapter), strict=True):
            if version.size(kind) > most:
                found = f"{version.size(kind)} bytes"
                raise ShelfError(f"{kind} of version {version.id[:12]}…", found, f"at most {most}")


@dataclass(frozen=True)
class Fetched:
    """What came of it.

    Parameters
    ----------
    version : Version
        The head's.
    number : int
        The head's.
    outcome : str
        It answered already; answers from now on; waits for :func:`.migrate.migrate`; was gone back from on this device.
    bytes : int
        How many came.
    """

    version: Version
    number: int
    outcome: Outcome
    bytes: int = 0


def fetch(
    source: Source,
    trust: Trust,
    installed: Installed,
    channel: str = STABLE,
    *,
    limits: Limits | None = None,
    patience: Patience = PATIENT,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fetched:
    """Bring a device to the head of a channel.

    Parameters
    ----------
    source : Source
        See :func:`.source.open_source`.
    trust : Trust
        Whose versions are believed.
    installed : Installed
    channel : str
    limits : Limits, optional
    patience : Patience
    progress : callable
        Told how many bytes came and how many there are to come.

    Returns
    -------
    Fetched

    Raises
    ------
    ShelfError
        When anything is not what was signed, is older than what was seen, is larger than the limits, or has no room.
    FetchError
        When the source breaks off again and again; what came is kept for the next attempt.
    StoreError
        When another process fetches for ten minutes.
    """
    limits = limits or Limits()
    try:
        with installed.locked():
            state = _state(installed, trust)
            data = patience.through(lambda: head_data(source, channel))
            head = parse_head(data, trust, channel, source.name)
            head.require_after(installed.seen(channel, trust))
            installed.note(head, data)
            record = patience.through(lambda: version_data(source, head.version))
            version = parse_version(record, trust, head.version, source.name)
            if head.version == state.refused:
                return Fetched(version, head.number, "refused")
            limits.require(version)
            came = _Arrival(source, version, installed, patience, progress).complete()
            installed.keep(version, record)
            outcome = _decide(installed, version, state)
            installed.sweep()
            return Fetched(version, head.number, outcome, came)
    except OSError as error:
        raise no_room(error, installed.folder) from error


def _state(installed: Installed, trust: Trust) -> State:
    """Return the device's state with these signers, besides those of what is installed."""
    state = installed.state() or State(federation=trust.federation, signers=())
    if state.federation != trust.federation:
        remedy = "use another --home for another federation"
        raise ShelfError("federation", trust.federation, f"{state.federation!r}, as on this device", remedy)
    used = [id_ for id_ in (state.current, state.previous, state.waiting) if id_]
    signers = trust.signers | {installed.record(id_).signer for id_ in used}
    state = state.model_copy(update={"signers": tuple(sorted(signers))})
    installed.put(state)
    return state


def _decide(installed: Installed, version: Version, state: State) -> Outcome:
    if version.id == state.current:
        installed.put(state.model_copy(update={"waiting": None}))
        return "current"
    learnt = installed.home.personal.bases()
    if learnt and version.base not in learnt:
        installed.put(state.model_copy(update={"waiting": version.id}))
        return "waiting"
    installed.switch(version.id)
    return "installed"


class _Arrival:
    """A version's files as they come."""

    def __init__(
        self,
        source: Source,
        version: Version,
        installed: Installed,
        patience: Patience,
        progress: Callable[[int, int], None],
    ) -> None:
        self._source, self._version, self._installed = source, version, installed
        self._patience, self._progress = patience, progress
        self._done, self._total = 0, 0

    def complete(self) -> int:
        """Make both bundles whole; return how many bytes came."""
        missing = [kind for kind in KINDS if not self._installed.whole(self._version, kind)]
        wanted = {file.sha256: file for kind in missing for file in self._version.bundles.of(kind).values()}
        self._collect(wanted)
        self._total = sum(file.bytes - self._here(file) for file in wanted.values())
        free = shutil.disk_usage(self._installed.folder).free
        if self._total and free < self._total + _MARGIN:
            remedy = "what is installed stays; free some space"
            raise ShelfError("disk", f"{free} bytes free", f"{self._total + _MARGIN} bytes", remedy)
        came = sum(self._fetch(file) for file in wanted.values())
        for kind in missing:
            self._assemble(kind)
        return came

    def _collect(self, wanted: dict[str, File]) -> None:
        """Put what other bundles have beside what came, if it is what they say; so a new graph keeps old weights."""
        for sha256, size, path in self._installed.candidates():
            place = self._place(sha256)
            if (
                sha256 in wanted
                and wanted[sha256].bytes == size
                and not place.exists()
                and is_whole(path, wanted[sha256])
            ):
                _link(path, place)

    def _here(self, file: File) -> int:
        place = self._place(file.sha256)
        part = place.with_name(f"{place.name}.part")
        return file.bytes if place.exists() else min(part.stat().st_size, file.bytes) if part.exists() else 0

    def _fetch(self, file: File) -> int:
        place = self._place(file.sha256)
        if place.exists():
            if is_whole(place, file):
                return 0
            place.unlink()
        return download(self._source, file, place, self._patience, self._heard)

    def _heard(self, more: int) -> None:
        self._done += more
        self._progress(self._done, max(self._total, self._done))

    def _assemble(self, kind: Kind) -> None:
        """Put a bundle together beside its place, prove it, and rename it into place."""
        version, place = self._version, self._installed.bundle(self._version.bundle_id(kind))
        draft = place.with_name(f".{uuid4().hex}")
        draft.mkdir(mode=0o700)
        for name, file in version.bundles.of(kind).items():
            _link(self._place(file.sha256), draft / name)
        bundle = Bundle.open(draft, kind, {version.signer})
        bundle.verify()
        bundle.require_base(version.base)
        if kind == "adapter":
            require_owner(bundle.manifest, EVERYBODY)
        if place.exists():  # it is damaged, or it would not have been missing
            remove(place)
        draft.rename(place)

    def _place(self, sha256: str) -> Path:
        return self._installed.parts / sha256


def _link(path: Path, to: Path) -> None:
    """Give a file another name, or copy it where the file system has no such names."""
    try:
        to.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, to)
