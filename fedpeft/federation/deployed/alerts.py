"""What asks for somebody, from the values of a status: each alert has a name, for rules, and a line, for people.

===============  ================================================================================================
``unreachable``  the SuperLink or the registry could not be asked
``failed``       the run ended with something that no other attempt mends; the line says what
``idle``         nobody works on a run that is neither finished nor drained
``slow``         the round in progress is older than twice the deadline of one request
``burnt``        rounds of the run were burnt: too few clients stayed
``restarts``     a program was started more than three times within an hour
``certificate``  the server's certificate expires within 30 days, or has
``clients``      clients' certificates expire within 30 days
``disk``         less than a gigabyte, and less than a twentieth, of the disk is free
===============  ================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

SOON = 30.0
"""Days before an expiry from which on somebody should know."""

_STARTS = 3  # within an hour
_SHARE, _ROOM = 0.05, 1 << 30
_DONE = ("finished", "drained")
_NAMED = 5

Alert = dict[str, str]


def alerts_of(found: dict[str, Any], unknown: Sequence[str]) -> list[Alert]:
    """Return what asks for somebody.

    Parameters
    ----------
    found : dict
        A status without its alerts.
    unknown : sequence of str
        What could not be asked, in one line each.
    """
    alerts = [_alert("unreachable", line) for line in unknown]
    for run in found["runs"]:
        alerts += _of_run(run, found["deadline"])
    return [*alerts, *_of_server(found)]


def _of_run(run: dict[str, Any], deadline: float) -> Iterator[Alert]:
    name, age = run["name"], run["current_round_age"]
    if run["status"] == "failed":
        yield _alert("failed", f"run {name} ended: {run['reason']}")
    elif not run["held"] and run["status"] not in _DONE:
        yield _alert("idle", f"nobody works on run {name}: {run['reason'] or run['status']}")
    if age is not None and age > 2 * deadline:
        line = f"the round after {run['round']} of run {name} has lasted {age:.0f} s, with a deadline of {deadline:g} s"
        yield _alert("slow", line)
    if run["burnt"]:
        yield _alert("burnt", f"{run['burnt']} of run {name}'s {run['round']} rounds were burnt")


def _of_server(found: dict[str, Any]) -> Iterator[Alert]:
    for program, starts in found["starts"].items():
        if starts > _STARTS:
            yield _alert("restarts", f"{program} was started {starts} times in an hour: see flower/*.log")
    days, expiring, disk = found["certificate_days"], found["clients"]["expiring"] or [], found["disk"]
    if days < SOON:
        yield _alert("certificate", f"the server's certificate holds for {days:.0f} days more: `fedpeft server renew`")
    if expiring:
        more = " …" if len(expiring) > _NAMED else ""
        names = ", ".join(expiring[:_NAMED]) + more
        yield _alert("clients", f"{len(expiring)} clients' certificates expire within {SOON:.0f} days: {names}")
    if disk["free"] < min(_SHARE * disk["total"], _ROOM):
        yield _alert("disk", f"{disk['free'] >> 20} MB of {disk['total'] >> 20} MB are free")


def _alert(name: str, line: str) -> Alert:
    return {"name": name, "line": line}
