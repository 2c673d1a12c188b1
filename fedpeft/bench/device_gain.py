"""Somebody's adapter that was really trained: how much of its gain quantization leaves, and whether torch agrees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fedpeft.base import Base, load_base
from fedpeft.data import load_federation
from fedpeft.data.windows import Windows
from fedpeft.device.runtime import Runtime
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.export.gain import Gain, graph_gain
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.signing.signature import SigningKey
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training, train

WINDOW = 64
_KEY = SigningKey.from_private_bytes(bytes(32))


@dataclass(frozen=True)
class Person:
    """Somebody with an adapter that was really trained.

    Parameters
    ----------
    base : Base
    attached : Attached
        Torch's own model, with the adapter active.
    folder : Path
        The adapter's bundle; its base bundle in float32 lies beside it as ``float32``.
    test : Windows
        Their latest messages, not trained on.
    """

    base: Base
    attached: Attached
    folder: Path
    test: Windows


def train_person(folder: Path, steps: int = 40) -> Person:
    """Train a LoRA of rank 8 on the messages of one of the first clients, who wrote much, and export it."""
    base = load_base("keyboard", "float32")
    task = NextWord(base, load_federation("keyboard"), WINDOW)
    splits = max((task.splits(client) for client in list(task.client_ids())[:4]), key=lambda own: len(own.train))
    attached = Attached(base, Lora(rank=8), None, seed=0)
    attached.activate(SHARED)
    train(attached, SHARED, task, splits.train, Training(steps=steps, batch=8, learning_rate=3e-3), seed=0)
    manifest = export_base(base, folder / "float32", key=_KEY)
    adapter = attached.adapter(SHARED, attached.read(SHARED))
    export_adapter(adapter, folder / "person", owner="person", base=manifest, key=_KEY)
    return Person(base, attached, folder / "person", splits.test)


def gains_kept(person: Person, precisions: tuple[str, ...] = ("int4", "int8")) -> dict[str, float]:
    """Return the share of the gain that is kept, by precision, and the gain in float32 under ``float32``.

    The adapter is trained as long as it gains.
    """
    exact = gain(person, "float32")
    shares = {"float32": exact.nats}
    for precision in precisions:
        folder = person.folder.with_name(precision)
        export_base(person.base, folder, key=_KEY, options=ExportOptions(precision=precision))  # type: ignore[arg-type]
        shares[precision] = gain(person, precision).nats / exact.nats
    return shares


def gain(person: Person, precision: str) -> Gain:
    """Return what the adapter gains over the base that was exported in a precision."""
    runtime = Runtime(person.folder.with_name(precision))
    return graph_gain(runtime, runtime.load(person.folder), person.test)


def parity(person: Person, tokens: int = 24) -> float:
    """Return the largest difference of logits from torch and peft, in float32.

    Raises
    ------
    RuntimeError
        When greedy tokens differ, or the adapter does not act.
    """
    runtime = Runtime(person.folder.with_name("float32"))
    adapter = runtime.load(person.folder)
    worst = 0.0
    for prompt in person.test.ids[:4]:
        ids = prompt[:12].tolist()
        made = list(runtime.generate(ids, adapter, tokens=tokens, ends=()))
        with torch.inference_mode():
            theirs = person.attached.model(input_ids=torch.tensor([ids + made])).logits[0].float().numpy()
        if theirs[len(ids) - 1 : -1].argmax(-1).tolist() != made:
            raise RuntimeError("greedy tokens differ from torch's")
        ours = runtime.logits(ids + made, adapter)
        if np.abs(ours - runtime.logits(ids + made)).max() < 0.01:
            raise RuntimeError("the adapter does not act")
        worst = max(worst, float(np.abs(ours - theirs).max()))
    return worst
