"""A shelf: the versions of one federation's adapter and base, signed by one key.

==================================  ====================================================================
``index.sqlite``                    every version and head
``pinned.json``                     the federation and the public key, for devices; not secret
``trust/operator.pem``              the secret key, of a shelf with a key of its own
``versions/``, ``blobs/``           what devices read; see :mod:`fedpeft.device.versions`
==================================  ====================================================================

Files are stored once, under their hashes; :mod:`.publisher` writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedpeft.device.bundle import is_whole
from fedpeft.device.manifest import MANIFEST, File, Manifest
from fedpeft.device.versions.document import Trust
from fedpeft.device.versions.source import BLOBS, HEADS, VERSIONS, parse_head, parse_version
from fedpeft.device.versions.version import STABLE, Head, Version, require_channel
from fedpeft.errors import ShelfError
from fedpeft.registry.index import Changes, Index

INDEX, PINNED, KEY = "index.sqlite", "pinned.json", "operator.pem"
SHELF = "shelf"
"""Where a server's folder has its shelf."""


class Shelf:
    """A shelf, to read.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    ShelfError
        When there is none, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / PINNED).is_file():
            raise ShelfError(
                "shelf", str(folder), f"a folder with {PINNED}", "`fedpeft registry publish --to` makes it"
            )
        self.trust = Trust.read(folder / PINNED)
        lost = not (folder / INDEX).exists()
        self.index = Index(folder / INDEX)
        if lost:
            self._read_again()

    def versions(self) -> list[Version]:
        """Return all versions in the order of their coming."""
        with self.index.reading() as index:
            return self.versions_in(index)

    def version(self, id_: str) -> Version:
        """Return one version.

        Raises
        ------
        ShelfError
            When there is none of that id.
        """
        with self.index.reading() as index:
            return self.version_in(index, id_)

    def channels(self) -> list[str]:
        """Return the names of all channels."""
        with self.index.reading() as index:
            return index.channels()

    def heads(self, channel: str = STABLE) -> list[Head]:
        """Return a channel's heads, the one in force first; none of a channel that nothing was published to."""
        with self.index.reading() as index:
            return self.heads_in(index, require_channel(channel))

    def blob(self, sha256: str) -> Path:
        """Return where a file is."""
        return self.folder / BLOBS / sha256

    def base_like(self, fits: Callable[[Manifest], bool]) -> dict[str, File] | None:
        """Return the files of the last published base bundle that fits, None when there is none."""
        for version in reversed(self.versions()):
            listed = version.bundles.base[MANIFEST]
            try:
                manifest = Manifest.from_json(self.blob(listed.sha256).read_bytes(), str(self.folder))
            except OSError:
                continue
            if fits(manifest) and all(is_whole(self.blob(f.sha256), f) for f in version.bundles.base.values()):
                return dict(version.bundles.base)
        return None

    def verify(self) -> dict[str, str]:
        """Read everything.

        Returns
        -------
        dict of str to str
            What is wrong, by file; empty when all is well.
        """
        wrong: dict[str, str] = {}
        with self.index.writing() as index:  # nobody publishes or collects meanwhile
            versions = self.versions_in(index)
            for version in versions:
                self._compare(wrong, f"{VERSIONS}/{version.id}", index.version(version.id))
            for channel in index.channels():
                self._compare(wrong, f"{HEADS}/{channel}", index.heads(channel)[0])
            seen: set[str] = set()
            for version in versions:
                for kind, name, file in version.files():
                    if file.sha256 not in seen and not is_whole(self.blob(file.sha256), file):
                        where = f"{name} of the {kind} of version {version.id[:12]}"
                        state = "damaged" if self.blob(file.sha256).exists() else "missing"
                        wrong[f"{BLOBS}/{file.sha256}"] = f"{where} is {state}; publish it again, or restore it"
                    seen.add(file.sha256)
        return wrong

    def _compare(self, wrong: dict[str, str], path: str, signed: bytes | None) -> None:
        place = self.folder / path
        if not place.is_file() or place.read_bytes() != signed:
            wrong[path] = f"{place} is not what was signed; publishing writes it again"

    def versions_in(self, index: Changes) -> list[Version]:
        """Return all versions of an index that is held."""
        return [self._parsed(record) for record in index.versions()]

    def version_in(self, index: Changes, id_: str) -> Version:
        """Return one of them."""
        record = index.version(id_)
        if record is None:
            raise ShelfError("version", id_[:12], f"one of {self.folder}", "`fedpeft registry list`")
        return parse_version(record, self.trust, id_, str(self.folder))

    def heads_in(self, index: Changes, channel: str) -> list[Head]:
        """Return the heads of one of its channels, the last one first."""
        return [parse_head(record, self.trust, channel, str(self.folder)) for record in index.heads(channel)]

    def _parsed(self, record: bytes) -> Version:
        return Version.read(record, self.trust, str(self.folder / INDEX))

    def _read_again(self) -> None:
        """Fill a new index from the signed files; of the heads, the last of each channel are there."""
        with self.index.writing() as index:
            for path in sorted((self.folder / VERSIONS).glob("[0-9a-f]" * 64)):
                index.add_version(path.name, path.read_bytes())
            for path in sorted((self.folder / HEADS).glob("[a-z0-9]*")):
                head = parse_head(path.read_bytes(), self.trust, path.name, str(self.folder))
                index.add_head(head.channel, head.number, path.read_bytes())
