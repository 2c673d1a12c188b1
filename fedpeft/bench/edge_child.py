"""One way to fine-tune, in a process of its own, so that its peak of memory is its own: called by the benchmark.

Reads a :class:`Way` as JSON from standard input and prints one JSON object. Memory counts from when all libraries are
imported; times are the processor's.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from fedpeft.base import load_base
from fedpeft.base.heap import give_back
from fedpeft.base.locate import locate
from fedpeft.compare.peak import Private, peak_mb
from fedpeft.data import Client, load_federation
from fedpeft.data.federation import Federation
from fedpeft.data.windows import IGNORED, Windows, windows
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training, train
from fedpeft.training.evaluate import mean_loss
from fedpeft.training.footprint import Held, Rehearsal

_METHOD = Lora(rank=8, alpha=16.0)


@dataclass(frozen=True)
class Way:
    """How to fine-tune.

    Parameters
    ----------
    name : str
    base : str
    method : {"full", "lora"}
        ``full`` is plain PyTorch: the model, AdamW, nothing of ours.
    dtype, precision : str
        As of a base.
    thrift : dict
        Further fields of ``[training]``.
    steps : int
        Optimizer steps after one to warm up.
    batch, length : int
        Windows, and tokens of each.
    scored : int
        Windows of text that was not trained on, scored at the end; 0 for none.
    """

    name: str
    base: str
    method: str = "lora"
    dtype: str = "float32"
    precision: str = "full"
    thrift: tuple[tuple[str, Any], ...] = ()
    steps: int = 1
    batch: int = 4
    length: int = 128
    scored: int = 0

    def to_json(self) -> str:
        """Return what the child reads."""
        return json.dumps(asdict(self))


def measure(way: Way) -> dict[str, Any]:
    """Fine-tune and return ``peak_mb``, ``private_mb``, ``step_s`` of processor time, ``loss`` and ``score`` (nats)."""
    torch.set_num_threads(1)
    # As the trainer does where memory is limited; the rival gets it as well.
    give_back()
    federation = load_federation("keyboard")
    text, held = _texts(way, federation)
    # What the libraries allocate with their first step is theirs, not the model's.
    torch.ones(8, 8, requires_grad=True).sum().backward()
    work = _full if way.method == "full" else _lora
    with Private() as private:
        result, peak = peak_mb(lambda: work(way, federation, text, held))
    return {"name": way.name, "peak_mb": peak, "private_mb": private.mb, **result}


def predicted_mb(way: Way) -> float:
    """Return what the memory plan says that :func:`measure` will find as ``peak_mb``, without doing the work."""
    federation = load_federation("keyboard")
    text, _ = _texts(way, federation)
    task = NextWord(load_base(way.base, "bfloat16"), federation, way.length)
    method = parse_method({"name": "full"}) if way.method == "full" else _METHOD
    rehearsal = Rehearsal(task, Held(way.dtype, way.precision), method)
    (batch,) = task.batches(text.head(way.batch), np.arange(way.batch), way.batch)
    return rehearsal.footprint(Training(steps=1, batch=way.batch, **dict(way.thrift)), SHARED, batch).growth / 1e6


def _texts(way: Way, federation: Federation) -> tuple[Windows, Windows]:
    """Return what is trained on and what is scored."""
    tokenizer = AutoTokenizer.from_pretrained(locate(way.base))
    split = Client.of(federation, "user-05").split
    text = _fullest(windows(split.train, tokenizer, way.length), way)
    return text, windows(split.test, tokenizer, way.length).head(way.scored)


def _lora(way: Way, federation: Federation, text: Windows, held: Windows) -> dict[str, Any]:
    base = load_base(way.base, way.dtype, precision=way.precision)
    attached = Attached(base, _METHOD, None, seed=0)
    task = NextWord(base, federation, way.length)
    settings = {"batch": way.batch, "learning_rate": 1e-3, **dict(way.thrift)}
    train(attached, SHARED, task, text, Training(steps=1, **settings), seed=0)
    start = time.process_time()
    trained = train(attached, SHARED, task, text, Training(steps=way.steps, **settings), seed=1)
    seconds = (time.process_time() - start) / way.steps
    score = mean_loss(attached, task, held) if way.scored else None
    return {"step_s": seconds, "loss": trained.loss, "score": score, "micro": trained.micro}


def _full(way: Way, federation: Federation, text: Windows, _: Windows) -> dict[str, Any]:
    base = load_base(way.base, way.dtype)
    model = base.model.train().requires_grad_(True)
    task = NextWord(base, federation, way.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    losses: list[float] = []
    start = time.process_time()
    for step in range(way.steps + 1):
        if step == 1:
            start = time.process_time()
        batch = next(task.batches(text, np.arange(way.batch), way.batch))
        loss = model(input_ids=batch.ids, labels=batch.labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    return {"step_s": (time.process_time() - start) / way.steps, "loss": losses[-1], "score": None}


def _fullest(made: Windows, way: Way) -> Windows:
    """Return the windows with most to predict: one batch, or 64 where quality is scored."""
    order = np.argsort(-(made.labels != IGNORED).sum(axis=1), kind="stable")
    return Windows(made.ids[order], made.labels[order]).head(64 if way.scored else way.batch)


if __name__ == "__main__":
    told = json.loads(sys.stdin.read())
    told["thrift"] = tuple((key, value) for key, value in told["thrift"])
    print(json.dumps(measure(Way(**told))))
