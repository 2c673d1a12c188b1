"""What an operator wants to know of a server, read from its folder; it need not run."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from fedpeft.errors import FedpeftError
from fedpeft.federation.deployed.alerts import SOON, alerts_of
from fedpeft.federation.deployed.drain import Drain
from fedpeft.federation.deployed.ending import Ending
from fedpeft.federation.deployed.programs import restarts, running
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.deployed.serverapp import FINISHED
from fedpeft.federation.flower_control import ControlLine
from fedpeft.federation.folder import METRICS, RUN, SCENARIO, RunFolder
from fedpeft.secagg.trust.registry import census
from fedpeft.signing.tls import days_left

PRIVACY = {"mechanism": "none"}
"""What a run spends of people's privacy. There is no differential privacy here yet, so there is no number to give."""

_DAY, _HOUR = 86_400.0, 3_600.0
_LATELY = 20  # rounds over which the rate is taken


def status_of(server: ServerFolder) -> dict[str, Any]:
    """Return a server's state as plain values.

    Returns
    -------
    dict
        ``federation``, ``address``, ``up`` (whether ``fedpeft server up`` runs), ``draining``, ``programs`` (process
        ids), ``starts`` (of each program in the last hour), ``clients`` (enrolled, online, revoked, expired, expiring;
        None where it cannot be known), ``certificate_days``, ``disk``, ``runs``, and ``alerts``, each with a name and a
        line.
    """
    now = time.time()
    programs, unknown = running(server.flower), []
    clients: dict[str, Any] = dict.fromkeys(("enrolled", "online", "revoked", "expired", "expiring"))
    try:
        known = census(server.registry, now, now + SOON * _DAY)
        counts = {"enrolled": known.enrolled, "revoked": known.revoked, "expired": known.expired}
        clients |= {**counts, "expiring": list(known.expiring)}
        if "superlink" in programs:
            clients["online"] = _online(server)
    except FedpeftError as error:
        unknown.append(str(error))
    disk = shutil.disk_usage(server.path)
    found: dict[str, Any] = {
        "address": server.address,
        "federation": server.pinned.federation,
        "up": server.runs,
        "draining": server.runs and Drain(server.path).asked,
        "programs": programs,
        "starts": restarts(server.flower, now - _HOUR),
        "clients": clients,
        "certificate_days": round(days_left(server.certificate.parent), 1),
        "disk": {"free": disk.free, "total": disk.total},
        "deadline": server.settings.deadline,
        "runs": [_run(server, path.parent, now) for path in sorted(server.path.glob(f"runs/*/{SCENARIO}"))],
    }
    return {**found, "alerts": alerts_of(found, unknown)}


def healthy(found: dict[str, Any]) -> bool:
    """Say whether a server does what it is for: its programs run and its SuperLink answers."""
    return (
        found["up"] and {"superlink", "superexec"} <= set(found["programs"]) and found["clients"]["online"] is not None
    )


def _online(server: ServerFolder) -> int:
    control = ControlLine(server.address, server.ca)
    try:
        return sum(state == "online" for _, state in control.nodes().values())
    finally:
        control.close()


def _run(server: ServerFolder, path: Path, now: float) -> dict[str, Any]:
    folder = RunFolder(path)
    record, held = folder.read(RUN, {}), folder.in_use()
    rounds = [row for row in _rows(folder) if row["round"]]
    last, lately = rounds[-1] if rounds else {}, rounds[-_LATELY:]
    spent = sum(row.get("seconds", 0.0) for row in lately)
    status, ending = record.get("status", "not begun"), Ending.read(folder)
    if not held and status != FINISHED:
        failed = ending is not None and ending.permanent
        status = "failed" if failed else "drained" if Drain(server.path).asked else status
    return {
        "name": path.name,
        "status": status,
        "reason": ending.reason if ending is not None and not held and status != FINISHED else "",
        "held": held,
        "round": last.get("round", 0),
        "rounds": folder.read(SCENARIO)["federation"]["rounds"],
        "contributors": last.get("contributors", 0),
        "burnt": sum(bool(row.get("burnt")) for row in rounds),
        "rounds_per_hour": round(_HOUR * len(lately) / spent, 3) if spent else None,
        "last_round_age": _age(folder.path / METRICS, now) if rounds else None,
        "current_round_age": _since_last(folder, now) if held else None,
        "bytes_up": sum(_sent(row)[0] for row in rounds),
        "bytes_down": sum(_sent(row)[1] for row in rounds),
        "privacy": PRIVACY,
        "train_loss": last.get("train_loss"),
        "seconds": record.get("seconds", 0.0),
    }


def _rows(folder: RunFolder) -> list[dict[str, Any]]:
    try:
        return folder.lines(METRICS)
    except json.JSONDecodeError:
        return []


def _sent(row: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes of a round, up and down: its line has those of a client, its mean."""
    asked = len(row.get("cohort", []))
    return row.get("bytes_up", 0) * (asked - row.get("failures", 0)), row.get("bytes_down", 0) * asked


def _age(path: Path, now: float) -> float | None:
    """Return for how long a file has been as it is; nothing when there is none."""
    try:
        return round(max(0.0, now - path.stat().st_mtime), 1)
    except FileNotFoundError:
        return None


def _since_last(folder: RunFolder, now: float) -> float | None:
    """Return for how long the round in progress has lasted: since the last one, or since this attempt began."""
    ages = [age for name in (METRICS, RUN) if (age := _age(folder.path / name, now)) is not None]
    return min(ages, default=None)
