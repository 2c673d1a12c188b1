"""Whether somebody else could change a file between the moment it is proven and the moment it is loaded.

onnxruntime opens a graph and its weights by name, after they were hashed. In a folder that only this account or the
system's can change nothing happens in between. Anything else is copied to a folder of one's own first, and the copy is
what is hashed and loaded; when onnxruntime has it open, its name is of no use to anybody and it is removed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fedpeft.device.bundle import Bundle
from fedpeft.errors import BundleError

_SYSTEM = 0


@contextmanager
def settled(bundle: Bundle) -> Iterator[Bundle]:
    """Yield a verified bundle that stays as it is while the block runs, by a path that nobody can point elsewhere.

    Raises
    ------
    BundleError
        When it is incomplete or altered, or there is no room for a copy.
    """
    # Whoever owns a link can point it elsewhere once the folder was judged: from here on the path has none.
    bundle = replace(bundle, folder=bundle.folder.resolve())
    if ours_alone(bundle.folder):
        bundle.verify()
        yield bundle
        return
    with TemporaryDirectory(prefix="fedpeft-", ignore_cleanup_errors=True) as private:
        copy = Path(private)
        for name in bundle.manifest.files:
            with bundle.opened(name) as file:
                try:
                    with (copy / name).open("xb") as target:
                        shutil.copyfileobj(file, target)
                except OSError as error:
                    remedy = "export or fetch the bundle again, or free some space"
                    raise BundleError(
                        f"{bundle.folder}/{name}", error.strerror, "a file that can be copied", remedy
                    ) from error
        copied = Bundle(copy, bundle.manifest)
        copied.verify()
        yield copied


def ours_alone(folder: Path) -> bool:
    """Say whether no other account can change a folder's files: not they, nor the folder, nor what it lies in.

    Parameters
    ----------
    folder : Path
        Resolved by the caller, who uses the very same path afterwards; links and relative paths are refused.
    """
    if os.name != "posix" or not folder.is_absolute():
        return False
    inside = [folder, *folder.iterdir()] if folder.is_dir() else [folder]
    return all(_closed(path, sticky=False) for path in inside) and all(_closed(p, sticky=True) for p in folder.parents)


def _closed(path: Path, *, sticky: bool) -> bool:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return False
    # In a folder like /tmp others can make files, but not rename or remove those of somebody else.
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (sticky and found.st_mode & stat.S_ISVTX)
    return found.st_uid in (os.getuid(), _SYSTEM) and not shared
