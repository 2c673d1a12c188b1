"""A student with a teacher learns what the teacher would have said, and nothing else of it changes."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedpeft.base.locate import locate
from fedpeft.errors import ScenarioError
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.training import Training, train
from fedpeft.training.config import Distillation
from fedpeft.training.objective import divergence
from fedpeft.training.teacher import Teacher

BASE_ALONE = Distillation(weight=1.0, temperature=1.0)


def batch_of(task, text):
    (batch,) = task.batches(text, np.arange(len(text)), len(text))
    return batch


def distance(attached, task, text) -> float:
    """Return the divergence of the shared adapter's predictions from the bare base's, without our own code for it."""
    with torch.no_grad():
        said, _ = task.predict(attached.model, batch_of(task, text))
        attached.activate()
        wanted, _ = task.predict(attached.model, batch_of(task, text))
        attached.activate(SHARED)
    p, q = (torch.distributions.Categorical(logits=z.double()) for z in (wanted, said))
    return float(torch.distributions.kl_divergence(p, q).mean())


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_divergence_is_torchs_own_of_the_softened_distributions(temperature):
    student, teacher = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0))
    p, q = (torch.distributions.Categorical(logits=z / temperature) for z in (teacher, student))
    expected = temperature**2 * torch.distributions.kl_divergence(p, q).mean()
    torch.testing.assert_close(divergence(student, teacher, temperature), expected)
    assert divergence(teacher, teacher, temperature).abs() < 1e-6


def test_with_the_bare_base_as_its_teacher_a_disturbed_adapter_goes_back_towards_it(attached, perturbed, task, text):
    before = distance(attached, task, text)
    training = Training(steps=15, batch=11, learning_rate=5e-3, distillation=BASE_ALONE)
    train(attached, SHARED, task, text, training, seed=0)
    assert before > 0.1
    assert distance(attached, task, text) < 0.3 * before


def test_the_loss_is_the_stated_mixture(attached, perturbed, task, text, gradients):
    """Gradients are linear in the weight: those of a half are the mean of those of none and of all."""
    alone, half = gradients(), gradients(distillation={"weight": 0.5, "temperature": 2.0})
    taught = gradients(distillation={"weight": 1.0, "temperature": 2.0})
    for name in alone:
        torch.testing.assert_close(half[name], (alone[name] + taught[name]) / 2, atol=1e-6, rtol=1e-4)


def test_what_is_reported_is_the_cross_entropy_on_the_text_whatever_the_teacher(attached, perturbed, task, text):
    with torch.no_grad():
        entropy = float(F.cross_entropy(*task.predict(attached.model, batch_of(task, text))))
    training = Training(steps=1, batch=11, distillation=BASE_ALONE)
    assert train(attached, SHARED, task, text, training, seed=0).loss == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize("slot", [SHARED, PRIVATE])
def test_asking_the_teacher_leaves_the_slots_and_what_is_trained_as_they_were(attached, perturbed, task, text, slot):
    attached.activate(SHARED, PRIVATE)
    own = attached.parameters(slot, lambda name: "lora_B" in name)
    with torch.no_grad():
        before, _ = task.predict(attached.model, batch_of(task, text))
    Teacher(BASE_ALONE, task).logits(attached, batch_of(task, text))
    assert attached.active == (SHARED, PRIVATE)
    assert {id(p) for p in attached.model.parameters() if p.requires_grad} == {id(p) for p in own}
    with torch.no_grad():
        assert torch.equal(task.predict(attached.model, batch_of(task, text))[0], before)


def test_a_base_by_name_teaches_what_the_bare_base_does(attached, perturbed, task, text):
    batch = batch_of(task, text)
    frozen, named = Teacher(BASE_ALONE, task), Teacher(Distillation(teacher="keyboard"), task)
    assert torch.equal(named.logits(attached, batch), frozen.logits(attached, batch))
    assert Teacher(Distillation(teacher="keyboard"), task)._model is named._model  # read once a process


def test_a_teacher_with_other_pieces_is_refused(attached, task, tmp_path):
    folder = shutil.copytree(locate("keyboard"), tmp_path / "other")
    whole = json.loads((folder / "tokenizer.json").read_text())
    pieces = whole["model"]["vocab"]
    pieces["a"], pieces["b"] = pieces["b"], pieces["a"]
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(ScenarioError) as refused:
        Teacher(Distillation(teacher=str(folder)), task)
    assert str(refused.value) == (
        f"training.distillation.teacher: found {str(folder)!r}, expected a base with the pieces of keyboard"
    )


def test_a_teacher_must_not_see_the_embeddings_that_an_adversary_disturbed(attached, perturbed, task, text):
    """The bare base shares its embedding with the student: it is asked before anything is hooked."""
    embedding = attached.model.get_input_embeddings()
    before = set(embedding._forward_hooks)
    asked = []
    teacher_logits = Teacher.logits

    def count(self, student, batch):
        asked.append(set(embedding._forward_hooks) - before)
        return teacher_logits(self, student, batch)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Teacher, "logits", count)
        both = {"distillation": BASE_ALONE, "adversarial": {"kind": "pgd", "steps": 2}}
        train(attached, SHARED, task, text, Training(steps=2, batch=4, **both), seed=0)
    assert asked == [set(), set()]
