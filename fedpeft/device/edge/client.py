"""An app's whole dealing with fedpeft on one device: keep text, suggest, learn, forget.

    consent ──► add ──► store ──► personalize (policy, lock) ──► personal bundle ──► suggest, generate
    withdraw: nothing is kept or learnt      forget: text, key and personal adapter are gone

``personalize`` trains anew on what the store holds *now*, on top of the adapter the app came with. So a message that
was deleted, or has become too old, is unlearnt by the next training, exactly.
"""

from __future__ import annotations

import shutil
import time as clocks
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Unpack

from fedpeft.device.bundle import Bundle
from fedpeft.device.edge.adapters import OwnAdapters
from fedpeft.device.edge.events import Consented, Deleted, Event, Forgotten, Kept, Personalized, Refused, Started
from fedpeft.device.edge.example import Written
from fedpeft.device.edge.home import Home
from fedpeft.device.edge.policy import Policy, Verdict
from fedpeft.device.edge.probes import Probes
from fedpeft.device.edge.store import Contents, ExampleStore
from fedpeft.device.edge.training import Job, Learned, Trainer, alone
from fedpeft.device.generation import DEFAULT, Generation, Settings
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.runtime import Runtime
from fedpeft.device.suggest import Suggester, Suggestion
from fedpeft.errors import ConsentError
from fedpeft.signing.keyfile import own_key
from fedpeft.signing.signature import public_bytes


class EdgeClient:
    """A person's device. Several threads may use it, and several processes the same home.

    Parameters
    ----------
    home : Path
        The app's private folder: store, keys and personal adapter.
    base : Path
        Bundle of the base.
    adapter : Path, optional
        Bundle of the adapter to start from: the federation's, or a person's own from a run. None is the bare base.
    owner : str
        Whose device it is; the name in the personal adapter.
    trusted : collection of str, optional
        Public keys whose bundles are believed; whoever signed the base when not given. The device's own, which signs
        nothing but personal adapters, is added.
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
        base: Path,
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
        self.home, self.owner, self._base, self._start = Home(home), owner, base, adapter
        self.store = store or self.home.store()
        self.policy, self._probes, self._observer = policy or Policy(), probes or Probes(), observer
        self._key = own_key(self.home.key)
        believed = trusted if trusted is not None else [Bundle.open(base, "base").manifest.signer]
        self._trusted = frozenset(believed) | {public_bytes(self._key).hex()}
        self.runtime = Runtime(base, threads, self._trusted)
        self._own = OwnAdapters(self.home.personal, owner, self.runtime, adapter)
        self._typing: tuple[LoadedAdapter | None, Suggester] | None = None
        self._lock, self._used = Lock(), clocks.monotonic()

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
        return self._own.load()

    @property
    def personal(self) -> bool:
        """Whether a personal adapter answers."""
        return bool(self.home.personal.bases())

    def suggest(self, typed: str, count: int = 3) -> list[Suggestion]:
        """Return the likeliest next words, or completions of the one being typed, best first."""
        self._used = clocks.monotonic()
        adapter = self.adapter
        with self._lock:
            if self._typing is None or self._typing[0] is not adapter:
                self._typing = adapter, self.runtime.suggester(adapter)
            suggester = self._typing[1]
        return suggester.suggest(typed, count)

    def generate(self, prompt: str, options: Generation = DEFAULT, **settings: Unpack[Settings]) -> str:
        """Return how a message begun with ``prompt`` goes on."""
        return "".join(self.stream(prompt, options, **settings))

    def stream(self, prompt: str, options: Generation = DEFAULT, **settings: Unpack[Settings]) -> Iterator[str]:
        """Say how a message begun with ``prompt`` goes on, in parts."""
        self._used = clocks.monotonic()
        return self.runtime.stream(prompt, self.adapter, options, **settings)

    def verdict(self, policy: Policy | None = None) -> Verdict:
        """Say whether the device may train now, and why not."""
        found = self._probes.look()
        if found.idle is None:
            found = replace(found, idle=clocks.monotonic() - self._used)
        return (policy or self.policy).offline().allows(found)

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
            out = self._own.draft()
            job = Job(self.owner, self.store, self._base, self._start, self._trusted, out, self._key)
            try:
                learned = trainer(job)
                self._require_unchanged(began)
                self._own.install(out)
                # Asked again: who forgot in between has removed what was there before this was.
                self._require_unchanged(began)
            except BaseException:
                shutil.rmtree(out, ignore_errors=True)
                raise
        self._tell(Personalized(learned))
        return learned

    def forget(self) -> int:
        """Delete every message, destroy the store's key, and remove the personal adapter; consent stays as it is.

        Returns
        -------
        int
            How many messages there were.
        """
        gone = self.store.forget()
        self.home.personal.clear()
        with self._lock:
            self._typing = None
        self._tell(Forgotten(gone))
        return gone

    def _require_unchanged(self, began: str) -> None:
        if self.store.generation != began:
            self.home.personal.clear()
            raise ConsentError(
                "texts", "forgotten while it trained", "those it began with", "what it learnt is gone too"
            )
        self.store.require_consent()

    def _tell(self, event: Event) -> None:
        if self._observer is not None:
            self._observer(event)
