"""What answers: the base of a run, its people's adapters, and the thread that runs them together."""

from __future__ import annotations

import logging
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpeft.device.bundle import Bundle
from fedpeft.device.folders import NOBODY, adapter_folder, base_folder
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.manifest import MANIFEST
from fedpeft.device.private import settled
from fedpeft.device.rows import RowDecoder
from fedpeft.device.runtime import Runtime
from fedpeft.device.sampling import Sampling
from fedpeft.device.stream import Speech
from fedpeft.device.suggest import Suggestion
from fedpeft.errors import BundleError, FedpeftError
from fedpeft.serve.bases import open_rows
from fedpeft.serve.faults import Fault, no_model
from fedpeft.serve.job import Job, Said
from fedpeft.serve.limits import Limits
from fedpeft.serve.metrics import Metrics
from fedpeft.serve.scheduler import Scheduler
from fedpeft.serve.schema import ChatRequest, CompletionRequest, SuggestRequest
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

    Attributes
    ----------
    context : int
        Most tokens of a prompt and its answer together.

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
        self.runtime = _open_runtime(run, threads, limits.adapters)
        with settled(open_rows(run, self.runtime.manifest)) as bundle:
            rows = RowDecoder(bundle, limits.slots, threads, limits.context)
        self._run, self.context = run, rows.context
        _warm_up(rows)
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

    def suggest(self, caller: Caller, ask: SuggestRequest) -> list[Suggestion]:
        """Suggest words.

        Raises
        ------
        Fault
            What :meth:`adapter` raises; 400 when the base's tokenizer knows no words.
        """
        adapter = self.adapter(caller, ask.model)
        try:
            return self.runtime.suggest(ask.text, adapter, count=ask.count)
        except FedpeftError as error:
            raise Fault(400, str(error), param="text") from error

    def job(
        self, caller: Caller, ask: CompletionRequest | ChatRequest, tokens: int, deliver: Callable[[Said], None]
    ) -> tuple[Prompt, Job]:
        """Prepare a request for the scheduler. It may read files, and cuts the text into tokens.

        Parameters
        ----------
        caller : Caller
        ask : CompletionRequest or ChatRequest
        tokens : int
            Most tokens of the answer; the service's own limit counts too.
        deliver : callable
            See :class:`~fedpeft.serve.job.Job`.

        Raises
        ------
        Fault
            What :meth:`adapter` raises; 400 when the base has no form for the text, or it is longer than it can read.
        """
        adapter, prompt, facts = self.adapter(caller, ask.model), self._prompt(ask), self.runtime.text.facts
        before = (adapter.past, adapter.prompt) if adapter is not None else (0, 0)
        room = self.context - sum(before)
        if len(prompt.ids) > room:
            message = f"This model reads at most {room} tokens; yours are {len(prompt.ids)}."
            raise Fault(400, message, param=_field(ask), code="context_length_exceeded")
        return prompt, Job(
            ids=[*range(facts.vocabulary, facts.vocabulary + before[1]), *prompt.ids],
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

    def _prompt(self, ask: CompletionRequest | ChatRequest) -> Prompt:
        try:
            if isinstance(ask, ChatRequest):
                return Prompt(self.runtime.form.begin(ask.said, room=_UNBOUNDED), bare=True)
            # Pieces carry the space before them: one at the end of the prompt would be a piece of its own.
            typed = ask.text.rstrip()
            return Prompt(self.runtime.text.begin(typed, room=_UNBOUNDED), bare=not typed or typed != ask.text)
        except FedpeftError as error:
            raise Fault(400, str(error), param=_field(ask)) from error


def _field(ask: CompletionRequest | ChatRequest) -> str:
    return "messages" if isinstance(ask, ChatRequest) else "prompt"


def _open_runtime(run: Path, threads: int, adapters: int) -> Runtime:
    """Open the base that suggests and verifies; beside the other one it should weigh little."""
    folder = base_folder(run)
    mapped = Bundle.open(folder, "base").manifest.precision == "float32"
    return Runtime(folder, threads, mapped=mapped, adapters=adapters)


def _warm_up(rows: RowDecoder) -> None:
    """Run every kind of step once: onnxruntime prepares itself on the first."""
    row = rows.open(None)
    rows.read(row, [0])
    rows.seat(row)
    rows.step([0])
    rows.leave(row)
