"""The worst small change of what is read: as large as it may be, never better for the model, and gone afterwards."""

from statistics import fmean

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedpeft.methods.attached import SHARED
from fedpeft.training import Training, train
from fedpeft.training.adversarial import Perturbed
from fedpeft.training.config import Adversarial

SHAPE = torch.Size([3, 5, 4])
KINDS = pytest.mark.parametrize("kind", ["fgm", "pgd"])


class Landscape:
    """A loss over embeddings that are looked up, with their change in view."""

    def __init__(self, seed: int = 0, curved: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Embedding(7, SHAPE[2]).requires_grad_(False)
        self.embedding.weight.copy_(torch.randn(7, SHAPE[2], generator=generator))
        self.ids = torch.randint(0, 7, SHAPE[:2], generator=generator)
        self.slope, self.bend = torch.randn(2, *SHAPE, generator=generator)
        self.curved, self.seen = curved, []

    def loss(self) -> torch.Tensor:
        read = self.embedding(self.ids)
        self.seen.append((read - self.embedding.weight[self.ids]).detach())
        return (self.slope * read).sum() + self.curved * torch.sin(self.bend * read * 3).sum()


def worst(land: Landscape, wanted: Adversarial) -> float:
    perturbed = Perturbed(land.embedding)
    with perturbed.hooked():
        return float(perturbed.worst(land.loss, SHAPE, wanted))


@KINDS
@pytest.mark.parametrize("radius", [0.1, 0.5, 3.0])
def test_on_a_slope_the_worst_change_is_a_step_of_the_radius_straight_up_in_each_example(kind, radius):
    """A closed form: L + ε Σ ||w_i||, reached in one step or in several."""
    land = Landscape()
    clean = float(land.loss())
    found = worst(land, Adversarial(kind=kind, radius=radius, steps=3))
    slopes = land.slope.flatten(1).norm(dim=1)
    assert found == pytest.approx(clean + radius * float(slopes.sum()), rel=1e-5)
    change = land.seen[-1]
    torch.testing.assert_close(change.flatten(1).norm(dim=1), torch.full((3,), radius), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(change, radius * land.slope / slopes[:, None, None], rtol=1e-4, atol=1e-5)


@KINDS
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_change_is_ever_larger_than_the_radius(kind, steps):
    land = Landscape(1, curved=5.0)
    worst(land, Adversarial(kind=kind, radius=0.8, steps=steps))
    assert len(land.seen) == (1 if kind == "fgm" else steps) + 1
    assert all(change.flatten(1).norm(dim=1).max() <= 0.8 * (1 + 1e-4) for change in land.seen)


def test_several_steps_find_a_worse_change_than_one_on_average():
    clean, one, several = [], [], []
    for seed in range(30):
        clean.append(float(Landscape(seed, curved=2.0).loss()))
        one.append(worst(Landscape(seed, curved=2.0), Adversarial(kind="fgm", radius=1.0)))
        several.append(worst(Landscape(seed, curved=2.0), Adversarial(kind="pgd", radius=1.0, steps=10)))
    assert fmean(several) > fmean(one) > fmean(clean)
    assert sum(s >= o for s, o in zip(several, one, strict=True)) > 20


def test_where_nothing_slopes_nothing_is_changed():
    land = Landscape()
    land.slope = torch.zeros(SHAPE)
    assert worst(land, Adversarial(radius=0.5)) == 0.0
    assert not any(change.any() for change in land.seen)


@KINDS
def test_afterwards_the_embedding_gives_what_it_always_gave(kind):
    land = Landscape()
    before = land.embedding(land.ids)
    worst(land, Adversarial(kind=kind))
    assert torch.equal(land.embedding(land.ids), before)
    assert not land.embedding._forward_hooks
    perturbed = Perturbed(land.embedding)
    with pytest.raises(KeyboardInterrupt), perturbed.hooked():
        raise KeyboardInterrupt
    assert not land.embedding._forward_hooks


class TestOnTheModel:
    """What the first layer reads is watched from outside."""

    @pytest.fixture
    def watched(self, attached, task, text, perturbed):
        """Return a function that takes one step and returns, for each pass of it, what was read and the loss."""

        def step(**options) -> list[tuple[torch.Tensor, float]]:
            read, losses = [], []
            predict = task.predict

            def note(model, batch):
                logits, targets = predict(model, batch)
                losses.append(float(F.cross_entropy(logits, targets).detach()))
                return logits, targets

            layer = attached.model.model.layers[0]
            handle = layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].detach().clone()))
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(task, "predict", note)
                training = Training(steps=1, batch=len(text), adversarial=Adversarial(**options))
                train(attached, SHARED, task, text, training, seed=0)
            handle.remove()
            return list(zip(read, losses, strict=True))

        return step

    def test_fgm_disturbs_every_example_by_the_radius_and_raises_the_loss(self, watched, text):
        clean, probe, worst_ = watched(kind="fgm", radius=0.5)
        assert torch.equal(clean[0], probe[0])
        change = (worst_[0] - clean[0]).flatten(1).norm(dim=1)
        torch.testing.assert_close(change, torch.full((len(text),), 0.5), rtol=1e-3, atol=0)
        assert worst_[1] > clean[1]

    def test_pgd_stays_within_the_radius_and_does_not_do_less_than_fgm(self, watched, attached, perturbed, text):
        fgm = watched(kind="fgm", radius=0.5)[-1][1]
        attached.write(SHARED, perturbed)
        passes = watched(kind="pgd", radius=0.5, steps=4)
        assert len(passes) == 6
        for read, _ in passes:
            assert (read - passes[0][0]).flatten(1).norm(dim=1).max() <= 0.5 * (1 + 1e-3)
        assert passes[-1][1] >= fgm > passes[0][1]

    def test_a_larger_radius_is_worse(self, watched, attached, perturbed):
        found = []
        for radius in (0.1, 0.5, 2.0):
            attached.write(SHARED, perturbed)
            found.append(watched(radius=radius)[-1][1])
        assert found == sorted(found)

    def test_the_gradients_are_those_of_the_clean_and_the_disturbed_text_added_up(
        self, attached, task, text, perturbed, gradients, watched
    ):
        """By hand: the disturbance is read off, and both losses are differentiated on their own."""
        passes = watched(radius=0.5)
        attached.write(SHARED, perturbed)
        change = passes[-1][0] - passes[0][0]
        both = gradients(adversarial=Adversarial(radius=0.5))
        clean = gradients()
        embedding = attached.model.get_input_embeddings()
        handle = embedding.register_forward_hook(lambda _, __, out: out + change)
        disturbed = gradients()
        handle.remove()
        assert both.keys() == clean.keys() == disturbed.keys()
        for name, gradient in both.items():
            torch.testing.assert_close(gradient, clean[name] + disturbed[name], atol=1e-5, rtol=1e-3)

    @KINDS
    def test_nothing_is_left_on_the_embedding_and_only_the_slot_is_trained(self, attached, task, text, kind):
        embedding = attached.model.get_input_embeddings()
        ids = torch.arange(50)
        before = embedding(ids)
        train(attached, SHARED, task, text, Training(steps=2, batch=4, adversarial={"kind": kind}), seed=0)
        assert torch.equal(embedding(ids), before)
        assert not embedding._forward_hooks
        assert all(p.grad is None for p in attached.model.parameters())
