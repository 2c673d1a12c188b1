"""What a method declares about averaging is measured: for every method there is, those still to come included."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from fedpeft.base.quantize import quantize
from fedpeft.methods import Attached
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.bitfit import BitFit
from fedpeft.methods.ia3 import IA3
from fedpeft.methods.lora import Lora
from fedpeft.methods.measure import EXACT, classify, measured_error
from fedpeft.methods.method import CAUSAL, Algebra, Method, known_methods
from fedpeft.methods.vera import Vera
from tests.methods import tiny

SMALL: dict[str, dict[str, object]] = {"adalora": {"init_rank": 4, "target_rank": 2}, "vera": {"rank": 16}}
"""Settings under which a method is measured; its own defaults where it has no entry."""

BOOKKEEPING = {"adalora": ("importance", "steps")}
"""Kinds of tensors that decide which others count, and are no factors."""

CLEARLY = 1e-3
METHODS = sorted(known_methods())


def attach(method: Method, kind: str | None = None, seed: int = 0) -> Attached:
    kind = kind or ("llama" if CAUSAL in method.tasks else "bert")
    model = getattr(tiny, kind)()
    if method.precision != "full":
        quantize(model, method.precision, keep=("classifier.weight", "classifier.bias"))
        model.requires_grad_(False).eval()
    return Attached(tiny.base_of(model), method, None, seed)


def check(method: Method) -> None:
    """Fail when a method's declaration is not what is measured."""
    made, declared = attach(method), method.averaging
    error = measured_error(made, SHARED)
    assert declared is not Algebra.UNKNOWN
    if declared in (Algebra.LINEAR, Algebra.SET):
        assert error < EXACT, f"{method.name} is not linear: {error:.0e}"
    else:
        assert error > CLEARLY, f"{method.name} is linear: {error:.0e}"
    if declared is Algebra.MULTILINEAR:
        kinds = {name.removesuffix(".weight").rpartition(".")[2] for name in made.schemas[SHARED].names()}
        for kind in sorted(kinds - set(BOOKKEEPING.get(method.name, ()))):
            alone = measured_error(made, SHARED, keep=lambda name, k=kind: name.removesuffix(".weight").endswith(k))
            assert alone < EXACT, f"{method.name} is not linear in {kind} alone: {alone:.0e}"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_averages_as_it_declares(name):
    check(known_methods()[name](**SMALL.get(name, {})))


@pytest.mark.parametrize(
    "method", [Lora(dora=True, rank=4), Vera(rank=16, train_d=False)], ids=["DoRA", "VeRA, d frozen"]
)
def test_a_method_averages_as_its_settings_make_it(method):
    assert method.averaging is not method.algebra
    check(method)


def declared(parent: type[Method], wrong: Algebra) -> Method:
    class Wrong(parent):
        algebra: ClassVar[Algebra] = wrong

    return Wrong()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (declared(Lora, Algebra.LINEAR), "lora is not linear: "),
        (declared(Vera, Algebra.LINEAR), "vera is not linear: "),
        (declared(known_methods()["houlsby"], Algebra.LINEAR), "houlsby is not linear: "),
        (declared(known_methods()["houlsby"], Algebra.MULTILINEAR), "houlsby is not linear in .* alone: "),
        (declared(IA3, Algebra.MULTILINEAR), "ia3 is linear: "),
        (declared(BitFit, Algebra.NETWORK), "bitfit is linear: "),
    ],
)
def test_a_wrong_declaration_is_found(method, message):
    with pytest.raises(AssertionError, match=message):
        check(method)


def test_the_error_of_lora_is_what_two_factors_make_it():
    """One place, by hand: mean(B A) - mean(B) mean(A) over the same draws."""
    made = attach(Lora(rank=4, alpha=4, targets=["q_proj"]))
    schema, rng = made.schemas[SHARED], np.random.default_rng(3)

    def drawn(around: np.ndarray) -> np.ndarray:
        return (around + 0.3 * rng.standard_normal(schema.size)).astype(np.float32)

    point = drawn(made.initial[SHARED])
    held = [drawn(point) for _ in range(4)]

    def outputs(vector: np.ndarray) -> np.ndarray:
        tensors = schema.unflatten(vector.astype(np.float64))
        modules = sorted({name.rsplit(".", 2)[0] for name in tensors})
        x = torch.randn(1, 8, tiny.HIDDEN, generator=torch.Generator().manual_seed(0)).double().numpy()[0]
        return np.concatenate(
            [(x @ tensors[f"{m}.lora_A.weight"].T @ tensors[f"{m}.lora_B.weight"].T).ravel() for m in modules]
        )

    mean = np.mean([outputs(v) for v in held], axis=0)
    error = np.linalg.norm(outputs(np.mean(held, axis=0)) - mean) / np.linalg.norm(mean - outputs(point))
    assert measured_error(made, SHARED, seed=3) == pytest.approx(error, rel=1e-3)
    assert 0.1 < error < 1


def test_freezing_a_factor_makes_lora_linear():
    made = attach(Lora(rank=4))
    assert measured_error(made, SHARED, keep=lambda name: "lora_B" in name) < EXACT
    assert measured_error(made, SHARED, keep=lambda name: "lora_A" in name) < EXACT
    assert measured_error(made, SHARED) > 0.1


def test_what_is_measured_is_put_back_and_other_slots_do_not_matter():
    method = Lora(rank=4)
    made = Attached(tiny.base_of(tiny.llama()), method, method.private(2), 0)
    made.write(SHARED, made.read(SHARED) + np.float32(0.01))
    before = made.read(SHARED)
    alone = measured_error(made, SHARED)
    made.write(PRIVATE, made.read(PRIVATE) + np.float32(0.3))
    made.activate(SHARED, PRIVATE)
    assert measured_error(made, SHARED) == pytest.approx(alone, rel=1e-6)
    assert np.array_equal(made.read(SHARED), before)


def test_the_head_of_a_classifier_is_measured_with_its_method():
    made = attach(IA3(), "bert")
    assert any("classifier" in place for place in made.changes(SHARED))
    assert Algebra.LINEAR in classify(made, SHARED)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Lora(rank=4), {Algebra.MULTILINEAR}),
        (Lora(rank=4, dora=True), {Algebra.NORM, Algebra.NETWORK}),
        (IA3(), {Algebra.LINEAR, Algebra.SET}),
        (known_methods()["houlsby"](), {Algebra.NORM, Algebra.NETWORK}),
    ],
    ids=["lora", "DoRA", "ia3", "houlsby"],
)
def test_a_measurement_is_classified(method, expected):
    assert classify(attach(method), SHARED) == expected


@pytest.mark.parametrize("name", [n for n in METHODS if known_methods()[n].algebra is Algebra.SET])
def test_the_mean_of_a_set_in_different_orders_loses_most_of_it(name):
    """Sixteen clients hold the same vectors, each in an order of its own: nothing but the order differs."""
    length = 7  # no other side of the tiny model is seven
    made = attach(known_methods()[name](length=length))
    schema, rng = made.schemas[SHARED], np.random.default_rng(0)
    vector = rng.standard_normal(schema.size).astype(np.float32)
    held = []
    for _ in range(16):
        order = rng.permutation(length)
        tensors = {}
        for tensor_name, tensor in schema.unflatten(vector).items():
            (axis,) = [i for i, side in enumerate(tensor.shape) if side == length]
            tensors[tensor_name] = np.take(tensor, order, axis)
        held.append(schema.flatten(tensors))
    whole = np.linalg.norm(vector)
    assert [np.linalg.norm(v) for v in held] == pytest.approx([whole] * 16, rel=1e-5)
    assert np.linalg.norm(np.mean(held, axis=0)) < 0.6 * whole
