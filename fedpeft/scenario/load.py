"""Read a scenario: TOML, then overrides, then types, then whether its parts fit together."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fedpeft.errors import ScenarioError
from fedpeft.methods.method import first_complaint
from fedpeft.scenario.model import Scenario
from fedpeft.scenario.validate import validate

# Fields of which a scenario means one: an override of the first takes the second out.
_INSTEAD = {("training", "steps"): "epochs", ("training", "epochs"): "steps", ("seed",): "seeds"}


def load_scenario(path: Path | str, overrides: Iterable[str] = ()) -> Scenario:
    """Read and validate a scenario file.

    Parameters
    ----------
    path : Path or str
        A ``.toml`` file, or the ``scenario.json`` of a run.
    overrides : iterable of str
        ``"table.key=value"``, the value in TOML; a bare word is taken as a string. A table that the file lacks is
        the default one but for this key. A length of a training takes the place of its other length, and ``seed``
        that of ``seeds``, unless both are overridden.

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
    given: set[tuple[str, ...]] = set()
    for override in overrides:
        given.add(_apply(tables, override, given))
    try:
        scenario = Scenario(**tables)
    except ValidationError as error:
        raise first_complaint(error, "", Scenario) from error
    validate(scenario)
    return scenario


def _apply(tables: dict[str, Any], override: str, given: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Change one field, take out what it stands instead of unless that was given too, and return its path."""
    key, equals, value = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise ScenarioError("--set", override, "table.key=value", "for example --set federation.rounds=3")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    table = tables
    for depth, part in enumerate(path[:-1], 1):
        if table.get(part) is None:
            table[part] = _default(path[:depth])
        table = table[part]
        if not isinstance(table, dict):
            raise ScenarioError("--set", override, f"{part} to be a table")
    table[path[-1]] = parsed
    other = _INSTEAD.get(path[-2:])
    if other and (*path[:-1], other) not in given:
        table.pop(other, None)
    return path


def _default(path: tuple[str, ...]) -> dict[str, Any]:
    """Return what stands in a table when the file lacks it, such as ``steps`` in ``training``."""
    table: object = Scenario(name="default")
    for part in path:
        table = dict(table).get(part) if isinstance(table, BaseModel | dict) else None
    if isinstance(table, BaseModel):
        return table.model_dump(mode="json", exclude_unset=True)
    return dict(table) if isinstance(table, dict) else {}


def _siblings(path: Path) -> str:
    """List the scenarios that lie where this one was looked for, or in ``simulations``."""
    for folder in (path.parent, Path("simulations")):
        names = sorted(str(p) for p in folder.glob("*.toml")) if folder.is_dir() else []
        if names:
            return f"scenarios there: {', '.join(names)}"
    return "name an existing file"
