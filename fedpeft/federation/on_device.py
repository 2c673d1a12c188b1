"""Rounds where the person is: the joiner of an :class:`fedpeft.device.EdgeClient`, over Flower.

The text is the device's own store, read anew in every round; person and policy are asked before each. What the rounds
come to is installed in the device's home, and the next ``personalize`` builds on it (:mod:`.adoption`).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

from fedpeft.device.edge.events import Contributed, Event, Linked
from fedpeft.device.edge.joining import Joined, Seat
from fedpeft.federation.adoption import Adoption
from fedpeft.federation.joining import open_node, open_worker
from fedpeft.federation.node import Rhythm
from fedpeft.federation.worker import Worker

_PULSE = 0.5


@dataclass(frozen=True)
class Rounds:
    """How a device takes part.

    Parameters
    ----------
    rhythm : Rhythm, optional
        How often it asks the server.
    device : str
        Which of the scenario's classes of devices this one is of, where it has any.
    refresh : float
        Seconds after which a newer global adapter is installed while a run goes on; at its end it always is.
    """

    rhythm: Rhythm | None = None
    device: str = ""
    refresh: float = 3600.0

    def __call__(self, seat: Seat) -> Joined:
        """Take part until the seat's flag is set, or the one run is over.

        Raises
        ------
        BaseError
            When the app's base is not the federation's.
        FedpeftError
            When the device cannot take part at all.
        """
        member, rounds = seat.member, set[int]()

        def tell(event: Event) -> None:
            if isinstance(event, Contributed):
                rounds.add(event.round)
            seat.tell(event)

        own = replace(seat, tell=tell)
        worker = open_worker(
            member.folder, member.server, member.scenario, member.identity, member.pinned, self.device, own
        )
        bundles = Adoption(worker, seat)
        node = open_node(
            worker,
            member.folder,
            member.server,
            member.scenario,
            member.ca,
            lambda line: seat.tell(Linked(line)),
            self.rhythm,
        )

        failed: list[Exception] = []

        def watch() -> None:
            try:
                self._watch(worker, bundles, seat)
            except Exception as error:  # whatever it is, the node must not go on unattended
                failed.append(error)
            finally:
                node.stop()

        watcher = threading.Thread(target=watch, name="fedpeft-rounds", daemon=True)
        watcher.start()
        try:
            node.run()
        finally:
            seat.stopping.set()
            watcher.join()
        if failed:
            raise failed[0]
        bundles.update()
        return Joined(len(rounds), bundles.round)

    def _watch(self, worker: Worker, bundles: Adoption, seat: Seat) -> None:
        """Install what comes, beside the node, until there is nothing to wait for."""
        since = time.monotonic()
        while not seat.stopping.wait(_PULSE):
            over = worker.over.is_set()
            if (over or time.monotonic() - since > self.refresh) and bundles.update():
                since = time.monotonic()
                worker.over.clear()
                if over and seat.once:
                    return
