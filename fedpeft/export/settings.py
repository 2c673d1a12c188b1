"""What a run's ``scenario.json`` says that its export needs; read as JSON, because scenarios lie a layer above."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from fedpeft.device.folders import RECORD, SCENARIO
from fedpeft.errors import RunError, ScenarioError, nearest
from fedpeft.export.adapter import Numbers
from fedpeft.export.options import ExportOptions


@dataclass(frozen=True)
class RunSettings:
    """How a run is exported.

    Parameters
    ----------
    options : ExportOptions
        Of its base. Whatever ``sites`` it has, those that the run's own adapters fill are added.
    adapters : {"float32", "float16"}
        What the adapters' numbers are written in.

    Raises
    ------
    ScenarioError
        For an unknown value.
    """

    options: ExportOptions = field(default_factory=ExportOptions)
    adapters: Numbers = "float32"

    def __post_init__(self) -> None:
        if self.adapters not in get_args(Numbers):
            known = get_args(Numbers)
            raise ScenarioError("export.adapters", self.adapters, " or ".join(known), nearest(self.adapters, known))

    @classmethod
    def of(cls, scenario: Mapping[str, Any]) -> RunSettings:
        """Read the ``[export]`` table of a scenario; one without it gets the defaults."""
        table = dict(scenario.get("export") or {})
        numbers = table.pop("adapters", "float32")
        if "sites" in table:
            table["sites"] = frozenset(table["sites"])
        pooling = (scenario.get("task") or {}).get("pooling", "mean")
        return cls(ExportOptions(**table, pooling=pooling), numbers)

    def with_(self, adapters: str | None = None, **options: Any) -> RunSettings:
        """Return the same with other values, where they are not None."""
        given = {name: value for name, value in options.items() if value is not None}
        return RunSettings(replace(self.options, **given), cast(Numbers, adapters or self.adapters))


def ranked_context(scenario: Mapping[str, Any]) -> int | None:
    """Return how many tokens of a text a ranking of replies reads; None for other tasks."""
    ranks = (scenario.get("task") or {}).get("kind") == "reply_ranking"
    return int(scenario["data"]["window"]) if ranks else None


def read_scenario(run: Path) -> dict[str, Any]:
    """Return a run's scenario.

    Raises
    ------
    RunError
        When there is none that names a base.
    """
    path = run / SCENARIO
    try:
        scenario = json.loads(path.read_text(encoding="utf-8"))
        str(scenario["base"]["name"]), str(scenario["base"]["dtype"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(str(path), repr(error), "a scenario with base.name and base.dtype") from error
    return dict(scenario)


def read_record(run: Path) -> dict[str, Any]:
    """Return what a run has recorded of itself, nothing when it has not.

    Raises
    ------
    RunError
        When its record is damaged.
    """
    path = run / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise RunError(str(path), repr(error), "a run's record") from error
    return record if isinstance(record, dict) else {}
