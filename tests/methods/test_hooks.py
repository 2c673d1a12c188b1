"""The one mechanism of our own methods: what a module reads, what it changes, and what belongs to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedpeft.adapters import Schema
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.shares import outer_share

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Two linear layers, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def hung(model: Two, *placed: Placed, **options) -> Hooked:
    own = Hooked(list(placed), {}, **options)
    own.enable(True)
    return own


def linear() -> nn.Linear:
    return nn.Linear(4, 4)


@torch.no_grad()
def test_every_form_does_what_its_line_says():
    model, m = Two(), linear()
    inner = torch.relu(model.first(X))
    expected = {
        "serial": model.second(inner) + m(model.second(inner)),
        "parallel": model.second(inner) + m(inner),
        "replace": m(model.second(inner)),
        "before": model.second(inner + m(inner)),
    }
    for form, wanted in expected.items():
        model = Two()
        hung(model, Placed("m", m, model.second, form, 4))
        torch.testing.assert_close(model(X), wanted)


@torch.no_grad()
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_tap_is_read_from_its_side(side):
    model, m = Two(), linear()
    read = X if side == "input" else model.first(X)
    inner = torch.relu(model.first(X))
    wanted = {"parallel": model.second(inner) + m(read), "before": model.second(inner + m(read))}
    for form, expected in wanted.items():
        model = Two()
        hung(model, Placed("m", m, model.second, form, 4, tap=model.first, tap_side=side))
        torch.testing.assert_close(model(X), expected)


@torch.no_grad()
def test_several_modules_may_read_one_tap():
    model, m = Two(), linear()
    inner = torch.relu(model.first(X))
    expected = model.second(inner) + 2 * m(X)
    places = [Placed(n, m, model.second, "parallel", 4, tap=model.first) for n in ("a", "b")]
    hung(model, *places)
    torch.testing.assert_close(model(X), expected)


def test_switched_off_nothing_is_read_and_nothing_changed():
    model = Two()
    bare = model(X)
    own = hung(model, Placed("m", linear(), model.second, "before", 4, tap=model.first))
    own.enable(False)
    assert torch.equal(model(X), bare)
    assert own._read == {}


def test_a_shared_module_counts_once_and_is_named_by_who_shares_it():
    model, m = Two(), linear()
    own = hung(model, *(Placed(n, m, getattr(model, n), "serial", 4) for n in ("first", "second")), extra={"shared": m})
    assert list(own.parameters) == ["shared.weight", "shared.bias"]
    assert set(own.changes()) == {"first", "second"}


def test_what_is_frozen_is_context():
    model, m = Two(), linear()
    m.bias.requires_grad_(False)
    m.register_buffer("seeded", torch.ones(2))
    own = hung(model, Placed("m", m, model.second, "serial", 4), context={"table": torch.zeros(3)})
    assert set(own.parameters) == {"m.weight"}
    assert set(own.context) == {"m.bias", "m.seeded", "table"}


def test_modules_compute_in_float32_whatever_the_base_does():
    seen = []

    class Listening(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((x.dtype, super().forward(x).dtype))
            return super().forward(x)

    model = Two().to(torch.bfloat16)
    hung(model, Placed("m", Listening(4, 4), model.second, "parallel", 4))
    assert model(X.to(torch.bfloat16)).dtype == torch.bfloat16
    model = Two()
    hung(model, Placed("m", Listening(4, 4), model.second, "parallel", 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(X).dtype == torch.bfloat16
    assert seen == [(torch.float32, torch.float32)] * 2


def test_a_penalty_counts_while_the_module_does():
    model = Two()
    own = hung(model, Placed("m", linear(), model.second, "serial", 4), penalty=lambda: torch.tensor(2.0))
    assert own.penalty() == 2.0
    own.enable(False)
    assert own.penalty() is None


def test_a_share_keeps_the_inner_factor_and_scales_the_outer_and_the_head():
    schema = Schema.of({"a.down": (1,), "a.up": (1,), "base_model.model.classifier.weight": (1,)})
    trained = np.float32([5.0, 2.0, 3.0])
    fresh, moved = np.float32([1.0, 0.0, 1.0]), np.float32([1.0, 1.0, 1.0])
    share = lambda start: outer_share(schema, start, trained, 0.5, lambda name: "up" in name)  # noqa: E731
    assert share(fresh).tolist() == [5.0, 1.0, 2.0]
    assert share(moved).tolist() == [3.0, 1.5, 2.0]
