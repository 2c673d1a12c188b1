"""A base's identity hangs on its weights, all of them, and on nothing else."""

import json
from hashlib import sha256

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fedpeft.base import load_base
from fedpeft.base.fingerprint import fingerprint
from fedpeft.base.locate import BUILTIN
from fedpeft.errors import BaseError

KEYBOARD = BUILTIN / "keyboard"
NAMES = {torch.bfloat16: "BF16", torch.float32: "F32"}


def test_it_is_the_documented_hash_over_tensors_in_order_of_name():
    digest = sha256(b"fedpeft-base/v1")
    with safe_open(KEYBOARD / "model.safetensors", "pt") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            content = tensor.contiguous().view(torch.uint8).numpy().tobytes()
            digest.update(json.dumps([name, NAMES[tensor.dtype], list(tensor.shape), len(content)]).encode())
            digest.update(content)
    assert fingerprint(KEYBOARD) == digest.hexdigest()


def test_a_base_in_float32_has_the_fingerprint_of_its_bfloat16_original(home):
    bases = [load_base("keyboard", dtype) for dtype in ("bfloat16", "float32", "float16")]
    assert len({base.folder for base in bases}) == 3
    assert {base.fingerprint for base in bases} == {fingerprint(KEYBOARD)}


def test_it_does_not_depend_on_how_the_weights_are_divided_into_files(tmp_path):
    model = load_base("keyboard").model
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="1MB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 3
    (tmp_path / "by hand").mkdir()
    weights = sorted(load_file(KEYBOARD / "model.safetensors").items())
    for number, part in enumerate((weights[1::2], weights[::2])):  # neither file in order, nor the files
        save_file(dict(part), tmp_path / "by hand" / f"{number}.safetensors")
    found = {fingerprint(tmp_path / folder) for folder in ("whole", "sharded", "by hand")}
    assert found == {fingerprint(KEYBOARD)}


def test_it_does_not_depend_on_metadata_or_configuration(copied):
    weights = load_file(copied / "model.safetensors")
    save_file(weights, copied / "model.safetensors", {"format": "pt", "note": "copied by hand"})
    (copied / "generation_config.json").write_text("{}")
    assert (copied / "model.safetensors").read_bytes() != (KEYBOARD / "model.safetensors").read_bytes()
    assert fingerprint(copied) == fingerprint(KEYBOARD)


@pytest.mark.parametrize("place", [-1, -3_000_001, -7_000_000])
@pytest.mark.parametrize("bit", [0, 7])
def test_one_flipped_bit_changes_it(edit, place, bit):
    def flip(content: bytes) -> bytes:
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        return bytes(damaged)

    assert fingerprint(edit(flip)) != fingerprint(KEYBOARD)


@pytest.mark.parametrize("change", ["name", "shape", "dtype"])
def test_the_same_bytes_under_another_name_shape_or_type_are_another_base(copied, change):
    weights = load_file(copied / "model.safetensors")
    norm = weights.pop("model.norm.weight")
    renamed = {
        "name": {"model.norm.wait": norm},
        "shape": {"model.norm.weight": norm[None]},
        "dtype": {"model.norm.weight": norm.view(torch.float16)},
    }[change]
    save_file({**weights, **renamed}, copied / "model.safetensors")
    assert fingerprint(copied) != fingerprint(KEYBOARD)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 5_000, 1_000_000, -1])
def test_truncated_weights_are_refused(edit, kept):
    with pytest.raises(BaseError, match=r"base weights .*model\.safetensors.*expected a whole safetensors file"):
        fingerprint(edit(lambda content: content[:kept]))


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "{}",
        '{"a": {}}',
        '{"a": 3}',
        '{"a": {"dtype": "F32", "shape": [2]}}',
        '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8]}}',
        "\\xff",
    ],
)
def test_a_header_that_makes_no_sense_is_refused(edit, header):
    with pytest.raises(BaseError, match="weights"):
        fingerprint(edit(lambda _: len(header).to_bytes(8, "little") + header.encode() + bytes(64)))


def test_a_header_longer_than_its_file_is_refused_without_reading_that_much(edit):
    with pytest.raises(BaseError, match="a whole safetensors file"):
        fingerprint(edit(lambda content: (2**63).to_bytes(8, "little") + content[8:]))


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(BaseError, match=r"found 'no \*\.safetensors', expected weights in safetensors format"):
        fingerprint(tmp_path)
