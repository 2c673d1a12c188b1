"""Where converted bases are kept: folders under ``$FEDPEFT_HOME/bases`` that are whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

from safetensors import SafetensorError

from fedpeft.errors import BaseError


def home() -> Path:
    """Return where fedpeft keeps what it converts: ``$FEDPEFT_HOME`` or, unset or empty, ``~/.cache/fedpeft``."""
    # An account without a home, as a service's may be, can still name a place: the home is asked for last.
    return Path(os.environ.get("FEDPEFT_HOME") or Path.home() / ".cache" / "fedpeft")


def bases() -> Path:
    """Return the folder of converted bases."""
    return home() / "bases"


def kept(name: str, write: Callable[[Path], object]) -> Path:
    """Return a converted base's folder, converting it when it is not there yet.

    Parameters
    ----------
    name : str
        Of the folder; says all that its content depends on.
    write : callable
        Fills an empty folder with ``config.json`` and more.

    Raises
    ------
    BaseError
        When it cannot be written.
    """
    target = bases() / name
    if (target / "config.json").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(mkdtemp(dir=target.parent, prefix=".draft-"))
    try:
        write(draft)
        draft.replace(target)
    except (OSError, SafetensorError) as error:
        # Another process may have finished the same conversion first; its copy is as good.
        if not (target / "config.json").exists():
            raise BaseError(f"base cache {target}", str(error), "room to write a copy") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target
