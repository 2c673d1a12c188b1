"""The faults of the table, as they are done to fedpeft. Each returns what was seen, in a few words."""

from __future__ import annotations

import random
import sqlite3
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from fedpeft.errors import LinkError
from fedpeft.federation import flower_fleet
from fedpeft.federation.flower_fleet import FleetLine
from fedpeft.federation.flower_link import trusting
from fedpeft.secagg.trust.enrolling import NODE_KEY
from fedpeft.secagg.trust.registry import Registry
from fedpeft.signing.nodekey import NodeKey, own_node_key, read_node_key

from .disk import fill
from .operation import Operation

ROUTES = (
    "register-node", "activate-node", "deactivate-node", "unregister-node", "send-node-heartbeat", "pull-messages",
    "push-messages", "get-run", "get-fab", "push-object", "pull-object", "confirm-message-received",
)  # fmt: skip
"""Of Flower 1.41's fleet API."""

VICTIM, REVOKED, EXPIRING = 1, 4, 5
HELD = 15.0
"""Seconds that a fault lasts, where it lasts."""


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Parameters
    ----------
    name : str
    title : str
        In the table.
    inject : callable
        Does it and returns when it is over.
    loses : bool
        Whether a client is gone for good afterwards.
    """

    name: str
    title: str
    inject: Callable[[Operation], str]
    loses: bool = False


def _die_at(place: str) -> Callable[[Operation], str]:
    def inject(op: Operation) -> str:
        op.nursery.order(VICTIM, place)
        op.until(lambda: op.nursery.died(VICTIM), 120, f"death at {place}")
        time.sleep(1.0)
        op.nursery.start(VICTIM)
        return "started again after 1 s, with the work that it had in hand"

    return inject


def _die_idle(op: Operation) -> str:
    waiting = op.nodes[VICTIM].log_file.parent / op.worker.client_ids[VICTIM] / "node" / "request"
    op.until(lambda: not waiting.exists(), 60, "idle node")
    op.nursery.kill(VICTIM)
    time.sleep(1.0)
    op.nursery.start(VICTIM)
    return "started again after 1 s, with the work that it had in hand"


def _serverapp(op: Operation) -> str:
    op.serverapp().kill()
    return "noticed by the supervisor, which resumes the run"


def _superlink(seconds: float) -> Callable[[Operation], str]:
    def inject(op: Operation) -> str:
        op.keep_superlink_down(seconds)
        return f"down for {seconds:.0f} s, then started again by the supervisor"

    return inject


def _supervisor(op: Operation) -> str:
    supervisor, before = op.supervisor(), op.log.count("left behind")
    supervisor.kill()
    supervisor.wait()
    op.up()
    # Until then what it left behind goes on with the rounds.
    op.until(lambda: op.log.count("left behind") > before, 60, "end of what was left behind")
    return "`fedpeft server up` was run again, ended what was left behind and resumed the run"


def _locked(op: Operation) -> str:
    lock_database(op.server.database, HELD)
    return f"write lock held {HELD:.0f} s"


def lock_database(file: Path, seconds: float) -> None:
    """Hold SQLite's write lock."""
    with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as line:
        line.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        line.execute("ROLLBACK")


def _full(op: Operation) -> str:
    if not op.can_fill:
        raise PermissionError("needs root: the server's folder lies on a disk of its own, which is filled")
    fill(op.disk, HELD)
    if op.serving():
        return "`fedpeft server up` waits"
    op.up()
    return "`fedpeft server up` ends with one line; started again, as its service does, it resumes the run"


def _clock(op: Operation) -> str:
    client, clear = op.worker.client_ids[VICTIM], op.nursery.folder / "clear"
    op.nursery.kill(VICTIM)
    since = time.time()
    op.nursery.start(VICTIM, "an hour ahead")
    took = lambda: any(path.stat().st_mtime > since for path in clear.glob(f"*-{client}.npy"))  # noqa: E731
    op.until(took, 120, "work of the node with the wrong clock")
    op.settle()
    op.nursery.kill(VICTIM)
    op.nursery.start(VICTIM)
    return "it took part with its wrong clock"


def _relayed(*kinds: str) -> Callable[[Operation], str]:
    def inject(op: Operation) -> str:
        broken = Counter[str]()
        op.relay.fault = mixed(kinds, broken)
        time.sleep(HELD)
        op.relay.fault = lambda line: ""
        return f"{sum(count for kind, count in broken.items() if kind)} of {sum(broken.values())} requests broken"

    return inject


def mixed(kinds: Sequence[str], broken: Counter[str] | None = None) -> Callable[[str], str]:
    """Return a relay's fault: every request is refused, or every second one broken in one of these ways."""
    chance = random.Random(7)

    def fault(line: str) -> str:
        kind = chance.choice(kinds) if "refuse" in kinds or chance.random() < 0.5 else ""
        if line and broken is not None:
            broken[kind] += 1
        return kind

    return fault


def _stranger(op: Operation) -> str:
    line = FleetLine(op.relay.address, op.server.ca, own_node_key(op.nursery.folder / "stranger.pem"))
    refusals = Counter[str]()
    for _ in range(10):
        try:
            line.activate(60.0)
            refusals["let in"] += 1
        except LinkError as error:
            refusals[str(error.value)[:8]] += 1
        time.sleep(0.3)
    line.close()
    if "let in" in refusals:
        raise AssertionError("a node that nobody enrolled was let in")
    return f"refused {refusals.most_common(1)[0][0]}"


def _shut_out(op: Operation, index: int) -> None:
    before = op.log.count("is not admitted any more")
    op.until(lambda: op.log.count("is not admitted any more") > before, 200, f"end of {op.worker.client_ids[index]}")


def _revoked(op: Operation) -> str:
    Registry(op.server.registry).revoke(op.worker.client_ids[REVOKED])
    start = time.monotonic()
    _shut_out(op, REVOKED)
    return f"shut out after {time.monotonic() - start:.0f} s; the rounds go on with the others"


def _expired(op: Operation) -> str:
    _shut_out(op, EXPIRING)
    return "shut out at the next look at the registry, which is once a minute; the rounds go on with the others"


def _old(op: Operation) -> str:
    op.nursery.kill(VICTIM)
    before = op.nodes[VICTIM].log
    op.nursery.start(VICTIM, "of another version")
    op.until(lambda: op.nodes[VICTIM].log != before, 60, "word of the old client")
    said = op.nodes[VICTIM].log[len(before) :].strip().splitlines()[-1]
    op.nursery.start(VICTIM)
    return f"it says `{said}` and ends; then the right one was started"


def _garbage(op: Operation) -> str:
    identity = op.nodes[VICTIM].log_file.parent / f"{op.worker.client_ids[VICTIM]}-me"
    statuses = garbage(op.relay.address, trusting(op.server.ca), read_node_key(identity / NODE_KEY))
    return "answers: " + ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))


def garbage(address: str, trust: ssl.SSLContext, key: NodeKey) -> Counter[str]:
    """Send what no node would say to every route of the fleet API, half of it signed by one; count the answers."""
    chance, statuses, signed = random.Random(11), Counter[str](), flower_fleet._Signed(key)
    host, port = address.split(":")
    for route in (*ROUTES, "no-such-route", "../control/run"):
        for size in (0, 1, 40, 5_000, 300_000):
            for kind in ("application/protobuf", "application/json"):
                for own in ({}, signed._headers()):
                    headers = {"content-type": kind, **own}
                    answer = _say(host, int(port), f"/v1/fleet/{route}", chance.randbytes(size), headers, trust)
                    # Nothing at all is a message too: one whose fields are all empty.
                    if answer == "200" and size:
                        raise AssertionError(f"garbage on {route} was answered as if it were none")
                    statuses[answer] += 1
    return statuses


def _say(host: str, port: int, path: str, body: bytes, headers: dict[str, str], trust: ssl.SSLContext) -> str:
    line = HTTPSConnection(host, port, timeout=30, context=trust)
    try:
        line.request("POST", path, body, headers)
        return str(line.getresponse().status)
    except (OSError, HTTPException) as error:
        return type(error).__name__
    finally:
        line.close()


FAULTS = (
    Fault("node-training", "kill -9 of a node that trains", _die_at("train")),
    Fault(
        "node-masked",
        "kill -9 of a node that has masked its update, before its answer is on disk",
        _die_at("train:answered"),
    ),
    Fault("node-survivors", "kill -9 of a node whose masked update is at the server", _die_at("query.survivors")),
    Fault("node-unmask", "kill -9 of a node that is asked to open the sum", _die_at("query.unmask")),
    Fault("node-idle", "kill -9 of an idle node", _die_idle),
    Fault("serverapp", "kill -9 of the ServerApp", _serverapp),
    Fault("supervisor", "kill -9 of the supervisor", _supervisor),
    Fault("superlink-10", "kill -9 of the SuperLink, 10 s down", _superlink(10.0)),
    Fault("superlink-90", "kill -9 of the SuperLink, 90 s down", _superlink(90.0)),
    Fault("database", "the SuperLink's database locked for 15 s", _locked),
    Fault("disk", "full disk at the server for 15 s", _full),
    Fault("clock", "a node's clock an hour ahead", _clock),
    Fault("proxy-500", "a proxy that answers 500 for 15 s", _relayed("refuse")),
    Fault("proxy-cut", "a proxy that cuts every second connection for 15 s", _relayed("cut-before", "cut-after")),
    Fault("proxy-truncate", "a proxy that truncates every second answer for 15 s", _relayed("truncate")),
    Fault("stranger", "a node that nobody enrolled", _stranger),
    Fault("old", "a client of an old version", _old),
    Fault("garbage", "garbage on every route of the fleet API", _garbage),
    Fault("revoked", "a certificate revoked mid-run", _revoked, loses=True),
    Fault("expired", "a certificate that expires mid-run", _expired, loses=True),
)
"""All of them, in the order of the table."""
