"""What an operator wants to know of a server, read from its folder; it need not run."""

from __future__ import annotations

import json
import time
from typing import Any

from fedpeft.errors import LinkError
from fedpeft.federation.deployed.programs import running
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.deployed.serverapp import FINISHED
from fedpeft.federation.flower_control import ControlLine
from fedpeft.federation.folder import METRICS, RUN, SCENARIO, RunFolder
from fedpeft.secagg.trust.registry import admitted
from fedpeft.signing.tls import days_left

_SOON = 30.0  # days


def status_of(server: ServerFolder) -> dict[str, Any]:
    """Return a server's state as plain values.

    Returns
    -------
    dict
        ``address``, ``programs`` (process ids), ``clients`` (enrolled, online), ``certificate_days``, ``runs`` and
        ``alerts``: lines that ask for somebody.
    """
    enrolled = admitted(server.registry, time.time())
    programs, online, alerts = running(server.flower), None, []
    if "superlink" in programs:
        try:
            control = ControlLine(server.address, server.ca)
            online = sum(state == "online" for _, state in control.nodes().values())
            control.close()
        except LinkError as error:
            alerts.append(str(error))
    runs = [_run(RunFolder(path.parent)) for path in sorted(server.path.glob(f"runs/*/{SCENARIO}"))]
    days = days_left(server.certificate.parent)
    if days < _SOON:
        alerts.append(f"the server's certificate holds for {days:.0f} days more: `fedpeft server renew`")
    for run in runs:
        if not run["held"] and run["status"] != FINISHED:
            alerts.append(f"nobody works on run {run['name']}: {run['status']}")
        if run["burnt"]:
            alerts.append(f"{run['burnt']} of run {run['name']}'s {run['round']} rounds were burnt")
    return {
        "address": server.address,
        "federation": server.pinned.federation,
        "programs": programs,
        "clients": {"enrolled": len(set(enrolled.values())), "online": online},
        "certificate_days": round(days, 1),
        "runs": runs,
        "alerts": alerts,
    }


def _run(folder: RunFolder) -> dict[str, Any]:
    record = folder.read(RUN, {})
    try:
        rows = folder.lines(METRICS)
    except json.JSONDecodeError:
        rows = []
    rounds = [row for row in rows if row["round"]]
    last = rounds[-1] if rounds else {}
    return {
        "name": folder.path.name,
        "status": record.get("status", "not begun"),
        "held": folder.in_use(),
        "round": last.get("round", 0),
        "rounds": folder.read(SCENARIO)["federation"]["rounds"],
        "contributors": last.get("contributors", 0),
        "burnt": sum(bool(row.get("burnt")) for row in rounds),
        "bytes_up": last.get("bytes_up", 0),
        "bytes_down": last.get("bytes_down", 0),
        "train_loss": last.get("train_loss"),
        "seconds": record.get("seconds", 0.0),
    }
