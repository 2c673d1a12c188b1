"""Personalization where the person is: the trainer of an :class:`fedpeft.device.EdgeClient`.

    W_g = W + s_g B_g A_g                  the adapter that came with the app, folded into a copy of the base
    h   = W_g x + g s_p B_p A_p x          the private one trained on the store's text, g chosen by the gate

Training, splits and gate are those of a simulation's people (:func:`.finetune.personalize`). What is exported is the
sum of both adapters, exactly (:func:`fedpeft.adapters.algebra.cat`), for the ONNX base in whatever precision it has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fedpeft.adapters import Adapter
from fedpeft.adapters.algebra import cat
from fedpeft.adapters.merge import merge
from fedpeft.base import Base, load_base
from fedpeft.data.stored import StoredFederation
from fedpeft.data.windows import Windows
from fedpeft.device.bundle import Bundle
from fedpeft.device.edge.training import Job, Learned
from fedpeft.device.manifest import Manifest
from fedpeft.errors import BaseError, DataError
from fedpeft.export import export_adapter
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.personalization.finetune import personalize
from fedpeft.seeds import derive
from fedpeft.tasks import Splits
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training, evaluate


@dataclass(frozen=True)
class OnDevice:
    """How a device trains.

    Parameters
    ----------
    base : str, optional
        The base's weights: a known name or a folder; what the bundle says when not given.
    dtype : {"float32", "bfloat16", "float16"}
    window : int
        Tokens per training window.
    rank : int
        Of the private adapter.
    training : Training
    gate : tuple of float
        Shares of the change that validation may choose from.
    seed : int
    threads : int
        For the arithmetic, while it trains.
    """

    base: str | None = None
    dtype: str = "float32"
    window: int = 64
    rank: int = 8
    training: Training = field(default_factory=lambda: Training(steps=60, learning_rate=2e-3, patience=6))
    gate: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    seed: int = 0
    threads: int = 1

    def __call__(self, job: Job) -> Learned:
        """Train and write the bundle.

        Raises
        ------
        DataError
            When there is too little text to train, choose and test on.
        BaseError
            When the base's weights are not found, or are not those of the bundle.
        AdapterError
            When two adapters cannot be written as one: the one to start from is no plain LoRA.
        """
        began = time.perf_counter()
        with _threads(self.threads):
            manifest = Bundle.open(job.base, "base", job.trusted).manifest
            base = self._base(manifest)
            task = NextWord(base, StoredFederation(job.store, job.owner), self.window)
            own = _enough(task.splits(job.owner), job.owner)
            start = _start(job, base)
            if start is not None:
                merge(base.model, start)
            attached = Attached(base, Lora(rank=self.rank), None, derive(self.seed, "private adapter"))
            attached.activate()
            before = evaluate(attached, task, own.test).metrics()["loss"]
            attached.activate(SHARED)
            seed = derive(self.seed, "personalize", job.owner)
            kept = personalize(attached, SHARED, attached.initial[SHARED], task, own, self.training, self.gate, seed)
            after = evaluate(attached, task, own.test).metrics()["loss"]
            mine = attached.adapter(SHARED, kept.vector)
            whole = mine if start is None else cat([start, mine], [1.0, 1.0])
            details = {"messages": own.messages, "gate": kept.gate}
            export_adapter(whole, job.out, owner=job.owner, base=manifest, key=job.key, details=details)
        return Learned(own.messages, kept.steps, kept.gate, before, after, time.perf_counter() - began)

    def _base(self, manifest: Manifest) -> Base:
        base = load_base(self.base or manifest.name, self.dtype)
        if base.fingerprint != manifest.base_fingerprint:
            remedy = "name the folder of the weights that the bundle was exported from"
            expected = f"the bundle's {manifest.base_fingerprint[:12]}…"
            raise BaseError(f"base {base.name}", f"{base.fingerprint[:12]}…", expected, remedy)
        return base


def _start(job: Job, base: Base) -> Adapter | None:
    if job.start is None:
        return None
    bundle = Bundle.open(job.start, "adapter", job.trusted)
    bundle.verify()
    return Adapter.load(Path(bundle.folder), base.fingerprint)


def _enough(own: Splits[Windows], owner: str) -> Splits[Windows]:
    for part, text in (("train on", own.train), ("choose by", own.validation), ("test on", own.test)):
        if not text.tokens:
            raise DataError(
                f"messages of {owner}", own.messages, f"enough for some to {part}", "write some more, ten at least"
            )
    return own


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Train with so many threads, and leave the app's own setting as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
