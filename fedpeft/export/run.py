"""Everything of a run that travels to devices: the base once, and every adapter that was kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpeft.adapters import Adapter
from fedpeft.base import Base, load_base
from fedpeft.device.folders import EVERYBODY, NOBODY, TRUST, adapter_folder, base_folder
from fedpeft.device.manifest import Manifest
from fedpeft.errors import AdapterError, BaseError, RunError
from fedpeft.export.adapter import export_adapter, require_plain
from fedpeft.export.base import backend_of, export_base
from fedpeft.signing.keyfile import read_key, write_key
from fedpeft.signing.signature import SigningKey


def export_run(run: Path, base: Base | None = None, key: SigningKey | None = None) -> dict[str, Manifest]:
    """Export a run's base and adapters to ``<run>/device``.

    Parameters
    ----------
    run : Path
        With ``scenario.json``, ``adapters/global`` and ``clients/<user>/personal``.
    base : Base, optional
        The run's base if it is loaded already.
    key : Ed25519PrivateKey, optional
        Whose signature the bundles carry; when not given, the run's own, which is made with its first export.

    Returns
    -------
    dict of str to Manifest
        By owner; the base's own under ``base``.

    Raises
    ------
    RunError
        When the run's scenario cannot be read, or a client has a reserved name.
    FedpeftError
        When the base or an adapter cannot be exported.
    """
    adapters = find_adapters(run)
    base = base or _load(run)
    key = key or signing_key(run)
    exported = {NOBODY: export_base(base, base_folder(run), key=key)}
    for owner, folder in adapters.items():
        adapter, out = Adapter.load(folder, base.fingerprint), adapter_folder(run, owner)
        exported[owner] = export_adapter(adapter, out, owner=owner, base=exported[NOBODY], key=key)
    return exported


def signing_key(run: Path) -> SigningKey:
    """Return the key that signs a run's bundles; it is made when there is none, and only its owner can read it."""
    path = run / TRUST / "bundles.pem"
    if not path.exists():
        write_key(path, SigningKey.generate())
    return read_key(path)


def obstacle(base: Base, config: Mapping[str, Any]) -> str | None:
    """Return why a base and adapters of this configuration cannot become bundles, or None when they can."""
    try:
        backend_of(base)
        require_plain(config)
    except (AdapterError, BaseError) as error:
        return str(error)
    return None


def find_adapters(run: Path) -> dict[str, Path]:
    """Return the folders of a run's adapters by owner, the one that all share first.

    Raises
    ------
    RunError
        When a client has a reserved name.
    """
    shared = run / "adapters" / "global"
    found = {EVERYBODY: shared} if shared.is_dir() else {}
    for folder in sorted(run.glob("clients/*/personal")):
        owner = folder.parent.name
        if owner in (NOBODY, EVERYBODY):
            raise RunError(f"client of {run}", owner, f"a name other than {NOBODY!r} and {EVERYBODY!r}")
        found[owner] = folder
    return found


def _load(run: Path) -> Base:
    path = run / "scenario.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["base"]
        name, dtype = str(settings["name"]), str(settings["dtype"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(str(path), repr(error), "a scenario with base.name and base.dtype") from error
    return load_base(name, dtype)
