"""The same faults on stock Flower: its SuperLink, its SuperNodes, its FedAvg, a client that adds one.

The rounds check themselves: the clients add 1 to what they are sent, so after n rounds every number is n.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from fedpeft.bench.loopback import found
from fedpeft.bench.relay import Relay
from fedpeft.bench.stock import StockNode
from fedpeft.errors import LinkError
from fedpeft.federation.deployed.commands import superexec, superlink
from fedpeft.federation.flower_control import ControlLine
from fedpeft.federation.flower_link import trusting
from fedpeft.federation.superlink import environment_at
from fedpeft.signing.nodekey import NodeKey, node_public, own_node_key

from .disk import fill, mount, unmount
from .faults import HELD, garbage, lock_database, mixed

NODES, WATCHED = 3, 80.0
"""How many, and how long one waits for the next round before it is said not to come."""

_ENDS = ("exit-codes", "Finished server process", "Traceback")
_PROJECT = """\
[project]
name = "plain"
version = "1.0.0"

[tool.flwr.app]
publisher = "tests"

[tool.flwr.app.components]
serverapp = "plain.server:app"
clientapp = "plain.client:app"

[tool.flwr.app.config]
out = ""
"""
_CLIENT = """\
import time

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    time.sleep(1.0)
    arrays = ArrayRecord([array + 1 for array in message.content["arrays"].to_numpy_ndarrays()])
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)
"""
_SERVER = """\
import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Counting(FedAvg):
    answered = 0

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.answered = sum(reply.has_content() for reply in replies)
        return super().aggregate_train(server_round, replies)


@app.main()
def main(grid, context):
    def committed(number, arrays):
        values = arrays.to_numpy_ndarrays()[0]
        with open(str(context.run_config["out"]), "a") as file:
            file.write(f"{number} {strategy.answered} {bool((values == number).all())}\\n")
        return MetricRecord({"value": float(values[0])})

    strategy = Counting(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    strategy.start(grid, ArrayRecord([np.zeros(1000, np.float32)]), num_rounds=500, timeout=60, evaluate_fn=committed)
"""


class StockFederation:
    """A stock federation in operation: one that nobody supervises, as Flower's documents have it."""

    def __init__(self, folder: Path, extra: dict[str, str] | None = None) -> None:
        self.disk, self._folder = folder / "disk", folder
        self.mounted = mount(self.disk)
        self.server = found(self.disk / "server")
        self.home, self._out = self.server.flower, folder / "rounds"
        self.relay = Relay(self.server)
        server = self.server
        self.superlink, self.executor = superlink(server), superexec(server)
        self.nodes, self.keys = list[StockNode](), list[NodeKey]()
        for number in range(NODES):
            key = own_node_key(folder / f"{number}.pem")
            self.keys.append(key)
            extras = extra if number == 0 else None
            self.nodes.append(StockNode(folder / f"node-{number}", self.relay.address, server.ca, key, {}, extras))
        self.app = folder / "app"
        for path, text in {
            "pyproject.toml": _PROJECT,
            "plain/__init__.py": "",
            "plain/client.py": _CLIENT,
            "plain/server.py": _SERVER,
        }.items():
            (self.app / path).parent.mkdir(parents=True, exist_ok=True)
            (self.app / path).write_text(text)

    def __enter__(self) -> StockFederation:
        self.relay.start()
        self.superlink.keep()
        control = ControlLine(self.server.address, self.server.ca)
        until(lambda: _answers(control), 60, "a SuperLink")
        for number, key in enumerate(self.keys):
            control.register(node_public(key), f"node-{number}")
        control.close()
        self.executor.keep()
        for node in self.nodes:
            node.start()
        connection = f'address = "{self.server.address}"\nroot-certificates = "{self.server.ca}"\n'
        (self.home / "config.toml").write_text(f'[superlink]\ndefault = "own"\n\n[superlink.own]\n{connection}')
        command = ["flwr", "run", str(self.app), "own", "--run-config", f'out="{self._out}"']
        subprocess.run(command, env=environment_at(self.home), cwd=self.home, check=True, capture_output=True)
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()
        self.executor.stop()
        self.superlink.stop()
        self.relay.stop()
        if self.mounted:
            unmount(self.disk)

    @property
    def rounds(self) -> int:
        """How many there were."""
        return len(self._lines()) - 1

    @property
    def wrong(self) -> int:
        """How many led to other numbers than they must."""
        return sum(not line.endswith("True") for line in self._lines() if line)

    def settle(self) -> None:
        """Wait for a round."""
        now = self.rounds
        until(lambda: self.rounds > max(now, 0), 120, "a round")

    def answered(self) -> int:
        """Return how many SuperNodes there are in the last round's sum."""
        return int(self._lines()[-1].split()[1])

    def serverapp(self) -> psutil.Process:
        """Return the ServerApp."""
        assert self.executor.process is not None
        for child in psutil.Process(self.executor.process.pid).children(recursive=True):
            with suppress(psutil.Error):  # one that ends meanwhile
                if "serverapp" in " ".join(child.cmdline()):
                    return child
        raise ProcessLookupError("ServerApp")

    def working(self) -> int:
        """How many SuperNodes have not given up; one that has may live on as a process, and say nothing more."""
        words = [node.log.rpartition("Starting Flower SuperNode")[2] for node in self.nodes]
        given_up = [any(end in said for end in _ENDS) for said in words]
        return sum(node.alive and not gone for node, gone in zip(self.nodes, given_up, strict=True))

    def restart_superlink(self, seconds: float) -> None:
        """Kill -9 the SuperLink and start it again, by hand."""
        assert self.superlink.process is not None
        self.superlink.process.kill()
        self.superlink.process.wait()
        time.sleep(seconds)
        self.superlink.keep()  # notices
        until(lambda: self.superlink.keep() == "" and self.superlink.process is not None, 30, "a SuperLink")

    def stranger(self) -> StockNode:
        """Return a node whose key nobody registered."""
        key = own_node_key(self._folder / "stranger.pem")
        return StockNode(self._folder / "stranger", self.relay.address, self.server.ca, key, {})

    def _lines(self) -> list[str]:
        return self._out.read_text().splitlines() if self._out.exists() else [""]


def outcome(federation: StockFederation, inject: Callable[[StockFederation], object]) -> tuple[str, float | None]:
    """Do something to a federation and say what came of it: words, and seconds until the second round after it.

    The first round after a fault may have been finished already when it came.
    """
    federation.settle()
    inject(federation)
    before, start = federation.rounds, time.monotonic()
    with suppress(TimeoutError):
        until(lambda: federation.rounds >= before + 2, WATCHED, "rounds")
    seconds = time.monotonic() - start
    wrong = f", {federation.wrong} wrong sums" if federation.wrong else ""
    nodes = f"{federation.working()} of {NODES} SuperNodes at work"
    if federation.rounds >= before + 2:
        return f"goes on with {federation.answered()} of {NODES} in a sum; {nodes}{wrong}", seconds
    ended = "ServerApp gone" if not _there(federation) else "ServerApp waits"
    return f"no two rounds in {WATCHED:.0f} s: {ended}; {nodes}{wrong}", None


def _there(federation: StockFederation) -> bool:
    try:
        federation.serverapp()
    except ProcessLookupError:
        return False
    return True


def _node(federation: StockFederation) -> None:
    federation.nodes[1].kill()
    time.sleep(1.0)
    federation.nodes[1].start()


def _relayed(*kinds: str) -> Callable[[StockFederation], None]:
    def inject(federation: StockFederation) -> None:
        federation.relay.fault = mixed(kinds)
        time.sleep(HELD)
        federation.relay.fault = lambda line: ""

    return inject


def _full(federation: StockFederation) -> None:
    if not federation.mounted:
        raise PermissionError("needs root")
    fill(federation.disk, HELD)


def _stranger(federation: StockFederation) -> None:
    node = federation.stranger()
    node.start()
    time.sleep(HELD)
    node.stop()


def _garbage(federation: StockFederation) -> None:
    garbage(federation.relay.address, trusting(federation.server.ca), federation.keys[1])


INJECTED: dict[str, Callable[[StockFederation], object]] = {
    "node-training": _node,
    "serverapp": lambda federation: federation.serverapp().kill(),
    "superlink-10": lambda federation: federation.restart_superlink(10.0),
    "superlink-90": lambda federation: federation.restart_superlink(90.0),
    "database": lambda federation: lock_database(federation.server.database, HELD),
    "disk": _full,
    "clock": lambda federation: None,
    "proxy-500": _relayed("refuse"),
    "proxy-cut": _relayed("cut-before", "cut-after"),
    "proxy-truncate": _relayed("truncate"),
    "stranger": _stranger,
    "garbage": _garbage,
}
"""What is done to stock Flower, by the names of the table's rows; a clock is wrong from the beginning."""


def until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} in {seconds:.0f} s")
        time.sleep(0.1)


def _answers(control: ControlLine) -> bool:
    try:
        control.nodes()
    except LinkError:
        return False
    return True


def moved_clock() -> dict[str, str]:
    """Return an environment in which Python's clock is an hour ahead."""
    return {
        "PYTHONPATH": str(Path(__file__).parents[1] / "federation" / "deployed" / "wrong_clock"),
        "CLOCK_AHEAD": "3600",
    }
