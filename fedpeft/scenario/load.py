"""Read a scenario: TOML, then overrides, then types, then whether its parts fit together."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedpeft.errors import ScenarioError
from fedpeft.methods.method import first_complaint
from fedpeft.scenario.model import Scenario
from fedpeft.scenario.validate import validate


def load_scenario(path: Path | str, overrides: Iterable[str] = ()) -> Scenario:
    """Read and validate a scenario file.

    Parameters
    ----------
    path : Path or str
        A ``.toml`` file, or the ``scenario.json`` of a run.
    overrides : iterable of str
        ``"table.key=value"``, the value in TOML; a bare word is taken as a string.

    Returns
    -------
    Scenario

    Raises
    ------
    ScenarioError
        Naming the first field that is wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError("scenario", str(path), "a readable TOML file", _siblings(path)) from error
    try:
        tables = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ScenarioError(f"scenario {path}", str(error), "valid TOML") from error
    return parse_scenario(tables, overrides)


def parse_scenario(tables: dict[str, Any], overrides: Iterable[str] = ()) -> Scenario:
    """Validate a scenario given as nested dictionaries.

    Raises
    ------
    ScenarioError
        Naming the first field that is wrong.
    """
    if not isinstance(tables, dict):
        raise ScenarioError("scenario", tables, "tables")
    tables = json.loads(json.dumps(tables, default=str))
    for override in overrides:
        _apply(tables, override)
    try:
        scenario = Scenario(**tables)
    except ValidationError as error:
        raise first_complaint(error, "", Scenario) from error
    validate(scenario)
    return scenario


def _apply(tables: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ScenarioError("--set", override, "table.key=value", "for example --set federation.rounds=3")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    table = tables
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ScenarioError("--set", override, f"{part} to be a table")
    table[path[-1]] = parsed


def _siblings(path: Path) -> str:
    """List the scenarios that lie where this one was looked for, or in ``simulations``."""
    for folder in (path.parent, Path("simulations")):
        names = sorted(str(p) for p in folder.glob("*.toml")) if folder.is_dir() else []
        if names:
            return f"scenarios there: {', '.join(names)}"
    return "name an existing file"
