"""An adapter bundle as one file, to be sent.

The archive is a zip with the bundle's files side by side, and everything in it is somebody else's word until the
bundle's own signature is checked. So nothing of it is believed: names must be plain, entries ordinary files, few, each
once and of a bounded size, which is counted while it is unpacked and not read from the archive; and nothing is unpacked
that expands like a bomb. A bundle that is refused leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, LargeZipFile, ZipFile, ZipInfo

from fedpeft.device.bundle import Bundle
from fedpeft.device.manifest import MANIFEST, SIGNATURE
from fedpeft.errors import BundleError
from fedpeft.files import write_private

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Equal bundles are equal archives."""
_BLOCK = 1 << 16
_ENCRYPTED = 1


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Parameters
    ----------
    files : int
        Most entries.
    bytes : int
        Most bytes of all of them, unpacked.
    ratio : int
        Most bytes unpacked for each byte of the archive. Adapters are numbers, which hardly shrink.
    """

    files: int = 16
    bytes: int = 256 << 20
    ratio: int = 100


LIMITS = Limits()


def pack(folder: Path, archive: Path) -> None:
    """Write an adapter bundle as one file that only this account can read; the file is whole or absent.

    Raises
    ------
    BundleError
        When the bundle is incomplete or altered, or there is no room.
    """
    bundle = Bundle.open(folder, "adapter")
    bundle.verify()
    packed = BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as zipped:
        for name in (MANIFEST, SIGNATURE, *sorted(bundle.manifest.files)):
            entry = ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = ZIP_DEFLATED, (stat.S_IFREG | 0o600) << 16
            listed = name in bundle.manifest.files
            zipped.writestr(entry, bundle.read(name) if listed else (folder / name).read_bytes())
    try:
        write_private(archive, packed.getvalue())
    except OSError as error:
        raise BundleError(str(archive), error.strerror, "a place to write", "free some space") from error


def unpack(archive: Path, into: Path, trusted: Collection[str] | None = None, limits: Limits = LIMITS) -> Bundle:
    """Unpack and verify an adapter bundle.

    Parameters
    ----------
    archive : Path
    into : Path
        The bundle's folder; it must not be there yet. Only this account can enter it.
    trusted : collection of str, optional
        Public keys in hexadecimal whose bundles are believed; anybody's when not given.
    limits : Limits

    Returns
    -------
    Bundle
        Verified.

    Raises
    ------
    BundleError
        With the reason; nothing is left at ``into``.
    """
    if into.exists() or into.is_symlink():
        raise BundleError(f"folder {into}", "something", "nothing there yet", "choose another folder")
    try:
        into.absolute().parent.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(prefix=f".{into.name}.", dir=into.absolute().parent))
    except OSError as error:
        raise BundleError(f"folder {into}", error.strerror, "a place to write") from error
    try:
        _extract(archive, draft, limits)
        Bundle.open(draft, "adapter", trusted).verify()
        draft.rename(into)
        return Bundle.open(into, "adapter", trusted)
    except (BadZipFile, LargeZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise BundleError(str(archive), str(error) or type(error).__name__, "a zip file") from error
    except OSError as error:
        raise BundleError(str(archive), error.strerror or str(error), "a zip file, and room to unpack it") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _extract(archive: Path, draft: Path, limits: Limits) -> None:
    packed = archive.stat().st_size
    if packed > limits.bytes:
        raise BundleError(str(archive), f"{packed} bytes", f"at most {limits.bytes}")
    most = min(limits.bytes, packed * limits.ratio)
    with ZipFile(archive) as zipped:
        entries = zipped.infolist()
        if len(entries) > limits.files:
            raise BundleError(str(archive), f"{len(entries)} files", f"at most {limits.files}")
        seen: set[str] = set()
        for entry in entries:
            _require_plain(archive, entry, seen)
            most -= _copy(zipped, entry, draft / entry.filename, most, archive)


def _require_plain(archive: Path, entry: ZipInfo, seen: set[str]) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    for found, wrong, expected in (
        (entry.orig_filename, not _NAME.fullmatch(entry.orig_filename), "plain names without folders"),
        (entry.filename, entry.filename.casefold() in seen, "each file once"),
        (f"{entry.filename}, a link or device", kind not in (0, stat.S_IFREG), "ordinary files"),
        (f"{entry.filename}, encrypted", entry.flag_bits & _ENCRYPTED, "files that are not encrypted"),
        (
            f"{entry.filename}, compressed by method {entry.compress_type}",
            entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED),
            "files stored or deflated",
        ),
    ):
        if wrong:
            raise BundleError(f"{archive} file", found, expected)
    seen.add(entry.filename.casefold())


def _copy(zipped: ZipFile, entry: ZipInfo, path: Path, most: int, archive: Path) -> int:
    """Unpack one file of at most ``most`` bytes, however many the archive says it has, and return how many it had."""
    written = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as target, zipped.open(entry) as source:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > most:
                raise BundleError(f"{archive} {entry.filename}", "more than is allowed", "an adapter, not a bomb")
            target.write(block)
    return written
