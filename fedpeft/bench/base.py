"""How well the builtin base predicts what it has never seen: the 64 clients' test text."""

from __future__ import annotations

from collections import Counter
from math import exp, log

from fedpeft.base import Base, load_base
from fedpeft.bench.result import Result
from fedpeft.data import Client, load_federation
from fedpeft.data.windows import IGNORED, Windows, windows
from fedpeft.methods import Attached, parse_method
from fedpeft.training import Tally, evaluate
from fedpeft.training.keystrokes import Keystrokes

WINDOW = 128


def run(full: bool) -> Result:
    """Score the builtin base; ``full`` takes all 64 clients instead of 16."""
    base = load_base("keyboard")
    texts = client_windows(base, "test", None if full else 16)
    pieces = Counter(
        int(piece)
        for own in client_windows(base, "train", None if full else 16)
        for piece in own.labels[own.labels != IGNORED]
    )
    total = sum(pieces.values())
    losses = [
        -log((pieces[int(piece)] + 1) / (total + len(base.tokenizer)))
        for own in texts
        for piece in own.labels[:, 1:][own.labels[:, 1:] != IGNORED]
    ]
    ours, unigram = score(base, texts), exp(sum(losses) / len(losses))
    figures = {**ours, "parameters": base.parameters, "perplexity_ratio": unigram / ours["perplexity"]}
    return Result(figures, {"name": "unigram model of the clients' own train text", "perplexity": unigram})


def score(base: Base, texts: list[Windows]) -> dict[str, float]:
    """Return the bare base's metrics, pooled over clients."""
    method = parse_method({"name": "lora", "rank": 1})
    attached = Attached(base, method, method, seed=0)
    attached.activate()
    keystrokes = Keystrokes(base.tokenizer, int(base.model.config.vocab_size))
    tally = Tally()
    for own in texts:
        tally += evaluate(attached, own, keystrokes)
    return tally.metrics()


def client_windows(base: Base, part: str, count: int | None) -> list[Windows]:
    """Return one split of the first ``count`` keyboard clients, or of all."""
    federation = load_federation("keyboard")
    return [
        windows(getattr(Client.of(federation, client).split, part), base.tokenizer, WINDOW)
        for client in list(federation.client_ids())[:count]
    ]
