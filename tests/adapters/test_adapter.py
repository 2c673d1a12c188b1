"""Adapters are small files of a known base: whole, private, equal when they are equal, refused when damaged."""

import json
import stat

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedpeft.adapters import Adapter, Schema
from fedpeft.adapters.layout import CONFIG, DENSE
from fedpeft.adapters.layout import WEIGHTS as FORMS
from fedpeft.errors import AdapterError

WEIGHTS = FORMS[DENSE]


def rewritten(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
    return folder


@pytest.fixture
def saved(shared, tmp_path):
    shared.save(tmp_path / "saved")
    return tmp_path / "saved"


def test_what_was_saved_is_what_is_loaded(shared, saved):
    loaded = Adapter.load(saved, shared.base)
    assert loaded.schema == shared.schema
    assert np.array_equal(loaded.vector, shared.vector)
    assert loaded.base == shared.base
    assert dict(loaded.config) == json.loads(json.dumps(dict(shared.config)))
    assert loaded.nbytes == shared.nbytes == 4 * shared.schema.size


def test_the_file_itself_names_the_base(shared, saved):
    assert Adapter.load(saved).base == shared.base


def test_only_the_owner_may_read_it(saved):
    assert stat.S_IMODE(saved.stat().st_mode) == 0o700
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in saved.iterdir()} == {WEIGHTS: 0o600, CONFIG: 0o600}


def test_equal_adapters_are_equal_files(shared, tmp_path):
    reordered = dict(reversed(list(shared.tensors().items())))
    schema = Schema.of({name: t.shape for name, t in reordered.items()})
    config = dict(reversed(list(shared.config.items())))
    Adapter(schema, schema.flatten(reordered), config, shared.base).save(tmp_path / "b")
    for attempt in range(3):
        shared.save(tmp_path / f"a{attempt}")
        for name in (WEIGHTS, CONFIG):
            assert (tmp_path / f"a{attempt}" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_saving_again_replaces_and_leaves_nothing_else(shared, private, tmp_path):
    shared.save(tmp_path / "one")
    private.save(tmp_path / "one")
    assert np.array_equal(Adapter.load(tmp_path / "one").vector, private.vector)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted([CONFIG, WEIGHTS])


def test_tensors_are_named_views_of_the_vector(shared):
    for name, tensor in shared.tensors().items():
        assert np.shares_memory(tensor, shared.vector)
        assert tensor.shape == dict(shared.schema.shapes)[name]


def test_another_base_is_refused(shared, saved):
    with pytest.raises(AdapterError, match=r"adapter base: found '\w{12}…', expected the base ffffffffffff…; load the"):
        Adapter.load(saved, "f" * 64)
    with pytest.raises(AdapterError, match="adapter base"):
        shared.require_base("f" * 64)
    shared.require_base(shared.base)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(shared, saved, value):
    tensors = load_file(saved / WEIGHTS)
    next(iter(tensors.values())).flat[3] = value
    save_file(tensors, saved / WEIGHTS)
    with pytest.raises(AdapterError, match="found 'NaN or infinity', expected finite tensors"):
        Adapter.load(saved, shared.base)


@pytest.mark.parametrize("kept", [0, 4, 8, 200, -1])
def test_truncated_weights_are_refused(shared, saved, kept):
    with pytest.raises(AdapterError, match=rf"adapter folder .*expected readable {CONFIG} and {WEIGHTS}"):
        Adapter.load(rewritten(saved, WEIGHTS, lambda content: content[:kept]), shared.base)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3"])
def test_a_configuration_that_is_none_is_refused(shared, saved, content):
    with pytest.raises(AdapterError, match=rf"adapter folder .*{CONFIG}"):
        Adapter.load(rewritten(saved, CONFIG, lambda _: content), shared.base)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_missing_file_is_refused(shared, saved, name):
    (saved / name).unlink()
    with pytest.raises(AdapterError, match="adapter folder"):
        Adapter.load(saved, shared.base)


def test_an_adapter_that_names_no_base_needs_to_be_told(shared, saved):
    save_file(load_file(saved / WEIGHTS), saved / WEIGHTS)
    with pytest.raises(AdapterError, match="found 'no base fingerprint', expected one; name the base"):
        Adapter.load(saved)
    assert Adapter.load(saved, shared.base).base == shared.base


def test_the_size_on_disk_is_known_before_it_is_written(shared, private, tmp_path):
    for number, adapter in enumerate((shared, private, Adapter(Schema.of({}), np.zeros(0, np.float32), {}, "c" * 64))):
        adapter.save(tmp_path / str(number))
        assert sum(path.stat().st_size for path in (tmp_path / str(number)).iterdir()) == adapter.file_bytes


def test_the_frozen_context_is_kept(shared, tmp_path):
    bound = Adapter(Schema(shared.schema.shapes, "c" * 64), shared.vector, shared.config, shared.base)
    bound.save(tmp_path / "bound")
    loaded = Adapter.load(tmp_path / "bound", shared.base)
    assert (loaded.base, loaded.schema.context) == (shared.base, "c" * 64)
    assert loaded.schema.digest == bound.schema.digest != shared.schema.digest
