"""Zeros instead of what matters least: exactly as many as asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedpeft.adapters import Adapter, Schema
from fedpeft.adapters.factors import factors
from fedpeft.adapters.prune import prune
from fedpeft.errors import AdapterError

from .lora import random_lora
from .models import BASE

# Few different values, so that many are equal.
coarse = arrays(np.float32, 60, elements=st.integers(-3, 3).map(float))


@settings(max_examples=80, deadline=None)
@given(coarse, st.floats(0.0, 1.0))
def test_exactly_the_asked_share_of_each_tensor_may_stay_and_it_is_the_largest(vector, density):
    schema = Schema.of({"a.lora_A.weight": (4, 5), "a.lora_B.weight": (10, 4)})
    adapter = Adapter(schema, vector, {"peft_type": "LORA"}, BASE)
    result = prune(adapter, density)
    for name, after in result.adapter.tensors().items():
        before = adapter.tensors()[name]
        count = round(density * before.size)
        kept = np.sort(np.abs(before).ravel())[::-1][:count]
        assert sorted(np.abs(after[after != 0])) == sorted(kept[kept != 0])
        assert np.array_equal(after[after != 0], before[after != 0])


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 1.0), st.integers(0, 99), st.sampled_from(["magnitude", "change"]))
def test_exactly_k_numbers_stay_when_none_is_zero(density, seed, by):
    adapter = random_lora(4, seed)
    result = prune(adapter, density, by)
    sizes = [t.size for t in adapter.tensors().values()] if by == "magnitude" else [adapter.schema.size]
    assert result.kept == np.count_nonzero(result.adapter.vector) == sum(round(density * n) for n in sizes)
    assert result.of == adapter.schema.size


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.integers(0, 99))
def test_the_kept_energy_is_the_share_of_the_squares(density, seed):
    adapter = random_lora(3, seed)
    result = prune(adapter, density)
    squares = np.square(adapter.vector.astype(np.float64))
    assert result.energy == pytest.approx(squares[result.adapter.vector != 0].sum() / squares.sum())
    wrong = whole = 0.0
    for module, part in factors(adapter).items():
        after = factors(result.adapter)[module].change() if result.kept else 0.0
        wrong += np.linalg.norm(after - part.change()) ** 2
        whole += np.linalg.norm(part.change()) ** 2
    assert result.error == pytest.approx((wrong / whole) ** 0.5, abs=1e-9)


def test_the_ends_of_the_scale_keep_all_or_nothing():
    adapter = random_lora(4)
    for by in ("magnitude", "change"):
        assert np.array_equal(prune(adapter, 1.0, by).adapter.vector, adapter.vector)
        nothing = prune(adapter, 0.0, by)
        assert (nothing.kept, nothing.energy, nothing.error) == (0, 0.0, pytest.approx(1.0))


def test_ranked_by_change_a_small_factor_counts_for_its_partner():
    """A is a thousand times larger than B: by change neither is emptied, and the error is no larger."""
    adapter = random_lora(4, 5)
    large = adapter.schema.mask(lambda name: "lora_A" in name)
    skewed = Adapter(adapter.schema, np.where(large, adapter.vector * 1000, adapter.vector), adapter.config, BASE)
    even, uneven = prune(adapter, 0.5, "change"), prune(skewed, 0.5, "change")
    assert np.array_equal(even.adapter.vector != 0, uneven.adapter.vector != 0)
    assert even.error <= prune(adapter, 0.5).error


def test_other_methods_must_say_where_zero_means_no_change():
    schema = Schema.of({"x.spectrum": (4,), "x.head": (2,)})
    adapter = Adapter(schema, np.arange(1, 7, dtype=np.float32), {"peft_type": "FOURIERFT"}, BASE)
    with pytest.raises(AdapterError, match="adapter type: found 'FOURIERFT', expected LORA; say which tensors"):
        prune(adapter, 0.5)
    result = prune(adapter, 0.5, relevant=lambda name: "spectrum" in name)
    assert result.adapter.tensors()["x.spectrum"].tolist() == [0, 0, 5, 6]
    assert result.adapter.tensors()["x.head"].tolist() == [1, 2]
    assert result.energy == pytest.approx((25 + 36) / (9 + 16 + 25 + 36))


def test_a_doras_lengths_are_not_pruned():
    schema = Schema.of({"a.lora_A.weight": (2, 2), "a.lora_B.weight": (2, 2), "a.lora_magnitude_vector": (2,)})
    adapter = Adapter(schema, np.ones(10, np.float32), {"peft_type": "LORA", "use_dora": True}, BASE)
    assert prune(adapter, 0.0).adapter.tensors()["a.lora_magnitude_vector"].tolist() == [1, 1]


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(density):
    with pytest.raises(AdapterError, match="density"):
        prune(random_lora(), density)
