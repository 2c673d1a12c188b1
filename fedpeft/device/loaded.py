"""A person's adapter, ready to be switched on for a single run of the base graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime as ort

from fedpeft.device.bundle import ADAPTER, Bundle
from fedpeft.device.manifest import Manifest, Shape
from fedpeft.device.sites import require_fit
from fedpeft.errors import BundleError


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter whose files were verified and whose tensors are mapped.

    Parameters
    ----------
    manifest : Manifest
    handle : onnxruntime.LoraAdapter
        Run options hold a bare pointer to it. If it is collected before the run, onnxruntime silently answers
        as the base; so options are made per run, by whoever holds this object (:func:`run_options`).
    """

    manifest: Manifest
    handle: Any

    @property
    def owner(self) -> str:
        """Whose adapter it is."""
        return self.manifest.name


def run_options(adapter: LoadedAdapter | None) -> ort.RunOptions:
    """Make the options of one run; the caller keeps ``adapter`` until the run has returned."""
    options = ort.RunOptions()
    if adapter is not None:
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
    bundle.require_base(fingerprint)
    bundle.verify()
    require_fit(bundle.manifest.tensors, sites, str(folder))
    content = bundle.read(ADAPTER)
    # What was hashed is what is mapped: a copy that nobody else can open. The mapping outlives its file.
    with TemporaryDirectory(prefix="fedpeft-", ignore_cleanup_errors=True) as private:
        copy = Path(private) / ADAPTER
        copy.write_bytes(content)
        handle = ort.LoraAdapter()
        try:
            held = ort.AdapterFormat.read_adapter(str(copy)).get_parameters()
            handle.Load(str(copy))
        except Exception as error:  # onnxruntime raises RuntimeError and its own classes of Exception
            raise BundleError(f"{folder}/{ADAPTER}", str(error), "an onnxruntime adapter") from error
    shapes = {name: tuple(value.shape()) for name, value in held.items()}
    if shapes != bundle.manifest.tensors:
        raise BundleError(f"{folder}/{ADAPTER} tensors", f"{len(shapes)} others", "those the manifest lists")
    return LoadedAdapter(bundle.manifest, handle)
