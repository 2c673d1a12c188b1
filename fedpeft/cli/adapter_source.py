"""Where the adapters that ``fedpeft adapters`` is given lie, and where its results go."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from fedpeft.adapters import Adapter, shelf
from fedpeft.adapters.index import Entry
from fedpeft.adapters.layout import CONFIG
from fedpeft.adapters.packed import Packed
from fedpeft.adapters.store import AdapterStore
from fedpeft.device.folders import find_run
from fedpeft.errors import AdapterError, FedpeftError

UNKNOWN = "unknown"


class Source:
    """Finds adapters by folder, by owner in a run, or by name in a store.

    Parameters
    ----------
    store : Path, optional
    run : str, optional
        A name, a folder or ``latest``.
    runs : Path
    base : str, optional
        Name of the base of adapters that do not name theirs.
    """

    def __init__(
        self, store: Path | None = None, run: str | None = None, runs: Path = Path("runs"), base: str | None = None
    ) -> None:
        self._path, self._run, self._runs, self._base = store, run, runs, base

    @cached_property
    def people(self) -> dict[str, Path]:
        """The run's adapters by owner; none without a run."""
        if self._run is None:
            return {}
        from fedpeft.export.run import find_adapters

        return find_adapters(find_run(self._run, self._runs))

    @cached_property
    def store(self) -> AdapterStore | None:
        """The store if one was named; it must be there."""
        if self._path is None:
            return None
        if not (self._path / "adapters").is_dir():
            raise FedpeftError("--store", str(self._path), "a store", "make one with `fedpeft adapters add`")
        return AdapterStore(self._path)

    @cached_property
    def fingerprint(self) -> str | None:
        """The fingerprint of the base that was named."""
        if self._base is None:
            return None
        from fedpeft.base import load_base

        return load_base(self._base).fingerprint

    @property
    def trained_on(self) -> str:
        """How the base was held when adapters were trained: in full, unless a run says otherwise.

        Raises
        ------
        FedpeftError
            When people of the run trained on quantized bases: which of them is meant must be said.
        """
        if self._run is None:
            return "full"
        from fedpeft.base.held import name_of
        from fedpeft.device.folders import SCENARIO
        from fedpeft.scenario import load_scenario

        classes = load_scenario(find_run(self._run, self._runs) / SCENARIO).classes
        ways = list(dict.fromkeys(name_of(str(kind.dtype), str(kind.precision), "bfloat16") for kind in classes))
        if any(kind.precision != "full" for kind in classes):
            raise FedpeftError("--trained-on", None, f"one of {', '.join(ways)}", "so people of this run held the base")
        return "full"

    def load(self, name: str, unknown: bool = False) -> Adapter:
        """Read an adapter; with ``unknown``, one whose base nobody names too.

        Raises
        ------
        AdapterError
            When there is none of that name, or it cannot be read.
        """
        folder = self._folder(name)
        if folder is None:
            assert self.store is not None  # noqa: S101  # _folder has looked
            return self.store.get(name)
        try:
            return Adapter.load(folder, self.fingerprint)
        except AdapterError as error:
            if error.value != "no base fingerprint":
                raise
            if unknown:
                return Adapter.load(folder, UNKNOWN)
            raise AdapterError(error.field, error.value, error.expected, "name the base with --base") from error

    def entry(self, name: str) -> Entry:
        """Say what is known of an adapter."""
        folder = self._folder(name)
        if folder is None:
            assert self.store is not None  # noqa: S101
            return self.store.entry(name)
        entry = shelf.entry_of(folder, name, self.load(name, unknown=True))
        return replace(entry, folder=str(folder), tags=entry.tags | self.tags(name))

    def entries(self, folders: Sequence[Path]) -> list[Entry]:
        """Describe every adapter under some folders, of the run and in the store.

        Raises
        ------
        FedpeftError
            When neither is named, or a folder is none.
        """
        if not folders and self._run is None and self._path is None:
            raise FedpeftError("adapters", "nothing", "folders, --run or --store")
        names = list(self.people)
        for folder in folders:
            if not folder.is_dir():
                raise FedpeftError("adapters", str(folder), "a folder")
            names += sorted(str(path.parent) for path in folder.rglob(CONFIG))
        found = [self.entry(name) for name in names]
        return found + (self.store.list() if self.store else [])

    def tags(self, name: str) -> dict[str, str]:
        """Say whose an adapter is and of which run."""
        if name not in self.people or self._run is None:
            return {}
        return {"user": name, "run": find_run(self._run, self._runs).name}

    def verify(self, names: Sequence[str]) -> tuple[int, dict[str, str]]:
        """Read adapters; return how many, and what is wrong by name."""
        if self.store is not None:
            return len(names) or len(self.store), self.store.verify(*names)
        wrong = {}
        chosen = names or list(self.people)
        if not chosen:
            raise FedpeftError("adapters", "nothing", "names, --run or --store")
        for name in chosen:
            try:
                self.load(name, unknown=True)
            except AdapterError as error:
                wrong[name] = str(error)
        return len(chosen), wrong

    def write(self, result: Adapter | Packed, out: Path | None, name: str | None) -> dict[str, Any]:
        """Write a result to a folder, or into the store under a name, and say where and how large.

        Raises
        ------
        FedpeftError
            When no place was named, or it is taken.
        """
        if out is not None:
            with whole(out) as draft:
                result.save(draft)
                size = sum(path.stat().st_size for path in draft.iterdir())
            return {"written": str(out), "bytes": size}
        if name is None or self.store is None:
            raise FedpeftError("output", "nothing", "--out DIR, or --store DIR --as NAME")
        return {"written": name, "bytes": self.store.add(name, result).bytes}

    def _folder(self, name: str) -> Path | None:
        """Return an adapter's folder, or None when the store has it."""
        if name in self.people:
            return self.people[name]
        if self.store is not None and name in self.store:
            return None
        if (Path(name) / CONFIG).is_file():
            return Path(name)
        known = [*self.people, *(entry.name for entry in (self.store.list() if self.store else []))]
        expected = "a name in the store or run, or a folder" if known else "an adapter folder"
        raise AdapterError("adapter", name, expected, shelf.suggestion(name, known) or f"it holds no {CONFIG}")


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Write a folder beside ``out`` and rename it into place when the block ends well.

    Raises
    ------
    FedpeftError
        When there is something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FedpeftError("--out", str(out), "a folder that is not there yet")
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{uuid4().hex}")
    draft.mkdir(mode=0o700)
    try:
        yield draft
        draft.replace(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
