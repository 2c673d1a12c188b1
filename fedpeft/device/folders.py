"""Where a run keeps its device bundles.

==================================  ==============================================================
``<run>/scenario.json``             what it runs; written first
``<run>/run.json``                  when it started, and more; written when base and text are read
``<run>/device/base/``              the base bundle
``<run>/device/base-rows/``         the same base in the variant ``rows``, where the run is served
``<run>/device/adapters/<user>/``   one adapter bundle per person, and ``global``
==================================  ==============================================================
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from fedpeft.device.manifest import Manifest
from fedpeft.errors import BundleError, DataError, RunError, nearest

SCENARIO, RECORD = "scenario.json", "run.json"
TRUST = "trust"
"""Where a run keeps its secret keys."""
LATEST = "latest"
PERSON = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}")
"""Names of people, which are names of folders too: without separators or a leading dot they cannot leave a run."""
NOBODY, EVERYBODY = "base", "global"
"""Names that are not people: the base without an adapter, and the adapter all people share."""
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")


def require_client(name: str) -> str:
    """Refuse what cannot be a client's name: it becomes the name of a folder.

    Raises
    ------
    DataError
    """
    if not _CLIENT.fullmatch(name) or name in (NOBODY, EVERYBODY):
        raise DataError("client name", name, f"letters, digits, '.', '_', '@', '-', not {NOBODY} or {EVERYBODY}")
    return name


def find_run(name: str = LATEST, root: Path = Path("runs")) -> Path:
    """Return a run's folder.

    Parameters
    ----------
    name : str
        A folder under ``root``, a path, or ``latest``: the one that started last, however far it came.
    root : Path
        Where runs are kept.

    Raises
    ------
    RunError
        When there is no such run.
    """
    started = _started(root)
    if name == LATEST and started:
        return root / max(started, key=lambda run: started[run])
    if name != LATEST:
        for run in (root / name, Path(name)):
            if (run / RECORD).is_file() or (run / SCENARIO).is_file():
                return run
    remedy = nearest(name, started) if started and name != LATEST else "make one with `fedpeft simulate`"
    raise RunError("run", name, f"a run in {root}", remedy)


def base_folder(run: Path) -> Path:
    """Return where a run's base bundle lies or will lie."""
    return run / "device" / "base"


def rows_folder(run: Path) -> Path:
    """Return where a run's base for serving lies or will lie."""
    return run / "device" / "base-rows"


def adapter_folder(run: Path, user: str) -> Path:
    """Return where a person's adapter bundle lies or will lie."""
    return run / "device" / "adapters" / user


def require_owner(manifest: Manifest, user: str) -> None:
    """Refuse an adapter that lies in somebody else's folder: its signature says whose it is, the folder does not.

    Raises
    ------
    BundleError
        When the manifest names somebody else than ``user``, or than ``global``.
    """
    if manifest.name != user:
        remedy = "somebody swapped the folders: export the run again"
        raise BundleError(f"adapter {user} owner", manifest.name, f"{user}, whose folder it is in", remedy)


def users(run: Path) -> list[str]:
    """Return who has an adapter bundle in a run, ``global`` included."""
    folder = run / "device" / "adapters"
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _started(root: Path) -> dict[str, datetime]:
    """Tell when each run started; a folder that does not say is not a run."""
    moments = {path.parent.name: _moment(path.parent) for name in (SCENARIO, RECORD) for path in root.glob(f"*/{name}")}
    return {name: moment for name, moment in moments.items() if moment}


def _moment(run: Path) -> datetime | None:
    """Read when a run started; one stopped before its record has the time of its scenario file."""
    try:
        if not (run / RECORD).exists():
            return datetime.fromtimestamp((run / SCENARIO).stat().st_mtime, UTC)
        moment = datetime.fromisoformat(json.loads((run / RECORD).read_text(encoding="utf-8"))["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
