"""A bundle that is not exactly what was exported is refused, with the reason."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedpeft.device import Bundle, Manifest, Runtime
from fedpeft.device.manifest import File
from fedpeft.errors import BundleError
from fedpeft.signing.signature import SigningKey, public_bytes, sign

ADAPTER = "adapter.onnx_adapter"
DIGEST = "0" * 64
KEY = SigningKey.from_private_bytes(bytes(32))
OTHER = SigningKey.from_private_bytes(bytes(31) + b"1")


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    """Rewrite a manifest as somebody with a text editor would."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def resign(folder: Path, change: Callable[[dict], object], key: SigningKey = KEY) -> None:
    """Rewrite a manifest as somebody with the signer's own key could."""
    edit(folder, change)
    content = (folder / "manifest.json").read_bytes()
    (folder / "manifest.sig").write_bytes(sign(key, "bundle", content))


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES = {
    "a flipped bit": (flip_bit, "sha256"),
    "truncated": (truncate, "bytes"),
    "missing": (Path.unlink, "No such"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [ADAPTER, "adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_adapter_file_is_refused_by_name(runtime, ada_copy, name, damage):
    harm, reason = DAMAGES[damage]
    harm(ada_copy / name)
    with pytest.raises(BundleError, match=f"{name}.*{reason}"):
        runtime.load(ada_copy)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_a_damaged_base_file_is_refused_by_name(base_copy, name, damage):
    harm, reason = DAMAGES[damage]
    harm(base_copy / name)
    with pytest.raises(BundleError, match=f"{name}.*{reason}"):
        Runtime(base_copy)


def test_a_file_that_the_manifest_does_not_list_is_refused(runtime, ada_copy):
    (ada_copy / "extra.bin").write_bytes(b"?")
    with pytest.raises(BundleError, match=r"extra\.bin"):
        runtime.load(ada_copy)


def test_a_folder_without_a_manifest_is_refused(runtime, ada_copy):
    (ada_copy / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"manifest\.json.*No such file"):
        runtime.load(ada_copy)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b"3"])
def test_a_manifest_that_is_no_manifest_is_refused(runtime, ada_copy, content):
    (ada_copy / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        runtime.load(ada_copy)


@given(st.binary(max_size=200))
def test_no_manifest_content_gets_past_with_another_exception(content):
    with pytest.raises(BundleError):
        Manifest.from_json(content, "somewhere")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.update(schema_version=1), "schema_version: found 1, expected 2"),
        (lambda m: m.pop("schema_version"), "schema_version: found None"),
        (lambda m: m.update(kind="base"), "kind|decoder"),
        (lambda m: m.update(base_fingerprint="1" * 64), "base: found '111111111111…'"),
        (lambda m: m.update(base_fingerprint="1" * 63), "base_fingerprint"),
        (lambda m: m.pop("files"), "files: found 'absent'"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m["files"].pop(ADAPTER), "adapter.onnx_adapter"),
        (lambda m: m["files"][ADAPTER].update(sha256=DIGEST), "sha256"),
        (lambda m: m["files"][ADAPTER].update(bytes=True), "bytes"),
        (lambda m: m.update(tensors={}), "tensors"),
        (lambda m: m["tensors"].popitem(), "tensors: found"),
        (
            lambda m: m["tensors"].update({"model.layers.0.x.lora_A.weight": [256, 4]}),
            "an input of the graph",
        ),
        (lambda m: m["tensors"].update({"model.layers.0.mlp.up_proj.lora_A.weight": [255, 4]}), "255"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused_whoever_signed_it(runtime, ada_copy, change, complaint):
    resign(ada_copy, change)
    with pytest.raises(BundleError, match=complaint):
        runtime.load(ada_copy)


def test_a_manifest_that_was_edited_is_refused(runtime, ada_copy):
    edit(ada_copy, lambda m: m.update(name="bob"))
    with pytest.raises(BundleError, match=r"manifest\.sig: found '.*expected its signer's signature"):
        runtime.load(ada_copy)


@pytest.mark.parametrize("content", [b"", b"\0" * 63, b"\0" * 64, b"\xff" * 64])
def test_a_signature_that_is_none_is_refused(runtime, ada_copy, content):
    (ada_copy / "manifest.sig").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.sig"):
        runtime.load(ada_copy)


def test_a_stranger_who_signs_as_themselves_is_not_believed_and_as_another_is_found_out(run, runtime, ada_copy):
    resign(ada_copy, lambda m: m.update(signer=public_bytes(OTHER).hex()), OTHER)
    with pytest.raises(BundleError, match=r"signer: found .* expected one that is trusted"):
        runtime.load(ada_copy)
    trusting = Runtime(run / "device" / "base", trusted=[public_bytes(k).hex() for k in (KEY, OTHER)])
    assert trusting.load(ada_copy).owner == "ada"
    resign(ada_copy, lambda m: m.update(signer=public_bytes(KEY).hex()), OTHER)
    with pytest.raises(BundleError, match=r"manifest\.sig"):
        runtime.load(ada_copy)


def test_a_base_of_a_signer_that_is_not_trusted_is_refused(run):
    with pytest.raises(BundleError, match="signer: found"):
        Runtime(run / "device" / "base", trusted=[public_bytes(OTHER).hex()])


@pytest.mark.parametrize(
    "name", ["../ada/x", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "C:x", "manifest.json", "x\n"]
)
def test_a_file_name_that_could_leave_the_folder_is_refused(runtime, ada_copy, name):
    edit(ada_copy, lambda m: m["files"].update({name: {"sha256": DIGEST, "bytes": 0}}))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        runtime.load(ada_copy)


def test_an_adapter_bundle_is_no_base_and_a_base_bundle_no_adapter(run, runtime):
    with pytest.raises(BundleError, match="found 'base', expected a bundle of kind 'adapter'"):
        runtime.load(run / "device" / "base")
    with pytest.raises(BundleError, match="found 'adapter', expected a bundle of kind 'base'"):
        Runtime(run / "device" / "adapters" / "ada")


def test_a_base_whose_graph_was_stamped_for_another_is_refused(base_copy):
    resign(base_copy, lambda m: m.update(base_fingerprint="1" * 64))
    with pytest.raises(BundleError, match="base: found '111111111111…'"):
        Runtime(base_copy)


def test_an_adapter_loaded_for_another_base_is_refused_when_it_is_used(runtime, ada):
    stranger = type(ada)(ada.manifest.model_copy(update={"base_fingerprint": "1" * 64}), ada.handle)
    for use in (lambda: runtime.logits([1], stranger), lambda: runtime.complete("Hi", stranger)):
        with pytest.raises(BundleError, match="adapter of ada"):
            use()


def test_a_manifest_reads_back_as_it_was_written_whatever_the_order_of_its_fields():
    files = {"b.bin": File(sha256=DIGEST, bytes=3), "a.bin": File(sha256=DIGEST, bytes=0)}
    facts = {
        "kind": "adapter",
        "base_fingerprint": DIGEST,
        "name": "Zoë",
        "tensors": {"x": (None, 3)},
        "signer": DIGEST,
    }
    one = Manifest(**facts, files=files, details={"b": 1, "a": [None, "x"]})
    two = Manifest(**facts, files=dict(reversed(files.items())), details={"a": [None, "x"], "b": 1})
    assert one.to_json() == two.to_json()
    assert Manifest.from_json(one.to_json(), "here") == one


def test_what_cannot_be_read_cannot_be_written():
    with pytest.raises(ValidationError):
        Manifest(kind="adapter", base_fingerprint="short", name="x", files={}, tensors={})


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_far_larger_than_listed_is_refused_before_anything_of_it_is_read(ada_copy, base_copy, shared):
    for folder, kind, name in ((ada_copy, "adapter", ADAPTER), (base_copy, "base", "model.onnx.data")):
        bundle = Bundle.open(folder, kind)
        os.truncate(folder / name, 200 << 30)
        with pytest.raises(BundleError, match=rf"{name}: found '{200 << 30} bytes'"):
            bundle.read(name)
        with pytest.raises(BundleError, match=rf"{name}: found '{200 << 30} bytes'"):
            bundle.verify()
    (base_copy / "model.onnx").chmod(0o666 if shared else 0o600)  # copied first where others could change it
    with pytest.raises(BundleError, match=rf"model.onnx.data: found '{200 << 30} bytes'"):
        Runtime(base_copy)


@pytest.mark.parametrize("name", [ADAPTER, "adapter_config.json", "manifest.json"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(runtime, ada_copy, name):
    (ada_copy / name).unlink()
    os.mkfifo(ada_copy / name)
    with pytest.raises(BundleError, match=rf"{name}: found 'a pipe or a device'"):
        runtime.load(ada_copy)


def test_reading_a_file_proves_the_bytes_it_returns(ada_copy):
    bundle = Bundle.open(ada_copy, "adapter")
    before = bundle.read(ADAPTER)
    flip_bit(ada_copy / ADAPTER)
    with pytest.raises(BundleError, match="sha256"):
        bundle.read(ADAPTER)
    assert len(before) == bundle.manifest.files[ADAPTER].bytes
