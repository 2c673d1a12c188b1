"""How well the builtin base predicts what it has never seen: the 64 clients' test text."""

from __future__ import annotations

from collections import Counter
from math import exp, log

from fedpeft.base import load_base
from fedpeft.bench.result import Result
from fedpeft.data import load_federation
from fedpeft.data.windows import IGNORED, Windows
from fedpeft.methods import Attached, parse_method
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Tally, evaluate

WINDOW = 128


def run(full: bool) -> Result:
    """Score the builtin base; ``full`` takes all 64 clients instead of 16."""
    task = NextWord(load_base("keyboard"), load_federation("keyboard"), WINDOW)
    splits = [task.splits(client) for client in list(task.client_ids())[: None if full else 16]]
    texts = [own.test for own in splits]
    pieces = Counter(int(piece) for own in splits for piece in own.train.labels[own.train.labels != IGNORED])
    total = sum(pieces.values())
    losses = [
        -log((pieces[int(piece)] + 1) / (total + len(task.base.tokenizer)))
        for own in texts
        for piece in own.labels[:, 1:][own.labels[:, 1:] != IGNORED]
    ]
    ours, unigram = score(task, texts), exp(sum(losses) / len(losses))
    figures = {**ours, "parameters": task.base.parameters, "perplexity_ratio": unigram / ours["perplexity"]}
    return Result(figures, {"name": "unigram model of the clients' own train text", "perplexity": unigram})


def score(task: NextWord, texts: list[Windows]) -> dict[str, float]:
    """Return the bare base's metrics, pooled over clients."""
    attached = Attached(task.base, parse_method({"name": "lora", "rank": 1}), None, seed=0)
    attached.activate()
    tally = Tally()
    for own in texts:
        tally += evaluate(attached, task, own)
    return tally.metrics()
