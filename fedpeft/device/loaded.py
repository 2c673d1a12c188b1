"""A person's adapter, ready to be switched on for a single run of the base graph.

onnxruntime maps an adapter's file, so a thousand of them are pages that the system may drop, not memory that the
process owns. The file is a copy that no other account can open, made of the very bytes that were hashed; it is gone
when the adapter is. Runs that bind their inputs read the numbers themselves (:meth:`LoadedAdapter.tensors`):
onnxruntime ignores an active adapter there, and answers as the base.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import mkstemp
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort

from fedpeft.device.bundle import ADAPTER, PREFIX, Bundle
from fedpeft.device.manifest import Manifest, Shape
from fedpeft.device.sites import require_fit
from fedpeft.errors import BundleError

FLOAT, HALF = "tensor(float)", "tensor(float16)"
_PAST_DIMENSIONS = 4
SOFT_PROMPT = "soft_prompt"

Values = Mapping[str, Any]
"""OrtValues by name."""


class Tensors(dict[str, Any]):
    """The OrtValues of an adapter by site; a class of its own because a plain dict cannot be referred to weakly."""


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An adapter whose files were verified and whose tensors are mapped.

    Parameters
    ----------
    manifest : Manifest
    handle : onnxruntime.LoraAdapter or None
        Run options hold a bare pointer to it. If it is collected before the run, onnxruntime silently answers
        as the base; so options are made per run, by whoever holds this object (:func:`run_options`). None when the
        adapter is nothing but a prefix.
    copy : Path or None
        The private file that is mapped.
    prefix : dict of str to onnxruntime.OrtValue
        Keys and values that come before every text, by the graph's input; empty for most methods.
    """

    manifest: Manifest
    handle: Any
    copy: Path | None = None
    prefix: Values = field(default_factory=dict)
    _read: list[weakref.ref[Tensors]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.copy is not None:
            weakref.finalize(self, _remove_own, self.copy, os.getpid())

    @property
    def owner(self) -> str:
        """Whose adapter it is."""
        return self.manifest.name

    @property
    def whole(self) -> bool:
        """Whether its private copy is still there; systems clean their temporary folders now and then."""
        return self.copy is None or self.copy.exists()

    @property
    def prompt(self) -> int:
        """How many tokens its soft prompt puts before every text."""
        shape = self.manifest.tensors.get(SOFT_PROMPT, (0,))
        return shape[0] or 0

    @property
    def past(self) -> int:
        """How many positions its prefix fills."""
        return next((value.shape()[2] for value in self.prefix.values()), 0)

    def tensors(self) -> Tensors:
        """Return the numbers of every site as OrtValues.

        They are read once for all who hold them at a time and are memory of the process, which the adapter itself is
        not. Arrays that are views of them do not keep them.

        Raises
        ------
        BundleError
            When the private copy was removed from the temporary folder.
        """
        known = self._read[-1]() if self._read else None
        if known is None:
            if not self.whole:
                raise BundleError(
                    f"adapter of {self.owner}", "no private copy any more", f"{self.copy}", "load it again"
                )
            known = Tensors(_parameters(self.copy) if self.copy is not None else {})
            self._read[:] = [weakref.ref(known)]
        return known


def run_options(adapter: LoadedAdapter | None) -> ort.RunOptions:
    """Make the options of one run; the caller keeps ``adapter`` until the run has returned."""
    options = ort.RunOptions()
    if adapter is not None and adapter.handle is not None:
        options.add_active_adapter(adapter.handle)
    return options


def load_adapter(folder: Path, fingerprint: str, sites: Mapping[str, Shape], trusted: Collection[str]) -> LoadedAdapter:
    """Verify an adapter bundle and map its tensors.

    Parameters
    ----------
    folder : Path
    fingerprint : str
        Of the base it is to run on.
    sites : mapping
        The base graph's optional inputs.
    trusted : collection of str
        Public keys of the signers that are believed.

    Raises
    ------
    BundleError
        When the bundle is incomplete, altered, signed by somebody else, meant for another base, or its tensors do not
        fit.
    """
    bundle = Bundle.open(folder, "adapter", trusted)
    manifest = bundle.manifest
    bundle.require_base(fingerprint)
    if manifest.tensors or PREFIX not in manifest.files:
        require_fit(manifest.tensors, sites, str(folder))
    mapped = {name for name in (ADAPTER, PREFIX) if name in manifest.files}
    bundle.verify(besides=mapped)
    prefix: Values = {}
    if PREFIX in mapped:
        private = private_file(bundle.read(PREFIX))
        try:
            prefix = _read(private, f"{folder}/{PREFIX}")
            _require_finite(prefix, f"{folder}/{PREFIX}")
            if any(len(value.shape()) != _PAST_DIMENSIONS for value in prefix.values()):
                raise BundleError(f"{folder}/{PREFIX}", "other shapes", "keys and values of 4 dimensions")
        finally:
            _remove(private)
    if not manifest.tensors:
        return LoadedAdapter(_slim(manifest), None, None, prefix)
    return _mapped(_slim(manifest), bundle.read(ADAPTER), f"{folder}/{ADAPTER}", prefix)


def from_values(values: Values, manifest: Manifest) -> LoadedAdapter:
    """Make an adapter of tensors that are in memory.

    Parameters
    ----------
    values : mapping of str to onnxruntime.OrtValue
        In float32.
    manifest : Manifest
        Its ``tensors`` are what ``values`` has.
    """
    private = private_file(b"")
    try:
        write_values(values, private)
        return _mapped(manifest, private.read_bytes(), f"adapter of {manifest.name}", {})
    finally:
        _remove(private)


def write_values(values: Values, path: Path) -> None:
    """Write onnxruntime's adapter format; the values must outlive the call, the format keeps bare pointers."""
    content = ort.AdapterFormat()
    content.set_adapter_version(1)
    content.set_model_version(1)
    content.set_parameters(dict(values))
    content.export_adapter(str(path))


def private_file(content: bytes) -> Path:
    """Write a temporary file that only this account can open.

    Raises
    ------
    BundleError
        When there is no room for it; nothing of it is left.
    """
    try:
        descriptor, name = mkstemp(prefix="fedpeft-", suffix=".onnx_adapter")
    except OSError as error:
        raise _no_room(error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise _no_room(error) from error
    return Path(name)


def _no_room(error: OSError) -> BundleError:
    return BundleError("temporary folder", error.strerror or str(error), "room for a private copy", "free some space")


def _mapped(manifest: Manifest, content: bytes, where: str, prefix: Values) -> LoadedAdapter:
    private = private_file(content)
    try:
        held = _read(private, where)
        _require_listed(held, manifest, where)
        if manifest.precision == "float16":
            wide = {name: _wide(value) for name, value in held.items()}
            write_values(wide, private)
        del held
        handle = ort.LoraAdapter()
        handle.Load(str(private))
    except Exception as error:
        _remove(private)
        if isinstance(error, BundleError):
            raise
        raise BundleError(where, str(error), "an onnxruntime adapter") from error
    return LoadedAdapter(manifest, handle, private, prefix)


def _require_listed(held: Values, manifest: Manifest, where: str) -> None:
    shapes = {name: tuple(value.shape()) for name, value in held.items()}
    if shapes != manifest.tensors:
        raise BundleError(f"{where} tensors", f"{len(shapes)} others", "those the manifest lists")
    expected = HALF if manifest.precision == "float16" else FLOAT
    for name, value in held.items():
        if value.data_type() != expected:
            raise BundleError(f"{where} tensor {name}", value.data_type(), f"{expected}, as the manifest says")
    _require_finite(held, where)


def _require_finite(values: Values, where: str) -> None:
    """Refuse numbers that are none: in a batch they would be everybody's trouble."""
    for name, value in values.items():
        if not np.isfinite(value.numpy()).all():
            raise BundleError(f"{where} tensor {name}", "NaN or infinity", "finite numbers", "train it again")


def _read(path: Path, where: str) -> Values:
    try:
        return _parameters(path)
    except Exception as error:  # onnxruntime raises RuntimeError and its own classes of Exception
        raise BundleError(where, str(error), "an onnxruntime adapter") from error


def _parameters(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = ort.AdapterFormat.read_adapter(str(path)).get_parameters()
    return values


def _wide(value: Any) -> Any:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value.numpy(), np.float32))


def _slim(manifest: Manifest) -> Manifest:
    """Let manifests that list the same shapes share them: a thousand people's adapters mostly do."""
    return manifest.model_copy(update={"tensors": _shared(tuple(manifest.tensors.items()))})


@lru_cache(maxsize=256)
def _shared(tensors: Iterable[tuple[str, Shape]]) -> Mapping[str, Shape]:
    return MappingProxyType(dict(tensors))


def _remove_own(path: Path, process: int) -> None:
    """Remove a file that this process made; a forked child drops its adapters, and its parent keeps its own."""
    if os.getpid() == process:
        _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # Windows does not remove what is still mapped
        return
