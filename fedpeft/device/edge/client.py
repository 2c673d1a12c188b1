"""An app's whole dealing with fedpeft on one device: keep text, suggest, learn, forget.

    consent ──► add ──► store ──► personalize (policy, lock) ──► personal bundle ──► suggest, generate
    enrol ──► join: rounds with others (policy, lock) ──► global adapter, which ``personalize`` builds on
    withdraw: nothing is kept or learnt      forget: text, key and personal adapter are gone

``personalize`` trains anew on what the store holds *now*, on top of the newest global adapter, or the one that the app
came with. So a message that was deleted, or has become too old, is unlearnt by the next training, exactly.
"""

from __future__ import annotations

import shutil
import time as clocks
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as Flag
from threading import Lock
from typing import Any, Self, Unpack

from fedpeft.device.bundle import Bundle
from fedpeft.device.edge.adapters import OwnAdapters
from fedpeft.device.edge.events import (
    Consented,
    Deleted,
    Enrolled,
    Event,
    Forgotten,
    Kept,
    Personalized,
    Refused,
    Started,
)
from fedpeft.device.edge.example import Written
from fedpeft.device.edge.home import Home
from fedpeft.device.edge.joining import Enroller, Joined, Joiner, Seat
from fedpeft.device.edge.membership import Membership
from fedpeft.device.edge.policy import Policy, Verdict
from fedpeft.device.edge.probes import Probes
from fedpeft.device.edge.store import Contents, ExampleStore
from fedpeft.device.edge.training import Job, Learned, Trainer, alone
from fedpeft.device.generation import DEFAULT, Generation, Settings
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.runtime import Runtime
from fedpeft.device.suggest import Suggester, Suggestion
from fedpeft.errors import BundleError, ConsentError
from fedpeft.signing.keyfile import own_key
from fedpeft.signing.signature import public_bytes


@dataclass(frozen=True)
class _Voice:
    """What answers over one base."""

    base: Path
    runtime: Runtime
    own: OwnAdapters


class EdgeClient:
    """A person's device. Several threads may use it, and several processes the same home.

    Parameters
    ----------
    home : Path
        The app's private folder: store, keys and personal adapter.
    base : Path, optional
        Bundle of the base; by default the one that joining a federation left in the home.
    adapter : Path, optional
        Bundle of the adapter to start from: the federation's, or a person's own from a run. None is the bare base. The
        newest global adapter takes its place once the device has joined.
    owner : str
        Whose device it is; the name in the personal adapter.
    trusted : collection of str, optional
        Public keys whose bundles are believed; whoever signed the given base when not given. The device's own, which
        signs what is made here, is added.
    store : ExampleStore, optional
        By default one under ``home`` with the default retention.
    policy : Policy, optional
    probes : Probes, optional
        How the policy's conditions are found out.
    observer : callable, optional
        Called with every :data:`.events.Event` once it is a fact. What it raises reaches whoever called the client.
    threads : int
        For the arithmetic of one request.

    Raises
    ------
    BundleError
        When a bundle is incomplete, altered, signed by somebody else, or cannot be run.
    StoreError
        When the store cannot be opened.
    """

    def __init__(
        self,
        home: Path,
        base: Path | None = None,
        adapter: Path | None = None,
        *,
        owner: str = "me",
        trusted: Collection[str] | None = None,
        store: ExampleStore | None = None,
        policy: Policy | None = None,
        probes: Probes | None = None,
        observer: Callable[[Event], None] | None = None,
        threads: int = 1,
    ) -> None:
        self.home, self.owner, self._base, self._given = Home(home), owner, base, adapter
        self.store = store or self.home.store()
        self.policy, self._probes, self._observer = policy or Policy(), probes or Probes(), observer
        self._key = own_key(self.home.key)
        if trusted is None:
            trusted = [] if base is None else [Bundle.open(base, "base").manifest.signer]
        self._trusted = frozenset(trusted) | {public_bytes(self._key).hex()}
        self._threads, self._lock = threads, Lock()
        self._voice: _Voice | None = None
        if self._base or self.home.base.current():
            self._speak()
        self._typing: tuple[_Voice, LoadedAdapter | None, Suggester] | None = None
        self._used, self._stopping = clocks.monotonic(), Flag()

    @classmethod
    def enrol(cls, home: Path, token: str, enroller: Enroller, **options: Any) -> Self:
        """Make a home a member of a federation, and open it.

        Parameters
        ----------
        home : Path
        token : str
            What the operator gave.
        enroller : Enroller
            Such as :func:`fedpeft.gate.enrol`.
        options
            Of the client; see the class.

        Raises
        ------
        FedpeftError
            When the token or the gate refuses. The same call goes on where it was broken off.
        """
        member = enroller(home, token)
        client = cls(home, **options)
        client._tell(Enrolled(member.client, member.federation))
        return client

    @property
    def runtime(self) -> Runtime:
        """What runs the base.

        Raises
        ------
        BundleError
            When there is no base yet.
        """
        return self._speak().runtime

    @property
    def consent(self) -> bool:
        """Whether the person agrees that their text is kept and learnt from."""
        return self.store.consent

    def agree(self) -> None:
        """Note that the person agrees."""
        self.store.agree()
        self._tell(Consented(True))

    def withdraw(self) -> None:
        """Note that the person does not agree any more: nothing more is kept or learnt. What is there stays."""
        self.store.withdraw()
        self._tell(Consented(False))

    def add(self, text: str, *, mine: bool = True, conversation: str = "", time: float | None = None) -> str:
        """Keep a message; see :meth:`ExampleStore.add`."""
        return self.extend([Written(text, mine, conversation, time)])[0]

    def extend(self, messages: Iterable[Written]) -> list[str]:
        """Keep many messages, all or none."""
        self._used = clocks.monotonic()
        ids = self.store.extend(messages)
        self._tell(Kept(tuple(ids)))
        return ids

    def delete(self, id_: str) -> None:
        """Delete one message; the next training does without it."""
        self.store.delete(id_)
        self._tell(Deleted(id_))

    def contents(self) -> Contents:
        """Say how much is kept."""
        return self.store.contents()

    @property
    def adapter(self) -> LoadedAdapter | None:
        """The adapter that answers now."""
        return self._speak().own.load()

    @property
    def personal(self) -> bool:
        """Whether a personal adapter answers."""
        return bool(self.home.personal.bases())

    def suggest(self, typed: str, count: int = 3) -> list[Suggestion]:
        """Return the likeliest next words, or completions of the one being typed, best first."""
        self._used = clocks.monotonic()
        voice = self._speak()
        adapter = voice.own.load()
        with self._lock:
            if self._typing is None or self._typing[0] is not voice or self._typing[1] is not adapter:
                self._typing = voice, adapter, voice.runtime.suggester(adapter)
            suggester = self._typing[2]
        return suggester.suggest(typed, count)

    def generate(self, prompt: str, options: Generation = DEFAULT, **settings: Unpack[Settings]) -> str:
        """Return how a message begun with ``prompt`` goes on."""
        return "".join(self.stream(prompt, options, **settings))

    def stream(self, prompt: str, options: Generation = DEFAULT, **settings: Unpack[Settings]) -> Iterator[str]:
        """Say how a message begun with ``prompt`` goes on, in parts."""
        self._used = clocks.monotonic()
        voice = self._speak()
        return voice.runtime.stream(prompt, voice.own.load(), options, **settings)

    def verdict(self, policy: Policy | None = None) -> Verdict:
        """Say whether the device may train now, and why not."""
        return self._allowed((policy or self.policy).offline())

    def personalize(self, trainer: Trainer, policy: Policy | None = None) -> Learned:
        """Train the personal adapter on what is in the store, and let it answer from then on.

        Parameters
        ----------
        trainer : Trainer
            Such as :class:`fedpeft.personalization.on_device.OnDevice`.
        policy : Policy, optional
            Instead of the client's own, such as :data:`.policy.ANYTIME` for a person who says "now".

        Returns
        -------
        Learned

        Raises
        ------
        ConsentError
            When the person does not agree, or took it back or forgot everything while it trained. Nothing is kept.
        PolicyError
            When the policy does not allow it now.
        StoreError
            When another process trains.
        FedpeftError
            When there is too little text, or it cannot be trained. What answered before still does.
        """
        self.store.require_consent()
        verdict = self.verdict(policy)
        if not verdict.allowed:
            self._tell(Refused(verdict))
        verdict.require()
        with alone(self.home.lock):
            self.store.prune()
            began = self.store.generation
            self._tell(Started(self.contents().messages))
            voice = self._speak()
            out = voice.own.draft()
            job = Job(self.owner, self.store, voice.base, self._start(), self._trusted, out, self._key)
            try:
                learned = trainer(job)
                self._require_unchanged(began)
                voice.own.install(out)
                # Asked again: who forgot in between has removed what was there before this was.
                self._require_unchanged(began)
            except BaseException:
                shutil.rmtree(out, ignore_errors=True)
                raise
        self._tell(Personalized(learned))
        return learned

    def join(self, joiner: Joiner, policy: Policy | None = None, *, once: bool = False) -> Joined:
        """Take part in the federation's rounds with what is in the store, until :meth:`stop`.

        A device that may not train when it is asked says so, and is asked another time.

        Parameters
        ----------
        joiner : Joiner
            Such as :class:`fedpeft.federation.on_device.Rounds`.
        policy : Policy, optional
            Instead of the client's own.
        once : bool
            End when one run is over.

        Raises
        ------
        StoreError
            When the device is not enrolled.
        FedpeftError
            When it cannot take part at all; errors of server and network are waited out.
        """
        asked = policy or self.policy
        seat = Seat(
            member=Membership.read(self.home.federation),
            home=self.home,
            store=self.store,
            base=self._base,
            trusted=self._trusted,
            key=self._key,
            verdict=lambda: self._allowed(asked),
            tell=self._tell,
            once=once,
            stopping=self._stopping,
        )
        try:
            return joiner(seat)
        finally:
            self._stopping.clear()

    def stop(self) -> None:
        """Let :meth:`join` end after what it has in hand, or as soon as it is called; any thread may call this."""
        self._stopping.set()

    def forget(self) -> int:
        """Delete every message, destroy the store's key, and remove the personal adapter; consent stays as it is.

        Returns
        -------
        int
            How many messages there were.
        """
        gone = self.store.forget()
        self.home.unlearn()
        with self._lock:
            self._typing = None
        self._tell(Forgotten(gone))
        return gone

    def _allowed(self, policy: Policy) -> Verdict:
        found = self._probes.look()
        if found.idle is None:
            found = replace(found, idle=clocks.monotonic() - self._used)
        return policy.allows(found)

    def _start(self) -> Path | None:
        """Return what the person's own adapter comes on top of."""
        return self.home.shared.current() or self._given

    def _speak(self) -> _Voice:
        """Return what answers, made anew when there is another base."""
        base = self._base or self.home.base.current()
        if base is None:
            raise BundleError("base", "none yet", "the bundle of one", "join a federation first, or name a run's")
        with self._lock:
            if self._voice is None or self._voice.base != base:
                runtime = Runtime(base, self._threads, self._trusted)
                self._voice = _Voice(base, runtime, OwnAdapters(self.home.personal, self.owner, runtime, self._start))
            return self._voice

    def _require_unchanged(self, began: str) -> None:
        if self.store.generation != began:
            self.home.unlearn()
            raise ConsentError(
                "texts", "forgotten while it trained", "those it began with", "what it learnt is gone too"
            )
        self.store.require_consent()

    def _tell(self, event: Event) -> None:
        if self._observer is not None:
            self._observer(event)
