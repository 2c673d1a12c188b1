"""Thousands of adapters of one base in one folder.

===============================================  ==========================================================
``<root>/adapters/<name>.<sha256, 12 digits>/``  one adapter in peft's own layout (or packed), with a note
``<root>/index.sqlite``                          what they are; made again from the folders when it is lost
===============================================  ==========================================================

An adapter is written beside its place and renamed into it while the index is held, so it is there whole or not at
all, for other processes too. Its folder is named after its content: what is read is checked against the name, and
replacing an adapter never writes to the one that somebody is reading. Folders and files are the owner's alone.
"""

from __future__ import annotations

import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from uuid import uuid4

from fedpeft.adapters import shelf
from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.index import Changes, Entry, Index
from fedpeft.adapters.packed import Packed
from fedpeft.errors import AdapterError
from fedpeft.files import private_folder

INDEX = "index.sqlite"
_ABANDONED = 3600.0


class AdapterStore:
    """Holds adapters of one base by name.

    Parameters
    ----------
    root : Path
        Created when missing. When the index is missing it is made from the folders.
    base : str, optional
        Fingerprint of the base. When not given, that of the adapters it holds, or of the first it will hold.
    cached : int
        Adapters kept in memory, those used last.

    Raises
    ------
    AdapterError
        When the store holds adapters of another base.
    """

    def __init__(self, root: Path, base: str | None = None, cached: int = 64) -> None:
        self.root, self._folders = private_folder(root), private_folder(root / "adapters")
        self._given, self._cached = base, cached
        self._cache: OrderedDict[str, Adapter] = OrderedDict()
        self._lock = Lock()
        lost = not (root / INDEX).exists()
        self._index = Index(root / INDEX)
        if lost and any(self._visible()):
            self.rebuild()
        if base is not None and self.base != base:
            raise AdapterError("store base", f"{self.base}"[:12] + "…", f"the base {base[:12]}…", "use another store")

    @property
    def base(self) -> str | None:
        """Fingerprint of the base; None while that is open."""
        return self._index.base() or self._given

    def __len__(self) -> int:
        return self._index.count()

    def __contains__(self, name: str) -> bool:
        return self._index.find(name) is not None

    def list(self, **tags: str) -> list[Entry]:
        """Return what it holds in order of name; with tags, only what carries them all."""
        return [entry for entry in self._index.entries() if tags.items() <= entry.tags.items()]

    def entry(self, name: str) -> Entry:
        """Return what is known of an adapter.

        Raises
        ------
        AdapterError
            When there is none of that name.
        """
        found = self._index.find(name)
        if found is None:
            names = [entry.name for entry in self._index.entries()]
            raise AdapterError("adapter name", name, f"a name in {self.root}", shelf.suggestion(name, names))
        return found

    def folder(self, name: str) -> Path:
        """Return an adapter's folder, for ``PeftModel.from_pretrained``; replacing the adapter removes it."""
        return self._folders / self.entry(name).folder

    def add(
        self, name: str, adapter: Adapter | Packed, tags: Mapping[str, str] | None = None, replacing: bool = False
    ) -> Entry:
        """Store an adapter.

        Parameters
        ----------
        name : str
            Letters, digits and ``_ . @ + = -``.
        adapter : Adapter or Packed
            A quantized or sparse one keeps its form on disk.
        tags : mapping of str to str, optional
            Such as ``user`` and ``run``.
        replacing : bool
            Whether one of that name may be replaced.

        Raises
        ------
        AdapterError
            When the name is malformed or taken, or the adapter is of another base.
        """
        shelf.require_name(name)
        draft = self._aside()
        try:
            entry = shelf.write(draft, name, adapter, tags or {})
            with self._index.change() as index:
                before = index.find(name)
                if before is not None and not replacing:
                    raise AdapterError(
                        "adapter name", name, "a name that is free", "remove that adapter, or replace it"
                    )
                self._require_base(index, adapter.base)
                self._put(draft, self._folders / entry.folder)
                index.put(entry)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        if before is not None and before.folder != entry.folder:
            self._discard(self._folders / before.folder)
        return entry

    def get(self, name: str) -> Adapter:
        """Return an adapter, dequantized or with its zeros when it is stored packed; the caller may change it.

        Raises
        ------
        AdapterError
            When there is none of that name, or its files are damaged.
        """
        entry = self.entry(name)
        found = self._recall(entry) or shelf.read(self._folders / entry.folder, entry)
        while found is None:
            before, entry = entry, self.entry(name)
            if entry.folder == before.folder:
                remedy = "restore the folder from a copy, or remove the adapter"
                raise AdapterError(f"adapter {name}", "nothing", f"its folder {self._folders / entry.folder}", remedy)
            found = shelf.read(self._folders / entry.folder, entry)  # it was replaced between two looks
        with self._lock:
            self._cache[entry.folder] = found
            while len(self._cache) > self._cached:
                self._cache.popitem(last=False)
        return replace(found, vector=found.vector.copy())

    def remove(self, name: str) -> None:
        """Forget an adapter and delete its files.

        Raises
        ------
        AdapterError
            When there is none of that name.
        """
        with self._index.change() as index:
            entry = index.find(name) or self.entry(name)
            index.drop(name)
            self._discard(self._folders / entry.folder)
        with self._lock:
            self._cache.pop(entry.folder, None)

    def verify(self, *names: str) -> dict[str, str]:
        """Read adapters and say what is wrong.

        Parameters
        ----------
        *names : str
            All when none is given; then folders that the index does not know are found, too.

        Returns
        -------
        dict of str to str
            Name (or folder) -> what is wrong; empty when all is well.
        """
        entries = [self.entry(name) for name in names] or self._index.entries()
        wrong = {}
        for entry in entries:
            try:
                if shelf.read(self._folders / entry.folder, entry) is None:
                    wrong[entry.name] = f"{self._folders / entry.folder} is gone; restore it or remove the adapter"
            except AdapterError as error:
                wrong[entry.name] = str(error)
        known = {entry.folder for entry in entries}
        strays = [] if names else [path for path in self._visible() if path.name not in known]
        return wrong | {path.name: f"{path} is not in the index: damaged, or lost to it" for path in strays}

    def rebuild(self) -> int:
        """Make the index again from the folders, and delete what interrupted writers left behind.

        Of two adapters of one name the newer stays. Damaged folders, and adapters of another base than the rest,
        stay where they are and out of the index.

        Returns
        -------
        int
            How many adapters there are.
        """
        try:
            self._index.count()
        except AdapterError:
            self._index.close()
            for path in self.root.glob(f"{INDEX}*"):
                path.unlink()
            self._index = Index(self.root / INDEX)
        with self._index.change() as index:
            base = self._given or index.base()
            index.clear()
            kept: dict[str, Entry] = {}
            for path in self._visible():
                entry = shelf.describe(path)
                if entry is None or entry.base != (base := base or entry.base):
                    continue
                other = kept.get(entry.name, entry)
                newer, older = (entry, other) if entry.created >= other.created else (other, entry)
                kept[entry.name] = newer
                if older is not newer:
                    self._discard(self._folders / older.folder)
            for entry in kept.values():
                index.put(entry)
        self._sweep()
        return len(kept)

    def _recall(self, entry: Entry) -> Adapter | None:
        with self._lock:
            if entry.folder in self._cache:
                self._cache.move_to_end(entry.folder)
            return self._cache.get(entry.folder)

    def _require_base(self, index: Changes, base: str) -> None:
        mine = index.base() or self._given or base
        if base != mine:
            raise AdapterError("adapter base", f"{base[:12]}…", f"the store's, {mine[:12]}…", "use another store")

    def _put(self, draft: Path, place: Path) -> None:
        """Rename a draft to its place; where the same content lies whole, renew only the note beside it."""
        if place.exists() and shelf.whole(place):
            (draft / shelf.NOTE).replace(place / shelf.NOTE)
            return
        self._discard(place)
        draft.rename(place)

    def _discard(self, place: Path) -> None:
        """Make a folder disappear at once, and then delete it."""
        aside = self._aside()
        try:
            place.rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    def _aside(self) -> Path:
        return self._folders / f".{uuid4().hex}"

    def _visible(self) -> Iterator[Path]:
        return (path for path in sorted(self._folders.iterdir()) if not path.name.startswith("."))

    def _sweep(self) -> None:
        """Delete drafts that no live process can still be writing."""
        for path in self._folders.glob(".*"):
            if time.time() - path.stat().st_mtime > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
