"""Fewer directions: the best that a rank allows, in whichever module they matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.adapters.algebra import cat
from fedpeft.adapters.compress import compress, prune_rank, spectra
from fedpeft.adapters.factors import change_error, factors
from fedpeft.errors import AdapterError

from .lora import MODULES, random_lora

ranks = st.fixed_dictionaries(dict.fromkeys(MODULES, st.integers(1, 6)))


@settings(max_examples=40, deadline=None)
@given(ranks, st.integers(1, 6), st.integers(0, 99))
def test_no_adapter_of_that_rank_comes_closer(found, rank, seed):
    adapter = random_lora(found, seed, 0.6)
    smaller = compress(adapter, rank)
    parts = factors(smaller.adapter)
    wrong = whole = 0.0
    for module, part in factors(adapter).items():
        values = np.linalg.svd(part.change(), compute_uv=False)
        assert parts[module].rank == min(rank, found[module])
        np.testing.assert_allclose(
            np.linalg.norm(parts[module].change() - part.change()), np.linalg.norm(values[rank:]), atol=1e-4
        )
        wrong, whole = wrong + np.sum(values[rank:] ** 2), whole + np.sum(values**2)
    assert smaller.energy == pytest.approx(1 - wrong / whole, abs=1e-9)
    assert smaller.error == pytest.approx((wrong / whole) ** 0.5, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(ranks, st.integers(0, 99))
def test_the_spectrum_is_that_of_the_change(found, seed):
    adapter = random_lora(found, seed)
    for module, spectrum in spectra(adapter).items():
        change = factors(adapter)[module].change()
        values = np.linalg.svd(change, compute_uv=False)[: found[module]]
        np.testing.assert_allclose(spectrum.values, values, atol=1e-9)
        np.testing.assert_allclose(spectrum.left * spectrum.values @ spectrum.right, change, atol=1e-9)


def test_a_composition_of_equals_comes_back_to_its_rank_without_loss():
    adapter = random_lora(3, 1)
    doubled = cat([adapter, adapter], [0.5, 0.5])
    assert doubled.config["r"] == 6
    back = compress(doubled, 3)
    assert back.adapter.config["r"] == 3
    assert change_error(back.adapter, [adapter], [1.0]) < 1e-6


@settings(max_examples=40, deadline=None)
@given(ranks, st.floats(0.1, 1.0), st.integers(0, 99))
def test_pruning_keeps_within_the_budget_what_matters_most_for_its_cost(found, density, seed):
    adapter = random_lora(found, seed, 0.5)
    cost = {module: sum(MODULES[module]) for module in MODULES}
    if density * adapter.schema.size < min(cost.values()):
        return
    try:
        smaller = prune_rank(adapter, density)
    except AdapterError as error:
        assert "enough for one direction" in str(error)
        return
    assert smaller.kept == smaller.adapter.schema.size <= density * adapter.schema.size
    kept = {module: part.rank for module, part in factors(smaller.adapter).items()}
    worth = {
        (module, i): value**2 / cost[module]
        for module, spectrum in spectra(adapter).items()
        for i, value in enumerate(spectrum.values)
    }
    chosen = {key for key in worth if key[1] < kept.get(key[0], 0)}
    dropped = [worth[key] for key in worth.keys() - chosen]
    assert min(worth[key] for key in chosen) >= max(dropped, default=0.0)
    assert smaller.error == pytest.approx((1 - smaller.energy) ** 0.5, abs=1e-6)


def test_a_density_of_one_keeps_everything():
    adapter = random_lora(4)
    assert prune_rank(adapter, 1.0).error < 1e-6
    assert prune_rank(adapter, 1.0).kept == adapter.schema.size


def test_a_module_that_does_not_matter_is_left_out():
    adapter = random_lora(2, 3)
    vector = adapter.vector.copy()
    vector[adapter.schema.mask(lambda name: "down_proj.lora_B" in name)] = 0.0
    smaller = prune_rank(type(adapter)(adapter.schema, vector, adapter.config, adapter.base), 0.45)
    assert set(factors(smaller.adapter)) == {"layers.0.q_proj"}
    assert smaller.adapter.config["target_modules"] == ["layers.0.q_proj"]
    assert smaller.error < 1e-6


def test_a_rank_larger_than_the_matrix_is_no_obstacle():
    adapter = random_lora({"layers.1.down_proj": 12}, 0)
    assert compress(adapter, 12).adapter.config["r"] == 7
    assert compress(adapter, 12).error < 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: compress(a, 0), "rank: found 0, expected 1 or more"),
        (lambda a: prune_rank(a, 0.0), "density: found 0.0"),
        (lambda a: prune_rank(a, 1.5), "density: found 1.5"),
        (lambda a: prune_rank(a, 0.01), r"density: found 0.01, expected enough for one direction, 0\.1"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(call, message):
    with pytest.raises(AdapterError, match=message):
        call(random_lora(4))


def test_an_adapter_that_changes_nothing_stays_so():
    adapter = random_lora(2)
    nothing = type(adapter)(adapter.schema, np.zeros_like(adapter.vector), adapter.config, adapter.base)
    smaller = compress(nothing, 1)
    assert (smaller.energy, smaller.error) == (1.0, 0.0)
