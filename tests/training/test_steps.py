"""A step in parts is the step in one piece, also after memory ran out; rates, noise and stopping do what they say."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers.integrations.neftune import neftune_post_forward_hook

from fedpeft.errors import FedpeftError
from fedpeft.methods.attached import SHARED
from fedpeft.training import Training, train
from fedpeft.training.evaluate import mean_loss
from fedpeft.training.objective import Objective
from fedpeft.training.steps import Steps


@pytest.mark.parametrize("micro", [1, 3, 10])
def test_a_batch_in_parts_has_the_gradient_of_the_batch_in_one(attached, perturbed, gradients, micro):
    whole, parts = gradients(), gradients(micro_batch=micro)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-6, rtol=1e-4)


def test_the_loss_that_is_reported_is_the_whole_batchs(attached, perturbed, task, text):
    one, many = (
        train(attached, SHARED, task, text, Training(steps=1, batch=11, micro_batch=micro), seed=0).loss
        for micro in (None, 2)
    )
    attached.write(SHARED, perturbed)
    assert one == pytest.approx(mean_loss(attached, task, text), rel=1e-5)
    attached.write(SHARED, perturbed)
    again = train(attached, SHARED, task, text, Training(steps=1, batch=11, micro_batch=2), seed=0)
    assert (again.loss, again.micro) == (pytest.approx(one, rel=1e-5), 2)
    assert many < one  # the first of the two had trained


class Scarce:
    """An objective on a machine that has memory for so many examples at once."""

    def __init__(self, objective: Objective, room: int) -> None:
        self._objective, self._room, self.seen = objective, room, []

    def backward(self, batch, share: float) -> float:
        entropy = self._objective.backward(batch, share)
        self.seen.append(len(batch.ids))
        if len(batch.ids) > self._room:  # after gradients were added: they must be forgotten
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")
        return entropy


def test_when_memory_runs_out_parts_are_halved_and_the_step_is_what_it_would_have_been(attached, perturbed, task, text):
    parameters = attached.parameters(SHARED)

    def forget() -> None:
        for parameter in parameters:
            parameter.grad = None

    (batch,) = task.batches(text, np.arange(11), 11)
    training = Training(steps=1, batch=11, noise=5.0)
    scarce = Scarce(Objective(attached, SHARED, task, training), room=3)
    found = []
    for objective, micro in ((scarce, 11), (Objective(attached, SHARED, task, training), 3)):
        forget()
        torch.manual_seed(5)
        steps = Steps(objective, task, training.model_copy(update={"micro_batch": micro}), forget)
        entropy, count = steps.backward(batch)
        found.append((entropy, count, steps.micro, [p.grad.clone() for p in parameters]))
    assert scarce.seen == [11, 6, 3, 3, 3, 2]
    (*ours, gradients), (*theirs, expected) = found
    assert ours == theirs == [ours[0], text.tokens, 3]
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
    with pytest.raises(FedpeftError, match="memory: found 'none left', expected enough for one example at a time"):
        Steps(Scarce(scarce._objective, 0), task, training, forget).backward(batch)
    assert all(p.grad is None for p in parameters)
    with pytest.raises(RuntimeError, match="shape"):
        Steps(Wrong(), task, training, forget).backward(batch)


class Wrong:
    """An objective with a mistake that has nothing to do with memory."""

    def backward(self, batch, share: float) -> float:
        raise RuntimeError("shape '[3]' is invalid")


REAL = """
import resource
import torch
from fedpeft.training.steps import out_of_memory
torch.ones(10) @ torch.ones(10)
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    torch.ones(4 << 30)
except RuntimeError as error:
    print(out_of_memory(error), out_of_memory(RuntimeError("no")))
"""


def test_torchs_own_complaint_is_recognized():
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True False", done.stderr


def test_noise_is_neftunes(attached, task, text):
    embedding = attached.model.get_input_embeddings()
    (batch,) = task.batches(text, np.arange(4), 4)
    clean = embedding(batch.ids)
    objective = Objective(attached, SHARED, task, Training(steps=1, noise=5.0))
    torch.manual_seed(3)
    with objective._embedding.noisy(clean.shape, 5.0):
        ours = embedding(batch.ids)
    embedding.neftune_noise_alpha = 5.0
    torch.manual_seed(3)
    theirs = neftune_post_forward_hook(embedding.train(), (batch.ids,), clean.clone())
    del embedding.neftune_noise_alpha
    embedding.eval()
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(ours, clean)
    assert torch.equal(embedding(batch.ids), clean)


def test_under_lora_plus_b_moves_so_many_times_as_far_in_its_first_step(attached, perturbed, task, text):
    moved = []
    for factor in (1.0, 16.0):
        attached.write(SHARED, perturbed)
        train(attached, SHARED, task, text, Training(steps=1, batch=11, learning_rate=1e-5, lora_plus=factor), seed=0)
        moved.append(attached.schemas[SHARED].unflatten(attached.read(SHARED) - perturbed))
    for name, step in moved[0].items():
        expected = (16 if "lora_B" in name else 1) * step
        assert np.abs(moved[1][name] - expected).max() < 1e-6, name


def test_it_stops_when_validation_text_gets_no_easier_and_keeps_what_was_best(attached, perturbed, task, text):
    training = Training(steps=200, batch=4, learning_rate=2e-2, patience=2)
    few, other = text.head(4), type(text)(text.ids[4:], text.labels[4:])
    before = mean_loss(attached, task, other)
    done = train(attached, SHARED, task, few, training, seed=0, validation=other)
    assert 2 <= done.steps < 50
    best = mean_loss(attached, task, other)
    assert best <= before
    attached.write(SHARED, perturbed)
    train(attached, SHARED, task, few, training.model_copy(update={"patience": None}), seed=0, validation=other)
    assert mean_loss(attached, task, other) > best
