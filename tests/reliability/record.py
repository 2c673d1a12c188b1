"""What was measured, one JSON object a line, and the page that is made of it."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedpeft.federation.folder import environment
from fedpeft.files import write_whole

RESULTS = Path(__file__).resolve().parent / "results"
REPOSITORY = Path(__file__).resolve().parents[2]
OURS, STOCK, SOAK, TRANSPORT = "fedpeft.jsonl", "stock.jsonl", "soak.jsonl", "transport.jsonl"


def stamp() -> dict[str, str]:
    """Return where, when and on what something was measured."""
    head = ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip()
    machine = environment()
    return {
        "commit": commit,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "machine": f"{machine['cores']} cores, {machine['platform'].split('-with')[0]}, Python {machine['python']}",
        "flwr": version("flwr"),
    }


def read(name: str) -> list[dict[str, Any]]:
    """Return a file's rows."""
    path = RESULTS / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(name: str, rows: list[dict[str, Any]], key: str, order: list[str]) -> None:
    """Replace rows of the same key, and leave the others as they were."""
    found = {row[key]: row for row in [*read(name), *rows]}
    kept = [found[value] for value in order if value in found]
    RESULTS.mkdir(exist_ok=True)
    write_whole(RESULTS / name, "".join(json.dumps(row) + "\n" for row in kept))
