"""What answers: the base of a run, its people's adapters, and the thread that runs them together."""

from __future__ import annotations

import logging
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpeft.device.folders import NOBODY, adapter_folder, base_folder
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.manifest import MANIFEST
from fedpeft.device.private import settled
from fedpeft.device.rows import RowDecoder
from fedpeft.device.runtime import Runtime
from fedpeft.device.sampling import Sampling
from fedpeft.device.stream import Speech
from fedpeft.errors import BundleError, FedpeftError
from fedpeft.serve.bases import open_rows
from fedpeft.serve.faults import Fault, no_model
from fedpeft.serve.job import Job, Said
from fedpeft.serve.limits import Limits
from fedpeft.serve.metrics import Metrics
from fedpeft.serve.scheduler import Scheduler
from fedpeft.serve.schema import ChatRequest, CompletionRequest, Generation
from fedpeft.serve.tokens import Caller, TokenStore, tokens_file

_log = logging.getLogger("fedpeft.serve")
_UNBOUNDED = sys.maxsize


@dataclass(frozen=True)
class Prompt:
    """What a request reads.

    Parameters
    ----------
    ids : sequence of int
    bare : bool
        The answer begins without a space.
    """

    ids: Sequence[int]
    bare: bool


class Service:
    """One run's base and adapters, ready to answer.

    Parameters
    ----------
    run : Path
        With ``device/base``, ``device/base-rows`` and ``device/adapters``.
    limits : Limits
    threads : int
        For the arithmetic of a step.

    Raises
    ------
    BundleError
        When a bundle is incomplete, altered, or not signed by whoever signed the base.
    ServeError
        When the two bases are not the same, or the tokens can be read by others.
    """

    def __init__(self, run: Path, limits: Limits, threads: int = 1) -> None:
        self.limits, self.metrics = limits, Metrics()
        self.tokens = TokenStore(tokens_file(run))
        self.runtime = Runtime(base_folder(run), threads=threads, adapters=limits.adapters)
        with settled(open_rows(run, self.runtime.manifest)) as bundle:
            rows = RowDecoder(bundle, limits.slots, threads)
        self._run = run
        self.scheduler = Scheduler(rows, self.metrics)
        self.base = self.runtime.manifest.base_fingerprint
        self._started = int(time.time())

    def models(self, caller: Caller) -> list[dict[str, object]]:
        """Return what a caller can ask for, as OpenAI lists models."""
        names = [name for name in sorted(caller.adapters) if name == NOBODY or self._has(name)]
        return [{"id": name, "object": "model", "created": self._started, "owned_by": caller.user} for name in names]

    def adapter(self, caller: Caller, name: str) -> LoadedAdapter | None:
        """Return an adapter that a caller may use; None is the base itself. It may read files.

        Raises
        ------
        Fault
            404 when there is none, or it is not the caller's; 503 when it is there and cannot be used.
        """
        if name not in caller.adapters:
            raise no_model(name)
        if name == NOBODY:
            return None
        if not self._has(name):
            raise no_model(name)
        try:
            return self._load(name)
        except BundleError as error:
            _log.warning("an adapter is refused: %s", error)
            message = f"The model {name!r} cannot be used at the moment."
            raise Fault(503, message, "server_error", code="model_unusable", retry_after=30) from error

    def prompt(self, ask: CompletionRequest | ChatRequest) -> Prompt:
        """Turn a request's text into tokens.

        Raises
        ------
        Fault
            400 when the base has no form for it.
        """
        try:
            if isinstance(ask, ChatRequest):
                return Prompt(self.runtime.form.begin(ask.said, room=_UNBOUNDED), bare=True)
            # Pieces carry the space before them: one at the end of the prompt would be a piece of its own.
            typed = ask.text.rstrip()
            return Prompt(self.runtime.text.begin(typed, room=_UNBOUNDED), bare=not typed or typed != ask.text)
        except FedpeftError as error:
            raise Fault(400, str(error), param="messages" if isinstance(ask, ChatRequest) else "prompt") from error

    def job(
        self,
        ask: Generation,
        prompt: Prompt,
        adapter: LoadedAdapter | None,
        tokens: int,
        deliver: Callable[[Said], None],
    ) -> Job:
        """Prepare a request for the scheduler.

        Raises
        ------
        Fault
            400 when the prompt is longer than the base can read.
        """
        facts = self.runtime.text.facts
        room = facts.context
        opening: list[int] = []
        if adapter is not None:
            room -= adapter.past + adapter.prompt
            opening = list(range(facts.vocabulary, facts.vocabulary + adapter.prompt))
        if len(prompt.ids) > room:
            message = f"This model reads at most {room} tokens; your prompt has {len(prompt.ids)}."
            raise Fault(400, message, param="prompt", code="context_length_exceeded")
        return Job(
            ids=[*opening, *prompt.ids],
            adapter=adapter,
            sampling=Sampling(ask.temperature, ask.top_k, ask.top_p, ask.repetition_penalty),
            seed=secrets.randbits(63) if ask.seed is None else ask.seed % (1 << 64),
            tokens=min(tokens, self.limits.tokens),
            ends=frozenset(facts.end),
            speech=Speech(self.runtime.text.decode, ask.stops, bare=prompt.bare),
            deliver=deliver,
            deadline=time.monotonic() + self.limits.timeout_s,
        )

    def close(self) -> None:
        """End every answer and the thread."""
        self.scheduler.close()

    def _load(self, name: str) -> LoadedAdapter:
        adapter = self.runtime.load(adapter_folder(self._run, name))
        if adapter.owner != name:
            raise BundleError(f"adapter {name} owner", adapter.owner, f"{name}, whose folder it is in")
        return adapter

    def _has(self, name: str) -> bool:
        return (adapter_folder(self._run, name) / MANIFEST).is_file()
