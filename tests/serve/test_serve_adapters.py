"""Adapters that change, are damaged, taken away or put in another's place while the service runs."""

import shutil
from pathlib import Path

import pytest

from fedpeft.bench.serve_people import random_lora
from fedpeft.device import Runtime
from fedpeft.errors import BundleError, ServeError
from fedpeft.export import export_adapter
from fedpeft.serve.faults import Fault
from fedpeft.serve.limits import Limits
from fedpeft.serve.service import Service
from fedpeft.serve.tokens import Caller
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
ADA = Caller("0" * 12, "person00", frozenset({"person00", "base"}))


@pytest.fixture
def run(people, tmp_path) -> Path:
    """A run of its own with two people."""
    device = tmp_path / "device"
    for name in ("base", "base-rows", "adapters/person00", "adapters/person01"):
        shutil.copytree(people.run / "device" / name, device / name)
    return tmp_path


@pytest.fixture
def service(run):
    found = Service(run, Limits(slots=2))
    yield found
    found.close()


def test_a_new_adapter_is_used_from_the_next_request_on(run, service):
    before = service.adapter(ADA, "person00")
    assert service.adapter(ADA, "person00") is before
    adapter = random_lora(service.runtime.manifest, rank=4, seed=99)
    export_adapter(
        adapter, run / "device" / "adapters" / "person00", owner="person00", base=service.runtime.manifest, key=KEY
    )
    after = service.adapter(ADA, "person00")
    assert after is not before
    ids = [1, 3, 300]
    new = list(service.runtime.generate(ids, after, tokens=9, ends=()))
    assert new != list(service.runtime.generate(ids, before, tokens=9, ends=()))


def test_a_damaged_adapter_is_refused_and_works_again_when_it_is_mended(run, service):
    service.adapter(ADA, "person00")
    path = run / "device" / "adapters" / "person00" / "adapter.onnx_adapter"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(Fault) as refused:
        service.adapter(ADA, "person00")
    assert refused.value.status == 503
    assert "sha256" not in str(refused.value)
    path.write_bytes(whole)
    assert service.adapter(ADA, "person00") is not None


def test_an_adapter_that_was_taken_away_does_not_exist(run, service):
    service.adapter(ADA, "person00")
    shutil.rmtree(run / "device" / "adapters" / "person00")
    with pytest.raises(Fault) as missing:
        service.adapter(ADA, "person00")
    assert missing.value.status == 404
    assert [model["id"] for model in service.models(ADA)] == ["base"]


def test_another_persons_adapter_in_ones_own_folder_is_refused(run, service, caplog):
    mine = run / "device" / "adapters" / "person00"
    shutil.rmtree(mine)
    shutil.copytree(run / "device" / "adapters" / "person01", mine)
    with pytest.raises(Fault) as refused:
        service.adapter(ADA, "person00")
    assert refused.value.status == 503
    assert "owner" in caplog.text


def test_an_adapter_signed_by_somebody_else_is_refused(run, service):
    adapter = random_lora(service.runtime.manifest, rank=4, seed=99)
    base = service.runtime.manifest
    stranger = SigningKey.generate()
    export_adapter(adapter, run / "device" / "adapters" / "person00", owner="person00", base=base, key=stranger)
    with pytest.raises(Fault) as refused:
        service.adapter(ADA, "person00")
    assert refused.value.status == 503


def test_a_base_for_serving_that_is_not_the_same_base_is_refused(run):
    shutil.rmtree(run / "device" / "base-rows")
    shutil.copytree(run / "device" / "base", run / "device" / "base-rows")
    with pytest.raises(BundleError, match="rows"):
        Service(run, Limits())


def test_a_damaged_base_for_serving_is_refused(run):
    path = run / "device" / "base-rows" / "model.onnx.data"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="sha256"):
        Service(run, Limits())


def test_the_bases_of_two_exports_with_other_sites_are_refused(run, people):
    from fedpeft.base import load_base
    from fedpeft.export import export_base
    from fedpeft.export.options import ExportOptions

    options = ExportOptions("rows", sites=frozenset({"lora", "scale"}))
    export_base(load_base("keyboard"), run / "device" / "base-rows", key=KEY, options=options)
    with pytest.raises(ServeError, match="tensors"):
        Service(run, Limits())


def test_the_runtime_of_a_device_refuses_the_base_for_serving(people):
    with pytest.raises(BundleError, match="variant"):
        Runtime(people.run / "device" / "base-rows")
