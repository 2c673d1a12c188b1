"""One adapter's folder in a store: what it holds, whether it is whole, what there is to know of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.index import Entry
from fedpeft.adapters.layout import CONFIG, WEIGHTS, form_of
from fedpeft.adapters.packed import Packed
from fedpeft.errors import AdapterError
from fedpeft.files import write_private

NOTE = "fedpeft_adapter.json"
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.@+=-]{0,118}[A-Za-z0-9_@+=-])?")
_DIGITS = 12
_REMEDY = "restore the folder from a copy, or remove the adapter"


def require_name(name: str) -> None:
    """Refuse what cannot be the name of an adapter.

    Raises
    ------
    AdapterError
    """
    if not _NAME.fullmatch(name):
        raise AdapterError("adapter name", name, "up to 120 letters, digits and _ . @ + = -, no dot at either end")


def suggestion(name: str, names: Sequence[str]) -> str:
    """Say which known name was probably meant; a long list of them all helps nobody."""
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names[:8])}{', …' * (len(names) > 8)}" if names else ""


def write(folder: Path, name: str, adapter: Adapter | Packed, tags: Mapping[str, str]) -> Entry:
    """Write an adapter and a note about it, and return its entry."""
    adapter.save(folder)
    note = {"created": datetime.now(UTC).isoformat(timespec="microseconds"), "tags": dict(tags)}
    write_private(folder / NOTE, json.dumps(note).encode())
    return entry_of(folder, name, adapter)


def read(folder: Path, entry: Entry) -> Adapter | None:
    """Read an adapter and check that it is the one of the entry; None when its folder is gone.

    Raises
    ------
    AdapterError
        When its files are damaged.
    """
    try:
        found = digest(folder)
        adapter = Adapter.load(folder, entry.base) if found == entry.sha256 else None
    except (AdapterError, OSError) as error:
        if not folder.exists():
            return None
        raise AdapterError(f"adapter {entry.name}", str(error), f"whole files in {folder}", _REMEDY) from error
    if adapter is None:
        raise AdapterError(f"adapter {entry.name}", f"sha256 {found[:12]}…", f"{entry.sha256[:12]}…", _REMEDY)
    return adapter


def describe(folder: Path) -> Entry | None:
    """Return the entry of a folder from the folder alone; None when it is damaged or no adapter's."""
    name = folder.name.rpartition(".")[0]
    try:
        require_name(name)
        return entry_of(folder, name, Adapter.load(folder)) if whole(folder) else None
    except (AdapterError, OSError):
        return None


def whole(folder: Path) -> bool:
    """Tell whether a folder holds what its name says."""
    try:
        return digest(folder).startswith(folder.name.rpartition(".")[2])
    except (AdapterError, OSError):
        return False


def folder_name(entry: Entry) -> str:
    """Return the name of an adapter's folder: its own, and the beginning of its content's sha256."""
    return f"{entry.name}.{entry.sha256[:_DIGITS]}"


def digest(folder: Path) -> str:
    """Return the sha256 of an adapter's weights and configuration."""
    total = sha256()
    for path in _files(folder):
        total.update(path.name.encode() + b"\0" + sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _files(folder: Path) -> list[Path]:
    return [folder / CONFIG, folder / WEIGHTS[form_of(folder)]]


def entry_of(folder: Path, name: str, adapter: Adapter | Packed) -> Entry:
    """Return the entry of an adapter that lies in a folder, in a store or not."""
    note = _note(folder)
    entry = Entry(
        name=name,
        peft_type=str(adapter.config.get("peft_type")),
        form=form_of(folder),
        schema=adapter.schema.digest,
        rank=_rank(adapter.config),
        parameters=adapter.schema.size,
        bytes=sum(path.stat().st_size for path in _files(folder)),
        base=adapter.base,
        sha256=digest(folder),
        created=str(note["created"]),
        folder="",
        tags={str(key): str(value) for key, value in note["tags"].items()},
    )
    return Entry(**{**entry.__dict__, "folder": folder_name(entry)})


def _note(folder: Path) -> dict[str, Any]:
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return {"created": note["created"], "tags": dict(note["tags"])}
    except (OSError, ValueError, KeyError, TypeError):
        moment = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        return {"created": moment.isoformat(timespec="microseconds"), "tags": {}}


def _rank(config: Mapping[str, Any]) -> int | None:
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    known = [rank for rank in ranks if isinstance(rank, int)]
    return max(known) if known else None
