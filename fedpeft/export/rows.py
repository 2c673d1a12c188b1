"""A run's base once more, in the variant that takes an adapter per row: what a service for many people runs."""

from __future__ import annotations

from pathlib import Path

from fedpeft.base import load_base
from fedpeft.device.bundle import Bundle
from fedpeft.device.folders import base_folder, rows_folder
from fedpeft.device.manifest import Manifest
from fedpeft.export.base import export_base
from fedpeft.export.options import ExportOptions, site_kind
from fedpeft.export.run import signing_key
from fedpeft.export.settings import read_scenario


def export_rows(run: Path) -> Manifest:
    """Write ``<run>/device/base-rows`` like ``<run>/device/base``: the same sites, the same precision.

    Parameters
    ----------
    run : Path
        That was exported.

    Raises
    ------
    RunError
        When the run's scenario cannot be read.
    FedpeftError
        When there is no base bundle, or its base cannot be exported.
    """
    made = Bundle.open(base_folder(run), "base").manifest
    kinds = {site_kind(name) for name in made.tensors}
    options = ExportOptions("rows", made.precision, frozenset(kind for kind in kinds if kind))
    named = read_scenario(run)["base"]
    base = load_base(str(named["name"]), str(named["dtype"]))
    return export_base(base, rows_folder(run), key=signing_key(run), options=options)
