"""A run's folder: everything there is to know of it, written so that a crash leaves nothing half."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedpeft.errors import RunError
from fedpeft.federation.locking import LOCK, hold, is_held
from fedpeft.files import write_whole
from fedpeft.scenario import Scenario

SCENARIO, RUN, METRICS, PEOPLE, SKIPPED, DATA, ENVIRONMENT = (
    "scenario.json",
    "run.json",
    "metrics.jsonl",
    "people.jsonl",
    "skipped.json",
    "data.json",
    "environment.json",
)
_RESOLVED = "scenario.toml"
_DESCRIPTION = {SCENARIO, _RESOLVED, RUN, ENVIRONMENT, LOCK}
_PACKAGES = (
    "fedpeft", "flwr", "torch", "transformers", "peft", "bitsandbytes", "onnxruntime", "cryptography", "numpy",
)  # fmt: skip


class RunFolder:
    """Reads and writes one run's record.

    Parameters
    ----------
    path : Path
        Created with its parents when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    @classmethod
    def fresh(cls, root: Path, name: str) -> RunFolder:
        """Make a new folder under ``root``, named after the scenario and the moment."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        root.mkdir(parents=True, exist_ok=True)
        for attempt in range(100):
            path = root / (f"{name}-{stamp}" + (f"-{attempt}" if attempt else ""))
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return cls(path)
        raise RunError("run folder", str(root / name), "a free name")

    def discard_blank(self) -> None:
        """Remove the folder if it only describes a run, without a line of metrics: there is nothing to resume."""
        if {path.name for path in self.path.rglob("*") if path.is_file()} <= _DESCRIPTION:
            shutil.rmtree(self.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one process.

        Raises
        ------
        RunError
            When another process is writing this run.
        """
        refusal = RunError(f"run {self.path}", "in use", "a run that no other process is writing", "wait for it to end")
        with hold(self.path, refusal):
            yield

    def in_use(self) -> bool:
        """Say whether a process holds the folder; the operating system lets go when it dies."""
        return is_held(self.path)

    def write(self, name: str, value: Any) -> None:
        """Replace a JSON file."""
        write_whole(self.path / name, json.dumps(value, indent=2) + "\n")

    def read(self, name: str, default: Any = None) -> Any:
        """Return a JSON file's value, or the default when there is none."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return default

    def update(self, **fields: Any) -> None:
        """Change fields of ``run.json``."""
        self.write(RUN, {**self.read(RUN, {}), **fields})

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the objects of a JSON lines file."""
        path = self.path / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Replace a JSON lines file."""
        write_whole(self.path / name, "".join(json.dumps(row) + "\n" for row in rows))

    def describe(self, scenario: Scenario, facts: Mapping[str, Any]) -> None:
        """Write the scenario, the environment and the first ``run.json``."""
        self.write(SCENARIO, scenario.model_dump(mode="json"))
        write_whole(self.path / _RESOLVED, to_toml(scenario.model_dump(mode="json", exclude_none=True)))
        self.write(ENVIRONMENT, environment())
        known = self.read(RUN, {})
        started = known.get("started", datetime.now(UTC).isoformat(timespec="seconds"))
        first = {"name": self.path.name, "started": started, "seconds": 0.0}
        self.write(RUN, {**first, **known, "scenario": scenario.digest, **facts})


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, str]:
    """Return versions and machine, for the record."""
    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    found["cores"] = str(cores())
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def to_toml(tables: Mapping[str, Any], prefix: str = "") -> str:
    """Write nested tables of plain values as TOML (the standard library only reads it)."""
    text = "".join(f"{key} = {_value(value)}\n" for key, value in tables.items() if not _tables(value))
    for key, value in tables.items():
        name = f"{prefix}{key}"
        heading = f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]"
        text += "".join(f"\n{heading}\n{to_toml(table, f'{name}.')}" for table in _tables(value))
    return text


def _tables(value: Any) -> list[Mapping[str, Any]]:
    """Return what TOML writes under a heading: a table, or a list of them; nothing of plain values."""
    if isinstance(value, Mapping):
        return [value]
    return value if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value) else []


def _value(value: Any) -> str:
    """Write a value as JSON, which is also valid TOML but for one letter, delete."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
