"""Values and places: nothing is lost, and it is chosen only when it is smaller."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.adapters import Adapter, Schema
from fedpeft.adapters.forms import open_packed
from fedpeft.adapters.layout import WEIGHTS
from fedpeft.adapters.prune import prune
from fedpeft.adapters.sparse import SparseAdapter, smallest, sparsify
from fedpeft.errors import AdapterError

from .lora import random_lora
from .models import BASE


def with_zeros(size: int, places: list[int], seed: int = 0) -> Adapter:
    vector = np.zeros(size, np.float32)
    vector[places] = np.random.default_rng(seed).normal(size=len(places)) + 3.0
    return Adapter(Schema.of({"x": (size,)}), vector, {"peft_type": "X"}, BASE)


@st.composite
def sparse_adapters(draw):
    size = draw(st.sampled_from([0, 1, 7, 300, 70_000]))
    return with_zeros(size, draw(st.lists(st.integers(0, size - 1), unique=True, max_size=40)) if size else [])


@settings(max_examples=60, deadline=None)
@given(adapter=sparse_adapters())
def test_the_file_gives_back_every_bit_and_has_the_predicted_size(adapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse")
    sparse = sparsify(adapter)
    assert np.array_equal(sparse.densify().vector, adapter.vector)
    sparse.save(folder)
    assert isinstance(open_packed(folder), SparseAdapter)
    loaded = Adapter.load(folder, BASE)
    assert np.array_equal(loaded.vector.view(np.uint32), adapter.vector.view(np.uint32))
    assert loaded.schema == adapter.schema
    assert sum(path.stat().st_size for path in folder.iterdir()) == sparse.file_bytes


@pytest.mark.parametrize(
    ("places", "array", "kind"),
    [
        ([0, 255, 511], "gaps", np.uint8),
        ([300, 60_000], "gaps", np.uint16),
        ([0, 69_999], "gaps", np.uint32),
        (list(range(0, 70_000, 2)), "mask", np.uint8),
        ([], "gaps", np.uint8),
    ],
)
def test_places_are_written_as_short_as_they_can(places, array, kind):
    arrays = sparsify(with_zeros(70_000, places)).arrays()
    assert set(arrays) == {array, "values"}
    assert arrays[array].dtype == kind
    assert arrays["values"].size == len(places)


def test_a_negative_zero_is_a_number_too():
    adapter = with_zeros(4, [1])
    adapter.vector[2] = -0.0
    assert np.signbit(sparsify(adapter).densify().vector[2])


@pytest.mark.parametrize(("density", "form"), [(0.1, "sparse"), (0.6, "sparse"), (1.0, "float32")])
def test_the_smaller_form_is_chosen(density, form, tmp_path):
    adapter = prune(random_lora(6), density).adapter
    chosen = smallest(adapter)
    chosen.save(tmp_path)
    assert (tmp_path / WEIGHTS[form]).exists()
    assert chosen.file_bytes <= min(adapter.file_bytes, sparsify(adapter).file_bytes)


def test_places_beyond_the_adapter_are_refused(tmp_path):
    sparse = sparsify(with_zeros(10, [2, 9]))
    SparseAdapter(Schema.of({"x": (9,)}), sparse.config, BASE, sparse.places, sparse.values).arrays()
    path = tmp_path / "bad"
    sparse.save(path)
    file = path / WEIGHTS["sparse"]
    file.write_bytes(file.read_bytes().replace(b'\\"x\\",[10]', b'\\"x\\",[ 9]'))
    with pytest.raises(AdapterError, match=r"adapter folder .*whole adapter_model\.sparse"):
        Adapter.load(path)
