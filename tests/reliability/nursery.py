"""Devices that can be killed and started again at any time: forked from one process that has everything loaded.

The nursery itself is forked before there are threads, and stays without: a process with threads must not fork. Each
child is the product's node; what is added here is what a test needs to see and to do: the payload that a client is about
to protect, in the clear, and a place in the work at which it is to be killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message

from fedpeft.bench.loopback import Node
from fedpeft.errors import FedpeftError
from fedpeft.federation import flower_internals, joining
from fedpeft.federation.client import client_app
from fedpeft.federation.worker import Worker

from ..federation.deployed.clock import an_hour_ahead


class Nursery:
    """Forks nodes on demand.

    Parameters
    ----------
    nodes : sequence of Node
    folder : Path
        For clear payloads, and orders to die.
    """

    def __init__(self, nodes: Sequence[Node], folder: Path) -> None:
        self.folder, self._nodes = folder, nodes
        (folder / "clear").mkdir(parents=True, exist_ok=True)
        self._ours, theirs = Pipe()
        self.pids: dict[int, int] = {}
        pid = os.fork()
        if not pid:
            self._ours.close()
            self._serve(theirs)
            os._exit(0)
        theirs.close()
        self.pid = pid

    def start(self, index: int, mood: str = "") -> None:
        """Start a node: as it is, `an hour ahead`, or `of another version`."""
        self._ours.send((index, mood))
        self.pids[index] = self._ours.recv()

    def kill(self, index: int) -> None:
        """Kill -9."""
        os.kill(self.pids.pop(index), signal.SIGKILL)

    def order(self, index: int, place: str) -> None:
        """Have a node kill itself when it next comes to a place: a message's type, or that with ``:answered``."""
        (self.folder / f"die-{index}").write_text(place)

    def died(self, index: int) -> bool:
        """Say whether it came there."""
        return not (self.folder / f"die-{index}").exists()

    def alive(self, index: int) -> bool:
        """Say whether its process is."""
        try:
            os.kill(self.pids[index], 0)
        except (KeyError, ProcessLookupError):
            return False
        return True

    def stop(self) -> None:
        """End everybody."""
        for pid in self.pids.values():
            if self.alive_pid(pid):
                os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 15
        while any(self.alive_pid(pid) for pid in self.pids.values()) and time.monotonic() < end:
            time.sleep(0.1)
        for pid in self.pids.values():
            if self.alive_pid(pid):
                os.kill(pid, signal.SIGKILL)
        self._ours.close()
        os.waitpid(self.pid, 0)

    @staticmethod
    def alive_pid(pid: int) -> bool:
        """Say whether a process is."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _serve(self, orders: Any) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            try:
                index, mood = orders.recv()
            except EOFError:
                return
            pid = os.fork()
            if not pid:
                orders.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os._exit(self._live(index, mood))
            orders.send(pid)

    def _live(self, index: int, mood: str) -> int:
        _show_payloads(self.folder / "clear")
        _obey(self.folder / f"die-{index}")
        if mood == "an hour ahead":
            an_hour_ahead()
        elif mood:
            flower_internals.version = lambda name: "1.39.0"  # what importlib says of an older installation
        node = self._nodes[index]
        try:
            node.live()
        except FedpeftError as error:
            with node.log_file.open("a") as log:
                print(error, file=log)
            return 1
        except BaseException as error:  # a child must never return into the nursery's loop
            print(f"node {index}: {error!r}", file=sys.stderr)
            return 1
        return 0


def _show_payloads(folder: Path) -> None:
    train = Worker.train

    def shown(self: Worker, client: str, round_: int, *arguments: Any, **more: Any) -> Any:
        payload = train(self, client, round_, *arguments, **more)
        draft = folder / f".{round_}-{client}.npy"
        np.save(draft, payload)
        draft.replace(folder / f"{round_}-{client}.npy")
        return payload

    Worker.train = shown  # type: ignore[method-assign]


def _obey(order: Path) -> None:
    def come(place: str) -> None:
        if order.exists() and order.read_text() == place:
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        kind = message.metadata.message_type
        come(kind)
        reply = call_next(message, context)
        come(f"{kind}:answered")
        return reply

    joining.client_app = lambda: client_app([mod])  # type: ignore[assignment]
