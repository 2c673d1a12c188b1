"""A run's two bases: the one that adapters are verified against, and the same with a place for every row's adapter."""

from __future__ import annotations

from pathlib import Path

from fedpeft.device.bundle import Bundle
from fedpeft.device.folders import base_folder, rows_folder
from fedpeft.device.manifest import Manifest
from fedpeft.errors import ServeError

_SHARED = ("base_fingerprint", "signer", "precision", "decoder", "tensors")


def difference(base: Manifest, rows: Manifest) -> str | None:
    """Return the first field in which the two are not the same base, or None."""
    return next((field for field in _SHARED if getattr(base, field) != getattr(rows, field)), None)


def stale(run: Path) -> bool:
    """Say whether a run has to be exported for serving: it never was, or its base was exported anew since.

    Raises
    ------
    BundleError
        When a manifest cannot be read.
    """
    if not rows_folder(run).is_dir():
        return True
    base = Bundle.open(base_folder(run), "base")
    return difference(base.manifest, Bundle.open(rows_folder(run), "base").manifest) is not None


def open_rows(run: Path, base: Manifest) -> Bundle:
    """Open the base for serving; its files are unproven.

    Raises
    ------
    BundleError
        When it is incomplete or altered.
    ServeError
        When it is not the same base.
    """
    bundle = Bundle.open(rows_folder(run), "base", [base.signer])
    if field := difference(base, bundle.manifest):
        remedy = "run `fedpeft serve` where fedpeft[train] is installed: it exports both alike"
        raise ServeError(f"{bundle.folder} {field}", "another", f"that of {base_folder(run)}", remedy)
    return bundle
