"""Tensors become one vector and come back, on every machine alike."""

import json
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.adapters import Schema
from fedpeft.errors import AdapterError

shapes = st.dictionaries(
    st.text("abcAB._0", min_size=1, max_size=6),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
    max_size=6,
)


def tensors(shapes_: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes_.items()}


@settings(max_examples=150, deadline=None)
@given(shapes, st.integers(0, 99))
def test_unflatten_is_the_inverse_of_flatten(wanted, seed):
    schema, given_ = Schema.of(wanted), tensors(wanted, seed)
    vector = schema.flatten(given_)
    assert vector.dtype == np.float32
    assert vector.shape == (schema.size,)
    back = schema.unflatten(vector)
    assert back.keys() == given_.keys()
    assert all(back[name].shape == t.shape and np.array_equal(back[name], t) for name, t in given_.items())


@settings(max_examples=150, deadline=None)
@given(shapes, st.integers(0, 99))
def test_flatten_is_the_inverse_of_unflatten(wanted, seed):
    schema = Schema.of(wanted)
    vector = np.random.default_rng(seed).normal(size=schema.size).astype(np.float32)
    assert np.array_equal(schema.flatten(schema.unflatten(vector)), vector)


@settings(max_examples=150, deadline=None)
@given(st.data(), shapes)
def test_the_order_in_which_tensors_are_named_changes_nothing(data, wanted):
    shuffled = dict(data.draw(st.permutations(list(wanted.items()))))
    one, other = Schema.of(wanted), Schema.of(shuffled)
    assert one == other
    assert one.digest == other.digest
    assert np.array_equal(one.flatten(tensors(wanted)), other.flatten(dict(reversed(tensors(wanted).items()))))


@settings(max_examples=150, deadline=None)
@given(shapes, shapes)
def test_two_schemas_share_a_digest_only_when_they_are_equal(one, other):
    assert (Schema.of(one).digest == Schema.of(other).digest) == (one == other)


def test_the_digest_is_the_hash_of_canonical_json():
    canonical = json.dumps([["a", [2, 3], "float32"], ["b", [], "float32"]], separators=(",", ":"))
    assert Schema.of({"b": (), "a": (2, 3)}).digest == sha256(canonical.encode()).hexdigest()


def test_unflattened_tensors_are_views_of_the_vector():
    schema = Schema.of({"a": (2, 2), "b": (3,)})
    vector = np.zeros(7, np.float32)
    schema.unflatten(vector)["b"][1] = 5.0
    assert vector.tolist() == [0, 0, 0, 0, 0, 5, 0]


def test_a_mask_is_true_on_the_tensors_that_are_kept():
    schema = Schema.of({"x.lora_A": (2,), "x.lora_B": (3,), "y.lora_B": (1,)})
    assert schema.mask(lambda name: "lora_B" in name).tolist() == [False, False, True, True, True, True]
    assert Schema.of({}).mask(lambda _: True).tolist() == []


def test_other_precisions_and_layouts_become_float32_in_row_order():
    schema = Schema.of({"a": (2, 2)})
    assert schema.flatten({"a": np.array([[1, 2], [3, 4]], np.float64).T}).tolist() == [1, 3, 2, 4]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"a": (2,)}, "adapter tensor b: found 'absent', expected shape (1, 2)"),
        ({"a": (2,), "b": (1, 2), "c": (5,)}, "adapter tensor c: found (5,), expected shape absent"),
        ({"a": (2,), "b": (2, 1)}, "adapter tensor b: found (2, 1), expected shape (1, 2)"),
        ({"a": (2, 1), "b": (1, 2)}, "adapter tensor a: found (2, 1), expected shape (2,)"),
    ],
)
def test_tensors_of_another_schema_are_refused_by_name(given_, message):
    schema = Schema.of({"a": (2,), "b": (1, 2)})
    with pytest.raises(AdapterError) as refused:
        schema.flatten(tensors(given_))
    assert str(refused.value) == message


@pytest.mark.parametrize("shape", [(3,), (5,), (2, 2), (4, 1)])
def test_a_vector_of_another_length_is_refused(shape):
    with pytest.raises(AdapterError, match=r"adapter vector shape: found .* expected \(4,\)"):
        Schema.of({"a": (2,), "b": (1, 2)}).unflatten(np.zeros(shape, np.float32))


def test_equal_shapes_over_another_frozen_context_are_another_schema():
    plain, bound = Schema.of({"a": (2,)}), Schema.of({"a": (2,)}, "c" * 64)
    assert plain != bound
    assert len({plain.digest, bound.digest, Schema.of({"a": (2,)}, "d" * 64).digest}) == 3
    assert Schema.of({"a": (2,)}, "").digest == plain.digest
