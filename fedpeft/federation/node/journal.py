"""What a node must find again when it is killed: the message it works on, its reply, and the app's state.

=====================  ==========================================================================================
``node``               the id under which the SuperLink knows this node
``delivery``           which message the SuperLink has handed over, while its parts are fetched
``request``            a message whose parts the SuperLink has been told to forget
``reply``              the answer, from before it is sent until all of it has arrived
``answered``           the last request's hash and the answer's content, should it be asked again
``state-<run>``        ``Context.state`` of a run; of the latest few runs
=====================  ==========================================================================================

A reply is on disk before it is sent. Where a secure round's answer was made but did not get that far, the app refuses
to make another, and the client counts as one who vanished in that round.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from flwr.app import Message, RecordDict

from fedpeft.errors import RunError
from fedpeft.federation.flower_fleet import Delivery
from fedpeft.federation.flower_internals import UNREADABLE, from_bytes, state_from_bytes, state_to_bytes, to_bytes
from fedpeft.federation.locking import hold
from fedpeft.files import private_folder, write_private

_NODE, _DELIVERY, _REQUEST, _REPLY, _STATE = "node", "delivery", "request", "reply", "state-"
_ANSWERED = "answered"
_RUNS, _HASH = 4, 64


class Journal:
    """A node's folder.

    Parameters
    ----------
    folder : Path
        Made with mode 700.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one process.

        Raises
        ------
        RunError
            When another node runs on it.
        """
        with hold(self._folder, RunError(f"node folder {self._folder}", "in use", "one node for it", "stop the other")):
            yield

    def node(self) -> int | None:
        """Return the id that this node had last."""
        text = (self._read(_NODE) or b"").decode("ascii", "replace")
        return int(text) if text.isascii() and text.isdigit() else None

    def keep_node(self, node: int) -> None:
        """Remember the id."""
        write_private(self._folder / _NODE, str(node).encode())

    def delivery(self) -> Delivery | None:
        """Return what was being fetched."""
        try:
            fields = json.loads(self._read(_DELIVERY) or b"null")
            return Delivery(**{**fields, "objects": tuple(fields["objects"])}) if fields else None
        except (ValueError, TypeError, KeyError):
            return None

    def keep_delivery(self, delivery: Delivery) -> None:
        """Write down what is about to be fetched: the SuperLink names it once."""
        write_private(self._folder / _DELIVERY, json.dumps(asdict(delivery)).encode())

    def forget_delivery(self) -> None:
        """Hear that it is here, or gone."""
        (self._folder / _DELIVERY).unlink(missing_ok=True)

    def request(self) -> Message | None:
        """Return the message that was being worked on."""
        return self._message(_REQUEST)

    def reply(self) -> Message | None:
        """Return the reply that was being sent."""
        return self._message(_REPLY)

    def keep_request(self, message: Message) -> None:
        """Write a message down; when this returns it is on disk."""
        write_private(self._folder / _REQUEST, to_bytes(message))

    def keep_reply(self, message: Message) -> None:
        """Write a reply down; when this returns it is on disk."""
        write_private(self._folder / _REPLY, to_bytes(message))

    def answered(self, asked: str) -> RecordDict | None:
        """Return what was answered to the same request, if it was the last."""
        data = self._read(_ANSWERED) or b""
        if data[:_HASH] != asked.encode("ascii"):
            return None
        try:
            return state_from_bytes(data[_HASH:])
        except UNREADABLE:
            return None

    def keep_answered(self, asked: str, content: RecordDict) -> None:
        """Remember an answer: it is given again where it was lost on the way, and the work not done twice."""
        write_private(self._folder / _ANSWERED, asked.encode("ascii") + state_to_bytes(content))

    def done(self) -> None:
        """Forget the message; the reply last, so that nothing is answered twice."""
        for name in (_DELIVERY, _REQUEST, _REPLY):
            (self._folder / name).unlink(missing_ok=True)

    def state(self, run: int) -> RecordDict:
        """Return what the app keeps for a run; empty when there is nothing, or nothing that can be read."""
        data = self._read(f"{_STATE}{run}")
        try:
            return state_from_bytes(data) if data else RecordDict()
        except UNREADABLE:
            return RecordDict()

    def keep_state(self, run: int, state: RecordDict) -> None:
        """Write what the app keeps for a run; the oldest runs' are deleted."""
        data = state_to_bytes(state)
        if not data and not (self._folder / f"{_STATE}{run}").exists():
            return
        write_private(self._folder / f"{_STATE}{run}", data)
        found = sorted(self._folder.glob(f"{_STATE}*"), key=lambda path: path.stat().st_mtime)
        for path in found[:-_RUNS]:
            path.unlink(missing_ok=True)

    def _message(self, name: str) -> Message | None:
        data = self._read(name)
        try:
            return from_bytes(data) if data else None
        except UNREADABLE:
            # Written whole or not at all, so this is another version's: nobody can answer it.
            return None

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
