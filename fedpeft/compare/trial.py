"""One method's work, piece by piece; each function here runs in a process of its own, see ``children``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedpeft.adapters import Adapter, Schema
from fedpeft.adapters.merge import merge
from fedpeft.compare.peak import peak_mb
from fedpeft.compare.pool import Pool
from fedpeft.compare.row import Score
from fedpeft.compare.score import probe, score
from fedpeft.errors import AdapterError
from fedpeft.methods import Attached, Method
from fedpeft.methods.attached import SHARED
from fedpeft.methods.layout import HEADS
from fedpeft.seeds import derive
from fedpeft.training import Training, train

PROFILED = 10
"""Training steps whose time and memory are measured."""
_WARM, _TIMED = 3, 15
_LOGITS, _ADAPTER, _FOLDED = "logits.npy", "adapter", "folded"
HEAD_RATE = 3e-2
"""Learning rate of a classifier's head, the same under every method: it starts from nothing, whatever lies below."""
EQUAL = 1e-6
"""Largest difference of logits, over the largest logit, that counts as equal."""


@dataclass(frozen=True)
class Trial:
    """What a method is tried with.

    Parameters
    ----------
    method : Method
    rate : float
        Learning rate.
    training : Training
        Steps, batch and schedule; the rate in it does not count.
    seed : int
        The same for all methods: they see the same batches.
    """

    method: Method
    rate: float
    training: Training
    seed: int

    def attach(self, pool: Pool) -> Clocked:
        """Attach the method to the pool's base, alone."""
        return Clocked(pool.task.base, self.method, None, derive(self.seed, "initial adapter"))

    def fit(self, attached: Attached, pool: Pool, share: float, steps: int | None = None) -> None:
        """Train on a share of the pooled examples."""
        change = {
            "learning_rate": self.rate,
            "head_factor": HEAD_RATE / self.rate,
            "steps": steps or self.training.steps,
            "epochs": None,
        }
        training = self.training.model_copy(update=change)
        train(attached, SHARED, pool.task, pool.share(share, self.seed), training, derive(self.seed, "compare"))


class Clocked(Attached):
    """An attached method that notes the processor time of every training step."""

    def __init__(self, *args: Any) -> None:
        self.ticks: list[float] = []
        super().__init__(*args)

    def after_step(self, slot: str, step: int, total: int) -> None:
        """Tell the slot's method, and look at the clock."""
        super().after_step(slot, step, total)
        self.ticks.append(time.process_time())


def profile(trial: Trial, pool: Pool, folder: Path) -> dict[str, Any]:
    """Measure size, memory and time of a method, after a few steps of training."""
    forward(pool)  # touch the base: its pages are nobody's growth
    base_mb = held_mb(pool)

    def work() -> Clocked:
        attached = trial.attach(pool)
        trial.fit(attached, pool, 1.0, PROFILED)
        return attached

    attached, peak = peak_mb(work)
    vector = attached.read(SHARED)
    attached.adapter(SHARED, vector).save(folder / _ADAPTER)
    if trial.method.mergeable:
        attached.folded(SHARED).save(folder / _FOLDED)
    np.save(folder / _LOGITS, _probed(attached.model, pool))
    return {
        "trainable": int(vector.size),
        "share": vector.size / pool.task.base.parameters,
        "base_mb": base_mb,
        "adapter_bytes": sum(file.stat().st_size for file in (folder / _ADAPTER).iterdir()),
        "step_ms": 1e3 * median(np.diff(attached.ticks)),
        "peak_mb": peak,
        "infer_ms": timed(attached.model, pool),
    }


def merged(pool: Pool, folder: Path) -> dict[str, Any]:
    """Fold what :func:`profile` saved into the base's own weights, and measure again; nulls where that cannot be."""
    adapter = Adapter.load(folder / _FOLDED, pool.task.base.fingerprint)
    wanted, model = np.load(folder / _LOGITS), pool.task.base.model
    body, head = _divided(adapter)
    try:
        kept = merge(model, body)
    except AdapterError as refused:
        return {"merged_ms": None, "merge_error": None, "unmerged": str(refused)}
    with torch.no_grad():
        for name, values in head.items():
            model.get_parameter(name).copy_(torch.from_numpy(values))
    found = _probed(model, pool)
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    answer = {"merged_ms": timed(model, pool), "merge_error": error}
    kept.undo()
    return answer


def learn(trial: Trial, pool: Pool, share: float, folder: Path) -> dict[str, Any]:
    """Train on a share of the pool, score on test text, save."""
    attached = trial.attach(pool)
    trial.fit(attached, pool, share)
    attached.adapter(SHARED, attached.read(SHARED)).save(folder / _ADAPTER)
    np.save(folder / _LOGITS, _probed(attached.model, pool))
    return {"score": _scored(attached, pool, share, trial.seed).model_dump(mode="json")}


def reload(trial: Trial, pool: Pool, folder: Path) -> dict[str, Any]:
    """Load what :func:`learn` saved into a newly attached model, and compare its outputs."""
    attached = trial.attach(pool)
    adapter = Adapter.load(folder / _ADAPTER, pool.task.base.fingerprint)
    expected = attached.schemas[SHARED]
    if adapter.schema.digest != expected.digest:
        raise AdapterError("reloaded adapter", adapter.schema.digest[:12], f"schema {expected.digest[:12]}")
    attached.write(SHARED, adapter.vector)
    wanted = np.load(folder / _LOGITS)
    difference = float(np.abs(_probed(attached.model, pool) - wanted).max())
    if not difference <= EQUAL * max(1.0, float(np.abs(wanted).max())):
        raise AdapterError("reloaded adapter", f"logits that differ by {difference:.2g}", "equal ones")
    return {"reload_error": difference}


def reference(trial: Trial, pool: Pool, shares: list[float]) -> dict[str, Any]:
    """Score the base alone, or under a head that is trained alone where there is a head."""
    forward(pool)
    _, peak = peak_mb(lambda: forward(pool))
    infer = timed(pool.task.base.model, pool)
    attached = trial.attach(pool)
    start, head = attached.read(SHARED), attached.schemas[SHARED].size
    sizes = {}
    for share in shares:
        attached.write(SHARED, start)
        if head:
            trial.fit(attached, pool, share)
        sizes[str(share)] = _scored(attached, pool, share, trial.seed).model_dump(mode="json")
    return {
        "what": "the base under a head trained alone" if head else "the frozen base",
        "parameters": pool.task.base.parameters,
        "trainable": head,
        "infer_ms": infer,
        "peak_mb": peak,
        "sizes": sizes,
    }


def forward(pool: Pool) -> None:
    """Run one training batch through the bare base."""
    batch = next(iter(pool.task.batches(pool.train, np.arange(min(8, len(pool.train))), 8)))
    with torch.no_grad():
        pool.task.predict(pool.task.base.model, batch)


def held_mb(pool: Pool) -> float:
    """Return the bytes of the bare base's weights as they are held, in MB: packed ones as packed."""
    held: list[Tensor] = []
    for parameter in pool.task.base.model.parameters():
        held.append(parameter)
        packed = getattr(parameter, "quant_state", None)
        if packed is not None:
            held.append(packed.absmax)
    return sum(t.numel() * t.element_size() for t in held) / 1e6


def timed(model: nn.Module, pool: Pool) -> float:
    """Return the median processor time of the longest test text, alone, in milliseconds."""
    (batch,) = pool.task.batches(pool.test, pool.task.order(pool.test)[:1], 1)
    run: Callable[[], Any] = lambda: pool.task.predict(model, batch)  # noqa: E731
    seconds = []
    with torch.no_grad():
        for _ in range(_WARM + _TIMED):
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
    return 1e3 * median(seconds[_WARM:])


def _probed(model: nn.Module, pool: Pool) -> np.ndarray:
    return probe(model, pool.task, pool.test)


def _scored(attached: Attached, pool: Pool, share: float, seed: int) -> Score:
    attached.activate(SHARED)
    found = score(attached.model, pool.task, pool.test)
    return Score(
        examples=len(pool.share(share, seed)),
        quality=found[pool.metric],
        loss=found["loss"],
        perplexity=found["perplexity"],
    )


def _divided(adapter: Adapter) -> tuple[Adapter, dict[str, np.ndarray]]:
    """Take a classifier's head out of an adapter: it is the model's own, and merged by being written."""
    tensors = adapter.tensors()
    prefix = "base_model.model."
    head = {n: t for n, t in tensors.items() if n.removeprefix(prefix).split(".", 1)[0] in HEADS}
    body = {n: t for n, t in tensors.items() if n not in head}
    schema = Schema.of({n: t.shape for n, t in body.items()})
    config = {**adapter.config, "modules_to_save": None}
    rest = Adapter(schema, schema.flatten(body), config, adapter.base)
    return rest, {n.removeprefix(prefix): t for n, t in head.items()}
