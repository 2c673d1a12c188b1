"""Who takes part in a federation that runs for months: a roll call at the start, and new sessions for who comes later.

A session's clients agree on keys once, so its roll is closed. Between rounds the server looks who is online. Whoever is
not in the session is greeted on the side, and no round waits for the answer, because an idle device asks rarely. When
somebody has answered and is ready, or a client's certificate was revoked, or more are gone than a round may lose, the
next session begins with those who are there: another number, other keys, the old ones forgotten. A session lasts at
least ``federation.renew`` rounds, so that coming and going costs no more than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from fedpeft.federation.cohort import Called, Roll, greet, greetings, heard, wait_for_nodes
from fedpeft.federation.flower_runtime import away, lost
from fedpeft.federation.folder import SKIPPED, RunFolder
from fedpeft.federation.handshake import begin_session, enough
from fedpeft.federation.server import agreed
from fedpeft.federation.session_keys import SessionKeys
from fedpeft.federation.watcher import Watcher
from fedpeft.federation.worker import Worker
from fedpeft.secagg import ServerEnd
from fedpeft.secagg.trust.registry import admitted

_PATIENCE = 10
"""Rounds after which a node that was turned away, or did not answer, is greeted once more: it may have been mended."""


class Link(Protocol):
    """What is asked of a grid here."""

    def nodes(self) -> Mapping[int, bytes]:
        """Return the public keys of who is online, by node id."""

    def push_messages(self, messages: list[Message]) -> list[str]:
        """Send messages and return their ids."""

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        """Return the replies that are there."""


class Attendance:
    """Knows who is there and begins sessions with them.

    Parameters
    ----------
    link : Grid
        That is also a :class:`Link`.
    worker : Worker
    registry : Path
        Who is enrolled.
    keys : callable
        Returns what begins a session, with the revocations of now; None on the plain channel.
    folder : RunFolder
        Of the run; ``skipped.json`` says who was turned away and why.
    watcher : Watcher
    """

    def __init__(
        self,
        link: Any,
        worker: Worker,
        registry: Path,
        keys: Callable[[], SessionKeys | None],
        folder: RunFolder,
        watcher: Watcher,
    ) -> None:
        self._link: Link = link
        self._grid: Grid = link
        self._worker, self._registry, self._keys = worker, registry, keys
        self._folder, self._watcher = folder, watcher
        self._begun = 0
        self._greeted: dict[int, int] = {}
        self._asked: dict[str, int] = {}
        self._called = Called({}, {}, {})
        self._skipped: dict[str, str] = {}

    def gather(self, patience: float, heed: Callable[[], None] = lambda: None) -> Roll:
        """Call the roll of who is there: enrolled nodes only, each under its own name; who is wrong is left out.

        Parameters
        ----------
        patience : float
            Seconds to wait for all who are enrolled.
        heed : callable, optional
            Called again and again meanwhile; what it raises ends the wait.

        Raises
        ------
        RunError
            When fewer are there than a round may have.
        """
        names: dict[int, str] = {}

        def present() -> list[int]:
            heed()
            names.update(found := self._present())
            return sorted(found)

        expected = len(self._expected(self._enrolled()))
        least = self._worker.scenario.federation.minimum
        ids = wait_for_nodes(present, max(expected, least), least, patience)
        called = greet(self._grid, ids, agreed(self._worker), names)
        called.skipped.update(_turned_away(called, names))
        return called.roll()

    def begin(self, round_: int, roll: Roll) -> tuple[ServerEnd, Roll]:
        """Begin a session with everybody on the roll; parameters, result and errors as in :func:`begin_session`."""
        self._begun = round_
        run = self._folder.path.name
        end, roll = begin_session(self._grid, self._worker, roll, self._keys(), run, self._watcher)
        self._note(roll.skipped)
        return end, roll

    def renewed(self, round_: int, end: ServerEnd, roll: Roll) -> tuple[ServerEnd, Roll]:
        """Return the session for a round: the one that there is, or a new one.

        Parameters
        ----------
        round_ : int
            That is about to begin.
        end : ServerEnd
        roll : Roll
        """
        present = self._present()
        self._listen(present)
        self._greet(round_, {node for node, client in present.items() if roll.nodes.get(client) != node})
        came = {c: n for c, n in self._called.ready.items() if present.get(n) == c and roll.nodes.get(c) != n}
        staying = {client: node for client, node in roll.nodes.items() if present.get(node) == client}
        left = len(roll.nodes) - len(staying)
        revoked = not set(roll.nodes) <= self._enrolled()
        wanted = bool(came) or revoked or left > self._worker.scenario.vanishing * len(roll.nodes)
        nodes = dict(sorted({**staying, **came}.items()))
        if not wanted or round_ - self._begun < self._worker.scenario.federation.renew:
            return end, roll
        if not enough(self._worker, len(nodes)):
            return end, roll  # rather the old session, and rounds that may be burnt, than none at all
        devices, skipped = {**roll.devices, **self._called.devices}, {**roll.skipped, **self._called.skipped}
        for client in came:
            del self._called.ready[client]
            skipped.pop(client, None)
            self._skipped.pop(client, None)
        for client in roll.nodes.keys() - nodes.keys():
            self._greeted.pop(roll.nodes[client], None)  # who comes back is greeted at once
        return self.begin(round_, Roll(nodes, skipped, {client: devices.get(client, "") for client in nodes}))

    def _enrolled(self) -> set[str]:
        return set(admitted(self._registry, time.time()).values())

    def _expected(self, enrolled: set[str]) -> set[str]:
        """Return which of those who are enrolled the scenario is for."""
        return enrolled if self._worker.scenario.enrolled else enrolled & set(self._worker.client_ids)

    def _present(self) -> dict[int, str]:
        """Return the clients of this scenario that are enrolled and online, by node id."""
        known = admitted(self._registry, time.time())
        clients = self._expected(set(known.values()))
        found = {node: known.get(public, "") for node, public in self._link.nodes().items()}
        return {node: client for node, client in found.items() if client in clients}

    def _greet(self, round_: int, strangers: set[int]) -> None:
        """Ask who has come who they are; what they say is heard before a later round."""
        new = sorted(n for n in strangers if n not in self._greeted or round_ - self._greeted[n] >= _PATIENCE)
        if new:
            ids = self._link.push_messages(greetings(new))
            self._asked.update((id_, node) for id_, node in zip(ids, new, strict=True) if id_)
            self._greeted.update(dict.fromkeys(new, round_))

    def _listen(self, names: Mapping[int, str]) -> None:
        """Hear what has been said since the last round."""
        if not self._asked:
            return
        answers = []
        for answer in self._link.pull_messages(list(self._asked)):
            node = self._asked.pop(answer.metadata.reply_to_message_id, None)
            if lost(answer) or away(answer):
                self._greeted.pop(node or 0, None)  # it was not heard: it is greeted again
            else:
                answers.append(answer)
        called = heard(answers, agreed(self._worker), names)
        self._called.ready.update(called.ready)
        self._called.devices.update(called.devices)
        self._called.skipped.update(called.skipped)
        self._called.skipped.update(_turned_away(called, names))
        self._note(self._called.skipped)

    def _note(self, skipped: Mapping[str, str]) -> None:
        """Write down who is not taken in, for whoever looks after the server."""
        self._skipped.update(skipped)
        self._folder.write(SKIPPED, [{"client": c, "reason": r} for c, r in sorted(self._skipped.items())])


def _turned_away(called: Called, names: Mapping[int, str]) -> dict[str, str]:
    """Return why nodes were refused, by client."""
    return {names[node]: str(error) for node, error in called.refused.items() if node in names}
