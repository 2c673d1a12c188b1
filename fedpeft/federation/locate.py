"""Where a Flower run finds its scenario and leaves its record."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context

from fedpeft.errors import ScenarioError

APP: list[Path] = []
"""The folder of the installed Flower app, set by the entry points; scenarios travel with it."""


def scenario_of(run_config: Mapping[str, Any]) -> Path:
    """Return the scenario file that a run configuration names.

    Raises
    ------
    ScenarioError
        When it lies neither under the working directory nor in the Flower app.
    """
    name = str(run_config.get("scenario", ""))
    for root in (Path.cwd(), *APP):
        if name and (root / name).is_file():
            return root / name
    raise ScenarioError(
        "run config scenario", name, "an existing TOML file", "give an absolute path: --run-config 'scenario=\"…\"'"
    )


def config_of(context: Context) -> dict[str, Any]:
    """Return what a run was configured with; where a device says something of its own, that."""
    return {**context.run_config, **context.node_config}


def run_folder_of(context: Context) -> Path:
    """Return the run's folder: the one configured, or ``runs/<name>-<run id>`` of the working directory."""
    config = config_of(context)
    folder = str(config.get("run-folder", ""))
    if folder:
        return Path(folder)
    path = scenario_of(config)
    name = tomllib.loads(path.read_text(encoding="utf-8")).get("name", path.stem)
    return Path.cwd() / "runs" / f"{name}-{context.run_id}"
