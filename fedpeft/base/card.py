"""The model card of a pretrained base: how it was made, how well it does, what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedpeft.base.fingerprint import fingerprint
from fedpeft.base.pretrain import PretrainConfig, Progress, describe
from fedpeft.files import write_whole

_CARD = """\
# keyboard

A small causal language model of chat, the frozen base that fedpeft ships so that a newcomer has a result in minutes
without a download. Production mobile keyboards use language models of this size.

| | |
| --- | --- |
| architecture | Llama, {hidden} wide, {layers} layers, {heads} heads, byte-level BPE with {vocabulary} pieces |
| data | public split of `chitchat-dataset` 0.9.0 (MIT): conversations in which no keyboard client took part |
| made by | `fedpeft pretrain --out DIR --seed {seed}` ({epochs} epochs of {batch} × {length}, AdamW, cosine) |
| machine | {machine} |
| public perplexity after each epoch | {history} |
| **perplexity on the 64 clients' test text** | **{perplexity:.1f}** per piece, top-1 {top1:.1%}, top-3 {top3:.1%} |
| fingerprint | `{fingerprint}` |

## Format
`<s>` begins a window; a message is `<me>` or `<you>`, its pieces, and `</s>`. Every word begins with its space.

## What it cannot do
It knows small talk of some 1,150 English-speaking people, mostly students, in 2018–2020, and little else. It states no
facts, follows no instructions, reasons about nothing, and repeats the names, tastes and prejudices of its authors.
Its text is casual and may be rude; it was not filtered. Use it to try methods, not to speak to people.
"""


def write_card(
    out: Path, config: PretrainConfig, history: Sequence[Progress], figures: Mapping[str, float], machine: str
) -> None:
    """Write ``README.md`` and ``pretrain.json`` beside the weights.

    Parameters
    ----------
    out : Path
        The base's folder.
    config : PretrainConfig
    history : sequence of Progress
        One entry per epoch.
    figures : mapping
        Metrics on the clients' test text.
    machine : str
        Where it was trained.
    """
    identity = fingerprint(out)
    perplexities = ", ".join(f"{p.public_perplexity:.1f}" for p in history)
    text = _CARD.format(**{**describe(config), **figures}, history=perplexities, fingerprint=identity, machine=machine)
    write_whole(out / "README.md", text)
    record = {"config": describe(config), "clients_test": dict(figures), "machine": machine, "fingerprint": identity}
    write_whole(out / "pretrain.json", json.dumps(record, indent=2) + "\n")
