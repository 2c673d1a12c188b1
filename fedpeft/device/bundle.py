"""A folder that travels to a device: its files, and a signed manifest that says what they must hash to.

==================  ============================================================================================
base                ``model.onnx``, ``model.onnx.data``, ``tokenizer.json``; ``chat_template.jinja`` if it has one
adapter             ``adapter.onnx_adapter``, ``prefix.onnx_adapter`` or both, and the same in peft's layout:
                    ``adapter_config.json``, ``adapter_model.safetensors``
==================  ============================================================================================

onnxruntime accepts an adapter with a flipped bit, and one trained on another base of the same shape; neither
is noticed in the output. The manifest is what notices; its signature says whose word it is. Whoever opens a bundle
says which signers they believe.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest, sha256
from io import BufferedReader
from pathlib import Path
from typing import Literal

from fedpeft.device.manifest import MANIFEST, SIGNATURE, File, Manifest
from fedpeft.errors import BundleError, ProtocolError
from fedpeft.signing import signature
from fedpeft.signing.signature import SigningKey

GRAPH, TOKENIZER, ADAPTER = "model.onnx", "tokenizer.json", "adapter.onnx_adapter"
PREFIX = "prefix.onnx_adapter"
"""Keys and values to begin every text with, named as the graph's ``past_key_values`` and of one row."""
TEMPLATE = "chat_template.jinja"
"""How a base was taught to see a conversation; bases without one have marks (:class:`.manifest.DecoderFacts`)."""
FINGERPRINT = "fedpeft.base_fingerprint"
"""Key of the graph's own metadata under which it carries its base's fingerprint."""

_AGAIN = "export or fetch the bundle again"
_LARGEST_MANIFEST = 16 << 20
_LABEL = "bundle"


@dataclass(frozen=True)
class Bundle:
    """A folder whose manifest is its signer's. The files it lists are unproven until :meth:`verify` or :meth:`read`.

    Parameters
    ----------
    folder : Path
    manifest : Manifest
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path, kind: Literal["base", "adapter"], trusted: Collection[str] | None = None) -> Bundle:
        """Read a bundle's manifest and verify its signature.

        Parameters
        ----------
        folder : Path
        kind : str
        trusted : collection of str, optional
            Public keys in hexadecimal whose bundles are believed; anybody's when not given.

        Raises
        ------
        BundleError
            When there is no manifest, it cannot be used, it is of the other kind, its signer is not trusted, or it is
            not what its signer signed.
        """
        content, signed = _first(folder / MANIFEST, _LARGEST_MANIFEST), _first(folder / SIGNATURE, signature.SIGNATURE)
        manifest = Manifest.from_json(content, str(folder))
        if manifest.kind != kind:
            raise BundleError(f"{folder} kind", manifest.kind, f"a bundle of kind {kind!r}")
        if trusted is not None and manifest.signer not in trusted:
            known = ", ".join(f"{key[:12]}…" for key in sorted(trusted)) or "none is trusted"
            raise BundleError(f"{folder} signer", f"{manifest.signer[:12]}…", f"one that is trusted: {known}")
        try:
            signature.verify(bytes.fromhex(manifest.signer), signed, manifest.name, _LABEL, content)
        except ProtocolError as error:
            raise BundleError(
                f"{folder}/{SIGNATURE}", f"{signed.hex()[:12]}…", "its signer's signature of the manifest", _AGAIN
            ) from error
        return cls(folder, manifest)

    def read(self, name: str) -> bytes:
        """Return a file's content, exactly the bytes that were hashed.

        Raises
        ------
        BundleError
            When the file is not listed, missing, truncated or altered.
        """
        listed = self._listed(name)
        with self.opened(name) as file:
            content = file.read(listed.bytes + 1)  # one more shows that it grew meanwhile
        self._compare(name, listed, len(content), sha256(content).hexdigest())
        return content

    @contextmanager
    def opened(self, name: str) -> Iterator[BufferedReader]:
        """Open a file of the size that the manifest lists; nothing of any other is read, however large it is.

        Raises
        ------
        BundleError
            When the file is not listed, missing, no ordinary file, of another size, or cannot be read.
        """
        listed = self._listed(name)
        with _regular(self.folder / name) as file:
            self._compare_size(name, listed, os.fstat(file.fileno()).st_size)
            yield file

    def verify(self, besides: Collection[str] = ()) -> None:
        """Compare every file with the manifest, and the folder with the list.

        Parameters
        ----------
        besides : collection of str
            Files that the caller gets by :meth:`read`, which proves them.

        Raises
        ------
        BundleError
            Naming the first file that is missing, truncated, altered or not listed.
        """
        for name, listed in self.manifest.files.items():
            if name in besides:
                continue
            with self.opened(name) as file:
                digest = file_digest(file, "sha256").hexdigest()
                size = file.tell()
            self._compare(name, listed, size, digest)
        present = {path.name for path in self.folder.iterdir()}
        for name in sorted(present - self.manifest.files.keys() - {MANIFEST, SIGNATURE}):
            raise BundleError(f"{self.folder}/{name}", "a file", "only files the manifest lists", "remove it")

    def require_base(self, fingerprint: str) -> None:
        """Refuse to be used with another base.

        Raises
        ------
        BundleError
            When ``fingerprint`` is not the one in the manifest.
        """
        found = self.manifest.base_fingerprint
        if found != fingerprint:
            raise BundleError(
                f"{self.folder} base",
                f"{found[:12]}…",
                f"the base {fingerprint[:12]}…",
                "use the base bundle it was exported with",
            )

    def _listed(self, name: str) -> File:
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder}/{MANIFEST} files", sorted(self.manifest.files), f"{name} too")
        return self.manifest.files[name]

    def _compare(self, name: str, listed: File, size: int, digest: str) -> None:
        self._compare_size(name, listed, size)
        if digest != listed.sha256:
            raise BundleError(
                f"{self.folder}/{name}", f"sha256 {digest[:12]}…", f"sha256 {listed.sha256[:12]}…", _AGAIN
            )

    def _compare_size(self, name: str, listed: File, size: int) -> None:
        if size != listed.bytes:
            raise BundleError(f"{self.folder}/{name}", f"{size} bytes", f"{listed.bytes} bytes", _AGAIN)


def hash_files(folder: Path) -> dict[str, File]:
    """Describe every file of a folder for its manifest, which must not be written yet."""
    return {path.name: describe(path) for path in sorted(folder.iterdir())}


def describe(path: Path) -> File:
    """Return a file's hash and size."""
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
        return File(sha256=digest, bytes=file.tell())


def is_whole(path: Path, listed: File) -> bool:
    """Say whether a file is there and is the one that was listed; nothing is read of one of another size."""
    try:
        return path.stat().st_size == listed.bytes and describe(path) == listed
    except OSError:
        return False


def seal(folder: Path, manifest: Manifest, key: SigningKey) -> None:
    """Write a manifest and its signature; all that it lists must be there already.

    Parameters
    ----------
    folder : Path
    manifest : Manifest
        Naming the public half of ``key`` as its signer.
    key : Ed25519PrivateKey
    """
    content = manifest.to_json()
    (folder / MANIFEST).write_bytes(content)
    (folder / SIGNATURE).write_bytes(signature.sign(key, _LABEL, content))


def _first(path: Path, limit: int) -> bytes:
    with _regular(path) as file:
        return file.read(limit)


@contextmanager
def _regular(path: Path) -> Iterator[BufferedReader]:
    """Open an ordinary file: a pipe would be waited for, and a device never ends."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BundleError(str(path), "a pipe or a device", "an ordinary file", _AGAIN)
            yield file
    except OSError as error:
        raise BundleError(str(path), error.strerror, "a readable file", _AGAIN) from error


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
