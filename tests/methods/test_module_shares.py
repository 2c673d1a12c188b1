"""A share of a change of one of our own methods: nothing, half, and all of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedpeft.methods.adapter_lora import AdapterLora
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.compacter import Compacter
from fedpeft.methods.expert_mixture import ExpertMixture
from fedpeft.methods.houlsby import Houlsby
from fedpeft.methods.parallel_adapter import ParallelAdapter
from fedpeft.methods.pfeiffer import Pfeiffer
from fedpeft.methods.shared_lora import SharedLora
from tests.methods.modules import (
    METHODS,
    M,
    attached,
    logits,
    made,
    noisy,
)


@METHODS
def test_a_share_of_a_change_begins_with_nothing_and_ends_with_all_of_it(method, size):
    own = attached("llama", method)
    slot = PRIVATE if PRIVATE in own.slots else SHARED
    bare = own.initial[slot]
    trained = noisy(own, slot, 0.005)
    own.activate(slot)
    answers = {}
    for share in (0.0, 0.5, 1.0):
        own.write(slot, own.share(slot, bare, trained, share))
        answers[share] = logits(own.model, "llama")
    assert torch.allclose(answers[0.0], logits(made("llama"), "llama"), atol=1e-6)
    own.write(slot, trained)
    assert torch.allclose(answers[1.0], logits(own.model, "llama"), atol=1e-5)
    moved = [(answers[s] - answers[0.0]).norm() for s in (0.5, 1.0)]
    assert 0.35 < moved[0] / moved[1] < 0.7


@pytest.mark.parametrize(
    "method",
    [Houlsby(), Pfeiffer(), ParallelAdapter(), Compacter(), ExpertMixture(), SharedLora(), AdapterLora()],
    ids=lambda m: m.name,
)
def test_half_a_share_is_half_of_what_every_place_adds(method):
    own = attached("llama", method)
    trained = noisy(own, PRIVATE)
    own.write(PRIVATE, trained)
    whole = own.changes(PRIVATE)
    own.write(PRIVATE, own.share(PRIVATE, own.initial[PRIVATE], trained, 0.5))
    for name, change in own.changes(PRIVATE).items():
        torch.testing.assert_close(change, 0.5 * whole[name], atol=1e-6, rtol=1e-5)


def test_fine_tuning_a_shared_adapter_interpolates_all_of_it():
    """Where the outer factor is not zero at the start, the inner one's change has to be shared too."""
    own = attached("llama", Pfeiffer(size=M))
    start, trained = noisy(own), noisy(own, deviation=0.1)
    assert np.array_equal(own.share(SHARED, start, trained, 0.0), start)
    assert np.allclose(own.share(SHARED, start, trained, 0.5), (start + trained) / 2, atol=1e-6)
