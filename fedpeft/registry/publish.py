"""From a run to a version on a shelf: its global adapter, its base if the shelf lacks it, and what is known of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedpeft.base import Base
from fedpeft.device.folders import EVERYBODY
from fedpeft.device.manifest import MANIFEST, Manifest
from fedpeft.device.versions.version import NO_GUARANTEE, STABLE, Head, Version
from fedpeft.errors import RunError
from fedpeft.export.run import RunExport
from fedpeft.registry.publisher import Facts, Publisher

_METRICS = "metrics.jsonl"


def publish_run(
    run: Path, publisher: Publisher, channel: str = STABLE, base: Base | None = None
) -> tuple[Version, Head]:
    """Export a run's global adapter, sign a version, and make it the head of a channel.

    Whoever publishes the same again gets the version that is there: a supervisor that was killed may repeat it.

    Parameters
    ----------
    run : Path
        Whose rounds are over; it is only read.
    publisher : Publisher
        Whose key signs version and bundles.
    channel : str
    base : Base, optional
        The run's base if it is loaded already.

    Returns
    -------
    version : Version
    head : Head

    Raises
    ------
    RunError
        When the run has no global adapter yet, or its record is damaged.
    FedpeftError
        When it cannot be exported or written; nothing is published then.
    """
    found = RunExport(run, base, publisher.key, owners=[EVERYBODY])
    facts = _facts(run, found)
    known = publisher.base_like(found.fits)
    with TemporaryDirectory(prefix="fedpeft-publish-") as drafts:
        folders = {kind: Path(drafts) / kind for kind in ("base", "adapter")}
        if known is None:
            manifest = found.write_base(folders["base"])
        else:
            path = publisher.blob(known[MANIFEST].sha256)
            manifest = Manifest.from_json(path.read_bytes(), str(publisher.folder))
        found.write_adapter(EVERYBODY, manifest, folders["adapter"])
        return publisher.publish(facts, {"base": known or folders["base"], "adapter": folders["adapter"]}, channel)


def _facts(run: Path, found: RunExport) -> Facts:
    scenario, rows = found.record.get("scenario"), _rows(run)
    if not isinstance(scenario, str):
        raise RunError(f"run {run} scenario", scenario, "a digest in run.json")
    scored: dict[str, Any] = next((row["validation"] for row in reversed(rows) if row.get("validation")), {})
    metrics = {name: float(value) for name, value in scored.items() if isinstance(value, int | float)}
    return Facts(
        run=str(found.record.get("name", run.name)),
        round=int(rows[-1]["round"]) if rows else 0,
        scenario=scenario,
        base_name=found.base.name,
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        privacy=found.record.get("privacy") or NO_GUARANTEE,
    )


def _rows(run: Path) -> list[dict[str, Any]]:
    path = run / _METRICS
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    except (OSError, ValueError) as error:
        raise RunError(str(path), str(error)[:80], "a run's metrics") from error
