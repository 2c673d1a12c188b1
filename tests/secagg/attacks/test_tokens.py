r"""What masks are for: from one client's plain update a server reads the words, from the sum it cannot.

The gradient of a low-rank factor B of the first layer, for the tokens x_1 … x_T of a text, is a sum of outer products

    ∂L/∂B = Σ_t δ_t (A n(e_{x_t}))ᵀ,        n: the layer's norm, e: the embeddings, A: known, from the seed

so as long as T is below the rank r, its rows span exactly the A n(e) of the tokens that were read, and whoever has the
gradient asks of each word of the vocabulary whether it lies in that span. A sum over clients spans what all of them read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model

from fedpeft.base import load_base
from fedpeft.codecs import RingCodec
from fedpeft.secagg import Asked, PlainEnd
from fedpeft.secagg.pairwise.packing import unpack
from fedpeft.secagg.pairwise.rehearsal import Rehearsal

RANK, RANGE = 16, 1e-3
TEXTS = {
    "ada": "see you at the gym tonight",
    "bo": "my mother is ill again",
    "cy": "the code is four two seven nine",
    "dee": "did the doctor call you back",
    "eve": "we broke up last week",
}
RING = RingCodec(16, RANGE, len(TEXTS))


@dataclass(frozen=True)
class Reading:
    """Which tokens an attacker says were read.

    Parameters
    ----------
    said, true : set of int
    vocabulary : int
    """

    said: set[int]
    true: set[int]
    vocabulary: int

    @property
    def recall(self) -> float:
        """Share of the tokens read that were said."""
        return len(self.said & self.true) / len(self.true)

    @property
    def precision(self) -> float:
        """Share of the tokens said that were read."""
        return len(self.said & self.true) / max(1, len(self.said))

    @property
    def guessing(self) -> float:
        """Precision of whoever says every token."""
        return len(self.true) / self.vocabulary


class Victims:
    """Clients that take one gradient step each on the factor B of the keyboard base's first value projection."""

    def __init__(self, rank: int) -> None:
        base = load_base("keyboard", "float32")
        torch.manual_seed(0)
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=["v_proj"], layers_to_transform=[0], task_type="CAUSAL_LM"
        )
        self.model = get_peft_model(base.model, config)
        layer = self.model.base_model.model.model.layers[0]
        self._factor = layer.self_attn.v_proj.lora_B["default"].weight
        normed = layer.input_layernorm(self.model.get_input_embeddings().weight).detach()
        self.features = (normed @ layer.self_attn.v_proj.lora_A["default"].weight.detach().T).double().numpy()
        self.tokens = {who: base.tokenizer(text)["input_ids"] for who, text in TEXTS.items()}
        self.rank = rank

    def payload(self, who: str) -> NDArray[np.unsignedinteger]:
        """Return a client's integers, as any channel is given them."""
        ids = torch.tensor([self.tokens[who]])
        self.model.zero_grad()
        self.model(input_ids=ids, labels=ids).loss.backward()
        gradient = self._factor.grad.numpy().ravel()
        step = -0.9 * RANGE / np.abs(gradient).max() * gradient
        return RING.encode(step, np.random.default_rng(0))

    def attack(self, integers: NDArray[np.uint64], whose: Sequence[str]) -> Reading:
        """Ask of every token whether it lies in the span of what was sent."""
        update = RING.decode(integers, len(whose)).reshape(-1, self.rank).astype(np.float64)
        _, values, rows = np.linalg.svd(update, full_matrices=False)
        # Rounding leaves noise of half a step and less in every coordinate; a direction must stand out of it.
        noise = RING.step * np.sqrt(len(update) * len(whose))
        span = rows[values > noise]
        outside = self.features - self.features @ span.T @ span
        far = np.linalg.norm(outside, axis=1) / np.linalg.norm(self.features, axis=1)
        read = {token for who in whose for token in self.tokens[who][:-1]}  # of the last nothing is predicted
        return Reading(set(np.flatnonzero(far < 0.02).tolist()), read, len(self.features))


@pytest.fixture(scope="module")
def victims() -> Victims:
    return Victims(RANK)


@pytest.fixture(scope="module")
def payloads(victims: Victims) -> dict[str, NDArray[np.unsignedinteger]]:
    return {who: victims.payload(who) for who in TEXTS}


def show(what: str, reading: Reading) -> None:
    print(f"{what}: precision {reading.precision:.3f}, recall {reading.recall:.3f}, guessing {reading.guessing:.3f}")


@pytest.mark.parametrize("who", TEXTS)
def test_from_one_plain_update_every_word_is_read_and_no_other(
    who: str, victims: Victims, payloads: dict[str, NDArray[np.unsignedinteger]]
) -> None:
    sent = PlainEnd().protect(Asked(1, "train", "plan", tuple(TEXTS)), payloads[who])
    reading = victims.attack(np.frombuffer(sent, np.uint16).astype(np.uint64), [who])
    show(f"{who}'s plain update", reading)
    assert len(reading.true) >= 5
    assert (reading.precision, reading.recall) == (1.0, 1.0)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_from_the_sum_of_three_and_more_nothing_is_read(
    count: int, victims: Victims, payloads: dict[str, NDArray[np.unsignedinteger]]
) -> None:
    """Together they read more words than the rank, so every word of the vocabulary lies in the span."""
    whose = list(TEXTS)[:count]
    total = np.sum([payloads[who] for who in whose], axis=0, dtype=np.uint64)
    reading = victims.attack(total, whose)
    show(f"the sum of {count}", reading)
    assert len(reading.said) == reading.vocabulary
    assert reading.precision == reading.guessing < 0.02


def test_from_a_masked_contribution_nothing_is_read_and_from_the_opened_sum_neither(
    victims: Victims, payloads: dict[str, NDArray[np.unsignedinteger]]
) -> None:
    """What the server really sees: five contributions, and what they open to."""
    names = list(TEXTS)
    run = Rehearsal.of(names, len(payloads["ada"]))
    collected = run.contributed(1, payloads)
    for i, who in enumerate(names):
        seen = unpack(collected._taken[i].vector, len(payloads[who]), 16)
        reading = victims.attack(seen.astype(np.uint64), [who])
        show(f"{who}'s masked contribution", reading)
        assert len(reading.said) in (0, reading.vocabulary)
        assert reading.precision in (0.0, reading.guessing)
    run.finish(collected)
    total, contributors = collected.sum()
    assert contributors == tuple(sorted(names))
    assert np.array_equal(total, np.sum(list(payloads.values()), axis=0, dtype=np.uint64))
    reading = victims.attack(total, names)
    show("the opened sum", reading)
    assert reading.precision == reading.guessing


def test_a_rank_above_all_their_words_shows_the_words_in_the_sum_but_not_whose_they_are() -> None:
    """What remains: secure aggregation hides who, not what. Few, short texts and a high rank are the server's luck."""
    wide = Victims(64)
    ring_payloads = {who: wide.payload(who) for who in TEXTS}
    names = list(TEXTS)
    reading = wide.attack(np.sum(list(ring_payloads.values()), axis=0, dtype=np.uint64), names)
    show("the sum of 5 at rank 64", reading)
    assert (reading.precision, reading.recall) == (1.0, 1.0)
    run = Rehearsal.of(names, len(ring_payloads["ada"]))
    collected = run.contributed(1, ring_payloads)
    masked = unpack(collected._taken[0].vector, len(ring_payloads["ada"]), 16)
    assert wide.attack(masked.astype(np.uint64), ["ada"]).precision < 0.02


def test_the_security_page_shows_these_numbers(
    victims: Victims, payloads: dict[str, NDArray[np.unsignedinteger]], repository: Path
) -> None:
    page = (repository / "docs" / "security.md").read_text()
    names = list(TEXTS)
    one = victims.attack(payloads["ada"].astype(np.uint64), ["ada"])
    sums = [
        victims.attack(np.sum([payloads[who] for who in names[:n]], axis=0, dtype=np.uint64), names[:n])
        for n in (3, 4, 5)
    ]
    assert f"*{TEXTS['ada']}*" in page
    assert f"(rank {RANK})" in page
    assert f"the {one.vocabulary:,} pieces" in page.replace("\n", " ")
    assert f"| {one.guessing:.1%}: all are named |".replace("%", " %") in page
    assert f"| {', '.join(f'{100 * s.precision:.1f}' for s in sums)} %: all are named |" in page
