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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Protocol

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
        place = Path(folder)
        # Both servers start at once: that is not what is measured. The nodes work one kind after the other.
        with (
            served(place / "embedded", _scenario("embedded", count, 10 if full else 4)) as embedded,
            served(place / "stock", _scenario("stock", count, 2 if full else 1), stock=True) as stock,
        ):
            ours, theirs = embedded.measure(), stock.measure()
        secure = {}
        if full:
            with served(place / "secure", _scenario("secure", count, 5, "pairwise")) as federation:
                secure = {f"secure_{name}": value for name, value in federation.measure().figures().items()}
    figures = {
        "client_time_speedup_vs_stock": theirs.client_seconds / ours.client_seconds,
        **ours.figures(),
        "stock_seconds_per_round": theirs.seconds,
        **secure,
    }
    return Result(figures, {"name": "flower-supernode 1.41, same app and SuperLink", **theirs.figures()})


@dataclass
class Federation:
    """A server that runs, and the devices that it has enrolled.

    Parameters
    ----------
    run : RunFolder
    rounds : int
    relay : Relay
    nodes : sequence of AnyNode
    stock : bool
        Whether the nodes are Flower's; they are yet to be started, because one that is not admitted gives up for good.
    said : list of str
        What the server's supervisor says.
    """

    run: RunFolder
    rounds: int
    relay: Relay
    nodes: Sequence[AnyNode]
    stock: bool
    said: list[str]

    def measure(self) -> Measured:
        """Look at the clients when the first round begins, and when the last has ended; then stop them."""
        admitted = _wait(lambda: sum(line.endswith("is admitted") for line in self.said), len(self.nodes), "nodes")
        if self.stock:
            for node in self.nodes:
                node.start()
        _wait(lambda: len(self.run.lines(METRICS)), 1, "first rounds")
        before, spent = self.relay.traffic, sum(processor_time(node.pid) for node in self.nodes)
        _wait(lambda: len(self.run.lines(METRICS)), self.rounds + 1, "rounds")
        traffic, seconds = self.relay.traffic - before, sum(processor_time(node.pid) for node in self.nodes) - spent
        for node in self.nodes:
            node.stop()  # while there is a server to take leave of
        rows = self.run.lines(METRICS)[1 : self.rounds + 1]
        late = [reason for row in rows for reason in row.get("reasons", {}).values()]
        if late:
            raise RunError("transport", late[0], f"rounds that all {admitted} answer")
        share = len(self.nodes) * self.rounds
        clocked = median(row["seconds"] for row in rows)
        return Measured(len(self.nodes), self.rounds, clocked, seconds / share, traffic)


@contextmanager
def served(folder: Path, scenario: Scenario, stock: bool = False) -> Iterator[Federation]:
    """Start a federation's server, and its devices where they are embedded nodes."""
    server = found(folder / "server")
    reference = RunFolder(folder / "reference")
    reference.write(SCENARIO, scenario.model_dump(mode="json"))
    file, relay = reference.path / SCENARIO, Relay(server)
    clients = worker_at(str(file), str(reference.path)).client_ids
    make = _stock_node if stock else _embedded_node
    nodes = [make(server, file, folder, client, relay.address) for client in clients]
    said: list[str] = []
    supervisor = Supervisor(server, scenario, server.path / "operator", said.append)
    thread = threading.Thread(target=supervisor.run, daemon=True)
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.stop)
            if not stock:
                node.start()  # forked before there are threads of this federation
        stack.callback(relay.stop)
        relay.start()
        thread.start()
        stack.callback(thread.join)
        stack.callback(supervisor.stop)
        yield Federation(supervisor.run_folder, scenario.federation.rounds, relay, nodes, stock, said)


def _wait(count: Callable[[], int], wanted: int, what: str) -> int:
    """Wait for so many of something."""
    end = time.monotonic() + _PATIENCE
    while (now := count()) < wanted:
        if time.monotonic() > end:
            raise RunError(what, now, f"{wanted} in {_PATIENCE:.0f} s")
        time.sleep(_LOOK)
    return now


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
