"""Where a base's files lie: shipped with fedpeft, in a package of weights, in a folder, or on the hub."""

from __future__ import annotations

from pathlib import Path

from fedpeft.base.packages import PACKAGES, packaged
from fedpeft.errors import BaseError, nearest

BUILTIN = Path(__file__).parent / "builtin"


def builtin_names() -> list[str]:
    """Return the names of the bases that ship with fedpeft."""
    return sorted(p.name for p in BUILTIN.iterdir() if (p / "config.json").exists())


def known_names() -> list[str]:
    """Return every name that is neither a path nor a hub id, installed or not."""
    return sorted([*builtin_names(), *PACKAGES])


def locate(name: str, root: Path | None = None) -> Path:
    """Return the folder a base's files lie in, fetching it from the hub when it is a hub id.

    Parameters
    ----------
    name : str
        A known name, the path of a folder, or a hub id.
    root : Path, optional
        What a relative path is relative to; the working directory when not given.

    Returns
    -------
    Path

    Raises
    ------
    BaseError
        When nothing of that name is found.
    """
    if (BUILTIN / name / "config.json").exists():
        return BUILTIN / name
    if name in PACKAGES:
        return packaged(name)
    folder = (root or Path.cwd()) / name
    if (folder / "config.json").exists():
        return folder
    if folder.is_dir():
        raise BaseError("base.name", name, "a folder with config.json", f"{folder} has none")
    if name.count("/") != 1 or name.startswith(("/", ".")):
        raise BaseError("base.name", name, "a builtin name, a folder or a hub id", nearest(name, known_names()))
    return _fetch(name)


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BaseError(
            "base.name",
            name,
            "a hub id that can be fetched from here",
            f"the hub answered: {str(error).splitlines()[0]}; use a known base "
            f"({', '.join(known_names())}) or a local folder when there is no network",
        ) from error
