"""What a round costs on a real server: embedded nodes against Flower's own SuperNodes, same app, same SuperLink.

Both federations have a SuperLink of Flower's with TLS and node authentication, our ServerApp, our ClientApp, the same
clients and the same scenario; every device reaches the server through a relay that counts (``bench.relay``). What
differs is who answers: a node in the app's own process, where base and text stay loaded, or a stock SuperNode, which
starts Python for every message. Client time is processor time of a node and of all that it starts, from the first
round's beginning to the last one's end: on a busy machine seconds of the clock would measure the other processes.

The rounds are on the plain channel, one message per client and round, which favours the stock SuperNode: secure
aggregation has up to five, and it would start Python for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import psutil

from fedpeft.bench.loopback import Node, enrol, found
from fedpeft.bench.relay import Relay, Traffic
from fedpeft.bench.result import Result
from fedpeft.bench.stock import StockNode
from fedpeft.errors import RunError
from fedpeft.federation.client import node_config_of, worker_at
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.deployed.supervisor import Supervisor
from fedpeft.federation.folder import METRICS, SCENARIO, RunFolder
from fedpeft.federation.worker import Device
from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.secagg.trust.enrolling import NODE_KEY
from fedpeft.signing.nodekey import read_node_key

_PATIENCE, _LOOK = 420.0, 0.05


class AnyNode(Protocol):
    """A device's process."""

    @property
    def pid(self) -> int:
        """Its number."""

    def start(self) -> None:
        """Start it."""

    def stop(self) -> object:
        """End it."""


@dataclass(frozen=True)
class Measured:
    """Rounds of one federation.

    Parameters
    ----------
    nodes, rounds : int
    seconds : float
        Median of a round.
    client_seconds : float
        Processor time of one client in one round.
    traffic : Traffic
        Of all clients in all rounds.
    """

    nodes: int
    rounds: int
    seconds: float
    client_seconds: float
    traffic: Traffic

    def figures(self) -> dict[str, float]:
        """Return them by their published names."""
        share = self.nodes * self.rounds
        return {
            "seconds_per_round": self.seconds,
            "client_cpu_seconds_per_round": self.client_seconds,
            "uplink_bytes": self.traffic.up / share,
            "downlink_bytes": self.traffic.down / share,
            "requests_per_client_round": self.traffic.requests / share,
            "nodes": self.nodes,
            "rounds": self.rounds,
        }


def run(full: bool) -> Result:
    """Measure.

    Parameters
    ----------
    full : bool
        Ten nodes of each kind, and ten embedded ones under secure aggregation too; otherwise three, and of Flower's
        own one round only.

    Returns
    -------
    Result
        ``uplink_bytes``, ``downlink_bytes`` and ``requests_per_client_round`` are those of one client in one round,
        polls and heartbeats included; ``client_time_speedup_vs_stock`` is the ratio of processor time per client and
        round.
    """
    count = 10 if full else 3
    with TemporaryDirectory(prefix="fedpeft-transport-") as folder:
        ours = measure(Path(folder) / "embedded", _scenario("embedded", count, 10 if full else 4), stock=False)
        theirs = measure(Path(folder) / "stock", _scenario("stock", count, 2 if full else 1), stock=True)
        secure = {}
        if full:
            scenario = _scenario("secure", count, 5, "pairwise")
            found = measure(Path(folder) / "secure", scenario, stock=False).figures()
            secure = {f"secure_{name}": value for name, value in found.items()}
    figures = {
        "client_time_speedup_vs_stock": theirs.client_seconds / ours.client_seconds,
        **ours.figures(),
        "stock_seconds_per_round": theirs.seconds,
        **secure,
    }
    return Result(figures, {"name": "flower-supernode 1.41, same app and SuperLink", **theirs.figures()})


def measure(folder: Path, scenario: Scenario, stock: bool) -> Measured:
    """Run a federation to its end."""
    server = found(folder / "server")
    reference = RunFolder(folder / "reference")
    reference.write(SCENARIO, scenario.model_dump(mode="json"))
    file = reference.path / SCENARIO
    relay = Relay(server)
    clients = worker_at(str(file), str(reference.path)).client_ids
    make = _stock_node if stock else _embedded_node
    nodes = [make(server, file, folder, client, relay.address) for client in clients]
    with ExitStack() as stack:
        if not stock:
            stack.enter_context(_living(nodes))  # forked before there are threads
        stack.callback(relay.stop)
        relay.start()
        run_folder = stack.enter_context(_supervised(server, scenario, len(clients)))
        if stock:
            stack.enter_context(_living(nodes))  # one that is not admitted yet would give up for good
        measured = _watch(run_folder, nodes, relay, scenario.federation.rounds)
        for node in nodes:
            node.stop()  # while there is a server to take leave of
        return measured


@contextmanager
def _living(nodes: Sequence[AnyNode]) -> Iterator[None]:
    for node in nodes:
        node.start()
    try:
        yield
    finally:
        for node in nodes:
            node.stop()


def _watch(run_folder: RunFolder, nodes: Sequence[AnyNode], relay: Relay, rounds: int) -> Measured:
    """Look at the clients when the first round begins, and when the last has ended."""
    _rounds_of(run_folder, 1)
    before, spent = relay.traffic, sum(processor_time(node.pid) for node in nodes)
    rows = _rounds_of(run_folder, rounds + 1)[1:]
    traffic, seconds = relay.traffic - before, sum(processor_time(node.pid) for node in nodes) - spent
    late = [reason for row in rows for reason in row.get("reasons", {}).values()]
    if late:
        raise RunError("transport", late[0], "rounds that everybody answers")
    clocked = median(row["seconds"] for row in rows)
    return Measured(len(nodes), rounds, clocked, seconds / (len(nodes) * rounds), traffic)


def _rounds_of(run_folder: RunFolder, count: int) -> list[dict[str, Any]]:
    """Wait for so many lines of metrics."""
    end = time.monotonic() + _PATIENCE
    while len(rows := run_folder.lines(METRICS)) < count:
        if time.monotonic() > end:
            raise RunError("rounds", len(rows), f"{count} in {_PATIENCE:.0f} s")
        time.sleep(_LOOK)
    return rows[:count]


def processor_time(pid: int) -> float:
    """Return what a process has spent, with all that it started: those that live, and those that it has seen end."""
    total = 0.0
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        try:
            total += sum(one.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # ended meanwhile: its parent has its time
    return total


@contextmanager
def _supervised(server: ServerFolder, scenario: Scenario, clients: int) -> Iterator[RunFolder]:
    """Run a server from when it has admitted so many nodes."""
    said: list[str] = []
    supervisor = Supervisor(server, scenario, server.path / "operator", said.append)
    thread = threading.Thread(target=supervisor.run, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + _PATIENCE
        while sum(line.endswith("is admitted") for line in said) < clients:
            if time.monotonic() > end:
                raise RunError("SuperLink", said[-1:], f"{clients} nodes that are admitted")
            time.sleep(_LOOK)
        yield supervisor.run_folder
    finally:
        supervisor.stop()
        thread.join()


def _embedded_node(server: ServerFolder, scenario: Path, folder: Path, client: str, address: str) -> AnyNode:
    enrol(server, client, folder / f"{client}-me")
    return Node(server, scenario, folder / client, folder / f"{client}-me", address)


def _stock_node(server: ServerFolder, scenario: Path, folder: Path, client: str, address: str) -> AnyNode:
    identity = folder / f"{client}-me"
    enrol(server, client, identity)
    config = node_config_of(Device(client, identity, server.pinned_file))
    config |= {"scenario": str(scenario), "run-folder": str(folder / client)}
    return StockNode(folder / f"{client}-node", address, server.ca, read_node_key(identity / NODE_KEY), config)


def _scenario(name: str, count: int, rounds: int, channel: str = "plain") -> Scenario:
    return parse_scenario(
        {
            "name": name,
            "data": {"clients": count, "window": 32, "max_windows": 8},
            "method": {"name": "lora", "rank": 8},
            "training": {"steps": 2, "batch": 4},
            "federation": {"rounds": rounds, "cohort": count, "minimum": 2, "panel": 0},
            "channel": {"name": channel},
            "personalization": {"people": 0},
            "samples": {"prompts": [], "people": 0},
        }
    )
