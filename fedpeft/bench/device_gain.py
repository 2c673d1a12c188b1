"""How much of what an adapter learnt is left on a quantized base, on text its person wrote and nobody trained on.

    gain = loss(base) - loss(base with adapter),      kept = gain on the quantized base / gain in float32

Both losses of a gain are of the same base: what the base itself loses by quantization is not the adapter's. The adapter
is trained as long as it gains: one that has overfitted leaves a small difference of large changes, and less is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fedpeft.base import Base, load_base
from fedpeft.data import load_federation
from fedpeft.data.windows import IGNORED, Windows
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.runtime import Runtime
from fedpeft.device.sampling import softmax
from fedpeft.export import ExportOptions, export_adapter, export_base
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
    """Return the share of the gain that is kept, by precision, and the gain in float32 under ``float32``."""
    exact = gain(Runtime(person.folder.with_name("float32")), person)
    kept = {"float32": exact}
    for precision in precisions:
        folder = person.folder.with_name(precision)
        export_base(person.base, folder, key=_KEY, options=ExportOptions(precision=precision))  # type: ignore[arg-type]
        kept[precision] = gain(Runtime(folder), person) / exact
    return kept


def gain(runtime: Runtime, person: Person) -> float:
    """Return by how many nats per token the adapter predicts its person's text better than the bare base."""
    adapter = runtime.load(person.folder)
    return loss(runtime, None, person.test) - loss(runtime, adapter, person.test)


def loss(runtime: Runtime, adapter: LoadedAdapter | None, text: Windows) -> float:
    """Return the mean cross-entropy of a person's words, nats per token."""
    spent: list[float] = []
    for ids, labels in zip(text.ids, text.labels, strict=True):
        asked = np.flatnonzero(labels[1:] != IGNORED)
        if len(asked):
            chances = softmax(runtime.logits(ids[: asked[-1] + 1].tolist(), adapter))
            spent += (-np.log(chances[asked, labels[asked + 1]])).tolist()
    return float(np.mean(spent))


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
