"""A person's text on their own device: encrypted, limited, theirs to delete, and there only while they agree.

Consent is part of the store, and what writes asks for it in the transaction that writes: an app that withdraws it stops
every other process that has the store open. A record is encrypted before SQLite sees it (:mod:`.example`); ids, times
and sizes are not. Deleting overwrites; forgetting also destroys the key. No program can promise that a disk, its spare
blocks, a snapshot or a backup kept no copy: then it is the key that matters, and a key in the system's keyring is gone
more surely than one in a file.
"""

from __future__ import annotations

import os
import sqlite3
import time as clocks
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from fedpeft.device.edge.database import Database
from fedpeft.device.edge.example import Example, Sealer, Written, checked
from fedpeft.device.edge.keychain import Keychain, find_keychain
from fedpeft.device.edge.retention import Retention
from fedpeft.errors import ConsentError, StoreError, nearest
from fedpeft.signing.encoding import KEY

_TICK = 1e-3
STORE, KEYS = "examples.sqlite", "keys"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store holds, without its text.

    Parameters
    ----------
    consent : bool
    messages, bytes : int
    oldest, newest : float or None
        When the first and the last message were written.
    keychain : str
        Where the key lies: ``keyring`` or ``file``; empty while there is none.
    """

    consent: bool
    messages: int
    bytes: int
    oldest: float | None
    newest: float | None
    keychain: str


@dataclass(frozen=True, slots=True)
class _State:
    store: str
    consent: int
    keychain: str
    key: str
    proof: bytes
    retired: str


class ExampleStore:
    """Messages on this device. Threads and processes may use it at once.

    Parameters
    ----------
    folder : Path
        Made when missing, for its owner only.
    retention : Retention
    keychain : Keychain, optional
        For a new key; by default the system's, or a file where there is none.
    clock : callable
        Seconds since 1970.

    Raises
    ------
    StoreError
        When the store is damaged, of another version, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        retention: Retention | None = None,
        keychain: Keychain | None = None,
        clock: Callable[[], float] = clocks.time,
    ) -> None:
        self.folder, self.retention, self._clock = folder, retention or Retention(), clock
        self._chosen = keychain
        self._sealer: Sealer | None = None
        self._database = Database(folder / STORE)
        self._destroy_retired()

    @property
    def consent(self) -> bool:
        """Whether the person agrees that their text is kept and learnt from."""
        with self._database.reading() as connection:
            return bool(_state(connection).consent)

    @property
    def generation(self) -> str:
        """What changes when everything is forgotten: the name of the key, empty before the first message."""
        with self._database.reading() as connection:
            return _state(connection).key

    def agree(self) -> None:
        """Note that the person agrees."""
        self._note_consent(1)

    def withdraw(self) -> None:
        """Note that the person does not agree any more. What is there stays, unused, until it is deleted."""
        self._note_consent(0)

    def require_consent(self) -> None:
        """Refuse to go on without consent.

        Raises
        ------
        ConsentError
        """
        if not self.consent:
            raise _unwilling()

    def add(self, text: str, *, mine: bool = True, conversation: str = "", time: float | None = None) -> str:
        """Keep a message; what exceeds the retention leaves.

        Parameters
        ----------
        text : str
        mine : bool
            Whether the owner of the device wrote it.
        conversation : str
            Groups messages that answer each other.
        time : float, optional
            When it was written, in seconds since 1970; now when not given.

        Returns
        -------
        str
            The message's id.

        Raises
        ------
        ConsentError
            When the person does not agree.
        StoreError
            When it is no text, would be dropped at once, or cannot be written. Nothing is changed then.
        """
        return self.extend([Written(text, mine, conversation, time)])[0]

    def extend(self, messages: Iterable[Written]) -> list[str]:
        """Keep many messages at once, all or none, in this order where they have no times; see :meth:`add`."""
        now, given = self._clock(), list(messages)
        # Training divides a history by time: what was written at one moment would be all training or all test.
        times = [now - _TICK * (len(given) - 1 - n) if m.time is None else m.time for n, m in enumerate(given)]
        examples = [checked(uuid4().hex, m.text, m.mine, m.conversation, t) for m, t in zip(given, times, strict=True)]
        with self._database.writing() as connection:
            state = _state(connection)
            if not state.consent:
                raise _unwilling()
            sealer = self._opened(state) if state.key else self._new_key(connection, state)
            for example in examples:
                sealed = sealer.seal(example)
                self.retention.require(example.time, len(sealed), now)
                row = (example.id, example.time, len(sealed), sealed)
                connection.execute("INSERT INTO examples (id, time, size, sealed) VALUES (?, ?, ?, ?)", row)
            self.retention.apply(connection, now)
        return [example.id for example in examples]

    def examples(self) -> list[Example]:
        """Return all messages in order of time.

        Raises
        ------
        StoreError
            When the key is missing or wrong, or a message was altered.
        """
        with self._database.reading() as connection:
            state = _state(connection)
            oldest = self.retention.oldest(self._clock())
            order = "SELECT sealed, id, time FROM examples WHERE time >= ? ORDER BY time, number"
            rows = connection.execute(order, (oldest,)).fetchall()
        if not rows:
            return []
        sealer = self._opened(state)
        return [sealer.open(*row) for row in rows]

    def conversations(self) -> list[tuple[Example, ...]]:
        """Return all messages, each conversation in order of time, as training reads them."""
        grouped: dict[str, list[Example]] = defaultdict(list)
        for example in self.examples():
            grouped[example.conversation].append(example)
        return [tuple(messages) for messages in grouped.values()]

    def contents(self) -> Contents:
        """Say how much there is; this takes no key."""
        with self._database.reading() as connection:
            state = _state(connection)
            count = "SELECT count(*), coalesce(sum(size), 0), min(time), max(time) FROM examples"
            messages, size, oldest, newest = connection.execute(count).fetchone()
        return Contents(bool(state.consent), messages, size, oldest, newest, state.keychain)

    def delete(self, id_: str) -> None:
        """Delete one message; its place in the file is overwritten.

        Raises
        ------
        StoreError
            When there is none of that id.
        """
        with self._database.writing() as connection:
            if not connection.execute("DELETE FROM examples WHERE id = ?", (id_,)).rowcount:
                known = [row[0] for row in connection.execute("SELECT id FROM examples")]
                raise StoreError("example", id_, "the id of one that is there", nearest(id_, known) if known else "")
        self._database.sweep()

    def prune(self) -> int:
        """Delete what has become too old; return how many messages that was."""
        with self._database.writing() as connection:
            gone = self.retention.apply(connection, self._clock())
        if gone:
            self._database.sweep()
        return gone

    def forget(self) -> int:
        """Delete everything, destroy its key, and write the file anew; return how many messages that was.

        It takes no key. If it is broken off, the next opening ends it.
        """
        with self._database.writing() as connection:
            state = _state(connection)
            gone = connection.execute("DELETE FROM examples").rowcount
            retired = " ".join([*state.retired.split(), f"{state.keychain}:{state.key}"] if state.key else [])
            connection.execute(
                "UPDATE state SET key = '', keychain = '', proof = x'', retired = ?", (retired or state.retired,)
            )
        self._sealer = None
        self._destroy_retired()
        self._database.rebuild()
        return gone

    def _note_consent(self, given: int) -> None:
        with self._database.writing() as connection:
            connection.execute("UPDATE state SET consent = ?", (given,))

    def _keychain(self, name: str | None = None) -> Keychain:
        if self._chosen is not None and name in (None, self._chosen.name):
            return self._chosen
        return find_keychain(self.folder / KEYS, name)

    def _new_key(self, connection: sqlite3.Connection, state: _State) -> Sealer:
        """Make a key; it is in its keychain before anything is sealed with it."""
        key, key_id, keychain = os.urandom(KEY), uuid4().hex, self._keychain()
        keychain.put(key_id, key)
        sealer = Sealer(key, state.store, key_id)
        connection.execute("UPDATE state SET keychain = ?, key = ?, proof = ?", (keychain.name, key_id, sealer.proof()))
        return sealer

    def _opened(self, state: _State) -> Sealer:
        """Return what opens the records; another process may have made a new key meanwhile."""
        if self._sealer is None or self._sealer.key_id != state.key:
            sealer = Sealer(self._keychain(state.keychain).get(state.key), state.store, state.key)
            if not sealer.fits(state.proof):
                remedy = "restore the right one; without it the texts can only be deleted: `fedpeft client forget`"
                raise StoreError(f"key of store {self.folder}", "another key", "the one it was made with", remedy)
            self._sealer = sealer
        return self._sealer

    def _destroy_retired(self) -> None:
        with self._database.reading() as connection:
            retired = _state(connection).retired
        if not retired:
            return
        for entry in retired.split():
            name, _, key_id = entry.partition(":")
            self._keychain(name).destroy(key_id)
        with self._database.writing() as connection:
            connection.execute("UPDATE state SET retired = '' WHERE retired = ?", (retired,))


def _state(connection: sqlite3.Connection) -> _State:
    return _State(*connection.execute("SELECT store, consent, keychain, key, proof, retired FROM state").fetchone())


def _unwilling() -> ConsentError:
    return ConsentError("consent", "none", "the person's consent", "ask them: `fedpeft client consent --give`")
