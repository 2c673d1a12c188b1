"""Publishing on a shelf, and going back.

A publisher holds the index while it writes: first the files, then the version, then the head's row, which is what
counts; the head's file is written last, from the row, and written again by the next publisher if that was as far as it
came. So no device sees a number that the index does not know, and no number is given twice.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from fedpeft.device.bundle import Bundle, describe, is_whole
from fedpeft.device.folders import TRUST
from fedpeft.device.manifest import MANIFEST, SIGNATURE, File, Manifest
from fedpeft.device.versions.document import Trust
from fedpeft.device.versions.source import BLOBS, HEADS, VERSIONS
from fedpeft.device.versions.version import KINDS, STABLE, Bundles, Head, Kind, Version, require_channel
from fedpeft.errors import ShelfError
from fedpeft.files import write_whole
from fedpeft.registry.index import Changes
from fedpeft.registry.shelf import KEY, PINNED, Shelf
from fedpeft.signing.keyfile import own_key
from fedpeft.signing.signature import SigningKey, public_bytes


@dataclass(frozen=True)
class Facts:
    """What a version is said to be, besides its bundles; see :class:`fedpeft.device.versions.version.Version`."""

    run: str
    round: int
    scenario: str
    base_name: str
    metrics: Mapping[str, float]
    privacy: Mapping[str, Any]


class Publisher(Shelf):
    """A shelf, to publish on.

    Parameters
    ----------
    folder : Path
        Made when missing.
    federation : str
    key : Ed25519PrivateKey, optional
        The operator's; when not given, a key of the shelf's own, which is made with it.

    Raises
    ------
    ShelfError
        When the shelf is another federation's or was signed with another key.
    """

    def __init__(self, folder: Path, federation: str, key: SigningKey | None = None) -> None:
        self.key = key or _own_key(folder)
        mine = Trust(federation, frozenset({public_bytes(self.key).hex()}))
        for part in (HEADS, BLOBS):
            (folder / part).mkdir(parents=True, exist_ok=True)
        if not (folder / PINNED).exists():
            write_whole(folder / PINNED, mine.to_json())
        super().__init__(folder)
        if self.trust.federation != federation:
            raise ShelfError(
                f"shelf {folder} federation", self.trust.federation, f"{federation!r}", "use another shelf"
            )
        self.trust.require(public_bytes(self.key).hex(), f"key for shelf {folder}")
        self.show_heads()

    def publish(
        self, facts: Facts, bundles: Mapping[Kind, Path | Mapping[str, File]], channel: str = STABLE
    ) -> tuple[Version, Head]:
        """Sign a version and make it the head of a channel.

        Parameters
        ----------
        facts : Facts
        bundles : mapping
            Folder of each bundle, or its files as they lie on this shelf already.
        channel : str

        Returns
        -------
        version : Version
        head : Head
            The ones that are there already where nothing new would be said.

        Raises
        ------
        ShelfError
            When a bundle is not signed with the shelf's key, or a file of it is missing or damaged.
        """
        require_channel(channel)
        with self.index.writing() as index:
            base, adapter = (self._stored(kind, bundles[kind]) for kind in KINDS)
            heads = self.heads_in(index, channel)
            parent = heads[0].version if heads else None
            version = Version(
                federation=self.trust.federation,
                signer=public_bytes(self.key).hex(),
                created=int(time.time()),
                run=facts.run,
                round=facts.round,
                scenario=facts.scenario,
                base=self._fingerprint(base),
                base_name=facts.base_name,
                parent=parent,
                metrics=dict(facts.metrics),
                privacy=dict(facts.privacy),
                bundles=Bundles(base=dict(base), adapter=dict(adapter)),
            )
            known = next((found for found in self.versions_in(index) if _same(found, version)), None)
            if known is None:
                record = version.signed(self.key)
                write_whole(self.folder / VERSIONS / version.id, record)
                index.add_version(version.id, record)
            version = known or version
            head = self._head(index, channel, version.id)
        self.show_heads()
        return version, head

    def rollback(self, channel: str = STABLE, to: str | None = None) -> Head:
        """Sign a new head, with a higher number, that names an earlier version.

        Parameters
        ----------
        channel : str
        to : str, optional
            A version's id; when not given, the one that was in force before the present version first was.

        Raises
        ------
        ShelfError
            When there is no such version, or a file of it is gone.
        """
        with self.index.writing() as index:
            heads = self.heads_in(index, require_channel(channel))
            if not heads:
                raise ShelfError("channel", channel, "one with a head", f"known: {', '.join(index.channels())}")
            chosen = to or _before(heads)
            if chosen is None:
                raise ShelfError(
                    "rollback", "the first version", "one that followed another", "name one with --to-version"
                )
            version = self.version_in(index, chosen)
            for kind, name, file in version.files():
                if not is_whole(self.blob(file.sha256), file):
                    raise ShelfError(f"{name} of the {kind} of {chosen[:12]}", "damaged or gone", "a whole file")
            head = self._head(index, channel, chosen)
        self.show_heads()
        return head

    def show_heads(self) -> None:
        """Write the heads' files as the index has them."""
        with self.index.writing() as index:
            for channel in index.channels():
                signed, place = index.heads(channel)[0], self.folder / HEADS / channel
                if not place.exists() or place.read_bytes() != signed:
                    write_whole(place, signed)

    def _head(self, index: Changes, channel: str, version: str) -> Head:
        heads = self.heads_in(index, channel)
        if heads and heads[0].version == version:
            return heads[0]
        head = Head(
            federation=self.trust.federation,
            signer=public_bytes(self.key).hex(),
            created=int(time.time()),
            channel=channel,
            number=heads[0].number + 1 if heads else 1,
            version=version,
        )
        index.add_head(channel, head.number, head.signed(self.key))
        return head

    def _stored(self, kind: Kind, bundle: Path | Mapping[str, File]) -> Mapping[str, File]:
        """Store a bundle's files, or make sure that they are still here; the index is held."""
        if isinstance(bundle, Mapping):
            for name, file in bundle.items():
                if not self.blob(file.sha256).exists():
                    raise ShelfError(
                        f"{name} of the {kind}", "removed meanwhile", "a file on the shelf", "publish again"
                    )
            return bundle
        opened = Bundle.open(bundle, kind, self.trust.signers)
        opened.verify()
        files = {name: describe(bundle / name) for name in (MANIFEST, SIGNATURE, *opened.manifest.files)}
        for name, file in files.items():
            self._store(bundle / name, file)
        return files

    def _store(self, path: Path, file: File) -> None:
        place = self.blob(file.sha256)
        if is_whole(place, file):
            return
        draft = place.with_name(f".{uuid4().hex}")
        try:
            with path.open("rb") as source, draft.open("xb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
            if not is_whole(draft, file):
                raise ShelfError(str(path), "changed while it was copied", "a file that stays as it is")
            draft.replace(place)
        except OSError as error:
            raise ShelfError(
                str(place), error.strerror or str(error), "a place to write", "nothing was published"
            ) from error
        finally:
            draft.unlink(missing_ok=True)

    def _fingerprint(self, base: Mapping[str, File]) -> str:
        manifest = Manifest.from_json(self.blob(base[MANIFEST].sha256).read_bytes(), str(self.folder))
        return manifest.base_fingerprint


def _own_key(folder: Path) -> SigningKey:
    """Return the key that a shelf has of its own; only a new shelf gets one."""
    path = folder / TRUST / KEY
    if (folder / PINNED).exists() and not path.exists():
        raise ShelfError(f"key of shelf {folder}", "none here", "the one that signed it", "name it with --key")
    return own_key(path)


def _before(heads: Sequence[Head]) -> str | None:
    """Return the version that was in force before the present one first was; heads come the last one first."""
    first = max(place for place, head in enumerate(heads) if head.version == heads[0].version)
    return heads[first + 1].version if first + 1 < len(heads) else None


def _same(one: Version, other: Version) -> bool:
    """Say whether two versions differ in nothing but when they were made and what they came after."""
    changed = {"created": other.created, "parent": other.parent}
    return one.model_copy(update=changed) == other
